"""What may be spent: caps that hold over many requests, whoever makes them.

Days and months are those of UTC, whatever the time zone of the machine: a cap of a day begins anew
at 00:00 UTC. All caps that concern a request hold at once.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from enum import StrEnum

import attrs

from llmdispatcher.models.check import words
from llmdispatcher.models.errors import BadRequest
from llmdispatcher.models.reply import MICRO_PER_USD

MAX_USD = 10**9
"""Of a cap; sums of such amounts stay far within what the ledger can hold."""


MAX_NAME = 256
"""Characters of a name in the ledger."""


class Period(StrEnum):
    """How long a cap holds before it begins anew."""

    DAY = "day"
    """From 00:00 UTC."""
    MONTH = "month"
    """From 00:00 UTC of the first."""
    EVER = "ever"
    """It never begins anew."""


class Scope(StrEnum):
    """Whose spending a cap counts."""

    ALL = "all"
    VENDOR = "vendor"
    """Of one vendor, by its registered name."""
    KEY = "key"
    """Of one API key, by its ``fingerprint``."""
    TAG = "tag"
    """Of the requests that bear a tag."""


class UnknownPrice(StrEnum):
    """What a cap does with a model whose price is not known."""

    REFUSE = "refuse"
    ALLOW = "allow"
    """Let it pass uncounted: such spending is not known, and so not capped."""


def _amount(usd: Decimal | str | float) -> Decimal:
    """Read an exact amount; a float by its shortest decimal form, as prices are."""
    allowed = f"an amount in dollars from 0 to {MAX_USD} with at most 6 decimals"
    if isinstance(usd, bool) or not isinstance(usd, Decimal | str | int | float):
        raise BadRequest("usd", usd, allowed)
    try:
        exact = Decimal(str(usd))
    except InvalidOperation:
        raise BadRequest("usd", usd, allowed) from None
    if not exact.is_finite() or not 0 <= exact <= MAX_USD:
        raise BadRequest("usd", usd, allowed)
    scaled = exact * MICRO_PER_USD
    if scaled != int(scaled):
        raise BadRequest("usd", usd, allowed)
    return exact


def _word(kind: type[StrEnum], field: str, value: object) -> StrEnum:
    try:
        return kind(value)  # type: ignore[arg-type] # anything else is refused below
    except ValueError:
        allowed = f"one of {', '.join(repr(str(word)) for word in kind)}"
        raise BadRequest(field, value, allowed) from None


def _period(value: object) -> Period:
    return Period(_word(Period, "period", value))


def _scope(value: object) -> Scope:
    return Scope(_word(Scope, "scope", value))


def _unknown(value: object) -> UnknownPrice:
    return UnknownPrice(_word(UnknownPrice, "unknown_price", value))


@attrs.frozen
class SpendingCap:
    """The most that may be spent in a period: ``SpendingCap("5.00", period="day")``.

    Before a request is sent, its worst case is set aside under every cap that concerns it; if it
    does not fit one, ``BudgetExceeded`` is raised and nothing is sent. ``scope`` and ``name``
    narrow it: ``SpendingCap("1", period="month", scope="tag", name="nightly")``.
    """

    usd: Decimal = attrs.field(converter=_amount)
    """Dollars, exact: a Decimal, text or a whole number. 0 allows only what is free."""
    period: Period = attrs.field(converter=_period, kw_only=True)
    scope: Scope = attrs.field(converter=_scope, default=Scope.ALL, kw_only=True)
    name: str = attrs.field(default="", validator=words, kw_only=True)
    """Which vendor, key or tag; empty for all."""
    unknown_price: UnknownPrice = attrs.field(
        converter=_unknown, default=UnknownPrice.REFUSE, kw_only=True
    )

    @name.validator
    def _fits_its_scope(self, _: object, value: str) -> None:
        if self.scope is Scope.ALL and value:
            raise BadRequest("name", value, "left out, or have scope='vendor', 'key' or 'tag'")
        if self.scope is not Scope.ALL and not value:
            raise BadRequest("name", value, f"the name of the {self.scope}")
        if len(value) > MAX_NAME or not value.isprintable():
            raise BadRequest("name", value, f"at most {MAX_NAME} printable characters")

    @property
    def limit_microusd(self) -> int:
        """``usd`` in micro-dollars, exactly."""
        return int(self.usd * MICRO_PER_USD)

    def __str__(self) -> str:
        """Say it in words: ``$5.00 a day for vendor 'openai'``."""
        whole = "in all" if self.period is Period.EVER else f"a {self.period}"
        return f"${self.usd:f} {whole}" + (f" for {self.scope} {self.name!r}" if self.name else "")


def fingerprint(key: str) -> str:
    """Return the name under which an API key stands in the books: 16 hex digits, never the key.

    They are of its SHA-256, which cannot be turned back for a key that was drawn at random.
    """
    from hashlib import sha256  # noqa: PLC0415 - 1 ms at import

    return sha256(b"llmdispatcher key\0" + key.encode()).hexdigest()[:16]
