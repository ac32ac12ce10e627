"""The ledger when its file cannot be used: full, read-only, corrupt, locked, newer, moved."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Barrier, Event, Thread

import pytest
from books import NOON_S, PATIENCE_S, ask, audit, closed, opening, read, until

from llmdispatcher import BudgetExceeded, LedgerUnusable, SpendingCap
from llmdispatcher.budget import Worst
from llmdispatcher.ledger import Ledger
from llmdispatcher.ledger_file import LedgerFile, Trouble, is_sound, migrate
from llmdispatcher.ledger_schema import STEPS, VERSION
from llmdispatcher.models.event import LedgerTrouble

Make = Callable[..., Ledger]

DAY = SpendingCap("0.0005", period="day")


class Told(list[object]):
    """What was reported."""

    @property
    def kinds(self) -> list[str]:
        """Of troubles, in order."""
        return [event.kind for event in self if isinstance(event, LedgerTrouble)]


@pytest.fixture
def told() -> Told:
    """Listens."""
    return Told()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the ledger is."""
    return tmp_path / "data" / "ledger.sqlite3"


@pytest.fixture
def make(path: Path, told: Told) -> Iterator[Make]:
    """Make ledgers that are closed at the end."""
    made: list[Ledger] = []

    def one(*caps: SpendingCap, **options: object) -> Ledger:
        given = {"report": told.append, "wall": lambda: NOON_S, "lock_wait_s": 0.05, **options}
        made.append(Ledger(path, caps=caps, **given))  # type: ignore[arg-type]
        return made[-1]

    yield one
    for ledger in made:
        ledger.close()


def _file_as_folder(path: Path) -> None:
    """Nobody, root included, can make a file in what is no folder."""
    path.parent.write_text("in the way")


def _another_database(path: Path) -> None:
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()


def _newer(path: Path) -> None:
    LedgerFile(path, 1).connect().close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={VERSION + 1}")
    connection.close()


def _garbage(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"This is no database, and never was one. " * 500)


