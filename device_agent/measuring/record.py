"""What a job publishes of its attempts, and which of them."""

import platform
from collections.abc import Iterable, Sequence
from dataclasses import replace

from device_agent import __version__
from device_agent.benchmark import (
    CONTAMINATING,
    BenchmarkRecord,
    CanaryTurn,
    DiscardedAttempt,
    Measurement,
    Precision,
    RaisedFlag,
)
from device_agent.measuring.attempt import Attempt, Passes
from device_agent.measuring.flags import CANARY_SHARE, merged
from device_agent.measuring.job import Job
from device_agent.runtimes.catalogue import RUNTIMES


def flags_of(attempt: Attempt) -> tuple[RaisedFlag, ...]:
    """Return the flags of an attempt and of the passes that it went through."""
    return merged(attempt.flags, attempt.passes.flags if attempt.passes is not None else ())


def contaminating(flags: Iterable[RaisedFlag]) -> int:
    """Return how many flags say that something else than the model shaped the figures."""
    return sum(raised.flag in CONTAMINATING for raised in flags)


def least_disturbed(attempts: Sequence[Attempt]) -> Attempt:
    """Return the attempt whose latency to publish, of equals the last.

    A clean one first, whatever became of its energy. Of others, how far off the reference model was says how much of the disturbance reached what
    was timed, and the number of flags does not: an attempt that was slow throughout has one, one that was slow half
    of the time has three. So that number only decides between attempts that were equally far off.
    """

    def disturbance(attempt: Attempt) -> tuple[bool, int, int]:
        off = None if attempt.canary is None else attempt.canary.off_baseline
        flags = contaminating(attempt.flags)
        return flags > 0, int(abs(off or 0.0) / CANARY_SHARE), flags

    return min(reversed(attempts), key=disturbance)


def best_passes(attempts: Sequence[Attempt], published: Attempt) -> Passes:
    """Return the passes to publish: those with an energy, the least disturbed one, rather of the published attempt."""

    def disturbance(attempt: Attempt) -> tuple[bool, bool, int, bool]:
        passes = attempt.passes
        assert passes is not None
        flags = contaminating(passes.flags)
        return not passes.gone_through, passes.energy is None, flags, attempt is not published

    passes = min(reversed(attempts), key=disturbance).passes
    assert passes is not None
    return passes


def record_of(job: Job, attempts: Sequence[Attempt], precision: Precision | None) -> BenchmarkRecord:
    """Return what a job publishes.

    Args:
        job: At its end.
        attempts: At least one, in order.
        precision: The model's, where its file tells.
    """
    request, best = job.request, least_disturbed(attempts)
    others = [attempt for attempt in attempts if attempt is not best]
    passes = best_passes(attempts, best)
    result, insight = best.result, passes.insight
    execution = result.execution
    if insight.cpu_fallback is not None:
        execution = replace(execution, cpu_fallback=insight.cpu_fallback)
    return BenchmarkRecord(
        request_id=request.request_id,
        model_sha256=request.model_sha256,
        model_name=request.model_name,
        model_format=RUNTIMES[request.spec.runtime].format,
        spec=replace(
            request.spec,
            input_shapes=result.input_shapes,
            provider=request.spec.provider or result.provider,
            precision=precision or result.precision,
        ),
        started_at=job.started_at,
        finished_at=job.now,
        measurement=Measurement(
            latency=best.latency,
            grouped=best.grouped,
            load_ms=result.load_ms,
            load_was_cold=result.load_was_cold,
            warm_load_ms=passes.second_load.warm_load_ms,
            warm_load_absent_reason=passes.second_load.absent_reason,
            first_inference_ms=result.first_inference_ms,
            warmup_ms=result.warmup_ms,
            samples_ms=result.samples_ms,
            groups_ms=result.groups_ms,
            memory=result.memory,
            gpu_peak_bytes=result.gpu_peak_bytes,
            canary=best.canary,
            canary_absent_reason=result.canary_absent_reason,
            canary_turns=tuple(
                CanaryTurn(samples_before=before, latencies_ms=latencies_ms)
                for before, latencies_ms in zip((0, *result.turn_ends), result.canary_turns_ms, strict=False)
            ),
            drift_corrected_ms=best.drift_corrected_ms,
            energy=passes.energy,
            energy_absent_reason=passes.energy_absent_reason,
            operators=insight.operators,
            operators_absent_reason=insight.operators_absent_reason,
            before=best.before,
            after=best.after,
            interference=best.interference,
            flags=merged(best.flags, passes.flags),
            discarded=tuple(
                DiscardedAttempt(
                    median_ms=other.latency.median_ms,
                    samples=other.latency.samples,
                    flags=flags_of(other),
                )
                for other in others
            ),
            execution=execution,
            gate_wait_s=job.waited_s,
            runtime_version=job.runtime_version,
            provider=insight.provider or result.provider,
            agent_version=__version__,
            kernel_release=platform.release(),
        ),
    )
