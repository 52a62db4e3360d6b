import os
import threading
from pathlib import Path

import grpc
import pytest
from agent_harness import (
    CALL_LIMIT_S,
    FULL,
    Agent,
    conv_model,
    padded_model,
    running_agent,
    sha256_of,
    spec,
    until,
    until_measuring,
    upload_parts,
)
from edgenas.v1 import benchmark_pb2, model_pb2

from device_agent.benchmark import ModelFormat
from device_agent.errors import ModelCacheError, ModelMismatchError, ModelNotFoundError, StorageFullError
from device_agent.serving.storage.models import ModelStore

MIB = 1 << 20


def has_model(agent: Agent, sha256: str) -> bool:
    return agent.models.HasModel(model_pb2.HasModelRequest(sha256=sha256), timeout=CALL_LIMIT_S).present


def refused_upload(agent: Agent, parts) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        agent.models.UploadModel(iter(parts), timeout=CALL_LIMIT_S)
    return caught.value


def partial_files(agent: Agent) -> list[Path]:
    return list((agent.state_dir / "models").glob("*.part"))


def test_uploaded_model_is_held(agent: Agent):
    data = conv_model(seed=21)
    assert not has_model(agent, sha256_of(data))
    answer = agent.models.UploadModel(upload_parts(data, chunk=100), timeout=CALL_LIMIT_S)
    assert (answer.sha256, answer.size_bytes) == (sha256_of(data), len(data))
    assert has_model(agent, sha256_of(data))


def test_held_model_is_answered_without_its_chunks(agent: Agent):
    data = conv_model(seed=22)
    agent.upload(data)
    header_only = [next(upload_parts(data))]
    assert agent.models.UploadModel(iter(header_only), timeout=CALL_LIMIT_S).size_bytes == len(data)
    assert agent.upload(data) == sha256_of(data)


def test_held_large_model_may_be_sent_again(agent: Agent):
    data = padded_model(16 * MIB)
    assert agent.upload(data) == agent.upload(data)


def test_wrong_sha256_is_refused(agent: Agent):
    error = refused_upload(agent, upload_parts(b"bytes", sha256="a" * 64))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert f"the header announced '{'a' * 64}'" in error.details()
    assert not has_model(agent, "a" * 64)
    assert partial_files(agent) == []


@pytest.mark.parametrize("size", [4, 6])
def test_wrong_size_is_refused(agent: Agent, size: int):
    error = refused_upload(agent, upload_parts(b"bytes", size=size))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert f"received 5 bytes of a model announced with {size}" in error.details()


def test_malformed_uploads_are_refused(agent: Agent):
    header, chunk = upload_parts(b"bytes")
    formless = model_pb2.UploadModelRequest(header=header.header)
    formless.header.format = model_pb2.MODEL_FORMAT_UNSPECIFIED
    too_large = model_pb2.UploadModelRequest(chunk=bytes(MIB + 1))
    for parts, message in (
        ([], "does not begin with a header"),
        ([chunk], "does not begin with a header"),
        ([header, header], "carries no chunk"),
        ([header, too_large], "a chunk has 1048577 bytes"),
        ([formless], "this agent loads MODEL_FORMAT_ONNX"),
    ):
        error = refused_upload(agent, parts)
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert message in error.details()
    assert partial_files(agent) == []


def announced_as_torchscript(data: bytes):
    header, *chunks = upload_parts(data)
    header.header.format = model_pb2.MODEL_FORMAT_TORCHSCRIPT
    return [header, *chunks]


def test_model_that_was_announced_in_the_wrong_format_can_be_measured_in_the_right_one(agent: Agent):
    """Whoever notices the mistake need not send the bytes again, and is told that they are there."""
    data = conv_model(seed=24)
    agent.models.UploadModel(iter(announced_as_torchscript(data)), timeout=CALL_LIMIT_S)
    assert has_model(agent, sha256_of(data))
    assert agent.measure(sha256_of(data)).model_format == model_pb2.MODEL_FORMAT_ONNX
    assert agent.upload(data) == sha256_of(data)
    assert agent.measure(sha256_of(data)).model_format == model_pb2.MODEL_FORMAT_ONNX


def test_model_of_another_format_than_the_runtimes_is_told_as_such(agent: Agent):
    failure = agent.fail(agent.upload(conv_model(seed=25)), spec(runtime="torchscript"))
    assert failure.reason == benchmark_pb2.FAILURE_REASON_INVALID_MODEL
    assert "the file is no TorchScript archive" in failure.message


def test_broken_off_upload_leaves_nothing(agent: Agent):
    data = conv_model(seed=23)
    sent, broken_off = threading.Event(), threading.Event()

    def parts():
        yield from list(upload_parts(data, chunk=100))[:3]
        sent.set()
        broken_off.wait(CALL_LIMIT_S)

    upload = agent.models.UploadModel.future(parts(), timeout=CALL_LIMIT_S)
    assert sent.wait(CALL_LIMIT_S)
    upload.cancel()
    broken_off.set()
    assert agent.upload(data) == sha256_of(data)
    assert has_model(agent, sha256_of(data))


