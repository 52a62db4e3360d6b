"""The agent's end of a worker process: starts it, talks to it, ends it, and tells how it died."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_agent.benchmark import (
    BenchmarkRequest,
    FailureReason,
    InputShape,
    MemoryUsage,
    Phase,
    RuntimeDescription,
)
from device_agent.errors import (
    BenchmarkFailedError,
    RuntimeUnavailableError,
    WorkerDiedError,
    WorkerGarbledError,
    WorkerLostError,
    WorkerSilentError,
)

WORKER_FILE = Path(__file__).parents[1] / "worker.py"
# Importing the runtime from a worn SD card takes tens of seconds.
START_LIMIT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerResult:
    """What a worker measured. Times in milliseconds, in the order they were taken."""

    load_ms: float
    first_inference_ms: float
    warmup_ms: tuple[float, ...]
    samples_ms: tuple[float, ...]
    warmup_capped: bool
    interval_reached: bool
    memory: MemoryUsage
    input_shapes: tuple[InputShape, ...]
    provider: str


class WorkerProcess:
    """One worker, good for one job. Its owner calls `close()`; `kill()` may come from any thread."""

    def __init__(self, python: str) -> None:
        """Start the worker with this Python.

        Raises:
            RuntimeUnavailableError: If this Python cannot be started or there is no room for its output.
        """
        self._python = python
        self._received = b""
        try:
            # A file rather than a pipe: nobody has to read along while the worker is timing.
            self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close())
        except OSError as error:
            raise RuntimeUnavailableError(
                f"cannot make a file for the errors of the worker's Python '{python}': {error.strerror}; "
                "check that TMPDIR, or else /tmp, can be written and has room"
            ) from error
        try:
            self._process = subprocess.Popen(
                [python, str(WORKER_FILE)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                bufsize=0,
                # A Ctrl-C meant for the agent would otherwise reach the worker as well.
                start_new_session=True,
                env=_environment(python),
            )
        except OSError as error:
            self._stderr.close()
            raise RuntimeUnavailableError(
                f"cannot start the worker's Python '{python}': {error.strerror}; check --worker-python"
            ) from error

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def alive(self) -> bool:
        """Tell whether the process still runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process now; its owner then sees the output end."""
        self._process.kill()

    def close(self) -> None:
        """End the process, wait for it and free what it held."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                stream.close()

    def greet(self) -> RuntimeDescription:
        """Wait until the worker has imported its runtime and return what it found.

        Raises:
            RuntimeUnavailableError: If the runtime cannot be imported or the process is no worker.
        """
        try:
            event = self._receive(time.monotonic() + START_LIMIT_S)
        except WorkerDiedError as error:
            raise RuntimeUnavailableError(
                f"the worker under '{self._python}' {error}; "
                "check that --worker-python is a Python that can import numpy and onnxruntime"
            ) from error
        except WorkerGarbledError as error:
            raise RuntimeUnavailableError(
                f"the worker under '{self._python}' {error}; check that --worker-python is a Python "
                "and that nothing it runs at its start, such as a sitecustomize, prints"
            ) from error
        except WorkerSilentError as error:
            raise RuntimeUnavailableError(
                f"the worker under '{self._python}' did not import its runtime in {START_LIMIT_S:.0f} s"
            ) from error
        if event["event"] == "unavailable":
            raise RuntimeUnavailableError(
                f"'{self._python}' cannot import onnxruntime: {event['message']}; "
                "install numpy and onnxruntime for it or choose another --worker-python"
            )
        return RuntimeDescription(
            name="onnx",
            library=str(event["library"]),
            version=str(event["version"]),
            providers=tuple(event["providers"]),
        )

    def measure(
        self,
        request: BenchmarkRequest,
        model_path: Path,
        limit_s: float,
        on_phase: Callable[[Phase], None],
    ) -> WorkerResult:
        """Have the worker measure a model.

        Args:
            request: What to measure and how.
            model_path: The model's file.
            limit_s: Seconds after which the job is given up.
            on_phase: Called, from this thread, at the start of every phase.

        Raises:
            WorkerLostError: If the worker had died before it took the job.
            BenchmarkFailedError: If the worker rejects the job, dies, or runs past the limit.
        """
        deadline = time.monotonic() + limit_s
        taken = False
        try:
            self._send(_job(request, model_path))
            while True:
                event = self._receive(deadline)
                taken = True
                if event["event"] == "phase":
                    on_phase(Phase(event["phase"]))
                elif event["event"] == "failed":
                    raise BenchmarkFailedError(FailureReason(event["kind"]), str(event["message"]))
                else:
                    return _result(event)
        except WorkerDiedError as error:
            failure = BenchmarkFailedError if taken else WorkerLostError
            raise failure(
                FailureReason.WORKER_DIED,
                f"the worker that measured the model {error}; "
                "the model may have crashed the runtime or taken all memory, run it alone to see",
            ) from error
        except WorkerSilentError as error:
            raise BenchmarkFailedError(
                FailureReason.TIMED_OUT,
                f"the job ran longer than the agent's limit of {limit_s:g} s; "
                "measure a smaller model or raise --job-timeout-s",
            ) from error

    def _send(self, job: Mapping[str, object]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
        except BrokenPipeError as error:
            raise WorkerDiedError(self._death()) from error

    def _receive(self, deadline: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._received:
            remaining = max(0.0, deadline - time.monotonic())
            # poll, unlike select, also takes descriptors above 1024.
            poller = select.poll()
            poller.register(descriptor, select.POLLIN)
            if not poller.poll(remaining * 1000):
                raise WorkerSilentError
            piece = os.read(descriptor, 1 << 20)
            if not piece:
                raise WorkerDiedError(self._death())
            self._received += piece
        line, self._received = self._received.split(b"\n", 1)
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict) or "event" not in event:
            text = " ".join(line.decode(errors="replace").split())[:300]
            raise WorkerGarbledError(f"printed {text!r} where an answer was expected")
        return event

    def _death(self) -> str:
        """Return how the process ended and the last line it wrote to standard error."""
        # Its output has ended, but it may still be winding up.
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "closed its output without a result"
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - 4096))
        lines = self._stderr.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{how}; the last line it wrote is '{last[:300]}'" if last else how


