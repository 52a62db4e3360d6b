"""Which attempt a job publishes, and what with it."""

import dataclasses
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_results import ENERGY, evidence, worker_result

from device_agent.benchmark import (
    CONTAMINATING,
    BenchmarkRequest,
    BenchmarkSpec,
    CanaryReading,
    EnergyReading,
    Flag,
    Interference,
    Measurement,
    MeasurementMode,
    RaisedFlag,
)
from device_agent.board.conditions import read_conditions
from device_agent.measuring import job as jobs
from device_agent.measuring.attempt import Attempt, Passes, nothing_further
from device_agent.measuring.job import Job
from device_agent.measuring.latency import summarise
from device_agent.measuring.power import PowerPlan
from device_agent.measuring.record import contaminating, flags_of, least_disturbed, record_of
from device_agent.runtimes.worker_process import StopSignal

NOWHERE = Path("/nonexistent")
SPEC = BenchmarkSpec(
    runtime="onnx", threads=1, input_shapes=(), seed=0, mode=MeasurementMode.FULL, energy=True
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
        passes=passes or skipped(),
    )


NO_PLAN = PowerPlan(meter=Mock(), wait=lambda seconds: None)


def skipped(power: PowerPlan = NO_PLAN) -> Passes:
    """Passes that were not gone through."""
    return nothing_further(SPEC, power, "the attempt that was to find out failed")


def passes(*flags: Flag, energy: EnergyReading | None = ENERGY) -> Passes:
    """Passes that were gone through."""
    reason = "" if energy else "the sensor died"
    return dataclasses.replace(
        skipped(), gone_through=True, energy=energy, energy_absent_reason=reason, flags=raised(*flags)
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
    assert bool(contaminating(best.flags)) == all(flags & CONTAMINATING for flags in all_flags)


def test_flags_of_the_energy_pass_are_flags_of_the_attempt():
    assert contaminating(flags_of(attempt(Flag.DRIFT, passes=passes(Flag.NOISE)))) == 2


def test_clean_latency_goes_before_a_disturbed_one_whatever_became_of_its_energy():
    clean = attempt(passes=passes(Flag.NOISE))
    assert least_disturbed([clean, attempt(Flag.NOISE), attempt(Flag.NOISE, passes=passes())]) is clean


def found(*attempts: Attempt) -> Measurement:
    return record_of(job(), attempts, None).measurement


def test_energy_of_a_later_attempt_stands_beside_the_best_latency_with_its_flags():
    """The best attempt was left without its passes, as another was to follow."""
    best = attempt(Flag.CANARY, off=0.03)
    published = found(best, attempt(Flag.CANARY, off=0.9, passes=passes(Flag.NOISE)))
    assert published.energy == ENERGY
    assert [entry.flag for entry in published.flags] == [Flag.NOISE, Flag.CANARY]
    assert published.canary == best.canary


def test_least_disturbed_energy_is_published():
    other = dataclasses.replace(ENERGY, net_mj=9.0)
    published = found(attempt(passes=passes(Flag.NOISE)), attempt(Flag.NOISE, passes=passes(energy=other)))
    assert published.energy == other
    assert published.flags == ()


def test_disturbed_energy_is_better_than_none():
    assert found(attempt(passes=passes(Flag.NOISE)), attempt(passes=passes(energy=None))).energy == ENERGY


def test_of_equal_energies_that_of_the_published_attempt_is_published():
    other = dataclasses.replace(ENERGY, net_mj=9.0)
    assert found(attempt(passes=passes()), attempt(Flag.NOISE, passes=passes(energy=other))).energy == ENERGY


def test_energy_that_no_attempt_came_to_is_absent_with_the_reason():
    published = found(attempt(Flag.CANARY))
    assert published.energy is None
    assert published.energy_absent_reason == "the attempt that was to find out failed"
    assert published.warm_load_absent_reason == "the attempt that was to find out failed"
    # Nobody asked for a profile, so its absence needs no reason.
    assert published.operators_absent_reason == ""


def test_formula_and_missing_sensors_need_no_pass():
    by_formula = PowerPlan(known=ENERGY, wait=lambda seconds: None)
    assert found(attempt(Flag.CANARY, passes=skipped(by_formula))).energy == ENERGY
    no_sensor = PowerPlan(absent_reason="no power sensor", wait=lambda seconds: None)
    assert found(attempt(Flag.CANARY, passes=skipped(no_sensor))).energy_absent_reason == "no power sensor"


@pytest.mark.parametrize(
    ("spent_s", "further_s", "time_left"),
    [(29.0, 0.0, True), (31.0, 0.0, False), (20.0, 19.0, True), (20.0, 21.0, False)],
)
def test_retry_needs_as_much_time_as_the_attempt_before_and_its_passes(
    monkeypatch: pytest.MonkeyPatch, spent_s: float, further_s: float, time_left: bool
):
    now_s = [1000.0]
    monkeypatch.setattr(jobs.time, "monotonic", lambda: now_s[0])
    running = job()
    running.begin_attempt()
    now_s[0] += spent_s
    assert running.has_time_for_another(further_s) == time_left
