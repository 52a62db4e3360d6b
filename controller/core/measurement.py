"""What a board answered about a model, in EdgeNAS's own types."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class ModelFormat(Enum):
    """How a model's bytes are written."""

    ONNX = "onnx"
    TORCHSCRIPT = "torchscript"


class MeasurementMode(Enum):
    """How thorough a measurement is."""

    SEARCH = "search"
    """Short warm-up, 2 % interval: to rank candidates."""
    FULL = "full"
    """Full warm-up, 1 % interval: for figures that are quoted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedModel:
    """A model as bytes that a device's runtime reads.

    Attributes:
        data: The file's content.
        format: How it is written.
        sha256: Lower-case hexadecimal digest of data.
        precision: Number format of weights and activations, e.g. `float32`.
    """

    data: bytes
    format: ModelFormat
    sha256: str
    precision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyStatistics:
    """Statistics of the timed inferences, in milliseconds."""

    median_ms: float
    median_ci_low_ms: float
    median_ci_high_ms: float
    mean_ms: float
    min_ms: float
    max_ms: float
    mad_ms: float
    p90_ms: float | None
    p99_ms: float | None
    mild_outliers: int
    severe_outliers: int
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUsage:
    """Resident memory of the process that ran the model, in bytes."""

    baseline_bytes: int
    after_load_bytes: int
    after_first_inference_bytes: int
    after_last_inference_bytes: int
    peak_bytes: int
    pss_bytes: int | None
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The board around a measurement; None where it cannot tell."""

    temperature_c: float | None
    clock_mhz: float | None
    governor: str | None
    load_average_1min: float | None
    available_memory_bytes: int | None
    cpu_pressure_percent: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Figures of one model on one board, measured, never estimated.

    Attributes:
        request_id: The benchmark's id in the agent's own history.
        model_sha256: Digest of the model that was measured.
        model_name: The name it was given.
        runtime: What ran it, e.g. `onnx`.
        runtime_version: E.g. `onnxruntime 1.23.0`.
        provider: Execution provider, e.g. `CPUExecutionProvider`.
        threads: Threads inside one operator.
        input_shapes: Shapes by input name, batch first.
        mode: How thorough the measurement was.
        started_at: When the job started, UTC.
        finished_at: When it ended, UTC.
        latency: Statistics of the timed inferences.
        load_ms: Time to load the model.
        first_inference_ms: Time of the first inference, which is no sample.
        warmup_ms: Warm-up latencies in order, in milliseconds; no samples.
        samples_ms: Every timed inference in order, in milliseconds; empty in listings.
        memory: Memory of the process that ran the model.
        energy_mj: Net energy of one inference; None where nobody measured it.
        energy_absent_reason: Why energy_mj is None; empty otherwise.
        before: The board before the measurement.
        after: The board after it.
        flags: What a reader of the figures must know, e.g. `CI_NOT_REACHED`.
    """

    request_id: str
    model_sha256: str
    model_name: str
    runtime: str
    runtime_version: str
    provider: str
    threads: int
    input_shapes: Mapping[str, tuple[int, ...]]
    mode: MeasurementMode
    started_at: datetime
    finished_at: datetime
    latency: LatencyStatistics
    load_ms: float
    first_inference_ms: float
    warmup_ms: tuple[float, ...]
    samples_ms: tuple[float, ...]
    memory: MemoryUsage
    energy_mj: float | None
    energy_absent_reason: str
    before: Conditions
    after: Conditions
    flags: tuple[str, ...]

    @property
    def peak_memory_mb(self) -> float:
        """Resident memory that the model added, in 10^6 bytes."""
        return self.memory.peak_bytes / 1e6

    @property
    def metrics(self) -> dict[str, float]:
        """The figures by metric name; what was not measured is absent."""
        figures = {
            "latency_ms": self.latency.median_ms,
            "latency_ms_p90": self.latency.p90_ms,
            "peak_memory_mb": self.peak_memory_mb,
            "load_ms": self.load_ms,
            "first_inference_ms": self.first_inference_ms,
            "energy_mj": self.energy_mj,
        }
        return {name: value for name, value in figures.items() if value is not None}
