"""Uploads that come while a model is timed: a real server, and a window that the test opens."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from agent_harness import CALL_LIMIT_S, sha256_of, upload_parts
from edgenas.v1 import model_pb2, model_pb2_grpc

from device_agent.measuring.measurer import MeasuringConfig
from device_agent.measuring.timed_window import TimedWindow
from device_agent.serving import server as agent_server
from device_agent.serving import services
from device_agent.serving.admission.callers import Anybody
from device_agent.serving.admission.guard import Guard, StreamSlots
from device_agent.serving.server import AgentConfig, serving
from device_agent.serving.services import ModelService
from device_agent.serving.storage.models import ModelStore

CHUNK = 1 << 16
# Longer than any test here lasts.
HELD_S = 600.0
DATA = bytes(range(256)) * (4 * CHUNK // 256)


class WatchedWindow(TimedWindow):
    """Tells when a call is about to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()

    def wait_until_closed(self, gave_up: threading.Event) -> bool:
        self.asked.set()
        return super().wait_until_closed(gave_up)


@dataclass(frozen=True, kw_only=True)
class Cache:
    """The model service of an agent, without the rest of it."""

    folder: Path
    window: WatchedWindow
    models: model_pb2_grpc.ModelServiceStub

    def taken_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.glob("*.part"))

    def upload(self, parts: Iterator[model_pb2.UploadModelRequest]) -> grpc.Future:
        return self.models.UploadModel.future(parts, timeout=CALL_LIMIT_S)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    store = ModelStore(tmp_path, cache_limit_bytes=10 * len(DATA), model_limit_bytes=10 * len(DATA))
    window = WatchedWindow()
    # One slot: an upload that never ends keeps all others out.
    guard = Guard(Anybody(), StreamSlots(1, 1))
    server = grpc.server(ThreadPoolExecutor(4), interceptors=[guard])
    service = ModelService(models=store, window=window)
    model_pb2_grpc.add_ModelServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Cache(folder=tmp_path, window=window, models=model_pb2_grpc.ModelServiceStub(channel))
    server.stop(None).wait(CALL_LIMIT_S)


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + CALL_LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s


def after_the_first_chunk(go_on: threading.Event) -> Iterator[model_pb2.UploadModelRequest]:
    """Send the header and one chunk, and the rest when told."""
    header, first, *rest = upload_parts(DATA, chunk=CHUNK)
    yield from (header, first)
    go_on.wait(CALL_LIMIT_S)
    yield from rest


def test_upload_does_not_begin_while_a_model_is_timed(cache: Cache):
    with cache.window.open(HELD_S):
        upload = cache.upload(upload_parts(DATA, chunk=CHUNK))
        assert cache.window.asked.wait(CALL_LIMIT_S)
        assert list(cache.folder.iterdir()) == []
        assert not upload.done()
    assert upload.result(CALL_LIMIT_S).sha256 == sha256_of(DATA)


def test_chunks_are_not_taken_while_a_model_is_timed(cache: Cache):
    go_on = threading.Event()
    upload = cache.upload(after_the_first_chunk(go_on))
    until(lambda: cache.taken_bytes() == CHUNK)
    cache.window.asked.clear()
    with cache.window.open(HELD_S):
        go_on.set()
        assert cache.window.asked.wait(CALL_LIMIT_S)
        # The others have come as far as the connection lets them, and nobody takes them.
        with pytest.raises(grpc.FutureTimeoutError):
            upload.result(0.2)
        assert cache.taken_bytes() == CHUNK
    assert upload.result(CALL_LIMIT_S).size_bytes == len(DATA)
    assert (cache.folder / f"{sha256_of(DATA)}.onnx").read_bytes() == DATA


