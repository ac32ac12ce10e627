"""The way of one request through its candidates: who is asked next, and after how long. Pure.

    course = Course(places, policy, began_s=clock())
    move = course.begin()
    while isinstance(move, Ask):
        …pause for move.wait_s, then ask candidate number move.index; if it fails:
        course.spend(cost_microusd=…, loaded_s=…)
        move = course.after(error, clock(), draw=random())

``retry`` says what an error means; this keeps who has been asked, who is out, and who comes back
when. Everything that it lets happen is paid for from one ``Allowance``.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence

import attrs

from llmdispatcher.line import MIN_WAIT_S
from llmdispatcher.models.errors import (
    BadReply,
    BreakerOpen,
    ContextOverflow,
    DispatcherError,
    Overloaded,
    RateLimited,
    Refused,
)
from llmdispatcher.models.policy import RetryPolicy
from llmdispatcher.place import Place
from llmdispatcher.retry import Allowance, Ration, Verdict, backoff_s, same_at_most, verdict

FLOOR_S = 1.0
"""The least pause before a candidate is come back to doubles each time, from ``MIN_WAIT_S`` up to
this."""


MAX_RETURNS = 32
"""So often a candidate is come back to that keeps saying "later": who is refused by us spends no
attempt, and where each refusal takes its time, no waiting either."""


_STOPS = "another candidate is not asked after this"


@attrs.frozen
class Ask:
    """Ask this candidate, after a pause."""

    index: int
    wait_s: float = 0.0


@attrs.frozen
class End:
    """Ask nobody any more; ``reason`` says why, in words."""

    reason: str
    retry_after_s: float | None = None
    """When the first of those that were busy is ready again, where that is what ended it."""


Move = Ask | End


@attrs.define
class _Standing:
    """What is known of a candidate in this request."""

    is_asked: bool = False
    is_out: bool = False
    retries: int = 0
    ready_s: float | None = None
    """When it is ready again, if it will be."""
    pause_s: float = 0.0
    """How long that was when it was said: no jump of the clock makes it more."""


class Course:
    """Says whom to ask, for one request. Not safe for threads; one flow owns it."""

    def __init__(
        self,
        places: Sequence[Place],
        policy: RetryPolicy,
        began_s: float,
        ration: Ration | None = None,
        *,
        is_by_cost: bool = False,
    ) -> None:
        """``ration`` is that of a larger request, which this one is a part of.

        ``is_by_cost`` is whether waiting for a local server that is full is better than paying.
        """
        self._ration = ration or Ration(policy, began_s)
        self._policy, self._began_s = policy, began_s
        self._loaded_s, self._is_by_cost, self._is_in_line = 0.0, is_by_cost, False
        self._places = tuple(places)
        self._standings = [_Standing() for _ in places]
        self.is_needed = True
        """Whether nothing else is there if nobody serves: then a full server is waited for."""
        self.asked: int | None = None
        """Whom ``after`` is about: the one asked last, until another one is set."""
        self.full_s: float | None = None
        """For how long that one is still taken to be full, to be set before ``after``; None where
        it is not, or is no local server."""
        self._full: set[Hashable] = set()
        """Keys of those that were full when they were last asked: one engine is one crowd."""

    def begin(self) -> Move:
        """Ask the first candidate."""
        return self._fresh(self._began_s) or End("there is no candidate")

    def another(self, now_s: float) -> Move:
        """Ask one more candidate, beside those that are being asked."""
        return self._fresh(now_s) or End("there is nobody else to ask")

    def fresh(self, but: Iterable[int] = ()) -> int | None:
        """Return the first candidate that nobody has asked yet, none of ``but``.

        Where the order is by cost, those of an engine that is full come after all others.
        """
        left_out, of_full = set(but), None
        for index, standing in enumerate(self._standings):
            if standing.is_asked or standing.is_out or index in left_out:
                continue
            if not (self._is_by_cost and self._is_full(index)):
                return index
            of_full = index if of_full is None else of_full
        return of_full

    def ask(self, index: int, now_s: float) -> Move:
        """Ask a certain candidate, beside those that are being asked."""
        return self._ask(index, 0.0, now_s)

    def note(self, error: DispatcherError) -> None:
        """Note that the candidate number ``asked`` has failed, where nobody takes its place."""
        if isinstance(error, Refused):
            self._ration.give_back()
        if self.asked is not None:
            self._strike(error, verdict(error), self.asked)

    @property
    def allowance(self) -> Allowance:
        """What is spent of the request's allowance, and of its time on loading here."""
        return self._ration.spent.spend(loaded_s=self._loaded_s)

    def spend(self, *, cost_microusd: int | None = 0, loaded_s: float = 0.0) -> None:
        """Note what an attempt cost (None: not known), and what of its time was loading."""
        self._ration.pay(cost_microusd)
        self._loaded_s += loaded_s

    def after(
        self,
        error: DispatcherError,
        now_s: float,
        *,
        draw: float,
        left_s: float | None = None,
        hurries: bool = False,
    ) -> Move:
        """Say what to do now that the candidate number ``asked`` has failed.

        ``draw`` is random in [0, 1), and ``left_s`` what is left of the caller's own deadline.
        ``hurries`` is whether a reader sits before half a reply: others go before the same then.
        """
        index = self.asked
        if index is None:
            raise RuntimeError("nobody was asked")
        if isinstance(error, Refused):  # ours: nothing was sent
            self._ration.give_back()
        said = verdict(error)
        is_soon = said is Verdict.SAME or isinstance(error, RateLimited)
        full_s = self._heard_of_full(index, error, said)
        said = Verdict.LATER if hurries and said is Verdict.SAME else said
        if reason := _STOPS if said is Verdict.STOP else self.allowance.refusal(now_s):
            return End(reason)
        standing = self._standings[index]
        spares = self._is_by_cost and not hurries
        if full_s is not None:
            self._is_back(index, now_s, full_s)
            move = self._sparing(now_s, draw, left_s) if spares else None
            if isinstance(move, Ask):
                return move
        waits = full_s is not None and not hurries and self.is_needed
        waits = waits and self._policy.same_target > 0
        is_alone = waits and self._is_alone()
        pause_s = self._pause_s(error, said, standing, draw, is_alone=is_alone)
        if pause_s is None:
            if not (waits and self._park(index, now_s, full_s or 0.0)):
                self._strike(error, said, index)
            return self._next(now_s, draw, left_s, spares=spares)
        half_s = math.inf if left_s is None or not is_alone else max(left_s / 2, MIN_WAIT_S)
        pause_s = max(min(pause_s, half_s), full_s or 0.0)  # half, so that the last one fits
        is_soon = is_soon and (full_s or 0.0) <= self._policy.backoff_s
        standing.retries += 1
        self._is_back(index, now_s, pause_s)
        is_soon = is_soon and not hurries and standing.retries <= self._policy.same_target
        if is_soon and pause_s <= self._policy.backoff_cap_s:
            move = self._wait(index, pause_s, now_s, left_s)
            if isinstance(move, Ask):
                return move
        return self._next(now_s, draw, left_s, spares=spares)

    def _park(self, index: int, now_s: float, full_s: float) -> bool:
        """Leave one alone for long that was full again and again; False if it was enough."""
        standing = self._standings[index]
        standing.retries += 1
        self._is_back(index, now_s, max(full_s, self._policy.backoff_cap_s))
        return standing.retries <= MAX_RETURNS

    def _is_full(self, index: int) -> bool:
        """Whether a candidate is of an engine that was full when it was last asked."""
        at = self._places[index]
        return at.is_local and at.key in self._full

    def _is_alone(self) -> bool:
        """Whether all who are left are full, so that nobody can be asked instead."""
        return all(
            standing.is_out or self._is_full(index)
            for index, standing in enumerate(self._standings)
        )

    def _next(self, now_s: float, draw: float, left_s: float | None, *, spares: bool) -> Move:
        """Ask who has not been asked yet, or else whoever is ready again first."""
        move = self._sparing(now_s, draw, left_s) if spares and self._full else None
        if isinstance(move, Ask):
            return move
        return self._fresh(now_s) or self._first_back(now_s, left_s)

    def _heard_of_full(self, index: int, error: DispatcherError, said: Verdict) -> float | None:
        """Return for how long the candidate is full, if it is; noted for its whole engine."""
        if self._is_in_line and isinstance(error, BreakerOpen):
            self._ration.line = self._ration.line.in_vain()
        self._is_in_line = False
        is_full = self.full_s is not None and isinstance(error, Overloaded | BreakerOpen)
        is_full = is_full and said in {Verdict.SAME, Verdict.LATER}
        if self._places[index].is_local:
            (self._full.add if is_full else self._full.discard)(self._places[index].key)
        return self.full_s if is_full else None

    def _is_back(self, index: int, now_s: float, pause_s: float) -> None:
        """Note when a candidate is ready again."""
        standing = self._standings[index]
        standing.ready_s, standing.pause_s = now_s + pause_s, pause_s

    def _sparing(self, now_s: float, draw: float, left_s: float | None) -> Move | None:
        """Ask who costs nothing, wait for one that is full, or pay, in this order.

        Of the attempts one is kept for each of those who charge, but no more than half of all.
        None where all who are left are of engines that are full.
        """
        left = [
            index
            for index, standing in enumerate(self._standings)
            if not (standing.is_asked or standing.is_out or self._is_full(index))
        ]
        if not left:
            return None
        attempts = self._policy.attempts
        dear = [index for index in left if self._places[index].is_dear]
        kept = min(len(dear), max(1, attempts // 2))
        if self.allowance.attempts >= attempts - kept:
            return self._ask((dear or left)[0], 0.0, now_s)
        if self._places[left[0]].is_dear:
            move = self._in_line(now_s, draw, left_s)
            if isinstance(move, Ask):
                return move
        return self._ask(left[0], 0.0, now_s)

    def _in_line(self, now_s: float, draw: float, left_s: float | None) -> Move | None:
        """Wait for the first of those that are full, if the request has time for that."""
        back = [each for each in self._back(now_s) if self._is_full(each[1])]
        if not back:
            return None
        least_s, index = min(back)
        spent, policy, line = self.allowance, self._policy, self._ration.line
        room_s = line.room_s([left_s, spent.left_s(now_s), policy.max_wait_s - spent.waited_s])
        wait_s = line.pause_s(policy, max(least_s, 0.0), room_s, draw)
        if wait_s is None:
            return None
        move = self._wait(index, wait_s, now_s, left_s)
        if isinstance(move, Ask):
            self._ration.line, self._is_in_line = line.longer(wait_s), True
        return move

    def again(self, now_s: float) -> Move:
        """Ask the same at once in another way: it refused how it was asked, and not the request."""
        assert self.asked is not None  # noqa: S101 - somebody was asked
        return self._ask(self.asked, 0.0, now_s)

    def _pause_s(
        self,
        error: DispatcherError,
        said: Verdict,
        standing: _Standing,
        draw: float,
        *,
        is_alone: bool,
    ) -> float | None:
        """Return after how long the same may be asked again; None for never.

        Where all are full and nobody else is there, it is asked for as long as a request may wait,
        and no pause is shorter than half of what it may be: attempts are few.
        """
        told_s: float | None = getattr(error, "retry_after_s", None)
        is_enough = not is_alone and standing.retries >= same_at_most(error, self._policy)
        if said is Verdict.SAME:
            if is_enough:
                return None
        elif said is not Verdict.LATER or (told_s is None and isinstance(error, Refused)):
            return None
        elif told_s is None and is_enough:
            return None  # nobody said when to come back
        if standing.retries >= MAX_RETURNS and not is_alone:
            return None
        count = standing.retries + 1 + (self._ration.line.pauses if is_alone else 0)
        draw = (1 + draw) / 2 if is_alone else draw
        is_well = isinstance(error, BadReply) and error.is_unfit  # what it wrote no time mends
        backed_s = 0.0 if is_well else backoff_s(self._policy, count, draw)
        least_s = min(MIN_WAIT_S * 2.0 ** min(standing.retries, 10), FLOOR_S)
        if told_s is None:
            return backed_s if said is Verdict.SAME else max(backed_s, least_s)
        # Never sooner than told; a little later, as all who were told the same would come at once.
        return max(told_s, least_s) + min(backed_s, self._policy.backoff_s * draw)

    def _strike(self, error: DispatcherError, said: Verdict, index: int) -> None:
        """Put those out who would fail as the one asked did."""
        failed = self._places[index]
        self._standings[index].is_out = True
        if said is Verdict.KEY:
            self._out(place.key == failed.key for place in self._places)
        elif said is Verdict.MODEL:
            needed = 0
            if isinstance(error, ContextOverflow):
                limit = error.limit_tokens or failed.context_tokens or 0
                needed = max(error.needed_tokens or 0, limit + 1)
            self._out(
                place.context_tokens is not None and place.context_tokens < needed
                for place in self._places
            )

    def _out(self, out: Iterable[bool]) -> None:
        for standing, is_out in zip(self._standings, out, strict=True):
            standing.is_out = standing.is_out or is_out

    def _fresh(self, now_s: float) -> Move | None:
        """Ask the first candidate that nobody has asked yet."""
        index = self.fresh()
        return None if index is None else self._ask(index, 0.0, now_s)

    def _first_back(self, now_s: float, left_s: float | None) -> Move:
        """Wait for whoever is ready again first, if there is time for that."""
        ended: Move | None = None
        for wait_s, index in sorted(self._back(now_s)):
            move = self._wait(index, max(wait_s, 0.0), now_s, left_s)
            if isinstance(move, Ask):
                return move
            ended = ended or move
        return ended or End("every candidate has failed")

    def _back(self, now_s: float) -> list[tuple[float, int]]:
        """Return who may be asked again, each after how long."""
        return [
            (min(standing.ready_s - now_s, standing.pause_s), index)
            for index, standing in enumerate(self._standings)
            if standing.ready_s is not None and not standing.is_out
        ]

    def _wait(self, index: int, wait_s: float, now_s: float, left_s: float | None) -> Move:
        """Ask after a pause, if there is time for it."""
        if left_s is not None and wait_s >= left_s:
            return End(f"the deadline comes before a wait of {wait_s:.1f} s ends", wait_s)
        return self._ask(index, wait_s, now_s)

    def _ask(self, index: int, wait_s: float, now_s: float) -> Move:
        """Ask a candidate, if there is an attempt left for it."""
        if reason := self._ration.take(now_s - self._loaded_s, wait_s):
            return End(reason, wait_s or None)
        standing = self._standings[index]
        standing.is_asked, standing.ready_s = True, None
        self.asked = index
        return Ask(index, wait_s)
