"""One agent a state directory: two would measure against each other."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from device_agent.errors import StartupError


@contextlib.contextmanager
def holding(state_dir: Path) -> Iterator[None]:
    """Create the state directory where it is missing and hold it against other agents.

    Raises:
        StartupError: If another agent has it, or it cannot be written.
    """
    path = state_dir / "lock"
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock = path.open("a+", encoding="ascii")
    except OSError as error:
        raise StartupError(
            f"cannot write the state directory '{state_dir}': {error.strerror}; choose another --state-dir"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise StartupError(
                f"the state directory '{state_dir}' is in use by the agent with process id {lock.read().strip()}; "
                "stop that agent or choose another --state-dir"
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield
