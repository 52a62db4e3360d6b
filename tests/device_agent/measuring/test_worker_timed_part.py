"""The timed part of a job: turns, groups, stalls, and what does not count as memory of the model."""

import errno
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
from agent_harness import conv_model
from measuring_lab import laboratory
from onnx import TensorProto, helper, numpy_helper
from worker_jobs import Job, run_job

from device_agent import worker
from device_agent.benchmark import Flag, Phase, Progress

MIB = 1 << 20
STOP_NS = 300_000_000
# No such file: the job goes on without the reference model.
NO_CANARY = "none.onnx"
ONE_THREAD = {"threads": 1, "cpu_affinity": [], "provider": ""}


class FakeClock:
    """A clock that models move as they run; before one of its readings the process may be stopped."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.readings = 0
        self.busy_until_ns = 0
        self.stopped_before: int | None = None

    def perf_counter_ns(self) -> int:
        self.readings += 1
        if self.readings == self.stopped_before:
            self.now_ns += STOP_NS
        self.now_ns += 100
        return self.now_ns

    def monotonic(self) -> float:
        return self.perf_counter_ns() / 1e9

    def sleep(self, seconds: float) -> None:
        self.perf_counter_ns()
        self.now_ns += round(1e9 * seconds)

    def process_time(self) -> float:
        """What all threads used: those of a model go on for a while after it."""
        return min(self.now_ns, self.busy_until_ns) / 1e9

    def model(self, latency_ms: float, *, spinning_ms: float = 0.0) -> Callable[[], None]:
        def run() -> None:
            self.now_ns += round(1e6 * latency_ms)
            self.busy_until_ns = self.now_ns + round(1e6 * spinning_ms)

        return run


class FakeCanary(worker.Canary):
    """A reference model that runs by the fake clock."""

    def __init__(self, run: Callable[[], None], *, threads: int = 2) -> None:
        self.run = run
        self.waits_for_rest = threads > 1
        self.turns = []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(worker, "perf_counter_ns", clock.perf_counter_ns)
    time = SimpleNamespace(monotonic=clock.monotonic, sleep=clock.sleep, process_time=clock.process_time)
    monkeypatch.setattr(worker, "time", time)
    return clock


def take(
    clock: FakeClock,
    latency_ms: float,
    *,
    canary_ms: float | None = 2.0,
    spinning_ms: float = 0.0,
    stopped_before: int | None = None,
    threads: int = 2,
) -> worker.Series:
    """Take the samples of a model in search mode, from the clock's beginning."""
    rules = worker.RULES["search"]
    clock.now_ns, clock.readings, clock.busy_until_ns, clock.stopped_before = 0, 0, 0, stopped_before
    canary = None if canary_ms is None else FakeCanary(clock.model(canary_ms), threads=threads)
    series = worker.Series(
        clock.model(latency_ms, spinning_ms=spinning_ms), canary, 1e6 * latency_ms, rules.turn_s
    )
    series.take(worker.Sampling(rules).over)
    return series


def test_model_and_reference_model_take_turns(clock: FakeClock):
    series = take(clock, 5.0)
    # Turns of half a second have 100 samples; enough are two checks of 32 from 1 s on.
    assert series.turn_ends == [100, 200, 256]
    assert len(series.samples_ns) == 256
    assert [len(turn) for turn in series.canary.turns] == [20, 20, 20, 20]
    assert all(latency == 5_000_100 for latency in series.samples_ns)


@pytest.mark.parametrize(
    ("latency_ms", "threads", "untimed"),
    [(19.0, 1, True), (21.0, 1, False), (21.0, 2, True)],
    ids=["fast model", "slow model of one thread", "slow model with threads to wake"],
)
def test_model_that_feels_the_turn_of_the_other_runs_untimed_first(
    clock: FakeClock, latency_ms: float, threads: int, untimed: bool
):
    series = take(clock, latency_ms, threads=threads)
    canary_runs = sum(len(turn) for turn in series.canary.turns)
    assert (series.runs > len(series.samples_ns) + canary_runs) == untimed


def test_slow_model_has_four_samples_in_a_turn(clock: FakeClock):
    assert take(clock, 300.0).turn_ends == list(range(4, 97, 4))


def test_slow_reference_model_has_three_runs_in_a_turn(clock: FakeClock):
    assert {len(turn) for turn in take(clock, 5.0, canary_ms=80.0).canary.turns} == {3}


def test_job_without_the_reference_model_still_has_turns(clock: FakeClock):
    series = take(clock, 5.0, canary_ms=None)
    assert series.turn_ends == [100, 200, 256]


