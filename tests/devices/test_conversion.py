"""What an agent sends, in the host's own types: everything a new one knows, and no inventions for an old one."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from edgenas.v1 import benchmark_pb2, device_pb2, measurement_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from controller.core.measurement import (
    Canary,
    CanaryTurn,
    DiscardedAttempt,
    Energy,
    ExecutionSettings,
    FlagReason,
    GroupedLatency,
    Interference,
    MeasurementMode,
    OperatorTime,
)
from controller.core.options import InputData, MeasurementOptions, Precision
from controller.devices import conversion
from controller.devices.description import PowerSource, UnavailableRuntime


def record(measurement: measurement_pb2.Measurement, **spec: object) -> benchmark_pb2.BenchmarkRecord:
    return benchmark_pb2.BenchmarkRecord(
        request_id="one",
        model_name="net.onnx",
        spec=benchmark_pb2.BenchmarkSpec(
            runtime="onnx",
            threads=4,
            mode=benchmark_pb2.MEASUREMENT_MODE_FULL,
            **spec,  # type: ignore[arg-type]
        ),
        started_at=Timestamp(seconds=1_780_000_000),
        measurement=measurement,
    )


OLD = measurement_pb2.Measurement(
    latency=measurement_pb2.LatencyStatistics(median_ms=3.0, samples=64),
    load_ms=12.0,
    first_inference_ms=8.0,
    memory=measurement_pb2.MemoryUsage(peak_bytes=5, method="VmHWM"),
    energy_absent_reason="this agent reads no power sensor yet",
    flags=[measurement_pb2.MEASUREMENT_FLAG_WARMUP_CAP],
    runtime_version="onnxruntime 1.23.0",
    provider="CPUExecutionProvider",
)

NEW = measurement_pb2.Measurement(
    latency=measurement_pb2.LatencyStatistics(median_ms=0.5, samples=700, p90_ms=0.6, p99_ms=0.7),
    load_ms=12.0,
    load_was_cold=False,
    warm_load_ms=4.5,
    first_inference_ms=8.0,
    grouped=measurement_pb2.GroupedLatency(
        median_ms=0.49, median_ci_low_ms=0.48, median_ci_high_ms=0.5, inferences_per_group=20, groups=48
    ),
    canary=measurement_pb2.Canary(before_ms=1.1, after_ms=1.2, median_ms=1.15, baseline_ms=1.0),
    canary_absent_reason="no room",
    canary_turns=[measurement_pb2.CanaryTurn(samples_before=64, latencies_ms=[1.1, 1.2])],
    groups_ms=[9.8, 10.2],
    drift_corrected_ms=0.43,
    memory=measurement_pb2.MemoryUsage(peak_bytes=5, method="VmHWM"),
    gpu_peak_bytes=0,
    energy_mj=2.5,
    energy=measurement_pb2.Energy(
        gross_mj=6.0,
        net_mj=2.5,
        idle_mw=3500,
        active_mw=6000,
        source="ina226",
        scope="input",
        updates_per_s=12.5,
        inferences=900,
        modelled=False,
        calibration="",
        covers="ina226 at 1-0040",
    ),
    operators=[
        measurement_pb2.OperatorTime(
            layer="stem.conv", operator_type="Conv", provider="CPU", mean_ms=0.3, calls=1
        )
    ],
    interference=measurement_pb2.Interference(other_cpu_percent=43.0, steal_percent=0.0, major_faults=0),
    flags=[measurement_pb2.MEASUREMENT_FLAG_NOISE, 99],
    flag_reasons=[
        measurement_pb2.FlagReason(
            flag=measurement_pb2.MEASUREMENT_FLAG_NOISE, reason="other processes used 43 % of a core"
        )
    ],
    discarded_attempts=[
        measurement_pb2.DiscardedAttempt(
            median_ms=0.9,
            samples=64,
            flag_reasons=[
                measurement_pb2.FlagReason(flag=measurement_pb2.MEASUREMENT_FLAG_DRIFT, reason="5 % apart")
            ],
        )
    ],
    execution=measurement_pb2.ExecutionSettings(
        intra_op_threads=2,
        inter_op_threads=1,
        execution_mode="sequential",
        spinning=True,
        cpu_affinity=[0, 1],
        affinity_is_shared=True,
        cpu_fallback="1 of 2 nodes ran on the CPU",
    ),
    before=measurement_pb2.Conditions(
        expected_clock_mhz=1800.0,
        throttling=["under-voltage"],
        power_mode="MAXN",
        memory_pressure_percent=0.0,
    ),
    gate_wait_s=0.0,
    agent_version="0.2.0",
    kernel_release="6.12.0",
)


def test_new_agent_s_measurement_arrives_whole():
    found = conversion.measurement(
        record(
            NEW,
            precision=benchmark_pb2.PRECISION_INT8_QDQ,
            batch_size=8,
            seed=7,
            input_data=benchmark_pb2.INPUT_DATA_ZEROS,
        )
    )

    assert (found.load_was_cold, found.warm_load_ms) == (False, 4.5)
    assert found.grouped == GroupedLatency(
        median_ms=0.49, median_ci_low_ms=0.48, median_ci_high_ms=0.5, inferences_per_group=20, groups=48
    )
    assert found.canary == Canary(before_ms=1.1, after_ms=1.2, median_ms=1.15, baseline_ms=1.0)
    assert found.canary_absent_reason == "no room"
    assert found.canary_turns == (CanaryTurn(samples_before=64, latencies_ms=(1.1, 1.2)),)
    assert found.groups_ms == (9.8, 10.2)
    assert found.drift_corrected_ms == 0.43
    assert (found.energy_mj, found.energy_absent_reason) == (2.5, "")
    assert found.energy == Energy(
        gross_mj=6.0,
        net_mj=2.5,
        idle_mw=3500.0,
        active_mw=6000.0,
        source="ina226",
        scope="input",
        updates_per_s=12.5,
        inferences=900,
        modelled=False,
        calibration="",
        covers="ina226 at 1-0040",
    )
    assert found.operators == (
        OperatorTime(layer="stem.conv", operator_type="Conv", provider="CPU", mean_ms=0.3, calls=1.0),
    )
    assert found.interference == Interference(
        other_cpu_percent=43.0,
        steal_percent=0.0,
        cpu_pressure_percent=None,
        involuntary_switches_per_inference=None,
        major_faults=0,
        swap_ins=None,
    )
    assert found.flags == ("NOISE", "UNKNOWN_99")
    assert found.contaminated == ("NOISE",)
    assert found.flag_reasons == (FlagReason(flag="NOISE", reason="other processes used 43 % of a core"),)
    assert found.discarded_attempts == (
        DiscardedAttempt(
            median_ms=0.9, samples=64, flag_reasons=(FlagReason(flag="DRIFT", reason="5 % apart"),)
        ),
    )
    assert found.execution == ExecutionSettings(
        intra_op_threads=2,
        inter_op_threads=1,
        execution_mode="sequential",
        spinning=True,
        cpu_affinity=(0, 1),
        affinity_is_shared=True,
        cpu_fallback="1 of 2 nodes ran on the CPU",
    )
    assert (found.gpu_peak_bytes, found.gate_wait_s) == (0, 0.0)
    assert (found.agent_version, found.kernel_release) == ("0.2.0", "6.12.0")
    assert (found.precision, found.batch_size, found.seed, found.input_data) == ("int8_qdq", 8, 7, "zeros")
    assert found.before.expected_clock_mhz == 1800.0
    assert found.before.throttling == ("under-voltage",)
    assert (found.before.power_mode, found.before.memory_pressure_percent) == ("MAXN", 0.0)


def test_old_agent_s_measurement_invents_nothing():
    found = conversion.measurement(record(OLD))

    assert (found.latency.median_ms, found.flags) == (3.0, ("WARMUP_CAP",))
    absent = (
        found.load_was_cold,
        found.warm_load_ms,
        found.grouped,
        found.canary,
        found.drift_corrected_ms,
        found.energy_mj,
        found.energy,
        found.interference,
        found.execution,
        found.gpu_peak_bytes,
        found.gate_wait_s,
        found.agent_version,
        found.kernel_release,
        found.precision,
        found.batch_size,
        found.input_data,
        found.before.expected_clock_mhz,
        found.before.power_mode,
        found.before.memory_pressure_percent,
    )
    assert absent == (None,) * len(absent)
    assert (found.operators, found.flag_reasons, found.discarded_attempts) == ((), (), ())
    assert set(found.metrics) == {"latency_ms", "peak_memory_mb", "load_ms", "first_inference_ms"}
    assert found.started_at == datetime.fromtimestamp(1_780_000_000, UTC)


def test_what_failed_beside_the_measurement_arrives_with_its_reason():
    lacking = measurement_pb2.Measurement(
        agent_version="0.2.0",
        warm_load_absent_reason="no memory for a second load",
        operators_absent_reason="the profiler failed",
        execution=measurement_pb2.ExecutionSettings(intra_op_threads=2),
    )

    found = conversion.measurement(record(lacking))

    assert (found.warm_load_ms, found.warm_load_absent_reason) == (None, "no memory for a second load")
    assert (found.operators, found.operators_absent_reason) == ((), "the profiler failed")
    assert found.execution == ExecutionSettings(
        intra_op_threads=2, inter_op_threads=None, execution_mode=None, spinning=None, cpu_affinity=()
    )


def test_modelled_energy_is_told_as_such_and_is_no_metric():
    modelled = measurement_pb2.Measurement()
    modelled.CopyFrom(NEW)
    modelled.energy.modelled = True

    found = conversion.measurement(record(modelled))

    assert found.energy_is_modelled
    assert found.energy_mj == 2.5
    assert "energy_mj" not in found.metrics
    assert replace(found, energy=None).metrics["energy_mj"] == 2.5


def test_what_a_formula_cannot_tell_is_absent_not_zero():
    formula = measurement_pb2.Measurement(
        energy_mj=2.5,
        energy=measurement_pb2.Energy(
            net_mj=2.5, source="modelled", modelled=True, calibration="40 pJ/MAC + 500 pJ/byte (c.json)"
        ),
    )

    assert conversion.measurement(record(formula)).energy == Energy(
        gross_mj=None,
        net_mj=2.5,
        idle_mw=None,
        active_mw=None,
        source="modelled",
        scope="",
        updates_per_s=None,
        inferences=None,
        modelled=True,
        calibration="40 pJ/MAC + 500 pJ/byte (c.json)",
        covers="",
    )


def test_measured_zero_arrives_as_zero():
    silent = measurement_pb2.Measurement(energy=measurement_pb2.Energy(idle_mw=0.0, gross_mj=1.0))

    found = conversion.measurement(record(silent)).energy

    assert found is not None
    assert (found.idle_mw, found.gross_mj, found.active_mw) == (0.0, 1.0, None)


def test_options_become_a_spec():
    spec = conversion.spec(
        MeasurementOptions(
            threads=2,
            input_shapes={"image": (8, 3, 32, 32)},
            provider="XnnpackExecutionProvider",
            batch_size=8,
            precision=Precision.FLOAT16,
            input_data=InputData.ZEROS,
            seed=3,
            cpu_affinity=(0, 2),
            time_limit_s=90.0,
            profile=True,
            energy=True,
            power_source="modelled",
            macs=300_774_272,
        ),
        "onnx",
        MeasurementMode.SEARCH,
    )

    assert spec == benchmark_pb2.BenchmarkSpec(
        runtime="onnx",
        threads=2,
        input_shapes=[benchmark_pb2.InputShape(name="image", dimensions=[8, 3, 32, 32])],
        seed=3,
        mode=benchmark_pb2.MEASUREMENT_MODE_SEARCH,
        provider="XnnpackExecutionProvider",
        batch_size=8,
        precision=benchmark_pb2.PRECISION_FLOAT16,
        input_data=benchmark_pb2.INPUT_DATA_ZEROS,
        cpu_affinity=[0, 2],
        time_limit_s=90.0,
        profile=True,
        energy=True,
        power_source="modelled",
        macs=300_774_272,
    )


def test_options_left_alone_leave_every_choice_to_the_board():
    assert conversion.spec(MeasurementOptions(), "onnx", MeasurementMode.FULL) == benchmark_pb2.BenchmarkSpec(
        runtime="onnx",
        mode=benchmark_pb2.MEASUREMENT_MODE_FULL,
        input_data=benchmark_pb2.INPUT_DATA_RANDOM,
    )


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        ({"phase": benchmark_pb2.BENCHMARK_PHASE_WARM_UP}, "warm up"),
        (
            {
                "phase": benchmark_pb2.BENCHMARK_PHASE_GATE,
                "detail": "other processes use 43 % of a core",
                "attempt": 2,
            },
            "gate: other processes use 43 % of a core, attempt 2",
        ),
        ({"phase": benchmark_pb2.BENCHMARK_PHASE_CANARY, "attempt": 1}, "canary"),
        ({"phase": 99, "detail": "something new"}, "working: something new"),
    ],
)
def test_progress_is_told_in_a_few_words(progress: dict[str, object], text: str):
    assert conversion.progress(benchmark_pb2.BenchmarkProgress(**progress)) == text  # type: ignore[arg-type]


def test_description_tells_what_cannot_be_used():
    found = conversion.description(
        device_pb2.DescribeDeviceResponse(
            runtimes=[device_pb2.RuntimeDescription(name="onnx", version="1.23", library="onnxruntime")],
            unavailable_runtimes=[
                device_pb2.UnavailableRuntime(name="torchscript", reason="install edgenas[torchscript]")
            ],
            power_sources=[
                device_pb2.PowerSourceDescription(name="ina2xx", scope="input"),
                device_pb2.PowerSourceDescription(name="rapl", scope="soc", absent_reason="root only"),
            ],
        )
    )

    assert found.runtimes[0].library == "onnxruntime"
    assert found.unavailable_runtimes == (
        UnavailableRuntime(name="torchscript", reason="install edgenas[torchscript]"),
    )
    assert found.power_sources == (
        PowerSource(name="ina2xx", scope="input", absent_reason=""),
        PowerSource(name="rapl", scope="soc", absent_reason="root only"),
    )


@pytest.mark.parametrize(
    ("sources", "reason"),
    [
        ([("ina2xx", "input", ""), ("rapl", "soc", "root only")], ""),
        (
            [("ina2xx", "input", "no chip"), ("rapl", "soc", "root only")],
            "ina2xx: no chip; nor can rapl be read (`edgenas devices show` tells why)",
        ),
        ([("modelled", "board", "")], "what it has is a model or sees a graphics card alone"),
        (
            [("nvml", "gpu", ""), ("rapl", "soc", "root only")],
            "rapl: root only (`edgenas devices show` tells why)",
        ),
        ([], "its agent 0.1.0 names no power source"),
    ],
)
def test_description_tells_why_no_energy_is_measured(sources: list[tuple[str, str, str]], reason: str):
    found = conversion.description(
        device_pb2.DescribeDeviceResponse(
            agent_version="0.1.0",
            power_sources=[
                device_pb2.PowerSourceDescription(name=name, scope=scope, absent_reason=absent)
                for name, scope, absent in sources
            ],
        )
    )

    assert found.energy_absent_reason == reason
