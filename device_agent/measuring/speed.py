"""Holds a warm worker back while the board is slower than it usually is."""

import time
from collections.abc import Callable, Sequence

from device_agent.benchmark import Phase
from device_agent.measuring.baselines import Baselines
from device_agent.runtimes.worker_process import OnPhase, WorkerProcess

# Before the timed part and in it the same is slow.
from device_agent.worker import SLOWER_SHARE, quantile

TELL_EVERY_S = 2.0
# Single turns scatter.
MOST_SHARE = 0.75


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
        self._paused_in_vain_s: dict[str, float] = {}

    def wait(
        self, worker: WorkerProcess, reading_ns: float | None, key: str, limit_s: float, on_phase: OnPhase
    ) -> float:
        """Return the seconds waited, with the worker settled and waiting for the word to go on.

        Args:
            worker: Has settled.
            reading_ns: What the reference model took then; None where there is none.
            key: What the reference model's speed depends on.
            limit_s: Longest wait of this job.
            on_phase: Also told what is waited for.

        Raises:
            BenchmarkFailedError: If the worker dies, or runs past the deadline.
        """
        begin_s = self._clock()
        tell_after_s = 0.0
        earlier_s = self._in_vain_s.get(key, 0.0)
        limit_s = min(limit_s, self._patience_s - earlier_s)
        while obstacle := self._obstacle(reading_ns, key):
            waited_s = self._clock() - begin_s
            if waited_s >= limit_s:
                self._in_vain_s[key] = earlier_s + waited_s
                return waited_s
            if waited_s >= tell_after_s:
                tell_after_s = waited_s + TELL_EVERY_S
                on_phase(Phase.GATE, obstacle)
            worker.answer("again")
            reading_ns = worker.expect("settled", on_phase)["canary_ns"]
        if reading_ns is not None:
            self._in_vain_s.pop(key, None)
        return self._clock() - begin_s

    def go_on(self, key: str, limit_s: float) -> str:
        """Return the word that lets a settled worker begin: with how long it may still pause, and what is usual.

        Args:
            key: What the reference model's speed depends on.
            limit_s: What is left of the longest wait of this job.
        """
        usual_ms = self._baselines.canary_ms(key)
        in_vain_s = self._in_vain_s.get(key, 0.0) + self._paused_in_vain_s.get(key, 0.0)
        limit_s = min(limit_s, self._patience_s - in_vain_s)
        if limit_s <= 0:
            return "go"
        return f"go {limit_s:.3f}" if usual_ms is None else f"go {limit_s:.3f} {1e6 * usual_ms:.0f}"

    def note_pauses(self, key: str, vain_s: float, turns_ms: Sequence[float]) -> None:
        """Remember how the pauses of a timed part ended.

        A board that becomes slower under load, as hot ones do, is at its usual speed before each timed part: that
        says nothing of a pause in it. Only a timed part most of which was not slow does.

        Args:
            key: What the reference model's speed depends on.
            vain_s: How long the last pause was where it was in vain, else 0.
            turns_ms: What the reference model took in each of its turns.
        """
        if vain_s:
            self._paused_in_vain_s[key] = self._paused_in_vain_s.get(key, 0.0) + vain_s
        elif turns_ms and self._obstacle(1e6 * quantile(turns_ms, MOST_SHARE), key) is None:
            self._paused_in_vain_s.pop(key, None)

    def _obstacle(self, reading_ns: float | None, key: str) -> str | None:
        """Return what is wrong with a reading of the reference model, or None."""
        usual_ms = self._baselines.canary_ms(key)
        if reading_ns is None or usual_ms is None or reading_ns <= 1e6 * (1 + SLOWER_SHARE) * usual_ms:
            return None
        slower = reading_ns / 1e6 / usual_ms - 1
        return f"the reference model takes {100 * slower:.0f} % longer than it usually does on this board"
