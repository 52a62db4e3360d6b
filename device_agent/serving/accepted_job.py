"""One accepted measurement, and a caller's view of it."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

from device_agent.benchmark import BenchmarkRequest, Event, Failed, Finished, Queued
from device_agent.errors import CallError
from device_agent.runtimes.worker_process import StopSignal


class AcceptedJob:
    """One accepted measurement and everything that was announced of it; guarded by the queue's lock."""

    def __init__(self, request: BenchmarkRequest, owner: str, model_path: Path | None = None) -> None:
        self.request = request
        self.owner = owner
        self.model_path = model_path
        self.stop = StopSignal()
        self.cancelled = False
        # How many jobs are ahead of it, while it waits; it changes too often to be kept with the events.
        self.position = 0
        self.events: list[Event] = []
        self.error: CallError | None = None
        self._watchers = 0
        self._left_at_s = time.monotonic()

    def watch(self) -> None:
        """Count one caller more who waits for it."""
        self._watchers += 1

    def leave(self) -> None:
        """Count one caller less."""
        self._watchers -= 1
        self._left_at_s = time.monotonic()

    @property
    def unwatched_s(self) -> float:
        """How long nobody has waited for it."""
        return 0.0 if self._watchers else time.monotonic() - self._left_at_s

    @property
    def ended(self) -> bool:
        """Whether the last event was announced."""
        return self.error is not None or (
            bool(self.events) and isinstance(self.events[-1], Finished | Failed)
        )


class Subscription:
    """One caller's view of a job: iterate for its events, from the first on."""

    def __init__(self, job: AcceptedJob, changed: threading.Condition) -> None:
        self._job = job
        self._changed = changed
        self._closed = False
        self._seen = 0
        self._position: int | None = None
        with changed:
            job.watch()

    def close(self) -> None:
        """End the iteration; the job goes on. May be called from any thread, any number of times."""
        with self._changed:
            if not self._closed:
                self._job.leave()
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Event]:
        """Yield events until the last one.

        Raises:
            CallError: If the job ended without an event.
        """
        while True:
            with self._changed:
                self._changed.wait_for(self._has_news)
                if self._closed:
                    return
                news = self._job.events[self._seen :]
                self._seen += len(news)
                if self._has_moved():
                    self._position = self._job.position
                    news = [Queued(position=self._position)]
                error, ended = self._job.error, self._job.ended
            yield from news
            if error is not None:
                raise error
            if ended:
                return

    def _has_news(self) -> bool:
        job = self._job
        return self._closed or job.ended or len(job.events) > self._seen or self._has_moved()

    def _has_moved(self) -> bool:
        return not self._job.events and self._job.error is None and self._job.position != self._position
