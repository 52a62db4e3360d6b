"""When a board is cool and quiet enough, told by a tree of files that changes as the gate waits."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from sensor_trees import write

from device_agent.measuring.baselines import Baselines
from device_agent.measuring.gate import Gate, GateOutcome

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CORES = 2
OURS = 77
IDLE_C = 40.0


class Board:
    """A board of two cores. Its time goes on when the gate pauses, and its files with it.

    Args:
        root: Where the files are.
        temperature_c: Of its only thermal zone at a time; None for a board without.
        others: What other processes use at a time, 1 for one core.
        ours: What the worker uses.
        counts: Whether the kernel tells what the cores do.
    """

    def __init__(
        self,
        root: Path,
        *,
        temperature_c: Callable[[float], float] | None = lambda now_s: IDLE_C,
        others: Callable[[float], float] = lambda now_s: 0.0,
        ours: float = 0.0,
        counts: bool = True,
    ) -> None:
        self.root = root
        self.now_s = 0.0
        self.said: list[tuple[float, str]] = []
        self.pauses = 0
        self.baselines = Baselines(clock=lambda: self.now_s)
        self._temperature_c = temperature_c
        self._others = others
        self._ours = ours
        self._counts = counts
        self._others_s = 0.0
        self._show()

    def has_worked_at(self, idle_c: float) -> "Board":
        """Let the board have an idle temperature, and a job that ended just now."""
        self.baselines.idle_temperature_c(idle_c)
        self.baselines.note_work()
        return self

    def pause(self, seconds: float) -> None:
        self.pauses += 1
        self._others_s += seconds * self._others(self.now_s)
        self.now_s += seconds
        self._show()

    def wait(
        self,
        *,
        limit_s: float = 120.0,
        pause: Callable[[float], None] | None = None,
        ready_at_s: float = 0.0,
    ) -> GateOutcome:
        gate = Gate(self.root, self.baselines, clock=lambda: self.now_s, own_proc=self.root / "proc")
        say = lambda text: self.said.append((self.now_s, text))  # noqa: E731
        ready = lambda: self.now_s >= ready_at_s  # noqa: E731
        return gate.wait((OURS,), say, pause or self.pause, limit_s=limit_s, ready=ready)

    def _show(self) -> None:
        if self._temperature_c is not None:
            text = f"{self._temperature_c(self.now_s) * 1000:.0f}"
            write(self.root, {"sys/class/thermal/thermal_zone0/temp": text})
        if self._counts:
            ours = round(TICKS_PER_S * self._ours * self.now_s)
            others = round(TICKS_PER_S * self._others_s)
            idle = round(TICKS_PER_S * CORES * self.now_s) - ours - others
            cores = "\n".join(f"cpu{number} 0 0 0 0 0 0 0 0 0 0" for number in range(CORES))
            process = f"{OURS} (python) R 1 77 77 0 -1 4194560 1 2 3 4 {ours} 0 0 0 20 0 3 0 1000 1 2 3"
            write(
                self.root,
                {
                    "proc/stat": f"cpu  {ours + others} 0 0 {idle} 0 0 0 0 0 0\n{cores}",
                    f"proc/{OURS}/stat": process,
                },
            )


def cooling(from_c: float, per_s: float) -> Callable[[float], float]:
    return lambda now_s: from_c - per_s * now_s


def until(end_s: float, share: float) -> Callable[[float], float]:
    return lambda now_s: share if now_s < end_s else 0.0


def test_cool_and_quiet_board_is_ready_after_one_look(tmp_path: Path):
    board = Board(tmp_path)
    assert board.wait() == GateOutcome(waited_s=2.0, obstacle=None)
    assert board.said == []


def test_board_that_tells_nothing_is_ready_after_one_look(tmp_path: Path):
    board = Board(tmp_path, temperature_c=None, counts=False)
    assert board.wait() == GateOutcome(waited_s=2.0, obstacle=None)


def test_worker_that_imports_its_runtime_is_waited_for_and_the_board_after_it(tmp_path: Path):
    board = Board(tmp_path, temperature_c=lambda now_s: 60.0 - max(0.0, now_s - 10.0))
    assert board.has_worked_at(IDLE_C).wait(ready_at_s=10.0) == GateOutcome(waited_s=25.0, obstacle=None)
    assert board.said[0][1] == "the runtime is still being imported"
    assert board.wait(ready_at_s=1000.0, limit_s=5.0).obstacle == "the runtime is still being imported"


def test_hot_board_is_waited_for_until_it_is_5_degrees_above_idle(tmp_path: Path):
    board = Board(tmp_path, temperature_c=cooling(60.0, per_s=1.0)).has_worked_at(IDLE_C)
    assert board.wait() == GateOutcome(waited_s=15.0, obstacle=None)


def test_board_of_just_5_degrees_above_idle_is_cool_enough(tmp_path: Path):
    board = Board(tmp_path, temperature_c=lambda now_s: 45.0).has_worked_at(IDLE_C)
    assert board.wait() == GateOutcome(waited_s=2.0, obstacle=None)


def test_busy_neighbour_is_waited_for_until_it_was_quiet_for_2_s(tmp_path: Path):
    board = Board(tmp_path, others=until(10.0, share=1.0))
    assert board.wait() == GateOutcome(waited_s=12.0, obstacle=None)


@pytest.mark.parametrize(("share", "waited_s"), [(0.04, 2.0), (0.06, 20.0)])
def test_neighbour_may_use_5_percent_of_a_core(tmp_path: Path, share: float, waited_s: float):
    board = Board(tmp_path, others=lambda now_s: share)
    assert board.wait(limit_s=20.0).waited_s == waited_s


def test_our_own_worker_is_no_neighbour(tmp_path: Path):
    board = Board(tmp_path, ours=1.0)
    assert board.wait() == GateOutcome(waited_s=2.0, obstacle=None)


def test_board_that_stays_hot_is_measured_on_after_the_limit(tmp_path: Path):
    board = Board(tmp_path, temperature_c=lambda now_s: 61.25).has_worked_at(IDLE_C)
    assert board.wait(limit_s=30.0) == GateOutcome(
        waited_s=30.0, obstacle="the board has 61.2 °C, more than 5 °C above its idle 40.0 °C"
    )


def test_neighbour_that_stays_is_the_obstacle_at_the_limit(tmp_path: Path):
    board = Board(tmp_path, others=lambda now_s: 1.5)
    assert board.wait(limit_s=30.0) == GateOutcome(
        waited_s=30.0, obstacle="other processes use 150 % of a core, more than 5 %"
    )


def test_limit_below_one_look_still_takes_the_look(tmp_path: Path):
    board = Board(tmp_path, others=lambda now_s: 1.0)
    assert board.wait(limit_s=0.5) == GateOutcome(
        waited_s=2.0, obstacle="other processes use 100 % of a core, more than 5 %"
    )


def test_gate_says_every_2_s_what_it_waits_for(tmp_path: Path):
    """First for the heat, then for the neighbour that the heat had hidden."""
    board = Board(
        tmp_path, temperature_c=cooling(50.0, per_s=1.0), others=until(7.0, share=0.5)
    ).has_worked_at(IDLE_C)
    assert board.wait() == GateOutcome(waited_s=9.0, obstacle=None)
    assert board.said == [
        (2.0, "the board has 48.0 °C, more than 5 °C above its idle 40.0 °C"),
        (4.0, "the board has 46.0 °C, more than 5 °C above its idle 40.0 °C"),
        (6.0, "other processes use 50 % of a core, more than 5 %"),
        (8.0, "other processes use 25 % of a core, more than 5 %"),
    ]


def test_exception_of_the_pause_ends_the_gate(tmp_path: Path):
    def pause(seconds: float) -> None:
        raise InterruptedError("cancelled")

    with pytest.raises(InterruptedError, match="cancelled"):
        Board(tmp_path).wait(pause=pause)


def test_gate_without_a_limit_looks_at_nothing(tmp_path: Path):
    board = Board(tmp_path, temperature_c=lambda now_s: 90.0, others=lambda now_s: 2.0).has_worked_at(IDLE_C)
    assert board.wait(limit_s=0.0) == GateOutcome(waited_s=0.0, obstacle=None)
    assert board.pauses == 0
    assert board.baselines.idle_temperature_c(IDLE_C) == IDLE_C


def test_busy_board_is_not_taken_for_a_rested_one(tmp_path: Path):
    """The host trained on the same processor for minutes: no job of ours, but no rest."""
    board = Board(tmp_path, temperature_c=lambda now_s: 80.0).has_worked_at(IDLE_C)
    board.pause(600.0)
    write(tmp_path, {"proc/loadavg": "1.42 1.90 1.80 1/123 4567"})
    assert board.wait(limit_s=10.0).obstacle == "the board has 80.0 °C, more than 5 °C above its idle 40.0 °C"
    write(tmp_path, {"proc/loadavg": "0.05 0.90 1.30 1/123 4567"})
    assert board.wait().obstacle is None


def test_rested_board_is_at_its_idle_temperature_on_a_warmer_day(tmp_path: Path):
    board = Board(tmp_path, temperature_c=lambda now_s: 48.0).has_worked_at(IDLE_C)
    board.pause(299.0)
    assert board.wait(limit_s=0.5).obstacle is None
    board.baselines.note_work()
    assert board.wait() == GateOutcome(waited_s=2.0, obstacle=None)


def test_board_that_worked_a_moment_ago_is_not_taken_for_a_rested_one(tmp_path: Path):
    board = Board(tmp_path, temperature_c=lambda now_s: 48.0).has_worked_at(IDLE_C)
    board.pause(200.0)
    assert board.wait(limit_s=3.0).obstacle == (
        "the board has 48.0 °C, more than 5 °C above its idle 40.0 °C"
    )
