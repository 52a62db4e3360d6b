"""Which flags a measurement carries, with the very reason that a reader sees."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_results import evidence, worker_result

from device_agent.benchmark import CanaryReading, Flag, RaisedFlag
from device_agent.board.load import WindowLoad
from device_agent.measuring.flags import (
    Evidence,
    energy_flags,
    merged,
    raise_flags,
    relative_spread,
    span_means,
)
from device_agent.measuring.latency import summarise

TWO_THREADS = replace(worker_result().execution, intra_op_threads=2)


def reading(baseline_ms: float | None, median_ms: float = 2.0) -> CanaryReading:
    return CanaryReading(before_ms=2.0, after_ms=2.0, median_ms=median_ms, baseline_ms=baseline_ms)


def halves(first: float, last: float) -> dict[str, tuple[float, ...]]:
    return {"samples_ms": (first,) * 30 + (last,) * 30}


def spread(deviation_ms: float) -> dict[str, tuple[float, ...]]:
    """Samples around 1 s with this very standard deviation, whose first and last third are alike."""
    low, high = 1000 - deviation_ms, 1000 + deviation_ms
    return {"samples_ms": (low, low, high, high, 1000.0, high, low, low, high)}


def severe(count: int, of: int) -> dict[str, tuple[float, ...]]:
    """Samples of which some are severe outliers, spread evenly so that nothing drifts."""
    every = of // count if count else of + 1
    return {"samples_ms": tuple(11.0 if index % every == every - 1 else 10.0 for index in range(of))}


CLEAN = {
    "clock at its bound": {"clock_mhz": 1940.0},
    "clock above what is expected": {"clock_mhz": 2100.0},
    "drift up at its bound": halves(100.0, 103.0),
    "drift down at its bound": halves(100.0, 97.0),
    "other processes at their bound": {"other_cpu_percent": 5.0},
    "steal at its bound": {"steal_percent": 1.0},
    "pressure at its bound": {"cpu_pressure_percent": 1.0},
    "pressure of a job that leaves no processor free": {"cpu_pressure_percent": 90.0, "fills_board": True},
    "switches at their bound": {"involuntary_switches_per_inference": 1.0},
    "switches of a long inference at their bound": {
        "involuntary_switches_per_inference": 2.0,
        "samples_ms": (20.0,) * 60,
        "execution": TWO_THREADS,
    },
    "no faults": {"major_faults": 0, "swap_ins": 0},
    "spread below its bound": spread(99.9),
    "severe outliers at their bound": severe(3, of=60),
    "severe outliers that are only a little off": {"samples_ms": (10.0, 10.0, 10.0, 10.0, 10.9) * 12},
    "stall at its bound": {"longest_stall_ms": 100.0},
    "stall of a slow model at its bound": {"longest_stall_ms": 400.0, "samples_ms": (400.0,) * 60},
    "reference model slower, at its bound": {"canary": reading(100.0, 102.0)},
    "reference model faster, at its bound": {"canary": reading(100.0, 98.0)},
}

RAISED = {
    "throttled": (
        {
            "throttling": (
                "throttled: get_throttled went from 0x0 to 0x4",
                "core_throttle_count of cpu1 grew by 2",
            )
        },
        Flag.THROTTLED,
        "throttled: get_throttled went from 0x0 to 0x4; core_throttle_count of cpu1 grew by 2",
    ),
    "clock": (
        {"clock_mhz": 1939.0},
        Flag.FREQ,
        "the clock fell to 1939 MHz, 3 % below the expected 2000",
    ),
    "clock far below": (
        {"clock_mhz": 600.0},
        Flag.FREQ,
        "the clock fell to 600 MHz, 70 % below the expected 2000",
    ),
    "drift up": (
        halves(100.0, 103.1),
        Flag.DRIFT,
        "the last third of the samples differs from the first by +3.1 %",
    ),
    "drift down": (
        halves(100.0, 96.9),
        Flag.DRIFT,
        "the last third of the samples differs from the first by -3.1 %",
    ),
    "other processes": (
        {"other_cpu_percent": 5.1},
        Flag.NOISE,
        "other processes used 5.1 % of a core, more than 5",
    ),
    "steal": ({"steal_percent": 1.1}, Flag.NOISE, "the hypervisor took 1.1 % of the processor, more than 1"),
    "pressure": (
        {"cpu_pressure_percent": 1.1},
        Flag.NOISE,
        "tasks waited for a processor in 1.1 % of the time, more than 1",
    ),
    "switches": (
        {"involuntary_switches_per_inference": 1.1},
        Flag.NOISE,
        "the worker was taken off a core 1.1 times an inference, more than 1",
    ),
    "switches of a long inference": (
        {"involuntary_switches_per_inference": 2.01, "samples_ms": (20.0,) * 60, "execution": TWO_THREADS},
        Flag.NOISE,
        "the worker was taken off a core 2.01 times an inference, more than 2",
    ),
    "two kinds of noise": (
        {"other_cpu_percent": 87.5, "steal_percent": 4.0},
        Flag.NOISE,
        "other processes used 87.5 % of a core, more than 5; the hypervisor took 4.0 % of the processor, more than 1",
    ),
    "major fault": (
        {"major_faults": 1},
        Flag.MEM,
        "the worker read 1 pages from a disk while it was timed",
    ),
    "swap": ({"swap_ins": 8}, Flag.MEM, "the system read 8 pages back from swap"),
    "spread": (
        spread(100.0),
        Flag.UNSTABLE,
        "the standard deviation is 10 % of the mean, 10 % or more",
    ),
    "severe outliers": (
        severe(4, of=60),
        Flag.UNSTABLE,
        "6.7 % of the samples are severe outliers 10 % off the median, more than 5 %",
    ),
    "stall": ({"longest_stall_ms": 100.1}, Flag.UNSTABLE, "the worker stood still for 100 ms"),
    "stall of a slow model": (
        {"longest_stall_ms": 401.0, "samples_ms": (400.0,) * 60},
        Flag.UNSTABLE,
        "the worker stood still for 401 ms",
    ),
    "reference model slower": (
        {"canary": reading(100.0, 102.1)},
        Flag.CANARY,
        "the reference model took 102.1 ms, +2.1 % off its baseline of 100 ms on this board",
    ),
    "reference model faster": (
        {"canary": reading(2.0, 1.5)},
        Flag.CANARY,
        "the reference model took 1.5 ms, -25.0 % off its baseline of 2 ms on this board",
    ),
    "interval": (
        {"interval_reached": False, "samples_ms": (10.0, 9.0, 9.5, 11.0, 10.2)},
        Flag.CI_NOT_REACHED,
        "the interval is still ± 10.0 % wide after 5 samples",
    ),
    "warm-up": (
        {"warmup_capped": True},
        Flag.WARMUP_CAP,
        "latencies had not settled after 30 warm-up inferences",
    ),
    "gate": (
        {"gate_obstacle": "other processes use 40 % of a core, more than 5 %"},
        Flag.GATE_TIMEOUT,
        "measured although other processes use 40 % of a core, more than 5 %",
    ),
}


@pytest.mark.parametrize("changes", CLEAN.values(), ids=CLEAN)
def test_flags_stay_down_up_to_their_bounds(changes):
    assert raise_flags(evidence(**changes)) == ()


@pytest.mark.parametrize(("changes", "flag", "reason"), RAISED.values(), ids=RAISED)
def test_flag_is_raised_beyond_its_bound_with_its_reason(changes, flag: Flag, reason: str):
    assert raise_flags(evidence(**changes)) == (RaisedFlag(flag=flag, reason=reason),)


def test_every_flag_is_raised_by_something():
    assert {flag for _, flag, _ in RAISED.values()} == set(Flag)


def test_two_disturbances_raise_two_flags():
    assert raise_flags(evidence(clock_mhz=1000.0, swap_ins=2)) == (
        RaisedFlag(flag=Flag.FREQ, reason="the clock fell to 1000 MHz, 50 % below the expected 2000"),
        RaisedFlag(flag=Flag.MEM, reason="the system read 2 pages back from swap"),
    )


def test_absent_evidence_raises_nothing():
    seen = evidence(
        clock_mhz=None,
        expected_clock_mhz=None,
        canary_turns_ms=(),
        other_cpu_percent=None,
        steal_percent=None,
        cpu_pressure_percent=None,
        involuntary_switches_per_inference=None,
        major_faults=None,
        swap_ins=None,
    )
    assert raise_flags(seen) == ()


@pytest.mark.parametrize(
    "changes",
    [{"expected_clock_mhz": None, "clock_mhz": 5.0}, {"canary": reading(None, 900.0)}],
    ids=["clock", "reference model"],
)
def test_reading_without_anything_to_compare_raises_nothing(changes):
    assert raise_flags(evidence(**changes)) == ()


def test_two_samples_are_too_few_to_drift():
    assert raise_flags(evidence(samples_ms=(10.0, 10.9), turn_ends=(1, 2))) == ()


def fast(groups_ms: tuple[float, ...], samples_ms: tuple[float, ...]) -> Evidence:
    """A model under 1 ms, which is also timed in groups."""
    return evidence(groups_ms=groups_ms, group_runs=10, samples_ms=samples_ms)


def test_outliers_of_a_fast_model_are_looked_for_in_its_groups():
    """An interrupt is a severe outlier of a single inference, and nothing in a group of many."""
    interrupted = (0.1, 0.1, 0.1, 0.1, 0.5) * 12
    assert summarise(interrupted).severe_outliers == 12
    assert raise_flags(fast((1.0,) * 60, interrupted)) == ()


def test_outliers_among_the_groups_of_a_fast_model_are_unstable():
    assert raise_flags(fast((1.0, 1.0, 1.0, 1.0, 1.5) * 12, (0.1,) * 60)) == (
        RaisedFlag(
            flag=Flag.UNSTABLE,
            reason="20.0 % of the samples are severe outliers 10 % off the median, more than 5 %",
        ),
    )


def test_single_interrupt_among_fast_samples_is_no_spread():
    # 0.4 ms among 2,700 samples of 0.06 ms: 11 % of their standard deviation, and nothing of 100 ms.
    samples = [0.06] * 2700
    samples[1000] = 0.4
    assert relative_spread(samples) > 0.1
    assert relative_spread(span_means(samples, 100.0)) < 0.001


def test_spans_of_known_samples():
    # 30 + 40 + 30 fill the first span, 150 is one alone, 20 is left over.
    assert span_means([30.0, 40.0, 30.0, 150.0, 20.0], 100.0) == [pytest.approx(100 / 3), 150.0]


def test_series_shorter_than_a_span_is_one_span():
    assert span_means([1.0, 2.0, 3.0], 100.0) == [2.0]


@given(st.lists(st.floats(min_value=100.0, max_value=1e6), min_size=1))
def test_slow_samples_stand_alone(samples: list[float]):
    assert span_means(samples, 100.0) == samples


@given(st.lists(st.integers(min_value=1, max_value=250).map(float), min_size=1))
def test_spans_preserve_the_mean_up_to_what_is_left_over(samples: list[float]):
    """Every mean stands for as many samples as fill a span, no sample is used twice, less than a span is left."""
    rest = list(samples)
    for mean_ms in span_means(samples, 100.0) if sum(samples) >= 100 else []:
        taken = next(count for count in range(1, len(rest) + 1) if sum(rest[:count]) >= 100)
        assert math.isclose(mean_ms * taken, sum(rest[:taken]))
        rest = rest[taken:]
    assert sum(rest) < 100


# --- the energy pass


def window(**seen: float | None) -> WindowLoad:
    values = dict.fromkeys(WindowLoad.__dataclass_fields__) | {"window_s": 20.0} | seen
    return WindowLoad(**values)


def test_quiet_energy_pass_raises_nothing():
    # The agent itself wakes up to read the sensor, and whoever waits meanwhile waits for that.
    assert energy_flags(window(other_cpu_percent=5.0, steal_percent=1.0, cpu_pressure_percent=9.0), ()) == ()
    assert energy_flags(window(), ()) == ()


def test_what_others_draw_during_an_energy_pass_is_told():
    assert energy_flags(window(other_cpu_percent=40.0, steal_percent=3.0), ("it was hot",)) == (
        RaisedFlag(flag=Flag.THROTTLED, reason="while energy was measured: it was hot"),
        RaisedFlag(
            flag=Flag.NOISE,
            reason="while energy was measured: other processes used 40.0 % of a core, more than 5; "
            "the hypervisor took 3.0 % of the processor, more than 1",
        ),
    )


def test_flags_of_several_passes_are_each_told_once():
    def told(flag: Flag, reason: str) -> RaisedFlag:
        return RaisedFlag(flag=flag, reason=reason)

    first = (told(Flag.NOISE, "a"), told(Flag.CANARY, "b"))
    assert merged(first, (told(Flag.THROTTLED, "c"), told(Flag.NOISE, "d"))) == (
        told(Flag.THROTTLED, "c"),
        told(Flag.NOISE, "a; d"),
        told(Flag.CANARY, "b"),
    )
    assert merged(first, ()) == first
    assert merged() == ()
