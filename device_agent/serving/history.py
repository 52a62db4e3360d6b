"""Finished benchmarks in a SQLite file. It stores what `wire` encodes and never looks inside."""

import contextlib
import re
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from device_agent.errors import HistoryError, InvalidRequestError, StartupError

HISTORY_FILE = "history.sqlite"
SCHEMA_VERSION = 1
LOCK_WAIT_S = 5.0
SCHEMA = f"""
BEGIN;
CREATE TABLE benchmarks (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id TEXT NOT NULL UNIQUE,
    model_sha256 TEXT NOT NULL,
    runtime TEXT NOT NULL,
    started_at REAL NOT NULL,
    request BLOB NOT NULL,
    summary BLOB NOT NULL,
    record BLOB NOT NULL
);
CREATE INDEX benchmarks_by_model ON benchmarks (model_sha256);
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One finished benchmark, encoded.

    `request` is what was asked, before defaults; `summary` is the record without raw samples.
    """

    request_id: str
    model_sha256: str
    runtime: str
    started_at: datetime
    request: bytes
    summary: bytes
    record: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Encoded summaries, newest first, and the token of the next page, empty on the last."""

    summaries: tuple[bytes, ...]
    next_token: str


class History:
    """The open history. Its methods may be called from any thread; its owner calls `close()`."""

    def __init__(self, path: Path) -> None:
        """Open the history, creating it where there is none.

        Raises:
            StartupError: If the file cannot be opened or is not a history that this version reads.
        """
        self._path = path
        self._lock = threading.Lock()
        try:
            # Autocommit: every statement is durable when it returns.
            self._database = sqlite3.connect(
                path, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise StartupError(f"cannot open the history '{path}': {error}") from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._database.close()
            raise StartupError(
                f"cannot read the history '{path}': {error}; "
                "move the file away to start with an empty history"
            ) from error
        except StartupError:
            self._database.close()
            raise

    def _prepare(self) -> None:
        self._database.execute("PRAGMA journal_mode = WAL")
        # A record that was announced must survive a power cut, which WAL's default does not promise.
        self._database.execute("PRAGMA synchronous = FULL")
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._database.executescript(SCHEMA)
        elif version != SCHEMA_VERSION:
            raise StartupError(
                f"the history '{self._path}' has format {version}, this agent reads {SCHEMA_VERSION}; "
                "run the newer agent or choose another --state-dir"
            )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    @contextlib.contextmanager
    def _access(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._database
            except sqlite3.Error as error:
                raise HistoryError(f"the history '{self._path}' cannot be used: {error}") from error

    def add(self, entry: HistoryEntry) -> None:
        """Store a finished benchmark; it is on the disk when this returns.

        Raises:
            HistoryError: If it cannot be written.
        """
        with self._access() as database:
            database.execute(
                "INSERT INTO benchmarks"
                " (request_id, model_sha256, runtime, started_at, request, summary, record)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    entry.request_id,
                    entry.model_sha256,
                    entry.runtime,
                    entry.started_at.timestamp(),
                    entry.request,
                    entry.summary,
                    entry.record,
                ),
            )

    def find(self, request_id: str) -> tuple[bytes, bytes] | None:
        """Return the encoded request and record of a finished benchmark, or None where there is none.

        Raises:
            HistoryError: If the history cannot be read.
        """
        with self._access() as database:
            row: tuple[bytes, bytes] | None = database.execute(
                "SELECT request, record FROM benchmarks WHERE request_id = ?", (request_id,)
            ).fetchone()
        return row

    def page(
        self,
        *,
        size: int,
        token: str = "",
        model_sha256: str = "",
        runtime: str = "",
        started_after: datetime | None = None,
    ) -> Page:
        """Return one page, newest first. Benchmarks that finish meanwhile never shift a later page.

        Args:
            size: Largest number of benchmarks in the page, at least 1.
            token: The page before's `next_token`; empty for the first page.
            model_sha256: Only this model; empty for all.
            runtime: Only this runtime; empty for all.
            started_after: Only benchmarks started then or later; None for all.

        Raises:
            InvalidRequestError: If the token is none that a page carried.
            HistoryError: If the history cannot be read.
        """
        if not re.fullmatch(r"\d{0,18}", token):
            raise InvalidRequestError(
                f"page_token '{token}' is unknown; use the next_page_token of the page before, or leave it empty"
            )
        conditions = {
            "sequence < ?": int(token) if token else None,
            "model_sha256 = ?": model_sha256 or None,
            "runtime = ?": runtime or None,
            "started_at >= ?": started_after.timestamp() if started_after is not None else None,
        }
        used = {text: value for text, value in conditions.items() if value is not None}
        where = f"WHERE {' AND '.join(used)}" if used else ""
        with self._access() as database:
            # By sequence, not by time: a board without a clock starts at any date. One row more than
            # asked for tells whether there is a next page.
            rows = database.execute(
                f"SELECT sequence, summary FROM benchmarks {where} ORDER BY sequence DESC LIMIT ?",
                (*used.values(), size + 1),
            ).fetchall()
        more = len(rows) > size
        return Page(
            summaries=tuple(summary for _, summary in rows[:size]),
            next_token=str(rows[size - 1][0]) if more else "",
        )
