"""Runs and trials as Python objects and as rows of the tables."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from sqlalchemy import Row

from controller.core.architecture import Architecture
from controller.core.trial import Trial, TrialState
from controller.store.owner import Owner


class RunState(Enum):
    """What became of a run."""

    RUNNING = "running"
    STOPPED = "stopped"
    """Ended before its budget was spent; can be resumed."""
    FINISHED = "finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A search and how it was asked for.

    Attributes:
        id: Short and unique in the store.
        created_at: When it was first started, UTC.
        state: What became of it; a run that was killed still says RUNNING.
        configuration: The resolved configuration, ready for JSON.
        environment: Versions and revision of what ran it, ready for JSON.
        elapsed_s: Time spent on it by all processes so far.
        owner: The process at work on it.
    """

    id: str
    created_at: datetime
    state: RunState
    configuration: Mapping[str, Any]
    environment: Mapping[str, str]
    elapsed_s: float
    owner: Owner | None

    @property
    def interrupted(self) -> bool:
        """Whether its process ended without saying so."""
        return self.state is RunState.RUNNING and (self.owner is None or self.owner.gone)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedTrials:
    """A run's trials in the order asked for, and how many of them the algorithm has been told of."""

    trials: tuple[Trial, ...]
    told: int
    algorithm_state: bytes | None


def run_of(row: Row[Any]) -> Run:
    """Return the run in a row of the table of runs."""
    return Run(
        id=row.id,
        created_at=datetime.fromisoformat(row.created_at),
        state=RunState(row.state),
        configuration=json.loads(row.configuration),
        environment=json.loads(row.environment),
        elapsed_s=row.elapsed_s,
        owner=Owner.parse(row.owner),
    )


def columns_of(trial: Trial) -> dict[str, Any]:
    """Return the columns of a trial, but for the run's."""
    return {
        "trial_id": trial.id,
        "position": trial.index,
        "architecture": trial.architecture.to_json(),
        "state": trial.state.value,
        "epochs": trial.epochs,
        "objective_values": json.dumps(dict(trial.values)),
        "violation": trial.violation,
        "reason": trial.reason,
        "training_s": trial.training_s,
        "measuring_s": trial.measuring_s,
        "measurements": json.dumps(dict(trial.measurements)),
        "flags": json.dumps(dict(trial.flags)),
    }


def trial_of(row: Row[Any]) -> Trial:
    """Return the trial in a row of the table of trials."""
    return Trial(
        index=row.position,
        architecture=Architecture.from_json(row.architecture),
        state=TrialState(row.state),
        epochs=row.epochs,
        values=json.loads(row.objective_values),
        violation=row.violation,
        reason=row.reason,
        training_s=row.training_s,
        measuring_s=row.measuring_s,
        measurements=json.loads(row.measurements),
        flags={device: tuple(flags) for device, flags in json.loads(row.flags).items()},
    )
