"""The ledger's file: where it is, who may read it, its schema, and what can be wrong with it.

SQLite in WAL mode, one connection for each process that writes. The schema has a version; a file of
an older one is brought up step by step, in one transaction; a newer one is refused. A file that is
corrupt is moved aside when that is asked for, and never deleted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from llmdispatcher.ledger_schema import APPLICATION_ID, STEPS, VERSION

SUFFIXES = ("", "-wal", "-shm")
"""Of the files that SQLite keeps a database in."""

PAUSE_S = 0.01
"""Between two tries of what SQLite itself does not wait for."""

_KINDS = {
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_READONLY: "read-only",
    sqlite3.SQLITE_CANTOPEN: "read-only",
    sqlite3.SQLITE_PERM: "read-only",
    sqlite3.SQLITE_CORRUPT: "corrupt",
    sqlite3.SQLITE_NOTADB: "corrupt",
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_IOERR_WRITE: "full",
    sqlite3.SQLITE_IOERR_SHMSIZE: "full",
}
_ERRNOS = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EFBIG: "full",
    errno.EACCES: "read-only",
    errno.EPERM: "read-only",
    errno.EROFS: "read-only",
    errno.ENOTDIR: "read-only",
    errno.EEXIST: "read-only",  # a file is where a folder should be
}
_WAYS_OUT = {
    "full": "make room on its disk, or lift the limit on the size of files",
    "read-only": "let this user write there, or choose another place with Ledger(path)",
    "corrupt": "move it away, or restore it from a copy; on_trouble='degrade' moves it aside",
    "locked": "another process holds it; end what keeps it open, or wait longer with lock_wait_s",
    "newer": "update llmdispatcher, or choose another place with Ledger(path)",
    "unusable": "choose another place with Ledger(path)",
}


class Trouble(Exception):
    """The ledger cannot be used now. ``kind`` is a word of ``LedgerTrouble``."""

    def __init__(self, kind: str, path: Path, what: str) -> None:
        self.kind = kind
        super().__init__(f"the ledger {path} cannot be used: {what}; {_WAYS_OUT[kind]}")


def default_path() -> Path:
    """Return where the ledger is kept: ``llmdispatcher/ledger.sqlite3`` in the user's data folder.

    That is ``~/.local/share`` on Linux, ``~/Library/Application Support`` on macOS.
    """
    import platformdirs  # noqa: PLC0415 - on first use

    return platformdirs.user_data_path("llmdispatcher", appauthor=False) / "ledger.sqlite3"


def trouble_of(error: sqlite3.Error | OSError | Trouble, path: Path) -> Trouble:
    """Say what an error means for the ledger, by its code."""
    if isinstance(error, Trouble):
        return error
    if isinstance(error, OSError):
        return Trouble(_ERRNOS.get(error.errno or 0, "unusable"), path, error.strerror or "")
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    name = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
    kind = _KINDS.get(code) or _KINDS.get(code & 0xFF, "unusable")
    return Trouble(kind, path, f"{error} ({name})")


class LedgerFile:
    """The file and this process's connection to it. Used by one thread at a time."""

    def __init__(self, path: Path, lock_wait_s: float) -> None:
        self.path, self._lock_wait_s = path, lock_wait_s
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self.was_replaced = False
        """Somebody moved or deleted the file while it was open here."""

    def connect(self) -> sqlite3.Connection:
        """Return a connection to the file that is at the path now, made if there is none.

        Raises sqlite3.Error, OSError or Trouble.
        """
        if self._connection is not None and self._inode == _inode(self.path):
            return self._connection
        self.was_replaced = self._connection is not None
        self.close()  # what is written where it was moved to nobody would see
        make(self.path)
        connection = sqlite3.connect(
            self.path, timeout=self._lock_wait_s, isolation_level=None, check_same_thread=False
        )
        with contextlib.ExitStack() as undo:
            undo.callback(connection.close)
            self._set_up(connection)
            self.path.chmod(0o600)
            undo.pop_all()
        self._inode, self._connection = _inode(self.path), connection
        return connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        version = check(connection, self.path)  # before anything is changed: it may not be ours
        write_ahead(connection, self._lock_wait_s)
        if version < VERSION:
            migrate(connection, self.path, STEPS)

    def close(self) -> None:
        """Close the connection. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):  # what was committed is in the file
                connection.close()

    def move_aside(self) -> Path | None:
        """Give a corrupt file another name, unless somebody did so already; return the new name.

        Raises OSError.
        """
        self.close()
        return move_aside(self.path)


def move_aside(path: Path) -> Path | None:
    """Give a corrupt file, that is not open here, another name; see ``LedgerFile.move_aside``."""
    import fcntl  # noqa: PLC0415 - POSIX only, as the rest of this

    with path.with_name(f"{path.name}.aside").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_sound(path):
            return None
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        aside = path.with_name(f"{path.name}.corrupt-{stamp}-{os.getpid()}")
        for suffix in reversed(SUFFIXES):  # a log without its database harms nobody
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + suffix).rename(f"{aside}{suffix}")
        return aside


def is_sound(path: Path) -> bool:
    """Whether SQLite finds nothing wrong with a file, which is so for one that does not exist."""
    if not path.exists():
        return True
    try:
        with contextlib.closing(reading(path)) as connection:
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
    except sqlite3.DatabaseError as error:
        return trouble_of(error, path).kind != "corrupt"


def reading(path: Path, lock_wait_s: float = 5.0) -> sqlite3.Connection:
    """Return a connection that cannot change anything. Raises sqlite3.Error."""
    uri = f"{path.absolute().as_uri()}?mode=rw"  # reading a log may take writing its index
    connection = sqlite3.connect(uri, uri=True, timeout=lock_wait_s, isolation_level=None)
    connection.execute("PRAGMA query_only=ON")
    return connection


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def make(path: Path) -> None:
    """Make the file, and its folder, so that only their owner can read them."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A file that exists is not opened: closing it would end the locks of SQLite in this process.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def check(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of the schema, 0 for an empty file. Raises Trouble if it is not ours."""
    with contextlib.ExitStack() as end:
        if not connection.in_transaction:  # at one moment: another process may be making it
            connection.execute("BEGIN")
            end.callback(roll_back, connection)
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (owner,) = connection.execute("PRAGMA application_id").fetchone()
    if owner != APPLICATION_ID:
        if owner or tables or version:
            raise Trouble("unusable", path, "it is a database of another program")
    elif version > VERSION:
        raise Trouble("newer", path, f"its schema is {version}, and {VERSION} is known here")
    return int(version)


def write_ahead(connection: sqlite3.Connection, wait_s: float) -> None:
    """Switch to WAL, which SQLite does not wait for where several processes do so at once."""
    until_s = time.monotonic() + wait_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until_s:
                raise
            time.sleep(PAUSE_S)
        else:
            return


def migrate(connection: sqlite3.Connection, path: Path, steps: Sequence[Sequence[str]]) -> None:
    """Bring the schema up by the steps that it lacks, all or none. Raises sqlite3.Error."""
    with contextlib.ExitStack() as undo:
        connection.execute("BEGIN IMMEDIATE")
        undo.callback(roll_back, connection)
        version = check(connection, path)  # another process may have been quicker
        for number, step in enumerate(steps[version:], version + 1):
            for statement in step:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={number}")
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute("COMMIT")


def roll_back(connection: sqlite3.Connection) -> None:
    """Undo what is not committed; nothing after a commit."""
    with contextlib.suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")
