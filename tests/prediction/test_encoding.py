import numpy as np
import pytest

from controller.core.architecture import Architecture
from controller.prediction.encoding import Encoder
from controller.spaces import CellSpace, ChainSpace

SPACE = ChainSpace(input_shape=(1, 8, 8), classes=10)


def least_apart(architectures: list[Architecture]) -> float:
    """Return how far apart the two most alike are, choices and figures counting the same."""
    encoder = Encoder(SPACE)
    encoded = encoder.encode(architectures, [SPACE.figures(found) for found in architectures])
    return min(
        float(
            np.mean(encoded.codes[one] != encoded.codes[other])
            + np.mean(np.square(encoded.figures[one] - encoded.figures[other]))
        )
        for one in range(len(architectures))
        for other in range(one)
    )


def test_spread_architectures_lie_farther_apart_than_random_ones():
    rng = np.random.default_rng(0)
    random = [least_apart([SPACE.sample(rng) for _ in range(10)]) for _ in range(10)]
    spread = [least_apart(Encoder(SPACE, seed).spread(10)) for seed in range(3)]
    assert min(spread) > max(random)


def test_spread_covers_small_and_large_networks():
    macs = [SPACE.lower(architecture).macs for architecture in Encoder(SPACE).spread(10)]
    rng = np.random.default_rng(0)
    sampled = [SPACE.lower(SPACE.sample(rng)).macs for _ in range(100)]
    assert min(macs) < np.percentile(sampled, 10)
    assert max(macs) > np.percentile(sampled, 90)


def test_spread_depends_on_the_seed_alone():
    assert Encoder(SPACE, 3).spread(6) == Encoder(SPACE, 3).spread(6)
    assert Encoder(SPACE, 3).spread(6) != Encoder(SPACE, 4).spread(6)


@pytest.mark.parametrize("count", [1, 3, 500])
def test_spread_of_a_tiny_space_has_each_architecture_once(count: int):
    space = CellSpace(
        input_shape=(1, 4, 4),
        classes=2,
        nodes=2,
        operations=("zero", "conv1x1", "max_pool_3x3"),
        channels=(4,),
        cells=(1,),
    )
    found = Encoder(space).spread(count)
    assert len(set(found)) == len(found) <= count
    assert len(found) == min(count, 2)