def test_runs_are_those_of_the_model_and_the_reference_model(clock: FakeClock):
    series = take(clock, 5.0)
    # 256 samples, 4 turns of 20, and 10 ms of untimed runs ahead of each of the model's three turns.
    assert series.runs == 256 + 4 * 20 + 3 * 2


def test_model_above_a_millisecond_is_not_grouped(clock: FakeClock):
    assert (take(clock, 1.0).group_runs, list(take(clock, 1.0).groups_ns)) == (0, [])


@pytest.mark.parametrize(("latency_ms", "group_runs"), [(0.999, 2), (0.5, 2), (0.3, 4), (0.004, 250)])
def test_groups_of_a_fast_model_take_about_a_millisecond(
    clock: FakeClock, latency_ms: float, group_runs: int
):
    series = take(clock, latency_ms)
    assert series.group_runs == group_runs
    assert len(series.groups_ns) == len(series.samples_ns)
    assert worker.median(series.groups_ns) == pytest.approx(1e6 * latency_ms * group_runs, rel=0.001)
    assert 1e6 <= worker.median(series.groups_ns) < 2e6


# --- pauses while the board is slower than usual


SLOWER = "the reference model takes 40 % longer than it usually does on this board"


class ShiftingBoard:
    """A board that is slower between two moments: the model takes 5 ms, the reference model 2 ms, usually."""

    def __init__(
        self,
        clock: FakeClock,
        *,
        slow_from_s: float,
        slow_until_s: float,
        share: float,
        every_s: float = 1000.0,
    ) -> None:
        self.clock = clock
        self.told: list[tuple[str, str]] = []
        self._slow_ns = range(round(1e9 * slow_from_s), round(1e9 * slow_until_s))
        self._every_ns = round(1e9 * every_s)
        self._share = share

    def model(self, latency_ms: float) -> Callable[[], None]:
        def run() -> None:
            slow = self.clock.now_ns % self._every_ns in self._slow_ns
            self.clock.now_ns += round(1e6 * latency_ms * (1 + self._share * slow))

        return run

    def take(self, *, limit_s: float, canary: bool = True, usual_ns: float | None = 2e6) -> worker.Series:
        rules = worker.RULES["search"]
        series = worker.Series(
            self.model(5.0),
            FakeCanary(self.model(2.0)) if canary else None,
            5e6,
            rules.turn_s,
            worker.Patience(limit_s=limit_s, usual_ns=usual_ns),
            lambda phase, detail: self.told.append((phase, detail)),
        )
        series.take(worker.Sampling(rules).over)
        return series


def test_board_at_its_usual_speed_is_not_paused_for(clock: FakeClock):
    board = ShiftingBoard(clock, slow_from_s=0, slow_until_s=0, share=0)
    series = board.take(limit_s=30)
    assert (series.paused_s, series.vain_s, board.told) == (0.0, 0.0, [])
    assert series.turn_ends == [100, 200, 256]


def test_wander_is_not_paused_for(clock: FakeClock):
    board = ShiftingBoard(clock, slow_from_s=0, slow_until_s=99, share=0.019)
    assert board.take(limit_s=30).paused_s == 0.0


def test_slow_board_is_paused_for_until_it_is_as_fast_as_usual(clock: FakeClock):
    """The board slows down in the second turn, for four seconds."""
    board = ShiftingBoard(clock, slow_from_s=1.0, slow_until_s=5.0, share=0.4)
    series = board.take(limit_s=30)
    assert board.told == [("gate", SLOWER), ("measure", "")]
    # Looked at every 0.45 s or so.
    assert 3.5 < series.paused_s < 6.0
    assert series.vain_s == 0.0
    # A stretch without samples stands between the slow turn of the reference model and the next.
    assert series.turn_ends[:3] == [100, series.turn_ends[1], series.turn_ends[1]]
    medians = [worker.median(turn) / 1e6 for turn in series.canary.turns]
    assert medians[:4] == pytest.approx([2.0, 2.0, 2.8, 2.0], rel=0.001)
    assert len(series.turn_ends) == len(medians) - 1
    slow = sum(sample > 5.5e6 for sample in series.samples_ns)
    assert 0 < slow < 60
    # Nor is what was asked for cut short.
    assert sum(series.samples_ns) >= 1e9
    assert series.longest_stall_ns < 1e6 * 2.1


