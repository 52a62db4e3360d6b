"""What the agent remembers of its board."""

import json
import logging
from pathlib import Path

import pytest
from sensor_trees import FakeTime

from device_agent.measuring.baselines import BASELINES_FILE, Baselines, in_fast_state


def learn(baselines: Baselines, *latencies_ms: float, key: str = "1 thread") -> None:
    for latency_ms in latencies_ms:
        baselines.learn_canary(key, latency_ms)


def test_board_that_was_never_measured_on_has_no_baseline():
    assert Baselines().canary_ms("1 thread") is None
    assert Baselines().clock_mhz("1 thread") is None


def test_speed_is_the_fast_tenth_of_what_was_seen():
    baselines = Baselines()
    learn(baselines, *(2.0 + 0.01 * (7 * number % 11) for number in range(11)))
    assert baselines.canary_ms("1 thread") == pytest.approx(2.01)


def test_slower_state_of_the_board_is_not_its_speed():
    """Nor is anything between the two states, from the second reading on."""
    baselines = Baselines()
    learn(baselines, 3.0)
    assert baselines.canary_ms("1 thread") == 3.0
    learn(baselines, 2.0)
    assert baselines.canary_ms("1 thread") == 2.0
    learn(baselines, 2.9, 2.02, 3.1, 2.04, 3.0)
    assert baselines.canary_ms("1 thread") == pytest.approx(2.004)


def test_readings_of_the_fastest_state_are_told_from_others():
    assert in_fast_state([2.0, 2.8, 2.1, 2.19, 2.21]) == [2.0, 2.1, 2.19, 2.21]
    assert in_fast_state([2.9, 2.0, 2.8, 2.1, 2.8]) == [2.0, 2.1]
    assert in_fast_state([3.0]) == [3.0]


def test_one_lucky_reading_of_many_is_no_state():
    assert in_fast_state([2.0, 1.0, 2.0, 2.0, 2.0]) == [2.0, 1.0, 2.0, 2.0, 2.0]


def test_three_quarters_of_disturbed_jobs_leave_the_speed_where_it_is():
    baselines = Baselines()
    learn(baselines, 2.0, 9.0, 9.5, 2.0, 12.0, 9.0, 10.0, 9.0, 2.0)
    assert baselines.canary_ms("1 thread") == 2.0


def test_clock_is_the_upper_quarter_of_what_was_seen():
    baselines = Baselines()
    for clock_mhz in (1500.0, 600.0, 1400.0, 1300.0, 1200.0):
        baselines.learn_clock("1 thread", clock_mhz)
    assert baselines.clock_mhz("1 thread") == 1400.0


def test_keys_have_baselines_of_their_own():
    baselines = Baselines()
    learn(baselines, 2.0)
    learn(baselines, 1.0, key="2 threads")
    baselines.learn_clock("2 threads", 1500.0)
    assert (baselines.canary_ms("1 thread"), baselines.canary_ms("2 threads")) == (2.0, 1.0)
    assert baselines.clock_mhz("1 thread") is None


@pytest.mark.parametrize(("slower_ms", "last_ms"), [(2.5, 2.6), (2.05, 2.05)], ids=["much", "a little"])
def test_board_that_became_slower_for_good_has_a_new_speed(slower_ms: float, last_ms: float):
    """If only by so much that each of its jobs would be flagged."""
    baselines = Baselines()
    learn(baselines, *[2.0] * 30, *[slower_ms] * 9)
    assert baselines.canary_ms("1 thread") == 2.0
    learn(baselines, last_ms)
    assert baselines.canary_ms("1 thread") == slower_ms


def test_board_that_wanders_within_the_bound_keeps_its_speed():
    baselines = Baselines()
    learn(baselines, *[2.0] * 10, *[2.04] * 20)
    assert baselines.canary_ms("1 thread") == 2.0


def test_board_that_became_faster_has_a_new_speed():
    baselines = Baselines()
    learn(baselines, *[2.0] * 30, *[1.5] * 10)
    assert baselines.canary_ms("1 thread") == 1.5


def test_last_forty_readings_are_remembered():
    baselines = Baselines()
    learn(baselines, *map(float, range(10_000, 10_080)))
    # A tenth of the way from 10,040 to 10,079.
    assert baselines.canary_ms("1 thread") == pytest.approx(10_043.9)


def test_what_was_learnt_survives_the_agent(tmp_path: Path):
    path = tmp_path / BASELINES_FILE
    first = Baselines(path)
    learn(first, 2.04, 2.0, 2.08)
    first.learn_clock("1 thread", 1500.0)
    first.idle_temperature_c(41.5)
    first.note_work()
    second = Baselines(path)
    assert second.canary_ms("1 thread") == pytest.approx(2.008)
    assert second.clock_mhz("1 thread") == 1500.0
    assert second.idle_temperature_c(60.0) == 41.5
    assert [entry.name for entry in tmp_path.iterdir()] == [BASELINES_FILE]


