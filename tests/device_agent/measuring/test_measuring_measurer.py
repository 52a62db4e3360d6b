"""One job from gate to record: retries, cancellation and limits, with real workers on boards of files."""

import contextlib
import io
import json
import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from agent_harness import conv_model
from made_up_results import ENERGY
from measuring_lab import Laboratory, laboratory, workers
from sensor_trees import build_ina2xx, write
from worker_jobs import python_that

from device_agent.benchmark import (
    CONTAMINATING,
    FailureReason,
    Flag,
    InputShape,
    Measurement,
    MeasurementMode,
    Phase,
    Precision,
    Progress,
    RaisedFlag,
)
from device_agent.errors import BenchmarkFailedError
from device_agent.measuring import attempt, energy
from device_agent.runtimes.worker_process import StopSignal

FULL = MeasurementMode.FULL


def torchscript_model() -> bytes:
    """Return a model that takes the positive part of an image."""
    import torch

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # torch has deprecated TorchScript, which boards still run.
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.zeros(1, 3, 8, 8)), buffer)
    return buffer.getvalue()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Laboratory]:
    with laboratory(tmp_path) as opened:
        yield opened


def failure(lab: Laboratory, **spec: object) -> BenchmarkFailedError:
    with pytest.raises(BenchmarkFailedError) as caught:
        lab.record(**spec)
    assert "\n" not in str(caught.value)
    return caught.value


def flags(raised) -> set[Flag]:
    return {entry.flag for entry in raised}


# --- attempts


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a job announced and published."""

    progress: list[Progress]
    published: Measurement

    @property
    def attempts(self) -> int:
        return self.progress[-1].attempt


@pytest.fixture(scope="module")
def throttled(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A job on a board that slows down to stay cool, all the time."""
    with laboratory(tmp_path_factory.mktemp("throttled"), retries=2) as lab:
        lab.board(cooling_state=3)
        return Outcome(published=lab.measure(profile=True), progress=lab.progress)


def test_contaminated_job_is_tried_three_times(throttled: Outcome):
    loads = [entry.attempt for entry in throttled.progress if entry.phase is Phase.LOAD]
    assert loads == [1, 2, 3]
    assert len(throttled.published.discarded) == 2


@pytest.mark.parametrize(("most", "attempts"), [(1, 1), (2, 2), (9, 2)])
def test_contaminated_job_is_tried_no_more_often_than_its_caller_and_the_agent_say(
    tmp_path: Path, most: int, attempts: int
):
    with laboratory(tmp_path, retries=1) as lab:
        lab.board(cooling_state=3)
        published = lab.measure(most_attempts=most)
        assert len(published.discarded) + 1 == attempts
        assert Flag.THROTTLED in {raised.flag for raised in published.flags}


def test_job_that_stays_contaminated_is_published_with_its_flags(throttled: Outcome):
    reason = "cooling device cpufreq-cpu0 in state 3 before and 3 after"
    attempts = [throttled.published.flags, *(entry.flags for entry in throttled.published.discarded)]
    for raised in attempts:
        assert [entry.reason for entry in raised if entry.flag is Flag.THROTTLED] == [reason]
    assert throttled.published.before.throttling == ("cpufreq-cpu0",)


def test_discarded_attempts_tell_their_figures(throttled: Outcome):
    for entry in throttled.published.discarded:
        assert entry.samples >= 64
        assert entry.median_ms > 0


def test_discarded_attempts_go_through_no_further_passes(throttled: Outcome):
    assert [entry.attempt for entry in throttled.progress if entry.phase is Phase.PROFILE] == [3]
    assert throttled.published.operators
    assert throttled.published.warm_load_ms is not None


@dataclass(frozen=True, kw_only=True)
class Recovery(Outcome):
    """A clean job, and one that recovered; with what the agent had learnt of its board on the way."""

    clean: Measurement
    learnt_clean: list[float]
    learnt_throttled: list[float]
    learnt: list[float]


