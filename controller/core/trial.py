"""One candidate's history."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from controller.core.architecture import Architecture
from controller.core.measurement import CONTAMINATING


class TrialState(Enum):
    """How far a candidate has come."""

    PENDING = "pending"
    """Asked for; not everything about it is known yet."""
    COMPLETE = "complete"
    """Measured and trained."""
    REJECTED = "rejected"
    """Breaks a constraint by analysis or by measurement; never trained."""
    FAILED = "failed"
    """Could not be measured or trained; the reason is kept."""
    DISTURBED = "disturbed"
    """Measured while something else shaped the figures, twice; they are kept, but nothing is chosen by them."""
    STOPPED = "stopped"
    """Measured, and trained for as long as it was worth it; others are better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One candidate, and all that is known of it.

    Attributes:
        index: Position in the order in which candidates were asked for, from 0.
        architecture: What was chosen.
        state: How far it has come.
        epochs: Fidelity: the epochs it was trained for, 0 before training.
        values: Figures by objective key, e.g. `latency_ms@pi4`. Only what is known.
        violation: Sum of the relative excess over broken constraints; 0 where all are met.
        reason: Why it was rejected, stopped or left out, or failed; empty otherwise.
        training_s: Seconds spent training.
        measuring_s: Seconds spent waiting for devices.
        measurements: Request id of the latest measurement by device.
        flags: What a reader of that measurement must know, by device, e.g. `CI_NOT_REACHED`; only where there is something.
    """

    index: int
    architecture: Architecture
    state: TrialState = TrialState.PENDING
    epochs: int = 0
    values: Mapping[str, float] = field(default_factory=dict)
    violation: float = 0.0
    reason: str = ""
    training_s: float = 0.0
    measuring_s: float = 0.0
    measurements: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The architecture's content id: a run holds each architecture once."""
        return self.architecture.id

    @property
    def finished(self) -> bool:
        """Whether nothing more will be found out about it during the search."""
        return self.state is not TrialState.PENDING

    @property
    def feasible(self) -> bool:
        """Whether it is complete and meets every constraint."""
        return self.state is TrialState.COMPLETE and self.violation == 0


def accuracy_after(epochs: int) -> str:
    """Return the key of the accuracy that a trial had after so many epochs of its training."""
    return f"accuracy_{epochs}_epochs"


def left_out(trials: Sequence[Trial]) -> str:
    """Return how many trials were left out for their flags, and which those were; empty where none was."""
    disturbed = [trial for trial in trials if trial.state is TrialState.DISTURBED]
    if not disturbed:
        return ""
    flags = Counter(
        f"{flag}@{device}"
        for trial in disturbed
        for device, raised in trial.flags.items()
        for flag in raised
        if flag in CONTAMINATING
    )
    counts = ", ".join(f"{flag} {count}" for flag, count in flags.most_common())
    return (
        f"{len(disturbed)} of {len(trials)} candidates were left out, measured under disturbance ({counts})"
    )
