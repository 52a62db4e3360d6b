"""Between the wire format and EdgeNAS's own types."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from edgenas.v1 import benchmark_pb2, device_pb2, measurement_pb2, model_pb2

from controller.core.errors import DeviceError
from controller.core.measurement import (
    Canary,
    CanaryTurn,
    Conditions,
    DiscardedAttempt,
    Energy,
    ExecutionSettings,
    FlagReason,
    GroupedLatency,
    Interference,
    LatencyStatistics,
    Measurement,
    MeasurementMode,
    MemoryUsage,
    ModelFormat,
    OperatorTime,
)
from controller.core.options import InputData, MeasurementOptions, Precision
from controller.devices.description import (
    DeviceDescription,
    PowerSource,
    RuntimeDescription,
    SandboxLayer,
    UnavailableRuntime,
)

FORMATS = {
    ModelFormat.ONNX: model_pb2.MODEL_FORMAT_ONNX,
    ModelFormat.TORCHSCRIPT: model_pb2.MODEL_FORMAT_TORCHSCRIPT,
}
MODES = {
    MeasurementMode.SEARCH: benchmark_pb2.MEASUREMENT_MODE_SEARCH,
    MeasurementMode.FULL: benchmark_pb2.MEASUREMENT_MODE_FULL,
}
PRECISIONS = {
    Precision.FLOAT32: benchmark_pb2.PRECISION_FLOAT32,
    Precision.FLOAT16: benchmark_pb2.PRECISION_FLOAT16,
    Precision.INT8_QDQ: benchmark_pb2.PRECISION_INT8_QDQ,
}
INPUT_DATA = {
    InputData.RANDOM: benchmark_pb2.INPUT_DATA_RANDOM,
    InputData.ZEROS: benchmark_pb2.INPUT_DATA_ZEROS,
}
_FLAG_PREFIX = "MEASUREMENT_FLAG_"


def description(message: device_pb2.DescribeDeviceResponse) -> DeviceDescription:
    """Return what a board said of itself."""
    return DeviceDescription(
        protocol_version=message.protocol_version,
        oldest_protocol_version=message.oldest_protocol_version or message.protocol_version,
        agent_version=message.agent_version,
        hostname=message.hostname,
        board_model=_optional(message, "board_model"),
        cpu_model=_optional(message, "cpu_model"),
        machine=message.machine,
        os_name=message.os_name,
        kernel_release=message.kernel_release,
        python_version=message.python_version,
        physical_cores=message.physical_cores,
        logical_cores=message.logical_cores,
        memory_bytes=message.memory_bytes,
        runtimes=tuple(
            RuntimeDescription(
                name=runtime.name,
                version=runtime.version,
                providers=tuple(runtime.providers),
                library=runtime.library,
            )
            for runtime in message.runtimes
        ),
        boot_id=_optional(message, "boot_id"),
        model_size_limit_bytes=message.model_size_limit_bytes,
        unavailable_runtimes=tuple(
            UnavailableRuntime(name=runtime.name, reason=runtime.reason)
            for runtime in message.unavailable_runtimes
        ),
        power_sources=tuple(
            PowerSource(name=source.name, scope=source.scope, absent_reason=source.absent_reason)
            for source in message.power_sources
        ),
        sandbox=tuple(
            SandboxLayer(name=layer.name, absent_reason=layer.absent_reason) for layer in message.sandbox
        ),
    )


def spec(options: MeasurementOptions, runtime: str, mode: MeasurementMode) -> benchmark_pb2.BenchmarkSpec:
    """Return what a board is asked to do."""
    return benchmark_pb2.BenchmarkSpec(
        runtime=runtime,
        threads=options.threads,
        input_shapes=[
            benchmark_pb2.InputShape(name=name, dimensions=shape)
            for name, shape in options.input_shapes.items()
        ],
        seed=options.seed,
        mode=MODES[mode],
        provider=options.provider,
        batch_size=options.batch_size,
        precision=PRECISIONS[options.precision] if options.precision else benchmark_pb2.PRECISION_UNSPECIFIED,
        input_data=INPUT_DATA[options.input_data],
        cpu_affinity=options.cpu_affinity,
        time_limit_s=options.time_limit_s,
        most_attempts=options.most_attempts,
        profile=options.profile,
        energy=options.energy,
        power_source=options.power_source,
        macs=options.macs or 0,
    )


def progress(message: benchmark_pb2.BenchmarkProgress) -> str:
    """Return in a few words what a board is doing, e.g. `gate: other processes use 43 % of a core, attempt 2`."""
    known = benchmark_pb2.BenchmarkPhase.DESCRIPTOR.values_by_number.get(message.phase)
    phase = known.name.removeprefix("BENCHMARK_PHASE_").replace("_", " ").lower() if known else "working"
    detail = f": {message.detail}" if message.detail else ""
    attempt = f", attempt {message.attempt}" if message.attempt > 1 else ""
    return f"{phase}{detail}{attempt}"


def measurement(record: benchmark_pb2.BenchmarkRecord) -> Measurement:
    """Return what a board measured.

    Raises:
        DeviceError: If the record has a mode this host does not know.
    """
    modes = {value: mode for mode, value in MODES.items()}
    if record.spec.mode not in modes:
        raise DeviceError(
            f"benchmark {record.request_id} has mode {record.spec.mode}, which this host does not know; update edgenas here"
        )
    figures = record.measurement
    # Of a number or a truth that is not optional on the wire, 0 may mean that an older agent never sent it.
    # Every agent that sends them also tells its version.
    tells = bool(figures.agent_version)
    return Measurement(
        request_id=record.request_id,
        model_sha256=record.model_sha256,
        model_name=record.model_name,
        runtime=record.spec.runtime,
        runtime_version=figures.runtime_version,
        provider=figures.provider,
        threads=record.spec.threads,
        input_shapes={shape.name: tuple(shape.dimensions) for shape in record.spec.input_shapes},
        mode=modes[record.spec.mode],
        started_at=_time(record.started_at),
        finished_at=_time(record.finished_at),
        latency=_latency(figures.latency),
        load_ms=figures.load_ms,
        first_inference_ms=figures.first_inference_ms,
        warmup_ms=tuple(figures.warmup_ms),
        samples_ms=tuple(figures.samples_ms),
        memory=_memory(figures.memory),
        energy_mj=_optional(figures, "energy_mj"),
        energy_absent_reason=figures.energy_absent_reason,
        before=_conditions(figures.before),
        after=_conditions(figures.after),
        flags=tuple(_flag(flag) for flag in figures.flags),
        flag_reasons=_flag_reasons(figures.flag_reasons),
        precision=_name(PRECISIONS, record.spec.precision),
        batch_size=record.spec.batch_size or None,
        input_data=_name(INPUT_DATA, record.spec.input_data),
        seed=record.spec.seed,
        load_was_cold=figures.load_was_cold if tells else None,
        warm_load_ms=_optional(figures, "warm_load_ms"),
        warm_load_absent_reason=figures.warm_load_absent_reason,
        grouped=_grouped(figures.grouped) if figures.HasField("grouped") else None,
        groups_ms=tuple(figures.groups_ms),
        canary=_canary(figures.canary) if figures.HasField("canary") else None,
        canary_absent_reason=figures.canary_absent_reason,
        canary_turns=tuple(
            CanaryTurn(samples_before=turn.samples_before, latencies_ms=tuple(turn.latencies_ms))
            for turn in figures.canary_turns
        ),
        drift_corrected_ms=_optional(figures, "drift_corrected_ms"),
        energy=_energy(figures.energy) if figures.HasField("energy") else None,
        operators=tuple(_operator(time) for time in figures.operators),
        operators_absent_reason=figures.operators_absent_reason,
        interference=_interference(figures.interference) if figures.HasField("interference") else None,
        discarded_attempts=tuple(
            DiscardedAttempt(
                median_ms=attempt.median_ms,
                samples=attempt.samples,
                flag_reasons=_flag_reasons(attempt.flag_reasons),
            )
            for attempt in figures.discarded_attempts
        ),
        execution=_execution(figures.execution) if figures.HasField("execution") else None,
        gpu_peak_bytes=_optional(figures, "gpu_peak_bytes"),
        gate_wait_s=figures.gate_wait_s if tells else None,
        agent_version=figures.agent_version or None,
        kernel_release=figures.kernel_release or None,
    )


def _latency(message: measurement_pb2.LatencyStatistics) -> LatencyStatistics:
    return LatencyStatistics(
        median_ms=message.median_ms,
        median_ci_low_ms=message.median_ci_low_ms,
        median_ci_high_ms=message.median_ci_high_ms,
        mean_ms=message.mean_ms,
        min_ms=message.min_ms,
        max_ms=message.max_ms,
        mad_ms=message.mad_ms,
        p90_ms=_optional(message, "p90_ms"),
        p99_ms=_optional(message, "p99_ms"),
        mild_outliers=message.mild_outliers,
        severe_outliers=message.severe_outliers,
        samples=message.samples,
    )


def _memory(message: measurement_pb2.MemoryUsage) -> MemoryUsage:
    return MemoryUsage(
        baseline_bytes=message.baseline_bytes,
        after_load_bytes=message.after_load_bytes,
        after_first_inference_bytes=message.after_first_inference_bytes,
        after_last_inference_bytes=message.after_last_inference_bytes,
        peak_bytes=message.peak_bytes,
        pss_bytes=_optional(message, "pss_bytes"),
        method=message.method,
    )


def _conditions(message: measurement_pb2.Conditions) -> Conditions:
    return Conditions(
        temperature_c=_optional(message, "temperature_c"),
        clock_mhz=_optional(message, "clock_mhz"),
        governor=_optional(message, "governor"),
        load_average_1min=_optional(message, "load_average_1min"),
        available_memory_bytes=_optional(message, "available_memory_bytes"),
        cpu_pressure_percent=_optional(message, "cpu_pressure_percent"),
        expected_clock_mhz=_optional(message, "expected_clock_mhz"),
        throttling=tuple(message.throttling),
        power_mode=_optional(message, "power_mode"),
        memory_pressure_percent=_optional(message, "memory_pressure_percent"),
    )


def _grouped(message: measurement_pb2.GroupedLatency) -> GroupedLatency:
    return GroupedLatency(
        median_ms=message.median_ms,
        median_ci_low_ms=message.median_ci_low_ms,
        median_ci_high_ms=message.median_ci_high_ms,
        inferences_per_group=message.inferences_per_group,
        groups=message.groups,
    )


def _canary(message: measurement_pb2.Canary) -> Canary:
    return Canary(
        before_ms=message.before_ms,
        after_ms=message.after_ms,
        median_ms=message.median_ms,
        baseline_ms=_optional(message, "baseline_ms"),
    )


def _energy(message: measurement_pb2.Energy) -> Energy:
    return Energy(
        gross_mj=_optional(message, "gross_mj"),
        net_mj=message.net_mj,
        idle_mw=_optional(message, "idle_mw"),
        active_mw=_optional(message, "active_mw"),
        source=message.source,
        scope=message.scope,
        updates_per_s=_optional(message, "updates_per_s"),
        inferences=_optional(message, "inferences"),
        modelled=message.modelled,
        calibration=message.calibration,
        covers=message.covers,
    )


def _operator(message: measurement_pb2.OperatorTime) -> OperatorTime:
    return OperatorTime(
        layer=message.layer,
        operator_type=message.operator_type,
        provider=message.provider,
        mean_ms=message.mean_ms,
        calls=message.calls,
    )


def _interference(message: measurement_pb2.Interference) -> Interference:
    return Interference(
        other_cpu_percent=_optional(message, "other_cpu_percent"),
        steal_percent=_optional(message, "steal_percent"),
        cpu_pressure_percent=_optional(message, "cpu_pressure_percent"),
        involuntary_switches_per_inference=_optional(message, "involuntary_switches_per_inference"),
        major_faults=_optional(message, "major_faults"),
        swap_ins=_optional(message, "swap_ins"),
    )


def _execution(message: measurement_pb2.ExecutionSettings) -> ExecutionSettings:
    return ExecutionSettings(
        intra_op_threads=message.intra_op_threads,
        inter_op_threads=_optional(message, "inter_op_threads"),
        execution_mode=_optional(message, "execution_mode"),
        spinning=_optional(message, "spinning"),
        cpu_affinity=tuple(message.cpu_affinity),
        affinity_is_shared=message.affinity_is_shared,
        cpu_fallback=message.cpu_fallback,
    )


def _flag_reasons(messages: Iterable[measurement_pb2.FlagReason]) -> tuple[FlagReason, ...]:
    return tuple(FlagReason(flag=_flag(message.flag), reason=message.reason) for message in messages)


def _flag(value: int) -> str:
    """Return a flag's name without its prefix; a newer agent's flag, unknown here, keeps its number."""
    known = measurement_pb2.MeasurementFlag.DESCRIPTOR.values_by_number.get(value)
    return known.name.removeprefix(_FLAG_PREFIX) if known else f"UNKNOWN_{value}"


def _name(table: Mapping[Any, int], value: int) -> str | None:
    """Return the name of an enum's value; None where it is unspecified or newer than this host."""
    return next((str(member.value) for member, number in table.items() if number == value), None)


def _time(timestamp: Any) -> datetime:
    moment: datetime = timestamp.ToDatetime(tzinfo=UTC)
    return moment


def _optional(message: Any, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None
