"""Dominance, the front, and how much of the objective space it covers."""

from collections.abc import Sequence
from dataclasses import dataclass

import moocore
import numpy as np
import numpy.typing as npt

from controller.core.objective import Direction, Objective
from controller.core.trial import Trial

FloatArray = npt.NDArray[np.float64]


def sign(objective: Objective) -> float:
    """Return what turns an objective's values into ones to be minimised: -1 where more is better, else 1."""
    return -1.0 if objective.metric.direction is Direction.MAXIMISE else 1.0


def minimised(objectives: Sequence[Objective], trials: Sequence[Trial]) -> FloatArray:
    """Return the trials' objective values with every objective to be minimised.

    Returns:
        Shape (n_trials, n_objectives), in the objectives' units, those to be maximised negated.

    Raises:
        KeyError: If a trial lacks a value.
    """
    signs = [(objective.key, sign(objective)) for objective in objectives]
    rows = [[by * trial.values[key] for key, by in signs] for trial in trials]
    return np.array(rows, dtype=np.float64).reshape(len(trials), len(objectives))


def non_dominated(points: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which points no other dominates; of equal points all are kept.

    Args:
        points: Minimised objectives, shape (n_points, n_objectives).

    Returns:
        Shape (n_points,).
    """
    if not len(points):
        return np.zeros(0, dtype=bool)
    kept: npt.NDArray[np.bool_] = moocore.is_nondominated(points, keep_weakly=True)
    return kept


def ranks(points: FloatArray) -> npt.NDArray[np.int64]:
    """Return each point's front: 0 for the non-dominated ones, 1 for those left without them, and so on.

    Args:
        points: Minimised objectives, shape (n_points, n_objectives).

    Returns:
        Shape (n_points,).
    """
    if not len(points):
        return np.zeros(0, dtype=np.int64)
    fronts: npt.NDArray[np.int64] = np.asarray(moocore.pareto_rank(points), dtype=np.int64)
    return fronts


def hypervolume(points: FloatArray, reference: FloatArray) -> float:
    """Return the volume that points dominate within reference.

    Args:
        points: Minimised objectives, shape (n_points, n_objectives); those beyond reference count nothing.
        reference: Shape (n_objectives,).
    """
    return float(moocore.hypervolume(points, ref=reference)) if len(points) else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A box in the space of objectives, for scaling them to about [0, 1].

    Attributes:
        low: Minimised objectives that become 0, shape (n_objectives,).
        span: How much more becomes 1, shape (n_objectives,); 1 where the points do not vary.
    """

    low: FloatArray
    span: FloatArray

    @classmethod
    def around(cls, points: FloatArray, percentile: float = 100.0) -> "Box":
        """Return the box from the best value of each objective to a percentile.

        Args:
            points: Minimised objectives, at least one point, shape (n_points, n_objectives).
            percentile: Of each objective.
        """
        low = points.min(axis=0)
        span = np.percentile(points, percentile, axis=0) - low
        return cls(low=low, span=np.where(span > 0, span, 1.0))

    def scaled(self, points: FloatArray) -> FloatArray:
        """Return points of shape (…, n_objectives) in units of the box."""
        scaled: FloatArray = (points - self.low) / self.span
        return scaled

    @property
    def reference(self) -> FloatArray:
        """Reference point in units of the box, a tenth beyond it: 1.1 in each objective."""
        return np.full(len(self.low), 1.1)

    def covered(self, points: FloatArray) -> float:
        """Return the hypervolume of points, in units of the box."""
        return hypervolume(self.scaled(points), self.reference)


def crowding_distance(points: FloatArray) -> FloatArray:
    """Return each point's crowding distance within one front.

    Args:
        points: Minimised objectives, shape (n_points, n_objectives).

    Returns:
        Dimensionless distances, shape (n_points,); the extremes are inf.

    Source: Deb et al. 2002, NSGA-II, section III-B.
    """
    count, dimensions = points.shape
    distances = np.zeros(count)
    for axis in range(dimensions):
        order = np.argsort(points[:, axis], kind="stable")
        values = points[order, axis]
        distances[order[[0, -1]]] = np.inf
        span = values[-1] - values[0]
        if span > 0:
            distances[order[1:-1]] += (values[2:] - values[:-2]) / span
    return distances


def front(objectives: Sequence[Objective], trials: Sequence[Trial]) -> list[Trial]:
    """Return the feasible trials that no feasible trial dominates, best first in the first objective."""
    candidates = [trial for trial in trials if trial.feasible]
    points = minimised(objectives, candidates)
    kept = np.flatnonzero(non_dominated(points))
    return [candidates[index] for index in sorted(kept, key=lambda index: tuple(points[index]))]


class CoveredVolume:
    """Share of the objective space that a front covers, for showing progress.

    The box is fixed once `settle` trials are known: it reaches from the best value that a metric can have
    (1 for an accuracy, 0 for a cost) to the worst one of those trials. So the share never falls as long as
    trials are only added; it may when a later measurement replaces an earlier one.

    Args:
        objectives: What is optimised.
        settle: Feasible trials to wait for.
    """

    def __init__(self, objectives: Sequence[Objective], settle: int = 8) -> None:
        self._objectives = objectives
        self._settle = settle
        self._ideal = np.array(
            [-1.0 if o.metric.direction is Direction.MAXIMISE else 0.0 for o in objectives]
        )
        self._reference: FloatArray | None = None

    def share(self, trials: Sequence[Trial]) -> float | None:
        """Return the share in [0, 1] that the feasible trials cover; None while too few are known.

        Args:
            trials: All trials so far, oldest first.
        """
        feasible = [trial for trial in trials if trial.feasible]
        if len(feasible) < self._settle:
            return None
        points = minimised(self._objectives, feasible)
        if self._reference is None:
            worst = points[: self._settle].max(axis=0)
            self._reference = np.where(worst > self._ideal, worst, self._ideal + 1.0)
        covered = hypervolume(points, self._reference)
        return covered / float(np.prod(self._reference - self._ideal))
