"""What to do after an error: one table over the whole error tree, and what a request may spend.

The table reads classes, and of their facts the status; never texts. A class that is not in it
inherits the row of its nearest base, and a test walks the tree, so that a new error cannot be
forgotten. ``course`` does what the table says. Pure: times and random draws are arguments.
"""

from __future__ import annotations

import threading
from enum import Enum
from http import HTTPStatus

import attrs

from llmdispatcher.line import NOBODY_WAITED
from llmdispatcher.models import errors
from llmdispatcher.models.policy import RetryPolicy


class Verdict(Enum):
    """What the flow does next."""

    SAME = "ask the same again after a pause, a few times; then the next candidate"
    LATER = "ask the next candidate; where none is left, the same when it is ready again"
    """One that limits its rate, and is ready again soon, is waited for before the next is asked."""
    KEY = "ask the next candidate that is not asked with the same key"
    MODEL = "ask the next candidate with a larger context"
    NEXT = "ask the next candidate"
    STOP = "give the error to the caller"


VERDICTS: dict[type[errors.DispatcherError], Verdict] = {
    # What one vendor does not take another may: ranges, schemas, features and contexts differ.
    # What is wrong everywhere ``Request`` itself refuses.
    errors.RequestError: Verdict.NEXT,
    errors.ContextOverflow: Verdict.MODEL,
    # Our own refusals concern the caller, except those that concern one vendor, and pass.
    errors.ConfigError: Verdict.STOP,
    errors.Refused: Verdict.STOP,
    errors.BudgetExceeded: Verdict.NEXT,  # a cap may be one vendor's, and another free
    errors.LimitReached: Verdict.LATER,
    errors.BreakerOpen: Verdict.LATER,
    # Whatever a vendor failed with, another vendor may do better. Files and models that cannot be
    # loaded stay so, and whoever was silent or slow has had its time: TimedOut is never asked
    # again, which would make three timeouts of one ...
    errors.VendorError: Verdict.NEXT,
    errors.RateLimited: Verdict.LATER,
    # ... but money and keys are the account's: its other models would say the same.
    errors.QuotaExhausted: Verdict.KEY,
    errors.AuthRejected: Verdict.KEY,
    # These pass by themselves, mostly at once: one bad machine of many, a connection that was cut,
    # a reply that came broken. Nothing of it was shown, or the flow would not ask.
    errors.Overloaded: Verdict.SAME,
    errors.Unreachable: Verdict.SAME,
    errors.BadReply: Verdict.SAME,
    errors.StreamInterrupted: Verdict.SAME,
    # The worker starts again by itself; ``SAME_AT_MOST`` holds it to once, for what kills a worker
    # twice is the request or the model.
    errors.EngineCrashed: Verdict.SAME,
    errors.OutOfMemory: Verdict.SAME,
    # Nobody asks around for someone who answers what a content filter refused.
    errors.ContentRefused: Verdict.STOP,
    errors.Cancelled: Verdict.STOP,
    errors.AllVendorsFailed: Verdict.STOP,
}

SAME_AT_MOST: dict[type[errors.DispatcherError], int] = {
    errors.EngineCrashed: 1,
    errors.OutOfMemory: 1,
}
"""Errors after which the same is asked again less often than the policy allows."""

SLOW_STATUS = frozenset({HTTPStatus.GATEWAY_TIMEOUT, 522, 524})
"""The vendor's own front waited in vain: slow routes, whatever the class, are not asked again."""


def verdict(error: errors.DispatcherError) -> Verdict:
    """Look an error up in the table by its nearest class, and by its status where that differs."""
    kind = next((kind for kind in type(error).__mro__ if kind in VERDICTS), type(error))
    row, status = VERDICTS.get(kind, Verdict.STOP), getattr(error, "status", None)
    if status is None:
        is_off = isinstance(error, errors.Unreachable) and not error.was_connected
        return Verdict.NEXT if is_off else row  # nobody listens there, and nobody will in a second
    is_theirs, is_slow = status >= HTTPStatus.INTERNAL_SERVER_ERROR, status in SLOW_STATUS
    if row is Verdict.SAME and is_slow:
        return Verdict.NEXT
    if type(error) is errors.VendorError and is_theirs and not is_slow:
        return Verdict.SAME  # a 500 of which no more is known
    if kind is errors.Unreachable and not is_theirs:
        return Verdict.NEXT  # an answer that somebody in between gave: a redirect, a login page
    if kind is errors.AuthRejected and status == HTTPStatus.FORBIDDEN:
        return Verdict.NEXT  # the key is known, and may not use this model; others it may
    return row


def same_at_most(error: errors.DispatcherError, policy: RetryPolicy) -> int:
    """Return how often the same may be asked again after such an error."""
    limits = (SAME_AT_MOST[kind] for kind in type(error).__mro__ if kind in SAME_AT_MOST)
    return min(policy.same_target, next(limits, policy.same_target))


