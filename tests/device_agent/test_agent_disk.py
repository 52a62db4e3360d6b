"""Disks that are small or refuse to be written: real ones, in a mount namespace of the agent's own."""

import contextlib
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from agent_harness import (
    CALL_LIMIT_S,
    Agent,
    conv_model,
    running_agent,
    sha256_of,
    until_measuring,
    upload_parts,
)
from edgenas.v1 import model_pb2

DISK_BYTES = 2 << 20


def on_a_disk(folder: Path) -> list[str]:
    """Return the words that give a command a disk of 2 MiB of its own at `folder`."""
    probe = subprocess.run(["unshare", "-rm", "true"], capture_output=True)
    if probe.returncode:
        pytest.skip(f"no mount namespaces here: {probe.stderr.decode().strip()}")
    mounted = f'mkdir -p "$0" && mount -t tmpfs -o size={DISK_BYTES} tmpfs "$0" && exec "$@"'
    return ["unshare", "-rm", "sh", "-c", mounted, str(folder)]


def seen_by(agent: Agent, path: Path) -> Path:
    """Return the path at which this process sees what the agent sees at `path`."""
    return Path(f"/proc/{agent.process.pid}/root{path}")


def remount(agent: Agent, folder: Path, how: str) -> None:
    enter = ["nsenter", "-t", str(agent.process.pid), "-U", "-m", "--preserve-credentials"]
    subprocess.run([*enter, "mount", "-o", f"remount,{how}", str(folder)], check=True)


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + CALL_LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s


def in_two_parts(data: bytes, go_on: threading.Event) -> Iterator[model_pb2.UploadModelRequest]:
    """Send the header and one chunk, and the rest when told."""
    header, first, *rest = upload_parts(data, chunk=100_000)
    yield from (header, first)
    go_on.wait(CALL_LIMIT_S)
    yield from rest


def fill(file: Path) -> None:
    """Leave nothing of the disk that a file is on."""
    with file.open("wb", buffering=0) as opened, contextlib.suppress(OSError):
        while True:
            opened.write(bytes(4096))
    assert shutil.disk_usage(file.parent).free == 0


def refused(call: grpc.Future) -> tuple[grpc.StatusCode, str]:
    error = call.exception(CALL_LIMIT_S)
    return error.code(), error.details()


def test_full_disk_is_reported_and_leaves_nothing(tmp_path: Path):
    large, small = bytes([1]) * 1_200_000, bytes([2]) * 400_000
    with running_agent(tmp_path, prefix=on_a_disk(tmp_path)) as agent:
        state, disk_is_taken = seen_by(agent, tmp_path), threading.Event()
        upload = agent.models.UploadModel.future(in_two_parts(large, disk_is_taken), timeout=CALL_LIMIT_S)
        until(lambda: any(path.stat().st_size for path in (state / "models").iterdir()))
        (state / "what somebody else wrote").write_bytes(bytes(1_200_000))
        disk_is_taken.set()
        code, details = refused(upload)
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "the disk of the agent's state directory is full" in details
        assert agent.upload(small) == sha256_of(small)


def test_disk_that_an_upload_will_need_is_not_given_to_another(tmp_path: Path):
    first, second = bytes([1]) * 1_200_000, bytes([2]) * 1_200_000
    with running_agent(tmp_path, prefix=on_a_disk(tmp_path)) as agent:
        state, other_was_refused = seen_by(agent, tmp_path), threading.Event()
        upload = agent.models.UploadModel.future(in_two_parts(first, other_was_refused), timeout=CALL_LIMIT_S)
        until(lambda: any(path.stat().st_size for path in (state / "models").iterdir()))
        code, details = refused(agent.models.UploadModel.future(upload_parts(second), timeout=CALL_LIMIT_S))
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "the disk of the agent's state directory is full: the model needs 1200000 bytes, " in details
        other_was_refused.set()
        assert upload.result(CALL_LIMIT_S).sha256 == sha256_of(first)
        # Now that it is idle it makes room.
        assert agent.upload(second) == sha256_of(second)


def test_disk_that_went_read_only_is_told_in_one_line(tmp_path: Path):
    """So ends many an SD card."""
    cache = tmp_path / "models"
    with running_agent(tmp_path, prefix=on_a_disk(cache)) as agent:
        held = agent.upload(conv_model(seed=1))
        remount(agent, cache, "ro")
        other = conv_model(seed=2)
        asked = (
            agent.models.UploadModel.future(upload_parts(other), timeout=CALL_LIMIT_S),
            agent.models.HasModel.future(model_pb2.HasModelRequest(sha256=held), timeout=CALL_LIMIT_S),
            agent.watch(held),
        )
        for call in asked:
            assert refused(call) == (
                grpc.StatusCode.INTERNAL,
                f"the model cache '{cache}' cannot be used: Read-only file system; make sure that the agent's user "
                "may write there and that the disk is sound, or move the state with --state-dir",
            )
        remount(agent, cache, "rw")
        assert agent.upload(other) == sha256_of(other)
        assert agent.measure(held).model_sha256 == held
    assert "Traceback" not in (tmp_path / "stderr.log").read_text()


def test_result_that_the_full_disk_does_not_take_is_told(tmp_path: Path):
    with running_agent(tmp_path, prefix=on_a_disk(tmp_path)) as agent:
        held = agent.upload(conv_model())
        others = seen_by(agent, tmp_path) / "what somebody else wrote"
        running = agent.watch(held, request_id="lost")
        until_measuring(running)
        fill(others)
        with pytest.raises(grpc.RpcError) as caught:
            list(running)
        assert caught.value.code() == grpc.StatusCode.INTERNAL
        assert caught.value.details() == (
            f"the history '{tmp_path / 'history.sqlite'}' cannot be used: database or disk is full; make sure that its "
            "disk has room and can be written, or move the state with --state-dir"
        )
        with pytest.raises(grpc.RpcError, match=r"the journal .* cannot be used: database or disk is full"):
            list(agent.watch(held, request_id="refused"))
        others.unlink()
        kept = agent.measure(held, request_id="lost")
        assert agent.measure(held, request_id="lost") == kept
