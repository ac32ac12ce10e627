"""A request on its way through a server, as its consumer sees it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from llmdispatcher.models.embedding import Work
from llmdispatcher.models.errors import Cancelled
from llmdispatcher.models.reply import Finish, Piece, Usage
from llmdispatcher.vendors.llamacpp.server.desk import Seat
from llmdispatcher.vendors.mailbox import Mailbox, Waker, fire

if TYPE_CHECKING:
    import asyncio

    from llmdispatcher.vendors.llamacpp.server.wire import Asked


class ServerCall:
    """See ``contract.Call``."""

    def __init__(self, work: Work, cancelled: Callable[[ServerCall], None]) -> None:
        self.work = work
        self.box = Mailbox()
        self.receive = self.box.receive
        self.areceive = self.box.areceive
        self.seat = Seat(priority=work.priority, arrived_s=time.monotonic())
        self.asked: Asked | None = None
        """What is asked for it, once that is known."""
        self.task: asyncio.Task[None] | None = None
        self.used = Usage()
        self.runs = False
        """Whether the server was asked."""
        self.pieces = 0
        self.is_complete = False
        self.is_cancelled = False
        self._cancelled = cancelled

    def put(self, piece: Piece) -> Waker | None:
        """Hand a piece to the consumer."""
        self.pieces += 1
        if isinstance(piece, Finish):
            self.is_complete = True
            self.used = piece.usage
        return self.box.put(piece)

    def usage(self) -> Usage:
        """Return the tokens until now."""
        return self.used

    def cancel(self) -> None:
        """Release the consumer, and have the connection closed, at which the server stops."""
        self.is_cancelled = True
        try:
            self._cancelled(self)
        finally:  # also if a Ctrl-C comes in between
            fire([self.box.fail(Cancelled())])
