"""Decides which flags a measurement carries, from what was seen around it. `measurement.md` has the table."""

import itertools
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from device_agent.benchmark import CanaryReading, Flag, Interference, LatencySummary, RaisedFlag
from device_agent.board.load import WindowLoad
from device_agent.measuring.latency import severe_outliers
from device_agent.measuring.worker_result import WorkerResult
from device_agent.worker import SLOWER_SHARE, median

CLOCK_SHARE = 0.03
DRIFT_SHARE = 0.03
OTHER_CPU_PERCENT = 5.0
STEAL_PERCENT = 1.0
PRESSURE_PERCENT = 1.0
SWITCHES_PER_INFERENCE = 1.0
# What wakes up now and then takes a core for a moment, however long an inference is; a neighbour that computes takes it
# every few milliseconds, of one thread.
SWITCH_EVERY_MS = 20.0
SPREAD_SHARE = 0.10
SPAN_MS = 100.0
SEVERE_SHARE = 0.05
# Where the quartiles are close together, an inference that takes a little longer is a severe outlier by Tukey's fences.
SEVERE_FROM_SHARE = 0.10
# Nothing of the system's own holds a process up for so long; a stopped or swapped-out worker stands still.
STALL_MS = 100.0
CANARY_SHARE = SLOWER_SHARE
# With one of these the reference model was disturbed as well, and tells nothing about the board.
CONTAMINATED_CANARY = frozenset({Flag.THROTTLED, Flag.FREQ, Flag.NOISE, Flag.MEM})


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was seen around one attempt.

    Attributes:
        fills_board: Whether the job's own threads occupy every processor that the agent may use.
        throttling: What slowed the board down, a line each.
        clock_mhz: Lowest clock of the working cores, read under load right before and after the samples.
        expected_clock_mhz: What it should have been.
        gate_obstacle: What stood in the way when the gate was passed all the same.
    """

    result: WorkerResult
    latency: LatencySummary
    interference: Interference
    fills_board: bool
    throttling: Sequence[str]
    clock_mhz: float | None
    expected_clock_mhz: float | None
    canary: CanaryReading | None
    gate_obstacle: str | None


def raise_flags(evidence: Evidence) -> tuple[RaisedFlag, ...]:
    """Return the flags of an attempt, each with the value that raised it and the bound that it passed."""
    return tuple(
        RaisedFlag(flag=flag, reason="; ".join(reasons))
        for flag, find in _FINDERS.items()
        if (reasons := list(find(evidence)))
    )


def energy_flags(seen: WindowLoad, throttling: Sequence[str]) -> tuple[RaisedFlag, ...]:
    """Return the flags of an energy pass: what others draw, or the board saves, is in its figure.

    How long tasks waited for a processor is left out: the agent itself wakes up to read the sensor.
    """
    found = {Flag.THROTTLED: list(throttling), Flag.NOISE: list(_taken_by_others(seen))}
    return tuple(
        RaisedFlag(flag=flag, reason=f"while energy was measured: {'; '.join(reasons)}")
        for flag, reasons in found.items()
        if reasons
    )


def merged(*raised: Iterable[RaisedFlag]) -> tuple[RaisedFlag, ...]:
    """Return each flag once, in the order of their kind, with all of its reasons."""
    reasons: dict[Flag, list[str]] = {flag: [] for flag in Flag}
    for entry in itertools.chain(*raised):
        reasons[entry.flag].append(entry.reason)
    return tuple(RaisedFlag(flag=flag, reason="; ".join(told)) for flag, told in reasons.items() if told)


def _throttled(evidence: Evidence) -> Iterator[str]:
    yield from evidence.throttling


def _slow_clock(evidence: Evidence) -> Iterator[str]:
    clock, expected = evidence.clock_mhz, evidence.expected_clock_mhz
    if clock is not None and expected is not None and clock < (1 - CLOCK_SHARE) * expected:
        yield f"the clock fell to {clock:.0f} MHz, {100 * (1 - clock / expected):.0f} % below the expected {expected:.0f}"


def _drift(evidence: Evidence) -> Iterator[str]:
    samples = evidence.result.samples_ms
    third = len(samples) // 3
    if third:
        first, last = median(samples[:third]), median(samples[-third:])
        if abs(last - first) > DRIFT_SHARE * first:
            change = last / first - 1
            yield f"the last third of the samples differs from the first by {100 * change:+.1f} %"


def _noise(evidence: Evidence) -> Iterator[str]:
    seen = evidence.interference
    yield from _taken_by_others(seen)
    # Where the job leaves no processor free, whatever wakes up waits behind the job itself: on a quiet board of two
    # cores that was 1.1 to 1.8 % of the time with two threads, and none with one.
    if not evidence.fills_board:
        yield from _beyond(
            seen.cpu_pressure_percent,
            PRESSURE_PERCENT,
            "tasks waited for a processor in {:.1f} % of the time",
        )
    in_threads_ms = evidence.result.execution.intra_op_threads * evidence.latency.median_ms
    yield from _beyond(
        seen.involuntary_switches_per_inference,
        max(SWITCHES_PER_INFERENCE, in_threads_ms / SWITCH_EVERY_MS),
        "the worker was taken off a core {:.3g} times an inference",
    )


def _taken_by_others(seen: Interference | WindowLoad) -> Iterator[str]:
    yield from _beyond(seen.other_cpu_percent, OTHER_CPU_PERCENT, "other processes used {:.1f} % of a core")
    yield from _beyond(seen.steal_percent, STEAL_PERCENT, "the hypervisor took {:.1f} % of the processor")


def _beyond(value: float | None, bound: float, text: str) -> Iterator[str]:
    if value is not None and value > bound:
        yield f"{text.format(value)}, more than {bound:.3g}"


def _short_of_memory(evidence: Evidence) -> Iterator[str]:
    if evidence.interference.major_faults:
        yield f"the worker read {evidence.interference.major_faults} pages from a disk while it was timed"
    if evidence.interference.swap_ins:
        yield f"the system read {evidence.interference.swap_ins} pages back from swap"


def _unstable(evidence: Evidence) -> Iterator[str]:
    latency, result = evidence.latency, evidence.result
    # Of single inferences under 1 ms each interrupt is an outlier: of those the groups are looked at.
    units = result.groups_ms or result.samples_ms
    spread = relative_spread(span_means(units, SPAN_MS))
    if spread >= SPREAD_SHARE:
        yield f"the standard deviation is {100 * spread:.0f} % of the mean, {100 * SPREAD_SHARE:g} % or more"
    severe = severe_share(units)
    if severe > SEVERE_SHARE:
        yield f"{100 * severe:.1f} % of the samples are severe outliers {100 * SEVERE_FROM_SHARE:g} % off the median, more than {100 * SEVERE_SHARE:g} %"
    if result.longest_stall_ms > max(STALL_MS, latency.median_ms):
        yield f"the worker stood still for {result.longest_stall_ms:.0f} ms"


def severe_share(samples: Sequence[float]) -> float:
    """Return the share of samples that are severe outliers and at least 10 % off the median."""
    middle = median(samples)
    far = [
        sample for sample in severe_outliers(samples) if abs(sample - middle) >= SEVERE_FROM_SHARE * middle
    ]
    return len(far) / len(samples)


def span_means(samples: Sequence[float], span_ms: float) -> list[float]:
    """Return the means of consecutive samples that fill a span each; slower samples are a span alone.

    The rule on the standard deviation is pyperf's, whose values are means over loops of 100 ms. Of single
    samples it tells little: one interrupt of 0.4 ms among 2,700 samples of 0.06 ms makes 12 % of it, and on
    two threads of a quiet virtual machine (AMD EPYC, four networks of 0.07 to 8 ms, 70 series of 2.5 s) no
    series was below 10 %.
    """
    means: list[float] = []
    begin, filled_ms = 0, 0.0
    for index, sample in enumerate(samples, start=1):
        filled_ms += sample
        if filled_ms >= span_ms:
            means.append(filled_ms / (index - begin))
            begin, filled_ms = index, 0.0
    # What is left at the end is too short a span to count, unless it is all there is.
    return means or [statistics.fmean(samples)]


def relative_spread(samples: Sequence[float]) -> float:
    """Return the standard deviation as a share of the mean; 0 for a single sample."""
    if len(samples) < 2:
        return 0.0
    return statistics.stdev(samples) / statistics.fmean(samples)


def _off_its_baseline(evidence: Evidence) -> Iterator[str]:
    canary = evidence.canary
    if canary is None or canary.baseline_ms is None:
        return
    if abs(canary.median_ms - canary.baseline_ms) > CANARY_SHARE * canary.baseline_ms:
        yield (
            f"the reference model took {canary.median_ms:.4g} ms, {100 * (canary.median_ms / canary.baseline_ms - 1):+.1f} % off its "
            f"baseline of {canary.baseline_ms:.4g} ms on this board"
        )


def _interval_missed(evidence: Evidence) -> Iterator[str]:
    if not evidence.result.interval_reached:
        latency = evidence.latency
        middle_ms = latency.median_ms
        reach_ms = max(latency.median_ci_high_ms - middle_ms, middle_ms - latency.median_ci_low_ms)
        half_width = reach_ms / middle_ms
        yield f"the interval is still ± {100 * half_width:.1f} % wide after {latency.samples} samples"


def _warmup_capped(evidence: Evidence) -> Iterator[str]:
    if evidence.result.warmup_capped:
        yield f"latencies had not settled after {len(evidence.result.warmup_ms)} warm-up inferences"


def _gate_passed(evidence: Evidence) -> Iterator[str]:
    if evidence.gate_obstacle is not None:
        yield f"measured although {evidence.gate_obstacle}"


_FINDERS = {
    Flag.THROTTLED: _throttled,
    Flag.FREQ: _slow_clock,
    Flag.DRIFT: _drift,
    Flag.NOISE: _noise,
    Flag.MEM: _short_of_memory,
    Flag.UNSTABLE: _unstable,
    Flag.CANARY: _off_its_baseline,
    Flag.CI_NOT_REACHED: _interval_missed,
    Flag.WARMUP_CAP: _warmup_capped,
    Flag.GATE_TIMEOUT: _gate_passed,
}
