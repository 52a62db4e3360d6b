"""Workers that cannot be started, start slowly, or would start at a wrong time."""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from agent_harness import CALL_LIMIT_S, FULL, Agent, conv_model, running_agent, spec, until, until_measuring
from edgenas.v1 import benchmark_pb2, device_pb2

from device_agent.errors import RuntimeUnavailableError
from device_agent.measuring.baselines import Baselines
from device_agent.measuring.measurer import Measurer, MeasuringConfig
from device_agent.measuring.timed_window import TimedWindow


def python_script(folder: Path, *lines: str) -> str:
    """Return a shell script to give as --worker-python."""
    path = folder / "python"
    path.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
    path.chmod(0o755)
    return str(path)


def runtimes(agent: Agent) -> list[str]:
    return [runtime.name for runtime in agent.describe().runtimes]


def assert_refused(agent: Agent, sha256: str, *messages: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(agent.watch(sha256))
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    for message in messages:
        assert message in caught.value.details()


def test_program_that_is_no_python_is_reported_to_every_job(tmp_path: Path):
    with running_agent(tmp_path, "--worker-python", "/bin/echo") as agent:
        assert runtimes(agent) == []
        sha256 = agent.upload(conv_model())
        for _ in range(2):
            assert_refused(
                agent,
                sha256,
                "the worker under '/bin/echo' printed '/",
                "check that --worker-python is a Python",
            )


def test_long_output_of_no_worker_is_cut(tmp_path: Path):
    python = python_script(tmp_path, f"echo {'x' * 5000}")
    with running_agent(tmp_path / "state", "--worker-python", python) as agent:
        assert_refused(
            agent, agent.upload(conv_model()), f"printed '{'x' * 300}' where an answer was expected"
        )


def test_agent_measures_again_once_its_python_no_longer_prints(tmp_path: Path):
    customisation = tmp_path / "sitecustomize.py"
    customisation.write_text("print('hello from', 'this site')\nprint('and more', flush=True)\n")
    python = python_script(tmp_path, f"PYTHONPATH='{tmp_path}' exec '{sys.executable}' \"$@\"")
    with running_agent(tmp_path / "state", "--worker-python", python) as agent:
        sha256 = agent.upload(conv_model())
        assert_refused(agent, sha256, f"the worker under '{python}' printed 'hello from this site'")
        customisation.unlink()
        assert agent.measure(sha256).measurement.latency.samples >= 64
        assert runtimes(agent)[0] == "onnx"


def test_unforeseen_failure_to_start_a_worker_is_reported_to_every_job(tmp_path: Path):
    python = python_script(tmp_path, 'echo \'{"event": "ready"}\'')
    with running_agent(tmp_path / "state", "--worker-python", python) as agent:
        assert runtimes(agent) == []
        sha256 = agent.upload(conv_model())
        for _ in range(2):
            assert_refused(agent, sha256, f"the agent failed to start a worker under '{python}'")


def test_no_other_worker_runs_while_a_model_is_timed(tmp_path: Path):
    with running_agent(tmp_path) as agent:
        sha256 = agent.upload(conv_model())
        timed = agent.watch(sha256)
        next(timed)
        waiting = agent.watch(sha256)
        next(waiting)
        until_measuring(timed)
        (before,) = agent.workers()
        until(timed, "result")
        until_measuring(waiting)
        (after,) = agent.workers()
        assert not before.is_running()
        assert after.pid != before.pid


def test_stopping_agent_starts_no_further_worker(tmp_path: Path):
    starts = tmp_path / "starts"
    python = python_script(tmp_path, f"echo \"$1\" >> '{starts}'", f"exec '{sys.executable}' \"$@\"")
    with running_agent(tmp_path / "state", "--worker-python", python) as agent:
        until_measuring(agent.watch(agent.upload(conv_model()), spec(mode=FULL)))
        agent.process.terminate()
        assert agent.process.wait(CALL_LIMIT_S) == 0
    assert starts.read_text().count("worker.py") == 1


@pytest.fixture
def let_import(tmp_path: Path) -> Callable[[], object]:
    """Return what lets one worker of `held_python` import its runtime, once it is about to."""
    os.mkfifo(tmp_path / "gate")
    return lambda: (tmp_path / "gate").write_text("go\n")


@pytest.fixture
def held_python(tmp_path: Path) -> str:
    """A Python whose workers wait before they import their runtime."""
    return python_script(
        tmp_path,
        f"case \"$1\" in *worker.py) read line < '{tmp_path / 'gate'}' ;; esac",
        f"exec '{sys.executable}' \"$@\"",
    )


def test_caller_is_told_to_try_again_while_the_runtime_is_imported(
    tmp_path: Path, held_python: str, let_import: Callable[[], object]
):
    with running_agent(tmp_path / "state", "--worker-python", held_python) as agent:
        with pytest.raises(grpc.RpcError) as caught:
            agent.devices.DescribeDevice(device_pb2.DescribeDeviceRequest(), timeout=CALL_LIMIT_S)
        let_import()
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert caught.value.details() == "the agent is still importing its runtime; try again"
        assert runtimes(agent)[0] == "onnx"


@pytest.mark.parametrize("killed", [False, True], ids=["imports", "is killed"])
def test_worker_imports_its_runtime_while_its_job_is_at_the_gate(
    tmp_path: Path, held_python: str, let_import: Callable[[], object], killed: bool
):
    options = ("--worker-python", held_python, "--gate-limit-s", "3")
    with running_agent(tmp_path / "state", *options) as agent:
        let_import()
        sha256 = agent.upload(conv_model())
        agent.measure(sha256)
        following = agent.watch(sha256)
        assert until(following, "progress").progress.phase == benchmark_pb2.BENCHMARK_PHASE_GATE
        if killed:
            # Whoever is short of memory may: another worker takes its place.
            (worker,) = agent.workers()
            worker.kill()
            worker.wait(CALL_LIMIT_S)
        let_import()
        assert until(following, "result").result.measurement.latency.samples >= 64


def test_worker_starts_once_there_is_a_folder_for_its_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    scratch = tmp_path / "scratch"
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    measurer = Measurer(
        MeasuringConfig(worker_python=sys.executable, job_timeout_s=30), Baselines(), TimedWindow()
    )
    with pytest.raises(RuntimeUnavailableError, match="No such file or directory; check that TMPDIR"):
        measurer.prepare()
    assert "check that TMPDIR" in measurer.runtimes().missing[0].reason
    scratch.mkdir()
    measurer.prepare()
    measurer.release()
    assert measurer.runtimes().available[0].library == "onnxruntime"


def test_secrets_of_the_environment_stay_with_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    secrets = ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "aws_access_key_id", "DB_PASSWORD", "OPENAI_API_KEY")
    for name in (*secrets, "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "PASSIVE")
    with running_agent(tmp_path) as agent:
        agent.describe()
        (worker,) = agent.workers()
        seen = worker.environ()
    assert seen["OMP_WAIT_POLICY"] == "PASSIVE"
    assert not set(secrets) & set(seen)