def test_board_that_is_slow_from_the_start_is_paused_for_before_any_sample(clock: FakeClock):
    board = ShiftingBoard(clock, slow_from_s=0, slow_until_s=3.0, share=0.4)
    series = board.take(limit_s=30)
    assert series.turn_ends[0] == 0
    assert max(series.samples_ns) < 5.1e6


def test_board_that_nobody_knows_is_paused_for_where_it_becomes_slower(clock: FakeClock):
    slower = ShiftingBoard(clock, slow_from_s=1.0, slow_until_s=5.0, share=0.4)
    assert slower.take(limit_s=30, usual_ns=None).paused_s > 3.5


def test_scatter_on_a_board_that_nobody_knows_is_not_paused_for(clock: FakeClock):
    slower = ShiftingBoard(clock, slow_from_s=0.5, slow_until_s=99, share=0.09)
    assert slower.take(limit_s=30, usual_ns=None).paused_s == 0.0


def test_board_that_nobody_knows_is_as_it_is(clock: FakeClock):
    slow = ShiftingBoard(clock, slow_from_s=0, slow_until_s=999, share=0.4)
    assert slow.take(limit_s=30, usual_ns=None).paused_s == 0.0


def test_board_that_stays_slow_is_measured_on_after_the_limit(clock: FakeClock):
    board = ShiftingBoard(clock, slow_from_s=0, slow_until_s=999, share=0.4)
    series = board.take(limit_s=10)
    assert series.vain_s == series.paused_s
    assert 10 <= series.paused_s < 11
    # Once in vain is enough.
    assert board.told == [("gate", SLOWER), ("measure", "")]
    assert len(series.samples_ns) >= 64


def test_pauses_share_their_limit(clock: FakeClock):
    """Slow for 2.5 of every 4 seconds: each spell passes, two of them together exceed the limit."""
    board = ShiftingBoard(clock, slow_from_s=0.7, slow_until_s=3.2, share=0.4, every_s=4.0)
    series = board.take(limit_s=4)
    # A pause ends with a warm-up and a turn of the reference model.
    assert 4 <= series.paused_s < 4.5
    # The last one was cut short, the one before it was not in vain.
    assert 0 < series.vain_s < 2


def test_pauses_that_end_well_share_their_limit_as_well(clock: FakeClock):
    """A board that is slow whenever it has worked for a while, and rested by the next look."""
    board = ShiftingBoard(clock, slow_from_s=0.5, slow_until_s=0.7, share=0.4, every_s=0.71)
    assert board.take(limit_s=3).paused_s < 4.5


