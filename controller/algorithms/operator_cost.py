"""What a network is expected to cost, as a sum over the operators of a supernet: latency, parameters, multiply-accumulates.

Source: Cai et al. 2019, ProxylessNAS, section 3.3, for an expected latency that is summed over operators. Sums fail where a
runtime fuses operators, so they are rescaled by whole networks, and then by what networks near the target really took.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel

from controller.core.learning import FloatVector, MixableSpace
from controller.core.network import LAYER_FIGURES
from controller.core.protocols import Problem

LATENCY = "latency_ms"
_DUAL_RATE = 0.05
_KEPT = 0.5  # of the correction so far, with each network that was measured
_LEAST_USED, _AIMED, _MOST_USED = 0.92, 0.95, 0.98  # of a bound on what is measured, which scatters
_LEAST_BOUND = 1e-9


class OperatorCost(BaseModel):
    """What is known of one figure: a network has base + scale · the sum over its operators, in the figure's unit.

    Attributes:
        device: That measures it; empty where analysis tells it.
        bound: What a network may have at most; None where less is merely better.
        costs: Of each option by choice, in the supernet.
        base: What every network has.
        scale: What becomes of an operator's cost in a network.
        correction: Measured over expected, of the latest networks.
        weight: Of the expected figure in the loss.
    """

    device: str
    bound: float | None
    costs: dict[str, list[float]] = {}
    base: float = 0.0
    scale: float = 1.0
    correction: float = 1.0
    weight: float = 0.0

    @property
    def is_target(self) -> bool:
        """Whether there is a bound that is to be used: one on what is measured."""
        return bool(self.device) and self.bound is not None

    def fit(self, shares: Sequence[Mapping[str, FloatVector]], wholes: Sequence[float]) -> None:
        """Learn from whole networks what every one has, and what becomes of an operator's cost.

        Args:
            shares: Of each network, 1 for the options that it is made of, else 0.
            wholes: What each has.
        """
        self.base, self.scale = _line([self.sum(of_one) for of_one in shares], wholes)

    def sum(self, shares: Mapping[str, FloatVector]) -> float:
        """Return the sum over operators."""
        return sum(float(shares[name] @ np.array(costs)) for name, costs in self.costs.items())

    def expected(self, shares: Mapping[str, FloatVector]) -> float:
        """Return the figure of a mixture, or of a network, whose shares are 0 or 1; without the correction."""
        return self.base + self.scale * self.sum(shares)

    def correct(self, shares: Mapping[str, FloatVector], measured: float) -> None:
        """Learn from what one network has.

        Args:
            shares: Of the network.
            measured: What it has.
        """
        expected = self.expected(shares)
        if expected > 0:
            self.correction = _KEPT * self.correction + (1 - _KEPT) * measured / expected

    def room(self, share: float) -> float:
        """Return what operators may have together, or a share of it where that is measured: up to the bound, or what the largest have."""
        if self.bound is None:
            most = self.correction * self.scale * sum(max(costs) for costs in self.costs.values())
        else:
            most = self.bound * (_AIMED if self.device else 1.0) - self.correction * self.base
        return max(1e-9, most * (share if self.device else 1.0))

    def used(self, shares: Mapping[str, FloatVector], share: float) -> float:
        """Return what a network is expected to have, over what it may have when its operators have that share of the room."""
        allowed = self.correction * self.base + self.room(share)
        return self.correction * self.expected(shares) / allowed

    def excess(self, measured: float) -> float:
        """Return by what share of the bound a network is too near to it, or beyond: measured again, it might not fit."""
        return 0.0 if self.bound is None else max(0.0, measured / self.bound - _MOST_USED)

    def unused(self, measured: float) -> float:
        """Return what share of the bound a network should use more of."""
        return 0.0 if self.bound is None else max(0.0, _LEAST_USED - measured / self.bound)

    def slopes(self, shares: Mapping[str, FloatVector]) -> dict[str, FloatVector]:
        """Return the slope of λ · relu(expected / bound - 1) by the shares, after a step of the dual variable λ."""
        if self.bound is None:
            return {}
        excess = self.expected(shares) / self.bound - 1
        self.weight = max(0.0, self.weight + _DUAL_RATE * excess)
        if excess <= 0:
            return {}
        factor = self.weight * self.scale / self.bound
        return {name: factor * np.array(costs) for name, costs in self.costs.items()}


def costs_of(problem: Problem, space: MixableSpace) -> dict[str, OperatorCost]:
    """Return what a network is decided by and is a sum over operators, by objective, with the tightest bound on it."""
    found: dict[str, OperatorCost] = {}
    for objective in problem.objectives:
        if objective.metric.name == LATENCY and objective.device:
            found[objective.key] = OperatorCost(device=objective.device, bound=None)
    limits = space.bounds()
    bounds = [(name, "", limits[name]) for name in LAYER_FIGURES if np.isfinite(limits.get(name, np.inf))]
    for constraint in problem.constraints:
        objective = constraint.objective
        is_latency = objective.metric.name == LATENCY and objective.device is not None
        if constraint.upper and (is_latency or objective.key in LAYER_FIGURES):
            bounds.append((objective.key, objective.device or "", max(constraint.bound, _LEAST_BOUND)))
    for key, device, bound in bounds:
        cost = found.setdefault(key, OperatorCost(device=device, bound=None))
        cost.bound = bound if cost.bound is None else min(bound, cost.bound)
    return found


def _line(sums: Sequence[float], whole: Sequence[float]) -> tuple[float, float]:
    """Return base and scale of the line nearest to the points, neither below 0; the mean ratio where no line fits."""
    if len(set(sums)) > 1:
        scale, base = np.polyfit(sums, whole, 1)
        if scale > 0 and base >= 0:
            return float(base), float(scale)
    total = sum(sums)
    return 0.0, sum(whole) / total if total > 0 else 1.0
