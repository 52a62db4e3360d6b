"""Measurements to the wire, figure by figure."""

from edgenas.v1 import measurement_pb2

from device_agent.benchmark import (
    CanaryReading,
    CanaryTurn,
    DiscardedAttempt,
    EnergyReading,
    ExecutionSettings,
    GroupedLatency,
    Interference,
    LatencySummary,
    Measurement,
    MemoryUsage,
    OperatorTime,
    RaisedFlag,
)
from device_agent.board.conditions import Conditions
from device_agent.serving.wire.tables import FLAGS_TO_WIRE


def measurement_to_wire(measurement: Measurement) -> measurement_pb2.Measurement:
    """Return a measurement with its raw samples."""
    energy, grouped, canary = measurement.energy, measurement.grouped, measurement.canary
    return measurement_pb2.Measurement(
        latency=_latency(measurement.latency),
        grouped=None if grouped is None else _grouped(grouped),
        load_ms=measurement.load_ms,
        load_was_cold=measurement.load_was_cold,
        warm_load_ms=measurement.warm_load_ms,
        warm_load_absent_reason=measurement.warm_load_absent_reason,
        first_inference_ms=measurement.first_inference_ms,
        warmup_ms=measurement.warmup_ms,
        samples_ms=measurement.samples_ms,
        groups_ms=measurement.groups_ms,
        memory=_memory(measurement.memory),
        gpu_peak_bytes=measurement.gpu_peak_bytes,
        canary=None if canary is None else _canary(canary),
        canary_absent_reason=measurement.canary_absent_reason,
        canary_turns=map(_canary_turn, measurement.canary_turns),
        drift_corrected_ms=measurement.drift_corrected_ms,
        energy_mj=None if energy is None else energy.net_mj,
        energy_absent_reason=measurement.energy_absent_reason,
        energy=None if energy is None else _energy(energy),
        operators=map(_operator, measurement.operators),
        operators_absent_reason=measurement.operators_absent_reason,
        before=_conditions(measurement.before),
        after=_conditions(measurement.after),
        interference=_interference(measurement.interference),
        flags=[FLAGS_TO_WIRE[raised.flag] for raised in measurement.flags],
        flag_reasons=map(_flag_reason, measurement.flags),
        discarded_attempts=map(_discarded, measurement.discarded),
        execution=_execution(measurement.execution),
        gate_wait_s=measurement.gate_wait_s,
        runtime_version=measurement.runtime_version,
        provider=measurement.provider,
        agent_version=measurement.agent_version,
        kernel_release=measurement.kernel_release,
    )


def _flag_reason(raised: RaisedFlag) -> measurement_pb2.FlagReason:
    return measurement_pb2.FlagReason(flag=FLAGS_TO_WIRE[raised.flag], reason=raised.reason)


def _discarded(attempt: DiscardedAttempt) -> measurement_pb2.DiscardedAttempt:
    return measurement_pb2.DiscardedAttempt(
        median_ms=attempt.median_ms, samples=attempt.samples, flag_reasons=map(_flag_reason, attempt.flags)
    )


def _grouped(grouped: GroupedLatency) -> measurement_pb2.GroupedLatency:
    return measurement_pb2.GroupedLatency(
        median_ms=grouped.median_ms,
        median_ci_low_ms=grouped.median_ci_low_ms,
        median_ci_high_ms=grouped.median_ci_high_ms,
        inferences_per_group=grouped.inferences_per_group,
        groups=grouped.groups,
    )


def _canary(canary: CanaryReading) -> measurement_pb2.Canary:
    return measurement_pb2.Canary(
        before_ms=canary.before_ms,
        after_ms=canary.after_ms,
        median_ms=canary.median_ms,
        baseline_ms=canary.baseline_ms,
    )


def _canary_turn(turn: CanaryTurn) -> measurement_pb2.CanaryTurn:
    return measurement_pb2.CanaryTurn(samples_before=turn.samples_before, latencies_ms=turn.latencies_ms)


def _energy(energy: EnergyReading) -> measurement_pb2.Energy:
    return measurement_pb2.Energy(
        gross_mj=energy.gross_mj,
        net_mj=energy.net_mj,
        idle_mw=energy.idle_mw,
        active_mw=energy.active_mw,
        source=energy.source,
        scope=energy.scope,
        updates_per_s=energy.updates_per_s,
        inferences=energy.inferences,
        modelled=energy.modelled,
        calibration=energy.calibration,
        covers=energy.covers,
    )


def _operator(operator: OperatorTime) -> measurement_pb2.OperatorTime:
    return measurement_pb2.OperatorTime(
        layer=operator.layer,
        operator_type=operator.operator_type,
        provider=operator.provider,
        mean_ms=operator.mean_ms,
        calls=operator.calls,
    )


def _interference(seen: Interference) -> measurement_pb2.Interference:
    return measurement_pb2.Interference(
        other_cpu_percent=seen.other_cpu_percent,
        steal_percent=seen.steal_percent,
        cpu_pressure_percent=seen.cpu_pressure_percent,
        involuntary_switches_per_inference=seen.involuntary_switches_per_inference,
        major_faults=seen.major_faults,
        swap_ins=seen.swap_ins,
    )


def _execution(settings: ExecutionSettings) -> measurement_pb2.ExecutionSettings:
    return measurement_pb2.ExecutionSettings(
        intra_op_threads=settings.intra_op_threads,
        inter_op_threads=settings.inter_op_threads,
        execution_mode=settings.execution_mode,
        spinning=settings.spinning,
        cpu_affinity=settings.cpu_affinity,
        affinity_is_shared=settings.affinity_is_shared,
        cpu_fallback=settings.cpu_fallback,
    )


def _latency(latency: LatencySummary) -> measurement_pb2.LatencyStatistics:
    return measurement_pb2.LatencyStatistics(
        median_ms=latency.median_ms,
        median_ci_low_ms=latency.median_ci_low_ms,
        median_ci_high_ms=latency.median_ci_high_ms,
        mean_ms=latency.mean_ms,
        min_ms=latency.min_ms,
        max_ms=latency.max_ms,
        mad_ms=latency.mad_ms,
        p90_ms=latency.p90_ms,
        p99_ms=latency.p99_ms,
        mild_outliers=latency.mild_outliers,
        severe_outliers=latency.severe_outliers,
        samples=latency.samples,
    )


def _memory(memory: MemoryUsage) -> measurement_pb2.MemoryUsage:
    return measurement_pb2.MemoryUsage(
        baseline_bytes=memory.baseline_bytes,
        after_load_bytes=memory.after_load_bytes,
        after_first_inference_bytes=memory.after_first_inference_bytes,
        after_last_inference_bytes=memory.after_last_inference_bytes,
        peak_bytes=memory.peak_bytes,
        pss_bytes=memory.pss_bytes,
        method=memory.method,
    )


def _conditions(conditions: Conditions) -> measurement_pb2.Conditions:
    return measurement_pb2.Conditions(
        temperature_c=conditions.temperature_c,
        clock_mhz=conditions.clock_mhz,
        governor=conditions.governor,
        load_average_1min=conditions.load_average_1min,
        available_memory_bytes=conditions.available_memory_bytes,
        cpu_pressure_percent=conditions.cpu_pressure_percent,
        expected_clock_mhz=conditions.expected_clock_mhz,
        throttling=conditions.throttling,
        power_mode=conditions.power_mode,
        memory_pressure_percent=conditions.memory_pressure_percent,
    )
