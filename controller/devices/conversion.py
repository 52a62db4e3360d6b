"""Between the wire format and EdgeNAS's own types."""

from datetime import UTC, datetime
from typing import Any

from edgenas.v1 import benchmark_pb2, device_pb2, measurement_pb2, model_pb2

from controller.core.errors import DeviceError
from controller.core.measurement import (
    Conditions,
    LatencyStatistics,
    Measurement,
    MeasurementMode,
    MemoryUsage,
    ModelFormat,
)
from controller.devices.description import DeviceDescription, RuntimeDescription

FORMATS = {
    ModelFormat.ONNX: model_pb2.MODEL_FORMAT_ONNX,
    ModelFormat.TORCHSCRIPT: model_pb2.MODEL_FORMAT_TORCHSCRIPT,
}
MODES = {
    MeasurementMode.SEARCH: benchmark_pb2.MEASUREMENT_MODE_SEARCH,
    MeasurementMode.FULL: benchmark_pb2.MEASUREMENT_MODE_FULL,
}
_FLAG_PREFIX = "MEASUREMENT_FLAG_"


def description(message: device_pb2.DescribeDeviceResponse) -> DeviceDescription:
    """Return what a board said of itself."""
    return DeviceDescription(
        protocol_version=message.protocol_version,
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
            RuntimeDescription(name=runtime.name, version=runtime.version, providers=tuple(runtime.providers))
            for runtime in message.runtimes
        ),
        boot_id=_optional(message, "boot_id"),
        model_size_limit_bytes=message.model_size_limit_bytes,
    )


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
    )


def _flag(value: int) -> str:
    """Return a flag's name without its prefix; a newer agent's flag, unknown here, keeps its number."""
    known = measurement_pb2.MeasurementFlag.DESCRIPTOR.values_by_number.get(value)
    return known.name.removeprefix(_FLAG_PREFIX) if known else f"UNKNOWN_{value}"


def _time(timestamp: Any) -> datetime:
    moment: datetime = timestamp.ToDatetime(tzinfo=UTC)
    return moment


def _optional(message: Any, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None
