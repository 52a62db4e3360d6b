"""Algorithms compared on a table: each asks, the table answers, nothing is trained or measured.

The figure is the share of the table's hypervolume that the first n distinct architectures cover. Each objective,
as one to be minimised, is scaled so that the table's minimum is 0 and its 99th percentile 1; the reference
point is 1.1 in each.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from controller.algorithms import ALGORITHMS, WITH_SUPERNET
from controller.core.architecture import Architecture
from controller.core.errors import ConfigurationError
from controller.core.objective import FRACTION, Constraint, Objective, broken, check_each_once, decisive
from controller.core.plugins import find_plugin
from controller.core.protocols import Problem, SearchAlgorithm
from controller.core.table import Table
from controller.core.trial import Trial, TrialState
from controller.pareto.front import Box, minimised
from controller.spaces.tabular import TabularSpace

CHECKPOINTS = (25, 50, 100, 200, 400)
"""Numbers of evaluations at which algorithms are compared."""
REPLAYABLE = tuple(name for name in ALGORITHMS if name not in WITH_SUPERNET)
"""The algorithms that can search a table."""

_SCALE_PERCENTILE = 99


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One run of one algorithm on a table.

    Attributes:
        hypervolume: Share of the table's hypervolume after each checkpoint.
        regret: By objective, how far the best of all evaluated is from the table's best, in its unit.
        seconds_per_ask: Mean time for one architecture, asking and being told, up to each checkpoint.
    """

    hypervolume: tuple[float, ...]
    regret: tuple[float, ...]
    seconds_per_ask: tuple[float, ...]