def test_upload_is_not_concluded_while_a_model_is_timed(cache: Cache):
    """The last of it is written to the disk in earnest, which takes longest."""
    go_on = threading.Event()

    def parts() -> Iterator[model_pb2.UploadModelRequest]:
        yield from upload_parts(DATA, chunk=CHUNK)
        go_on.wait(CALL_LIMIT_S)

    upload = cache.upload(parts())
    until(lambda: cache.taken_bytes() == len(DATA))
    cache.window.asked.clear()
    with cache.window.open(HELD_S):
        go_on.set()
        assert cache.window.asked.wait(CALL_LIMIT_S)
        assert [path.suffix for path in cache.folder.iterdir()] == [".part"]
    assert upload.result(CALL_LIMIT_S).sha256 == sha256_of(DATA)


def test_cancelled_upload_ends_while_it_is_held(cache: Cache):
    go_on = threading.Event()
    upload = cache.upload(after_the_first_chunk(go_on))
    until(lambda: cache.taken_bytes() == CHUNK)
    cache.window.asked.clear()
    with cache.window.open(HELD_S):
        go_on.set()
        assert cache.window.asked.wait(CALL_LIMIT_S)
        upload.cancel()
        until(lambda: list(cache.folder.iterdir()) == [])
    # Its slot is free again, or will be in a moment.
    until(lambda: cache.upload(upload_parts(DATA)).exception(CALL_LIMIT_S) is None)


def test_stopping_agent_ends_held_uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    window = WatchedWindow()
    monkeypatch.setattr(agent_server, "TimedWindow", lambda: window)
    config = AgentConfig(
        address="127.0.0.1:0",
        state_dir=tmp_path,
        measuring=MeasuringConfig(worker_python=sys.executable, job_timeout_s=CALL_LIMIT_S),
        cache_limit_bytes=10 * len(DATA),
        history_limit_bytes=None,
        insecure=True,
    )
    with (
        window.open(HELD_S),
        contextlib.ExitStack() as agent,
        grpc.insecure_channel(agent.enter_context(serving(config))) as channel,
    ):
        models = model_pb2_grpc.ModelServiceStub(channel)
        upload = models.UploadModel.future(upload_parts(DATA, chunk=CHUNK), timeout=CALL_LIMIT_S)
        assert window.asked.wait(CALL_LIMIT_S)
        agent.close()
        error = upload.exception(CALL_LIMIT_S)
    # Told by the agent itself: whom the server cuts off at the end of its grace hears another status.
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert "upload the model when it is back" in error.details()
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("bytes_at_a_time", [0, 1], ids=["silent", "dripping"])
def test_upload_that_never_ends_is_ended(cache: Cache, monkeypatch: pytest.MonkeyPatch, bytes_at_a_time: int):
    monkeypatch.setattr(services, "UPLOAD_PATIENCE_S", 1.0)
    stop = threading.Event()

    def slow() -> Iterator[model_pb2.UploadModelRequest]:
        header, *_ = upload_parts(DATA, chunk=CHUNK)
        yield header
        for start in range(len(DATA)):
            if bytes_at_a_time:
                yield model_pb2.UploadModelRequest(chunk=DATA[start : start + bytes_at_a_time])
            if stop.wait(0.05):
                return

    began_s = time.monotonic()
    assert cache.upload(slow()).exception(CALL_LIMIT_S).code() == grpc.StatusCode.CANCELLED
    assert time.monotonic() - began_s < 5
    stop.set()
    until(lambda: list(cache.folder.iterdir()) == [])
    # Its slot is free again, or will be in a moment.
    until(lambda: cache.upload(upload_parts(DATA)).exception(CALL_LIMIT_S) is None)


def test_upload_over_a_slow_link_is_waited_for(cache: Cache, monkeypatch: pytest.MonkeyPatch):
    """Longer than the patience in all, but with enough in each of its seconds."""
    monkeypatch.setattr(services, "UPLOAD_PATIENCE_S", 1.0)

    def slow() -> Iterator[model_pb2.UploadModelRequest]:
        for part in upload_parts(DATA, chunk=len(DATA) // 10):
            time.sleep(0.3)
            yield part

    assert cache.upload(slow()).exception(CALL_LIMIT_S) is None
