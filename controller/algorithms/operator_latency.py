"""The latency that a device is expected to need for a network, as a sum over the operators of a supernet.

Source: Cai et al. 2019, ProxylessNAS, section 3.3, for an expected latency that is summed over operators. Sums fail where a
runtime fuses operators, so they are rescaled by whole networks, and then by what networks near the target really took.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel

from controller.core.learning import FloatVector
from controller.core.protocols import Problem

LATENCY = "latency_ms"
_DUAL_RATE = 0.05
_KEPT = 0.5  # of the correction so far, with each network that was measured


class OperatorLatency(BaseModel):
    """What is known of a device: a network takes base_ms + scale · the sum of its operators' times.

    Attributes:
        target_ms: What a network may take; None where less is merely better.
        costs_ms: Time of each option by choice, in the supernet.
        base_ms: What every network takes.
        scale: What becomes of an operator's time in a network.
        correction: Measured over expected, of the latest networks.
        weight: Of the expected latency in the loss.
    """

    target_ms: float | None
    costs_ms: dict[str, list[float]] = {}
    base_ms: float = 0.0
    scale: float = 1.0
    correction: float = 1.0
    weight: float = 0.0

    def fit(self, shares: Sequence[Mapping[str, FloatVector]], whole_ms: Sequence[float]) -> None:
        """Learn from whole networks what every one takes, and what becomes of an operator's time.

        Args:
            shares: Of each network, 1 for the options that it is made of, else 0.
            whole_ms: What each took.
        """
        self.base_ms, self.scale = _line([self.sum_ms(of_one) for of_one in shares], whole_ms)

    def sum_ms(self, shares: Mapping[str, FloatVector]) -> float:
        """Return the sum of the operators' times."""
        return sum(float(shares[name] @ np.array(costs)) for name, costs in self.costs_ms.items())

    def expected_ms(self, shares: Mapping[str, FloatVector]) -> float:
        """Return the latency of a mixture, or of a network, whose shares are 0 or 1; without the correction."""
        return self.base_ms + self.scale * self.sum_ms(shares)

    def corrected_ms(self, shares: Mapping[str, FloatVector]) -> float:
        """Return what a network is expected to take, by what the latest ones took."""
        return self.correction * self.expected_ms(shares)

    def correct(self, shares: Mapping[str, FloatVector], measured_ms: float, *, kept: float = _KEPT) -> None:
        """Learn from what one network took.

        Args:
            shares: Of the network.
            measured_ms: What it took.
            kept: Share of the earlier correction that stays.
        """
        expected_ms = self.expected_ms(shares)
        if expected_ms > 0:
            self.correction = kept * self.correction + (1 - kept) * measured_ms / expected_ms

    def slopes(self, shares: Mapping[str, FloatVector]) -> dict[str, FloatVector]:
        """Return the slope of λ · relu(expected / target - 1) by the shares, after a step of the dual variable λ."""
        if self.target_ms is None:
            return {}
        excess = self.expected_ms(shares) / self.target_ms - 1
        self.weight = max(0.0, self.weight + _DUAL_RATE * excess)
        if excess <= 0:
            return {}
        factor = self.weight * self.scale / self.target_ms
        return {name: factor * np.array(costs) for name, costs in self.costs_ms.items()}


def devices_of(problem: Problem) -> dict[str, OperatorLatency]:
    """Return the devices whose latency counts, with the tightest bound on it."""
    found: dict[str, OperatorLatency] = {}
    for objective in problem.objectives:
        if objective.metric.name == LATENCY and objective.device:
            found.setdefault(objective.device, OperatorLatency(target_ms=None))
    for constraint in problem.constraints:
        objective = constraint.objective
        if objective.metric.name == LATENCY and objective.device and constraint.upper:
            device = found.setdefault(objective.device, OperatorLatency(target_ms=None))
            device.target_ms = min(constraint.bound, device.target_ms or constraint.bound)
    return found


def _line(sums: Sequence[float], whole: Sequence[float]) -> tuple[float, float]:
    """Return base and scale of the line nearest to the points, neither below 0; the mean ratio where no line fits."""
    if len(set(sums)) > 1:
        scale, base = np.polyfit(sums, whole, 1)
        if scale > 0 and base >= 0:
            return float(base), float(scale)
    total = sum(sums)
    return 0.0, sum(whole) / total if total > 0 else 1.0
