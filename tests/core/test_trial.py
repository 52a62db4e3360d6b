import pytest

from controller.core.architecture import Architecture
from controller.core.trial import Trial, TrialState

ARCHITECTURE = Architecture.of({"depth": 3})


@pytest.mark.parametrize(
    ("state", "violation", "finished", "feasible"),
    [
        (TrialState.PENDING, 0.0, False, False),
        (TrialState.COMPLETE, 0.0, True, True),
        (TrialState.COMPLETE, 0.1, True, False),
        (TrialState.REJECTED, 0.1, True, False),
        (TrialState.FAILED, 0.0, True, False),
    ],
)
def test_trial_is_feasible_when_complete_within_every_constraint(
    state: TrialState, violation: float, finished: bool, feasible: bool
):
    trial = Trial(index=0, architecture=ARCHITECTURE, state=state, violation=violation)
    assert (trial.finished, trial.feasible) == (finished, feasible)


def test_trial_is_named_by_its_architecture():
    assert Trial(index=7, architecture=ARCHITECTURE).id == ARCHITECTURE.id