@pytest.fixture(scope="module")
def recovered(tmp_path_factory: pytest.TempPathFactory) -> Recovery:
    """A clean job at 2000 MHz, and then one whose first attempt is throttled to half the clock."""
    folder = tmp_path_factory.mktemp("recovered")
    with laboratory(folder) as lab:
        lab.board()
        clean, learnt_clean = lab.measure(), learnt(lab)
    with laboratory(folder, retries=2) as lab:
        learnt_throttled: list[float] = []
        lab.board(clock_mhz=1000, cooling_state=1)

        def recover(progress: Progress) -> None:
            if progress.attempt == 2 and progress.phase is Phase.LOAD:
                learnt_throttled.extend(learnt(lab))
                lab.board()

        lab.on_progress = recover
        return Recovery(
            published=lab.measure(),
            progress=lab.progress,
            clean=clean,
            learnt_clean=learnt_clean,
            learnt_throttled=learnt_throttled,
            learnt=learnt(lab),
        )


def learnt(lab: Laboratory) -> list[float]:
    """What the reference model took in the jobs that count, as the agent keeps it."""
    kept = json.loads(lab.baselines_file.read_text())["readings"]
    (readings,) = [values for key, values in kept.items() if key.startswith("canary_ms")]
    return readings


def throttled_attempt(recovered: Recovery) -> tuple[RaisedFlag, ...]:
    """Return the flags of the first attempt: of three that were all disturbed, it may be the one published."""
    attempts = (recovered.published, *recovered.published.discarded)
    (found,) = [entry.flags for entry in attempts if Flag.THROTTLED in flags(entry.flags)]
    return found


def test_clean_attempt_is_published_after_a_contaminated_one(recovered: Recovery):
    assert recovered.attempts >= 2
    assert len(recovered.published.discarded) == recovered.attempts - 1
    assert {Flag.THROTTLED, Flag.FREQ} <= flags(throttled_attempt(recovered))
    if recovered.attempts == 2:
        # The machine that this runs on disturbed nothing.
        assert not flags(recovered.published.flags) & CONTAMINATING
        assert recovered.published.after.throttling == ()


def test_retries_end_with_the_first_clean_attempt(recovered: Recovery):
    clean = not flags(recovered.published.flags) & CONTAMINATING
    assert clean or recovered.attempts == 3
    for entry in recovered.published.discarded:
        assert flags(entry.flags) & CONTAMINATING


def test_clock_below_the_one_of_earlier_jobs_is_flagged(recovered: Recovery):
    """What the throttled attempt ran at is no clock of the board's own: it is not learnt."""
    raised = throttled_attempt(recovered)
    assert [entry.reason for entry in raised if entry.flag is Flag.FREQ] == [
        "the clock fell to 1000 MHz, 50 % below the expected 2000"
    ]


def test_conditions_tell_the_clock_and_the_one_expected(recovered: Recovery):
    before = recovered.clean.before
    assert (before.clock_mhz, before.expected_clock_mhz) == (2000.0, 2000.0)
    assert (before.governor, before.temperature_c) == ("performance", 40.0)


def test_first_job_is_its_own_baseline(recovered: Recovery):
    """At its best: the machine that this runs on may have been slower for a part of it."""
    assert recovered.clean.canary is not None
    assert recovered.clean.canary.baseline_ms == recovered.learnt_clean[0] <= recovered.clean.canary.median_ms


def test_reference_model_of_a_disturbed_attempt_is_not_learnt(recovered: Recovery):
    assert len(recovered.learnt_clean) == 1
    assert recovered.learnt_throttled == recovered.learnt_clean
    assert len(recovered.learnt) == recovered.attempts


@pytest.mark.slow
def test_retry_without_the_time_for_it_publishes_the_first_attempt(tmp_path: Path):
    with laboratory(tmp_path, retries=2) as lab:
        lab.board(cooling_state=1)

        def hang(progress: Progress) -> None:
            if progress.attempt == 2 and progress.phase is Phase.LOAD:
                lab.worker().suspend()

        lab.on_progress = hang
        measurement = lab.measure(time_limit_s=25.0)
        assert lab.progress[-1].attempt == 2
    assert Flag.THROTTLED in flags(measurement.flags)
    assert measurement.discarded == ()


def test_retry_that_finds_no_worker_loses_no_figure(tmp_path: Path):
    started = tmp_path / "started"
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/sh\n[ -e '{started}' ] && case $1 in *worker.py) exit 1;; esac\nexec '{sys.executable}' \"$@\"\n"
    )
    python.chmod(0o755)
    with laboratory(tmp_path, retries=2, worker_python=str(python)) as lab:
        lab.board(cooling_state=1)
        lab.on_progress = lambda progress: started.touch() if progress.phase is Phase.MEASURE else None
        measurement = lab.measure()
    assert Flag.THROTTLED in flags(measurement.flags)
    assert measurement.latency.samples >= 64
    assert measurement.discarded == ()