def backoff_s(policy: RetryPolicy, again: int, draw: float) -> float:
    """Return how long to pause before the ``again``-th retry, counted from 1.

    Exponential backoff with full jitter: evenly drawn between nothing and a bound that doubles,
    which spreads those who failed together better than any pause that is nearly the same for all
    (Brooker 2015, "Exponential Backoff and Jitter", AWS Architecture Blog). ``draw`` is in [0, 1).
    """
    doublings = min(max(again, 1) - 1, 60)  # beyond that every cap is reached, and floats overflow
    return min(policy.backoff_cap_s, policy.backoff_s * 2.0**doublings) * draw


@attrs.frozen(kw_only=True)
class Allowance:
    """What one request may still spend on being tried: attempts, seconds, micro-dollars.

    There is one for each request, whatever is made of it. A value: ``spend`` returns the next one.
    """

    policy: RetryPolicy
    began_s: float
    """When the request began, on the clock that ``now_s`` is of."""
    attempts: int = 0
    waited_s: float = 0.0
    loaded_s: float = 0.0
    """Spent on loading models, which is no one's slowness."""
    cost_microusd: int = 0
    is_unpriced: bool = False
    """An attempt was made whose cost is not known."""

    def spend(
        self,
        *,
        attempts: int = 0,
        waited_s: float = 0.0,
        loaded_s: float = 0.0,
        cost_microusd: int | None = 0,
    ) -> Allowance:
        """Take what was spent. A cost of None is one that is not known."""
        return attrs.evolve(
            self,
            attempts=self.attempts + attempts,
            waited_s=self.waited_s + max(0.0, waited_s),
            loaded_s=self.loaded_s + max(0.0, loaded_s),
            cost_microusd=self.cost_microusd + (cost_microusd or 0),
            is_unpriced=self.is_unpriced or cost_microusd is None,
        )

    def allows(self, now_s: float, wait_s: float = 0.0) -> bool:
        """Whether another attempt may begin after so long a wait."""
        return not self.refusal(now_s, wait_s)

    def left_s(self, now_s: float) -> float | None:
        """Return within how long the last attempt may begin; None is no limit."""
        total_s = self.policy.total_s
        return None if total_s is None else total_s - self._passed_s(now_s)

    def refusal(self, now_s: float, wait_s: float = 0.0) -> str:
        """Return what is used up, with the numbers; empty if another attempt may begin."""
        policy = self.policy
        passed_s = self._passed_s(now_s) + wait_s
        if self.attempts >= policy.attempts:
            return f"{self.attempts} of {policy.attempts} attempts are made"
        if wait_s and self.waited_s + wait_s > policy.max_wait_s:
            waited = f" after {self.waited_s:.1f} s of waiting" if self.waited_s else ""
            return f"a wait of {wait_s:.1f} s{waited} is longer than the {policy.max_wait_s:g} s"
        if policy.total_s is not None and passed_s > policy.total_s:
            return f"the {policy.total_s:g} s for attempts are over"
        return self._bill()

    def _passed_s(self, now_s: float) -> float:
        return max(0.0, now_s - self.began_s - self.loaded_s)

    def _bill(self) -> str:
        """Return why no more money may be spent; empty if it may."""
        limit = self.policy.max_cost_microusd
        if limit is None or not self.attempts:
            return ""
        if self.is_unpriced:
            return "what the attempts cost is not known, and money is limited"
        if self.cost_microusd >= limit:
            return f"{self.cost_microusd} of {limit} micro-dollars are spent"
        return ""


class Ration:
    """The allowance of one request while it is spent, by whatever is made of it. Thread-safe."""

    def __init__(self, policy: RetryPolicy, began_s: float) -> None:
        self._lock = threading.Lock()
        self.spent = Allowance(policy=policy, began_s=began_s)
        """Until now, the attempts under way included."""
        self.line = NOBODY_WAITED
        """What of it went to waiting for local servers that are full."""

    def take(self, now_s: float, wait_s: float = 0.0) -> str:
        """Take one attempt, after so long a wait; returns why there is none, or nothing."""
        with self._lock:
            if not (reason := self.spent.refusal(now_s, wait_s)):
                self.spent = self.spent.spend(attempts=1, waited_s=wait_s)
        return reason

    def give_back(self) -> None:
        """Give back an attempt that was not made."""
        with self._lock:
            self.spent = self.spent.spend(attempts=-1)

    def pay(self, cost_microusd: int | None) -> None:
        """Note what an attempt cost; None is not known."""
        with self._lock:
            self.spent = self.spent.spend(cost_microusd=cost_microusd)

    def loaded(self, seconds: float) -> None:
        """Note that the whole request waited so long for models to be loaded."""
        with self._lock:
            self.spent = self.spent.spend(loaded_s=seconds)
