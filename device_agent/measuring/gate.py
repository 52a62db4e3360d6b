"""Waits until the board is cool and quiet enough for a measurement."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from device_agent.board.conditions import read_load_average, read_temperature_c
from device_agent.board.load import OWN_PROC, LoadSnapshot, interference, read_load
from device_agent.measuring.baselines import Baselines
from device_agent.measuring.flags import OTHER_CPU_PERCENT

WARMER_C = 5.0
QUIET_S = 2.0
STEP_S = 0.25
LIMIT_S = 120.0
# Runnable tasks over the last minute. Above it the board worked lately, for whomever.
RESTED_LOAD = 0.25
SAY_EVERY_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOutcome:
    """How the wait ended. `obstacle` says in one line what still stood in the way; None where nothing did."""

    waited_s: float
    obstacle: str | None


class Gate:
    """Holds a job back until its worker is ready, the board no hotter than idle + 5 °C and others use under 5 % of a core.

    Args:
        root: Where the board's files are read.
        baselines: Knows the idle temperature.
        clock: Monotonic time in seconds.
        own_proc: Where our own processes are looked up.
    """

    def __init__(
        self,
        root: Path,
        baselines: Baselines,
        *,
        clock: Callable[[], float] = time.monotonic,
        own_proc: Path = OWN_PROC,
    ) -> None:
        self._root = root
        self._baselines = baselines
        self._clock = clock
        self._own_proc = own_proc

    def wait(
        self,
        pids: tuple[int, ...],
        say: Callable[[str], None],
        pause: Callable[[float], None],
        *,
        limit_s: float,
        ready: Callable[[], bool] = lambda: True,
    ) -> GateOutcome:
        """Return once the board is ready, or the limit is reached.

        Args:
            pids: Processes whose work is not other people's.
            say: Told every few seconds what is waited for.
            pause: Sleeps for the seconds it is given; what it raises ends the wait.
            limit_s: Longest wait; 0 passes at once, unseen.
            ready: Tells whether the worker has imported its runtime, which heats the board.
        """
        if limit_s <= 0:
            return GateOutcome(waited_s=0.0, obstacle=None)
        begin_s = self._clock()
        said_s = begin_s
        window: deque[LoadSnapshot] = deque([self._load(pids)])
        while True:
            pause(STEP_S)
            window.append(self._load(pids))
            # The newest window that is long enough.
            while len(window) > 2 and window[-1].time_s - window[1].time_s >= QUIET_S:
                window.popleft()
            measured = window[-1].time_s - window[0].time_s >= QUIET_S
            obstacle = self._obstacle(window[0], window[-1], ready()) if measured else "looking for 2 s"
            now_s = self._clock() - begin_s
            if measured and obstacle is None:
                return GateOutcome(waited_s=now_s, obstacle=None)
            if measured and now_s >= limit_s:
                return GateOutcome(waited_s=now_s, obstacle=obstacle)
            if measured and obstacle is not None and self._clock() - said_s >= SAY_EVERY_S:
                said_s = self._clock()
                say(obstacle)

    def _load(self, pids: tuple[int, ...]) -> LoadSnapshot:
        return replace(read_load(self._root, pids, own_proc=self._own_proc), time_s=self._clock())

    def _obstacle(self, earlier: LoadSnapshot, now: LoadSnapshot, ready: bool) -> str | None:
        """Return what stands in the way of a measurement, or None."""
        if not ready:
            return "the runtime is still being imported"
        temperature_c = read_temperature_c(self._root)
        if temperature_c is not None:
            load = read_load_average(self._root)
            rested = load is None or load < RESTED_LOAD
            idle_c = self._baselines.idle_temperature_c(temperature_c, quiet=rested)
            if temperature_c > idle_c + WARMER_C:
                return f"the board has {temperature_c:.1f} °C, more than {WARMER_C:g} °C above its idle {idle_c:.1f} °C"
        other_percent = interference(earlier, now).other_cpu_percent
        if other_percent is not None and other_percent > OTHER_CPU_PERCENT:
            return f"other processes use {other_percent:.0f} % of a core, more than {OTHER_CPU_PERCENT:g} %"
        return None
