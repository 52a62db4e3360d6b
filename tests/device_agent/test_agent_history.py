import contextlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from agent_harness import CALL_LIMIT_S, Agent, conv_model, running_agent
from edgenas.v1 import benchmark_pb2, measurement_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from device_agent.errors import HistoryError, InvalidRequestError, StartupError
from device_agent.serving.storage.history import HISTORY_FILE, History, HistoryEntry

MIB = 1 << 20
BIG = bytes(MIB // 10)
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


# What an agent of the first version wrote.
FORMAT_1 = """
CREATE TABLE benchmarks (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id TEXT NOT NULL UNIQUE,
    model_sha256 TEXT NOT NULL,
    runtime TEXT NOT NULL,
    started_at REAL NOT NULL,
    request BLOB NOT NULL,
    summary BLOB NOT NULL,
    record BLOB NOT NULL
);
CREATE INDEX benchmarks_by_model ON benchmarks (model_sha256);
PRAGMA user_version = 1;
"""


def entry(
    number: int,
    *,
    model: str = "m",
    name: str = "",
    runtime: str = "onnx",
    flagged: bool = False,
    record: bytes = b"record",
) -> HistoryEntry:
    return HistoryEntry(
        request_id=f"id-{number}",
        model_sha256=model,
        model_name=name,
        runtime=runtime,
        started_at=NOON + timedelta(minutes=number),
        flagged=flagged,
        request=b"request",
        summary=b"%d" % number,
        record=record,
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


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"model_sha256": "a"}, (b"2", b"0")),
        ({"model_name": "net"}, (b"3", b"1")),
        ({"runtime": "onnx"}, (b"3", b"1", b"0")),
        ({"started_after": NOON + timedelta(minutes=1)}, (b"3", b"2", b"1")),
        ({"started_before": NOON + timedelta(minutes=1)}, (b"0",)),
        ({"started_after": NOON, "started_before": NOON + timedelta(minutes=3)}, (b"2", b"1", b"0")),
        ({"flagged": True}, (b"3", b"2")),
        ({"flagged": False}, (b"1", b"0")),
        ({"flagged": True, "model_name": "net", "model_sha256": "b", "runtime": "onnx"}, (b"3",)),
        ({"model_name": "net%"}, ()),
    ],
)
def test_pages_are_filtered(history, filters, found):
    history.add(entry(0, model="a"))
    history.add(entry(1, model="b", name="net"))
    history.add(entry(2, model="a", runtime="other", flagged=True))
    history.add(entry(3, model="b", name="net", flagged=True))
    assert pages(history, 9, **filters) == [found]


def test_pages_of_a_filtered_list_go_on_where_the_last_one_ended(history):
    for number in range(6):
        history.add(entry(number, flagged=number % 2 == 0))
    first = history.page(size=2, flagged=True)
    assert first.summaries == (b"4", b"2")
    history.add(entry(6, flagged=True))
    assert history.page(size=2, token=first.next_token, flagged=True).summaries == (b"0",)


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


def limited(path: Path, limit_bytes: int | None = MIB) -> contextlib.closing[History]:
    return contextlib.closing(History(path, limit_bytes=limit_bytes))


def numbers(history: History) -> list[int]:
    return [int(summary) for summary in history.page(size=500).summaries]


def file_bytes(path: Path) -> int:
    """Return the size of a closed history; what SQLite keeps beside an open one is gone then."""
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    return path.stat().st_size


def test_oldest_benchmarks_make_room_for_the_newest(tmp_path):
    path = tmp_path / HISTORY_FILE
    with limited(path) as history:
        for number in range(40):
            history.add(entry(number, record=BIG))
        # Ten fit into 1 MiB but for what is needed to find them.
        assert numbers(history) == list(range(39, 30, -1))
        assert history.find("id-30") is None
        assert history.find("id-31") == (b"request", BIG)
    # One more was there before the oldest went, and its pages wait for the next.
    assert MIB - len(BIG) < file_bytes(path) < MIB + len(BIG)


def test_newest_benchmark_stays_however_large_it_is(tmp_path):
    with limited(tmp_path / HISTORY_FILE) as history:
        history.add(entry(0))
        history.add(entry(1, record=bytes(2 * MIB)))
        assert numbers(history) == [1]


def test_history_without_a_limit_keeps_all(tmp_path):
    with limited(tmp_path / HISTORY_FILE, None) as history:
        for number in range(40):
            history.add(entry(number, record=BIG))
        assert len(numbers(history)) == 40


