"""The agent's end of a worker process: starts it, talks to it, ends it, and tells how it died."""

import json
import math
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol

from device_agent.benchmark import FailureReason, Phase, RuntimeDescription
from device_agent.board.load import read_load
from device_agent.errors import (
    BenchmarkFailedError,
    RuntimeUnavailableError,
    WorkerDiedError,
    WorkerGarbledError,
    WorkerLostError,
    WorkerSilentError,
)
from device_agent.runtimes.base import Runtime
from device_agent.runtimes.confinement import UNCONFINED, Confinement
from device_agent.text import printable

# A poll takes milliseconds in 31 bits.
POLL_LIMIT_S = 3600.0
# Importing the runtime from a worn SD card takes tens of seconds.
START_LIMIT_S = 120.0
# What a model could bring out in the message of a failure.
SECRET_NAME = re.compile("TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY", re.IGNORECASE)
# How the last line of a process tells that it died of it.
OUT_OF_MEMORY_SIGNS = ("bad_alloc", "Cannot allocate memory", "MemoryError")


class OnPhase(Protocol):
    """Told that a job entered a phase, or what it waits for there."""

    def __call__(self, phase: Phase, detail: str = "") -> None:
        """Take note of it."""


class WorkerProcess:
    """One worker, good for one job. Its owner calls `close()`; `kill()` may come from any thread."""

    def __init__(self, python: str, runtime: Runtime, confinement: Confinement = UNCONFINED) -> None:
        """Start a worker for a runtime with this Python.

        Raises:
            RuntimeUnavailableError: If this Python cannot be started or there is no room for its output.
        """
        self._python = python
        self._runtime = runtime
        self._confinement = confinement
        self._received = b""
        self._deadline = math.inf
        self._limit_s = math.inf
        self._taken = False
        self._begun_s = time.monotonic()
        self._oom_kills: int | None = None
        self._found: RuntimeDescription | None = None
        # Layers of the sandbox that it runs without, each with the reason; known once it has been greeted.
        self.missing: Mapping[str, str] = {}
        try:
            # What a worker leaves behind that was ended at its work, a profile half written, goes with the folder.
            self._folder = tempfile.TemporaryDirectory(prefix="edgenas-worker-", ignore_cleanup_errors=True)
            # A file rather than a pipe: nobody has to read along while the worker is timing.
            self._stderr = tempfile.TemporaryFile(dir=self._folder.name)  # noqa: SIM115 (closed in close())
        except OSError as error:
            raise RuntimeUnavailableError(
                f"cannot make files for the worker's Python '{python}': {error.strerror}; "
                "check that TMPDIR, or else /tmp, can be written and has room"
            ) from error
        try:
            self._process = subprocess.Popen(
                confinement.command(python, runtime),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                bufsize=0,
                # A Ctrl-C meant for the agent would otherwise reach the worker as well.
                start_new_session=True,
                env={**worker_environment(python), "TMPDIR": self._folder.name},
            )
        except OSError as error:
            self._stderr.close()
            self._folder.cleanup()
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
        self._folder.cleanup()

    def has_spoken(self) -> bool:
        """Tell, without waiting, whether its runtime was imported, or could not be."""
        return self._found is not None or self._can_be_read(0.0)

    def greet(self, limit_s: float | None = None) -> RuntimeDescription:
        """Wait until the worker has imported its runtime and return what it found.

        Once it has, further calls return the same at once. From its start on it has two minutes.

        Args:
            limit_s: Longest wait; None for all that is left of these.

        Raises:
            RuntimeUnavailableError: If the runtime cannot be imported, the process is no worker, or it lacks a layer of
                the sandbox where none may be missing.
        """
        if self._found is None:
            self._found = self._introduced(limit_s)
        return self._found

    def _introduced(self, limit_s: float | None) -> RuntimeDescription:
        last_s = self._begun_s + START_LIMIT_S
        try:
            event = self._receive(last_s if limit_s is None else min(last_s, time.monotonic() + limit_s))
        except WorkerDiedError as error:
            file = self._runtime.worker_file
            also = "" if file is None else f" and run '{file}'"
            raise RuntimeUnavailableError(
                f"the worker under '{self._python}' {error}; "
                f"check that --worker-python is a Python that can import numpy and {self._runtime.package}{also}"
            ) from error
        except WorkerGarbledError as error:
            raise RuntimeUnavailableError(
                f"the worker under '{self._python}' {error}; check that --worker-python is a Python "
                "and that nothing it runs at its start, such as a sitecustomize, prints"
            ) from error
        except WorkerSilentError as error:
            raise RuntimeUnavailableError(
                f"the worker under '{self._python}' did not import its runtime in {time.monotonic() - self._begun_s:.0f} s"
            ) from error
        if event["event"] == "unavailable":
            raise RuntimeUnavailableError(
                f"'{self._python}' cannot import {self._runtime.package}: {event['message']}; "
                f"{self._runtime.remedy}, or choose another --worker-python"
            )
        self.missing = event["missing"]
        self._confinement.check(self._python, self.missing)
        return RuntimeDescription(
            name=self._runtime.name,
            library=str(event["library"]),
            version=str(event["version"]),
            providers=tuple(event["providers"]),
        )

    def begin(self, job: Mapping[str, object], *, deadline_s: float, limit_s: float) -> None:
        """Hand the worker its job.

        Args:
            job: As `worker.py` reads it.
            deadline_s: On the monotonic clock; whatever the worker announces must come before.
            limit_s: The time that the whole job had, for the message.

        Raises:
            WorkerLostError: If the worker had died before it took the job.
        """
        self._deadline = deadline_s
        self._limit_s = limit_s
        self._oom_kills = read_load().oom_kills
        try:
            self._send(json.dumps(job))
        except WorkerDiedError as error:
            raise WorkerLostError(FailureReason.WORKER_DIED, f"the waiting worker {error}") from error

    def answer(self, word: str) -> None:
        """Send the word that the worker waits for.

        Raises:
            BenchmarkFailedError: If the worker has died.
        """
        try:
            self._send(word)
        except WorkerDiedError as error:
            raise self._died(error) from error

    def expect(self, kind: str, on_phase: OnPhase) -> dict[str, Any]:
        """Wait for an event of a kind and return its fields; phases before it are passed on.

        Raises:
            WorkerLostError: If the worker had died before it took the job.
            BenchmarkFailedError: If the worker rejects the job, dies, or runs past the deadline.
        """
        try:
            while True:
                event = self._receive(self._deadline)
                self._taken = True
                if event["event"] == kind:
                    return event
                if event["event"] == "failed":
                    raise BenchmarkFailedError(FailureReason(event["kind"]), str(event["message"]))
                if event["event"] != "phase":
                    raise WorkerGarbledError(f"announced '{event['event']}' where '{kind}' was expected")
                on_phase(Phase(event["phase"]), str(event["detail"]))
        except WorkerDiedError as error:
            if not self._taken:
                raise WorkerLostError(FailureReason.WORKER_DIED, f"the waiting worker {error}") from error
            raise self._died(error) from error
        except WorkerSilentError as error:
            raise BenchmarkFailedError(
                FailureReason.TIMED_OUT,
                f"the job ran longer than its time limit of {self._limit_s:g} s; the model may never return; "
                "measure a smaller one, or raise time_limit_s and the agent's --job-timeout-s",
            ) from error

    def _died(self, error: WorkerDiedError) -> BenchmarkFailedError:
        # It comes without a word, but the kernel counts whom it ended for want of memory.
        killed = self._process.returncode == -signal.SIGKILL
        if killed and (read_load().oom_kills or 0) > (self._oom_kills or 0):
            return BenchmarkFailedError(
                FailureReason.OUT_OF_MEMORY,
                "the worker that measured the model was killed by SIGKILL as the kernel ran out of memory; "
                "measure a smaller model or batch",
            )
        if self._process.returncode == -signal.SIGXCPU:
            return BenchmarkFailedError(
                FailureReason.TIMED_OUT,
                "the worker that measured the model took more processor time than its threads have until the job's time "
                "limit; the model may run more threads than it was given",
            )
        if any(sign in str(error) for sign in OUT_OF_MEMORY_SIGNS):
            return BenchmarkFailedError(
                FailureReason.OUT_OF_MEMORY,
                f"the worker that measured the model ran out of memory: it {error}; "
                "measure a smaller model or batch",
            )
        return BenchmarkFailedError(
            FailureReason.WORKER_DIED,
            f"the worker that measured the model {error}; the model may have crashed the runtime, "
            "run it alone to see",
        )

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
        except BrokenPipeError as error:
            raise WorkerDiedError(self._death()) from error

    def _receive(self, deadline: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        while b"\n" not in self._received:
            if not self._can_be_read(deadline - time.monotonic()):
                if time.monotonic() < deadline:
                    continue
                raise WorkerSilentError
            piece = os.read(self._process.stdout.fileno(), 1 << 20)
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

    def _can_be_read(self, limit_s: float) -> bool:
        """Wait, for so long at most, until there is output, or its end."""
        assert self._process.stdout is not None
        # poll, unlike select, also takes descriptors above 1024.
        poller = select.poll()
        poller.register(self._process.stdout.fileno(), select.POLLIN)
        return bool(poller.poll(1000 * min(max(0.0, limit_s), POLL_LIMIT_S)))

    def _death(self) -> str:
        """Return how the process ended and the last line it wrote to standard error."""
        # Its output has ended, but it may still be winding up.
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "closed its output without a result"
        how = f"was killed by {_signal_name(-code)}" if code < 0 else f"exited with code {code}"
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - 4096))
        lines = self._stderr.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")[:300]
        # It may show what stands in the model.
        return f"{how}; the last line it wrote is '{printable(last)}'" if last else how