def test_board_capped_from_the_start_is_flagged_where_its_governor_promises_more(tmp_path: Path):
    with laboratory(tmp_path) as lab:
        lab.board(clock_mhz=1200)
        cpufreq = "sys/devices/system/cpu/cpu0/cpufreq"
        write(lab.root, {f"{cpufreq}/scaling_driver": "cpufreq-dt", f"{cpufreq}/cpuinfo_max_freq": "1800000"})
        raised = lab.measure().flags
    assert [entry.reason for entry in raised if entry.flag is Flag.FREQ] == [
        "the clock fell to 1200 MHz, 33 % below the expected 1800"
    ]


# --- the passes beside the latency


@pytest.fixture
def short_energy_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SETTLE_S", "IDLE_S", "ACTIVE_S", "MAX_ACTIVE_S"):
        monkeypatch.setattr(energy, name, 0.1)


CRASH = (
    "import os\nimport onnxruntime\nonnxruntime.InferenceSession.end_profiling = lambda self: os.abort()\n"
)

ENDLESS = "import time\nimport onnxruntime\nonnxruntime.InferenceSession.end_profiling = lambda self: time.sleep(600)\n"


def test_profile_that_crashes_costs_no_other_figure(tmp_path: Path):
    with laboratory(tmp_path, worker_python=python_that(tmp_path, CRASH)) as lab:
        measurement = lab.measure(profile=True)
    assert measurement.latency.samples >= 64
    assert measurement.operators == ()
    assert measurement.operators_absent_reason.startswith(
        "the passes beside the latency failed: the worker that measured the model was killed by SIGABRT"
    )
    assert measurement.warm_load_ms is not None
    assert measurement.warm_load_absent_reason == ""
    assert measurement.energy_absent_reason == "energy was not asked for"


@pytest.mark.usefixtures("short_energy_pass")
def test_energy_that_was_measured_outlives_a_profile_that_crashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # The sensor's file never changes, which is no energy: what the pass finds is no matter of this test.
    monkeypatch.setattr(energy.EnergyPass, "result", lambda self, window, source: ENERGY)
    with laboratory(tmp_path, worker_python=python_that(tmp_path, CRASH)) as lab:
        build_ina2xx(lab.root)
        measurement = lab.measure(profile=True, energy=True)
    assert measurement.energy == ENERGY
    assert measurement.energy_absent_reason == ""
    assert "killed by SIGABRT" in measurement.operators_absent_reason


def test_meter_that_breaks_in_any_way_costs_the_energy_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """E.g. one of another package, which raises what it likes."""

    def fail(self: object) -> None:
        raise OSError("the bus is gone")

    monkeypatch.setattr(energy.EnergyPass, "idle", fail)
    with laboratory(tmp_path) as lab:
        build_ina2xx(lab.root)
        measurement = lab.measure(energy=True)
    assert measurement.latency.samples >= 64
    assert measurement.energy_absent_reason == "the passes beside the latency failed: the bus is gone"


def test_energy_is_left_out_where_the_jobs_time_would_end_before_its_pass(tmp_path: Path):
    begin_s = time.monotonic()
    with laboratory(tmp_path) as lab:
        build_ina2xx(lab.root)
        measurement = lab.measure(energy=True, profile=True, time_limit_s=20.0)
    assert time.monotonic() - begin_s < 20
    assert measurement.latency.samples >= 64
    assert measurement.operators
    assert measurement.energy is None
    assert re.fullmatch(
        r"the job had 1\d s left, where 25 s are expected; raise its time limit",
        measurement.energy_absent_reason,
    )


def test_passes_that_never_end_cost_no_figure(tmp_path: Path):
    with laboratory(tmp_path, worker_python=python_that(tmp_path, ENDLESS)) as lab:
        measurement = lab.measure(profile=True, time_limit_s=10.0)
    assert measurement.latency.samples >= 64
    assert "the job ran longer than its time limit of 10 s" in measurement.operators_absent_reason