def test_memory_does_not_grow_with_the_model(tmp_path: Path):
    data = padded_model(96 * MIB)
    with running_agent(tmp_path) as agent:
        before = peak_kib(agent)
        agent.upload(data)
        assert peak_kib(agent) - before < 48 * 1024


def peak_kib(agent: Agent) -> int:
    lines = Path(f"/proc/{agent.process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


@pytest.mark.slow
def test_model_in_use_stays_while_older_ones_go(tmp_path: Path):
    # The job holds its model until it is cancelled, however long the uploads take.
    with running_agent(tmp_path, "--cache-limit-mb", "1", "--measure-limit-s", "60") as agent:
        in_use = agent.upload(conv_model())
        running = agent.watch(in_use, spec(mode=FULL), request_id="holds")
        until_measuring(running)
        idle = agent.upload(padded_model(MIB // 2))
        newest = agent.upload(padded_model(MIB // 4 * 3))
        assert [has_model(agent, sha256) for sha256 in (in_use, idle, newest)] == [True, False, True]
        agent.cancel("holds")
        until(running, "failure")


def test_model_beyond_the_limit_is_refused(tmp_path: Path):
    with running_agent(tmp_path, "--cache-limit-mb", "1") as agent:
        error = refused_upload(agent, upload_parts(padded_model(2 * MIB)))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "this agent accepts 1048576" in error.details()


def store(folder: Path, cache_limit_bytes: int = 100) -> ModelStore:
    return ModelStore(folder, cache_limit_bytes=cache_limit_bytes, model_limit_bytes=1000)


def put(models: ModelStore, data: bytes) -> str:
    with models.receive(sha256_of(data), ModelFormat.ONNX, len(data)) as upload:
        upload.write(data)
    return sha256_of(data)


def test_store_drops_the_oldest_used(tmp_path: Path):
    models = store(tmp_path)
    first, second = put(models, b"1" * 40), put(models, b"2" * 40)
    for age, sha256 in enumerate((second, first)):
        os.utime(tmp_path / f"{sha256}.onnx", (age, age))
    put(models, b"3" * 40)
    assert (models.size_bytes(first), models.size_bytes(second)) == (40, None)


def test_store_refuses_what_only_held_models_could_make_room_for(tmp_path: Path):
    models = store(tmp_path)
    held = put(models, b"1" * 60)
    models.hold(held)
    with pytest.raises(StorageFullError, match="full of models that wait"):
        put(models, b"2" * 60)
    models.let_go(held)
    assert put(models, b"2" * 60) == sha256_of(b"2" * 60)


def test_store_sets_aside_what_an_upload_announces(tmp_path: Path):
    models = store(tmp_path)
    idle, data = put(models, b"0" * 30), b"1" * 80
    with models.receive(sha256_of(data), ModelFormat.ONNX, len(data)) as upload:
        # Room was made when it began, so that the files of both never exceed the limit together.
        assert models.size_bytes(idle) is None
        with pytest.raises(StorageFullError, match="or are on their way"):
            put(models, b"2" * 30)
        beside = put(models, b"3" * 20)
        upload.write(data)
    assert [models.size_bytes(sha256) for sha256 in (sha256_of(data), beside)] == [80, 20]


def test_store_gives_back_what_a_broken_off_upload_announced(tmp_path: Path):
    models = store(tmp_path)
    with pytest.raises(RuntimeError), models.receive("a" * 64, ModelFormat.ONNX, 80):
        raise RuntimeError("the caller has gone")
    assert put(models, b"1" * 80) == sha256_of(b"1" * 80)


def test_store_keeps_one_file_of_bytes_that_come_twice_at_one_time(tmp_path: Path):
    models, data = store(tmp_path), b"1" * 40
    with models.receive(sha256_of(data), ModelFormat.TORCHSCRIPT, 40) as upload:
        upload.write(data)
        put(models, data)
    (file,) = tmp_path.iterdir()
    assert file.read_bytes() == data


def test_folder_that_has_gone_is_told(tmp_path: Path):
    models = store(tmp_path / "models")
    (tmp_path / "models").rmdir()
    with pytest.raises(ModelCacheError, match="cannot be used: No such file or directory; make sure"):
        put(models, b"1")


def test_store_removes_stale_partial_files_at_start(tmp_path: Path):
    (tmp_path / "broken.part").write_bytes(b"half")
    store(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_store_does_not_hold_what_it_lacks(tmp_path: Path):
    with pytest.raises(ModelNotFoundError, match="upload it"):
        store(tmp_path).hold("a" * 64)


def test_store_keeps_nothing_of_a_mismatch(tmp_path: Path):
    models = store(tmp_path)
    with pytest.raises(ModelMismatchError), models.receive("a" * 64, ModelFormat.ONNX, 3) as upload:
        upload.write(b"abc")
    assert list(tmp_path.iterdir()) == []
