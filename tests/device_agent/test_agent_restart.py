"""What becomes of accepted jobs when the agent ends, in whichever way, and comes back."""

import signal
import time
from pathlib import Path

import grpc
import pytest
from agent_harness import (
    CALL_LIMIT_S,
    FULL,
    Agent,
    conv_model,
    running_agent,
    spec,
    until_measuring,
)
from edgenas.v1 import benchmark_pb2

from device_agent.serving.storage.journal import JOURNAL_FILE, Journal


def measured(agent: Agent, request_id: str) -> benchmark_pb2.BenchmarkRecord:
    """Return a record that nobody asks the agent to measure, once it is there."""
    wanted = benchmark_pb2.GetBenchmarkRequest(request_id=request_id)
    deadline_s = time.monotonic() + CALL_LIMIT_S
    while True:
        try:
            return agent.benchmarks.GetBenchmark(wanted, timeout=CALL_LIMIT_S)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND or time.monotonic() > deadline_s:
                raise
        time.sleep(0.1)


def busy(agent: Agent) -> str:
    """Have an agent measure `running` while `waiting` waits, and return the model's sha256."""
    sha256 = agent.upload(conv_model())
    running = agent.watch(sha256, spec(mode=FULL), request_id="running")
    until_measuring(running)
    next(agent.watch(sha256, request_id="waiting"))
    return sha256


def test_killed_agent_marks_the_job_under_way_as_lost_and_goes_on_with_the_rest(tmp_path: Path):
    with running_agent(tmp_path) as agent:
        sha256 = busy(agent)
        agent.kill()
    with running_agent(tmp_path) as agent:
        assert measured(agent, "waiting").measurement.latency.samples >= 64
        (told,) = agent.watch(sha256, spec(mode=FULL), request_id="running")
        assert told.failure.reason == benchmark_pb2.FAILURE_REASON_LOST
        assert "ask again" in told.failure.message
        # Told once: its id is free again.
        assert agent.measure(sha256, request_id="running").request_id == "running"


def test_lost_job_is_remembered_until_somebody_asks(tmp_path: Path):
    with running_agent(tmp_path) as agent:
        sha256 = busy(agent)
        agent.kill()
    with running_agent(tmp_path) as agent:
        measured(agent, "waiting")
        agent.kill()
    with running_agent(tmp_path) as agent:
        assert not agent.cancel("running"), "it has ended, and is not unknown"
        (told,) = agent.watch(sha256, spec(mode=FULL), request_id="running")
        assert told.failure.reason == benchmark_pb2.FAILURE_REASON_LOST


def test_stopped_agent_begins_its_jobs_anew(tmp_path: Path):
    with running_agent(tmp_path) as agent:
        busy(agent)
        agent.process.send_signal(signal.SIGTERM)
        assert agent.process.wait(CALL_LIMIT_S) == 0
    with running_agent(tmp_path) as agent:
        assert measured(agent, "running").spec.mode == FULL
        assert measured(agent, "waiting")


def test_job_whose_model_has_gone_is_lost(tmp_path: Path):
    with running_agent(tmp_path) as agent:
        sha256 = busy(agent)
        agent.kill()
    for model in (tmp_path / "models").iterdir():
        model.unlink()
    with running_agent(tmp_path) as agent:
        assert agent.upload(conv_model()) == sha256
        (told,) = agent.watch(sha256, request_id="waiting")
        assert told.failure.reason == benchmark_pb2.FAILURE_REASON_LOST


def test_job_that_was_measured_but_not_noted_is_finished(tmp_path: Path):
    """The agent may end between the two files: the history is the one that counts."""
    with running_agent(tmp_path) as agent:
        sha256 = agent.upload(conv_model())
        record = agent.measure(sha256, request_id="done")
    journal = Journal(tmp_path / JOURNAL_FILE)
    asked = benchmark_pb2.RunBenchmarkRequest(request_id="done", model_sha256=sha256, spec=spec())
    journal.add("done", "", asked.SerializeToString())
    journal.close()
    with running_agent(tmp_path) as agent:
        assert agent.measure(sha256, request_id="done") == record
    journal = Journal(tmp_path / JOURNAL_FILE)
    assert journal.entries() == []
    journal.close()


def test_corrupt_journal_is_refused(tmp_path: Path):
    (tmp_path / "jobs.sqlite").write_bytes(b"no database " * 100)
    with (
        pytest.raises(RuntimeError, match="move the file away to start without the jobs that wait"),
        running_agent(tmp_path),
    ):
        pass