@pytest.mark.usefixtures("short_energy_pass")
def test_board_that_is_throttled_while_energy_is_measured_is_flagged_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # What the machine that this runs on does to the timed part is no matter of this test.
    monkeypatch.setattr(attempt, "raise_flags", lambda evidence: ())
    monkeypatch.setattr(attempt, "canary_reading", lambda result, baseline_ms: None)
    monkeypatch.setattr(energy.EnergyPass, "result", lambda self, window, source: ENERGY)
    with laboratory(tmp_path, retries=1) as lab:
        build_ina2xx(lab.root)
        lab.board()

        def throttle(told: Progress) -> None:
            passes = lab.phases().count(Phase.ENERGY)
            lab.board(cooling_state=2 if told.phase is Phase.ENERGY and passes == 1 else 0)

        lab.on_progress = throttle
        measurement = lab.measure(energy=True)
        assert lab.phases().count(Phase.ENERGY) == 2
    reason = "while energy was measured: cooling device cpufreq-cpu0 in state 0 before and 2 after"
    (discarded,) = measurement.discarded
    assert discarded.flags == (RaisedFlag(flag=Flag.THROTTLED, reason=reason),)
    assert measurement.flags == ()


# --- the gate


def heat(lab: Laboratory) -> None:
    """Let the board be 25 degrees above its idle temperature, from work that has just ended."""
    lab.baselines.idle_temperature_c(40.0)
    lab.baselines.note_work()
    lab.board(temperature_c=65)


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A job on a board that stays hot, and reads pages back from swap while the samples are taken."""
    with laboratory(tmp_path_factory.mktemp("troubled"), gate_limit_s=0.1) as lab:
        heat(lab)
        write(lab.root, {"proc/vmstat": "pswpin 100"})

        def swap(progress: Progress) -> None:
            if progress.phase is Phase.MEASURE:
                threading.Timer(0.5, lambda: write(lab.root, {"proc/vmstat": "pswpin 117"})).start()

        lab.on_progress = swap
        return Outcome(published=lab.measure(), progress=lab.progress)


def test_board_that_stays_hot_is_measured_on_and_flagged(troubled: Outcome):
    assert [entry.phase for entry in troubled.progress][:2] == [Phase.GATE, Phase.LOAD]
    assert [entry.reason for entry in troubled.published.flags if entry.flag is Flag.GATE_TIMEOUT] == [
        "measured although the board has 65.0 °C, more than 5 °C above its idle 40.0 °C"
    ]
    assert troubled.published.gate_wait_s >= 2.0


def test_swapping_board_is_flagged(troubled: Outcome):
    assert [entry.reason for entry in troubled.published.flags if entry.flag is Flag.MEM] == [
        "the system read 17 pages back from swap"
    ]
    assert troubled.published.interference.swap_ins == 17


@pytest.mark.parametrize(
    "confined", [False, True], ids=["with a core to spare", "on the one core it may use"]
)
def test_waiting_tasks_are_no_noise_to_a_job_that_fills_what_it_may_use(tmp_path: Path, confined: bool):
    usable = os.sched_getaffinity(0)
    if len(usable) < 2:
        pytest.skip("needs two processors")

    def pressure(total_us: int) -> None:
        write(tmp_path / "board", {"proc/pressure/cpu": f"some avg10=0.00 avg60=0.00 total={total_us}"})

    pressure(0)
    with laboratory(tmp_path) as lab:
        lab.on_progress = lambda told: (
            threading.Timer(0.5, pressure, (400_000,)).start() if told.phase is Phase.MEASURE else None
        )
        try:
            if confined:
                os.sched_setaffinity(0, {min(usable)})
            measurement = lab.measure()
        finally:
            os.sched_setaffinity(0, usable)
    assert measurement.interference.cpu_pressure_percent > 1
    told = [entry.reason for entry in measurement.flags if "waited for a processor" in entry.reason]
    assert len(told) == (0 if confined else 1)


def test_retry_waits_for_the_board_that_the_attempt_before_has_heated(tmp_path: Path):
    """The board had rested for long before the job, so nothing but the job itself makes it warm."""
    with laboratory(tmp_path, gate_limit_s=60.0, retries=1) as lab:
        lab.board(cooling_state=1)

        def on_progress(progress: Progress) -> None:
            if progress.phase is Phase.MEASURE:
                lab.board(cooling_state=1, temperature_c=65)
            if progress.detail.startswith("the board has "):
                lab.stop.request()

        lab.on_progress = on_progress
        failure(lab)
    # The machine that this runs on may be slower for a moment: the timed part pauses then.
    gates = [
        (entry.attempt, entry.detail)
        for entry in lab.progress
        if entry.phase is Phase.GATE and not entry.detail.startswith("the reference model takes ")
    ]
    assert gates == [
        (1, ""),
        (2, ""),
        (2, "the board has 65.0 °C, more than 5 °C above its idle 40.0 °C"),
    ]


SLOWER = r"the reference model takes \d+ % longer than it usually does on this board"


def know_a_faster_board(lab: Laboratory) -> None:
    """Let the reference model's baseline be one that this board never reaches."""
    lab.measure()
    (name,) = [key for key in json.loads(lab.baselines_file.read_text())["readings"] if "canary_ms" in key]
    for _ in range(9):
        lab.baselines.learn_canary(name.removeprefix("canary_ms "), 0.001)


