"""Finished benchmarks in a SQLite file. It stores what `wire` encodes and never looks inside.

A record is what a measurement cost, and a thousand of them, raw samples included, are some tens of megabytes: they
are kept until all of them exceed a limit. Then the oldest go. Their pages are filled again by the next records, so
that the file stays as large as it is; to shrink it each time would write everything twice, which wears out an SD
card. It shrinks when the agent starts, which is when the limit may have been lowered. A file that an older agent began
cannot shrink, but stops growing.
"""

import contextlib
import logging
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from device_agent.errors import HistoryError, InvalidRequestError, StartupError
from device_agent.text import shown

logger = logging.getLogger(__name__)

HISTORY_FILE = "history.sqlite"
SCHEMA_VERSION = 2
LOCK_WAIT_S = 5.0
MIB = 1 << 20
CREATE = (
    """
    CREATE TABLE benchmarks (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        request_id TEXT NOT NULL UNIQUE,
        model_sha256 TEXT NOT NULL,
        runtime TEXT NOT NULL,
        started_at REAL NOT NULL,
        request BLOB NOT NULL,
        summary BLOB NOT NULL,
        record BLOB NOT NULL
    )
    """,
    "CREATE INDEX benchmarks_by_model ON benchmarks (model_sha256)",
)
# An agent of version 1 may still run and write: what it does not tell stays unknown.
UPGRADE = (
    "ALTER TABLE benchmarks ADD COLUMN model_name TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE benchmarks ADD COLUMN flagged INTEGER",
    "CREATE INDEX benchmarks_by_name ON benchmarks (model_name)",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
# Sequences are never used again, so that the token of a page means the same whatever was removed since.
REMOVE_OLDEST = (
    "DELETE FROM benchmarks WHERE sequence = (SELECT min(sequence) FROM benchmarks)"
    " AND sequence < (SELECT max(sequence) FROM benchmarks)"
)
FILL = "UPDATE benchmarks SET model_name = name_in(summary), flagged = flagged_in(summary)"


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One finished benchmark, encoded.

    `request` is what was asked, before defaults; `summary` is the record without raw samples; `flagged`
    tells whether its measurement carries any flag.
    """

    request_id: str
    model_sha256: str
    model_name: str
    runtime: str
    started_at: datetime
    flagged: bool
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

    def __init__(
        self,
        path: Path,
        labels_in: Callable[[bytes], tuple[str, bool]] | None = None,
        *,
        limit_bytes: int | None = None,
    ) -> None:
        """Open the history, creating it where there is none and upgrading it where it is an older one.

        Args:
            path: The file.
            labels_in: Returns the model's name and whether there are flags, of an encoded summary; for the
                upgrade of a history that does not tell them.
            limit_bytes: Size from which on the oldest benchmarks are removed, but never the newest; None removes
                nothing.

        Raises:
            StartupError: If the file cannot be opened or is not a history that this version reads.
        """
        self._path = path
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        try:
            # Autocommit: every statement is durable when it returns.
            self._database = sqlite3.connect(
                path, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise StartupError(f"cannot open the history '{path}': {error}") from error
        try:
            self._prepare(labels_in)
            if limit_bytes is not None:
                self._trim()
                self._shrink()
        except sqlite3.Error as error:
            self._database.close()
            raise StartupError(
                f"cannot read the history '{path}': {error}; "
                "move the file away to start with an empty history"
            ) from error
        except StartupError:
            self._database.close()
            raise

    def _prepare(self, labels_in: Callable[[bytes], tuple[str, bool]] | None) -> None:
        if not self._pragma("page_count"):
            # Heeded in an empty file alone. In any other it would be a write, which a full disk does not take.
            self._database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._database.execute("PRAGMA journal_mode = WAL")
        # A record that was announced must survive a power cut, which WAL's default does not promise.
        self._database.execute("PRAGMA synchronous = FULL")
        version = self._pragma("user_version")
        if version == 0 or (version == 1 and labels_in is not None):
            self._upgrade(labels_in)
        elif version < SCHEMA_VERSION:
            raise StartupError(
                f"the history '{self._path}' has format {version}, which the agent brings to {SCHEMA_VERSION} when it "
                "starts; start it once"
            )
        elif version > SCHEMA_VERSION:
            raise StartupError(
                f"the history '{self._path}' has format {version}, this agent reads {SCHEMA_VERSION}; "
                "run the newer agent or choose another --state-dir"
            )

    def _upgrade(self, labels_in: Callable[[bytes], tuple[str, bool]] | None) -> None:
        """Bring the file to this version's format, all of it or, where something fails, nothing of it."""
        if labels_in is not None:
            self._database.create_function("name_in", 1, lambda summary: labels_in(summary)[0])
            self._database.create_function("flagged_in", 1, lambda summary: labels_in(summary)[1])
        with self._transaction():
            # Asked once more: another process may have been faster.
            version = self._pragma("user_version")
            statements = {0: (*CREATE, *UPGRADE), 1: (*UPGRADE, FILL)}.get(version, ())
            for statement in statements:
                self._database.execute(statement)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Change all of it or, where something fails, nothing of it."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except sqlite3.Error:
            # A full disk ends the transaction by itself.
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def _pragma(self, name: str) -> int:
        (value,) = self._database.execute(f"PRAGMA {name}").fetchone()
        return int(value)

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
                raise HistoryError(
                    f"the history '{self._path}' cannot be used: {error}; make sure that its disk has room and can be "
                    "written, or move the state with --state-dir"
                ) from error

    def add(self, entry: HistoryEntry) -> None:
        """Store a finished benchmark; it is on the disk when this returns. The oldest may have gone for it.

        Raises:
            HistoryError: If it cannot be written.
        """
        with self._access() as database:
            database.execute(
                "INSERT INTO benchmarks"
                " (request_id, model_sha256, model_name, runtime, started_at, flagged, request, summary, record)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    entry.request_id,
                    entry.model_sha256,
                    entry.model_name,
                    entry.runtime,
                    entry.started_at.timestamp(),
                    entry.flagged,
                    entry.request,
                    entry.summary,
                    entry.record,
                ),
            )
            if self._limit_bytes is not None:
                self._trim()

    def _trim(self) -> None:
        """Remove the oldest benchmarks that exceed the limit. Where that fails, all stay, and the next time tries."""
        assert self._limit_bytes is not None
        removed = 0
        try:
            if self._used_bytes() <= self._limit_bytes:
                return
            with self._transaction():
                while (
                    self._used_bytes() > self._limit_bytes and self._database.execute(REMOVE_OLDEST).rowcount
                ):
                    removed += 1
        except sqlite3.Error as error:
            logger.warning("cannot remove the oldest benchmarks from the history '%s': %s", self._path, error)
            return
        if removed:
            limit_mib = self._limit_bytes / MIB
            logger.info(
                "removed %d of the oldest benchmarks: the history may have %g MiB", removed, limit_mib
            )

    def _shrink(self) -> None:
        """Give the pages that nothing needs back to the disk."""
        try:
            # As a script: `execute` takes one step, which frees one page.
            self._database.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            logger.warning("cannot shrink the history '%s': %s", self._path, error)

    def _used_bytes(self) -> int:
        used_pages = self._pragma("page_count") - self._pragma("freelist_count")
        return used_pages * self._pragma("page_size")

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
        model_name: str = "",
        runtime: str = "",
        started_after: datetime | None = None,
        started_before: datetime | None = None,
        flagged: bool | None = None,
    ) -> Page:
        """Return one page, newest first. Benchmarks that finish or are removed meanwhile never shift a later page.

        Args:
            size: Largest number of benchmarks in the page, at least 1.
            token: The page before's `next_token`; empty for the first page.
            model_sha256: Only this model; empty for all.
            model_name: Only models of this name; empty for all.
            runtime: Only this runtime; empty for all.
            started_after: Only benchmarks started then or later; None for all.
            started_before: Only benchmarks started earlier; None for all.
            flagged: Only benchmarks with flags, or only those without any; None for all.

        Raises:
            InvalidRequestError: If the token is none that a page carried.
            HistoryError: If the history cannot be read.
        """
        if not re.fullmatch(r"\d{0,18}", token):
            raise InvalidRequestError(
                f"page_token '{shown(token)}' is unknown; use the next_page_token of the page before, or leave it empty"
            )
        conditions = {
            "sequence < ?": int(token) if token else None,
            "model_sha256 = ?": model_sha256 or None,
            "model_name = ?": model_name or None,
            "runtime = ?": runtime or None,
            "started_at >= ?": started_after.timestamp() if started_after is not None else None,
            "started_at < ?": started_before.timestamp() if started_before is not None else None,
            "flagged = ?": flagged,
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
