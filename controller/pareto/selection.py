"""Rules by which one trial of a front is chosen; of several that are as good, the first.

Differences count as shares of the front's span, so that no rule depends on an objective's unit, and an objective in
which all are equal decides nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controller.core.objective import Objective
from controller.core.trial import Trial
from controller.pareto.front import Box, FloatArray, crowding_distance, minimised

# What differs by less, as a share of the front's span, does so by rounding alone; where 1 is the whole.
_DECIMALS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An objective in an order of importance, and how much of it may be given up.

    Attributes:
        objective: What is looked at.
        tolerance: How much worse than the best is as good, in the objective's unit, or as a share of the best value.
        relative: Whether tolerance is a share.
    """

    objective: Objective
    tolerance: float = 0.0
    relative: bool = False

    def as_good_as_best(self, trials: Sequence[Trial]) -> list[Trial]:
        """Return those of trials, at least one, that are within tolerance of the best of them."""
        values = minimised([self.objective], trials)[:, 0]
        best = values.min()
        allowed = self.tolerance * abs(best) if self.relative else self.tolerance
        if allowed > 0:
            # 0.30 - 0.29 is more than 0.01 by rounding, and nobody means that.
            allowed += 10**-_DECIMALS * abs(best)
        return [trial for trial, value in zip(trials, values, strict=True) if value <= best + allowed]


def knee(objectives: Sequence[Objective], trials: Sequence[Trial]) -> Trial:
    """Return the trial nearest to having the best of every objective at once.

    Args:
        objectives: What was optimised.
        trials: The front, at least one.
    """
    return _least(trials, np.linalg.norm(_scaled(objectives, trials), axis=1))


def weighted(objectives: Sequence[Objective], weights: FloatArray, trials: Sequence[Trial]) -> Trial:
    """Return the trial with the least weighted sum of objectives.

    Args:
        objectives: What was optimised.
        weights: Importance of each objective, shape (n_objectives,); at least one is positive, none is negative.
        trials: The front, at least one.
    """
    return _least(trials, _scaled(objectives, trials) @ (weights / weights.max()))


def lexicographic(objectives: Sequence[Objective], steps: Sequence[Step], trials: Sequence[Trial]) -> Trial:
    """Return the trial that is left when each objective in turn keeps those that are as good as the best.

    What steps leave tied, other objectives decide, in their order; then those of steps again, without tolerance.

    Args:
        objectives: What was optimised.
        steps: Objectives in order of importance; they may be other figures than those optimised.
        trials: The front, at least one.
    """
    stated = [step.objective for step in steps]
    others = [objective for objective in objectives if objective not in stated]
    left = list(trials)
    for step in (*steps, *(Step(objective=objective) for objective in (*others, *stated))):
        left = step.as_good_as_best(left)
    return left[0]


def vote(objectives: Sequence[Objective], trials: Sequence[Trial]) -> Trial:
    """Return the trial that several ways of judging a front elect together.

    The voters are each objective, the distance to the best of all objectives at once, their sum, the hypervolume that
    only this trial covers, and the crowding distance. Each gives a trial one point for every other that it puts behind
    it, and takes one for every other in front. Of trials with as many points, the best in the first objective is
    elected, then in the second, and so on. Trials with equal objectives stand as one.

    Args:
        objectives: What was optimised.
        trials: The front, at least one.

    Source: Borda 1781, Mémoire sur les élections au scrutin; we differ: where a voter puts two trials level, neither
    gains nor loses. The voters: Deb et al. 2002, NSGA-II, section III-B, for crowding; Beume et al. 2007, SMS-EMOA, for
    the hypervolume.
    """
    points, first = np.unique(_scaled(objectives, trials), axis=0, return_index=True)
    costs = [
        np.linalg.norm(points, axis=1),
        points.sum(axis=1),
        -_covered_alone(points),
        -crowding_distance(points),
    ]
    ballots = _settled(np.array([*points.T, *costs]))
    before, after = ballots[:, :, None], ballots[:, None, :]
    score = (before < after).sum(axis=(0, 2)) - (before > after).sum(axis=(0, 2))
    return trials[int(first[np.argmax(score)])]


def _scaled(objectives: Sequence[Objective], trials: Sequence[Trial]) -> FloatArray:
    """Return minimised objectives so that trials span [0, 1] in each, or are all 0."""
    points = minimised(objectives, trials)
    return _settled(Box.around(points).scaled(points))


def _settled(values: FloatArray) -> FloatArray:
    """Return values of order 1 without the digits that only rounding made."""
    settled: FloatArray = np.round(values, _DECIMALS)
    return settled


def _least(trials: Sequence[Trial], costs: FloatArray) -> Trial:
    return trials[int(np.argmin(_settled(costs)))]


def _covered_alone(points: FloatArray) -> FloatArray:
    """Return the hypervolume that no other of points covers, shape (n_points,).

    Args:
        points: Different from each other, in [0, 1], shape (n_points, n_objectives).
    """
    box = Box.around(points)
    whole = box.covered(points)
    return np.array([whole - box.covered(np.delete(points, index, axis=0)) for index in range(len(points))])
