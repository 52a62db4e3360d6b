"""What models expect of architectures that nobody has evaluated: figures, feasibility, hypervolume."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from controller.algorithms.archive import Archive
from controller.core.architecture import Architecture
from controller.core.objective import Constraint, Objective, decisive
from controller.core.protocols import Problem
from controller.core.trial import TrialState
from controller.pareto.front import Box, FloatArray, sign
from controller.pareto.improvement import FreeRegion
from controller.prediction.encoding import Encoded, Encoder
from controller.prediction.gaussian_process import GaussianProcess

_ROWS = 400  # that models learn from: their cost grows with the cube
_FITTEST_ROWS = 300  # of them, where more are known
_LOOKED_AT = 200  # candidates whose expected improvement is found
_QUANTILES = ndtri((np.arange(16) + 0.5) / 16)
_SCALE_PERCENTILE = 99
_CACHED = 20_000  # architectures whose numbers are kept
_UNUSABLE = (TrialState.FAILED, TrialState.DISTURBED)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """How a figure is modelled: as the logarithm of what it is above a floor, minimised.

    The floor lies beyond the best by as much as the median lies behind, so that differences among the best count and
    better ones stay conceivable. Near the best, costs are then the sums that they are, and far behind it factors.
    """

    sign: float
    floor: float

    @classmethod
    def of(cls, objective: Objective, values: FloatArray) -> "_Scale":
        by = sign(objective)
        minimised = by * values
        best = float(minimised.min())
        spread = float(np.median(minimised)) - best or float(minimised.max()) - best or 1.0
        return cls(sign=by, floor=best - spread)

    def modelled(self, values: FloatArray) -> FloatArray:
        logarithms: FloatArray = np.log(np.maximum(self.sign * values - self.floor, 1e-12))
        return logarithms

    def minimised(self, modelled: FloatArray) -> FloatArray:
        values: FloatArray = np.exp(modelled) + self.floor
        return values


class Outlook:
    """Models of every figure that a problem is decided by.

    Args:
        problem: What is searched, and for what.
        seed: Of the random architectures that tell how architectures differ.
    """

    def __init__(self, problem: Problem, seed: int) -> None:
        self._problem = problem
        self._encoder = Encoder(problem.space, seed)
        judged_by = decisive(problem.objectives, problem.constraints)
        # What analysis tells need not be predicted; of a table's rows it may be known only once they are evaluated.
        self._predicted = {o.key: o for o in judged_by if o.key not in self._encoder.always_told}
        options = [len(choice.options) for choice in problem.space.choices]
        self._models = {key: GaussianProcess(options, self._encoder.figures) for key in self._predicted}
        self._scales: dict[str, _Scale] = {}
        self._cache: dict[str, tuple[Encoded, Mapping[str, float]]] = {}

    def spread(self, count: int) -> list[Architecture]:
        """Return so many architectures that lie far apart, to learn from first; fewer where few differ."""
        return self._encoder.spread(count)

    @property
    def hyperparameters(self) -> Mapping[str, tuple[float, ...]]:
        """Of each model; set them to go on from there."""
        return {key: tuple(model.hyperparameters.tolist()) for key, model in self._models.items()}

    @hyperparameters.setter
    def hyperparameters(self, values: Mapping[str, Sequence[float]]) -> None:
        for key, given in values.items():
            self._models[key].hyperparameters = np.array(given)

    def learn(self, archive: Archive, *, tune: bool) -> None:
        """Fit every model to what is known.

        Args:
            archive: What is known.
            tune: Whether to fit hyperparameters as well.
        """
        members = self._rows(archive)
        rows, _ = self._known([archive.architecture(member) for member in members])
        for key, model in self._models.items():
            values = np.array([self._value(archive, member, key) for member in members])
            there = np.isfinite(values)
            if not there.any():
                continue
            # A failure teaches to keep away: it counts as the worst that is known.
            failed = np.array([archive.trials[member].state is TrialState.FAILED for member in members])
            by = sign(self._predicted[key])
            values[failed] = by * (by * values[there]).max()
            there |= failed
            self._scales[key] = _Scale.of(self._predicted[key], values[there])
            known = rows.rows(np.flatnonzero(there))
            model.fit(known.codes, known.figures, self._scales[key].modelled(values[there]), tune=tune)

    def best(
        self, offered: Sequence[Architecture], archive: Archive, pending: Sequence[Architecture], count: int
    ) -> list[int]:
        """Return the places of those offered that are expected to add most hypervolume, best first.

        Args:
            offered: Architectures to choose from.
            archive: What is known, and models were fitted to.
            pending: Architectures that are being evaluated; they are believed to become what is predicted.
            count: How many at most; each takes those before it for evaluated.
        """
        box = Box.around(archive.points(archive.complete()), _SCALE_PERCENTILE)
        front = box.scaled(archive.points(archive.front()))
        if pending:
            front = np.concatenate([front, box.scaled(self._forecast(pending).middle)])
        view = self._forecast(offered)
        region = FreeRegion.of(front, box.reference)
        hopeful = region.improvement(box.scaled(view.optimistic)) * view.feasible
        looked_at = np.argsort(-hopeful, kind="stable")[:_LOOKED_AT]
        quantiles = (view.quantiles[looked_at] - box.low[:, None]) / box.span[:, None]
        chosen: list[int] = []
        for _ in range(min(count, len(looked_at))):
            if chosen:
                region = region.without(box.scaled(view.middle[looked_at[chosen[-1]]]))
            expected = region.expected_improvement(quantiles) * view.feasible[looked_at]
            expected[chosen] = -1.0
            chosen.append(int(np.argmax(expected)))
        return [int(looked_at[place]) for place in chosen]

    def _rows(self, archive: Archive) -> list[int]:
        """Return the members to learn from: the fittest, and of the others as many as fit in, evenly spaced."""
        usable = [
            member for member, trial in enumerate(archive.trials) if trial.state is not TrialState.DISTURBED
        ]
        if len(usable) <= _ROWS:
            return usable
        ordered = archive.fittest_first(usable)
        others = np.sort(ordered[_FITTEST_ROWS:])
        spaced = others[np.linspace(0, len(others) - 1, _ROWS - _FITTEST_ROWS).astype(np.int64)]
        return sorted({*ordered[:_FITTEST_ROWS].tolist(), *spaced.tolist()})

    def _value(self, archive: Archive, member: int, key: str) -> float:
        trial = archive.trials[member]
        return trial.values.get(key, np.nan) if trial.state not in _UNUSABLE else np.nan

    def _known(self, architectures: Sequence[Architecture]) -> tuple[Encoded, list[Mapping[str, float]]]:
        """Return architectures as numbers, and what analysis tells of each: found once for each of them."""
        if len(self._cache) > _CACHED:
            self._cache.clear()
        new = list({found.id: found for found in architectures if found.id not in self._cache}.values())
        figures = [self._problem.space.figures(found) for found in new]
        encoded = self._encoder.encode(new, figures)
        for place, found in enumerate(new):
            self._cache[found.id] = encoded.rows([place]), figures[place]
        rows = [self._cache[found.id] for found in architectures]
        return Encoded.concatenated([row for row, _ in rows]), [known for _, known in rows]

    def _forecast(self, architectures: Sequence[Architecture]) -> "_Forecast":
        rows, figures = self._known(architectures)
        predicted = {
            key: self._models[key].predict(rows.codes, rows.figures)
            for key in self._models
            if key in self._scales
        }
        quantiles, optimistic, middle = [], [], []
        for objective in self._problem.objectives:
            if objective.key in predicted:
                mean, deviation = predicted[objective.key]
                scale = self._scales[objective.key]
                quantiles.append(scale.minimised(mean[:, None] + deviation[:, None] * _QUANTILES))
                optimistic.append(scale.minimised(mean - deviation))
                middle.append(scale.minimised(mean))
            else:
                exact = sign(objective) * np.array([known[objective.key] for known in figures])
                quantiles.append(np.repeat(exact[:, None], len(_QUANTILES), axis=1))
                optimistic.append(exact)
                middle.append(exact)
        feasible = np.ones(len(architectures))
        for constraint in self._problem.constraints:
            feasible *= self._chance(constraint, predicted, figures)
        return _Forecast(
            quantiles=np.stack(quantiles, axis=1),
            optimistic=np.stack(optimistic, axis=1),
            middle=np.stack(middle, axis=1),
            feasible=feasible,
        )

    def _chance(
        self,
        constraint: Constraint,
        predicted: Mapping[str, tuple[FloatArray, FloatArray]],
        figures: Sequence[Mapping[str, float]],
    ) -> FloatArray:
        """Return how likely each architecture is to meet a constraint, shape (n,)."""
        key = constraint.objective.key
        if key not in predicted:
            return np.array([float(constraint.violation(known) == 0) for known in figures])
        mean, deviation = predicted[key]
        scale = self._scales[key]
        bound = scale.modelled(np.array([constraint.bound]))[0]
        # The model minimises: of a figure that is maximised, a bound from below is one from above.
        below = constraint.upper == (scale.sign > 0)
        chance: FloatArray = ndtr((bound - mean) / deviation if below else (mean - bound) / deviation)
        return chance


@dataclass(frozen=True, slots=True, kw_only=True)
class _Forecast:
    """What is expected of architectures, objectives minimised.

    Attributes:
        quantiles: Equally likely values, shape (n, n_objectives, n_quantiles).
        optimistic: One deviation better than expected, shape (n, n_objectives).
        middle: As expected, shape (n, n_objectives).
        feasible: Chance that every constraint is met, shape (n,).
    """

    quantiles: FloatArray
    optimistic: FloatArray
    middle: FloatArray
    feasible: FloatArray
