"""The nouns of the agent: what is asked for, what happens to it, and what comes out."""

import enum
from dataclasses import dataclass
from datetime import datetime

from device_agent.board.conditions import Conditions


class ModelFormat(enum.Enum):
    """Model formats that the agent can load. The values are the endings of their files in the cache."""

    ONNX = "onnx"
    TORCHSCRIPT = "torchscript"


class MeasurementMode(enum.Enum):
    """How thorough a measurement is. The values are the worker's names for its rules."""

    SEARCH = "search"
    FULL = "full"


class Precision(enum.Enum):
    """Number format of a model's weights and activations."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8_QDQ = "int8_qdq"


class InputData(enum.Enum):
    """What inputs are filled with. The values are the worker's names."""

    RANDOM = "random"
    ZEROS = "zeros"


class Phase(enum.Enum):
    """Part of a job. The values of those that a worker announces are its names for them."""

    GATE = "gate"
    CANARY = "canary"
    LOAD = "load"
    WARM_UP = "warm_up"
    MEASURE = "measure"
    ENERGY = "energy"
    PROFILE = "profile"


class FailureReason(enum.Enum):
    """Why a job ended without a measurement. Some values are the worker's names for them."""

    INVALID_MODEL = "invalid_model"
    INVALID_SPEC = "invalid_spec"
    WORKER_DIED = "worker_died"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    OUT_OF_MEMORY = "out_of_memory"
    INVALID_SHAPE = "invalid_shape"
    OPEN_SHAPE = "open_shape"
    UNSUPPORTED_OPSET = "unsupported_opset"
    UNSUPPORTED_OPERATOR = "unsupported_operator"
    EXTERNAL_DATA = "external_data"
    CUSTOM_OPERATOR = "custom_operator"
    LOST = "lost"
    ABANDONED = "abandoned"


class Flag(enum.Enum):
    """What a reader of the figures must know about a measurement."""

    CI_NOT_REACHED = "ci_not_reached"
    WARMUP_CAP = "warmup_cap"
    THROTTLED = "throttled"
    FREQ = "freq"
    DRIFT = "drift"
    NOISE = "noise"
    MEM = "mem"
    UNSTABLE = "unstable"
    CANARY = "canary"
    GATE_TIMEOUT = "gate_timeout"


