"""A measurement with something in every field."""

from datetime import UTC, datetime

from controller.core.measurement import (
    Conditions,
    LatencyStatistics,
    Measurement,
    MeasurementMode,
    MemoryUsage,
)


def measurement(request_id: str, *, median_ms: float = 3.21) -> Measurement:
    """Return a measurement in which some figures are absent, as on a board without sensors."""
    return Measurement(
        request_id=request_id,
        model_sha256="ab" * 32,
        model_name="model",
        runtime="onnx",
        runtime_version="onnxruntime 1.23.0",
        provider="CPUExecutionProvider",
        threads=4,
        input_shapes={"input": (1, 3, 32, 32)},
        mode=MeasurementMode.SEARCH,
        started_at=datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=UTC),
        finished_at=datetime(2026, 5, 1, 12, 0, 9, tzinfo=UTC),
        latency=LatencyStatistics(
            median_ms=median_ms,
            median_ci_low_ms=3.2,
            median_ci_high_ms=3.22,
            mean_ms=3.3,
            min_ms=3.1,
            max_ms=9.9,
            mad_ms=0.01,
            p90_ms=3.5,
            p99_ms=None,
            mild_outliers=2,
            severe_outliers=1,
            samples=3,
        ),
        load_ms=12.0,
        first_inference_ms=8.0,
        warmup_ms=(5.0, 3.4),
        samples_ms=(3.1, 3.21, 9.9),
        memory=MemoryUsage(
            baseline_bytes=100,
            after_load_bytes=200,
            after_first_inference_bytes=300,
            after_last_inference_bytes=300,
            peak_bytes=200,
            pss_bytes=None,
            method="VmHWM",
        ),
        energy_mj=None,
        energy_absent_reason="no power sensor",
        before=Conditions(
            temperature_c=48.5,
            clock_mhz=1500.0,
            governor="schedutil",
            load_average_1min=0.2,
            available_memory_bytes=10**9,
            cpu_pressure_percent=None,
        ),
        after=Conditions(
            temperature_c=None,
            clock_mhz=None,
            governor=None,
            load_average_1min=None,
            available_memory_bytes=None,
            cpu_pressure_percent=None,
        ),
        flags=("CI_NOT_REACHED",),
    )
