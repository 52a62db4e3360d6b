import contextlib
import dataclasses
import sqlite3
import sys
from pathlib import Path

import pytest
from agent_harness import conv_model, sha256_of

from device_agent.benchmark import (
    BenchmarkRequest,
    BenchmarkSpec,
    Finished,
    InputShape,
    MeasurementMode,
    ModelFormat,
    Queued,
    Started,
)
from device_agent.errors import AgentStoppingError, QueueFullError, RequestConflictError, StartupError
from device_agent.measuring.baselines import Baselines
from device_agent.measuring.measurer import Measurer, MeasuringConfig
from device_agent.measuring.timed_window import TimedWindow
from device_agent.serving import queue as queue_module
from device_agent.serving.queue import WAITING_LIMIT, BenchmarkQueue
from device_agent.serving.storage.history import HISTORY_FILE, History
from device_agent.serving.storage.journal import JOURNAL_FILE, JobState, Journal
from device_agent.serving.storage.models import ModelStore
from device_agent.serving.wire.answers import decode_request, encode_request

SPEC = BenchmarkSpec(
    runtime="onnx",
    threads=1,
    input_shapes=(InputShape(name="image", dimensions=(1, 3, 16, 16)),),
    seed=7,
    mode=MeasurementMode.SEARCH,
)


def request(request_id: str, *, name: str = "") -> BenchmarkRequest:
    return BenchmarkRequest(
        request_id=request_id, model_sha256=sha256_of(conv_model()), model_name=name, spec=SPEC
    )


@pytest.fixture
def queue(tmp_path: Path):
    """A queue that accepts jobs and has not begun to run them."""
    models = ModelStore(tmp_path / "models", cache_limit_bytes=1 << 20, model_limit_bytes=1 << 20)
    data = conv_model()
    with models.receive(sha256_of(data), ModelFormat.ONNX, len(data)) as upload:
        upload.write(data)
    history = History(tmp_path / HISTORY_FILE)
    measurer = Measurer(
        MeasuringConfig(worker_python=sys.executable, job_timeout_s=30, gate_limit_s=0, measure_limit_s=1),
        Baselines(),
        TimedWindow(),
    )
    journal = Journal(tmp_path / JOURNAL_FILE)
    yield BenchmarkQueue(measurer=measurer, models=models, history=history, journal=journal)
    history.close()
    journal.close()


def test_queue_is_bounded(queue: BenchmarkQueue):
    for number in range(WAITING_LIMIT):
        queue.submit(request(str(number)), "bench")
    with pytest.raises(QueueFullError, match="1000 benchmarks wait"):
        queue.submit(request("one too many"), "bench")
    queue.submit(request("0"), "bench")


def test_who_joins_late_is_told_the_latest_position(queue: BenchmarkQueue):
    for name in ("first", "second", "third"):
        queue.submit(request(name), "bench")
    queue.cancel("first")
    queue.cancel("second")
    assert next(iter(queue.submit(request("third"), "bench"))) == Queued(position=0)


def test_closed_subscription_ends(queue: BenchmarkQueue):
    subscription = queue.submit(request("left"), "bench")
    subscription.close()
    assert list(subscription) == []
    assert queue.jobs() == 1


def test_another_name_for_the_model_is_the_same_measurement(queue: BenchmarkQueue):
    queue.submit(request("same", name="one"), "bench")
    queue.submit(request("same", name="two"), "bench")
    assert queue.jobs() == 1


def test_waiting_request_id_with_another_spec_is_refused(queue: BenchmarkQueue):
    queue.submit(request("taken"), "bench")
    other = BenchmarkRequest(request_id="taken", model_sha256="0" * 64, model_name="", spec=SPEC)
    with pytest.raises(RequestConflictError, match="'taken' was used with another model or spec"):
        queue.submit(other, "bench")


def test_stopped_queue_accepts_nothing(queue: BenchmarkQueue):
    queue.start()
    queue.stop()
    with pytest.raises(AgentStoppingError, match="shutting down"):
        queue.submit(request("too late"), "bench")


def test_job_runs_after_the_waiting_worker_was_let_go(queue: BenchmarkQueue):
    queue.submit(request("after a rest"), "bench")
    queue._measurer.prepare()
    queue._measurer.release()
    queue.start()
    *_, last = queue.submit(request("after a rest"), "bench")
    queue.stop()
    assert last.record


