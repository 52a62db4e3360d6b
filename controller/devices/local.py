"""The agent on this machine: started when it is needed, on loopback, so that the path is that of a board."""

import logging
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from controller.core.errors import DeviceError

logger = logging.getLogger(__name__)

OPTIONS_VARIABLE = "EDGENAS_LOCAL_AGENT"
"""Environment variable with further options of `edgenas-agent serve`, e.g. `--gate-limit-s 30`."""

_READY = "listening on "
_ANY_PORT = "127.0.0.1:0"
_IN_USE = "in use"  # what the agent says of a folder or an address that another one holds
_HANDOVER_S = 15.0  # for one agent to end, or begin, before another
_POLL_S = 0.3


class LocalAgent:
    """A child process that serves this machine; it ends when this process does, however that ends.

    An EdgeNAS home has one, the arbiter of this machine's processor: where another host process has started
    it already, that one is shared. $EDGENAS_LOCAL_AGENT has options for it.

    Args:
        state_dir: Where the agent keeps its models and history.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self.address = _ANY_PORT

    def __enter__(self) -> "LocalAgent":
        self.ensure_running()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def ensure_running(self) -> None:
        """Start the agent unless one runs; after a crash it comes back at the same address.

        Raises:
            DeviceError: If it does not start.
        """
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return
            deadline = time.monotonic() + _HANDOVER_S
            while (failure := self._start_or_share()) is not None:
                if _IN_USE not in failure or time.monotonic() > deadline:
                    raise DeviceError(f"the agent on this machine did not start: {failure}")
                time.sleep(_POLL_S)

    def close(self) -> None:
        """Stop the agent if it is ours; a job under way is lost, finished ones are in its history."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()
            self._release()

    def _start_or_share(self) -> str | None:
        """Have an agent, our own or another host process's; return what stands in the way where there is none."""
        self._release()
        failure = self._start()
        if failure is None:
            return None
        shared = self._shared_address()
        if shared is None or self.address not in (_ANY_PORT, shared):
            return failure
        self.address = shared
        logger.info("sharing the agent on this machine at %s", shared)
        return None

    def _start(self) -> str | None:
        """Start the agent; return what it said where that failed."""
        # -P: a file in the user's folder must not stand in for a module of the standard library.
        command = [
            sys.executable,
            "-P",
            "-m",
            "device_agent",
            "serve",
            "--insecure",
            "--address",
            self.address,
        ]
        command += ["--state-dir", str(self._state_dir), "--exit-on-stdin-eof"]
        try:
            command += shlex.split(os.environ.get(OPTIONS_VARIABLE, ""))
        except ValueError as error:
            return f"{OPTIONS_VARIABLE}={os.environ[OPTIONS_VARIABLE]!r} is not understood: {error}"
        try:
            self._state_dir.mkdir(parents=True, exist_ok=True)
            log = (self._state_dir / "agent.log").open("a+", encoding="utf-8")
        except OSError as error:
            return f"{error.filename}: {error.strerror}"
        with log:
            begin = log.tell()
            # A session of its own: an interrupt from the keyboard is for the host, which then ends the agent.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
            assert self._process.stdout is not None
            ready = self._process.stdout.readline().strip()
            if ready.startswith(_READY):
                self.address = ready.removeprefix(_READY)
                logger.info("the agent on this machine listens on %s", self.address)
                return None
            self._release()
            log.seek(begin)
            lines = log.read().strip().splitlines()
        return lines[-1].removeprefix("edgenas-agent: ") if lines else "it said nothing"

    @property
    def _address_file(self) -> Path:
        return self._state_dir / "address"

    def _shared_address(self) -> str | None:
        """Return where another process's agent for this machine listens; None where there is none."""
        try:
            address = self._address_file.read_text(encoding="ascii").strip()
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=1).close()
        except (OSError, ValueError):
            return None
        return address

    def _release(self) -> None:
        """Wait for our process to end and close the pipes to it."""
        if self._process is None:
            return
        self._process.wait(timeout=30)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        self._process = None
