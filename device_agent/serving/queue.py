"""The arbiter of the board: one measurement at a time, first in first out, watched by any number of callers."""

import logging
import threading
from collections import deque

from device_agent.benchmark import (
    BenchmarkRequest,
    Event,
    Failed,
    FailureReason,
    Finished,
    Progress,
    Started,
)
from device_agent.errors import (
    AgentStoppingError,
    BenchmarkFailedError,
    BenchmarkNotFoundError,
    CallError,
    ForbiddenError,
    JobCrashedError,
    JournalError,
    QueueFullError,
    RequestConflictError,
    RuntimeUnavailableError,
)
from device_agent.measuring.measurer import Measurer
from device_agent.serving.accepted_job import AcceptedJob, Subscription
from device_agent.serving.footprint import give_memory_back
from device_agent.serving.storage.history import History
from device_agent.serving.storage.journal import JobState, Journal, JournalEntry
from device_agent.serving.storage.models import ModelStore
from device_agent.serving.wire.answers import decode_request, encode_request, history_entry

logger = logging.getLogger(__name__)

# How long a worker with its runtime imported waits for the next job before its memory is given back.
SPARE_WORKER_S = 60.0
STOP_LIMIT_S = 5.0
# Jobs outlive their callers, so that the number of callers does not bound them.
WAITING_LIMIT = 1000
# A host that has vanished does not hold the board for all that it asked for. One that only lost its link asks again.
UNWATCHED_LIMIT_S = 600.0
# Ended jobs that left no record but can still be told from ids that never existed.
REMEMBERED_FAILURES = 1000


