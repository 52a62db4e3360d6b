from collections.abc import Sequence
from itertools import pairwise
from math import inf

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from controller.core.architecture import Architecture
from controller.core.objective import Objective
from controller.core.trial import Trial, TrialState
from controller.pareto.front import CoveredVolume, crowding_distance, front, minimised, non_dominated, ranks

ACCURACY, LATENCY = Objective.parse("accuracy"), Objective.parse("latency_ms@pi4")


@st.composite
def point_sets(draw: st.DrawFn) -> np.ndarray:
    """Draw up to 12 points of 1 to 4 objectives, from few values so that ties and duplicates are common."""
    dimensions = draw(st.integers(min_value=1, max_value=4))
    value = st.sampled_from((-2.0, 0.0, 0.5, 1.0, 3.0))
    rows = draw(st.lists(st.tuples(*[value] * dimensions), max_size=12))
    return np.array(rows, dtype=np.float64).reshape(len(rows), dimensions)


def dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    """Return whether first is nowhere worse and somewhere better, by the definition."""
    return all(a <= b for a, b in zip(first, second, strict=True)) and any(
        a < b for a, b in zip(first, second, strict=True)
    )


def undominated(points: np.ndarray) -> list[bool]:
    return [not any(dominates(other, point) for other in points) for point in points]


def loses(loser: Sequence[float], winner: Sequence[float]) -> bool:
    """Return whether EdgeNAS drops loser where winner is there."""
    return list(non_dominated(np.array([loser, winner]))) == [False, True]


def trial(
    index: int,
    accuracy: float,
    latency_ms: float,
    *,
    violation: float = 0.0,
    state: TrialState = TrialState.COMPLETE,
) -> Trial:
    return Trial(
        index=index,
        architecture=Architecture.of({"index": index}),
        state=state,
        values={"accuracy": accuracy, "latency_ms@pi4": latency_ms},
        violation=violation,
    )


VALUES = st.tuples(*[st.floats(-10, 10)] * 3)


@given(point=VALUES)
def test_dominance_is_irreflexive(point: tuple[float, ...]):
    assert list(non_dominated(np.array([point, point]))) == [True, True]


@given(first=VALUES, second=VALUES)
def test_dominance_is_asymmetric(first: tuple[float, ...], second: tuple[float, ...]):
    assert not (loses(first, second) and loses(second, first))


@given(data=st.data(), best=VALUES)
def test_dominance_is_transitive(data: st.DataObject, best: tuple[float, ...]):
    steps = st.tuples(*[st.floats(0, 1)] * 3)
    middle = tuple(np.add(best, data.draw(steps)))
    worst = tuple(np.add(middle, data.draw(steps)))
    assume(loses(middle, best) and loses(worst, middle))
    assert loses(worst, best)


@given(points=point_sets())
def test_non_dominated_equals_brute_force(points: np.ndarray):
    assert non_dominated(points).tolist() == undominated(points)


@given(points=point_sets())
def test_ranks_equal_brute_force(points: np.ndarray):
    expected = np.full(len(points), -1)
    rank = 0
    while (left := np.flatnonzero(expected < 0)).size:
        expected[left[undominated(points[left])]] = rank
        rank += 1
    assert ranks(points).tolist() == expected.tolist()


def test_crowding_distance_of_an_example():
    # Of the middle points: (4 - 0) / 10 + (9 - 3) / 9 and (10 - 2) / 10 + (6 - 0) / 9.
    points = np.array([[0.0, 9.0], [2.0, 6.0], [4.0, 3.0], [10.0, 0.0]])
    assert crowding_distance(points) == pytest.approx([inf, 0.4 + 6 / 9, 0.8 + 6 / 9, inf])


def test_crowding_distance_does_not_depend_on_the_order():
    points = np.array([[4.0, 3.0], [10.0, 0.0], [0.0, 9.0], [2.0, 6.0]])
    assert crowding_distance(points) == pytest.approx([0.8 + 6 / 9, inf, inf, 0.4 + 6 / 9])


def test_crowding_distance_of_an_objective_that_never_changes_is_finite():
    points = np.array([[0.0, 5.0], [1.0, 5.0], [4.0, 5.0]])
    assert crowding_distance(points)[1] == pytest.approx(1.0)


@pytest.mark.parametrize("count", [1, 2])
def test_crowding_distance_of_one_or_two_points_is_infinite(count: int):
    assert crowding_distance(np.arange(2.0 * count).reshape(count, 2)).tolist() == [inf] * count