KEPT = {"readings": {"canary_ms 1 thread": [2.0]}, "idle_temperature_c": 40.0, "worked_at_s": 0.0}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\0" * 100,
        json.dumps(KEPT)[:40],
        "[]",
        json.dumps(KEPT | {"readings": {"canary_ms 1 thread": ["fast"]}}),
        json.dumps(KEPT | {"readings": [2.0]}),
        json.dumps(KEPT | {"idle_temperature_c": "warm"}),
        json.dumps(KEPT | {"worked_at_s": [1]}),
        json.dumps({"readings": {}}),
    ],
    ids=["empty", "NULs", "cut off", "list", "text", "no keys", "temperature", "time", "fields missing"],
)
def test_corrupt_file_is_started_anew_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
):
    path = tmp_path / BASELINES_FILE
    path.write_text(content)
    baselines = Baselines(path)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"cannot read the baselines in '{path}', learning them anew: ")
    assert baselines.canary_ms("1 thread") is None
    assert baselines.idle_temperature_c(55.0) == 55.0
    learn(baselines, 7.0)
    assert Baselines(path).canary_ms("1 thread") == 7.0
    assert len(caplog.records) == 1


def test_good_file_is_read_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / BASELINES_FILE
    path.write_text(json.dumps(KEPT))
    assert Baselines(path).canary_ms("1 thread") == 2.0
    assert caplog.records == []


def test_disk_that_cannot_be_written_costs_no_measurement(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / BASELINES_FILE
    baselines = Baselines(path)
    learn(baselines, 3.0)
    assert baselines.canary_ms("1 thread") == 3.0
    assert caplog.messages == [f"cannot keep the baselines in '{path}': Not a directory"]


def test_file_that_cannot_be_replaced_leaves_no_partial_one(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / BASELINES_FILE
    (path / "in the way").mkdir(parents=True)
    baselines = Baselines(path)
    learn(baselines, 3.0)
    assert baselines.canary_ms("1 thread") == 3.0
    assert [entry.name for entry in tmp_path.iterdir()] == [BASELINES_FILE]
    assert caplog.messages[-1].startswith(f"cannot keep the baselines in '{path}': ")


class Board:
    """A board with a clock on the wall."""

    def __init__(self, path: Path | None = None) -> None:
        self.time = FakeTime()
        self.baselines = Baselines(path, clock=self.time.clock)

    def work(self) -> None:
        self.baselines.note_work()


def test_board_that_just_worked_keeps_its_idle_temperature():
    board = Board()
    assert board.baselines.idle_temperature_c(40.0) == 40.0
    board.work()
    board.time.wait(299.0)
    assert board.baselines.idle_temperature_c(47.0) == 40.0


def test_board_that_has_rested_has_the_idle_temperature_of_a_warmer_day():
    board = Board()
    board.baselines.idle_temperature_c(40.0)
    board.work()
    board.time.wait(300.0)
    assert board.baselines.idle_temperature_c(47.0) == 47.0
    board.work()
    assert board.baselines.idle_temperature_c(60.0) == 47.0


def test_cooler_board_lowers_the_idle_temperature_at_once():
    board = Board()
    board.baselines.idle_temperature_c(40.0)
    board.work()
    assert board.baselines.idle_temperature_c(38.5) == 38.5
    assert board.baselines.idle_temperature_c(39.0) == 38.5


def test_new_process_knows_that_an_earlier_one_has_worked(tmp_path: Path):
    """Somebody who measures one model after the other has a process for each."""
    first = Board(tmp_path / BASELINES_FILE)
    first.baselines.idle_temperature_c(40.0)
    first.work()
    second = Board(tmp_path / BASELINES_FILE)
    assert second.baselines.idle_temperature_c(65.0) == 40.0
    second.time.wait(300.0)
    assert second.baselines.idle_temperature_c(45.0) == 45.0


def test_busy_board_keeps_its_idle_temperature_however_long_its_last_job_is_over():
    board = Board()
    board.baselines.idle_temperature_c(40.0)
    board.work()
    board.time.wait(3000.0)
    assert board.baselines.idle_temperature_c(80.0, quiet=False) == 40.0
    assert board.baselines.idle_temperature_c(80.0, quiet=True) == 80.0


def test_scatter_of_the_sensor_is_not_written_to_the_disk(tmp_path: Path):
    path = tmp_path / BASELINES_FILE
    board = Board(path)
    board.baselines.idle_temperature_c(40.0)
    path.unlink()
    assert board.baselines.idle_temperature_c(40.5) == 40.5
    assert not path.exists()
    board.baselines.idle_temperature_c(41.5)
    assert json.loads(path.read_text())["idle_temperature_c"] == 41.5


def test_clock_that_was_set_back_does_not_keep_a_board_from_resting():
    board = Board()
    board.baselines.idle_temperature_c(40.0)
    board.work()
    board.time.wait(-3600.0)
    assert board.baselines.idle_temperature_c(46.0) == 46.0
