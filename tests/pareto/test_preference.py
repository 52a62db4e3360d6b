from math import inf, nan

import pytest

from controller.core.architecture import Architecture
from controller.core.errors import ConfigurationError, NotFoundError
from controller.core.objective import Objective
from controller.core.trial import Trial, TrialState
from controller.pareto.selection import select, select_weighted

OBJECTIVES = [Objective.parse(text, "pi4") for text in ("accuracy", "latency_ms", "peak_memory_mb")]


def trial(index: int, accuracy: float, latency_ms: float, memory_mb: float) -> Trial:
    return Trial(
        index=index,
        architecture=Architecture.of({"index": index}),
        state=TrialState.COMPLETE,
        values={"accuracy": accuracy, "latency_ms@pi4": latency_ms, "peak_memory_mb@pi4": memory_mb},
    )


# Scaled to the front's span, its middle is nearest to the best of all three at once.
ACCURATE, MIDDLE, FAST, SMALL = FRONT = [
    trial(0, 0.95, 20.0, 9.0),
    trial(1, 0.92, 6.0, 4.0),
    trial(2, 0.80, 1.0, 5.0),
    trial(3, 0.75, 2.0, 1.0),
]


@pytest.mark.parametrize(
    ("preference", "selected"),
    [
        ("knee", MIDDLE),
        ("accuracy", ACCURATE),
        ("latency_ms", FAST),
        ("latency_ms@pi4", FAST),
        ("peak_memory_mb@pi4", SMALL),
        (FAST.id, FAST),
        (SMALL.id[:6], SMALL),
    ],
)
def test_select_finds_what_a_preference_means(preference: str, selected: Trial):
    assert select(FRONT, OBJECTIVES, preference) is selected


@pytest.mark.parametrize("preference", ["latency_ms@nano", "best", "", ACCURATE.id + "0"])
def test_select_refuses_what_means_no_single_candidate(preference: str):
    with pytest.raises(NotFoundError) as caught:
        select(FRONT, OBJECTIVES, preference)
    message = str(caught.value)
    assert message.startswith(f"selection {preference!r} fits ")
    assert "expected knee, one of accuracy, latency_ms@pi4, peak_memory_mb@pi4, or one of the ids " in message
    assert all(candidate.id in message for candidate in FRONT)


def test_select_refuses_the_beginning_of_several_ids():
    many = [trial(index, 0.9, 1.0, 1.0) for index in range(40)]
    prefix = next(
        candidate.id[0] for candidate in many if sum(other.id[0] == candidate.id[0] for other in many) == 3
    )
    with pytest.raises(NotFoundError, match=f"selection '{prefix}' fits 3 candidates"):
        select(many, OBJECTIVES, prefix)


@pytest.mark.parametrize("preference", ["knee", "accuracy", "latency_ms"])
def test_select_of_a_front_of_one_is_that_one(preference: str):
    assert select([MIDDLE], OBJECTIVES, preference) is MIDDLE


@pytest.mark.parametrize(
    ("weights", "selected"),
    [
        ({"accuracy": 1.0}, ACCURATE),
        ({"latency": 1.0}, FAST),
        ({"memory": 1.0}, SMALL),
        ({"latency_ms@pi4": 2.0}, FAST),
        ({"peak_memory_mb": 0.1}, SMALL),
        ({"accuracy": 1.0, "latency": 1.0, "memory": 1.0}, MIDDLE),
        ({"accuracy": 1.0, "latency": 0.0}, ACCURATE),
        ({"accuracy": 0.7, "latency": 0.2, "memory": 0.1}, MIDDLE),
    ],
    ids=str,
)
def test_select_weighted_finds_the_least_weighted_sum(weights: dict[str, float], selected: Trial):
    assert select_weighted(FRONT, OBJECTIVES, weights) is selected


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_select_weighted_depends_on_the_proportions_of_the_weights_alone(factor: float):
    weights = {"accuracy": 0.7 * factor, "latency": 0.2 * factor, "memory": 0.1 * factor}
    assert select_weighted(FRONT, OBJECTIVES, weights) is MIDDLE


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        ({"accuracy": -1.0}, "accuracy=-1"),
        ({"energy": 1.0}, "energy=1"),
        ({"accuracy": 1.0, "latency_ms@nano": 0.5}, "latency_ms@nano=0.5"),
        ({"accuracy": nan}, "accuracy=nan"),
        ({"accuracy": inf}, "accuracy=inf"),
    ],
    ids=str,
)
def test_select_weighted_refuses_a_weight_that_does_not_fit(weights: dict[str, float], named: str):
    with pytest.raises(ConfigurationError) as caught:
        select_weighted(FRONT, OBJECTIVES, weights)
    assert str(caught.value) == (
        f"weight {named} does not fit; expected a number of at least 0 for one of accuracy, latency_ms@pi4, peak_memory_mb@pi4"
    )


@pytest.mark.parametrize("weights", [{}, {"accuracy": 0.0, "latency": 0.0}], ids=str)
def test_select_weighted_refuses_weights_of_nothing(weights: dict[str, float]):
    with pytest.raises(
        ConfigurationError, match="all weights are 0; give at least one objective some weight"
    ):
        select_weighted(FRONT, OBJECTIVES, weights)
