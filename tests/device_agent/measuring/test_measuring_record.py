"""Which attempt a job publishes, and what with it."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_results import evidence, worker_result

from device_agent.benchmark import (
    CONTAMINATING,
    BenchmarkRequest,
    BenchmarkSpec,
    CanaryReading,
    EnergyReading,
    Flag,
    Interference,
    MeasurementMode,
    RaisedFlag,
)
from device_agent.board.conditions import read_conditions
from device_agent.measuring import job as jobs
from device_agent.measuring.attempt import Attempt, Passes, nothing_further
from device_agent.measuring.job import Job
from device_agent.measuring.latency import summarise
from device_agent.measuring.record import contaminated, least_disturbed, record_of
from device_agent.runtimes.worker_process import StopSignal

NOWHERE = Path("/nonexistent")
SPEC = BenchmarkSpec(
    runtime="onnx", threads=1, input_shapes=(), seed=0, mode=MeasurementMode.FULL, energy=True
)
ENERGY = EnergyReading(
    net_mj=2.0,
    gross_mj=3.0,
    idle_mw=100.0,
    active_mw=300.0,
    source="ina2xx",
    scope="input",
    updates_per_s=50.0,
    inferences=100,
)


def raised(*flags: Flag) -> tuple[RaisedFlag, ...]:
    return tuple(RaisedFlag(flag=flag, reason=flag.name.lower()) for flag in flags)


def attempt(*flags: Flag, off: float | None = 0.0, passes: Passes | None = None) -> Attempt:
    """An attempt with these flags at whose time the reference model was so far off its baseline."""
    result = worker_result()
    conditions = read_conditions(NOWHERE)
    canary = None
    if off is not None:
        canary = CanaryReading(before_ms=2.0, after_ms=2.0, median_ms=2.0 * (1 + off), baseline_ms=2.0)
    return Attempt(
        waited_s=0.0,
        key="board",
        evidence=evidence(),
        result=result,
        latency=summarise(result.samples_ms),
        grouped=None,
        canary=canary,
        drift_corrected_ms=None,
        before=conditions,
        after=conditions,
        interference=Interference(),
        flags=raised(*flags),
        passes=passes,
    )


def passes(*flags: Flag) -> Passes:
    """Passes that found an energy."""
    return dataclasses.replace(
        nothing_further(SPEC, "not looked at"), energy=ENERGY, energy_absent_reason="", flags=raised(*flags)
    )


def job() -> Job:
    request = BenchmarkRequest(request_id="job", model_sha256="0" * 64, model_name="", spec=SPEC)
    return Job(request, NOWHERE, StopSignal(), lambda progress: None, 60.0)


def test_clean_attempt_goes_before_any_other():
    # Also before one that ran closer to the board's usual speed.
    clean = attempt(Flag.CI_NOT_REACHED, off=0.019)
    assert least_disturbed([attempt(Flag.NOISE), clean, attempt(Flag.MEM)]) is clean


def test_attempt_near_the_usual_speed_goes_before_one_with_fewer_flags():
    evenly_slow = attempt(Flag.CANARY, off=0.5)
    half_slow = attempt(Flag.CANARY, Flag.DRIFT, Flag.UNSTABLE, off=0.08)
    assert least_disturbed([evenly_slow, half_slow]) is half_slow


def test_faster_than_usual_is_as_far_off_as_slower():
    assert least_disturbed([attempt(Flag.CANARY, off=-0.5), near := attempt(Flag.CANARY, off=0.1)]) is near


def test_of_attempts_equally_near_the_one_with_fewer_flags_goes_first():
    few = attempt(Flag.NOISE, off=0.019)
    assert least_disturbed([few, attempt(Flag.NOISE, Flag.DRIFT, off=0.001)]) is few


def test_without_the_reference_model_the_number_of_flags_decides():
    few = attempt(Flag.NOISE, off=None)
    assert least_disturbed([attempt(Flag.NOISE, Flag.MEM, off=None), few]) is few


def test_of_equals_the_last_is_published():
    last = attempt(Flag.NOISE)
    assert least_disturbed([attempt(Flag.NOISE), last]) is last


@given(st.lists(st.sets(st.sampled_from(list(Flag))), min_size=1, max_size=4))
def test_contaminated_figures_are_published_only_where_there_are_no_others(all_flags: list[set[Flag]]):
    best = least_disturbed([attempt(*sorted(flags, key=lambda flag: flag.value)) for flags in all_flags])
    assert bool(contaminated(best)) == all(flags & CONTAMINATING for flags in all_flags)


def test_energy_flags_count_as_those_of_the_attempt():
    assert contaminated(attempt(passes=passes(Flag.NOISE))) == 1
    quiet = attempt(passes=passes())
    assert least_disturbed([quiet, attempt(passes=passes(Flag.NOISE))]) is quiet


def test_energy_of_a_later_attempt_stands_beside_the_best_latency_with_its_flags():
    """The best attempt was left without its passes, as another was to follow."""
    best = attempt(Flag.CANARY, off=0.03)
    found = record_of(
        job(), [best, attempt(Flag.CANARY, off=0.9, passes=passes(Flag.NOISE))], None
    ).measurement
    assert found.energy == ENERGY
    assert [entry.flag for entry in found.flags] == [Flag.NOISE, Flag.CANARY]
    assert found.canary == best.canary


def test_energy_that_no_attempt_came_to_is_absent_with_the_reason():
    found = record_of(job(), [attempt(Flag.CANARY)], None).measurement
    assert found.energy is None
    assert found.energy_absent_reason == "the attempt that was to find out failed"
    assert found.warm_load_absent_reason == "the attempt that was to find out failed"
    # Nobody asked for a profile, so its absence needs no reason.
    assert found.operators_absent_reason == ""


@pytest.mark.parametrize(("spent_s", "time_left"), [(29.0, True), (31.0, False)])
def test_retry_needs_as_much_time_as_the_attempt_before(
    monkeypatch: pytest.MonkeyPatch, spent_s: float, time_left: bool
):
    now_s = [1000.0]
    monkeypatch.setattr(jobs.time, "monotonic", lambda: now_s[0])
    running = job()
    running.begin_attempt()
    now_s[0] += spent_s
    assert running.has_time_for_another() == time_left
