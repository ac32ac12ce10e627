"""Waits for a request's turn where a vendor or model has limits, and says how it went. No I/O.

Where limits are shared with other programs, a request first gets its permit here, in the fair line
of this program, and then draws its share of what all have together. If they have not enough, the
permit is worth nothing: the line learns what is left, and the request is back at its place in it.
Whoever is the first of the line looks now and then whether others gave something back.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import attrs

from llmdispatcher.bucket import NOTHING, Needs
from llmdispatcher.gate import PRIORITY_S
from llmdispatcher.limits import Limiter, Permit, Waiting
from llmdispatcher.models.errors import Cancelled, DispatcherError, LedgerUnusable, LimitReached
from llmdispatcher.models.reply import Usage
from llmdispatcher.release import Stopper, Watch
from llmdispatcher.steps import Step, Wait
from llmdispatcher.vendors.contract import Call

if TYPE_CHECKING:
    from concurrent.futures import Future

    from llmdispatcher.ledger_shared import Draw, Pool

LEDGER_S = 60.0
"""How long something may take to be written. A ledger gives up by itself long before."""

LOOK_S = 1.0
"""Between two looks of the first of a line at what others gave back."""

FRESH_S = 0.1
"""What was heard so lately from others need not be asked again, before somebody is refused."""


@attrs.frozen(kw_only=True)
class Turn:
    """What a request brings to its limits."""

    needs: Needs
    priority: int
    left_s: float | None
    """How long it may wait."""
    stopper: Stopper
    clock: Callable[[], float]

    def take(self, limiter: Limiter) -> Generator[Step, Any, Permit]:
        """Wait for the turn. Raises LimitReached where it does not come, LedgerUnusable, Cancelled.

        The last but one only where the limits are shared.
        """
        now_s = self.clock()
        deadline_s = math.inf if self.left_s is None else now_s + self.left_s
        if limiter.pool is not None:
            return (yield from self._take_shared(limiter, limiter.pool, now_s, deadline_s))
        return (yield from self._line(limiter, now_s, deadline_s))

    def _take_shared(
        self, limiter: Limiter, pool: Pool, came_s: float, deadline_s: float
    ) -> Generator[Step, Any, Permit]:
        """Wait for a permit that has its share of what all programs have together."""
        while True:
            permit = yield from self._shared_line(limiter, pool, came_s, deadline_s)
            if (yield from self._share(limiter, pool, permit, deadline_s)):
                return permit

    def _wait(
        self, limiter: Limiter, waiting: Waiting, deadline_s: float
    ) -> Generator[Step, Any, Permit | Waiting]:
        """Wait until it is worth another look."""
        watch, has_left = Watch(waiting.future), True
        self.stopper.arm(lambda: watch.end(Cancelled()))
        wait_s, pool = max(0.0, waiting.until_s - self.clock()), limiter.pool
        looks = pool is not None and waiting.ahead == 0 and wait_s > LOOK_S
        try:
            with contextlib.suppress(TimeoutError):  # it is time to look
                yield Wait(watch.future, LOOK_S if looks else wait_s)
            if pool is not None and looks and not waiting.future.done():
                yield from self._learn(limiter, pool, deadline_s)
            has_left = False
        finally:
            watch.leave()
            if has_left:  # stopped, or closed
                waiting.leave(self.clock())
        return waiting.look(self.clock())

    def _shared_line(
        self, limiter: Limiter, pool: Pool, came_s: float, deadline_s: float
    ) -> Generator[Step, Any, Permit]:
        """Wait for a permit, at the place of when the request came."""
        try:
            return (yield from self._line(limiter, came_s, deadline_s))
        except LimitReached as error:
            now_s, is_never = self.clock(), error.retry_after_s is None
            if is_never or now_s >= deadline_s or now_s - pool.learned_s < FRESH_S:
                raise
        yield from self._learn(limiter, pool, deadline_s)  # others may have given back
        return (yield from self._line(limiter, came_s, deadline_s))

    def _line(
        self, limiter: Limiter, came_s: float, deadline_s: float
    ) -> Generator[Step, Any, Permit]:
        """Wait in the line: with a priority that is worth having come when the request did."""
        now_s = self.clock()
        priority = self.priority + (now_s - came_s) / PRIORITY_S
        answer = limiter.ask(self.needs, now_s, priority=priority, deadline_s=deadline_s)
        while isinstance(answer, Waiting):
            answer = yield from self._wait(limiter, answer, deadline_s)
        return answer

    def _share(
        self, limiter: Limiter, pool: Pool, permit: Permit, deadline_s: float
    ) -> Generator[Step, Any, bool]:
        """Draw a share of what all programs have; with False, the permit is taken back."""
        draw, is_answered = pool.draw(self.needs), False
        try:
            yield from self._answered(limiter, draw, deadline_s)
            is_answered = True
        finally:
            if not is_answered:  # stopped, closed, late, or the ledger cannot be used
                permit.cancel(self.clock())
                pool.give(draw, NOTHING)
        now_s = self.clock()
        if draw.levels is None:  # the file cannot be written, and this program goes on alone
            return True
        pool.learned_s = now_s
        if not draw.is_granted:
            permit.refuse(draw.levels, now_s)
            return False
        limiter.learn(draw.levels, now_s)
        permit.shared(lambda used: pool.give(draw, used))
        return True

    def _learn(self, limiter: Limiter, pool: Pool, deadline_s: float) -> Generator[Step, Any, None]:
        """Find out what all programs together have left."""
        draw = pool.draw(NOTHING)
        yield from self._answered(limiter, draw, deadline_s)
        now_s = pool.learned_s = self.clock()
        if draw.levels is not None:
            limiter.learn(draw.levels, now_s)

    def _answered(
        self, limiter: Limiter, draw: Draw, deadline_s: float
    ) -> Generator[Step, Any, None]:
        """Wait for the answer of the ledger, and not beyond the deadline."""
        left_s = deadline_s - self.clock()
        if left_s >= LEDGER_S:
            return (yield from written(draw.ends, self.stopper))
        try:
            yield from _released(draw.ends, self.stopper, max(0.0, left_s))
        except TimeoutError:
            late = "its deadline came while it asked for its share of the limits"
            raise LimitReached(f"{limiter.name}: {late}") from None


def written(waiting: Future[None], stopper: Stopper) -> Generator[Step, Any, None]:
    """Wait until the ledger has written something. Raises what it does, and LedgerUnusable."""
    try:
        yield from _released(waiting, stopper, LEDGER_S)
    except TimeoutError:
        told_s = f"nothing could be written into the ledger for {LEDGER_S:g} s"
        raise LedgerUnusable(f"{told_s}: look who holds the file, or the disk") from None


def _released(
    waiting: Future[None], stopper: Stopper, limit_s: float
) -> Generator[Step, Any, None]:
    """Wait for a future until the request is stopped. Raises Cancelled and TimeoutError."""
    watch = Watch(waiting)
    stopper.arm(lambda: watch.end(Cancelled()))
    try:
        yield Wait(watch.future, limit_s)
    finally:
        watch.leave()


def end(
    permit: Permit, call: Call | None, usage: Usage, error: DispatcherError | None, now_s: float
) -> None:
    """Give a permit back, with what the answer told of the vendor's limits."""
    if call is None:  # nothing was sent
        return permit.cancel(now_s)
    if headers := getattr(call, "headers", None):  # ``contract.Telling``, which is slow to ask
        from llmdispatcher.vendors.wire.headroom import headroom  # noqa: PLC0415 - HTTP alone

        permit.told(headroom(headers), now_s)
    used = None if usage.estimated or error is not None else _needs(usage)
    return permit.end(now_s, used=used, error=error)


def _needs(usage: Usage) -> Needs:
    return Needs(input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens)