def test_removed_benchmarks_do_not_shift_later_pages(tmp_path):
    with limited(tmp_path / HISTORY_FILE) as history:
        for number in range(9):
            history.add(entry(number, record=BIG))
        first = history.page(size=3)
        assert first.summaries == (b"8", b"7", b"6")
        for number in range(9, 13):
            history.add(entry(number, record=BIG))
        assert numbers(history)[-1] == 4
        second = history.page(size=3, token=first.next_token)
        assert (second.summaries, second.next_token) == ((b"5", b"4"), "")
        for number in range(13, 30):
            history.add(entry(number, record=BIG))
        assert history.page(size=3, token=first.next_token).summaries == ()


def test_lower_limit_shrinks_the_file_at_the_next_start(tmp_path):
    path = tmp_path / HISTORY_FILE
    with limited(path, None) as history:
        for number in range(40):
            history.add(entry(number, record=BIG))
    assert file_bytes(path) > 3 * MIB
    with limited(path) as history:
        assert numbers(history) == list(range(39, 30, -1))
    assert file_bytes(path) <= MIB


def test_file_of_an_older_agent_stops_growing(tmp_path):
    path = tmp_path / HISTORY_FILE
    old_history(path, [b"net"] * 3)
    with contextlib.closing(History(path, labels_in, limit_bytes=MIB)) as history:
        for number in range(10, 50):
            history.add(entry(number, record=BIG))
        assert numbers(history) == list(range(49, 40, -1))
    assert file_bytes(path) < MIB + len(BIG)


