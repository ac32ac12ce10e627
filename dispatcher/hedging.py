"""When a second copy of a request is worth sending, and how many a dispatcher may send. Pure.

A copy is sent when the first token is late, by what the model has needed of late. What copies cost
on top is held to a share of what everything costs: each request puts a part of a copy into a
bucket, and the money that was wasted is held against the money that was spent.
"""

from __future__ import annotations

import math
import threading
from collections import deque

WINDOW = 100
"""So many of a model's last first-token times are kept: the 95th percentile is the sixth largest,
and a model that has become slow is known for it after a few requests."""

LEAST = 8
"""Below so many a percentile in the tail says nothing."""

PRIOR_S = 2.0
"""What is taken for late until there are as many: providers of chat models answer within half a
second mostly, and within two seconds nearly always."""

MOST_COPIES = 10.0
"""So many copies can be saved up: what was saved in a quiet hour must not double the load of a bad
minute."""

MAX_MODELS = 10_000
"""More than one program asks."""

ROUNDING = 1e-9
"""Ten tenths are one."""


class Hedging:
    """What one dispatcher remembers for it. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # garbage may be collected, and an attempt settled, anywhere
        self._times: dict[str, deque[float]] = {}
        self._copies = 0.0
        """That may be sent."""
        self.wasted_microusd = 0
        """What those cost that lost, and what those that are under way are expected to."""

    def heard(self, name: str, first_token_s: float) -> None:
        """Note how long a model took for the first token, or at least took before it was given up.

        Who was given up for being late counts with the time until then: were it left out, only
        quick answers would be known, and soon everything would seem late.
        """
        with self._lock:
            times = self._times.get(name)
            if times is None:
                if len(self._times) >= MAX_MODELS:
                    del self._times[next(iter(self._times))]
                times = self._times[name] = deque(maxlen=WINDOW)
            times.append(first_token_s)

    def late_s(self, name: str, percentile: float) -> float:
        """Return after how long a model is late, by the times that are known, or by the prior."""
        with self._lock:
            times = sorted(self._times.get(name, ()))
        if len(times) < LEAST:
            return PRIOR_S
        return times[max(0, math.ceil(percentile * len(times)) - 1)]

    def earn(self, share: float) -> None:
        """Put the share of a copy aside that one request may cost on top."""
        with self._lock:
            self._copies = min(MOST_COPIES, self._copies + share)

    def take(self, share: float, expected_microusd: int, spent_microusd: int) -> str:
        """Take one copy; returns why it may not be sent, or nothing.

        ``expected_microusd`` is what it will cost, ``spent_microusd`` what the dispatcher has spent
        until now. Where a price is not known, copies are held to their share of the requests alone.
        """
        with self._lock:
            if self._copies < 1.0 - ROUNDING:
                return f"copies may be {share:.0%} of the requests, and those are used up"
            wasted = self.wasted_microusd + expected_microusd
            if expected_microusd and wasted > share * spent_microusd:
                return f"copies may cost {share:.0%} of what is spent, and that is used up"
            self._copies -= 1.0
            self.wasted_microusd = wasted
        return ""

    def waste(self, cost_microusd: int | None, expected_microusd: int) -> None:
        """Note what the one cost that lost, where so much was expected; None is not known."""
        cost = expected_microusd if cost_microusd is None else cost_microusd
        with self._lock:
            self.wasted_microusd += cost - expected_microusd
