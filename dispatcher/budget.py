"""The arithmetic of caps: which of them concern an attempt, what is left, what is to be told.

Pure: integer micro-dollars, and time as an argument. The ledger keeps what was spent; this says
what follows from it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import attrs

from llmdispatcher.models.budget import Period, Scope, SpendingCap, UnknownPrice
from llmdispatcher.models.errors import BudgetExceeded
from llmdispatcher.models.event import BudgetAlert
from llmdispatcher.models.reply import MICRO_PER_USD

ALERT_PERCENTS = (50, 80, 95)
"""Shares of a cap that are reported when they are spent, once a period each."""

_LENGTHS = {Period.DAY: len("2026-11-20"), Period.MONTH: len("2026-11"), Period.EVER: 0}


@attrs.frozen
class Payer:
    """Whose money an attempt spends: what caps are narrowed by."""

    vendor: str
    key: str = ""
    """The ``fingerprint`` of the API key; "" without one."""
    tags: tuple[str, ...] = ()

    def scopes(self) -> tuple[tuple[Scope, str], ...]:
        """Return every scope that this spending belongs to, each once."""
        found = [(Scope.ALL, ""), (Scope.VENDOR, self.vendor)]
        if self.key:
            found.append((Scope.KEY, self.key))
        return (*found, *((Scope.TAG, tag) for tag in dict.fromkeys(self.tags)))


@attrs.frozen
class Account:
    """One sum that is kept: what a scope spent in a period."""

    scope: str
    name: str
    start: str
    """The day, ``2026-11-20``, or the month, ``2026-11``, in UTC; "" is for ever."""


@attrs.frozen
class Balance:
    """What an account holds, in micro-dollars."""

    spent: int = 0
    reserved: int = 0
    """Worst cases of attempts that have not ended."""

    @property
    def taken(self) -> int:
        """What is not left any more."""
        return self.spent + self.reserved


@attrs.frozen
class Worst:
    """The most that a request may cost; None, with the reason, where that is not known."""

    microusd: int | None
    why: str = ""


def day_of(at_s: float) -> str:
    """Return the day in UTC of a time in seconds since 1970."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d")


def start_of(period: Period, day: str) -> str:
    """Return the name of the period that a day is in, as accounts have it."""
    return day[: _LENGTHS[period]]


def accounts(payer: Payer, day: str) -> tuple[Account, ...]:
    """Return all accounts that an attempt of this day is entered in."""
    starts = [start_of(period, day) for period in Period]
    return tuple(
        Account(str(scope), name, start) for scope, name in payer.scopes() for start in starts
    )


def account_of(cap: SpendingCap, day: str) -> Account:
    """Return the account that a cap limits on a day."""
    return Account(str(cap.scope), cap.name, start_of(cap.period, day))


def is_of(cap: SpendingCap, account: Account) -> bool:
    """Whether a cap limits an account, of whatever day or month."""
    same = (account.scope, account.name) == (cap.scope, cap.name)
    return same and len(account.start) == _LENGTHS[cap.period]


def concerning(caps: Iterable[SpendingCap], payer: Payer) -> tuple[SpendingCap, ...]:
    """Return the caps that hold for a payer."""
    scopes = set(payer.scopes())
    return tuple(cap for cap in caps if (cap.scope, cap.name) in scopes)


def needed(caps: Sequence[SpendingCap], worst: Worst) -> int:
    """Return what to reserve under caps, in micro-dollars.

    Raises BudgetExceeded for a worst case that is not known, unless all of the caps allow that;
    then nothing can be reserved, which is 0.
    """
    if worst.microusd is not None:
        return worst.microusd
    for cap in caps:
        if cap.unknown_price is UnknownPrice.REFUSE:
            raise BudgetExceeded(
                f"the cap of {cap} needs to know what this may cost, and {worst.why}"
            )
    return 0


def refusal(cap: SpendingCap, balance: Balance, needed_microusd: int, now_s: float) -> str | None:
    """Return why an amount does not fit under a cap, or None if it does."""
    left = cap.limit_microusd - balance.taken
    if needed_microusd <= max(0, left):  # what costs nothing fits always
        return None
    begins = renewal(cap.period, now_s)
    when = f"; it begins anew at {begins:%Y-%m-%d %H:%M} UTC" if begins else ""
    flight = f", {dollars(balance.reserved)} of it for requests in flight" * bool(balance.reserved)
    return (
        f"the worst case of this request is {dollars(needed_microusd)}, and the cap of {cap} has"
        f" {dollars(max(0, left))} left: {dollars(balance.taken)} is taken{flight}{when}"
    )


def exceeded(cap: SpendingCap, reason: str, needed_microusd: int, now_s: float) -> BudgetExceeded:
    """Make the error; it tells when to come again where waiting can help."""
    begins = renewal(cap.period, now_s)
    if begins is None or needed_microusd > cap.limit_microusd:
        return BudgetExceeded(reason)
    return BudgetExceeded(reason, retry_after_s=max(0.0, begins.timestamp() - now_s))


def renewal(period: Period, now_s: float) -> datetime | None:
    """Return when a period ends and the next begins; None is never."""
    if period is Period.EVER:
        return None
    today = datetime.fromtimestamp(now_s, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period is Period.DAY:
        return today + timedelta(days=1)
    return (today.replace(day=1) + timedelta(days=32)).replace(day=1)


def alerts(cap: SpendingCap, balance: Balance, start: str) -> tuple[BudgetAlert, ...]:
    """Return an alert for each share of a cap that is spent; a cap of $0 has none."""
    limit = cap.limit_microusd
    return tuple(
        BudgetAlert(cap=cap, percent=percent, spent_microusd=balance.spent, period_start=start)
        for percent in ALERT_PERCENTS
        if limit and balance.spent * 100 >= limit * percent
    )


class RequestPurse:
    """What one request may cost, all its attempts together: ``max_cost_usd``. Thread-safe."""

    def __init__(self, limit_microusd: int | None) -> None:
        """None is no limit."""
        self._lock = threading.RLock()  # garbage may be collected, and an attempt settled, anywhere
        self._limit = limit_microusd
        self.spent_microusd = self._reserved = 0

    def admit(self, worst: Worst) -> int:
        """Set aside what an attempt may cost, which ``spend`` gives back; returns how much.

        Raises BudgetExceeded if that is more than is left, beside what others may cost that are
        under way.
        """
        if self._limit is None:
            return 0
        if worst.microusd is None:
            raise BudgetExceeded(f"max_cost_usd needs to know what this may cost, and {worst.why}")
        with self._lock:
            left = self._limit - self.spent_microusd - self._reserved
            if worst.microusd <= max(0, left):
                self._reserved += worst.microusd
                return worst.microusd
        raise BudgetExceeded(
            f"the worst case of this request is {dollars(worst.microusd)}, and of its"
            f" max_cost_usd {dollars(max(0, left))} are left; raise it, or lower max_tokens"
        )

    def spend(self, cost_microusd: int, reserved_microusd: int = 0) -> None:
        """Count what an attempt cost, or may have cost, and give back what was set aside."""
        with self._lock:
            self.spent_microusd += cost_microusd
            self._reserved -= reserved_microusd


def dollars(microusd: int) -> str:
    """Write an amount for people, exactly: ``$0.01``, ``$0.000150``."""
    whole, rest = divmod(microusd, MICRO_PER_USD)
    digits = f"{rest:06d}"
    return f"${whole}.{digits[:2] if digits.endswith('0000') else digits}"
