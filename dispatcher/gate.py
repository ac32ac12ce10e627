"""Who may go now, who waits for how long, and who is refused. Pure: no clock, no lock, no future.

One gate stands before each vendor or model. A request passes it when every bucket, every gauge and
the window have room for it, and nobody waits who is before it. Those who wait stand in one line, by
priority and arrival; only the first of it is let in, so that a large request is not passed by small
ones for ever. What was refused has taken nothing.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Sequence

import attrs

from llmdispatcher.bucket import NOTHING, Bucket, Gauge, Needs, buckets
from llmdispatcher.models.headroom import Headroom, Quantity
from llmdispatcher.models.policy import Limits
from llmdispatcher.window import Window, window

PRIORITY_S = 1.0
"""A level of priority counts as much as having come so much earlier. Nobody is passed by those who
come later than the whole range of priorities is worth."""

LOOK_S = 5.0
"""Whoever waits for others looks again so often, should one of them have been lost."""

JUMP_S = 1.0
"""A clock further back than this was set; threads alone read it that little out of order."""

MAX_GAUGES = 32
"""Limits that a vendor's answers tell of; none tells of more than ten."""


@attrs.frozen
class Pass:
    """It may go. ``number`` is what to give back."""

    number: int


@attrs.frozen
class Stay:
    """It waits; to be asked for again at ``until_s``, or when it is first or let in."""

    number: int
    until_s: float
    ahead: int
    """How many are before it."""


@attrs.frozen
class Turned:
    """It is refused, and nothing is taken. ``retry_after_s``: when to try again, None for never."""

    reason: str
    retry_after_s: float | None


Answer = Pass | Stay | Turned


@attrs.frozen(kw_only=True)
class _Waiter:
    number: int
    needs: Needs
    place: tuple[float, int]
    """Its place in the line: lower is sooner."""
    deadline_s: float


@attrs.frozen
class _Went:
    """One that was let in: with what, as which of all, and when."""

    needs: Needs
    order: int
    at_s: float


