"""The money of one request: what its attempts may cost, and what they did. Does no I/O itself.

Where the dispatcher has a ledger, every attempt is entered there before it is sent and settled when
it ends; where the request has a limit of its own, all its attempts together keep to it.
"""

from __future__ import annotations

import os
import threading
from copy import copy
from itertools import count
from typing import TYPE_CHECKING, Self

import attrs

from llmdispatcher.breaker import blamed
from llmdispatcher.budget import RequestPurse
from llmdispatcher.models.card import ModelCard
from llmdispatcher.models.embedding import Work
from llmdispatcher.models.errors import (
    BadReply,
    DispatcherError,
    StreamInterrupted,
    TimedOut,
    Unreachable,
)
from llmdispatcher.models.reply import MICRO_PER_USD, Attempt, Outcome
from llmdispatcher.models.request import Request
from llmdispatcher.worst import worst_case

if TYPE_CHECKING:
    from concurrent.futures import Future

    from llmdispatcher.ledger import Ledger
    from llmdispatcher.ledger_entry import Slip

UNANSWERED = (TimedOut, StreamInterrupted, Unreachable)
"""After these nobody knows whether the vendor did the work, and charges for it."""


@attrs.frozen
class Ended:
    """How an attempt ended, beside what its ``Attempt`` says."""

    error: DispatcherError | None
    asked: Work
    was_sent: bool
    was_shown: bool

    @property
    def is_unknown(self) -> bool:
        """Whether the vendor may have done the work without anybody having heard of it."""
        is_silent = isinstance(self.error, UNANSWERED) and self.error.status is None
        return self.was_sent and is_silent and not self.was_shown


@attrs.frozen
class Entry:
    """An attempt that was entered: in the ledger, if there is one, and in the purse, if any."""

    slip: Slip | None
    reserved_microusd: int

    @property
    def waiting(self) -> Future[None] | None:
        """Ends when the attempt may be sent, or with the Refused why not; None: at once."""
        return None if self.slip is None else self.slip.waiting


class Account:
    """Of one request, or of a part of one that spends the same money.

    Parts may be under way side by side, each in a thread of its own.
    """

    def __init__(self, ledger: Ledger | None, request: Work) -> None:
        self._ledger, self._request = ledger, request
        limit = request.max_cost_usd if isinstance(request, Request) else None
        self._purse = None if limit is None else RequestPurse(int(limit * MICRO_PER_USD))
        self._id = "" if ledger is None else os.urandom(16).hex()
        self._numbers = count(1)
        self._failed: list[Slip] = []
        self._lock = threading.Lock()
        """Of what parts share and change."""
        self._begin()

    def _begin(self) -> None:
        self._names: dict[tuple[str, str], str] = {}
        """Of what is asked: by whom, and how the reply is to begin."""
        self._unknown: int | None = None
        """The number of an attempt whose outcome nobody knows."""

    def share(self, request: Work) -> Self:
        """Return the account of a part: another request, or the same asked once more beside it.

        The money is the same; vendors are told names of its own, as it is to be done as well.
        """
        made = copy(self)
        made._request = request  # noqa: SLF001 - of our own class
        made._begin()  # noqa: SLF001 - as above
        return made

    def number(self) -> int:
        """Return the number of the next attempt, counted from 1 over all parts."""
        return next(self._numbers)  # at once for threads: it is one step of the interpreter

    def once(self, card: ModelCard, request: Work) -> str:
        """Return the name by which a vendor knows that it is asked the same once more.

        Another model, and one that is to go on in the middle of a reply, is not asked the same.
        Random, since a vendor may keep it for days, and may have many callers.
        """
        asked = card.name, request.prefill if isinstance(request, Request) else ""
        if asked not in self._names:
            from uuid import uuid4  # noqa: PLC0415 - few vendors read one

            self._names[asked] = str(uuid4())
        return self._names[asked]

    def open(self, card: ModelCard, asked: Work, number: int, key: str = "") -> Entry | None:
        """Enter an attempt that is about to be made; ``Entry.waiting`` says when it may be sent.

        ``asked`` is what is sent, which may be more than the request: a reply to be put right.
        ``key`` is the fingerprint of the API key that it is sent with.
        Raises BudgetExceeded and LedgerUnusable; then there is nothing to settle.
        """
        reserved = 0
        if self._purse is not None:
            reserved = self._purse.admit(worst_case(card, asked))
        if self._ledger is None:
            return None if self._purse is None else Entry(None, reserved)
        slip = None
        try:
            slip = self._open(self._ledger, (card, asked), number, key)
        finally:
            if slip is None and self._purse is not None:
                self._purse.spend(0, reserved)
        return Entry(slip, reserved)

    def _open(self, ledger: Ledger, what: tuple[ModelCard, Work], number: int, key: str) -> Slip:
        """Enter an attempt in the ledger: whom, and what it is asked for."""
        card, asked = what
        from llmdispatcher.ledger_entry import Opening  # noqa: PLC0415 - who has one has it loaded

        tags = self._request.tags if isinstance(self._request, Request) else ()
        opening = Opening(
            request_id=self._id,
            number=number,
            vendor=card.vendor,
            model=card.model,
            key=key,
            tags=tags,
            retry_of=self._unknown,
        )
        return ledger.open(opening, lambda: worst_case(card, asked))

    def settle(self, entry: Entry | None, card: ModelCard, attempt: Attempt, ended: Ended) -> None:
        """Take note of how an attempt ended; ``entry`` is None where it was not entered."""
        slip = None if entry is None else entry.slip
        if self._purse is not None and entry is not None:
            cost = attempt.cost_microusd
            if cost is None or ended.is_unknown:
                cost = max(cost or 0, worst_case(card, ended.asked).microusd or 0)
            self._purse.spend(cost, entry.reserved_microusd)
        blame = None if ended.error is None else blamed(ended.error)
        if isinstance(blame, BadReply) and blame.is_unfit:
            self._names.clear()  # a vendor that knows the name would repeat its reply
        if self._ledger is None or slip is None:
            return
        from llmdispatcher.ledger_entry import Closing, Fate  # noqa: PLC0415 - as above

        is_partial = ended.was_shown and attempt.outcome is not Outcome.SERVED
        closing = Closing(
            attempt=attempt,
            fate=Fate.PARTIAL if is_partial else None,
            status=getattr(ended.error, "status", None),
            unknown_outcome=ended.is_unknown,
        )
        self._ledger.settle(slip, closing)
        if ended.is_unknown:
            self._unknown = slip.opening.number
        if attempt.outcome is Outcome.FAILED:
            with self._lock:
                self._failed.append(slip)

    def served(self) -> None:
        """Take note that the request was served: what failed before cost nobody the reply."""
        if self._ledger is None or not self._failed:
            return
        with self._lock:
            failed = self._failed.copy()
            self._failed.clear()
        self._ledger.absorb(failed)
