import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import grpc
import psutil
import pytest
from agent_harness import (
    CALL_LIMIT_S,
    FULL,
    conv_model,
    running_agent,
    spec,
    until_measuring,
)
from edgenas.v1 import benchmark_pb2, device_pb2, model_pb2

from device_agent.errors import StartupError
from device_agent.serving.listening import parse_address


def serve(state_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `serve` where it is expected to refuse."""
    command = [sys.executable, "-m", "device_agent", "serve", "--state-dir", str(state_dir), *options]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=CALL_LIMIT_S
    )


def assert_refused(done: subprocess.CompletedProcess[str], message: str) -> None:
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("edgenas-agent: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def until_dead(process: psutil.Process) -> None:
    deadline = time.monotonic() + CALL_LIMIT_S
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline


def test_history_and_models_survive_a_killed_agent(tmp_path: Path):
    with running_agent(tmp_path) as agent:
        sha256 = agent.upload(conv_model())
        record = agent.measure(sha256, request_id="kept")
        agent.kill()
    with running_agent(tmp_path) as agent:
        assert agent.models.HasModel(model_pb2.HasModelRequest(sha256=sha256)).present
        assert agent.measure(sha256, request_id="kept") == record


@pytest.mark.parametrize("busy", [False, True], ids=["waiting", "measuring"])
def test_worker_ends_with_its_agent(tmp_path: Path, busy: bool):
    with running_agent(tmp_path) as agent:
        agent.describe()
        if busy:
            until_measuring(agent.watch(agent.upload(conv_model()), spec(mode=FULL)))
        workers = agent.workers()
        assert len(workers) == 1
        agent.kill()
        assert psutil.wait_procs(workers, timeout=CALL_LIMIT_S)[1] == []


def test_killed_waiting_worker_is_replaced(tmp_path: Path):
    with running_agent(tmp_path) as agent:
        sha256 = agent.upload(conv_model())
        agent.describe()
        (worker,) = agent.workers()
        worker.kill()
        until_dead(worker)
        assert agent.measure(sha256).measurement.latency.samples >= 64


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_agent_and_its_streams(tmp_path: Path, number: int):
    with running_agent(tmp_path) as agent:
        sha256 = agent.upload(conv_model())
        running = agent.watch(sha256, spec(mode=FULL))
        until_measuring(running)
        waiting = agent.watch(sha256)
        next(waiting)
        agent.process.send_signal(number)
        for stream in (running, waiting):
            with pytest.raises(grpc.RpcError) as caught:
                list(stream)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            assert "ask again" in caught.value.details()
        assert agent.process.wait(CALL_LIMIT_S) == 0
    assert "Traceback" not in (tmp_path / "stderr.log").read_text()


def test_end_of_standard_input_ends_the_agent(tmp_path: Path):
    with running_agent(tmp_path) as agent:
        agent.process.stdin.close()
        assert agent.process.wait(CALL_LIMIT_S) == 0


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_of_a_ready_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool):
    name = f"@edgenas-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name.replace("@", "\0"))
        systemd.settimeout(CALL_LIMIT_S)
        with running_agent(tmp_path / "state"):
            assert systemd.recv(64) == b"READY=1"


def test_job_beyond_the_time_limit_is_given_up(tmp_path: Path):
    with running_agent(tmp_path, "--job-timeout-s", "0.5") as agent:
        failure = agent.fail(agent.upload(conv_model()), spec(mode=FULL))
        assert failure.reason == benchmark_pb2.FAILURE_REASON_TIMED_OUT
        assert "longer than its time limit of 0.5 s" in failure.message


def test_python_without_the_runtime_is_reported(tmp_path: Path):
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    with running_agent(tmp_path / "state", "--worker-python", str(bare / "bin/python")) as agent:
        device = agent.describe()
        assert list(device.runtimes) == []
        with pytest.raises(grpc.RpcError) as caught:
            list(agent.watch(agent.upload(conv_model())))
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert "cannot import onnxruntime: No module named 'numpy'" in caught.value.details()


def test_streams_leave_threads_for_short_calls(tmp_path: Path):
    with running_agent(tmp_path) as agent:
        request = device_pb2.WatchTelemetryRequest(interval_ms=100)
        streams = [agent.devices.WatchTelemetry(request) for _ in range(48)]
        for stream in streams:
            next(stream)
        with pytest.raises(grpc.RpcError) as caught:
            next(agent.devices.WatchTelemetry(request))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        agent.describe()
        for stream in streams:
            stream.cancel()


def test_port_in_use_is_refused(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert_refused(
            serve(tmp_path, "--address", address), f"cannot listen on {address}: Address already in use"
        )


def test_second_agent_on_a_state_directory_is_refused(tmp_path: Path):
    with running_agent(tmp_path) as agent:
        done = serve(tmp_path, "--address", "127.0.0.1:0")
        assert_refused(done, f"is in use by the agent with process id {agent.process.pid}")


def test_unwritable_state_directory_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    assert_refused(serve(tmp_path / "file" / "state"), "cannot write the state directory")


def test_corrupt_history_is_refused(tmp_path: Path):
    (tmp_path / "history.sqlite").write_bytes(b"no database " * 100)
    assert_refused(serve(tmp_path, "--address", "127.0.0.1:0"), "move the file away")


def test_missing_worker_python_is_refused(tmp_path: Path):
    assert_refused(serve(tmp_path, "--worker-python", "no-such-python"), "check --worker-python")


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1", "board.local"])
def test_network_address_without_tls_is_refused(tmp_path: Path, host: str):
    assert_refused(
        serve(tmp_path, "--insecure", "--address", f"{host}:50151"), "is reachable from the network"
    )


@pytest.mark.parametrize("address", ["", "127.0.0.1", ":50151", "127.0.0.1:x", "127.0.0.1:65536"])
def test_malformed_address_is_refused(address: str):
    with pytest.raises(StartupError, match="is not HOST:PORT"):
        parse_address(address)


def test_address_is_parsed():
    assert parse_address("[::1]:50151") == ("::1", 50151)


def test_history_of_a_missing_state_directory_is_refused(tmp_path: Path):
    command = [sys.executable, "-m", "device_agent", "history", "--state-dir", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=CALL_LIMIT_S)
    assert_refused(done, "there is no history")


def test_state_directory_comes_from_the_environment(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "device_agent", "history"],
        env=os.environ | {"EDGENAS_AGENT_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=CALL_LIMIT_S,
    )
    assert_refused(done, str(tmp_path / "home"))


def test_server_does_not_import_the_runtime():
    code = (
        "import sys, device_agent.serving.server; print({'onnxruntime', 'numpy', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
