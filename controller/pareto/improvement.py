"""How much hypervolume a candidate would add to a front, and how much it is expected to.

What no point dominates below the reference is cut into boxes that do not overlap. A candidate's improvement is the
sum over boxes of the part that it would dominate, which is a product over objectives; so where a candidate's
objectives are uncertain independently of each other, the expectation is a product of expectations.

Source: Lacour et al. 2017, A box decomposition algorithm to compute the hypervolume indicator, sections 2 and 4;
Klamroth et al. 2015, On the representation of the search region in multi-objective optimization; Emmerich et al. 2011,
Hypervolume-based expected improvement, for the factors.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from controller.pareto.front import FloatArray, non_dominated


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeRegion:
    """What a front leaves undominated.

    Attributes:
        lower: Lower corners of its boxes, shape (n_boxes, n_objectives); -inf where they are open.
        upper: Upper corners, shape (n_boxes, n_objectives).
        holders: Of each upper corner the points that hold it in place, one an axis; shape (n_boxes, n_objectives,
            n_objectives).
    """

    lower: FloatArray
    upper: FloatArray
    holders: FloatArray

    @classmethod
    def of(cls, points: FloatArray, reference: FloatArray) -> "FreeRegion":
        """Return what points leave undominated below reference.

        Args:
            points: Minimised objectives, shape (n_points, n_objectives).
            reference: Shape (n_objectives,).
        """
        inside = points[np.all(points < reference, axis=1)]
        front = _without_ties(np.unique(inside[non_dominated(inside)], axis=0))
        count = len(reference)
        holders = np.full((1, count, count), -np.inf)
        holders[0][np.diag_indices(count)] = reference
        upper = reference[None]
        for point in front:
            upper, holders = _held(upper, holders, point)
        return cls(lower=_lower(holders), upper=upper, holders=holders)

    def without(self, point: FloatArray) -> "FreeRegion":
        """Return what is left once a point is known as well.

        Args:
            point: Minimised objectives, shape (n_objectives,).
        """
        # The decomposition needs an order: ties are moved apart here as well.
        untied = point.copy()
        for axis in range(len(point)):
            while untied[axis] in self.holders[:, :, axis]:
                untied[axis] = np.nextafter(untied[axis], np.inf)
        upper, holders = _held(self.upper, self.holders, untied)
        return FreeRegion(lower=_lower(holders), upper=upper, holders=holders)

    def improvement(self, points: FloatArray) -> FloatArray:
        """Return the hypervolume that each point would add, shape (n_points,).

        Args:
            points: Minimised objectives, shape (n_points, n_objectives).
        """
        return self.expected_improvement(points[:, :, None])

    def expected_improvement(self, quantiles: FloatArray) -> FloatArray:
        """Return the hypervolume that each candidate is expected to add, shape (n_candidates,).

        Args:
            quantiles: Equally likely values of each objective, shape (n_candidates, n_objectives, n_quantiles).
        """
        product = np.ones((len(quantiles), len(self.upper)))
        for axis in range(self.upper.shape[1]):
            values = quantiles[:, axis]
            # E[max(0, u - max(l, Y))] is E[(u - Y)+] - E[(l - Y)+]; bounds repeat, so each is looked at once.
            edges, place = np.unique(
                np.concatenate([self.upper[:, axis], self.lower[:, axis]]), return_inverse=True
            )
            gains = np.maximum(edges - values[:, :, None], 0.0).mean(axis=1)
            above, below = place[: len(self.upper)], place[len(self.upper) :]
            product *= gains[:, above] - gains[:, below]
        expected: FloatArray = product.sum(axis=1)
        return expected


def _held(upper: FloatArray, holders: FloatArray, point: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the upper corners, and what holds them, once a point is known as well."""
    hit = np.all(point < upper, axis=1)
    all_upper, all_holders = [upper[~hit]], [holders[~hit]]
    for axis in range(len(point)):
        others = np.delete(holders[hit], axis, axis=1)[:, :, axis].max(axis=1, initial=-np.inf)
        kept = point[axis] > others
        moved, held = upper[hit][kept].copy(), holders[hit][kept].copy()
        moved[:, axis] = point[axis]
        held[:, axis] = point
        all_upper.append(moved)
        all_holders.append(held)
    return np.concatenate(all_upper), np.concatenate(all_holders)


def _lower(holders: FloatArray) -> FloatArray:
    """Return the lower corners of the boxes whose upper ones these hold, shape (n_boxes, n_objectives)."""
    lower = np.full(holders.shape[:2], -np.inf)
    for axis in range(1, holders.shape[1]):
        lower[:, axis] = holders[:, :axis, axis].max(axis=1)
    return lower


def _without_ties(points: FloatArray) -> FloatArray:
    """Return points with equal coordinates moved apart by one unit in the last place: the decomposition needs an order."""
    moved = points.copy()
    for axis in range(points.shape[1]):
        order = np.argsort(moved[:, axis], kind="stable")
        for before, after in itertools.pairwise(order):
            if moved[after, axis] <= moved[before, axis]:
                moved[after, axis] = np.nextafter(moved[before, axis], np.inf)
    return moved
