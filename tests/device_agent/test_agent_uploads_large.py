"""Uploads of models that are larger than what a board can spare, damaged on the way, or too many to keep."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import hostile_models as hm
import pytest
from agent_harness import CALL_LIMIT_S, Agent, padded_model, running_agent, sha256_of, until
from edgenas.v1 import benchmark_pb2, model_pb2
from large_models import MIB, UPLOAD_LIMIT_S, LargeModel, PeakMemory

from device_agent.benchmark import ModelFormat
from device_agent.serving.storage.models import ModelStore

LARGE = LargeModel(500_000_000)
# What the agent may grow by; the worker, which must hold the model, is another process.
GROWTH_LIMIT_MIB = 32


def has_model(agent: Agent, sha256: str) -> bool:
    return agent.models.HasModel(model_pb2.HasModelRequest(sha256=sha256), timeout=CALL_LIMIT_S).present


def model_files(agent: Agent) -> list[str]:
    return sorted(path.name for path in (agent.state_dir / "models").iterdir())


def model_of(number: int) -> bytes:
    """Return one of several models of 0.9 MiB each."""
    return padded_model(9 * MIB // 10 + 4 * number)


@pytest.mark.slow
def test_model_of_500_mb_is_uploaded_and_measured_in_bounded_memory(tmp_path: Path):
    with running_agent(tmp_path) as agent:
        agent.describe()
        peak = PeakMemory(agent.process.pid)
        assert LARGE.upload(agent) == LARGE.sha256
        assert peak.growth_mib() < GROWTH_LIMIT_MIB
        assert (tmp_path / "models" / f"{LARGE.sha256}.onnx").stat().st_size == LARGE.size_bytes
        record = agent.measure(LARGE.sha256)
        assert record.measurement.memory.peak_bytes > 500_000_000
        assert peak.growth_mib() < GROWTH_LIMIT_MIB


@pytest.mark.slow
def test_one_wrong_bit_in_500_mb_is_found_and_leaves_nothing(tmp_path: Path):
    def damaged() -> Iterator[model_pb2.UploadModelRequest]:
        for number, part in enumerate(LARGE.parts()):
            if number == 321:
                chunk = bytearray(part.chunk)
                chunk[4321] ^= 1
                part = model_pb2.UploadModelRequest(chunk=bytes(chunk))
            yield part

    with running_agent(tmp_path) as agent:
        with pytest.raises(grpc.RpcError) as caught:
            agent.models.UploadModel(damaged(), timeout=UPLOAD_LIMIT_S)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert f"the header announced '{LARGE.sha256}'" in caught.value.details()
        assert "damaged on the way, upload it again" in caught.value.details()
        assert model_files(agent) == []
        assert not has_model(agent, LARGE.sha256)


def test_chunks_in_another_order_are_found(agent: Agent):
    model = LargeModel(3 * MIB)
    header, head, first, second, third = model.parts()
    with pytest.raises(grpc.RpcError) as caught:
        agent.models.UploadModel(iter([header, head, second, first, third]), timeout=CALL_LIMIT_S)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert not has_model(agent, model.sha256)
    assert model.upload(agent) == model.sha256


def test_cache_drops_the_model_that_was_used_longest_ago(tmp_path: Path):
    with running_agent(tmp_path, "--cache-limit-mb", "3") as agent:
        first, second, third = (agent.upload(model_of(number)) for number in range(3))
        # Asking for it counts as using it: it is about to be measured.
        assert has_model(agent, first)
        fourth = agent.upload(model_of(3))
        assert model_files(agent) == sorted(f"{sha256}.onnx" for sha256 in (first, third, fourth))
        agent.upload(model_of(4))
        assert [has_model(agent, sha256) for sha256 in (first, second, third, fourth)] == [
            True,
            False,
            False,
            True,
        ]


def test_store_tells_uses_apart_that_follow_at_once(tmp_path: Path):
    """A file system's clock ticks every few milliseconds; one that was set back must not matter either."""
    models = ModelStore(tmp_path, cache_limit_bytes=10, model_limit_bytes=10)
    tomorrow = time.time() + 86_400
    names = []
    for number in range(10):
        data = bytes([number])
        names.append(sha256_of(data))
        with models.receive(names[-1], ModelFormat.ONNX, 1) as upload:
            upload.write(data)
        os.utime(tmp_path / f"{names[0]}.onnx", (tomorrow, tomorrow))
    models = ModelStore(tmp_path, cache_limit_bytes=10, model_limit_bytes=10)
    for name in reversed(names):
        assert models.size_bytes(name) == 1
    with models.receive(sha256_of(b"ab"), ModelFormat.ONNX, 2) as upload:
        upload.write(b"ab")
    assert [models.size_bytes(name) for name in names] == [1] * 8 + [None] * 2


def test_cache_keeps_what_runs_or_waits(tmp_path: Path):
    hung = hm.loop(hm.node("Relu", ["before"], ["after"]))
    with running_agent(tmp_path, "--cache-limit-mb", "2") as agent:
        running = agent.watch(agent.upload(hung), request_id="running")
        until(running, "progress")
        waiting = agent.watch(agent.upload(model_of(0)), request_id="waiting")
        assert next(waiting).queued.position == 1
        idle = agent.upload(model_of(1))
        newest = agent.upload(model_of(2))
        kept = [sha256_of(hung), sha256_of(model_of(0)), newest]
        assert model_files(agent) == sorted(f"{sha256}.onnx" for sha256 in kept)
        assert not has_model(agent, idle)
        last = agent.watch(newest, request_id="last")
        assert next(last).queued.position == 2
        with pytest.raises(grpc.RpcError) as caught:
            agent.upload(model_of(3))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "the model cache of 2 MiB is full of models that wait to be measured" in caught.value.details()
        for name in ("running", "waiting", "last"):
            agent.cancel(name)
        assert until(last, "failure").failure.reason == benchmark_pb2.FAILURE_REASON_CANCELLED
        until(running, "failure")
        # What held the board is oldest, then what waited.
        agent.upload(model_of(3))
        assert model_files(agent) == sorted(f"{sha256}.onnx" for sha256 in (newest, sha256_of(model_of(3))))
