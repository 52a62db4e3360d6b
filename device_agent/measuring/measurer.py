"""Turns one request into one record: keeps a worker ready, drives it, and puts its figures in context."""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from device_agent.benchmark import (
    BenchmarkRecord,
    BenchmarkRequest,
    FailureReason,
    Flag,
    Measurement,
    ModelFormat,
    Phase,
    RuntimeDescription,
)
from device_agent.board.conditions import Conditions, read_conditions
from device_agent.errors import (
    BenchmarkFailedError,
    RuntimeStartingError,
    RuntimeUnavailableError,
    WorkerLostError,
)
from device_agent.measuring.latency import summarise
from device_agent.measuring.worker_process import StopSignal, WorkerProcess, WorkerResult

logger = logging.getLogger(__name__)

ENERGY_ABSENT_REASON = "this agent reads no power sensor yet"
# Every caller that waits holds a thread of the server, and importing from an SD card takes tens of seconds.
RUNTIME_WAIT_S = 2.0


class Measurer:
    """Measures models in fresh workers. One thread drives it; `runtime()` may be called from any."""

    def __init__(self, *, worker_python: str, job_timeout_s: float, root: Path = Path("/")) -> None:
        self._worker_python = worker_python
        self._job_timeout_s = job_timeout_s
        self._root = root
        self._spare: WorkerProcess | None = None
        self._lookup = threading.Condition()
        self._runtime: RuntimeDescription | RuntimeUnavailableError | None = None

    def prepare(self) -> None:
        """Start the next job's worker unless it already waits, so that a job finds its runtime imported.

        Returns when the import is over: its load on the board must not reach into what is timed next.

        Raises:
            RuntimeUnavailableError: Whatever the reason why there is no worker.
        """
        if self._spare is not None and self._spare.alive():
            return
        try:
            self.release()
            self._spare, found = self._start_worker()
        except RuntimeUnavailableError as error:
            self._set_runtime(error)
            raise
        except Exception as error:
            # The one thread that measures must outlive a defect, and who waits for the runtime be answered.
            logger.exception("starting a worker under '%s' hit a defect of the agent", self._worker_python)
            unavailable = RuntimeUnavailableError(
                f"the agent failed to start a worker under '{self._worker_python}': {error!r}; its log tells more"
            )
            self._set_runtime(unavailable)
            raise unavailable from error
        self._set_runtime(found)

    def _start_worker(self) -> tuple[WorkerProcess, RuntimeDescription]:
        worker = WorkerProcess(self._worker_python)
        try:
            return worker, worker.greet()
        except BaseException:
            worker.close()
            raise

    def release(self) -> None:
        """Let the waiting worker go, so that an idle agent costs the board little memory."""
        if self._spare is not None:
            self._spare.close()
            self._spare = None

    def runtime(self) -> RuntimeDescription:
        """Return the runtime that workers use, waiting a little for the first worker to tell.

        Raises:
            RuntimeStartingError: If the first worker has not told yet.
            RuntimeUnavailableError: If the last worker could not be started.
        """
        with self._lookup:
            if not self._lookup.wait_for(lambda: self._runtime is not None, timeout=RUNTIME_WAIT_S):
                raise RuntimeStartingError("the agent is still importing its runtime; try again")
            if isinstance(self._runtime, RuntimeDescription):
                return self._runtime
            raise RuntimeUnavailableError(str(self._runtime))

    def _set_runtime(self, found: RuntimeDescription | RuntimeUnavailableError) -> None:
        with self._lookup:
            self._runtime = found
            self._lookup.notify_all()

    def measure(
        self,
        request: BenchmarkRequest,
        model_path: Path,
        stop: StopSignal,
        on_phase: Callable[[Phase], None],
    ) -> BenchmarkRecord:
        """Measure one model in a worker of its own.

        Args:
            request: What to measure and how.
            model_path: The model's file.
            stop: Ends the job from another thread.
            on_phase: Called, from this thread, at the start of every phase.

        Raises:
            BenchmarkFailedError: If the model cannot be measured or the job was ended.
            RuntimeUnavailableError: If no worker can be started.
        """
        try:
            return self._measure_once(request, model_path, stop, on_phase)
        except WorkerLostError as error:
            # A worker that waits for long may be ended by whoever is short of memory.
            logger.info("measuring %s with another worker: %s", request.request_id, error)
            return self._measure_once(request, model_path, stop, on_phase)

    def _measure_once(
        self,
        request: BenchmarkRequest,
        model_path: Path,
        stop: StopSignal,
        on_phase: Callable[[Phase], None],
    ) -> BenchmarkRecord:
        started_at = datetime.now(timezone.utc)
        self.prepare()
        worker, self._spare = self._spare, None
        assert worker is not None
        try:
            stop.attach(worker)
            before = read_conditions(self._root)
            result = worker.measure(request, model_path, self._job_timeout_s, on_phase)
            after = read_conditions(self._root)
        except BenchmarkFailedError as error:
            if stop.requested and error.reason is FailureReason.WORKER_DIED:
                raise BenchmarkFailedError(
                    FailureReason.CANCELLED, "the benchmark was cancelled while it ran"
                ) from error
            raise
        finally:
            stop.detach()
            worker.close()
        runtime = self.runtime()
        return BenchmarkRecord(
            request_id=request.request_id,
            model_sha256=request.model_sha256,
            model_name=request.model_name,
            model_format=ModelFormat.ONNX,
            spec=replace(request.spec, input_shapes=result.input_shapes),
            started_at=started_at,
            finished_at=datetime.now(timezone.utc),
            measurement=_measurement(result, f"{runtime.library} {runtime.version}", before, after),
        )


def _measurement(
    result: WorkerResult, runtime_version: str, before: Conditions, after: Conditions
) -> Measurement:
    flags = []
    if not result.interval_reached:
        flags.append(Flag.CI_NOT_REACHED)
    if result.warmup_capped:
        flags.append(Flag.WARMUP_CAP)
    return Measurement(
        latency=summarise(result.samples_ms),
        load_ms=result.load_ms,
        first_inference_ms=result.first_inference_ms,
        warmup_ms=result.warmup_ms,
        samples_ms=result.samples_ms,
        memory=result.memory,
        energy_absent_reason=ENERGY_ABSENT_REASON,
        before=before,
        after=after,
        flags=tuple(flags),
        runtime_version=runtime_version,
        provider=result.provider,
    )