BAD = {
    "read-only": _file_as_folder,
    "unusable": _another_database,
    "newer": _newer,
    "corrupt": _garbage,
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("caps", [(), (DAY,)], ids=["uncapped", "capped"])
def test_strict_spends_nothing_that_it_could_not_write(
    make: Make, path: Path, told: Told, kind: str, caps: tuple[SpendingCap, ...]
) -> None:
    """Already the first attempt is refused, with cause and way out; the file is left alone."""
    BAD[kind](path)
    before = path.parent.read_bytes() if path.parent.is_file() else path.read_bytes()
    ledger = make(*caps)

    for _ in range(3):
        with pytest.raises(LedgerUnusable, match=str(path)) as refused:
            ask(ledger)

    assert told.kinds == [kind]
    assert ";" in str(refused.value)
    assert before == (path.parent.read_bytes() if path.parent.is_file() else path.read_bytes())


@pytest.mark.parametrize("kind", ["read-only", "unusable", "newer"])
def test_degrade_goes_on_within_the_caps_and_writes_later(
    make: Make, path: Path, told: Told, kind: str
) -> None:
    """Five calls pass on a budget for five, the sixth does not; once mended, all are rows."""
    BAD[kind](path)
    ledger = make(DAY, on_trouble="degrade")
    slips = [ask(ledger) for _ in range(5)]
    with pytest.raises(BudgetExceeded):
        ask(ledger)
    for slip in slips:
        ledger.settle(slip, closed(80))
    ask(ledger)
    until(lambda: told.kinds)  # the thread that found out may be about to tell of it
    assert told.kinds == [kind]
    until(lambda: ledger.kept == 11)  # but for a moment in which they are tried
    assert not ledger.flush()

    if path.parent.is_file():
        path.parent.unlink()
    else:
        path.unlink()

    until(lambda: not ledger.trouble)
    assert ledger.flush()
    assert audit(path) == {"served": 5, "open": 1}
    until(lambda: told.kinds == [kind, "over"])
    with pytest.raises(BudgetExceeded):
        ask(ledger)


def test_degrade_moves_a_corrupt_file_aside(make: Make, path: Path, told: Told) -> None:
    """Under a name that says so, whole; a new ledger is begun, and the listener is told where."""
    _garbage(path)
    before = path.read_bytes()
    ledger = make(on_trouble="degrade", lock_wait_s=PATIENCE_S)  # it is read while it is made
    ledger.settle(ask(ledger), closed(1))
    until(lambda: path.exists() and is_sound(path) and ledger.flush())

    (aside,) = path.parent.glob("*.corrupt-*[0-9]")
    assert aside.read_bytes() == before
    assert audit(path) == {"served": 1}
    until(lambda: told.kinds == ["corrupt", "replaced", "over"])


def test_a_file_that_rots_while_it_is_open_is_moved_aside_once(
    make: Make, path: Path, told: Told
) -> None:
    """Two processes may find out at once: the second does not move the first one's new file."""
    one, two = make(on_trouble="degrade"), make(on_trouble="degrade")
    for ledger in (one, two):
        for _ in range(200):
            ledger.settle(ask(ledger), closed(1))
        assert ledger.flush()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    damaged = bytearray(path.read_bytes())
    damaged[4096:] = os.urandom(len(damaged) - 4096)
    with path.open("r+b") as file:
        file.write(damaged)

    for ledger in (one, two) * 3:
        ledger.settle(ask(ledger), closed(1))
        until(ledger.flush)

    assert len(list(path.parent.glob("*.corrupt-*[0-9]"))) == 1
    assert is_sound(path)
    assert audit(path).total() >= 6


@pytest.fixture
def lock(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the file, until its stdin ends."""
    LedgerFile(path, 1).connect().close()
    code = f"""
        import sqlite3, sys
        connection = sqlite3.connect({str(path)!r}, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        sys.stdout.write("held\\n"), sys.stdout.flush(), sys.stdin.read()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.communicate(timeout=PATIENCE_S)


def test_a_lock_of_another_process_is_waited_for_and_then_told(
    make: Make, path: Path, told: Told, lock: subprocess.Popen[bytes]
) -> None:
    """Strict refuses after ``lock_wait_s``, and goes on as before once the lock is gone."""
    ledger = make(DAY)
    with pytest.raises(LedgerUnusable, match="another process holds it"):
        ask(ledger)
    until(lambda: told.kinds == ["locked"])

    lock.communicate(timeout=PATIENCE_S)

    ledger.settle(ask(ledger), closed(100))
    ledger.flush()
    until(lambda: told.kinds == ["locked", "over"])
    assert audit(path) == {"served": 1}


def test_a_short_lock_is_no_trouble(make: Make, told: Told, lock: subprocess.Popen[bytes]) -> None:
    """Whoever asks meanwhile waits for it, and others do not block."""
    ledger = make(DAY, lock_wait_s=PATIENCE_S)
    slips = [ledger.open(opening(), lambda: Worst(100)) for _ in range(6)]
    lock.communicate(timeout=PATIENCE_S)

    errors = [slip.waiting.exception(PATIENCE_S) for slip in slips if slip.waiting is not None]

    assert [type(error) for error in errors] == [type(None)] * 5 + [BudgetExceeded]
    assert not told


FULL = """
    import resource, sys
    from books import *
    from llmdispatcher import *
    from llmdispatcher.ledger import Ledger
    told = []
    mode, path, cap = sys.argv[1], sys.argv[2], SpendingCap("1", period="day")
    ledger = Ledger(path, caps=[cap], on_trouble=mode, report=told.append, max_kept=300)
    ledger.settle(ask(ledger), closed(1))
    assert ledger.flush()
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    sent = 0
    try:
        for sent in range(1, 501):
            ledger.settle(ask(ledger), closed(1))
            if sent % 20 == 0:
                ledger.flush()
    except LedgerUnusable as error:
        assert "disk is full" in str(error) or "make room" in str(error), error
        sent -= 1
    until(lambda: [e for e in told if hasattr(e, "kind")])  # whoever wrote may be about to tell
    kinds = [event.kind for event in told if hasattr(event, "kind")]
    assert kinds[0] == "full", kinds
    lost = ledger.lost
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    until(ledger.flush)
    until(lambda: [e for e in told if getattr(e, "kind", "") == "over"])
    ledger.close()
    print(sent, lost)
"""
"""A disk is as good as full once no file may grow: the kernel refuses the write (EFBIG)."""


@pytest.mark.parametrize("mode", ["strict", "degrade"])
def test_a_full_disk_loses_nothing_that_fits_the_memory(tmp_path: Path, mode: str) -> None:
    """Strict stops spending; degrade goes on, and tells of every entry for which it has no room."""
    path = tmp_path / "ledger.sqlite3"
    tests = Path(__file__).parents[1]
    code = f"import sys; sys.path.append({str(tests)!r})\n{textwrap.dedent(FULL)}"
    done = subprocess.run(
        [sys.executable, "-c", code, mode, str(path)],
        capture_output=True,
        text=True,
        timeout=8 * PATIENCE_S,
        check=False,
    )
    assert not done.stderr
    sent, lost = map(int, done.stdout.split())

    fates = audit(path)

    if mode == "strict":
        assert 0 < sent < 500
        assert fates == {"served": sent + 1}
        assert lost == 0
    else:
        assert sent == 500
        assert lost > 0
        assert fates["served"] + fates["open"] + lost >= 501


def test_a_file_that_was_deleted_is_begun_anew_and_told(make: Make, path: Path, told: Told) -> None:
    """Nobody writes into a file that nobody can find."""
    ledger = make()
    ledger.settle(ask(ledger), closed(1))
    ledger.flush()
    for file in path.parent.iterdir():
        file.unlink()

    ledger.settle(ask(ledger), closed(1))
    ledger.flush()

    assert audit(path) == {"served": 1}
    until(lambda: told.kinds == ["replaced"])


def test_strict_keeps_what_it_cannot_write_and_stops_in_time(make: Make, path: Path) -> None:
    """Attempts that were in flight when the trouble came are kept, beyond any bound."""
    ledger = make(max_kept=3)
    slips = [ask(ledger) for _ in range(10)]
    ledger.flush()
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    _file_as_folder(path)

    for slip in slips:
        ledger.settle(slip, closed(1))
    assert not ledger.flush()
    with pytest.raises(LedgerUnusable):
        ask(ledger)

    path.parent.unlink()
    until(ledger.flush)
    assert audit(path) == {"served": 10}


def test_what_cannot_be_written_at_the_end_is_told(make: Make, path: Path, told: Told) -> None:
    """The last word of a ledger that is closed in trouble is how much was lost."""
    ledger = make(on_trouble="degrade")
    _file_as_folder(path)
    for _ in range(3):
        ledger.settle(ask(ledger), closed(1))
    ledger.close()

    assert told.kinds == ["read-only", "lost"]
    assert ledger.lost == 3


def test_a_listener_may_use_the_ledger(path: Path) -> None:
    """Reports come while nobody writes, so that looking from there does not lock up."""
    seen: list[object] = []

    def look(event: object) -> None:
        seen.append((event, ledger.flush(), ledger.kept))

    ledger = Ledger(path, caps=[SpendingCap("0.0001", period="day")], report=look)
    ledger.settle(ask(ledger), closed(100))
    thread = Thread(target=ledger.close)
    thread.start()
    thread.join(PATIENCE_S)

    assert not thread.is_alive()
    assert len(seen) == 3


def test_an_older_file_is_brought_up(path: Path) -> None:
    """Its rows stay; the steps that it lacks are taken, once, also by two processes at a time."""
    path.parent.mkdir()
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, path, STEPS[:1])
    connection.execute("INSERT INTO accounts VALUES ('all', '', '', 7, 0)")
    connection.close()
    files = [LedgerFile(path, 30) for _ in range(4)]
    start = Event()

    def connect(file: LedgerFile) -> None:
        start.wait()
        file.connect()

    threads = [Thread(target=connect, args=(file,)) for file in files]
    for thread in threads:
        thread.start()
    start.set()
    for thread in threads:
        thread.join()
    for file in files:
        file.close()

    assert read(path, "PRAGMA user_version") == [(VERSION,)]
    assert read(path, "SELECT count(*) FROM shared_state") == [(0,)]
    assert read(path, "SELECT spent_microusd FROM accounts") == [(7,)]


def test_many_may_make_the_same_file_at_once(tmp_path: Path) -> None:
    """Whoever looks while another one makes it sees nothing or a ledger, never a stranger's."""
    for number in range(30):
        path = tmp_path / f"ledger-{number}.sqlite3"
        files, start, errors = [LedgerFile(path, 30) for _ in range(8)], Barrier(8), list[object]()

        def connect(
            file: LedgerFile, start: Barrier = start, errors: list[object] = errors
        ) -> None:
            start.wait()
            try:
                file.connect()
            except (sqlite3.Error, OSError, Trouble) as error:
                errors.append(error)

        threads = [Thread(target=connect, args=(file,)) for file in files]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for file in files:
            file.close()
        assert not errors
        assert read(path, "PRAGMA user_version") == [(VERSION,)]


def test_a_step_that_fails_changes_nothing(path: Path) -> None:
    """All steps are one transaction."""
    path.parent.mkdir()
    connection = sqlite3.connect(path, isolation_level=None)
    broken = (*STEPS, ("CREATE TABLE more (a)", "THIS IS NO SQL"))

    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, path, broken)

    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    migrate(connection, path, STEPS)
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    connection.close()


def test_a_newer_file_is_refused_with_the_way_out(path: Path) -> None:
    """Nothing is guessed about a schema from the future."""
    _newer(path)

    with pytest.raises(Trouble, match=f"its schema is {VERSION + 1}.*update llmdispatcher"):
        LedgerFile(path, 1).connect()


KILLED = """
    import os, signal, sys
    from books import *
    from llmdispatcher import *
    from llmdispatcher.ledger import Ledger
    ledger = Ledger(sys.argv[1], caps=[SpendingCap("0.0005", period="day")], wall=lambda: NOON_S)
    slip = ask(ledger)
    ledger.settle(ask(ledger), closed(10))
    ledger.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_reserved_is_spent_as_soon_as_it_is_gone(
    make: Make, path: Path
) -> None:
    """Nobody waits for the time of expiry: process number and start tell that it has ended."""
    tests = Path(__file__).parents[1]
    code = f"import sys; sys.path.append({str(tests)!r})\n{textwrap.dedent(KILLED)}"
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=PATIENCE_S)
    assert done.returncode == -signal.SIGKILL
    assert audit(path) == {"open": 1, "served": 1}

    ledger = make(DAY)
    ledger.expire()

    assert audit(path) == {"expired": 1, "served": 1}
    assert read(path, "SELECT spent_microusd FROM accounts WHERE scope = 'all' AND start = ''") == [
        (110,)
    ]
    for _ in range(3):
        ask(ledger)
    with pytest.raises(BudgetExceeded):
        ask(ledger)


def test_a_living_process_keeps_its_reservation(make: Make, path: Path) -> None:
    """Others look, and see that it is there."""
    holder = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=-1)
    ledger = make(DAY)
    ask(ledger)
    own = read(path, "SELECT owner FROM attempts")[0][0]
    world, _, me = own.partition("/")
    stat = Path(f"/proc/{holder.pid}/stat").read_text().rpartition(")")[2].split()
    theirs = f"{world}/{holder.pid}:{stat[19]}"
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE attempts SET owner = ?", (theirs,))
    connection.close()
    assert me.startswith(f"{os.getpid()}:")

    ledger.expire()
    assert audit(path) == {"open": 1}
    holder.communicate(timeout=PATIENCE_S)
    ledger.expire()
    assert audit(path) == {"expired": 1}


@pytest.mark.parametrize("owner", ["", "/1:2", "elsewhere:1/1:2", "nonsense"])
def test_a_process_that_cannot_be_looked_at_is_not_taken_for_gone(
    make: Make, path: Path, owner: str
) -> None:
    """Of another machine or container, only the time of expiry tells."""
    ledger = make(DAY)
    ask(ledger)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE attempts SET owner = ?", (owner,))
    connection.close()

    ledger.expire()

    assert audit(path) == {"open": 1}
