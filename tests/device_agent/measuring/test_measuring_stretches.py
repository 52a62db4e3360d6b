"""What counts as others' work in a timed part with a pause, and who may work meanwhile."""

import threading

import pytest

from device_agent.benchmark import Phase
from device_agent.board.load import CpuTime, LoadSnapshot
from device_agent.measuring.stretches import Stretches
from device_agent.measuring.timed_window import TimedWindow


class Board:
    """A board of two cores, one of which others keep busy whenever `others_work` is true."""

    def __init__(self) -> None:
        self.others_work = False
        self._now_s = self._busy_s = 0.0

    def pass_by(self, seconds: float) -> None:
        self._now_s += seconds
        if self.others_work:
            self._busy_s += seconds

    def load(self) -> LoadSnapshot:
        idle_s = 2 * self._now_s - self._busy_s
        cpu = CpuTime(cores=2, busy_s=self._busy_s, idle_s=idle_s, steal_s=0.0)
        return LoadSnapshot(time_s=self._now_s, cpu=cpu)


def is_open(window: TimedWindow) -> bool:
    """Tell whether other work is held."""
    gave_up = threading.Event()
    let_through: list[bool] = []
    waiting = threading.Thread(target=lambda: let_through.append(window.wait_until_closed(gave_up)))
    waiting.start()
    waiting.join(0.2)
    gave_up.set()
    window.wake()
    waiting.join()
    return let_through == [False]


def test_what_others_do_in_a_pause_is_no_disturbance_and_they_may_do_it():
    board, window, phases = Board(), TimedWindow(), []
    stretches = Stretches(window, board.load, lambda phase, detail="": phases.append((phase, detail)))
    with stretches:
        assert is_open(window)
        stretches.begin()
        board.pass_by(4.0)
        stretches.on_phase(Phase.GATE, "waiting")
        assert not is_open(window)
        board.others_work = True
        board.pass_by(30.0)
        board.others_work = False
        stretches.on_phase(Phase.MEASURE)
        assert is_open(window)
        board.pass_by(6.0)
        stretches.end()
    assert not is_open(window)
    assert phases == [(Phase.GATE, "waiting"), (Phase.MEASURE, "")]
    load = stretches.load()
    assert (load.window_s, load.other_cpu_percent) == (10.0, 0.0)


def test_what_others_do_in_any_stretch_is_a_disturbance():
    board = Board()
    with Stretches(TimedWindow(), board.load, lambda phase, detail="": None) as stretches:
        stretches.begin()
        board.pass_by(6.0)
        stretches.on_phase(Phase.GATE)
        stretches.on_phase(Phase.MEASURE)
        board.others_work = True
        board.pass_by(2.0)
        stretches.end()
    assert stretches.load().other_cpu_percent == pytest.approx(25.0)
