"""What the ledger's writer is given to do, each a step of some transaction.

A job may be applied more than once, when the transaction that it was part of failed: then it finds
in the database whether it was done before.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING

from llmdispatcher.ledger_entry import Closing, Slip
from llmdispatcher.models.errors import BudgetExceeded, Refused

if TYPE_CHECKING:
    from llmdispatcher.ledger_book import Book


class Job:
    """Base: somebody may wait for its end, and it may have to outlive a failure of power."""

    is_durable = False
    """The disk is waited for."""
    is_fleeting = False
    """It is worth nothing later: where the file cannot be written, it is not kept."""
    waiting: Future[None] | None = None
    """Of whoever waits; None if nobody does, or not any more."""

    def apply(self, book: Book) -> None:
        """Do it, as a part of a transaction. Raises sqlite3.Error."""

    def done(self) -> None:
        """Tell whoever waits that it is committed."""
        self.answer(None)

    def skip(self) -> None:
        """Let whoever waits go on without the file."""
        self.answer(None)

    def answer(self, error: Refused | None) -> None:
        """Let whoever waits go on, once."""
        waiting, self.waiting = self.waiting, None
        if waiting is None:
            return
        try:
            if error is None:
                waiting.set_result(None)
            else:
                waiting.set_exception(error)
        except InvalidStateError:  # whoever waited cancelled it
            return


class Probe(Job):
    """Find out whether the ledger can be written, before anything is sent."""

    def __init__(self, slip: Slip) -> None:
        self.slip, self.waiting = slip, slip.waiting


class Reserve(Job):
    """Set the worst case of an attempt aside, or refuse it."""

    is_durable = True

    def __init__(self, slip: Slip) -> None:
        self.slip, self.waiting = slip, slip.waiting
        self.is_admitted = False
        """It was let pass while the ledger could not be written; its row is written later."""
        self._refused: BudgetExceeded | None = None

    def apply(self, book: Book) -> None:
        """Enter the attempt."""
        if self.is_admitted:
            book.admit(self.slip)
        else:
            self._refused = book.reserve(self.slip)
            self.slip.refused = self._refused is not None

    def done(self) -> None:
        """Tell whether it may be sent."""
        self.answer(self._refused)


class Settle(Job):
    """Write down how an attempt ended.

    Nobody waits for the disk: a failure of power that undoes it leaves the reservation, which will
    count as spent.
    """

    def __init__(self, slip: Slip, closing: Closing) -> None:
        self.slip, self.closing = slip, closing
        self.is_noted = False
        """It was counted in memory, while the ledger could not be written."""

    def apply(self, book: Book) -> None:
        """Settle the attempt, unless it was refused."""
        if not self.slip.refused:
            book.settle(self.slip, self.closing)


class Task(Job):
    """Do anything else, such as noting that a failure was absorbed."""

    def __init__(self, what: Callable[[Book], object]) -> None:
        self._what = what

    def apply(self, book: Book) -> None:
        """Do it."""
        self._what(book)
