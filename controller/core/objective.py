"""What a search optimises and what it must keep to.

A metric is written `NAME` or `NAME@DEVICE`, a constraint `METRIC<=BOUND` or `METRIC>=BOUND`. Values are
stored as measured; they become minimised only inside `pareto/`.
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from controller.core.errors import ConfigurationError

# The unit of what is a share of something, from 0 to 1.
FRACTION = "fraction"


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
            FRACTION,
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

    @classmethod
    def among(cls, text: str, keys: Collection[str]) -> "Objective":
        """Return the one of several objectives that is meant.

        Args:
            text: A key, or a metric alone where a single key is of that metric.
            keys: Of the objectives to choose from.

        Raises:
            ConfigurationError: If text means none of them, or several.
        """
        name = text.strip()
        meant = [key for key in keys if name in (key, key.partition("@")[0])]
        if len(meant) > 1:
            raise ConfigurationError(f"objective {name!r} means {' and '.join(meant)}; write one of these")
        if not meant:
            raise ConfigurationError(
                f"objective {name!r} is not known of these candidates; expected one of {', '.join(keys)}"
            )
        return cls.parse(meant[0])


def check_each_once(objectives: Sequence[Objective]) -> None:
    """Refuse objectives of which one is given twice.

    Raises:
        ConfigurationError: If one is.
    """
    repeated = [objective.key for objective in objectives if list(objectives).count(objective) > 1]
    if repeated:
        raise ConfigurationError(f"objective {repeated[0]!r} is given twice; expected each once")


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A bound that every candidate worth keeping meets."""

    objective: Objective
    upper: bool
    bound: float

    def __post_init__(self) -> None:
        if self.objective.metric.unit == FRACTION and not 0 <= self.bound <= 1:
            raise ConfigurationError(
                f"constraint {self} does not fit {self.objective.key}, a fraction; expected a bound of 0 to 1, e.g. 0.9"
            )

    def __str__(self) -> str:
        return f"{self.objective.key}{'<=' if self.upper else '>='}{self.bound:g}"

    @classmethod
    def parse(cls, text: str, default_device: str | None = None) -> "Constraint":
        """Return the constraint written as `METRIC<=BOUND` or `METRIC>=BOUND`.

        Raises:
            ConfigurationError: If it is written otherwise, its metric is unknown, or its bound no value of the metric.
        """
        metric, upper, bound = _parts(text)
        return cls(objective=Objective.parse(metric, default_device), upper=upper, bound=bound)

    @classmethod
    def among(cls, text: str, keys: Collection[str]) -> "Constraint":
        """Return the constraint written like that of `parse`, on one of several objectives.

        Raises:
            ConfigurationError: If it is written otherwise, means none or several of keys, or its bound is no value of the metric.
        """
        metric, upper, bound = _parts(text)
        return cls(objective=Objective.among(metric, keys), upper=upper, bound=bound)

    def excess(self, values: Mapping[str, float]) -> float:
        """Return by how much values break the bound, in its unit; 0 where met or not known yet."""
        value = values.get(self.objective.key)
        if value is None:
            return 0.0
        return max(0.0, value - self.bound if self.upper else self.bound - value)

    def violation(self, values: Mapping[str, float]) -> float:
        """Return by how much values break the bound, relative to it; 0 where met or not known yet."""
        return self.excess(values) / max(abs(self.bound), 1e-12)


def _parts(text: str) -> tuple[str, bool, float]:
    """Return a constraint's metric as written, whether its bound is an upper one, and the bound."""
    match = _CONSTRAINT.fullmatch(text.strip())
    try:
        bound = float(match["bound"]) if match else None
    except ValueError:
        bound = None
    if match is None or bound is None or not math.isfinite(bound):
        raise ConfigurationError(
            f"constraint {text!r} is not understood; expected METRIC<=NUMBER or METRIC>=NUMBER, e.g. 'latency_ms<=15'"
        )
    return match["metric"], match["relation"] == "<=", bound


def decisive(objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> tuple[Objective, ...]:
    """Return what a candidate is judged by, objectives first, each once."""
    return tuple(dict.fromkeys([*objectives, *(constraint.objective for constraint in constraints)]))


def broken(constraints: Sequence[Constraint], values: Mapping[str, float]) -> tuple[Constraint, ...]:
    """Return the constraints that the known values break."""
    return tuple(constraint for constraint in constraints if constraint.violation(values) > 0)
