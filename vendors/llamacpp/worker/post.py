"""Pieces on their way out of a worker: gathered while the engine steps, sent when it wakes callers.

The counterpart of ``mailbox.Mailbox`` for a consumer in another process. The engine's relay decides
when consumers are woken; here that sends one message with all that has gathered, whoever it is for.
Sending waits while the pipe is full: a parent that does not read holds the engine back, and nothing
grows.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from llmdispatcher.models.reply import Finish, Piece, Progress
from llmdispatcher.vendors.llamacpp.worker import codec
from llmdispatcher.vendors.llamacpp.worker.link import Gone

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmdispatcher.models.errors import DispatcherError
    from llmdispatcher.vendors.llamacpp.engine.inbox import EngineCall
    from llmdispatcher.vendors.llamacpp.worker.link import Link


class Slot:
    """Where the engine puts the pieces of one call. See ``inbox.Box``."""

    def __init__(self, post: Post, number: int) -> None:
        self._post, self.number = post, number
        self.call: EngineCall | None = None
        self.pieces: list[Piece] = []
        self.error: DispatcherError | None = None
        self.is_over = False

    def put(self, piece: Piece) -> Post | None:
        """Add a piece, unless the call has ended."""
        with self._post.gathering:
            if self.is_over or (isinstance(piece, Progress) and self.pieces):
                return None
            self.is_over = isinstance(piece, Finish)
            self.pieces.append(piece)
            return self._post.gather(self)

    def fail(self, error: DispatcherError) -> Post | None:
        """End with an error, unless the call has ended."""
        with self._post.gathering:
            if self.is_over:
                return None
            self.is_over, self.error = True, error
            return self._post.gather(self)

    def take(self) -> list[Piece]:
        """Take the pieces that have gathered. Called with ``Post.gathering`` held."""
        pieces, self.pieces = self.pieces, []
        return pieces

    def letter(self, pieces: list[Piece]) -> list[Any]:
        """Return one entry of a message: number, pieces, usage, error."""
        usage = None if self.call is None else codec.usage_out(self.call.usage())
        error = None if self.error is None else codec.error_out(self.error)
        return [self.number, [codec.piece_out(piece) for piece in pieces], usage, error]


class Post:
    """Gathers from the slots of all calls, and sends. A waker, as ``mailbox.fire`` takes them."""

    def __init__(
        self, link: Link, counts: Callable[[], tuple[int, int]], gone: Callable[[], None]
    ) -> None:
        """``counts`` are those of the inbox; ``gone`` is called when nobody reads any more."""
        self._link, self._counts, self._gone = link, counts, gone
        self.gathering = threading.RLock()
        """Held to touch what is in the slots."""
        self._sending = threading.Lock()
        self._full: dict[Slot, None] = {}

    def gather(self, slot: Slot) -> Post:
        """Note that there is something in a slot. Called with ``gathering`` held."""
        self._full[slot] = None
        return self

    def wake(self) -> None:
        """Send what there is, all of it in one message."""
        with self._sending:  # messages leave in the order in which they were gathered
            with self.gathering:
                full, self._full = self._full, {}
                taken = [(slot, slot.take()) for slot in full]
            if not taken:
                return
            letters = [slot.letter(pieces) for slot, pieces in taken]
            try:
                self._link.send(["pieces", *self._counts(), letters])
            except Gone:
                self._gone()
