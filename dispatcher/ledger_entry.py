"""What is written down of an attempt: how it began, and how it ended. Values alone.

Neither prompts nor replies are in them, nor keys, nor any words of a vendor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING

import attrs

from llmdispatcher.budget import Payer
from llmdispatcher.models.budget import MAX_NAME, SpendingCap
from llmdispatcher.models.check import at_most
from llmdispatcher.models.reply import Attempt

if TYPE_CHECKING:
    from concurrent.futures import Future

MAX_ROW_MICROUSD = 10**13
"""What one attempt may be said to cost, $10 million: what a vendor tells may be anything, and a sum
must not overflow the 64 bits of a database."""

MAX_ROW_TOKENS = 10**12
"""As ``MAX_ROW_MICROUSD``, of each kind of token."""

MAX_TAGS = 32
"""Tags of one attempt."""

_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_CLASS = re.compile(r"[A-Za-z_]\w{0,63}\Z", re.ASCII)


def fit(text: str) -> str:
    """Return a name as it can stand in a database, a log and a table."""
    return _UNFIT.sub("\N{REPLACEMENT CHARACTER}", text)[:MAX_NAME]


def _tags(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(fit, values)))


class Fate(StrEnum):
    """What became of an attempt."""

    OPEN = "open"
    """It has not ended, or its process was killed a moment ago."""
    SERVED = "served"
    FAILED = "failed"
    """It failed, and so did the request as far as is known."""
    ABSORBED = "absorbed"
    """It failed, and another attempt served the request."""
    CANCELLED = "cancelled"
    """The caller stopped it."""
    PARTIAL = "partial"
    """It failed or was cancelled after a part of the reply had been shown."""
    EXPIRED = "expired"
    """Nobody told how it ended, so that its worst case counts as spent."""


@attrs.frozen(kw_only=True)
class Opening:
    """An attempt that is about to be made."""

    request_id: str
    """Of the request; all its attempts share it."""
    number: int
    """Which of the request's attempts it is, counted from 1."""
    vendor: str = attrs.field(converter=fit)
    model: str = attrs.field(converter=fit)
    key: str = attrs.field(converter=fit, default="")
    """The ``fingerprint`` of the API key; "" without one."""
    tags: tuple[str, ...] = attrs.field(
        converter=_tags, default=(), validator=at_most(MAX_TAGS, "tags")
    )
    price_version: str = ""
    """Of the price that it will be counted with."""
    retry_of: int | None = None
    """The number of the attempt that this one repeats although its outcome is unknown: the work,
    and the charge, may have been done twice."""

    @property
    def payer(self) -> Payer:
        """Whose money it spends, by names as they stand in the ledger."""
        return Payer(self.vendor, self.key, self.tags)


@attrs.frozen(kw_only=True)
class Closing:
    """How an attempt ended."""

    attempt: Attempt
    fate: Fate | None = None
    """None is the attempt's own outcome."""
    status: int | None = None
    """Of HTTP, where there was one."""
    unknown_outcome: bool = False
    """It was sent, and nobody knows whether it was served: it counts as its worst case."""

    @property
    def error_class(self) -> str:
        """The class of the error that ended it; its message may hold a vendor's words."""
        name = self.attempt.error.partition(":")[0]
        return name if _CLASS.match(name) else ""


class Slip:
    """One attempt in the ledger, from ``Ledger.open`` to ``Ledger.settle``."""

    __slots__ = (
        "caps",
        "counted_s",
        "entry",
        "is_settled",
        "opening",
        "refused",
        "reserved",
        "started_s",
        "waiting",
    )

    def __init__(self, entry: int, opening: Opening, caps: tuple[SpendingCap, ...]) -> None:
        self.entry, self.opening, self.caps = entry, opening, caps
        self.started_s = 0.0
        """Seconds since 1970, by the clock of the machine."""
        self.counted_s = 0.0
        """The time whose day it counts for, unless a reservation comes to be on a later one."""
        self.reserved: int | None = None
        """Micro-dollars to set aside; None reserves nothing, and needs no waiting."""
        self.waiting: Future[None] | None = None
        """Ends when the attempt may be sent, or with the Refused why not; None: send at once."""
        self.refused = False
        """It may not be sent, and has no row."""
        self.is_settled = False