class Gate:
    """Decides for one vendor or model. Not safe for threads."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.buckets: list[Bucket] = buckets(limits)
        self.gauges: dict[tuple[Quantity, str], Gauge] = {}
        self.window: Window | None = window(limits)
        self._under_way: dict[int, _Went] = {}
        self._line: list[tuple[float, int]] = []
        self._waiters: dict[int, _Waiter] = {}
        self._let_in: dict[int, _Went] = {}
        self._turned: dict[int, Turned] = {}
        """Those whose deadline came, until they look."""
        self._woken: list[int] = []
        self._first = 0
        """Whoever was told last that it is the first of the line; 0 if it should look again."""
        self._number = self._order = 0
        self._held_s: float | None = None
        self._now_s = -math.inf
        self._shift_s = 0.0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._line)

    @property
    def in_flight(self) -> int:
        """How many have gone, or were let in, and are not back."""
        return len(self._under_way) + len(self._let_in)

    # -- what happens --------------------------------------------------------------------------

    def ask(
        self, needs: Needs, now_s: float, *, priority: float = 0, deadline_s: float = math.inf
    ) -> Answer:
        """Let a request go, put it into the line, or refuse it. ``deadline_s`` is a time."""
        now_s = self._time(now_s)
        deadline_s += self._shift_s
        if reason := self._never(needs):
            return Turned(reason, None)
        self._number += 1
        number = self._number
        if not self._line and self._has_room() and self._wait_s(needs, now_s) == 0:
            self._under_way[number] = self._go(needs, now_s)
            return Pass(number)
        place = (now_s - priority * PRIORITY_S, number)
        ahead = bisect_left(self._line, place)
        wait_s = self._queue_s(needs, ahead, now_s)
        if reason := self._refusal(wait_s, now_s, deadline_s):
            return Turned(reason, self._later_s(wait_s, ahead))
        insort(self._line, place)
        self._waiters[number] = _Waiter(
            number=number, needs=needs, place=place, deadline_s=deadline_s
        )
        return self.look(number, now_s - self._shift_s)

    def look(self, number: int, now_s: float) -> Answer:
        """Say what is with one that waits. One that was let in takes its pass by this."""
        now_s = self._time(now_s)
        self._advance(now_s)
        if number in self._let_in:
            self._under_way[number] = self._let_in.pop(number)
            return Pass(number)
        waiter = self._waiters.get(number)
        if waiter is not None and now_s < waiter.deadline_s:
            return self._stay(waiter, now_s)
        if waiter is not None:
            self._turn_away(waiter, now_s)
        return self._turned.pop(number, Turned("it waits no more", None))

    def leave(self, number: int, now_s: float) -> None:
        """Take one out of the line, or give back what it was let in with. May be told twice."""
        now_s = self._time(now_s)
        if (waiter := self._waiters.get(number)) is not None:
            self._remove(waiter)
        elif (went := self._let_in.pop(number, None)) is not None:
            self._settle(went.needs, NOTHING, now_s)
        self._advance(now_s)
        self._turned.pop(number, None)
        self._first = 0

    def end(self, number: int, now_s: float, used: Needs | None = None) -> None:
        """Give a pass back; ``used`` is what it took in truth, None what was estimated.

        The first time counts. ``served`` and ``congested`` come before it.
        """
        now_s = self._time(now_s)
        went = self._under_way.pop(number, None)
        if went is not None:
            held_s = now_s - went.at_s
            self._held_s = held_s if self._held_s is None else (self._held_s + held_s) / 2
            if used is not None:
                self._settle(went.needs, used, now_s)
        self._advance(now_s)
        self._first = 0

    def served(self, number: int, pace_s: float | None = None) -> None:
        """Note that a request was served, at its pace."""
        if self.window is not None and (went := self._under_way.get(number)) is not None:
            self.window.served(went.order, self.in_flight, self._order, pace_s)

    def congested(self, number: int) -> None:
        """Note that a request failed because there were too many."""
        if self.window is not None and (went := self._under_way.get(number)) is not None:
            self.window.congested(went.order, self._order)

    def told(self, number: int, headroom: Headroom, now_s: float) -> None:
        """Take what the answer to a request tells of the vendor's limits."""
        now_s = self._time(now_s)
        went = self._under_way.get(number)
        if went is None:
            return
        for room in headroom.rooms:
            key = room.quantity, room.window
            gauge = self.gauges.get(key)
            if gauge is None:
                if len(self.gauges) >= MAX_GAUGES:
                    continue
                gauge = self.gauges[key] = Gauge(quantity=room.quantity)
            later = sum(
                other.needs.of(room.quantity)
                for other in self._under_way.values()
                if other.order > went.order
            )
            gauge.read(room, later, now_s)
        self._advance(now_s)
        self._first = 0

    def learn(self, levels: Sequence[float], now_s: float, refused: int = 0) -> None:
        """Go by what all programs together have left of the buckets.

        ``refused`` is a pass that is worth nothing, as they have not enough for it.
        """
        now_s = self._time(now_s)
        if (went := self._under_way.pop(refused, None)) is not None:
            self._settle(went.needs, NOTHING, now_s)
        for bucket, level in zip(self.buckets, levels, strict=True):
            bucket.learn(level, now_s)
        self._advance(now_s)
        self._first = 0

    def woken(self) -> list[int]:
        """Return those who should look now, each once: let in since, or first of the line."""
        woken, self._woken = self._woken, []
        first = self._line[0][1] if self._line else 0
        if first and first != self._first:
            woken.append(first)
        self._first = first
        return woken

    # -- decisions -----------------------------------------------------------------------------

    def _time(self, now_s: float) -> float:
        """Return a time that never runs backwards, whatever the clock does."""
        if now_s + self._shift_s < self._now_s - JUMP_S:
            self._shift_s = self._now_s - now_s
        self._now_s = max(self._now_s, now_s + self._shift_s)
        return self._now_s

    def _never(self, needs: Needs) -> str:
        """Return why a request cannot ever go; empty if it can."""
        for bucket in self.buckets:
            if (amount := bucket.amount(needs)) > bucket.capacity:
                what = bucket.quantity.replace("_", " ")
                holds = f"the limit of a {bucket.window} lets {bucket.capacity:.0f} pass at once"
                return f"it takes {amount:.0f} {what}, and {holds}"
        return ""

    def _refusal(self, wait_s: float, now_s: float, deadline_s: float) -> str:
        """Return why a request may not wait; empty if it may."""
        if not self.limits.waits:
            return "the limits are used up for now"
        if len(self._line) >= self.limits.queue:
            return f"{len(self._line)} requests wait already"
        if now_s + wait_s >= deadline_s:
            return f"its deadline comes before its turn, which is in {wait_s:.1f} s at the soonest"
        return ""

    def _has_room(self) -> bool:
        return self.window is None or self.window.has_room(self.in_flight)

    def _wait_s(self, needs: Needs, now_s: float) -> float:
        """Return how long until every bucket and gauge has enough."""
        waits = [bucket.wait_s(bucket.amount(needs), now_s) for bucket in self.buckets]
        waits += [gauge.wait_s(needs.of(gauge.quantity), now_s) for gauge in self.gauges.values()]
        return max(waits, default=0.0)

    def _queue_s(self, needs: Needs, ahead: int, now_s: float) -> float:
        """Return how long a request waits at least, behind those ahead of it."""
        wait_s = self._wait_s(needs, now_s)
        if ahead:
            before = [self._waiters[number].needs for _, number in self._line[:ahead]]
            for bucket in self.buckets:
                taken = sum(bucket.amount(each) for each in before)
                wait_s = max(wait_s, bucket.queue_s(taken, bucket.amount(needs), now_s))
        return wait_s

    def _stay(self, waiter: _Waiter, now_s: float) -> Stay:
        ahead = bisect_left(self._line, waiter.place)
        wait_s = LOOK_S
        if ahead == 0 and self._has_room():
            wait_s = min(wait_s, self._wait_s(waiter.needs, now_s))
        until_s = min(now_s + wait_s, waiter.deadline_s)
        return Stay(waiter.number, until_s - self._shift_s, ahead)

    def _later_s(self, wait_s: float, ahead: int) -> float | None:
        """Return when to try again: as the buckets say, and guessed by how long others took."""
        if self.window is not None and self._held_s is not None:
            wait_s = max(wait_s, self._held_s * (ahead + 1) / max(1, int(self.window.size)))
        return None if wait_s == math.inf else wait_s

    def _advance(self, now_s: float) -> None:
        """Let in those at the head of the line for whom there is room; turn the late ones away."""
        while self._line:
            waiter = self._waiters[self._line[0][1]]
            if now_s >= waiter.deadline_s:
                self._turn_away(waiter, now_s)
            elif self._has_room() and self._wait_s(waiter.needs, now_s) == 0:
                self._remove(waiter)
                self._let_in[waiter.number] = self._go(waiter.needs, now_s)
            else:
                return
            self._woken.append(waiter.number)

    def _turn_away(self, waiter: _Waiter, now_s: float) -> None:
        ahead = bisect_left(self._line, waiter.place)
        later_s = self._later_s(self._queue_s(waiter.needs, ahead, now_s), ahead)
        self._remove(waiter)
        turned = Turned("its deadline came while it waited", later_s)
        self._turned[waiter.number] = turned

    def _remove(self, waiter: _Waiter) -> None:
        del self._waiters[waiter.number]
        del self._line[bisect_left(self._line, waiter.place)]

    def _go(self, needs: Needs, now_s: float) -> _Went:
        """Take what a request needs."""
        for bucket in self.buckets:
            bucket.take(bucket.amount(needs), now_s)
        for gauge in self.gauges.values():
            gauge.take(needs.of(gauge.quantity), now_s)
        self._order += 1
        return _Went(needs, self._order, now_s)

    def _settle(self, needs: Needs, used: Needs, now_s: float) -> None:
        """Correct the buckets by what was used. A gauge hears that from the vendor itself."""
        for bucket in self.buckets:
            bucket.give(bucket.amount(needs) - used.of(bucket.quantity), now_s)
        if not used.requests:  # never sent
            for gauge in self.gauges.values():
                gauge.give(needs.of(gauge.quantity), now_s)