@pytest.mark.slow
def test_board_slower_than_usual_is_waited_for_then_measured_and_flagged(tmp_path: Path):
    with laboratory(tmp_path, gate_limit_s=5.0) as lab:
        lab.board()
        know_a_faster_board(lab)
        slow = lab.measure()
        waits = [entry.detail for entry in lab.progress if entry.phase is Phase.GATE and entry.detail]
        # The rest of what jobs wait in vain, all together.
        lab.measure()
        again = lab.measure()
    assert waits
    assert all(re.fullmatch(SLOWER, detail) for detail in waits)
    assert Flag.CANARY in flags(slow.flags)
    assert 4.5 < slow.gate_wait_s < 8.0
    # The board is what it is: the next job waits at the first gate alone.
    assert again.gate_wait_s < 3.0


@pytest.mark.slow
def test_wait_for_speed_leaves_most_of_the_time_to_the_job(tmp_path: Path):
    """In a search it is short anyway."""
    with laboratory(tmp_path, gate_limit_s=100.0) as lab:
        lab.board()
        know_a_faster_board(lab)
        # Two seconds of it at the gate.
        assert lab.measure(time_limit_s=16.0).gate_wait_s < 5.0
        assert 6.0 < lab.measure().gate_wait_s < 9.0


# --- pauses of the timed part


@pytest.mark.slow
def test_pause_is_told_counted_and_used_up(tmp_path: Path):
    """The reference model's baseline is one that this board never reaches, and the first look does not see it."""
    with laboratory(tmp_path) as lab:
        know_a_faster_board(lab)
    with laboratory(tmp_path, gate_limit_s=5.0) as lab:
        lab.measurer._bench._speed_gate.wait = lambda *_: 0.0  # type: ignore[method-assign]
        slow = lab.measure()
        told = [entry for entry in lab.progress if re.fullmatch(SLOWER, entry.detail)]
        after = lab.phases()[lab.progress.index(told[0]) + 1]
        # The rest of what jobs pause in vain, all together.
        lab.measure()
        again = lab.measure()
    assert len(told) == 1
    assert after is Phase.MEASURE
    assert slow.latency.samples >= 64
    assert slow.canary_turns[0].samples_before == slow.canary_turns[1].samples_before == 0
    # Two seconds at the gate, and the pause.
    assert 5.0 <= slow.gate_wait_s < 9.0
    assert again.gate_wait_s < 3.0


@pytest.mark.slow
def test_pause_in_vain_while_others_are_at_work_uses_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    found = attempt._interference
    with laboratory(tmp_path, gate_limit_s=5.0) as lab:
        know_a_faster_board(lab)
        monkeypatch.setattr(
            attempt, "_interference", lambda *seen: replace(found(*seen), other_cpu_percent=90.0)
        )
        lab.measurer._bench._speed_gate.wait = lambda *_: 0.0  # type: ignore[method-assign]
        waited = [lab.measure() for _ in range(3)]
    assert all(Flag.NOISE in flags(measurement.flags) for measurement in waited)
    assert all(measurement.gate_wait_s >= 4.5 for measurement in waited)


