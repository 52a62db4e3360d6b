"""What goes to a worker and what comes back, in the agent's own types. `worker.py` describes the lines."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_agent.benchmark import (
    BenchmarkSpec,
    ExecutionSettings,
    InputShape,
    MemoryUsage,
    OperatorTime,
    Precision,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerResult:
    """What a worker measured of a model by the end of the timed part. Times in milliseconds, in order.

    Attributes:
        groups_ms: Loops of `group_runs` inferences; empty where one inference takes 1 ms or more.
        turn_ends: Number of samples at the end of each of the model's turns; a pause is a turn without any.
        canary_turns_ms: The reference model's latencies, one turn more than the model had; empty where it could not
            be run, for the reason in `canary_absent_reason`.
        longest_stall_ms: Longest time beyond the usual between two ends of runs.
        runs: Inferences of the model and the canary within the timed part.
        paused_s: How long the timed part paused for a board slower than usual.
        vain_s: How long it paused last where the board still was when the limit was reached.
        involuntary_switches: Times that the worker was taken off a core, pauses apart; `major_faults` likewise.
        provider: The execution provider that the model was opened with.
        precision: None where it is unknown or none of ours.
    """

    load_ms: float
    load_was_cold: bool
    first_inference_ms: float
    warmup_ms: tuple[float, ...]
    samples_ms: tuple[float, ...]
    groups_ms: tuple[float, ...]
    group_runs: int
    turn_ends: tuple[int, ...]
    canary_turns_ms: tuple[tuple[float, ...], ...]
    canary_absent_reason: str
    longest_stall_ms: float
    runs: int
    paused_s: float
    vain_s: float
    involuntary_switches: int
    major_faults: int
    warmup_capped: bool
    interval_reached: bool
    memory: MemoryUsage
    gpu_peak_bytes: int | None
    input_shapes: tuple[InputShape, ...]
    provider: str
    precision: Precision | None
    execution: ExecutionSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondLoad:
    """How long a model's file took to load once more; None where it did not, for the reason."""

    warm_load_ms: float | None
    absent_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Insight:
    """What a worker saw inside a model.

    Attributes:
        operators: Empty where nobody asked, or for the reason in `operators_absent_reason`.
        provider: What ran the model; with commas between where it was more than one. None where nothing looked.
        cpu_fallback: How much of it the CPU ran in place of the provider asked for. None where nothing looked.
    """

    operators: tuple[OperatorTime, ...]
    operators_absent_reason: str
    provider: str | None
    cpu_fallback: str | None


def job_message(
    spec: BenchmarkSpec,
    *,
    model_path: Path,
    canary_path: Path,
    look: bool,
    measure_limit_s: float,
    memory_limit_bytes: int | None,
    time_left_s: float,
    energy: bool,
) -> dict[str, object]:
    """Return a job as the worker reads it; `look` asks what the reference model takes before the timed part."""
    return {
        "model_path": str(model_path),
        "threads": spec.threads,
        "cpu_affinity": list(spec.cpu_affinity),
        "provider": spec.provider,
        "input_shapes": {shape.name: list(shape.dimensions) for shape in spec.input_shapes},
        "batch_size": spec.batch_size,
        "input_data": spec.input_data.value,
        "seed": spec.seed,
        "precision": None if spec.precision is None else spec.precision.value,
        "mode": spec.mode.value,
        "memory_limit_bytes": memory_limit_bytes,
        "time_left_s": time_left_s,
        "canary_path": str(canary_path),
        "look": look,
        "measure_limit_s": measure_limit_s,
        "profile": spec.profile,
        "energy": energy,
    }


def parse_result(event: Mapping[str, Any], spec: BenchmarkSpec) -> WorkerResult:
    """Return what the event `measured` says of a job with this spec."""
    return WorkerResult(
        load_ms=event["load_ns"] / 1e6,
        load_was_cold=event["load_was_cold"],
        first_inference_ms=event["first_inference_ns"] / 1e6,
        warmup_ms=_milliseconds(event["warmup_ns"]),
        samples_ms=_milliseconds(event["samples_ns"]),
        groups_ms=_milliseconds(event["groups_ns"]),
        group_runs=event["group_runs"],
        turn_ends=tuple(event["turn_ends"]),
        canary_turns_ms=tuple(map(_milliseconds, event["canary_ns"])),
        canary_absent_reason=event["canary_absent_reason"],
        longest_stall_ms=event["longest_stall_ns"] / 1e6,
        runs=event["runs"],
        paused_s=event["paused_s"],
        vain_s=event["vain_s"],
        involuntary_switches=event["involuntary_switches"],
        major_faults=event["major_faults"],
        warmup_capped=event["warmup_capped"],
        interval_reached=event["interval_reached"],
        memory=_memory(event["memory"]),
        gpu_peak_bytes=event["gpu_peak_bytes"],
        input_shapes=tuple(
            InputShape(name=name, dimensions=tuple(sizes))
            for name, sizes in sorted(event["input_shapes"].items())
        ),
        provider=event["provider"],
        precision=_PRECISIONS.get(event["precision"]),
        execution=_execution(event["execution"], spec),
    )


def parse_second_load(event: Mapping[str, Any]) -> SecondLoad:
    """Return what the event `reloaded` says."""
    return SecondLoad(
        warm_load_ms=None if event["warm_load_ns"] is None else event["warm_load_ns"] / 1e6,
        absent_reason=event["warm_load_absent_reason"],
    )


def parse_insight(event: Mapping[str, Any]) -> Insight:
    """Return what the event `passed` says."""
    return Insight(
        operators=tuple(_operator(row) for row in event["operators"]),
        operators_absent_reason=event["operators_absent_reason"],
        provider=", ".join(event["providers"]),
        cpu_fallback=event["cpu_fallback"],
    )


_PRECISIONS: Mapping[str | None, Precision] = {precision.value: precision for precision in Precision}


def _milliseconds(nanoseconds: list[int]) -> tuple[float, ...]:
    return tuple(value / 1e6 for value in nanoseconds)


def _memory(fields: Mapping[str, Any]) -> MemoryUsage:
    baseline, after_load, after_first, after_last = fields["marks"]
    return MemoryUsage(
        baseline_bytes=baseline,
        after_load_bytes=after_load,
        after_first_inference_bytes=after_first,
        after_last_inference_bytes=after_last,
        pss_bytes=fields["pss"],
        method=fields["method"],
    )


def _execution(told: Mapping[str, Any], spec: BenchmarkSpec) -> ExecutionSettings:
    return ExecutionSettings(
        intra_op_threads=told["intra_op_threads"],
        inter_op_threads=told["inter_op_threads"],
        execution_mode=told["execution_mode"],
        spinning=told["spinning"],
        cpu_affinity=spec.cpu_affinity,
        affinity_is_shared=told["affinity_is_shared"],
        cpu_fallback=told["cpu_fallback"],
    )


def _operator(row: Mapping[str, Any]) -> OperatorTime:
    return OperatorTime(
        layer=row["layer"],
        operator_type=row["operator_type"],
        provider=row["provider"],
        mean_ms=row["mean_ns"] / 1e6,
        calls=row["calls"],
    )
