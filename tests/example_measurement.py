"""Measurements with something in every field."""

from dataclasses import replace
from datetime import UTC, datetime

from controller.core.measurement import (
    Canary,
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
    OperatorTime,
)


def measurement(request_id: str, *, median_ms: float = 3.21) -> Measurement:
    """Return a measurement in which some figures are absent, as on a board without sensors and an older agent."""
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


def complete_measurement(request_id: str) -> Measurement:
    """Return a measurement of a board that tells everything."""
    noise = FlagReason(flag="NOISE", reason="other processes used 43 % of a core")
    return replace(
        measurement(request_id),
        flags=("NOISE",),
        flag_reasons=(noise,),
        precision="float32",
        batch_size=1,
        input_data="random",
        seed=0,
        load_was_cold=True,
        warm_load_ms=4.5,
        grouped=GroupedLatency(
            median_ms=3.2, median_ci_low_ms=3.1, median_ci_high_ms=3.3, inferences_per_group=4, groups=48
        ),
        canary=Canary(before_ms=1.1, after_ms=1.2, median_ms=1.15, baseline_ms=1.0),
        drift_corrected_ms=2.8,
        energy_mj=2.5,
        energy_absent_reason="",
        energy=Energy(
            gross_mj=6.0,
            net_mj=2.5,
            idle_mw=3500.0,
            active_mw=6000.0,
            source="ina2xx",
            scope="input",
            updates_per_s=12.5,
            inferences=900,
            modelled=False,
            calibration="",
            covers="ina226 at 1-0040, shunt 100000 µΩ",
        ),
        operators=(
            OperatorTime(layer="stem.conv", operator_type="Conv", provider="CPU", mean_ms=0.3, calls=1.0),
        ),
        interference=Interference(
            other_cpu_percent=43.0,
            steal_percent=0.0,
            cpu_pressure_percent=None,
            involuntary_switches_per_inference=0.5,
            major_faults=0,
            swap_ins=None,
        ),
        discarded_attempts=(DiscardedAttempt(median_ms=3.4, samples=64, flag_reasons=(noise,)),),
        execution=ExecutionSettings(
            intra_op_threads=4,
            inter_op_threads=1,
            execution_mode="sequential",
            spinning=True,
            cpu_affinity=(0, 1, 2, 3),
        ),
        gpu_peak_bytes=5_000_000,
        gate_wait_s=2.5,
        agent_version="0.1.0",
        kernel_release="6.12.0",
    )