def test_benchmark_is_kept_although_older_ones_cannot_be_removed(tmp_path, caplog):
    with limited(tmp_path / HISTORY_FILE) as history:
        history.add(entry(0))
        history._database.execute(
            "CREATE TRIGGER stubborn BEFORE DELETE ON benchmarks BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        history.add(entry(1, record=bytes(2 * MIB)))
        assert numbers(history) == [1, 0]
        assert "cannot remove the oldest benchmarks from the history" in caplog.text
        history._database.execute("DROP TRIGGER stubborn")
        history.add(entry(2))
        assert numbers(history) == [2]


def test_agent_keeps_its_history_within_its_limit(tmp_path):
    with limited(tmp_path / HISTORY_FILE, None) as history:
        for number in range(20):
            record = benchmark_pb2.BenchmarkRecord(request_id=f"id-{number}").SerializeToString()
            history.add(replace(entry(number, record=BIG), summary=record))
    with running_agent(tmp_path, "--history-limit-mb", "1") as agent:
        listed = agent.benchmarks.ListBenchmarks(
            benchmark_pb2.ListBenchmarksRequest(), timeout=CALL_LIMIT_S
        ).benchmarks
        assert [record.request_id for record in listed] == [f"id-{number}" for number in range(19, 10, -1)]


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
    with pytest.raises(StartupError, match="has format 99, this agent reads 2; run the newer agent"):
        History(path)


def old_history(path: Path, summaries: Sequence[bytes]) -> None:
    """Write a history of format 1."""
    database = sqlite3.connect(path)
    database.executescript(FORMAT_1)
    database.executemany(
        "INSERT INTO benchmarks (request_id, model_sha256, runtime, started_at, request, summary, record)"
        " VALUES (?, 'm', 'onnx', ?, x'01', ?, x'02')",
        [(f"id-{number}", NOON.timestamp() + number, summary) for number, summary in enumerate(summaries)],
    )
    database.commit()
    database.close()


def labels_in(summary: bytes) -> tuple[str, bool]:
    """Return what a summary of these tests tells: a name, with a `!` behind it where there are flags."""
    text = summary.decode()
    return text.rstrip("!"), text.endswith("!")


def test_older_history_is_upgraded(tmp_path):
    path = tmp_path / HISTORY_FILE
    old_history(path, [b"net", b"net!", b"other!"])
    with contextlib.closing(History(path, labels_in)) as upgraded:
        assert upgraded.page(size=9, flagged=True).summaries == (b"other!", b"net!")
        assert upgraded.page(size=9, flagged=False, model_name="net").summaries == (b"net",)
        assert upgraded.find("id-1") == (b"\x01", b"\x02")
        upgraded.add(entry(3, name="net"))
        assert upgraded.page(size=9, model_name="net").summaries == (b"3", b"net!", b"net")
    with contextlib.closing(History(path)) as reopened:
        assert reopened.page(size=1, token="2").summaries == (b"net",)


def test_upgraded_and_new_histories_have_one_layout(tmp_path, history):
    path = tmp_path / "old.sqlite"
    old_history(path, [])
    columns = "SELECT name, type, \"notnull\" FROM pragma_table_info('benchmarks')"
    with contextlib.closing(History(path, labels_in)) as upgraded:
        assert upgraded._database.execute(columns).fetchall() == history._database.execute(columns).fetchall()


def test_upgrade_that_fails_leaves_the_older_history_as_it_was(tmp_path):
    path = tmp_path / HISTORY_FILE
    old_history(path, [b"net", b"\xff"])
    with pytest.raises(StartupError, match="cannot read the history"):
        History(path, labels_in)
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA user_version").fetchone() == (1,)
    assert database.execute("SELECT * FROM benchmarks WHERE request_id = 'id-0'").fetchall() == [
        (1, "id-0", "m", "onnx", NOON.timestamp(), b"\x01", b"net", b"\x02")
    ]
    database.close()


def test_older_history_that_nobody_can_upgrade_is_a_clear_error(tmp_path):
    path = tmp_path / HISTORY_FILE
    old_history(path, [b"net"])
    with pytest.raises(StartupError, match="has format 1, which the agent brings to 2 when it starts"):
        History(path)


def test_older_agent_that_still_runs_can_go_on_writing(tmp_path):
    path = tmp_path / HISTORY_FILE
    old_history(path, [b"net"])
    with contextlib.closing(History(path, labels_in)) as upgraded:
        database = sqlite3.connect(path)
        database.execute(
            "INSERT INTO benchmarks (request_id, model_sha256, runtime, started_at, request, summary, record)"
            " VALUES ('late', 'm', 'onnx', 0, x'01', 'late', x'02')"
        )
        database.commit()
        database.close()
        assert upgraded.find("late") == (b"\x01", b"\x02")
        assert [upgraded.page(size=9, flagged=flagged).summaries for flagged in (True, False)] == [
            (),
            (b"net",),
        ]


def test_agent_upgrades_its_history(tmp_path):
    summaries = []
    for name, flags in (("plain", []), ("noisy", [measurement_pb2.MEASUREMENT_FLAG_NOISE])):
        record = benchmark_pb2.BenchmarkRecord(request_id=name, model_name=name)
        record.measurement.flags.extend(flags)
        summaries.append(record.SerializeToString())
    old_history(tmp_path / HISTORY_FILE, summaries)
    with running_agent(tmp_path) as agent:
        request = benchmark_pb2.ListBenchmarksRequest(flagged=True)
        (listed,) = agent.benchmarks.ListBenchmarks(request, timeout=CALL_LIMIT_S).benchmarks
        assert listed.request_id == "noisy"
        request = benchmark_pb2.ListBenchmarksRequest(model_name="plain")
        (listed,) = agent.benchmarks.ListBenchmarks(request, timeout=CALL_LIMIT_S).benchmarks
        assert listed.request_id == "plain"


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
    assert list(listed.groups_ms) == []
    assert list(listed.canary_turns) == []


def test_agent_filters_what_it_measured(agent: Agent):
    sha256 = agent.upload(conv_model(seed=12))
    between = Timestamp()
    agent.measure(sha256, request_id="filtered-0", name="first name")
    between.GetCurrentTime()
    second = agent.measure(sha256, request_id="filtered-1", name="second name")

    def listed(**filters) -> list[str]:
        request = benchmark_pb2.ListBenchmarksRequest(model_sha256=sha256, **filters)
        answer = agent.benchmarks.ListBenchmarks(request, timeout=CALL_LIMIT_S)
        return [record.request_id for record in answer.benchmarks]

    assert listed(model_name="first name") == ["filtered-0"]
    assert listed(started_after=between) == ["filtered-1"]
    assert listed(started_before=between) == ["filtered-0"]
    # Whether this machine was quiet nobody knows beforehand.
    assert ("filtered-1" in listed(flagged=True)) == bool(second.measurement.flags)
    assert ("filtered-1" in listed(flagged=False)) == (not second.measurement.flags)


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
        (
            benchmark_pb2.ListBenchmarksRequest(started_after=Timestamp(seconds=1 << 40)),
            "started_after is no time",
        ),
        (
            benchmark_pb2.ListBenchmarksRequest(started_before=Timestamp(nanos=-1)),
            "started_before is no time",
        ),
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
