"""What is done in the ledger within one transaction: reserve, settle, expire.

Every sum that a cap is held against is kept in ``accounts`` and changes together with the row that
changes it, so that the rows of a period always add up to its account. A row is entered once, by its
id, and settled once: doing either again changes nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import attrs

from llmdispatcher import budget
from llmdispatcher.budget import Account, Balance, Payer
from llmdispatcher.ledger_entry import (
    MAX_ROW_MICROUSD,
    MAX_ROW_TOKENS,
    Closing,
    Fate,
    Slip,
    fit,
)
from llmdispatcher.ledger_owner import is_gone
from llmdispatcher.models.budget import SpendingCap
from llmdispatcher.models.errors import BudgetExceeded
from llmdispatcher.models.event import BudgetAlert
from llmdispatcher.models.reply import MAX_COUNT

_OPENED = (
    "id, request_id, number, vendor, model, key_fingerprint, tags, fate, started_at, day,"
    " price_version, retry_of, owner, reserved_microusd, expires_s"
)
_CLOSED = (
    "fate, ended_at, error_class, status, vendor_request_id, served_model, prompt_tokens,"
    " completion_tokens, cached_tokens, cache_write_tokens, reasoning_tokens, estimated,"
    " charged_microusd, cost_microusd, counted_microusd, latency_s, first_token_s, load_s,"
    " unknown_outcome"
)


def _insert(columns: str) -> str:
    names = columns.split(", ")
    places = ", ".join("?" * len(names))
    return f"INSERT INTO attempts ({columns}) VALUES ({places}) ON CONFLICT (id) DO NOTHING"  # noqa: S608 - our own names


_ENTER = _insert(_OPENED)
_ENTER_WHOLE = _insert(f"{_OPENED.replace(' fate,', '')}, {_CLOSED}")
_CLOSE = f"UPDATE attempts SET ({_CLOSED}) = ({', '.join('?' * 19)}) WHERE id = ?"  # noqa: S608 - our own names


@attrs.frozen(kw_only=True)
class Rules:
    """What a process holds its transactions to."""

    caps: tuple[SpendingCap, ...]
    expire_s: float
    """After so long a reservation that nobody settled counts as spent."""
    owner: str
    """The name of this process."""


class Book:
    """One transaction, from ``BEGIN IMMEDIATE`` to ``commit``. Everything raises sqlite3.Error."""

    def __init__(self, connection: sqlite3.Connection, wall_s: float, rules: Rules) -> None:
        """Begin. ``wall_s`` is the time by the machine's clock, in seconds since 1970."""
        self._db, self._rules, self.wall_s = connection, rules, wall_s
        connection.execute("BEGIN IMMEDIATE")
        (self._last_s,) = connection.execute("SELECT last_s FROM clock").fetchone()
        self.now_s = max(self._last_s, wall_s)
        """A clock that was put back does not bring back a period that is over, nor its budget."""
        self.day = budget.day_of(self.now_s)
        self.balances: dict[Account, Balance] = {}
        """Every account that was looked at, as it is now."""
        self.alerts: list[BudgetAlert] = []
        """What there is to report once all is committed."""
        self._changed: set[Account] = set()
        self._plain: dict[tuple[Payer, str], int] = {}
        """What attempts without a reservation cost, by day; not in the balances yet."""
        self._now_text = _utc(wall_s)

    @property
    def db(self) -> sqlite3.Connection:
        """The connection, within the transaction."""
        return self._db

    def reserve(self, slip: Slip) -> BudgetExceeded | None:
        """Set the worst case aside under every cap, or return why one refuses."""
        needed = slip.reserved or 0
        self._add_plain()
        for cap in slip.caps:
            balance = self._balance(budget.account_of(cap, self.day))
            if reason := budget.refusal(cap, balance, needed, self.now_s):
                return budget.exceeded(cap, reason, needed, self.now_s)
        self._enter(slip, self.day)
        return None

    def admit(self, slip: Slip) -> None:
        """Set aside what was let pass before, whatever the caps say."""
        self._enter(slip, budget.day_of(slip.counted_s))

    def _enter(self, slip: Slip, day: str) -> None:
        row = (*self._opened(slip, day), slip.reserved, self.now_s + self._rules.expire_s)
        row = (*row[:7], str(Fate.OPEN), *row[7:])
        if self._db.execute(_ENTER, row).rowcount:
            self._add(slip.opening.payer, day, reserved=slip.reserved or 0)

    def settle(self, slip: Slip, closing: Closing) -> None:
        """Put the truth in the place of what was set aside, or of what was assumed meanwhile."""
        counted = counted_microusd(slip, closing)
        closed = _closed(closing, counted, self._now_text)
        payer = slip.opening.payer
        found = None
        if slip.reserved is not None:
            found = self._db.execute(
                "SELECT fate, day, reserved_microusd, counted_microusd FROM attempts WHERE id = ?",
                (slip.entry,),
            ).fetchone()
        if found is None:
            day = budget.day_of(slip.counted_s)
            row = (*self._opened(slip, day), slip.reserved, None, *closed)
            if self._db.execute(_ENTER_WHOLE, row).rowcount:
                self._plain[payer, day] = self._plain.get((payer, day), 0) + counted
            return
        fate, day, reserved, before = found
        if fate not in {Fate.OPEN, Fate.EXPIRED}:
            return  # it is settled
        self._db.execute(_CLOSE, (*closed, slip.entry))
        if fate == Fate.OPEN:
            self._add(payer, day, spent=counted, reserved=-reserved)
        else:
            self._add(payer, day, spent=counted - before)

    def absorb(self, entries: Sequence[int]) -> None:
        """Note of failed attempts that another one served their request."""
        for entry in entries:
            self._db.execute(
                "UPDATE attempts SET fate = ? WHERE id = ? AND fate = ?",
                (str(Fate.ABSORBED), entry, str(Fate.FAILED)),
            )

    def expire(self) -> int:
        """Count as spent what nobody will settle, or nobody did in time; return how many."""
        owners = self._db.execute(
            "SELECT DISTINCT owner FROM attempts WHERE fate = 'open' AND owner != ?",
            (self._rules.owner,),
        )
        gone = {owner for (owner,) in owners if is_gone(owner)}
        rows = self._db.execute(
            "SELECT id, vendor, key_fingerprint, tags, day, reserved_microusd, owner, expires_s"
            " FROM attempts WHERE fate = 'open'"
        ).fetchall()
        over = [row for row in rows if row[6] in gone or row[7] <= self.now_s]
        for entry, vendor, key, tags, day, reserved, _, _ in over:
            self._db.execute(
                "UPDATE attempts SET fate = 'expired', expired_at = ?, unknown_outcome = 1,"
                " counted_microusd = reserved_microusd WHERE id = ?",
                (self._now_text, entry),
            )
            payer = Payer(vendor, key, tuple(json.loads(tags)))
            self._add(payer, day, spent=reserved, reserved=-reserved)
        return len(over)

    def accept_clock(self) -> None:
        """Go by the machine's clock from now on, though rows of a later time exist."""
        self._db.execute("UPDATE clock SET last_s = ?", (self.wall_s,))
        self._last_s = self.now_s = self.wall_s
        self.day = budget.day_of(self.now_s)

    @property
    def clock_behind_s(self) -> float:
        """How far the machine's clock is behind the last entry."""
        return float(self.now_s - self.wall_s)

    def commit(self) -> None:
        """Write the accounts, look for alerts, and commit."""
        self._add_plain()
        for account in self._changed:
            balance = self.balances[account]
            self._db.execute(
                "INSERT INTO accounts VALUES (?, ?, ?, ?, ?) ON CONFLICT (scope, name, start)"
                " DO UPDATE SET spent_microusd = excluded.spent_microusd,"
                " reserved_microusd = excluded.reserved_microusd",
                (*attrs.astuple(account), balance.spent, balance.reserved),
            )
        for cap in self._rules.caps:
            self._alert(cap)
        if self.now_s > self._last_s:
            self._db.execute("UPDATE clock SET last_s = ?", (self.now_s,))
        self._db.execute("COMMIT")

    def rollback(self) -> None:
        """Undo everything; nothing if there is nothing to undo."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _alert(self, cap: SpendingCap) -> None:
        of_cap = [account for account in self._changed if budget.is_of(cap, account)]
        for account in of_cap:
            for alert in budget.alerts(cap, self.balances[account], account.start):
                key = (*attrs.astuple(account), cap.limit_microusd, alert.percent)
                first = self._db.execute(
                    "INSERT INTO alerts VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", key
                ).rowcount
                if first:
                    self.alerts.append(alert)

    def _balance(self, account: Account) -> Balance:
        known = self.balances.get(account)
        if known is None:
            found = self._db.execute(
                "SELECT spent_microusd, reserved_microusd FROM accounts"
                " WHERE scope = ? AND name = ? AND start = ?",
                attrs.astuple(account),
            ).fetchone()
            known = self.balances[account] = Balance(*(found or ()))
        return known

    def _add_plain(self) -> None:
        for (payer, day), spent in self._plain.items():
            self._add(payer, day, spent=spent)
        self._plain.clear()

    def _add(self, payer: Payer, day: str, *, spent: int = 0, reserved: int = 0) -> None:
        if not spent and not reserved:
            return
        for account in budget.accounts(payer, day):
            was = self._balance(account)
            self.balances[account] = Balance(
                min(MAX_COUNT, was.spent + spent), min(MAX_COUNT, was.reserved + reserved)
            )
            self._changed.add(account)

    def _opened(self, slip: Slip, day: str) -> tuple[Any, ...]:
        one = slip.opening
        payer = one.payer
        return (
            slip.entry,
            fit(one.request_id),
            one.number,
            payer.vendor,
            fit(one.model),
            payer.key,
            json.dumps(payer.tags),
            _utc(slip.started_s),
            day,
            fit(one.price_version),
            one.retry_of,
            self._rules.owner,
        )


def counted_microusd(slip: Slip, closing: Closing) -> int:
    """Return what an attempt counts under caps: its cost, or the worst case of an unknown one."""
    cost, reserved = closing.attempt.cost_microusd, slip.reserved or 0
    if cost is None or closing.unknown_outcome:
        return max(min(cost or 0, MAX_ROW_MICROUSD), reserved)
    return min(cost, MAX_ROW_MICROUSD)


def _closed(closing: Closing, counted: int, ended_at: str) -> Sequence[Any]:
    attempt, usage = closing.attempt, closing.attempt.usage
    return (
        str(closing.fate or Fate(attempt.outcome)),
        ended_at,
        closing.error_class,
        closing.status,
        fit(attempt.request_id),
        fit(attempt.served_model),
        min(usage.prompt_tokens, MAX_ROW_TOKENS),
        min(usage.completion_tokens, MAX_ROW_TOKENS),
        min(usage.cached_tokens, MAX_ROW_TOKENS),
        min(usage.cache_write_tokens, MAX_ROW_TOKENS),
        min(usage.reasoning_tokens, MAX_ROW_TOKENS),
        usage.estimated,
        _bounded(usage.charged_microusd),
        _bounded(attempt.cost_microusd),
        counted,
        attempt.latency_s,
        attempt.first_token_s,
        attempt.load_s,
        closing.unknown_outcome,
    )


def _bounded(microusd: int | None) -> int | None:
    return None if microusd is None else min(microusd, MAX_ROW_MICROUSD)


def _utc(at_s: float) -> str:
    text = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="microseconds")
    return f"{text[:26]}Z"  # for +00:00
