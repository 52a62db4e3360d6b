"""Jobs that were accepted and have not ended, in a SQLite file: an agent that comes back goes on where it was.

Most writes reach the disk when the system likes, unlike the history's: a flush while a model is timed would disturb it. They
survive the end of the agent, however that comes. After a power cut a job may be missing, and a host that still wants it asks
again with the same request id.
"""

import contextlib
import enum
import logging
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from device_agent.errors import JournalError, StartupError

logger = logging.getLogger(__name__)

JOURNAL_FILE = "jobs.sqlite"
SCHEMA_VERSION = 1
LOCK_WAIT_S = 5.0
# Lost jobs that nobody asks for any more go when so many are newer.
REMEMBERED_LOST = 1000
CREATE = """
    CREATE TABLE IF NOT EXISTS jobs (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        request_id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        state TEXT NOT NULL,
        request BLOB NOT NULL
    )
"""


class JobState(enum.Enum):
    """What is known of a job that has not ended."""

    WAITING = "waiting"
    RUNNING = "running"
    # It was running when the agent ended. Its host has not been told.
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One job; `request` is encoded."""

    request_id: str
    owner: str
    state: JobState
    request: bytes


class Journal:
    """The open journal. May be used from any thread; its owner calls `close()`."""

    def __init__(self, path: Path) -> None:
        """Open the journal, creating it where there is none.

        Raises:
            StartupError: If it cannot be opened or is none.
        """
        self._path = path
        self._lock = threading.Lock()
        try:
            self._database = sqlite3.connect(
                path, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False
            )
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise StartupError(
                    f"the journal '{path}' has format {version}, this agent reads {SCHEMA_VERSION}; run the newer agent, or "
                    "move the file away to start without the jobs that wait"
                )
            self._database.execute(CREATE)
            self._database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._database.execute(
                "DELETE FROM jobs WHERE state = ? AND sequence <= (SELECT max(sequence) FROM jobs) - ?",
                (JobState.LOST.value, REMEMBERED_LOST),
            )
        except sqlite3.Error as error:
            raise StartupError(
                f"cannot read the journal '{path}': {error}; move the file away to start without the jobs that wait"
            ) from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def entries(self) -> Sequence[JournalEntry]:
        """Return every job that has not ended, in the order in which they were accepted.

        Raises:
            JournalError: If the journal cannot be read.
        """
        with self._access() as database:
            rows = database.execute(
                "SELECT request_id, owner, state, request FROM jobs ORDER BY sequence"
            ).fetchall()
        known = {state.value: state for state in JobState}
        return [
            JournalEntry(
                request_id=request_id, owner=owner, state=known.get(state, JobState.LOST), request=request
            )
            for request_id, owner, state, request in rows
        ]

    def add(self, request_id: str, owner: str, request: bytes) -> None:
        """Note a job that is about to be accepted.

        Raises:
            JournalError: If it cannot be written.
        """
        with self._access() as database:
            database.execute(
                "INSERT OR REPLACE INTO jobs (request_id, owner, state, request) VALUES (?, ?, ?, ?)",
                (request_id, owner, JobState.WAITING.value, request),
            )

    def note(self, request_id: str, state: JobState) -> None:
        """Note that a job waits, runs or is lost. Where that fails, the journal is behind, and the log tells.

        That it runs is on the disk when this returns, when nothing is timed yet: a model that takes the board down must not
        find its job waiting once more.
        """
        durably = state is JobState.RUNNING
        self._try("UPDATE jobs SET state = ? WHERE request_id = ?", state.value, request_id, durably=durably)

    def end(self, request_id: str) -> None:
        """Note that a job has ended. Where that fails, the journal is behind, and the log tells."""
        self._try("DELETE FROM jobs WHERE request_id = ?", request_id)

    def _try(self, statement: str, *values: str, durably: bool = False) -> None:
        try:
            with self._access() as database:
                database.execute(f"PRAGMA synchronous = {'FULL' if durably else 'NORMAL'}")
                database.execute(statement, values)
        except JournalError as error:
            # What was measured matters more, and an entry that is left is found in the history at the next start.
            logger.error("%s", error)

    @contextlib.contextmanager
    def _access(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._database
            except sqlite3.Error as error:
                raise JournalError(
                    f"the journal '{self._path}' cannot be used: {error}; make sure that its disk has room and can be "
                    "written, or move the state with --state-dir"
                ) from error
