"""A request on its way to a record."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

from device_agent.benchmark import BenchmarkRequest, FailureReason, Phase, Progress
from device_agent.errors import BenchmarkFailedError
from device_agent.runtimes.worker_process import StopSignal


class Job:
    """A request on its way, and what its attempts share.

    Args:
        request: What to measure and how.
        model_path: The model's file.
        stop: Ends the job from another thread.
        on_progress: Called, from the thread that measures, as the job goes on.
        limit_s: The time that the job has from now on.
    """

    def __init__(
        self,
        request: BenchmarkRequest,
        model_path: Path,
        stop: StopSignal,
        on_progress: Callable[[Progress], None],
        limit_s: float,
    ) -> None:
        self.request = request
        self.model_path = model_path
        self.stop = stop
        self.limit_s = limit_s
        self.started_at = datetime.now(timezone.utc)
        self._begun_s = time.monotonic()
        self.deadline_s = self._begun_s + limit_s
        self.attempt = 0
        self.waited_s = 0.0
        self.runtime_version = ""
        self._attempt_began_s = 0.0
        self._on_progress = on_progress

    @property
    def now(self) -> datetime:
        """The time, as the job's begin and what has passed since tell it: a clock that is set meanwhile has no part in it."""
        return self.started_at + timedelta(seconds=time.monotonic() - self._begun_s)

    @property
    def left_s(self) -> float:
        """The time that is left."""
        return self.deadline_s - time.monotonic()

    def begin_attempt(self) -> None:
        """Count an attempt, and what it takes from now on."""
        self.attempt += 1
        self._attempt_began_s = time.monotonic()

    def has_time_for_another(self, further_s: float = 0.0) -> bool:
        """Tell whether an attempt that takes as long as this one has until now, and so much more, would end in time."""
        return time.monotonic() - self._attempt_began_s + further_s < self.left_s

    def wait(self, seconds: float) -> None:
        """Sleep.

        Raises:
            BenchmarkFailedError: As soon as the job is cancelled.
        """
        self.stop.wait(seconds)
        self.check_not_cancelled()

    def check_not_cancelled(self) -> None:
        """Raise BenchmarkFailedError if the job was cancelled."""
        if self.stop.requested:
            raise BenchmarkFailedError(FailureReason.CANCELLED, "the benchmark was cancelled while it ran")

    def check_not_over(self) -> None:
        """Raise BenchmarkFailedError if the job was cancelled, or its time ended before its runtime was there."""
        self.check_not_cancelled()
        if self.left_s <= 0:
            raise BenchmarkFailedError(
                FailureReason.TIMED_OUT,
                f"the runtime was still being imported at the job's time limit of {self.limit_s:g} s; "
                "raise time_limit_s and the agent's --job-timeout-s",
            )

    def phase(self, phase: Phase, detail: str = "") -> None:
        """Tell that the job entered a phase, or what it waits for."""
        self._on_progress(Progress(phase=phase, detail=detail, attempt=self.attempt))