def test_what_happens_in_a_pause_is_no_disturbance(clock: FakeClock, monkeypatch: pytest.MonkeyPatch):
    """The process is taken off a core once a second, and reads a page from a disk each time."""
    monkeypatch.setattr(worker, "usage", lambda: (clock.now_ns // 10**9, clock.now_ns // 10**9))
    board = ShiftingBoard(clock, slow_from_s=1.0, slow_until_s=9.0, share=0.4)
    series = board.take(limit_s=30)
    assert series.paused_s > 7
    assert 0 < series.involuntary_switches == series.major_faults < clock.now_ns / 1e9 - series.paused_s + 2


def test_job_without_the_reference_model_never_pauses(clock: FakeClock):
    board = ShiftingBoard(clock, slow_from_s=0, slow_until_s=99, share=0.4)
    assert board.take(limit_s=30, canary=False).paused_s == 0.0


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("latency_ms", [0.004, 0.5, 5.0, 20.0, 60.0, 300.0])
def test_model_of_any_speed_has_no_stalls_of_its_own(clock: FakeClock, latency_ms: float, threads: int):
    assert take(clock, latency_ms, threads=threads).longest_stall_ns < 1e6


@pytest.mark.parametrize(
    ("threads", "spinning_ms", "waits_ms"),
    [(2, 0.0, (12, 24)), (2, 35.0, (35, 60)), (2, 5000.0, (300, 312)), (1, 0.0, (0, 1))],
    ids=["threads at rest", "threads", "never", "one thread"],
)
def test_reference_model_waits_for_the_model_s_threads_to_rest(
    clock: FakeClock, threads: int, spinning_ms: float, waits_ms: tuple[float, float]
):
    canary = FakeCanary(clock.model(2.0), threads=threads)
    clock.model(5.0, spinning_ms=spinning_ms)()
    begin_ns = clock.now_ns
    canary.turn()
    waited_ms = (clock.now_ns - begin_ns - sum(canary.turns[0])) / 1e6 - 2.0
    assert waits_ms[0] <= waited_ms <= waits_ms[1]
    assert set(canary.turns[0]) == {2_000_100}


@pytest.mark.parametrize(("threads", "spinning_ms"), [(2, 0.0), (2, 35.0), (1, 0.0)])
@pytest.mark.parametrize(("latency_ms", "canary_ms"), [(0.5, 2.0), (25.0, 2.0), (25.0, None)])
def test_stopped_worker_is_seen_wherever_it_is_stopped(
    clock: FakeClock, latency_ms: float, canary_ms: float | None, threads: int, spinning_ms: float
):
    def taken(stopped_before: int | None = None) -> worker.Series:
        return take(
            clock,
            latency_ms,
            canary_ms=canary_ms,
            spinning_ms=spinning_ms,
            stopped_before=stopped_before,
            threads=threads,
        )

    taken()
    # A sample takes two readings or four: every third place looks at each of them.
    places = range(2, clock.readings + 1, 3)
    assert len(places) > 60
    for place in (*places, clock.readings):
        series = taken(stopped_before=place)
        assert series.longest_stall_ns > 0.9 * STOP_NS, place


def test_real_worker_that_was_stopped_is_flagged(tmp_path: Path):
    """Three times, each at another moment of the timed part."""
    with laboratory(tmp_path) as lab:
        for begin_s in (0.3, 0.5, 0.7):

            def stop(progress: Progress, begin_s: float = begin_s) -> None:
                if progress.phase is Phase.MEASURE:
                    process = lab.worker()
                    threading.Timer(begin_s, process.suspend).start()
                    threading.Timer(begin_s + STOP_NS / 1e9, process.resume).start()

            lab.on_progress = stop
            reasons = [raised.reason for raised in lab.measure().flags if raised.flag is Flag.UNSTABLE]
            assert len(reasons) == 1
            assert "the worker stood still for " in reasons[0]


# --- a real worker's own account


def on_the_disk(path: Path, data: bytes) -> Path:
    """Write a file that is cached and needs no writing back."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    path.read_bytes()
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return on_the_disk(tmp_path_factory.mktemp("model") / "conv.onnx", conv_model())


@pytest.fixture(scope="module")
def model_in_memory() -> Iterator[Path]:
    """The same on a file system that is the page cache."""
    if not Path("/dev/shm").is_dir():
        pytest.skip("no /dev/shm here")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder) / "conv.onnx"
        path.write_bytes(conv_model())
        yield path


@pytest.fixture(scope="module")
def job(model: Path) -> Job:
    return run_job("onnx", model)


@pytest.fixture(scope="module")
def job_alone(model_in_memory: Path) -> Job:
    """A job without the reference model, whose file cannot leave the page cache."""
    return run_job("onnx", model_in_memory, canary_path=NO_CANARY)


def test_turns_end_in_order_with_the_last_sample(job: Job):
    ends = job.result["turn_ends"]
    assert ends == sorted(set(ends))
    assert ends[-1] == len(job.result["samples_ns"])
    assert len(job.result["canary_ns"]) == len(ends) + 1


def test_group_is_as_long_as_its_inferences_one_by_one(job: Job):
    """The timer's own cost is in a single sample, so that a group takes less, but not by half."""
    group_ns = worker.median(job.result["groups_ns"]) / job.result["group_runs"]
    assert 0.5 < group_ns / worker.median(job.result["samples_ns"]) < 1.5


def test_reference_model_counts_as_no_memory_of_the_model(job: Job, job_alone: Job):
    assert job_alone.result["canary_ns"] == []
    peak, peak_alone = (
        max(found.result["memory"]["marks"]) - found.result["memory"]["marks"][0]
        for found in (job, job_alone)
    )
    assert abs(peak - peak_alone) < 3 * MIB


def test_memory_that_was_excluded_is_not_in_later_marks():
    memory = worker.Memory()
    memory.mark()
    ballast = memory.exclude(lambda: os.urandom(64 * MIB))
    memory.mark()
    first, second = memory.marks
    assert len(ballast) == 64 * MIB
    assert second - first < 8 * MIB


def test_exclusion_that_failed_half_way_counts_as_well():
    memory = worker.Memory()
    memory.mark()

    def fail() -> None:
        os.urandom(64 * MIB)
        raise MemoryError

    with pytest.raises(MemoryError):
        memory.exclude(fail)
    memory.mark()
    assert memory.marks[1] - memory.marks[0] < 8 * MIB


def test_reference_model_that_is_broken_is_left_out(tmp_path: Path):
    path = tmp_path / "canary.onnx"
    path.write_bytes(conv_model()[:100])
    canary, reason = worker.start_canary(str(path), ONE_THREAD, alone=True)
    assert canary is None
    assert reason.startswith("the reference model cannot be run: ")


def test_reference_model_is_left_out_of_a_python_without_its_runtime(
    model: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    canary, reason = worker.start_canary(str(model), ONE_THREAD, alone=True)
    assert canary is None
    assert reason.startswith("the reference model needs onnxruntime: ")


@pytest.mark.parametrize(
    ("runtime", "provider", "threads", "alone"),
    [
        ("onnx", "", 1, True),
        ("onnx", "CPUExecutionProvider", 1, True),
        ("onnx", "", 2, False),
        ("onnx", "XnnpackExecutionProvider", 1, False),
        ("onnx", "CUDAExecutionProvider", 1, False),
        ("torchscript", "cpu", 1, True),
        ("torchscript", "cuda", 1, False),
    ],
)
def test_model_is_alone_where_it_has_one_thread_and_nothing_beside_it(
    runtime: str, provider: str, threads: int, alone: bool
):
    # Their constructors import the libraries, of which an accelerator's is not here.
    opened = object.__new__(worker.RUNTIMES[runtime])
    model = worker.Model()
    model.execution = worker.Execution(threads, None, None, None)
    assert worker.runs_alone(opened, model, {"provider": provider}) == alone


def test_model_of_a_runtime_that_does_not_tell_is_not_alone():
    model = worker.Model()
    model.execution = worker.Execution(1, None, None, None)
    assert not worker.runs_alone(worker.Runtime(), model, {"provider": ""})


def test_reference_model_starts(model: Path):
    canary, reason = worker.start_canary(str(model), ONE_THREAD, alone=True)
    assert canary is not None
    assert reason == ""
    canary.turn()
    assert len(canary.turns[0]) >= 5


# --- the page cache


def is_cached(path: Path) -> bool:
    """Ask the kernel in another way than the worker does: to read, but only if it need not wait."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.preadv(descriptor, [bytearray(4096)], 0, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            return False
        pytest.skip(f"this file system does not tell what is cached: {error}")
    finally:
        os.close(descriptor)
    return True


@pytest.fixture
def on_disk(tmp_path: Path) -> Path:
    path = on_the_disk(tmp_path / "model", os.urandom(MIB))
    assert is_cached(path)
    return path


def test_file_that_was_dropped_must_be_read_from_the_disk(on_disk: Path):
    assert worker.drop_from_page_cache(str(on_disk))
    assert not is_cached(on_disk)


def test_cached_page_is_found_among_many(on_disk: Path):
    worker.drop_from_page_cache(str(on_disk))
    with on_disk.open("rb", buffering=0) as file:
        assert not worker.is_cached(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(file.fileno(), 10, 900_000)
        assert worker.is_cached(file.fileno())


def test_file_in_memory_cannot_be_dropped(model_in_memory: Path):
    assert not worker.drop_from_page_cache(str(model_in_memory))


@pytest.mark.parametrize("content", [None, b""], ids=["missing", "empty"])
def test_file_without_pages_cannot_be_dropped(tmp_path: Path, content: bytes | None):
    path = tmp_path / "model"
    if content is not None:
        path.write_bytes(content)
    assert not worker.drop_from_page_cache(str(path))


def test_load_from_the_disk_is_called_cold(model: Path, job: Job):
    # Whether this file system can drop a page at all.
    with model.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert job.result["load_was_cold"] is not is_cached(model)


def test_load_from_memory_is_not_called_cold(job_alone: Job):
    assert job_alone.result["load_was_cold"] is False


def test_loads_are_timed_cold_and_warm(job: Job):
    assert job.result["load_ns"] > 0
    assert job.result["warm_load_ns"] > 0


@pytest.mark.slow
def test_model_that_fits_into_memory_once_need_not_fit_twice(tmp_path: Path):
    """It is loaded a second time, warm, after everything else."""
    weight = numpy.random.default_rng(0).standard_normal((4096, 4096)).astype("float32")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "weight"], ["output"])],
        "large",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 4096])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 4096])],
        [numpy_helper.from_array(weight, "weight")],
    )
    path = tmp_path / "large.onnx"
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(made.SerializeToString())
    marks = run_job("onnx", path, canary_path=NO_CANARY).result["memory"]["marks"]
    # Loaded it keeps 64 MB, half of what loading takes: 1.5 times the peak would hold it twice.
    limit = int(1.3 * (max(marks) - marks[0]))
    assert run_job("onnx", path, canary_path=NO_CANARY, memory_limit_bytes=limit).result["warm_load_ns"] > 0