def test_attempts_are_judged_by_what_later_ones_taught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The first attempt of all, on a board that was slow then: nothing told that before the second."""
    speeds_ms = iter([20.0])
    taken = attempt.parse_result

    def parse_result(event, spec):
        found = taken(event, spec)
        turn = (next(speeds_ms, 2.0),) * 5
        return replace(found, canary_turns_ms=(turn,) * len(found.canary_turns_ms))

    monkeypatch.setattr(attempt, "parse_result", parse_result)
    with laboratory(tmp_path, retries=1) as lab:
        # Also without it another attempt has to follow the first.
        lab.board(cooling_state=1)
        lab.on_progress = lambda told: lab.board(cooling_state=int(told.attempt == 1))
        # Throttled, the first would not be learnt at all.
        monkeypatch.setattr(attempt, "CONTAMINATED_CANARY", frozenset())
        measurement = lab.measure()
    (discarded,) = measurement.discarded
    assert Flag.CANARY in flags(discarded.flags)
    assert Flag.CANARY not in flags(measurement.flags)
    assert measurement.drift_corrected_ms is not None


# --- the end before the end


@pytest.mark.parametrize("phase", [Phase.LOAD, Phase.WARM_UP, Phase.CANARY, Phase.MEASURE])
def test_cancelled_job_ends_in_the_phase_it_is_in(lab: Laboratory, phase: Phase):
    assert_cancelled(lab, phase, mode=FULL)


def test_job_cancelled_at_the_gate_ends_there(tmp_path: Path):
    with laboratory(tmp_path, gate_limit_s=100.0) as lab:
        heat(lab)
        assert_cancelled(lab, Phase.GATE)


def test_job_cancelled_while_it_waits_for_speed_ends_there(tmp_path: Path):
    with laboratory(tmp_path, gate_limit_s=100.0) as lab:
        know_a_faster_board(lab)

        def on_progress(progress: Progress) -> None:
            if re.fullmatch(SLOWER, progress.detail):
                lab.stop.request()

        lab.on_progress = on_progress
        begin_s = time.monotonic()
        assert failure(lab).reason is FailureReason.CANCELLED
    assert time.monotonic() - begin_s < 10.0
    assert workers() == []


def test_job_cancelled_in_its_energy_pass_ends_there(lab: Laboratory):
    build_ina2xx(lab.root)
    assert_cancelled(lab, Phase.ENERGY, energy=True)


def test_job_cancelled_while_its_operators_are_timed_ends_there(tmp_path: Path):
    with laboratory(tmp_path, worker_python=python_that(tmp_path, ENDLESS)) as lab:
        assert_cancelled(lab, Phase.PROFILE, profile=True)


def assert_cancelled(lab: Laboratory, phase: Phase, **spec: object) -> None:
    """Cancel a job as it announces a phase, from another thread, as a caller does."""
    requested_s = []

    def cancel() -> None:
        requested_s.append(time.monotonic())
        lab.stop.request()

    def on_progress(progress: Progress) -> None:
        if progress.phase is phase:
            threading.Thread(target=cancel).start()

    lab.on_progress = on_progress
    error = failure(lab, **spec)
    assert error.reason is FailureReason.CANCELLED
    assert str(error) == "the benchmark was cancelled while it ran"
    assert lab.phases()[-1] is phase
    # A gate of 100 s, three seconds of samples, six of idle: none of them was waited for.
    assert time.monotonic() - requested_s[0] < 2.0
    assert workers() == []


def test_job_that_was_cancelled_before_its_worker_started_measures_nothing(lab: Laboratory):
    stop = StopSignal()
    stop.request()
    assert failure(lab, stop=stop).reason is FailureReason.CANCELLED
    assert lab.progress == []


SLOW_IMPORT = "import time\ntime.sleep({seconds})"


@contextlib.contextmanager
def importing(folder: Path, *, ahead: bool, seconds: int = 60, **config: object) -> Iterator[Laboratory]:
    """Give a laboratory whose next worker imports its runtime for long; it has begun ahead of its job or not."""
    slow = folder / "slow"
    begins_with = f"import os\nif os.path.exists({str(slow)!r}) and sys.argv[1] == 'onnx':\n"
    begins_with += "    " + SLOW_IMPORT.format(seconds=seconds).replace("\n", "\n    ")
    with laboratory(folder, worker_python=python_that(folder, begins_with), **config) as lab:
        if ahead:
            # The first worker is waited for, whoever wants it.
            lab.measurer.prepare()
            lab.measurer.release()
        slow.touch()
        if ahead:
            lab.measurer.prepare()
            assert len(workers()) == 1
        yield lab


def test_board_is_looked_at_anew_once_a_runtime_was_imported_for_longer_than_the_gate_waits(tmp_path: Path):
    with importing(tmp_path, ahead=True, seconds=6, gate_limit_s=1.0) as lab:
        measurement = lab.measure()
    # Each look takes two seconds.
    assert lab.phases()[:3] == [Phase.GATE, Phase.GATE, Phase.LOAD]
    assert Flag.GATE_TIMEOUT not in flags(measurement.flags)
    assert 2.0 <= measurement.gate_wait_s < 4.0


@pytest.mark.parametrize("ahead", [False, True], ids=["for the job", "ahead of it"])
def test_job_cancelled_while_its_runtime_is_imported_ends_there(tmp_path: Path, ahead: bool):
    stop = StopSignal()
    with importing(tmp_path, ahead=ahead) as lab:
        threading.Timer(1.0, stop.request).start()
        begin_s = time.monotonic()
        assert failure(lab, stop=stop).reason is FailureReason.CANCELLED
    assert time.monotonic() - begin_s < 10
    assert workers() == []


@pytest.mark.parametrize("ahead", [False, True], ids=["for the job", "ahead of it"])
def test_time_limit_holds_while_the_runtime_is_imported(tmp_path: Path, ahead: bool):
    with importing(tmp_path, ahead=ahead) as lab:
        begin_s = time.monotonic()
        error = failure(lab, time_limit_s=1.0)
    assert error.reason is FailureReason.TIMED_OUT
    assert str(error) == (
        "the runtime was still being imported at the job's time limit of 1 s; "
        "raise time_limit_s and the agent's --job-timeout-s"
    )
    assert time.monotonic() - begin_s < 10
    assert workers() == []


def test_worker_that_still_imports_is_let_go_before_another_runtime_has_the_board(tmp_path: Path):
    with importing(tmp_path, ahead=True) as lab:
        (imports,) = workers()
        lab.model.write_bytes(torchscript_model())
        beside = []
        lab.on_progress = lambda told: beside.append(imports.is_running())
        shapes = (InputShape(name="input", dimensions=(1, 3, 8, 8)),)
        assert lab.measure(runtime="torchscript", input_shapes=shapes).latency.samples >= 64
    assert beside
    assert not any(beside)


def test_callers_time_limit_ends_a_job(lab: Laboratory):
    error = failure(lab, mode=FULL, time_limit_s=1.0)
    assert error.reason is FailureReason.TIMED_OUT
    assert str(error).startswith("the job ran longer than its time limit of 1 s; ")
    assert workers() == []


def test_agents_own_time_limit_is_never_exceeded(tmp_path: Path):
    with laboratory(tmp_path, job_timeout_s=0.5) as lab:
        error = failure(lab, mode=FULL, time_limit_s=500.0)
    assert error.reason is FailureReason.TIMED_OUT
    assert "time limit of 0.5 s" in str(error)


# --- what a spec asks for


def test_precision_that_the_file_has_not_is_refused_before_a_worker_sees_it(lab: Laboratory):
    error = failure(lab, precision=Precision.FLOAT16)
    assert error.reason is FailureReason.INVALID_SPEC
    assert str(error) == "the model is in float32, the spec asks for float16; convert the model first"
    assert lab.progress == []


def test_provider_that_the_build_has_not_is_refused(lab: Laboratory):
    error = failure(lab, provider="QNNExecutionProvider")
    assert error.reason is FailureReason.INVALID_SPEC
    assert "has no QNNExecutionProvider; it has CPUExecutionProvider" in str(error)
    assert lab.progress == []


def test_processor_that_may_not_be_used_is_refused(lab: Laboratory):
    error = failure(lab, cpu_affinity=(4000,))
    assert error.reason is FailureReason.INVALID_SPEC
    assert str(error).startswith("cannot bind threads to the processors 4000: ")


# --- the reference model


def test_reference_model_that_cannot_be_run_is_absent(lab: Laboratory, monkeypatch: pytest.MonkeyPatch):
    broken = lab.root / "canary.onnx"
    broken.write_bytes(conv_model()[:100])
    monkeypatch.setattr(attempt, "CANARY_FILE", broken)
    measurement = lab.measure()
    assert measurement.canary is None
    assert measurement.drift_corrected_ms is None
    assert Flag.CANARY not in flags(measurement.flags)
    assert measurement.latency.samples >= 64
    assert not lab.baselines_file.exists() or not json.loads(lab.baselines_file.read_text())["readings"]