class Replay:
    """A table ready to be searched.

    Args:
        table: What became of each architecture. Rows that lack a figure asked for are left out.
        objectives: What is optimised; columns of the table.
        constraints: What a row must meet to count.

    Raises:
        ConfigurationError: If an objective is given twice, a column is missing, does not vary, or is in another unit than a
            constraint on it, or no row meets the constraints.
    """

    def __init__(
        self, table: Table, objectives: Sequence[Objective], constraints: Sequence[Constraint] = ()
    ) -> None:
        check_each_once(objectives)
        wanted = decisive(objectives, constraints)
        for objective in wanted:
            if objective.key not in table.figures:
                raise ConfigurationError(
                    f"table {table.name} has no column {objective.key!r}; expected one of {', '.join(table.figures)}"
                )
        complete = table.where(
            np.all([np.isfinite(table.figures[objective.key]) for objective in wanted], axis=0)
        )
        self.left_out = len(table.architectures) - len(complete.architectures)
        for constraint in constraints:
            largest = complete.figures[constraint.objective.key].max(initial=0.0)
            if constraint.objective.metric.unit == FRACTION and largest > 1:
                raise ConfigurationError(
                    f"constraint {constraint} is on a fraction, and table {table.name} has {constraint.objective.key} up to "
                    f"{largest:g}; divide that column by 100"
                )
        columns = {
            **complete.before_evaluation(),
            **{objective.key: complete.figures[objective.key] for objective in wanted},
        }
        self._trials = {
            architecture: _trial(
                architecture, row, {key: float(column[row]) for key, column in columns.items()}, constraints
            )
            for row, architecture in enumerate(complete.architectures)
        }
        feasible = [trial for trial in self._trials.values() if trial.feasible]
        if not feasible:
            raise ConfigurationError(
                f"no row of table {table.name} meets {', '.join(map(str, constraints)) or 'what was asked'}"
            )
        self.problem = Problem(
            space=TabularSpace(complete), objectives=tuple(objectives), constraints=tuple(constraints)
        )
        points = minimised(objectives, list(self._trials.values()))
        self._box = Box.around(points, _SCALE_PERCENTILE)
        scale = np.percentile(points, _SCALE_PERCENTILE, axis=0)
        for objective, varies in zip(objectives, scale > self._box.low, strict=True):
            if not varies:
                raise ConfigurationError(
                    f"column {objective.key!r} of table {table.name} does not vary among the best {_SCALE_PERCENTILE} % of its "
                    "rows; leave it out"
                )
        self._best = minimised(objectives, feasible).min(axis=0)
        self._whole = self._covered(feasible)
        if self._whole <= 0:
            raise ConfigurationError(
                f"every row of table {table.name} that meets {', '.join(map(str, constraints))} is beyond the scale of "
                f"{' and '.join(o.key for o in objectives)}, whose end is the {_SCALE_PERCENTILE}th percentile of all rows; loosen it"
            )

    def __len__(self) -> int:
        return len(self._trials)

    def checkpoints(self, evaluations: int) -> list[int]:
        """Return after how many evaluations to look, the last being all that are allowed, or all that there are."""
        last = min(evaluations, len(self))
        return [*(checkpoint for checkpoint in CHECKPOINTS if checkpoint < last), last]

    def trials(self, architectures: Sequence[Architecture], first_index: int = 0) -> list[Trial]:
        """Return what became of architectures, rows of the table: one trial each, in this order."""
        return [
            replace(self._trials[architecture], index=index)
            for index, architecture in enumerate(architectures, start=first_index)
        ]

    def run(
        self, algorithm: Callable[[Problem, int], SearchAlgorithm], seed: int, checkpoints: Sequence[int]
    ) -> Replayed:
        """Return how one algorithm does with one seed; it is told of each architecture before it is asked for the next.

        Args:
            algorithm: Builds it; it is asked and told, and neither saved nor restored.
            seed: Of its random draws.
            checkpoints: Numbers of evaluations after which to look, ascending.
        """
        searching = algorithm(self.problem, seed)
        told: list[Trial] = []
        seen: set[Architecture] = set()
        hypervolume_at, seconds_at, spent_s = [], [], 0.0
        for checkpoint in checkpoints:
            while len(told) < checkpoint:
                started = time.perf_counter()
                asked = [architecture for architecture in searching.ask(1) if architecture not in seen]
                trials = self.trials(asked, first_index=len(told))
                searching.tell(trials)
                spent_s += time.perf_counter() - started
                if not trials:
                    break
                seen.update(asked)
                told += trials
            hypervolume_at.append(self._covered(told) / self._whole)
            seconds_at.append(spent_s / max(1, len(told)))
        feasible = [trial for trial in told if trial.feasible]
        best = minimised(self.problem.objectives, feasible).min(axis=0, initial=np.inf)
        return Replayed(
            hypervolume=tuple(hypervolume_at),
            regret=tuple((best - self._best).tolist()),
            seconds_per_ask=tuple(seconds_at),
        )

    def _covered(self, trials: Sequence[Trial]) -> float:
        feasible = [trial for trial in trials if trial.feasible]
        return self._box.covered(minimised(self.problem.objectives, feasible))


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """How an algorithm stands after so many evaluations.

    Attributes:
        evaluations: Distinct architectures evaluated.
        hypervolume_mean: Share of the table's hypervolume, mean over seeds.
        hypervolume_std: Its standard deviation over seeds.
        seconds_per_ask: Mean time for one architecture, asking and being told.
    """

    evaluations: int
    hypervolume_mean: float
    hypervolume_std: float
    seconds_per_ask: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One algorithm on a table, over several seeds.

    Attributes:
        algorithm: Its name.
        checkpoints: How it stands after each number of evaluations.
        regret: By objective, how far the best found in the end is from the table's best; mean over seeds.
    """

    algorithm: str
    checkpoints: tuple[Checkpoint, ...]
    regret: tuple[float, ...]

    @classmethod
    def of(cls, algorithm: str, checkpoints: Sequence[int], runs: Sequence[Replayed]) -> "Comparison":
        """Return what runs come to.

        Args:
            algorithm: Its name.
            checkpoints: Numbers of evaluations after which each run was looked at.
            runs: One a seed, at least one.
        """
        covered = np.array([run.hypervolume for run in runs])
        seconds = np.array([run.seconds_per_ask for run in runs])
        return cls(
            algorithm=algorithm,
            checkpoints=tuple(
                Checkpoint(
                    evaluations=checkpoint,
                    hypervolume_mean=float(covered[:, place].mean()),
                    hypervolume_std=float(covered[:, place].std()),
                    seconds_per_ask=float(seconds[:, place].mean()),
                )
                for place, checkpoint in enumerate(checkpoints)
            ),
            regret=tuple(np.mean([run.regret for run in runs], axis=0).tolist()),
        )


def compared(replay: Replay, algorithm: str, *, seeds: Sequence[int], evaluations: int) -> Comparison:
    """Return how an algorithm does on a table.

    Args:
        replay: The table.
        algorithm: A name in `controller.algorithms`, or of a plugin.
        seeds: One run each, at least one.
        evaluations: Distinct architectures to evaluate in each run; all where the table has fewer.

    Raises:
        ConfigurationError: If nobody provides the algorithm, or it cannot search a table.
    """
    factory = find_plugin("algorithms", ALGORITHMS, algorithm)
    at = replay.checkpoints(evaluations)
    return Comparison.of(algorithm, at, [replay.run(factory, seed, at) for seed in seeds])


def _trial(
    architecture: Architecture, index: int, values: Mapping[str, float], constraints: Sequence[Constraint]
) -> Trial:
    excess = broken(constraints, values)
    return Trial(
        index=index,
        architecture=architecture,
        state=TrialState.REJECTED if excess else TrialState.COMPLETE,
        values=values,
        violation=sum(constraint.violation(values) for constraint in excess),
        reason=", ".join(f"breaks {constraint}" for constraint in excess),
    )
