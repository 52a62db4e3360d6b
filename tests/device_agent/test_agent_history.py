import json
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from agent_harness import CALL_LIMIT_S, Agent, conv_model
from edgenas.v1 import benchmark_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from device_agent.errors import HistoryError, InvalidRequestError, StartupError
from device_agent.serving.history import HISTORY_FILE, History, HistoryEntry

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def entry(number: int, *, model: str = "m", runtime: str = "onnx") -> HistoryEntry:
    return HistoryEntry(
        request_id=f"id-{number}",
        model_sha256=model,
        runtime=runtime,
        started_at=NOON + timedelta(minutes=number),
        request=b"request",
        summary=b"%d" % number,
        record=b"record",
    )


@pytest.fixture
def history(tmp_path):
    opened = History(tmp_path / HISTORY_FILE)
    yield opened
    opened.close()


def pages(history: History, size: int, **filters) -> list[tuple[bytes, ...]]:
    found = []
    page = history.page(size=size, **filters)
    found.append(page.summaries)
    while page.next_token:
        page = history.page(size=size, token=page.next_token, **filters)
        found.append(page.summaries)
    return found


def test_pages_are_newest_first(history):
    for number in range(5):
        history.add(entry(number))
    assert pages(history, 2) == [(b"4", b"3"), (b"2", b"1"), (b"0",)]


def test_full_last_page_has_no_token(history):
    for number in range(4):
        history.add(entry(number))
    assert pages(history, 2) == [(b"3", b"2"), (b"1", b"0")]


def test_new_benchmarks_do_not_shift_later_pages(history):
    for number in range(4):
        history.add(entry(number))
    first = history.page(size=2)
    history.add(entry(4))
    assert history.page(size=2, token=first.next_token).summaries == (b"1", b"0")


def test_pages_are_filtered(history):
    history.add(entry(0, model="a"))
    history.add(entry(1, model="b"))
    history.add(entry(2, model="a", runtime="other"))
    assert pages(history, 9, model_sha256="a") == [(b"2", b"0")]
    assert pages(history, 9, runtime="onnx") == [(b"1", b"0")]
    assert pages(history, 9, started_after=NOON + timedelta(minutes=1)) == [(b"2", b"1")]


@pytest.mark.parametrize("token", ["x", "-1", "9" * 19, "²"])
def test_foreign_page_token_is_refused(history, token):
    with pytest.raises(InvalidRequestError, match="page_token"):
        history.page(size=1, token=token)


def test_entry_is_found_after_reopening(history, tmp_path):
    history.add(entry(7))
    reopened = History(tmp_path / HISTORY_FILE)
    found = reopened.find("id-7")
    reopened.close()
    assert found == (b"request", b"record")


def test_corrupt_file_is_a_clear_error(tmp_path):
    path = tmp_path / HISTORY_FILE
    path.write_bytes(b"no database " * 1000)
    with pytest.raises(StartupError, match=r"cannot read the history .* move the file away"):
        History(path)


def test_newer_format_is_a_clear_error(tmp_path):
    path = tmp_path / HISTORY_FILE
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(StartupError, match="has format 99, this agent reads 1"):
        History(path)


def test_locked_file_is_a_clear_error(history, tmp_path, monkeypatch):
    history._database.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(tmp_path / HISTORY_FILE, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(HistoryError, match="database is locked"):
        history.add(entry(1))
    other.close()


def test_agent_lists_what_it_measured(agent: Agent):
    sha256 = agent.upload(conv_model(seed=11))
    before = Timestamp()
    before.GetCurrentTime()
    records = [agent.measure(sha256, request_id=f"listed-{number}") for number in range(2)]
    request = benchmark_pb2.ListBenchmarksRequest(
        model_sha256=sha256, runtime="onnx", started_after=before, page_size=1
    )
    first = agent.benchmarks.ListBenchmarks(request, timeout=CALL_LIMIT_S)
    request.page_token = first.next_page_token
    second = agent.benchmarks.ListBenchmarks(request, timeout=CALL_LIMIT_S)
    assert [first.benchmarks[0].request_id, second.benchmarks[0].request_id] == ["listed-1", "listed-0"]
    assert second.next_page_token == ""
    listed = second.benchmarks[0].measurement
    assert listed.latency == records[0].measurement.latency
    assert list(listed.samples_ms) == []


def test_agent_gets_one_benchmark_with_its_samples(agent: Agent, model: str):
    record = agent.measure(model, request_id="to-get")
    request = benchmark_pb2.GetBenchmarkRequest(request_id="to-get")
    assert agent.benchmarks.GetBenchmark(request, timeout=CALL_LIMIT_S) == record


def test_agent_does_not_find_an_unknown_benchmark(agent: Agent):
    with pytest.raises(grpc.RpcError) as caught:
        agent.benchmarks.GetBenchmark(benchmark_pb2.GetBenchmarkRequest(request_id="nobody"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (benchmark_pb2.ListBenchmarksRequest(page_size=501), "ask for at most 500"),
        (benchmark_pb2.ListBenchmarksRequest(page_token="x"), "page_token 'x' is unknown"),
        (benchmark_pb2.ListBenchmarksRequest(model_sha256="x"), "sha256 is 'x'"),
    ],
)
def test_agent_checks_a_list_request(agent: Agent, request_, message):
    with pytest.raises(grpc.RpcError) as caught:
        agent.benchmarks.ListBenchmarks(request_)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert message in caught.value.details()


def test_command_shows_the_history_while_the_agent_runs(agent: Agent, model: str):
    record = agent.measure(model, request_id="shown", name="a name")
    command = [sys.executable, "-m", "device_agent", "history", "--state-dir", str(agent.state_dir)]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    newest = json.loads(
        subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout
    )[0]
    heading, row = table.splitlines()[:2]
    assert heading.split()[:2] == ["started", "(UTC)"]
    assert "shown" in row
    assert "a name" in row
    assert newest["request_id"] == "shown"
    assert newest["measurement"]["latency"]["median_ms"] == record.measurement.latency.median_ms
