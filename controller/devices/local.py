"""The agent on this machine: started when it is needed, on loopback, so that the path is that of a board."""

import logging
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

from controller.core.errors import DeviceError

logger = logging.getLogger(__name__)

_READY = "listening on "


class LocalAgent:
    """A child process that serves this machine; it ends when this process does, however that ends.

    Args:
        state_dir: Where the agent keeps its models and history.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self.address = "127.0.0.1:0"

    def __enter__(self) -> "LocalAgent":
        self.ensure_running()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def ensure_running(self) -> None:
        """Start the agent unless it runs; after a crash it comes back at the same address.

        Raises:
            DeviceError: If it does not start.
        """
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return
            self._close_pipes()
            command = [sys.executable, "-m", "device_agent", "serve", "--address", self.address]
            command += ["--state-dir", str(self._state_dir), "--exit-on-stdin-eof"]
            self._state_dir.mkdir(parents=True, exist_ok=True)
            with (self._state_dir / "agent.log").open("w", encoding="utf-8") as log:
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
            if not ready.startswith(_READY):
                self._process.wait()
                raise DeviceError(f"the agent on this machine did not start: {self._last_words()}")
            self.address = ready.removeprefix(_READY)
            logger.info("the agent on this machine listens on %s", self.address)

    def close(self) -> None:
        """Stop the agent; a job under way is lost, finished ones are in its history."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()
                self._process.wait(timeout=30)
            self._close_pipes()
            self._process = None

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout) if self._process else ():
            if pipe:
                pipe.close()

    def _last_words(self) -> str:
        lines = (self._state_dir / "agent.log").read_text(encoding="utf-8").strip().splitlines()
        return lines[-1].removeprefix("edgenas-agent: ") if lines else "it said nothing"
