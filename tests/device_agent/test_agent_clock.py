"""A board's clock that is set, far, while the agent works."""

from pathlib import Path

import grpc
import pytest
from agent_harness import CALL_LIMIT_S, Agent, conv_model, until_measuring
from edgenas.v1 import benchmark_pb2
from paired_agents import paired_agent

YEAR_S = 365 * 86400


# Has Python's clock be as far ahead as a file says. What only counts what passes stays as it is, as on a board whose clock is
# set; so does what is below Python, TLS for one.
CUSTOMIZE = """
import datetime, pathlib, time
real = time.time
def now():
    return real() + float(pathlib.Path({file!r}).read_text())
class Set(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(now(), tz)
time.time, time.time_ns, datetime.datetime = now, lambda: int(1e9 * now()), Set
"""


class Clock:
    """The clock of an agent."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0)

    def set(self, ahead_s: int) -> None:
        # The agent reads it at any moment, and must find a number there.
        written = self._file.with_suffix(".written")
        written.write_text(str(ahead_s))
        written.replace(self._file)


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    folder = tmp_path / "customize"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(CUSTOMIZE.format(file=str(tmp_path / "clock")))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return Clock(tmp_path / "clock")


def refused(agent: Agent) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        agent.describe()
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    return caught.value.details()


@pytest.mark.parametrize("years", [-1, 20], ids=["back", "ahead"])
def test_clock_that_is_set_in_a_job_changes_none_of_its_figures(tmp_path: Path, clock: Clock, years: int):
    # Beyond its end a certificate is refused; the caller of this test has one for longer.
    with paired_agent(tmp_path / "state", certificate_days=366 * 30) as (agent, _):
        running = agent.watch(agent.upload(conv_model()), request_id="over-the-change")
        until_measuring(running)
        clock.set(years * YEAR_S)
        *_, last = running
        took_s = (last.result.finished_at.ToDatetime() - last.result.started_at.ToDatetime()).total_seconds()
        assert 1 < took_s < 60
        assert last.result.measurement.latency.samples >= 64
        # Newest first, whatever the dates say.
        agent.measure(agent.upload(conv_model(seed=1)), request_id="after-it")
        listed = agent.benchmarks.ListBenchmarks(benchmark_pb2.ListBenchmarksRequest(), timeout=CALL_LIMIT_S)
        assert [row.request_id for row in listed.benchmarks] == ["after-it", "over-the-change"]


def test_clock_beyond_a_certificate_is_named_and_when_it_is_right_again_all_is_well(
    tmp_path: Path, clock: Clock
):
    with paired_agent(tmp_path / "state") as (agent, _):
        assert agent.describe().hostname
        clock.set(YEAR_S)
        message = refused(agent)
        clock.set(0)
        assert agent.describe().hostname
    assert "expired at" in message
    assert "this board's clock says" in message
