"""What an algorithm was told, as the arrays that it decides on."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from controller.core.architecture import Architecture
from controller.core.objective import Objective
from controller.core.protocols import Rng
from controller.core.trial import Trial, TrialState
from controller.pareto.front import FloatArray, crowding_distance, minimised, non_dominated, ranks

IntArray = npt.NDArray[np.int64]


class Archive:
    """Every trial told of, in order; a member is known by its place in that order.

    Args:
        objectives: What better means.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self._objectives = tuple(objectives)
        self._trials: list[Trial] = []
        self._points: list[FloatArray] = []
        self._violations: list[float] = []
        self._complete: list[int] = []
        self._feasible: list[int] = []
        self._front: list[int] = []

    def __len__(self) -> int:
        return len(self._trials)

    def add(self, trials: Sequence[Trial]) -> None:
        """Add trials, complete, rejected, disturbed or failed."""
        for trial in trials:
            complete = trial.state is TrialState.COMPLETE
            self._trials.append(trial)
            self._points.append(
                minimised(self._objectives, [trial])[0]
                if complete
                else np.full(len(self._objectives), np.nan)
            )
            self._violations.append(trial.violation if complete or trial.violation else np.inf)
            if complete:
                self._complete.append(len(self._trials) - 1)
            if trial.feasible:
                self._feasible.append(len(self._trials) - 1)
                self._join_front(len(self._trials) - 1)

    @property
    def trials(self) -> Sequence[Trial]:
        """The trials, in order."""
        return self._trials

    def architecture(self, member: int) -> Architecture:
        """Return what a member is."""
        return self._trials[member].architecture

    def points(self, members: Sequence[int] | IntArray) -> FloatArray:
        """Return minimised objectives of complete members, shape (n_members, n_objectives)."""
        return np.array([self._points[member] for member in members]).reshape(-1, len(self._objectives))

    def complete(self) -> IntArray:
        """Return the members of which every objective is known, shape (n_complete,)."""
        return np.array(self._complete, dtype=np.int64)

    def feasible(self) -> IntArray:
        """Return the complete members that meet every constraint, shape (n_feasible,)."""
        return np.array(self._feasible, dtype=np.int64)

    def front(self) -> IntArray:
        """Return the feasible members that no other dominates, shape (n_front,)."""
        return np.array(self._front, dtype=np.int64)

    def centres(self, otherwise: int) -> IntArray:
        """Return the front, or so many of the fittest where nothing is feasible yet: what to look around."""
        front = self.front()
        return front if len(front) else self.fittest_first(range(len(self)))[:otherwise]

    def fittest_first(self, members: Sequence[int]) -> IntArray:
        """Return members ordered: feasible ones by rank, then crowding; then the others, by violation.

        Source: Deb et al. 2002, NSGA-II, sections III and VI.
        """
        places = np.asarray(members, dtype=np.int64)
        violations = np.array([self._violations[member] for member in places])
        feasible = np.flatnonzero(violations == 0)
        rank = np.full(len(places), np.inf)
        crowding = np.zeros(len(places))
        if len(feasible):
            points = self.points(places[feasible])
            rank[feasible] = ranks(points)
            for front in np.unique(rank[feasible]):
                inside = np.flatnonzero(rank[feasible] == front)
                crowding[feasible[inside]] = crowding_distance(points[inside])
        return places[np.lexsort((-crowding, rank, violations))]

    def _join_front(self, member: int) -> None:
        candidates = [*self._front, member]
        kept = non_dominated(self.points(candidates))
        self._front = [candidate for candidate, stays in zip(candidates, kept, strict=True) if stays]


def tournament(fittest_first: Sequence[int] | IntArray, entrants: int, rng: Rng) -> int:
    """Return the fittest of so many members drawn with replacement."""
    return int(fittest_first[int(rng.integers(len(fittest_first), size=entrants).min())])