def _signal_name(number: int) -> str:
    # Of the realtime signals only the first and the last have names.
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


class StopSignal:
    """Ends one job from another thread, whether or not its worker has started yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker: WorkerProcess | None = None
        self._requested = threading.Event()

    @property
    def requested(self) -> bool:
        """Whether the job was asked to end."""
        return self._requested.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep, but no longer than until the job is asked to end; return whether it was."""
        return self._requested.wait(seconds)

    def request(self) -> None:
        """Ask the job to end and kill its worker."""
        with self._lock:
            self._requested.set()
            if self._worker is not None:
                self._worker.kill()

    def attach(self, worker: WorkerProcess) -> None:
        """Name the worker to kill; it is killed at once where the job was already asked to end."""
        with self._lock:
            self._worker = worker
            if self._requested.is_set():
                worker.kill()

    def detach(self) -> None:
        """Forget the worker, which is about to be closed."""
        with self._lock:
            self._worker = None


def worker_environment(python: str) -> dict[str, str]:
    """Return the environment for a Python: the agent's own, but for secrets and what describes the agent's Python."""
    # The latter would have another Python load foreign modules.
    foreign = set() if python == sys.executable else {"PYTHONPATH", "PYTHONHOME"}
    return {
        name: value
        for name, value in os.environ.items()
        if name not in foreign and not SECRET_NAME.search(name)
    }
