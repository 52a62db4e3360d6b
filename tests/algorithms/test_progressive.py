from dataclasses import replace

import pytest

from controller.algorithms import Progressive
from controller.core.objective import Objective
from controller.core.protocols import Problem
from controller.core.trial import Trial, TrialState, accuracy_after
from controller.spaces import ChainSpace

LATENCY = "latency_ms@pi4"
SPACE = ChainSpace(input_shape=(1, 8, 8), classes=10)


def progressive(*objectives: str, **options: float) -> Progressive:
    wanted = objectives or ("accuracy", LATENCY)
    problem = Problem(space=SPACE, objectives=tuple(Objective.parse(text) for text in wanted))
    return Progressive(problem, 0, **options)


def proposed(algorithm: Progressive, index: int, accuracy: float, latency_ms: float) -> Trial:
    """Return a candidate that was looked at after two epochs."""
    (architecture,) = algorithm.ask(1)
    values = {accuracy_after(2): accuracy, LATENCY: latency_ms}
    return Trial(index=index, architecture=architecture, epochs=2, values=values)


def told(algorithm: Progressive, accuracies: list[float]) -> None:
    for index, accuracy in enumerate(accuracies):
        trial = proposed(algorithm, index, accuracy, 1.0)
        values = {**trial.values, "accuracy": accuracy}
        algorithm.tell([replace(trial, state=TrialState.COMPLETE, epochs=5, values=values)])


@pytest.mark.parametrize(
    ("epochs", "rungs"), [(1, []), (2, [1]), (3, [1, 2]), (5, [2, 3]), (8, [2, 4]), (16, [4, 8])]
)
def test_candidates_are_looked_at_after_a_quarter_and_a_half_of_their_epochs(epochs: int, rungs: list[int]):
    assert list(progressive().rungs(epochs)) == rungs


def test_nothing_is_looked_at_where_all_are_kept_or_no_accuracy_counts():
    assert not progressive(kept=1.0).rungs(8)
    assert not progressive(LATENCY, "macs_m").rungs(8)


def test_the_better_half_goes_on():
    algorithm = progressive()
    told(algorithm, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])

    assert algorithm.worth_more(proposed(algorithm, 6, 0.45, 1.0), 2)
    assert not algorithm.worth_more(proposed(algorithm, 7, 0.25, 1.0), 2)


def test_what_no_other_dominates_goes_on_however_inaccurate():
    algorithm = progressive()
    told(algorithm, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])

    assert algorithm.worth_more(proposed(algorithm, 6, 0.05, 0.5), 2)


def test_candidates_are_compared_with_what_was_known_when_they_were_proposed():
    algorithm = progressive()
    told(algorithm, [0.1, 0.2, 0.1, 0.2])
    early = proposed(algorithm, 4, 0.3, 1.0)
    told(algorithm, [0.6] * 8)

    assert algorithm.worth_more(early, 2)
    assert not algorithm.worth_more(proposed(algorithm, 13, 0.3, 1.0), 2)


def test_too_few_to_compare_with_all_go_on():
    algorithm = progressive()
    told(algorithm, [0.6, 0.6, 0.6])

    assert algorithm.worth_more(proposed(algorithm, 3, 0.1, 1.0), 2)