CONTAMINATING = frozenset(
    {Flag.THROTTLED, Flag.FREQ, Flag.DRIFT, Flag.NOISE, Flag.MEM, Flag.UNSTABLE, Flag.CANARY}
)
"""Flags that say that something else than the model shaped the figures: worth another attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RaisedFlag:
    """A flag and, in one line with values, the evidence for it."""

    flag: Flag
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeDescription:
    """A runtime as the worker's Python offers it; `name` is what a spec asks for."""

    name: str
    library: str
    version: str
    providers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnavailableRuntime:
    """A runtime that the agent knows and cannot use here; `reason` says what to do about it."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InputShape:
    """The size of every axis of one model input, batch first."""

    name: str
    dimensions: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkSpec:
    """How to measure.

    Attributes:
        threads: Threads inside one operator; always the number used.
        input_shapes: Sorted by name.
        seed: Of the random input data.
        provider: Execution provider; empty for the CPU.
        batch_size: Size of open first axes that `input_shapes` does not name.
        precision: What the model is expected to have; None takes it as it is.
        cpu_affinity: Processors to bind the threads to, one for each, which not every runtime can: then they share
            them. Empty lets the system place them.
        time_limit_s: The caller's own limit for the job; None for the agent's.
        most_attempts: The caller's own limit for how often flags have the model measured; None for the agent's.
        profile: Whether to time each operator as well.
        energy: Whether to measure energy as well.
        power_source: Where from; empty for the best source.
        macs: Multiply-accumulates of one inference as the caller counts them; None where nobody counted.
    """

    runtime: str
    threads: int
    input_shapes: tuple[InputShape, ...]
    seed: int
    mode: MeasurementMode
    provider: str = ""
    batch_size: int = 1
    precision: Precision | None = None
    input_data: InputData = InputData.RANDOM
    cpu_affinity: tuple[int, ...] = ()
    time_limit_s: float | None = None
    most_attempts: int | None = None
    profile: bool = False
    energy: bool = False
    power_source: str = ""
    macs: int | None = None


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
class LatencySummary:
    """Statistics in milliseconds; a percentile with too few samples behind it is None."""

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
    """Loops of inferences timed as one and divided by their number: free of the timer's own cost."""

    median_ms: float
    median_ci_low_ms: float
    median_ci_high_ms: float
    inferences_per_group: int
    groups: int


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
class Interference:
    """What else used the board during the timed part; what the board cannot tell is None.

    `other_cpu_percent` is of one core, `steal_percent` of all cores, `cpu_pressure_percent` of the time.
    """

    other_cpu_percent: float | None = None
    steal_percent: float | None = None
    cpu_pressure_percent: float | None = None
    involuntary_switches_per_inference: float | None = None
    major_faults: int | None = None
    swap_ins: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryReading:
    """Latency of the agent's reference model in turn with the samples.

    Attributes:
        before_ms: Median of its first turn beside a sample; `after_ms` of its last, `median_ms` of the medians of all such.
        baseline_ms: What it takes on this board when nothing disturbs it; None until a job has told.
    """

    before_ms: float
    after_ms: float
    median_ms: float
    baseline_ms: float | None

    @property
    def off_baseline(self) -> float | None:
        """Return how much longer it took than its baseline, as a share of it."""
        return None if self.baseline_ms is None else self.median_ms / self.baseline_ms - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryTurn:
    """The reference model between two stretches of samples; `samples_before` is how many had been taken."""

    samples_before: int
    latencies_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyReading:
    """Energy of one inference and how it was found.

    Attributes:
        net_mj: Without what the board draws anyway.
        gross_mj: With it. This, the powers, the rate and the count are None where a formula stands in.
        source: Name of the power source; `scope` is what it covers.
        updates_per_s: New values of the sensor per second.
        modelled: Whether a formula stands in for a sensor.
        calibration: The correction applied to the source's readings, or the formula; empty for none.
        covers: What exactly was read, e.g. `VDD_IN`; empty with a formula.
    """

    net_mj: float
    gross_mj: float | None
    idle_mw: float | None
    active_mw: float | None
    source: str
    scope: str
    updates_per_s: float | None
    inferences: int | None
    modelled: bool = False
    calibration: str = ""
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
class ExecutionSettings:
    """How the runtime was set up; None for what it does not tell.

    Attributes:
        cpu_affinity: Processors that the threads are bound to, in order; empty where the system places them.
        affinity_is_shared: Whether all threads may use all of these, rather than each one of its own.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscardedAttempt:
    """An attempt whose flags made the agent measure again."""

    median_ms: float
    samples: int
    flags: tuple[RaisedFlag, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Figures of one model on this board. Times in milliseconds, in the order they were taken.

    Attributes:
        load_was_cold: Whether the file's pages had been dropped from the page cache before `load_ms`.
        warm_load_ms: Time to load the same file once more, now cached; None where that failed, for the reason in
            `warm_load_absent_reason`.
        grouped: Loops of inferences timed as one; None where one inference takes 1 ms or more.
        groups_ms: Time of every such loop, not divided.
        canary: None where the reference model could not be run, for the reason in `canary_absent_reason`.
        canary_turns: The first is before all samples, the last behind them.
        drift_corrected_ms: The median at the canary's baseline speed; None without a baseline, or far from it.
        energy: None where nobody measured it, for the reason in `energy_absent_reason`.
        operators: Largest share first; empty where no profile was asked for, or for the reason in
            `operators_absent_reason`.
        gpu_peak_bytes: None where no GPU was used.
        gate_wait_s: Seconds that the job waited for a cool and quiet board at its usual speed, with its runtime imported.
        provider: Execution provider that ran the model; with commas between where it was more than one.
    """

    latency: LatencySummary
    grouped: GroupedLatency | None
    load_ms: float
    load_was_cold: bool
    warm_load_ms: float | None
    warm_load_absent_reason: str
    first_inference_ms: float
    warmup_ms: tuple[float, ...]
    samples_ms: tuple[float, ...]
    groups_ms: tuple[float, ...]
    memory: MemoryUsage
    gpu_peak_bytes: int | None
    canary: CanaryReading | None
    canary_absent_reason: str
    canary_turns: tuple[CanaryTurn, ...]
    drift_corrected_ms: float | None
    energy: EnergyReading | None
    energy_absent_reason: str
    operators: tuple[OperatorTime, ...]
    operators_absent_reason: str
    before: Conditions
    after: Conditions
    interference: Interference
    flags: tuple[RaisedFlag, ...]
    discarded: tuple[DiscardedAttempt, ...]
    execution: ExecutionSettings
    gate_wait_s: float
    runtime_version: str
    provider: str
    agent_version: str
    kernel_release: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRecord:
    """A finished benchmark. `spec` is as it was run: shapes and precision are filled in."""

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
    """The job entered a phase, or has something to tell about it."""

    phase: Phase
    detail: str = ""
    attempt: int = 1


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
