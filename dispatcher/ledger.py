"""The ledger: every attempt a row in a file, and caps that hold in all processes that use it.

A flow opens an attempt before it sends anything, and settles it once, however it ends:

    slip = ledger.open(opening, worst)           # may raise BudgetExceeded
    if slip.waiting is not None:
        yield Wait(slip.waiting, limit_s)        # may raise BudgetExceeded, LedgerUnusable
    ...
    ledger.settle(slip, closing)                 # never waits, and never raises

Where a cap concerns the attempt, its worst case is set aside on disk before the future ends, so
that no number of threads and processes spends more than the cap. A reservation that nobody settles
counts as spent: once its process is provably gone, or after ``expire_s``. The truth, should it come
later, takes its place. Where no cap does, nothing waits, and rows are written some milliseconds
later: a process that is killed loses what it had not written, a clean end loses nothing.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from llmdispatcher import budget
from llmdispatcher.budget import Worst
from llmdispatcher.ledger_entry import Closing, Opening, Slip
from llmdispatcher.models.budget import SpendingCap
from llmdispatcher.models.check import path_of
from llmdispatcher.models.errors import BadRequest, LedgerUnusable
from llmdispatcher.models.event import BudgetAlert, LedgerTrouble

if TYPE_CHECKING:
    from llmdispatcher.ledger_jobs import Job
    from llmdispatcher.ledger_shared import Sharing
    from llmdispatcher.ledger_writer import Terms, Writer

EXPIRE_S = 3600.0
"""Longer than any attempt takes by the deadlines that hold by default."""

MAX_KEPT = 10_000
"""Entries kept in memory while the file cannot be written: some megabytes."""

Report = Callable[[BudgetAlert | LedgerTrouble], None]


def _nobody(_: BudgetAlert | LedgerTrouble) -> None:
    """Nobody listens."""


class _Ears:
    """Who is told of alerts and of trouble. The writer holds this and never the ledger itself."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._dispatchers: tuple[Report, ...] = ()
        self._closed: list[Report] = []

    def hear(self, event: BudgetAlert | LedgerTrouble) -> None:
        self._report(event)
        for report in self._dispatchers:
            report(event)

    def add(self, report: Report) -> None:
        """Tell one more, and forget those that were closed.

        Not sooner: what a closed one spent last may be written, and be told, only now.
        """
        gone, self._closed = self._closed, []
        self._dispatchers = (*(each for each in self._dispatchers if each not in gone), report)

    def leave(self, report: Report) -> None:
        self._closed.append(report)


