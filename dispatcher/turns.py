"""Waits for a request's turn where a vendor or model has limits, and says how it went. No I/O."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator
from typing import Any

import attrs

from llmdispatcher.bucket import Needs
from llmdispatcher.limits import Limiter, Permit, Waiting
from llmdispatcher.models.errors import Cancelled, DispatcherError
from llmdispatcher.models.reply import Usage
from llmdispatcher.release import Stopper, Watch
from llmdispatcher.steps import Step, Wait
from llmdispatcher.vendors.contract import Call


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
        """Wait for the turn. Raises LimitReached where it does not come, and Cancelled."""
        now_s = self.clock()
        deadline_s = math.inf if self.left_s is None else now_s + self.left_s
        answer = limiter.ask(self.needs, now_s, priority=self.priority, deadline_s=deadline_s)
        while isinstance(answer, Waiting):
            answer = yield from self._wait(answer)
        return answer

    def _wait(self, waiting: Waiting) -> Generator[Step, Any, Permit | Waiting]:
        """Wait until it is worth another look."""
        watch, has_left = Watch(waiting.future), True
        self.stopper.arm(lambda: watch.end(Cancelled()))
        try:
            with contextlib.suppress(TimeoutError):  # it is time to look
                yield Wait(watch.future, max(0.0, waiting.until_s - self.clock()))
            has_left = False
        finally:
            watch.leave()
            if has_left:  # stopped, or closed
                waiting.leave(self.clock())
        return waiting.look(self.clock())


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
