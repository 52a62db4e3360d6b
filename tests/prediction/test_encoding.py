from collections.abc import Callable, Mapping

import numpy as np
import pytest

from controller.core.architecture import Architecture, Choice
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


class Told:
    """A space of one choice of 50 options, whose figures are as told."""

    choices = (Choice(name="a", options=tuple(range(50))),)

    def __init__(self, figure: Callable[[int], Mapping[str, float]]) -> None:
        self.figures = lambda architecture: figure(int(architecture["a"]))

    def sample(self, rng: np.random.Generator) -> Architecture:
        return Architecture.of({"a": int(rng.integers(50))})


def encoded(figure: Callable[[int], Mapping[str, float]]) -> np.ndarray:
    space = Told(figure)
    every = [Architecture.of({"a": option}) for option in range(50)]
    return Encoder(space).encode(every, [space.figures(found) for found in every]).figures


@pytest.mark.parametrize("shift", [-100.0, -25.0, 0.5])
def test_figures_below_zero_keep_their_order(shift: float):
    (column,) = encoded(lambda option: {"proxy.score": option + shift}).T
    assert np.all(np.diff(column) > 0)
    assert abs(column).max() < 5


@pytest.mark.parametrize("unknown", [np.inf, -np.inf, np.nan, None])
def test_what_is_no_number_is_like_the_mean(unknown: float | None):
    def figure(option: int) -> Mapping[str, float]:
        if option % 5:
            return {"proxy.score": option + 1.0}
        return {} if unknown is None else {"proxy.score": unknown}

    (column,) = encoded(figure).T
    assert np.all(column[::5] == 0)
    assert np.all(np.isfinite(column))
    assert np.std(column) > 0.5


@pytest.mark.parametrize("constant", [-3.0, 0.0, 0.1])
def test_figures_that_do_not_vary_or_are_rarely_known_are_left_out(constant: float):
    figures = encoded(
        lambda option: {"proxy.same": constant, **({"proxy.rare": 1.0 * option} if option < 9 else {})}
    )
    assert figures.shape == (50, 0)


def test_a_figure_below_all_that_were_seen_has_its_own_place_and_zero_that_of_the_least():
    space = Told(lambda option: {"macs_m": 1.0 + option})
    encoder = Encoder(space)
    every = [Architecture.of({"a": 0})] * 3
    zero, half, one = encoder.encode(every, [{"macs_m": 0.0}, {"macs_m": 0.5}, {"macs_m": 1.0}]).figures
    assert half < zero == one < 0
