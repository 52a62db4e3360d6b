import pytest

from controller.core.architecture import Architecture
from controller.core.trial import Trial, TrialState, left_out

ARCHITECTURE = Architecture.of({"depth": 3})


@pytest.mark.parametrize(
    ("state", "violation", "finished", "feasible"),
    [
        (TrialState.PENDING, 0.0, False, False),
        (TrialState.COMPLETE, 0.0, True, True),
        (TrialState.COMPLETE, 0.1, True, False),
        (TrialState.REJECTED, 0.1, True, False),
        (TrialState.FAILED, 0.0, True, False),
        (TrialState.DISTURBED, 0.0, True, False),
    ],
)
def test_trial_is_feasible_when_complete_within_every_constraint(
    state: TrialState, violation: float, finished: bool, feasible: bool
):
    trial = Trial(index=0, architecture=ARCHITECTURE, state=state, violation=violation)
    assert (trial.finished, trial.feasible) == (finished, feasible)


def test_trial_is_named_by_its_architecture():
    assert Trial(index=7, architecture=ARCHITECTURE).id == ARCHITECTURE.id


def test_what_was_left_out_is_counted_by_flag_and_device():
    flags = [{"pi4": ("NOISE", "CI_NOT_REACHED")}, {"pi4": ("NOISE", "DRIFT")}, {"nano": ("CANARY",)}]
    disturbed = [
        Trial(index=index, architecture=ARCHITECTURE, state=TrialState.DISTURBED, flags=raised)
        for index, raised in enumerate(flags)
    ]
    kept = Trial(index=3, architecture=ARCHITECTURE, state=TrialState.COMPLETE, flags={"pi4": ("FREQ",)})

    assert left_out([*disturbed, kept]) == (
        "3 of 4 candidates were left out, measured under disturbance (NOISE@pi4 2, DRIFT@pi4 1, CANARY@nano 1)"
    )
    assert left_out([kept]) == ""