class Ledger:
    """The ledger of a program. Any thread may use it, and a process that was forked."""

    def __init__(  # noqa: PLR0913 - what can be chosen, each by its name
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        caps: Iterable[SpendingCap] = (),
        on_trouble: str = "strict",
        expire_s: float = EXPIRE_S,
        lock_wait_s: float = 5.0,
        max_kept: int = MAX_KEPT,
        share: bool = False,
        report: Report = _nobody,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Keep books at ``path``, by default in the user's data folder; nothing is opened yet.

        ``on_trouble`` says what happens while the file cannot be written: "strict" refuses to send
        anything (``LedgerUnusable``), "degrade" goes on, holds to the caps what this process knows
        of, keeps up to ``max_kept`` entries in memory and writes them later; both are reported as
        ``LedgerTrouble``. ``lock_wait_s`` is how long another process may hold the file. ``wall``
        tells the time in seconds since 1970. ``report`` is told what the ``on_event`` of every
        dispatcher that uses this ledger is told as well. Raises BadRequest.

        With ``share``, breakers and the user's limits are shared with all programs that use this
        file and share too. Limits of a minute and of a day then hold for all of them together,
        exactly, by the names of vendor and model; give them the same ``Limits``. What is under way
        at once (``concurrency``, ``adaptive``) is counted by each program for itself. A breaker
        that moves in one program moves in the others within a second of their requests; the event
        ``BreakerMoved`` is told by the one that found out.
        """
        if on_trouble not in {"strict", "degrade"}:
            raise BadRequest("on_trouble", on_trouble, "'strict' or 'degrade'")
        self.caps = tuple(caps)
        for cap in self.caps:
            if not isinstance(cap, SpendingCap):
                raise BadRequest("caps", cap, "SpendingCap values")
        if not isinstance(share, bool):
            raise BadRequest("share", share, "True or False")
        from llmdispatcher.ledger_file import default_path  # noqa: PLC0415 - sqlite3 takes 5 ms

        self.path = path_of("path", path) if path is not None else default_path()
        self._is_strict, self._wall, self._ears = on_trouble == "strict", wall, _Ears(report)
        self._lock_wait_s, self._expire_s, self._max_kept = lock_wait_s, expire_s, max_kept
        self._shares = share
        # One for each process: a child that was forked has its own connection, thread and queue,
        # and leaves its parent's to the parent.
        self._writers: dict[int, Writer] = {}
        self._writer()  # its modules are loaded now, not in the first request
        self._end = weakref.finalize(self, _close, self._writers)  # also when Python ends

    def open(self, opening: Opening, worst: Callable[[], Worst]) -> Slip:
        """Enter an attempt that is about to be made. ``worst`` is only called where a cap asks.

        ``Slip.waiting`` ends when it may be sent. Raises BudgetExceeded for a worst case that is
        not known where a cap asks for it, and LedgerUnusable; then there is nothing to settle.
        """
        writer = self._writer()
        caps = budget.concerning(self.caps, opening.payer) if self.caps else ()
        reserved = budget.needed(caps, worst()) if caps else None
        is_full = self._is_strict and writer.kept >= self._max_kept
        if is_full and writer.trouble:
            raise LedgerUnusable(str(writer.trouble))
        slip = Slip(next(writer.entries), opening, caps)
        slip.started_s, slip.reserved = self._wall(), reserved
        slip.counted_s = max(slip.started_s, writer.latest_s)
        is_doubtful = self._is_strict and (writer.trouble is not None or not writer.is_proven)
        if caps or is_doubtful or is_full:  # full: after those that came before
            writer.put(_awaited(slip))
        return slip

    def settle(self, slip: Slip, closing: Closing) -> None:
        """Write down how an attempt ended: once, further calls do nothing. Never waits."""
        if slip.is_settled:
            return
        slip.is_settled = True
        from llmdispatcher.ledger_jobs import Settle  # noqa: PLC0415 - with the writer

        self._writer().put(Settle(slip, closing))

    def absorb(self, slips: Iterable[Slip]) -> None:
        """Note of attempts that failed that another one served their request. Never waits."""
        from llmdispatcher.ledger_jobs import Task  # noqa: PLC0415 - with the writer

        entries = [slip.entry for slip in slips]
        if entries:
            self._writer().put(Task(lambda book: book.absorb(entries)))

    def listen(self, report: Report) -> None:
        """Tell a dispatcher's listener of alerts and of trouble."""
        self._ears.add(report)

    def leave(self, report: Report) -> None:
        """Tell it no more, once what it spent is written. Never waits."""
        self._ears.leave(report)

    def sharing(self) -> Sharing | None:
        """Return what a dispatcher shares with others by this ledger; None where it does not."""
        if not self._shares:
            return None
        from llmdispatcher.ledger_shared import Sharing  # noqa: PLC0415 - few share

        return Sharing(lambda job: self._writer().put(job), self._wall)

    def flush(self) -> bool:
        """Wait until all that is kept is written; False if that cannot be done now."""
        return self._writer().flush()

    def expire(self) -> None:
        """Look now for reservations that nobody will settle, and wait for that. Raises as ``open``.

        The writer does so by itself, as long as anything is written.
        """
        self._do(lambda book: book.expire())

    def accept_clock(self) -> None:
        """Go by the machine's clock again, after it was put back on purpose, and wait for that.

        Until then, entries count for the day of the last one, so that nobody gets a budget again
        by putting the clock back. Raises LedgerUnusable.
        """
        self._do(lambda book: book.accept_clock())

    @property
    def trouble(self) -> str:
        """Why the file cannot be written now; empty if it can, as far as is known."""
        trouble = self._writer().trouble
        return str(trouble) if trouble else ""

    @property
    def kept(self) -> int:
        """Entries that wait in memory to be written."""
        return self._writer().kept

    @property
    def lost(self) -> int:
        """Entries given up: the memory for them was full, or they could not be written at the end.

        "strict" fills no memory: it refuses before that.
        """
        return self._writer().lost

    def close(self) -> None:
        """Write all that is kept, and end the writer. Idempotent."""
        self._end()

    def _do(self, what: Callable[..., object]) -> None:
        from concurrent.futures import Future  # noqa: PLC0415 - 10 ms at import

        from llmdispatcher.ledger_jobs import Task  # noqa: PLC0415 - with the writer

        job = Task(what)
        done: Future[None] = Future()
        job.waiting = done
        self._writer().put(job)
        done.result()

    def _writer(self) -> Writer:
        pid = os.getpid()
        found = self._writers.get(pid)
        return found if found is not None else self._writers.setdefault(pid, self._new_writer())

    def _new_writer(self) -> Writer:
        from llmdispatcher.ledger_file import LedgerFile  # noqa: PLC0415 - sqlite3 takes 5 ms
        from llmdispatcher.ledger_writer import Writer  # noqa: PLC0415 - as above

        return Writer(LedgerFile(self.path, self._lock_wait_s), self._terms())

    def _terms(self) -> Terms:
        from llmdispatcher import ledger_owner  # noqa: PLC0415 - with the writer
        from llmdispatcher.ledger_book import Rules  # noqa: PLC0415 - as above
        from llmdispatcher.ledger_writer import Terms  # noqa: PLC0415 - as above

        owner = ledger_owner.me()
        return Terms(
            rules=Rules(caps=self.caps, expire_s=self._expire_s, owner=owner),
            is_strict=self._is_strict,
            max_kept=self._max_kept,
            wall=self._wall,
            report=self._ears.hear,
        )


def _awaited(slip: Slip) -> Job:
    """Make the job that lets an attempt be sent."""
    from concurrent.futures import Future  # noqa: PLC0415 - 10 ms at import

    from llmdispatcher.ledger_jobs import Probe, Reserve  # noqa: PLC0415 - with the writer

    slip.waiting = Future()
    return Probe(slip) if slip.reserved is None else Reserve(slip)


def _close(writers: dict[int, Writer]) -> None:
    writer = writers.get(os.getpid())
    if writer is not None:
        writer.close()
