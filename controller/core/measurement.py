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
class GroupedLatency:
    """Loops of several inferences timed as one, divided by their number: free of the timer's own cost."""

    median_ms: float
    median_ci_low_ms: float
    median_ci_high_ms: float
    inferences_per_group: int
    groups: int


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
    expected_clock_mhz: float | None = None
    throttling: tuple[str, ...] = ()
    power_mode: str | None = None
    memory_pressure_percent: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """Latency of the agent's reference model in turn with the samples.

    Attributes:
        before_ms: Median of its first turn beside a sample; `after_ms` of its last, `median_ms` of the medians of all such.
        baseline_ms: What it takes on this board when nothing disturbs it; None until a job has told.
    """

    before_ms: float
    after_ms: float
    median_ms: float
    baseline_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryTurn:
    """The reference model between two stretches of samples; `samples_before` is how many had been taken."""

    samples_before: int
    latencies_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """Energy of one inference and how it was found; None for what a formula, in place of a sensor, cannot tell.

    Attributes:
        gross_mj: With what the board draws anyway.
        net_mj: Without it.
        idle_mw: Mean power while idle.
        active_mw: Mean power while running the model.
        source: Power source, e.g. `ina2xx`.
        scope: What the source sees: `soc`, `board`, `input` or `gpu`; empty with a formula.
        updates_per_s: New readings of the source per second.
        inferences: How many shared the energy.
        modelled: Whether a formula stands in for a sensor.
        calibration: Correction applied to the readings, or the formula; empty for none.
        covers: What exactly was read, e.g. `VDD_IN`; empty with a formula, or where an older agent did not tell.
    """

    gross_mj: float | None
    net_mj: float
    idle_mw: float | None
    active_mw: float | None
    source: str
    scope: str
    updates_per_s: float | None
    inferences: int | None
    modelled: bool
    calibration: str
    covers: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorTime:
    """Mean time of one inference that is spent in one layer; `calls` is how often it ran in one."""

    layer: str
    operator_type: str
    provider: str
    mean_ms: float
    calls: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Interference:
    """What else used the board during the timed part; None where it cannot tell.

    `other_cpu_percent` is of one core, `steal_percent` of all cores, `cpu_pressure_percent` of the time.
    """

    other_cpu_percent: float | None
    steal_percent: float | None
    cpu_pressure_percent: float | None
    involuntary_switches_per_inference: float | None
    major_faults: int | None
    swap_ins: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagReason:
    """A flag and, in one line, the evidence for it."""

    flag: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscardedAttempt:
    """An attempt whose flags made the agent measure again."""

    median_ms: float
    samples: int
    flag_reasons: tuple[FlagReason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionSettings:
    """How the runtime was set up; None for what it did not tell.

    Attributes:
        affinity_is_shared: Whether every thread may use all of cpu_affinity, rather than each one of its own.
        cpu_fallback: How much of the model the CPU ran in place of the provider asked for, or why nobody knows;
            empty where that ran all of it.
    """

    intra_op_threads: int
    inter_op_threads: int | None
    execution_mode: str | None
    spinning: bool | None
    cpu_affinity: tuple[int, ...]
    affinity_is_shared: bool = False
    cpu_fallback: str = ""


CONTAMINATING = frozenset({"THROTTLED", "FREQ", "DRIFT", "NOISE", "MEM", "UNSTABLE", "CANARY"})
"""Flags that say that something else than the model shaped the figures."""
# Where the reference model took up to 28 % longer, networks took 35 % longer, and came to within 11 % of their usual time by
# its ratio. Beyond this it was preempted, seven times slower, where networks of a millisecond were not.
_COMPARABLE = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Figures of one model on one board, measured, never estimated.

    What has a default was added later: None or empty where an older agent did not tell it.

    Attributes:
        request_id: The benchmark's id in the agent's own history.
        model_sha256: Digest of the model that was measured.
        model_name: The name it was given.
        runtime: What ran it, e.g. `onnx`.
        runtime_version: E.g. `onnxruntime 1.23.0`.
        provider: Execution provider, e.g. `CPUExecutionProvider`; with commas between where it was more than one.
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
        flag_reasons: Why each of them was raised.
        precision: Number format of the model, e.g. `float32`.
        batch_size: Size of the axes that the model leaves open for it.
        input_data: What the inputs held, `random` or `zeros`.
        seed: Of the random input data.
        load_was_cold: Whether load_ms read the file from the disk, not from the page cache.
        warm_load_ms: Time to load the same file once more; None where that failed, for the reason in
            warm_load_absent_reason.
        grouped: Present where one inference takes less than 1 ms.
        groups_ms: The whole time of each of its groups in order, in milliseconds; empty in listings.
        canary: None where the reference model could not be run, for the reason in canary_absent_reason.
        canary_turns: Each of its turns in order, the first before all samples; empty in listings.
        drift_corrected_ms: The median as it would have been at the canary's baseline speed; None without a
            baseline, or far from it.
        energy: How energy_mj came about; None where it is.
        operators: Where the time goes, largest share first; empty where nobody asked, or for the reason in
            operators_absent_reason.
        interference: What else used the board.
        discarded_attempts: Earlier attempts whose flags made the agent measure again.
        execution: How the runtime was set up.
        gpu_peak_bytes: Largest memory allocated on the GPU; None where none was used.
        gate_wait_s: Time that the agent waited for a cool and quiet board at its usual speed, with its runtime imported.
        agent_version: Version of the agent that measured.
        kernel_release: Its kernel, as `uname -r` prints it.
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
    flag_reasons: tuple[FlagReason, ...] = ()
    precision: str | None = None
    batch_size: int | None = None
    input_data: str | None = None
    seed: int | None = None
    load_was_cold: bool | None = None
    warm_load_ms: float | None = None
    warm_load_absent_reason: str = ""
    grouped: GroupedLatency | None = None
    groups_ms: tuple[float, ...] = ()
    canary: Canary | None = None
    canary_absent_reason: str = ""
    canary_turns: tuple[CanaryTurn, ...] = ()
    drift_corrected_ms: float | None = None
    energy: Energy | None = None
    operators: tuple[OperatorTime, ...] = ()
    operators_absent_reason: str = ""
    interference: Interference | None = None
    discarded_attempts: tuple[DiscardedAttempt, ...] = ()
    execution: ExecutionSettings | None = None
    gpu_peak_bytes: int | None = None
    gate_wait_s: float | None = None
    agent_version: str | None = None
    kernel_release: str | None = None

    @property
    def contaminated(self) -> tuple[str, ...]:
        """The flags that say that something else than the model shaped the figures."""
        return tuple(flag for flag in self.flags if flag in CONTAMINATING)

    @property
    def usual_speed(self) -> float:
        """What to multiply times by for an estimate of the board at its usual speed, by its reference model; 1 where it cannot tell.

        For aiming, and for what is not final: reported, and held to constraints in the end, is what was measured.
        """
        if self.drift_corrected_ms is not None:
            return self.drift_corrected_ms / self.latency.median_ms
        if self.canary is None or self.canary.baseline_ms is None:
            return 1.0
        speed = self.canary.baseline_ms / self.canary.median_ms
        return speed if 1 / _COMPARABLE <= speed <= _COMPARABLE else 1.0

    @property
    def energy_is_modelled(self) -> bool:
        """Whether energy_mj comes from a formula rather than from a sensor."""
        return self.energy is not None and self.energy.modelled

    @property
    def peak_memory_mb(self) -> float:
        """Resident memory that the model added, in 10^6 bytes."""
        return self.memory.peak_bytes / 1e6

    @property
    def metrics(self) -> dict[str, float]:
        """The figures by metric name; what was not measured, but modelled or unknown, is absent."""
        figures = {
            "latency_ms": self.latency.median_ms,
            "latency_ms_p90": self.latency.p90_ms,
            "peak_memory_mb": self.peak_memory_mb,
            "load_ms": self.load_ms,
            "first_inference_ms": self.first_inference_ms,
            "energy_mj": None if self.energy_is_modelled else self.energy_mj,
        }
        return {name: value for name, value in figures.items() if value is not None}
