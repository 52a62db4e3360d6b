"""What a worker is kept from, and whether this board can do that. `device_agent/sandbox.py` does it."""

import json
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from device_agent.errors import RuntimeUnavailableError
from device_agent.runtimes.base import Runtime

WORKER_FILE = Path(__file__).parents[1] / "worker.py"
PROBE_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What a worker is kept from.

    Attributes:
        hidden: Folders of which it sees nothing but its model.
        required: Whether no model may run where any layer of the sandbox is missing.
    """

    hidden: tuple[Path, ...] = ()
    required: bool = False

    def command(self, python: str, runtime: Runtime | None) -> list[str]:
        """Return how to start a worker; without a runtime it only tells what it runs without."""
        name = "" if runtime is None else runtime.name
        brought = "" if runtime is None or runtime.worker_file is None else str(runtime.worker_file)
        return [python, str(WORKER_FILE), name, brought, *map(str, self.hidden)]

    def missing(self, python: str, environment: Mapping[str, str]) -> Mapping[str, str]:
        """Return the layers that a worker under this Python runs without, each with the reason; imports no runtime.

        Raises:
            RuntimeUnavailableError: If this Python starts no worker.
        """
        with tempfile.TemporaryDirectory(prefix="edgenas-worker-", ignore_cleanup_errors=True) as folder:
            try:
                done = subprocess.run(
                    self.command(python, None),
                    capture_output=True,
                    text=True,
                    timeout=PROBE_LIMIT_S,
                    stdin=subprocess.DEVNULL,
                    env={**environment, "TMPDIR": folder},
                )
                told: Mapping[str, str] = json.loads(done.stdout)["missing"]
            except (OSError, subprocess.TimeoutExpired, ValueError, LookupError, TypeError) as error:
                raise RuntimeUnavailableError(
                    f"the worker's Python '{python}' does not tell what protects a worker: {error}; "
                    "check that --worker-python is a Python"
                ) from error
        return told

    def check(self, python: str, missing: Mapping[str, str]) -> None:
        """Refuse a worker that lacks what is required.

        Raises:
            RuntimeUnavailableError: If any layer is missing and none may be.
        """
        if self.required and missing:
            raise RuntimeUnavailableError(
                f"--require-sandbox: a model under '{python}' would run without {in_words(missing)}; "
                "`edgenas-agent doctor` tells what to do"
            )


# For who only wants to know what a Python can import.
UNCONFINED = Confinement()


def in_words(missing: Mapping[str, str]) -> str:
    """Return missing layers for a person, each with the reason."""
    return ", ".join(f"{layer} ({reason})" for layer, reason in missing.items())
