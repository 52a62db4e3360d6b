"""Chain spaces and networks drawn at random: every operation, odd sizes, one channel, one pixel."""

import numpy as np
from hypothesis import strategies as st

from controller.core.network import Network
from controller.spaces import ChainSpace
from controller.spaces.operations import OPERATIONS

SEEDS = st.integers(min_value=0, max_value=2**32 - 1)


@st.composite
def chain_spaces(draw: st.DrawFn) -> ChainSpace:
    """Draw a space of small networks, for images of 1 × 1 to 19 × 19 pixels."""
    side = st.integers(min_value=1, max_value=19)
    min_layers = draw(st.integers(min_value=1, max_value=3))
    return ChainSpace(
        input_shape=(draw(st.sampled_from((1, 3))), draw(side), draw(side)),
        classes=draw(st.integers(min_value=2, max_value=5)),
        min_layers=min_layers,
        max_layers=draw(st.integers(min_value=min_layers, max_value=6)),
        operations=tuple(OPERATIONS),
        channels=draw(st.sampled_from(((4,), (3, 8), (4, 6, 8, 12)))),
        max_skip_distance=draw(st.integers(min_value=0, max_value=3)),
        stem_channels=draw(st.sampled_from((4, 5))),
    )


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Draw a network of a chain space."""
    space = draw(chain_spaces())
    return space.lower(space.sample(np.random.default_rng(draw(SEEDS))))