def test_request_survives_its_encoding():
    asked = request("kept", name="a name")
    assert decode_request(encode_request(asked)) == asked


def test_job_that_its_host_has_left_is_dropped_at_its_turn(
    queue: BenchmarkQueue, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(queue_module, "UNWATCHED_LIMIT_S", 0.0)
    left = queue.submit(request("left"), "gone")
    left.close()
    stayed = queue.submit(request("stayed"), "here")
    queue.start()
    *_, last = stayed
    assert isinstance(last, Finished)
    assert not queue.cancel("left"), "it has ended"
    # Asked again, it is measured: its host was away, and is back.
    *_, last = queue.submit(request("left"), "gone")
    assert isinstance(last, Finished)
    queue.stop()


def test_job_that_was_asked_for_again_waits_for_its_host(
    queue: BenchmarkQueue, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(queue_module, "UNWATCHED_LIMIT_S", 0.0)
    queue.submit(request("left"), "gone").close()
    again = queue.submit(request("left"), "gone")
    queue.start()
    *_, last = again
    queue.stop()
    assert isinstance(last, Finished)


def test_queue_keeps_no_more_of_a_job_than_its_place(queue: BenchmarkQueue):
    for number in range(200):
        queue.submit(request(str(number)), "bench")
    for number in range(199):
        queue.cancel(str(number))
    last = queue._active("199")
    assert last is not None
    assert last.events == []
    assert last.position == 0


def test_watcher_is_told_each_place_that_it_can_see(queue: BenchmarkQueue):
    queue.submit(request("first"), "bench")
    events = iter(queue.submit(request("second"), "bench"))
    assert next(events) == Queued(position=1)
    queue.cancel("first")
    assert next(events) == Queued(position=0)


def test_cancelled_job_stays_cancelled_though_the_agent_stops(queue: BenchmarkQueue):
    events = iter(queue.submit(request("unwanted"), "bench"))
    queue.start()
    while not isinstance(next(events), Started):
        pass
    assert queue.cancel("unwanted")
    queue.stop()
    assert queue._journal.entries() == []


def test_job_that_a_stopping_agent_cuts_short_waits_again(queue: BenchmarkQueue):
    events = iter(queue.submit(request("wanted"), "bench"))
    queue.start()
    while not isinstance(next(events), Started):
        pass
    queue.stop()
    assert [(entry.request_id, entry.state) for entry in queue._journal.entries()] == [
        ("wanted", JobState.WAITING)
    ]


def test_entries_that_cannot_be_read_are_dropped(tmp_path: Path):
    journal = Journal(tmp_path / JOURNAL_FILE)
    journal.add("no request", "bench", b"\xff\xff")
    journal.add("of a mode that is unknown", "bench", b"")
    models = ModelStore(tmp_path / "models", cache_limit_bytes=1 << 20, model_limit_bytes=1 << 20)
    history = History(tmp_path / HISTORY_FILE)
    config = MeasuringConfig(
        worker_python=sys.executable, job_timeout_s=30, gate_limit_s=0, measure_limit_s=1
    )
    measurer = Measurer(config, Baselines(), TimedWindow())
    queue = BenchmarkQueue(measurer=measurer, models=models, history=history, journal=journal)
    assert queue.jobs() == 0
    assert journal.entries() == []
    history.close()
    journal.close()


def test_journal_of_a_newer_agent_is_refused(tmp_path: Path):
    path = tmp_path / JOURNAL_FILE
    Journal(path).close()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(StartupError, match="has format 99, this agent reads 1"):
        Journal(path)


def test_lost_job_is_forgotten_for_who_asks_for_something_else(tmp_path: Path, queue: BenchmarkQueue):
    queue._journal.add("lost", "bench", encode_request(request("lost")))
    queue._journal.note("lost", JobState.RUNNING)
    again = BenchmarkQueue(
        measurer=queue._measurer, models=queue._models, history=queue._history, journal=queue._journal
    )
    other = BenchmarkRequest(
        request_id="lost",
        model_sha256=sha256_of(conv_model()),
        model_name="",
        spec=dataclasses.replace(SPEC, seed=8),
    )
    assert next(iter(again.submit(other, "bench"))) == Queued(position=0)
