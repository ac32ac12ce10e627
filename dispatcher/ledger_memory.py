"""What a process knows of the caps while its ledger cannot be written. No I/O.

The last balances that were read, and what was spent since. Other processes are not seen, which is
what ``degrade`` means.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from llmdispatcher import budget
from llmdispatcher.budget import Account, Balance
from llmdispatcher.ledger_book import counted_microusd
from llmdispatcher.ledger_entry import Closing, Slip
from llmdispatcher.models.budget import SpendingCap
from llmdispatcher.models.errors import BudgetExceeded


class Memory:
    """Balances of the accounts that caps limit."""

    def __init__(self, caps: Iterable[SpendingCap]) -> None:
        self._caps = tuple(caps)
        self._lock = threading.RLock()
        self._balances: dict[Account, Balance] = {}
        self._day = ""
        self._held: dict[int, tuple[tuple[Account, ...], int]] = {}
        """What was reserved here, by entry."""

    def learn(self, balances: Mapping[Account, Balance], day: str) -> None:
        """Take over what the ledger says, now that all that was kept is written."""
        with self._lock:
            self._held.clear()
            self._day = day
            current = {budget.account_of(cap, day) for cap in self._caps}
            for account in current & balances.keys():
                self._balances[account] = balances[account]
            for account in self._balances.keys() - current:  # of days that are over
                del self._balances[account]

    def reserve(self, slip: Slip, wall_s: float) -> BudgetExceeded | None:
        """Set the worst case aside, or return why a cap refuses it."""
        needed, day = slip.reserved or 0, max(self._day, budget.day_of(wall_s))
        with self._lock:
            for cap in slip.caps:
                balance = self._balances.get(budget.account_of(cap, day), Balance())
                if reason := budget.refusal(cap, balance, needed, wall_s):
                    return budget.exceeded(cap, reason, needed, wall_s)
            found = tuple(budget.account_of(cap, day) for cap in slip.caps)
            self._held[slip.entry] = found, needed
            self._add(found, reserved=needed)
        return None

    def settle(self, slip: Slip, closing: Closing) -> None:
        """Put the truth in the place of what was set aside, here or in the ledger."""
        if slip.reserved is None or slip.refused:
            return
        with self._lock:
            day = max(self._day, budget.day_of(slip.started_s))
            here = tuple(budget.account_of(cap, day) for cap in slip.caps)
            found, reserved = self._held.pop(slip.entry, (here, slip.reserved))
            self._add(found, spent=counted_microusd(slip, closing), reserved=-reserved)

    def _add(self, found: Iterable[Account], *, spent: int = 0, reserved: int = 0) -> None:
        for account in found:
            was = self._balances.get(account, Balance())
            self._balances[account] = Balance(was.spent + spent, max(0, was.reserved + reserved))
