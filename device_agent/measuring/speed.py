"""Holds a warm worker back while the board is slower than it usually is."""

import time
from collections.abc import Callable

from device_agent.benchmark import Phase
from device_agent.measuring.baselines import Baselines
from device_agent.runtimes.worker_process import OnPhase, WorkerProcess

# Before the timed part and in it the same is slow.
from device_agent.worker import SLOWER_SHARE


class SpeedGate:
    """Waits until the reference model is about as fast as its baseline: nothing else shows what a neighbour slows down.

    Before the timed part it does so itself; in it the worker pauses between turns, as it was told.

    On a shared virtual machine (AMD EPYC, 2 cores, two threads) waking a thread has two prices, by the dearer of
    which mobilenet_v2 takes half as long again. In nine minutes it came seven times, for 5 to
    47 s each: to wait costs less than another attempt, which may meet the next one.

    A board that stays slow has changed for good: once jobs have waited long enough in vain, the next do not wait,
    until the board was seen at its usual speed.

    Args:
        baselines: Knows the usual speed.
        patience_s: Longest time that jobs wait in vain, all together.
        clock: Monotonic time in seconds.
    """

    def __init__(
        self, baselines: Baselines, patience_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._baselines = baselines
        self._patience_s = patience_s
        self._clock = clock
        self._in_vain_s: dict[str, float] = {}

    def wait(self, worker: WorkerProcess, key: str, limit_s: float, on_phase: OnPhase) -> float:
        """Return the seconds waited, with the worker settled and waiting for the word to go on.

        Args:
            worker: Has its job.
            key: What the reference model's speed depends on.
            limit_s: Longest wait of this job.
            on_phase: Also told what is waited for.

        Raises:
            BenchmarkFailedError: If the worker rejects the job, dies, or runs past the deadline.
        """
        event = worker.expect("settled", on_phase)
        begin_s = self._clock()
        earlier_s = self._in_vain_s.get(key, 0.0)
        limit_s = min(limit_s, self._patience_s - earlier_s)
        while obstacle := self._obstacle(event["canary_ns"], key):
            waited_s = self._clock() - begin_s
            if waited_s >= limit_s:
                self._in_vain_s[key] = earlier_s + waited_s
                return waited_s
            on_phase(Phase.GATE, obstacle)
            worker.answer("again")
            event = worker.expect("settled", on_phase)
        self._in_vain_s.pop(key, None)
        return self._clock() - begin_s

    def go_on(self, key: str, limit_s: float) -> str:
        """Return the word that lets a settled worker begin: with how long it may still pause, and what is usual.

        Args:
            key: What the reference model's speed depends on.
            limit_s: What is left of the longest wait of this job.
        """
        usual_ms = self._baselines.canary_ms(key)
        limit_s = min(limit_s, self._patience_s - self._in_vain_s.get(key, 0.0))
        if limit_s <= 0:
            return "go"
        return f"go {limit_s:.3f}" if usual_ms is None else f"go {limit_s:.3f} {1e6 * usual_ms:.0f}"

    def note_pauses(self, key: str, paused_s: float, *, in_vain: bool) -> None:
        """Remember how a worker's own pauses ended."""
        if in_vain:
            self._in_vain_s[key] = self._in_vain_s.get(key, 0.0) + paused_s
        elif paused_s:
            self._in_vain_s.pop(key, None)

    def _obstacle(self, reading_ns: float | None, key: str) -> str | None:
        """Return what is wrong with a reading of the reference model, or None."""
        usual_ms = self._baselines.canary_ms(key)
        if reading_ns is None or usual_ms is None or reading_ns <= 1e6 * (1 + SLOWER_SHARE) * usual_ms:
            return None
        slower = reading_ns / 1e6 / usual_ms - 1
        return f"the reference model takes {100 * slower:.0f} % longer than it usually does on this board"
