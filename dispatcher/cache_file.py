"""The file of a cache: keys and replies, bounded by their bytes; the oldest used go first.

SQLite in WAL mode. Any number of processes use one file; each has one connection, in one thread.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from llmdispatcher import ledger_file

APPLICATION_ID = 0x6C6C6D63
"""The letters llmc; a file of another program is left alone."""

VERSION = 1

ROW_BYTES = 128
"""Counted for a row beside its reply: its key, its times and its places in two indexes."""

LARGEST = 4
"""A reply that alone takes more than a so-manieth part of the cache is not kept."""

EVICTED = 16
"""Rows that go at once where there is no room."""

LOCK_WAIT_S = 0.5
"""For another process that writes; a reply that is not kept is no loss."""

_SCHEMA = (
    """CREATE TABLE replies (
        key BLOB PRIMARY KEY,
        body BLOB NOT NULL,
        size INTEGER NOT NULL,
        stored_s REAL NOT NULL,
        used_s REAL NOT NULL
    )""",
    "CREATE INDEX replies_by_use ON replies (used_s)",
    "CREATE TABLE sums (bytes INTEGER NOT NULL)",
    "INSERT INTO sums VALUES (0)",
    """CREATE TRIGGER added AFTER INSERT ON replies
        BEGIN UPDATE sums SET bytes = bytes + new.size; END""",
    """CREATE TRIGGER removed AFTER DELETE ON replies
        BEGIN UPDATE sums SET bytes = bytes - old.size; END""",
    f"PRAGMA application_id={APPLICATION_ID}",
    f"PRAGMA user_version={VERSION}",
)


class Unusable(Exception):
    """The file is not one of ours. ``kind`` is a word of ``CacheTrouble``."""

    def __init__(self, kind: str, what: str) -> None:
        self.kind = kind
        super().__init__(what)


FAILURES = (sqlite3.Error, OSError, Unusable)


def default_path() -> Path:
    """Return where replies are kept: ``llmdispatcher/replies.sqlite3`` in the user's cache folder.

    That is ``~/.cache`` on Linux, ``~/Library/Caches`` on macOS.
    """
    import platformdirs  # noqa: PLC0415 - on first use

    return platformdirs.user_cache_path("llmdispatcher", appauthor=False) / "replies.sqlite3"


def kind_of(error: sqlite3.Error | OSError | Unusable) -> str:
    """Return the word of ``CacheTrouble`` for an error."""
    if isinstance(error, Unusable):
        return error.kind
    return ledger_file.trouble_of(error, Path()).kind


class CacheFile:
    """The file, and this process's connection to it. Used by one thread; raises ``FAILURES``."""

    def __init__(
        self, path: Path, max_bytes: int, ttl_s: float | None, wall: Callable[[], float]
    ) -> None:
        self.path, self._max_bytes, self._ttl_s, self._wall = path, max_bytes, ttl_s, wall
        self._connection: sqlite3.Connection | None = None

    def get(self, key: bytes) -> tuple[bytes, float] | None:
        """Return a reply and when it was stored; None if there is none, or it is too old."""
        row = (
            self._open()
            .execute("SELECT body, stored_s FROM replies WHERE key = ?", (key,))
            .fetchone()
        )
        if row is None or (self._ttl_s is not None and self._wall() - row[1] > self._ttl_s):
            return None
        return bytes(row[0]), float(row[1])

    def touch(self, key: bytes) -> None:
        """Note that a reply was used just now, so that others go before it."""
        self._open().execute("UPDATE replies SET used_s = ? WHERE key = ?", (self._wall(), key))

    def put(self, key: bytes, body: bytes) -> bool:
        """Keep a reply, instead of the one that was there, and make room; False if too large."""
        size, now_s = len(body) + ROW_BYTES, self._wall()
        if size * LARGEST > self._max_bytes:
            return False
        connection = self._open()
        with _transaction(connection):
            connection.execute("DELETE FROM replies WHERE key = ?", (key,))
            if self._ttl_s is not None:
                old_s = now_s - self._ttl_s
                connection.execute("DELETE FROM replies WHERE stored_s < ?", (old_s,))
            row = (key, body, size, now_s, now_s)
            connection.execute("INSERT INTO replies VALUES (?, ?, ?, ?, ?)", row)
            while self._taken(connection) > self._max_bytes:
                connection.execute(
                    "DELETE FROM replies WHERE rowid IN"
                    " (SELECT rowid FROM replies WHERE key != ? ORDER BY used_s LIMIT ?)",
                    (key, EVICTED),
                )
        return True

    def _taken(self, connection: sqlite3.Connection) -> int:
        return int(connection.execute("SELECT bytes FROM sums").fetchone()[0])

    def move_aside(self) -> Path | None:
        """Give a corrupt file another name, unless another process did; return the new name."""
        self.close()
        return ledger_file.move_aside(self.path)

    def close(self) -> None:
        """Close the connection. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):  # what was committed is in the file
                connection.close()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            ledger_file.make(self.path)
            connection = sqlite3.connect(
                self.path, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False
            )
            with contextlib.ExitStack() as undo:
                undo.callback(connection.close)
                _check(connection)
                ledger_file.write_ahead(connection, LOCK_WAIT_S)
                connection.execute("PRAGMA synchronous=NORMAL")
                _lay_out(connection)
                undo.pop_all()
            self._connection = connection
        return self._connection


def _check(connection: sqlite3.Connection) -> bool:
    """Return whether the tables are there. Raises Unusable where they are not ours."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if tables and owner != APPLICATION_ID:
        raise Unusable("unusable", "it is a database of another program")
    if version > VERSION:
        raise Unusable("newer", f"its schema is {version}, and {VERSION} is known here")
    return bool(tables)


def _lay_out(connection: sqlite3.Connection) -> None:
    """Make the tables, once, whichever process comes first."""
    if _check(connection):
        return
    with _transaction(connection):
        if not _check(connection):
            for statement in _SCHEMA:
                connection.execute(statement)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        ledger_file.roll_back(connection)