class BenchmarkQueue:
    """Accepts, runs and ends jobs. `start()` it once; `stop()` before the process ends.

    It begins with the jobs of the agent that was here before.

    Raises:
        AgentError: If these cannot be read.
    """

    def __init__(self, *, measurer: Measurer, models: ModelStore, history: History, journal: Journal) -> None:
        self._measurer = measurer
        self._models = models
        self._history = history
        self._journal = journal
        self._changed = threading.Condition()
        self._waiting: deque[AcceptedJob] = deque()
        self._running: AcceptedJob | None = None
        self._failed: deque[str] = deque(maxlen=REMEMBERED_FAILURES)
        self._lost: dict[str, AcceptedJob] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="benchmarks", daemon=True)
        with self._changed:
            for entry in journal.entries():
                self._take_up(entry)
            self._announce_positions()

    def start(self) -> None:
        """Start measuring."""
        self._thread.start()

    def _take_up(self, entry: JournalEntry) -> None:
        """Go on with a job of an earlier agent: what had not begun waits again, what had is lost."""
        try:
            job = AcceptedJob(decode_request(entry.request), entry.owner)
        except ValueError as error:
            logger.error("benchmark %s of an earlier agent is dropped: %s", entry.request_id, error)
            self._journal.end(entry.request_id)
            return
        if self._history.find(entry.request_id) is not None:
            # It was measured, and the agent ended before it noted so.
            self._journal.end(entry.request_id)
        elif entry.state is JobState.WAITING and self._held_again(job):
            self._waiting.append(job)
        else:
            job.events.append(_lost(job))
            self._lost[entry.request_id] = job
            self._journal.note(entry.request_id, JobState.LOST)

    def _held_again(self, job: AcceptedJob) -> bool:
        try:
            job.model_path = self._models.hold(job.request.model_sha256)
        except CallError as error:
            logger.warning("benchmark %s cannot wait any longer: %s", job.request.request_id, error)
            return False
        return True

    def stop(self) -> None:
        """End the running job, tell every caller that the agent stops, and wait for the thread.

        A thread that waits for a worker to start is not waited for: its worker ends with the agent.
        """
        with self._changed:
            self._stopping = True
            running = self._running
            self._changed.notify_all()
        if running is not None:
            running.stop.request()
        self._thread.join(timeout=STOP_LIMIT_S)

    def submit(self, request: BenchmarkRequest, owner: str) -> Subscription:
        """Queue a measurement, join the one under way, or find the finished one of the same request id.

        A request id whose job failed is free again: what made it fail may have passed. Of a job that was lost with an
        earlier agent the first to ask learns that it was.

        Args:
            request: What to measure.
            owner: Who asks, and may cancel it.

        Raises:
            RequestConflictError: If the id was used with another model or spec.
            ModelNotFoundError: If the model must be uploaded first.
            QueueFullError: If too many jobs wait already.
            AgentStoppingError: If the agent is shutting down.
            ModelCacheError: If the model cache cannot be read.
            HistoryError: If the history cannot be read.
            JournalError: If the journal cannot be written.
        """
        with self._changed:
            if self._stopping:
                raise AgentStoppingError("the agent is shutting down; ask again when it is back")
            job = (
                self._active(request.request_id)
                or self._lost_job(request)
                or self._finished(request.request_id)
            )
            if job is None:
                if len(self._waiting) >= WAITING_LIMIT:
                    raise QueueFullError(
                        f"{WAITING_LIMIT} benchmarks wait for this board already; ask again when some are done"
                    )
                job = self._accept(request, owner)
                self._announce_positions()
            elif not job.request.asks_the_same(request):
                raise RequestConflictError(
                    f"request id '{request.request_id}' was used with another model or spec; "
                    "choose a new id for a new measurement"
                )
            return Subscription(job, self._changed)

    def _lost_job(self, request: BenchmarkRequest) -> AcceptedJob | None:
        """Return the job that was lost, to be told of once; who asks for something else has no use for it."""
        job = self._lost.pop(request.request_id, None)
        if job is None:
            return None
        self._journal.end(request.request_id)
        return job if job.request.asks_the_same(request) else None

    def _accept(self, request: BenchmarkRequest, owner: str) -> AcceptedJob:
        job = AcceptedJob(request, owner, self._models.hold(request.model_sha256))
        try:
            self._journal.add(request.request_id, owner, encode_request(request))
        except JournalError:
            self._models.let_go(request.model_sha256)
            raise
        self._waiting.append(job)
        return job

    def cancel(self, request_id: str, owner: str | None = None) -> bool:
        """End a waiting or running job; return False where it had already ended.

        Args:
            request_id: Which.
            owner: Only if it is this one's; None ends anybody's.

        Raises:
            BenchmarkNotFoundError: If there was never such a job.
            ForbiddenError: If it is another one's.
            HistoryError: If the history cannot be read.
        """
        with self._changed:
            job = self._active(request_id)
            if job is None:
                if (
                    request_id in self._failed
                    or request_id in self._lost
                    or self._history.find(request_id) is not None
                ):
                    return False
                raise unknown(request_id)
            if owner not in (None, job.owner):
                raise ForbiddenError(
                    f"benchmark '{request_id}' is of '{job.owner}'; its owner or an admin can cancel it"
                )
            if job is self._running:
                job.cancelled = True
                job.stop.request()
            else:
                self._waiting.remove(job)
                self._drop(job, _cancelled(job))
            return True

    def _drop(self, job: AcceptedJob, outcome: Failed) -> None:
        """End a job that never ran."""
        self._models.let_go(job.request.model_sha256)
        self._journal.end(job.request.request_id)
        self._announce(job, outcome)
        self._announce_positions()

    def jobs(self) -> int:
        """Return how many jobs wait or run."""
        with self._changed:
            return len(self._waiting) + (self._running is not None)

    def pause_while_measuring(self, closed: threading.Event, interval_s: float) -> bool:
        """Wait an interval, and longer while a job has the board; return False once `closed` or stopping.

        Whoever sets `closed` calls `wake()` after it.
        """
        with self._changed:
            self._changed.wait_for(lambda: closed.is_set() or self._stopping, timeout=interval_s)
            self._changed.wait_for(lambda: closed.is_set() or self._stopping or self._running is None)
            return not (closed.is_set() or self._stopping)

    def measuring(self) -> bool:
        """Return whether a job has the board."""
        with self._changed:
            return self._running is not None

    def wake(self) -> None:
        """Have every waiting thread look again at what it waits for."""
        with self._changed:
            self._changed.notify_all()

    def _active(self, request_id: str) -> AcceptedJob | None:
        jobs = [self._running, *self._waiting]
        return next((job for job in jobs if job is not None and job.request.request_id == request_id), None)

    def _finished(self, request_id: str) -> AcceptedJob | None:
        found = self._history.find(request_id)
        if found is None:
            return None
        job = AcceptedJob(decode_request(found[0]), owner="")
        job.events.append(Finished(record=found[1]))
        return job

    def _announce(self, job: AcceptedJob, event: Event) -> None:
        with self._changed:
            job.events.append(event)
            if isinstance(event, Failed):
                self._failed.append(event.request_id)
            self._changed.notify_all()

    def _announce_positions(self) -> None:
        ahead = 0 if self._running is None else 1
        for position, job in enumerate(self._waiting, start=ahead):
            job.position = position
        self._changed.notify_all()

    def _work(self) -> None:
        # Looked at before a worker is started: who stops the agent would wait for the first to import its runtime.
        while not self._stopping:
            try:
                self._measurer.prepare()
            except RuntimeUnavailableError as error:
                # The next job looks for the runtime again, and fails with this message if it must.
                logger.error("no worker is ready for ONNX models: %s", error)
            job = self._next()
            if job is None:
                break
            self._run(job)
            # What a job leaves behind would pile up for as long as one follows the other.
            give_memory_back()
        self._measurer.release()
        with self._changed:
            for job in self._waiting:
                job.error = AgentStoppingError("the agent shut down before the benchmark ran; ask again")
            self._changed.notify_all()

    def _next(self) -> AcceptedJob | None:
        with self._changed:
            if not self._changed.wait_for(self._has_turn, timeout=SPARE_WORKER_S):
                self._measurer.release()
                give_memory_back()
                self._changed.wait_for(self._has_turn)
            if self._stopping:
                return None
            job = self._running = self._waiting.popleft()
            self._journal.note(job.request.request_id, JobState.RUNNING)
            self._announce(job, Started())
            self._announce_positions()
            return job

    def _has_turn(self) -> bool:
        """Return whether there is something to do; a job whose turn it is but that everybody has left ends here."""
        while self._waiting and self._waiting[0].unwatched_s > UNWATCHED_LIMIT_S:
            job = self._waiting.popleft()
            self._drop(job, _abandoned(job))
        return self._stopping or bool(self._waiting)

    def _run(self, job: AcceptedJob) -> None:
        request = job.request
        logger.info("benchmark %s of model %s starts", request.request_id, request.model_sha256[:12])
        outcome: Event | CallError
        try:
            outcome = self._measure(job)
        except BenchmarkFailedError as error:
            outcome = Failed(request_id=request.request_id, reason=error.reason, message=str(error))
            logger.info("benchmark %s failed: %s", request.request_id, error)
        except CallError as error:
            outcome = error
            logger.error("benchmark %s is lost: %s", request.request_id, error)
        except Exception as error:
            # The one thread that measures must outlive a defect; the caller and the log learn of it.
            logger.exception("benchmark %s hit a defect of the agent", request.request_id)
            outcome = JobCrashedError(f"the agent failed on the benchmark: {error!r}; its log tells more")
        finally:
            self._models.let_go(request.model_sha256)
        with self._changed:
            self._running = None
            # What a stopping agent has cut short is no fault of the model's.
            if self._stopping and job.stop.requested and not job.cancelled and isinstance(outcome, Failed):
                outcome = AgentStoppingError("the agent shut down while the benchmark ran; ask again")
            if isinstance(outcome, AgentStoppingError):
                # Nobody but the agent itself ended it: the next one begins it anew.
                self._journal.note(request.request_id, JobState.WAITING)
            else:
                self._journal.end(request.request_id)
            if isinstance(outcome, CallError):
                job.error = outcome
                self._changed.notify_all()
            else:
                self._announce(job, outcome)
            self._announce_positions()

    def _measure(self, job: AcceptedJob) -> Finished:
        request = job.request

        def on_progress(progress: Progress) -> None:
            self._announce(job, progress)

        assert job.model_path is not None
        record = self._measurer.measure(request, job.model_path, job.stop, on_progress)
        entry = history_entry(request, record)
        self._history.add(entry)
        median_ms = record.measurement.latency.median_ms
        flags = ", ".join(raised.flag.name for raised in record.measurement.flags) or "no flags"
        logger.info("benchmark %s ends with a median of %.3f ms, %s", request.request_id, median_ms, flags)
        return Finished(record=entry.record)


def unknown(request_id: str) -> BenchmarkNotFoundError:
    """Return the error for a request id that no job or record has."""
    return BenchmarkNotFoundError(
        f"this agent knows no benchmark with request id '{request_id}'; `edgenas benchmarks list`, or ListBenchmarks, shows those it has"
    )


def _lost(job: AcceptedJob) -> Failed:
    return Failed(
        request_id=job.request.request_id,
        reason=FailureReason.LOST,
        message="the agent ended while the benchmark ran, as by a power cut, or lost its model; ask again to measure it anew",
    )


def _abandoned(job: AcceptedJob) -> Failed:
    return Failed(
        request_id=job.request.request_id,
        reason=FailureReason.ABANDONED,
        message=f"nobody had waited for the benchmark for {UNWATCHED_LIMIT_S:g} s when its turn came; ask again",
    )


def _cancelled(job: AcceptedJob) -> Failed:
    return Failed(
        request_id=job.request.request_id,
        reason=FailureReason.CANCELLED,
        message="the benchmark was cancelled while it waited",
    )
