"""Hands pieces over to consumers and decides when to wake them.

Waking a consumer takes a processor from llama.cpp, so pieces are put down at once but consumers are
woken in groups, now and then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from copy import copy
from typing import TYPE_CHECKING

from llmdispatcher.models.errors import DispatcherError
from llmdispatcher.models.reply import Delta, Finish, Piece, Progress
from llmdispatcher.vendors.mailbox import Waker, fire

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.engine.inbox import EngineCall

RELAY_S = 0.033
"""Consumers are woken at most this often while text flows, and at once for a first piece and an
end: at thirty times a second, text still flows. Each wake-up takes a processor from llama.cpp,
whose threads all wait for the one that lost it: with several streams of a small model that is much
of its throughput (``bench/engine.py`` shows what is left)."""

HEARTBEAT_S = 1.0
"""How often a waiting request is told that the engine is alive."""


class Relay:
    """Between the engine's thread, which owns it, and the consumers of its calls."""

    def __init__(self) -> None:
        self._wakers: list[Waker | None] = []
        self._urgent = False
        self._fired_at = 0.0
        self._heartbeat_at = 0.0

    def put(self, call: EngineCall, piece: Piece) -> None:
        """Put a piece down for a consumer, who is woken soon."""
        if isinstance(piece, Delta) and not call.has_text:
            call.has_text = self._urgent = True
        self._urgent |= isinstance(piece, Finish)
        self._wakers.append(call.box.put(piece))

    def fail(self, call: EngineCall, error: DispatcherError) -> None:
        """End a call with an error."""
        self._urgent = True
        self._wakers.append(call.box.fail(copy(error)))

    def tell(self, waiting: Callable[[], Iterable[EngineCall]], *, idle: bool) -> None:
        """Wake those for whom there is something, if it is time; ``waiting`` get a sign of life."""
        now = time.monotonic()
        if now - self._heartbeat_at >= HEARTBEAT_S:
            self._heartbeat_at = now
            for ahead, call in enumerate(waiting(), 1):
                self.put(call, Progress("queued", 0, ahead))
        if idle or self._urgent or now - self._fired_at >= RELAY_S:
            self._urgent, self._fired_at = False, now
            self.fire()

    def fire(self) -> None:
        """Wake all for whom there is something."""
        wakers, self._wakers = self._wakers, []
        fire(wakers)
