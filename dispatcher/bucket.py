"""What may pass by the minute and by the day: by our own limits, and by what vendors tell. Pure.

A ``Bucket`` is a limit of ours: it holds so much, and refills evenly (Turner 1986, "New directions
in communications"). A ``Gauge`` is a limit of the vendor's, as far as its answers tell of it: right
when it was read, less whatever was sent since. Times are seconds that never run backwards.
"""

from __future__ import annotations

import math

import attrs

from llmdispatcher.models.headroom import Quantity, Room
from llmdispatcher.models.policy import Limits

MINUTE_S, DAY_S = 60.0, 86400.0
WINDOWS_S = {"second": 1.0, "minute": MINUTE_S, "hour": 3600.0, "day": DAY_S, "month": 30 * DAY_S}

ROUNDING = 1e-9
"""Part of an amount by which sums of floats may fall short of it."""


@attrs.frozen
class Needs:
    """What a request takes of limits, estimated before it and known after it."""

    input_tokens: int = 0
    output_tokens: int = 0
    requests: int = 1
    """0 for one that was never sent."""

    def of(self, quantity: Quantity) -> int:
        """Return how much of a quantity it takes."""
        if quantity is Quantity.REQUESTS:
            return self.requests
        if quantity is Quantity.INPUT_TOKENS:
            return self.input_tokens
        if quantity is Quantity.OUTPUT_TOKENS:
            return self.output_tokens
        return self.input_tokens + self.output_tokens


NOTHING = Needs(0, 0, 0)


@attrs.define(kw_only=True)
class Bucket:
    """A limit of ours: ``capacity`` at once at most, and ``rate_per_s`` for ever."""

    quantity: Quantity
    window: str
    capacity: float
    rate_per_s: float
    level: float
    """What may pass now; below zero where more was used than was foreseen."""
    at_s: float = -math.inf
    """When the level was true."""

    def amount(self, needs: Needs) -> float:
        """Return what to reserve for a request.

        The output is a worst case that hardly ever comes: if it alone is more than the bucket
        holds, a full bucket is enough for it. Of the input this is not so: see ``wait_s``.
        """
        amount = needs.of(self.quantity)
        if self.quantity is Quantity.OUTPUT_TOKENS:
            return min(amount, self.capacity)
        if self.quantity is Quantity.TOKENS and needs.input_tokens <= self.capacity:
            return min(amount, self.capacity)
        return amount

    def wait_s(self, amount: float, now_s: float) -> float:
        """Return how long until so much may pass; infinite for more than it ever holds at once."""
        self._refill(now_s)
        short = amount - self.level
        if short <= ROUNDING * amount:
            return 0.0
        return math.inf if amount > self.capacity else short / self.rate_per_s

    def queue_s(self, ahead: float, amount: float, now_s: float) -> float:
        """Return how long until so much may pass behind what is ahead of it."""
        self._refill(now_s)
        if amount > self.capacity:
            return math.inf
        return max(0.0, (ahead + amount - self.level) / self.rate_per_s)

    def take(self, amount: float, now_s: float) -> None:
        """Let so much pass. Whoever does so without asking leaves a debt."""
        self._refill(now_s)
        self.level -= amount

    def give(self, amount: float, now_s: float) -> None:
        """Put back what was taken and not used, or take (below zero) what was used beyond it."""
        self._refill(now_s)
        self.level = min(self.capacity, self.level + amount)

    def learn(self, level: float, now_s: float) -> None:
        """Go by a level that others keep with us."""
        self.level, self.at_s = min(self.capacity, level), now_s

    def _refill(self, now_s: float) -> None:
        if now_s > self.at_s:
            flown = (now_s - self.at_s) * self.rate_per_s
            self.level = min(self.capacity, self.level + flown)
            self.at_s = now_s


def buckets(limits: Limits) -> list[Bucket]:
    """Make the buckets of a user's limits, all full."""
    made = []
    for quantity in Quantity:
        for window in ("minute", "day"):
            limit = getattr(limits, f"{quantity}_per_{window}")
            if limit is not None:
                capacity = max(1.0, limit * limits.burst)
                rate = limit / WINDOWS_S[window]
                made.append(
                    Bucket(
                        quantity=quantity,
                        window=window,
                        capacity=capacity,
                        rate_per_s=rate,
                        level=capacity,
                    )
                )
    return made


@attrs.define(kw_only=True)
class Gauge:
    """A limit of the vendor's. Where nothing is known of it, everything passes.

    Between answers it refills evenly, as those limits do that name a time: OpenAI, Anthropic and
    Groq tell when all of it would be there again. Where that rate cannot be known, all of it comes
    back at that time.
    """

    quantity: Quantity
    level: float = math.inf
    limit: float = math.inf
    rate_per_s: float = 0.0
    at_s: float = -math.inf
    full_s: float = -math.inf
    """When the vendor said that all of it would be there again."""

    def read(self, room: Room, later: float, now_s: float) -> None:
        """Take what an answer tells; ``later`` is what was sent after the request that it answers.

        The vendor has counted what reached it before the answer. Of what was sent later it may have
        counted all or nothing, so that the truth lies between both; what we count ourselves says
        where.
        """
        window_s = WINDOWS_S.get(room.window)
        reset_s = window_s if room.reset_s is None else room.reset_s
        if room.remaining is None or reset_s is None:
            return  # how long it holds is not known: no ground to keep anybody waiting
        self._refill(now_s)
        told = float(room.remaining)
        counted = told - later if self.level == math.inf else min(self.level, told)
        self.level = max(counted, told - later)
        old, self.limit = self.limit, float(room.limit or math.inf)
        self.full_s = now_s + reset_s
        gone = self.limit - told
        if self.limit < math.inf and window_s is not None:
            self.rate_per_s = self.limit / window_s
        elif 0 < gone < math.inf and reset_s > 0:
            self.rate_per_s = gone / reset_s
        elif old != self.limit:
            self.rate_per_s = 0.0

    def wait_s(self, amount: float, now_s: float) -> float:
        """Return how long until so much may pass. Never infinite: it is the vendor that refuses."""
        self._refill(now_s)
        amount = min(amount, self.limit)
        short = amount - self.level
        if short <= ROUNDING * amount:
            return 0.0
        return short / self.rate_per_s if self.rate_per_s else max(0.0, self.full_s - now_s)

    def take(self, amount: float, now_s: float) -> None:
        """Count what is sent."""
        self._refill(now_s)
        self.level -= amount

    def give(self, amount: float, now_s: float) -> None:
        """Take back what was never sent."""
        self._refill(now_s)
        self.level = min(self.limit, self.level + amount)

    def _refill(self, now_s: float) -> None:
        if now_s <= self.at_s:
            return
        if self.rate_per_s:
            flown = (now_s - self.at_s) * self.rate_per_s
            self.level = min(self.limit, self.level + flown)
        elif now_s >= self.full_s:
            self.level = math.inf
        self.at_s = now_s