class StopSignal:
    """Ends one job from another thread, whether or not its worker has started yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker: WorkerProcess | None = None
        self._requested = False

    @property
    def requested(self) -> bool:
        """Whether the job was asked to end."""
        return self._requested

    def request(self) -> None:
        """Ask the job to end and kill its worker."""
        with self._lock:
            self._requested = True
            if self._worker is not None:
                self._worker.kill()

    def attach(self, worker: WorkerProcess) -> None:
        """Name the worker to kill; it is killed at once where the job was already asked to end."""
        with self._lock:
            self._worker = worker
            if self._requested:
                worker.kill()

    def detach(self) -> None:
        """Forget the worker, which is about to be closed."""
        with self._lock:
            self._worker = None


def _environment(python: str) -> dict[str, str]:
    if python == sys.executable:
        return dict(os.environ)
    # These describe the agent's Python; another one would load foreign modules through them.
    return {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}


def _job(request: BenchmarkRequest, model_path: Path) -> dict[str, object]:
    return {
        "model_path": str(model_path),
        "threads": request.spec.threads,
        "input_shapes": {shape.name: list(shape.dimensions) for shape in request.spec.input_shapes},
        "seed": request.spec.seed,
        "mode": request.spec.mode.value,
    }


def _result(event: Mapping[str, Any]) -> WorkerResult:
    memory = event["memory"]
    baseline, after_load, after_first, after_last = memory["marks"]
    return WorkerResult(
        load_ms=event["load_ns"] / 1e6,
        first_inference_ms=event["first_inference_ns"] / 1e6,
        warmup_ms=tuple(value / 1e6 for value in event["warmup_ns"]),
        samples_ms=tuple(value / 1e6 for value in event["samples_ns"]),
        warmup_capped=event["warmup_capped"],
        interval_reached=event["interval_reached"],
        memory=MemoryUsage(
            baseline_bytes=baseline,
            after_load_bytes=after_load,
            after_first_inference_bytes=after_first,
            after_last_inference_bytes=after_last,
            pss_bytes=memory["pss"],
            method=memory["method"],
        ),
        input_shapes=tuple(
            InputShape(name=name, dimensions=tuple(sizes))
            for name, sizes in sorted(event["input_shapes"].items())
        ),
        provider=event["provider"],
    )