def test_minimised_negates_what_is_maximised():
    assert minimised([ACCURACY, LATENCY], [trial(0, 0.9, 12.0), trial(1, 0.8, 5.0)]).tolist() == [
        [-0.9, 12.0],
        [-0.8, 5.0],
    ]


def test_minimised_keeps_the_shape_where_there_are_no_trials():
    assert minimised([ACCURACY, LATENCY], []).shape == (0, 2)


def test_front_is_sorted_by_the_first_objective():
    slow, fast, middle = trial(0, 0.95, 20.0), trial(1, 0.7, 2.0), trial(2, 0.9, 10.0)
    dominated = trial(3, 0.89, 11.0)
    trials = [fast, dominated, slow, middle]
    assert front([ACCURACY, LATENCY], trials) == [slow, middle, fast]
    assert front([LATENCY, ACCURACY], trials) == [fast, middle, slow]


def test_front_keeps_equally_good_trials():
    twins = [trial(0, 0.9, 10.0), trial(1, 0.9, 10.0)]
    assert front([ACCURACY, LATENCY], twins) == twins


@pytest.mark.parametrize(
    "infeasible",
    [
        trial(1, 0.99, 1.0, violation=0.1),
        trial(1, 0.99, 1.0, state=TrialState.PENDING),
        trial(1, 0.99, 1.0, state=TrialState.REJECTED, violation=0.1),
        trial(1, 0.99, 1.0, state=TrialState.FAILED),
    ],
    ids=lambda trial: f"{trial.state.value}, violation {trial.violation}",
)
def test_front_leaves_out_what_is_not_feasible(infeasible: Trial):
    kept = trial(0, 0.5, 50.0)
    assert front([ACCURACY, LATENCY], [kept, infeasible]) == [kept]


def test_front_of_one_objective_is_the_best_trial():
    trials = [trial(0, 0.8, 5.0), trial(1, 0.9, 50.0)]
    assert front([ACCURACY], trials) == [trials[1]]


def test_front_of_nothing_is_empty():
    assert front([ACCURACY, LATENCY], []) == []


def test_covered_volume_of_an_example():
    # The box reaches from the ideal (accuracy 1, 0 ms) to the worst seen (accuracy 0.5, 10 ms).
    volume = CoveredVolume([ACCURACY, LATENCY], settle=2)
    trials = [trial(0, 0.5, 2.0), trial(1, 0.9, 10.0)]
    assert volume.share(trials) == pytest.approx(0.0)
    # Better than the worst by 0.25 of 0.5 and by 5 of 10 ms.
    assert volume.share([*trials, trial(2, 0.75, 5.0)]) == pytest.approx(0.25)


def test_covered_volume_is_unknown_until_enough_trials_are_feasible():
    volume = CoveredVolume([ACCURACY, LATENCY], settle=2)
    assert volume.share([trial(0, 0.9, 2.0), trial(1, 0.8, 1.0, violation=1.0)]) is None


def test_covered_volume_ignores_what_is_not_feasible():
    volume = CoveredVolume([ACCURACY, LATENCY], settle=2)
    trials = [trial(0, 0.5, 2.0), trial(1, 0.9, 10.0), trial(2, 0.75, 5.0)]
    assert volume.share([*trials, trial(3, 1.0, 0.0, violation=0.1)]) == volume.share(trials)


@given(rows=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1e3)), min_size=3, max_size=30))
def test_covered_volume_never_falls(rows: list[tuple[float, float]]):
    trials = [trial(index, *row) for index, row in enumerate(rows)]
    volume = CoveredVolume([ACCURACY, LATENCY], settle=3)
    shares = [volume.share(trials[:count]) for count in range(3, len(trials) + 1)]
    assert all(0 <= share <= 1 + 1e-9 for share in shares)
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(shares))


@given(rows=st.lists(st.floats(0, 1), min_size=2, max_size=10))
def test_covered_volume_of_one_objective_is_the_way_to_the_ideal(rows: list[float]):
    trials = [trial(index, accuracy, 1.0) for index, accuracy in enumerate(rows)]
    worst = min(rows[:2])
    assume(worst < 0.99)
    share = CoveredVolume([ACCURACY], settle=2).share(trials)
    assert share == pytest.approx((max(rows) - worst) / (1 - worst))
