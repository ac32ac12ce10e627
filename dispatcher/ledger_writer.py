"""The one thread of a process that writes the ledger, many entries in each transaction.

Whoever has something to write leaves a job and goes on; who must wait, because money is to be set
aside first, gets a future. While the ledger cannot be written, jobs are kept in order, and tried
again; what happens to those who wait is the caller's choice:

- ``strict``: they are refused (``LedgerUnusable``), and nothing is spent.
- ``degrade``: they pass, held to what is known of the caps in memory.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import count

import attrs

from llmdispatcher.ledger_book import Book, Rules
from llmdispatcher.ledger_file import LedgerFile, Trouble, trouble_of
from llmdispatcher.ledger_jobs import Job, Reserve, Settle
from llmdispatcher.ledger_memory import Memory
from llmdispatcher.models.errors import LedgerUnusable
from llmdispatcher.models.event import BudgetAlert, LedgerTrouble

GATHER_S = 0.05
"""How long entries that nobody waits for are gathered into one transaction: what a process that is
killed can lose, of attempts without a reservation."""

RETRY_S = 1.0
"""Between two tries to write what is kept."""

LOOK_S = 5.0
"""Between two looks for reservations that nobody will settle."""

BATCH = 500
"""Jobs of one transaction."""

CLOCK_S = 60.0
"""A clock that is so far behind the last entry is reported."""


@attrs.frozen(kw_only=True)
class Terms:
    """What a writer goes by."""

    rules: Rules
    is_strict: bool
    max_kept: int
    """Jobs that are kept in memory while the ledger cannot be written."""
    wall: Callable[[], float]
    """Seconds since 1970."""
    report: Callable[[BudgetAlert | LedgerTrouble], None]


class Writer:
    """Writes jobs in the order in which they come. One for each process."""

    def __init__(self, file: LedgerFile, terms: Terms) -> None:
        self._file, self._terms = file, terms
        self.entries = count(int.from_bytes(os.urandom(7)))
        """Ids for new rows, which no other process uses: one in 2^56 to begin with."""
        self.trouble: Trouble | None = None
        """Why the ledger cannot be written now."""
        self.is_proven = False
        """This process has written to it."""
        self.lost = 0
        self.latest_s = 0.0
        """The last time in the file, as far as is known: seconds since 1970."""
        self._jobs: deque[Job] = deque()
        self._turn = threading.Lock()
        """Held while writing."""
        self._starting = threading.RLock()
        self._thread: threading.Thread | None = None
        # A garbage collection may settle a forgotten attempt wherever a thread is, so ``put`` takes
        # no lock: it releases this one, which the thread waits to acquire.
        self._bell = threading.Lock()
        self._bell.acquire()
        self._is_hurried = self._is_gathering = self._is_closed = False
        self._memory = Memory(terms.rules.caps)
        self._looked_s = float("-inf")
        self._told_clock = False
        self._notes: deque[BudgetAlert | LedgerTrouble] = deque()
        """What is to be reported once nobody writes: a listener may use the ledger."""

    @property
    def kept(self) -> int:
        """Jobs that wait to be written."""
        return len(self._jobs)

    def put(self, job: Job) -> None:
        """Have a job done. Returns at once; loses nothing, unless ``degrade`` fills its memory."""
        if job.is_fleeting and self._drop(job):
            return
        is_passing = self.trouble is not None and not self._terms.is_strict
        if is_passing and self.kept >= self._terms.max_kept:
            self._give_up(job)
            self._report()
            return
        # At once, and not after waiting for a lock again.
        if is_passing and not (job.is_fleeting or self._pass(job)):
            return
        self._jobs.append(job)
        if self._thread is None:
            self._start()
        if job.waiting is not None:
            self._is_hurried = True
            self._ring()
        elif not self._is_gathering:
            self._ring()
        if self._is_closed:
            self._write_late()

    def flush(self) -> bool:
        """Write all that is kept, in this thread; return whether that went well."""
        try:
            with self._turn:  # once it is ours, nothing is on its way any more
                while self._jobs:
                    if not self._write():
                        return False
        finally:
            self._report()
        return True

    def _write_late(self) -> None:
        """Write what comes after the end, unless this thread or another is at it."""
        if not self._turn.acquire(blocking=False):
            return
        try:
            while self._jobs and self._write():
                pass
            self._file.close()
        finally:
            self._turn.release()

    def close(self) -> None:
        """Write all that is kept, and end the thread. Idempotent."""
        self._is_closed = True
        self._is_hurried = True
        self._ring()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        if not self.flush():
            self.lost += self.kept
            self._tell("lost", f"{self.kept} entries could not be written: {self.trouble}")
            self._report()
        with self._turn:
            self._file.close()

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None or self._is_closed:
                return
            thread = threading.Thread(target=self._work, name="llmdispatcher-ledger", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is about to end: ``close`` writes
                return
            self._thread = thread

    def _ring(self) -> None:
        try:
            self._bell.release()
        except RuntimeError:  # it rings already
            return

    def _work(self) -> None:
        while not self._is_closed:
            self._bell.acquire(timeout=RETRY_S if self._jobs else -1)
            self._is_gathering = True
            if not self._is_hurried:
                self._bell.acquire(timeout=GATHER_S)
            self._is_hurried = self._is_gathering = False
            self.flush()

    def _write(self) -> bool:
        """Write one transaction of what is kept; return whether that went well."""
        batch = [self._jobs.popleft() for _ in range(min(BATCH, len(self._jobs)))]
        book = None
        try:
            book = self._begin(batch)
            for job in batch:
                job.apply(book)
            book.commit()
        except (sqlite3.Error, OSError, Trouble) as error:
            self._undo(book)
            self._jobs.extendleft(reversed(self._failed(batch, error)))
            return False
        self._succeeded(batch, book)
        return True

    def _begin(self, batch: list[Job]) -> Book:
        connection = self._file.connect()
        if self._file.was_replaced:
            self._file.was_replaced = False
            self._tell("replaced", f"{self._file.path} was moved or deleted; a new one is begun")
        durable = any(job.is_durable for job in batch)
        connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        book = Book(connection, self._terms.wall(), self._terms.rules)
        now_s = time.monotonic()
        if now_s - self._looked_s >= LOOK_S:
            book.expire()
            self._looked_s = now_s
        return book

    def _undo(self, book: Book | None) -> None:
        """Leave no transaction open, or others wait for it."""
        self._looked_s = float("-inf")
        try:
            if book is not None:
                book.rollback()
        except sqlite3.Error:
            self._file.close()
        if book is None:  # it was being made: who knows how far that went
            self._file.close()

    def _succeeded(self, batch: list[Job], book: Book) -> None:
        self.is_proven = True
        self.latest_s = book.now_s
        ended, self.trouble = self.trouble, None
        self._memory.learn(book.balances, book.day)
        for job in batch:
            job.done()
        self._notes.extend(book.alerts)
        if ended is not None:
            self._tell("over", f"{self._file.path} can be written again")
        is_behind = book.clock_behind_s > CLOCK_S
        if is_behind and not self._told_clock:
            self._tell(
                "clock",
                f"the clock is {book.clock_behind_s:.0f} s behind the last entry; until it is past"
                " that, entries count for the day of the last one; Ledger.accept_clock() ends this",
            )
        self._told_clock = is_behind

    def _failed(self, batch: list[Job], error: sqlite3.Error | OSError | Trouble) -> list[Job]:
        """Answer those who wait, and return the jobs to keep."""
        trouble = trouble_of(error, self._file.path)
        if self.trouble is None or self.trouble.kind != trouble.kind:
            self.trouble = trouble
            self._tell(trouble.kind, str(trouble))
        self.trouble = trouble
        if self._terms.is_strict:
            kept = [job for job in batch if not self._refuse(job, trouble)]
            return [job for job in kept if not job.is_fleeting]
        if trouble.kind == "corrupt":
            self._move_aside()
        return [job for job in batch if self._pass(job)]

    def _refuse(self, job: Job, trouble: Trouble) -> bool:
        """Refuse a job that somebody waits for; return whether it was one."""
        if job.waiting is None:
            return False
        slip = getattr(job, "slip", None)
        if slip is not None:
            slip.refused = True
        job.answer(LedgerUnusable(str(trouble)))
        return True

    def _pass(self, job: Job) -> bool:
        """Let a job pass that somebody waits for, as far as is known; return whether to keep it."""
        if job.is_fleeting:
            job.skip()
            return False
        if isinstance(job, Reserve) and not job.is_admitted:
            error = self._memory.reserve(job.slip, self._terms.wall())
            job.slip.refused = error is not None
            job.is_admitted = error is None
            job.answer(error)
            return job.is_admitted
        if isinstance(job, Settle) and not job.is_noted:
            self._memory.settle(job.slip, job.closing)
            job.is_noted = True
        return self.trouble is None or not self._refuse(job, self.trouble)

    def _drop(self, job: Job) -> bool:
        """Answer at once, in trouble, what is worth nothing later; return whether that was so."""
        trouble = self.trouble
        if trouble is None:
            return False
        if self._terms.is_strict:
            is_far = self.kept >= BATCH  # behind more than is tried
            return is_far and (self._refuse(job, trouble) or job.waiting is None)
        if job.waiting is None and not self._jobs:
            return False  # it is how an empty queue finds out that the trouble is over
        job.skip()
        return True

    def _move_aside(self) -> None:
        """Begin a new file in the place of a corrupt one."""
        try:
            aside = self._file.move_aside()
        except OSError as error:
            self.trouble = trouble_of(error, self._file.path)
            return
        if aside is not None:
            self._tell("replaced", f"the corrupt ledger is kept as {aside}; a new one is begun")
            self._is_hurried = True
            self._ring()

    def _give_up(self, job: Job) -> None:
        """Drop an entry for which there is no memory left, and say so."""
        self.lost += 1
        if isinstance(job, Settle):
            self._memory.settle(job.slip, job.closing)
        else:
            self._pass(job)
        if self.lost & (self.lost - 1) == 0:  # the first, and each time that they have doubled
            self._tell("lost", f"{self.lost} entries were given up: {self.trouble}")

    def _tell(self, kind: str, detail: str) -> None:
        self._notes.append(LedgerTrouble(kind=kind, detail=detail, kept=self.kept, lost=self.lost))

    def _report(self) -> None:
        while True:
            try:
                note = self._notes.popleft()
            except IndexError:
                return
            self._terms.report(note)
