"""The nouns of the agent: what is asked for, what happens to it, and what comes out."""

import enum
from dataclasses import dataclass
from datetime import datetime

from device_agent.board.conditions import Conditions
from device_agent.measuring.latency import LatencySummary


class ModelFormat(enum.Enum):
    """Model formats that the agent can load."""

    ONNX = "onnx"


class MeasurementMode(enum.Enum):
    """How thorough a measurement is. The values are the worker's names for its rules."""

    SEARCH = "search"
    FULL = "full"


class Phase(enum.Enum):
    """Part of a job. The values are the worker's names."""

    LOAD = "load"
    WARM_UP = "warm_up"
    MEASURE = "measure"


class FailureReason(enum.Enum):
    """Why a job ended without a measurement."""

    INVALID_MODEL = "invalid_model"
    INVALID_SPEC = "invalid_spec"
    WORKER_DIED = "worker_died"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"


class Flag(enum.Enum):
    """What a reader of the figures must know about a measurement."""

    CI_NOT_REACHED = "ci_not_reached"
    WARMUP_CAP = "warmup_cap"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeDescription:
    """A runtime as the worker's Python offers it; `name` is what a spec asks for."""

    name: str
    library: str
    version: str
    providers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputShape:
    """The size of every axis of one model input, batch first."""

    name: str
    dimensions: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkSpec:
    """How to measure. `threads` is always the number used; `input_shapes` is sorted by name."""

    runtime: str
    threads: int
    input_shapes: tuple[InputShape, ...]
    seed: int
    mode: MeasurementMode


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRequest:
    """One measurement that somebody wants."""

    request_id: str
    model_sha256: str
    model_name: str
    spec: BenchmarkSpec

    def asks_the_same(self, other: "BenchmarkRequest") -> bool:
        """Tell whether both ask for one measurement: the model's name is a label and does not count."""
        return (self.request_id, self.model_sha256, self.spec) == (
            other.request_id,
            other.model_sha256,
            other.spec,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUsage:
    """Resident memory of the worker process in bytes; high-water marks but for `pss_bytes`."""

    baseline_bytes: int
    after_load_bytes: int
    after_first_inference_bytes: int
    after_last_inference_bytes: int
    pss_bytes: int | None
    method: str

    @property
    def peak_bytes(self) -> int:
        """What the model itself cost: the largest mark less the baseline."""
        marks = (self.after_load_bytes, self.after_first_inference_bytes, self.after_last_inference_bytes)
        return max(self.baseline_bytes, *marks) - self.baseline_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Figures of one model on this board. Times in milliseconds, in the order they were taken."""

    latency: LatencySummary
    load_ms: float
    first_inference_ms: float
    warmup_ms: tuple[float, ...]
    samples_ms: tuple[float, ...]
    memory: MemoryUsage
    energy_absent_reason: str
    before: Conditions
    after: Conditions
    flags: tuple[Flag, ...]
    runtime_version: str
    provider: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRecord:
    """A finished benchmark. `spec` is as it was run: the shape of every input is filled in."""

    request_id: str
    model_sha256: str
    model_name: str
    model_format: ModelFormat
    spec: BenchmarkSpec
    started_at: datetime
    finished_at: datetime
    measurement: Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """The job waits behind `position` others."""

    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The job has the board."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The job entered a phase."""

    phase: Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The job has a record. It stays encoded as it is stored, so that every caller gets the same bytes."""

    record: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The job ended without a measurement."""

    request_id: str
    reason: FailureReason
    message: str


Event = Queued | Started | Progress | Finished | Failed
