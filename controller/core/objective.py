"""What a search optimises and what it must keep to.

A metric is written `NAME` or `NAME@DEVICE`, a constraint `METRIC<=BOUND` or `METRIC>=BOUND`. Values are
stored as measured; they become minimised only inside `pareto/`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from controller.core.errors import ConfigurationError


class Direction(Enum):
    """Which way is better."""

    MINIMISE = "minimise"
    MAXIMISE = "maximise"


class Source(Enum):
    """Who finds out a metric's value, cheapest first."""

    ANALYSIS = "analysis"
    DEVICE = "device"
    TRAINING = "training"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A figure that EdgeNAS knows how to obtain."""

    name: str
    unit: str
    direction: Direction
    source: Source
    description: str


def _metric(
    name: str, unit: str, direction: Direction, source: Source, description: str
) -> tuple[str, Metric]:
    return name, Metric(name=name, unit=unit, direction=direction, source=source, description=description)


METRICS: Mapping[str, Metric] = dict(
    (
        _metric(
            "accuracy",
            "fraction",
            Direction.MAXIMISE,
            Source.TRAINING,
            "share of validation images classified right",
        ),
        _metric("latency_ms", "ms", Direction.MINIMISE, Source.DEVICE, "median time of one inference"),
        _metric(
            "latency_ms_p90",
            "ms",
            Direction.MINIMISE,
            Source.DEVICE,
            "90th percentile of the time of one inference",
        ),
        _metric(
            "peak_memory_mb",
            "MB",
            Direction.MINIMISE,
            Source.DEVICE,
            "resident memory the model adds, 10^6 bytes",
        ),
        _metric("load_ms", "ms", Direction.MINIMISE, Source.DEVICE, "time to load the model"),
        _metric("first_inference_ms", "ms", Direction.MINIMISE, Source.DEVICE, "time of the first inference"),
        _metric("energy_mj", "mJ", Direction.MINIMISE, Source.DEVICE, "net energy of one inference"),
        _metric("params_m", "10^6", Direction.MINIMISE, Source.ANALYSIS, "trainable parameters"),
        _metric(
            "macs_m", "10^6", Direction.MINIMISE, Source.ANALYSIS, "multiply-accumulates of one inference"
        ),
        _metric(
            "peak_activation_mb",
            "MB",
            Direction.MINIMISE,
            Source.ANALYSIS,
            "largest live activations, 10^6 bytes",
        ),
    )
)

_METRIC = re.compile(r"(?P<name>[a-z0-9_]+)(@(?P<device>[A-Za-z0-9._:\-]+))?")
_CONSTRAINT = re.compile(r"(?P<metric>[^<>=\s]+)\s*(?P<relation><=|>=)\s*(?P<bound>[0-9.eE+\-]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A metric, on a device where it takes one to measure it."""

    metric: Metric
    device: str | None

    @property
    def key(self) -> str:
        """How values of this objective are named everywhere, e.g. `latency_ms@pi4`."""
        return self.metric.name if self.device is None else f"{self.metric.name}@{self.device}"

    @classmethod
    def parse(cls, text: str, default_device: str | None = None) -> "Objective":
        """Return the objective written as `NAME` or `NAME@DEVICE`.

        Args:
            text: What the user wrote.
            default_device: The device meant where a measured metric names none.

        Raises:
            ConfigurationError: If the metric is unknown, or its device is missing or pointless.
        """
        match = _METRIC.fullmatch(text.strip())
        metric = METRICS.get(match["name"]) if match else None
        if match is None or metric is None:
            raise ConfigurationError(f"objective {text!r} is unknown; expected one of {', '.join(METRICS)}")
        device = match["device"]
        if metric.source is not Source.DEVICE:
            if device:
                raise ConfigurationError(
                    f"objective {text!r} names a device, but {metric.name} is not measured on one; write {metric.name!r}"
                )
            return cls(metric=metric, device=None)
        if not (device or default_device):
            raise ConfigurationError(
                f"objective {text!r} has no device to be measured on; add --device NAME or write '{metric.name}@NAME'"
            )
        return cls(metric=metric, device=device or default_device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A bound that every candidate worth keeping meets."""

    objective: Objective
    upper: bool
    bound: float

    def __str__(self) -> str:
        return f"{self.objective.key}{'<=' if self.upper else '>='}{self.bound:g}"

    @classmethod
    def parse(cls, text: str, default_device: str | None = None) -> "Constraint":
        """Return the constraint written as `METRIC<=BOUND` or `METRIC>=BOUND`.

        Raises:
            ConfigurationError: If it is written otherwise or its metric is unknown.
        """
        match = _CONSTRAINT.fullmatch(text.strip())
        try:
            bound = float(match["bound"]) if match else None
        except ValueError:
            bound = None
        if match is None or bound is None or not math.isfinite(bound):
            raise ConfigurationError(
                f"constraint {text!r} is not understood; expected METRIC<=NUMBER or METRIC>=NUMBER, e.g. 'latency_ms<=15'"
            )
        return cls(
            objective=Objective.parse(match["metric"], default_device),
            upper=match["relation"] == "<=",
            bound=bound,
        )

    def violation(self, values: Mapping[str, float]) -> float:
        """Return by how much values break the bound, relative to it; 0 where met or not known yet."""
        value = values.get(self.objective.key)
        if value is None:
            return 0.0
        excess = value - self.bound if self.upper else self.bound - value
        return max(0.0, excess) / max(abs(self.bound), 1e-12)


def broken(constraints: Sequence[Constraint], values: Mapping[str, float]) -> tuple[Constraint, ...]:
    """Return the constraints that the known values break."""
    return tuple(constraint for constraint in constraints if constraint.violation(values) > 0)
