"""Answers on their way: what a thread, or a task, reads piece by piece."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from llmdispatcher.vendors.http.bodies import AsyncBody, Body, async_body, body
from llmdispatcher.vendors.http.clients import FAILURES, told
from llmdispatcher.vendors.http.sockets import Received, mark_rest
from llmdispatcher.vendors.wire.exchange import Head

if TYPE_CHECKING:
    import socket

    import httpx2

    from llmdispatcher.vendors.http.bound import Bound


class Line:
    """The answer to one request, in a thread."""

    def __init__(self, ended: Callable[[Line], None]) -> None:
        self._ended: Callable[[Line], None] | None = ended
        self._close: Callable[[], None] | None = None
        self._chunks: Iterator[bytes] = iter(())
        self._body: Body | None = None
        """Of a connection of ours, unless the library has to read it; ``_chunks`` are then read."""
        self._theirs: tuple[Bound, socket.socket] | None = None
        """Of a connection that knows of no bound: whom to tell that it is waited for."""
        self.head = Head(0, {})

    def begin(self, received: Received) -> None:
        """Take the beginning of the answer."""
        self.head = Head(received.status, named(received.headers))

        def close() -> None:
            mark_rest(received)
            received.close()

        self._close, self._body = close, body(received)
        if self._body is None:
            self._chunks = iter(received.stream)  # type: ignore[arg-type]  # it is a thread's

    def watch(self, response: httpx2.Response, bound: Bound) -> None:
        """Take it from the caller's own client; whoever stops the bound ends the waiting."""
        self.head = Head(response.status_code, named(response.headers.raw))
        self._chunks, self._close = response.iter_raw(), response.close
        stream = response.extensions.get("network_stream")
        found = None if stream is None else stream.get_extra_info("socket")
        self._theirs = None if found is None else (bound, found)

    @property
    def is_over(self) -> bool:
        """Whether the end has come, as far as that can be told without waiting for it."""
        return self._body is not None and self._body.is_over

    def read(self) -> bytes:
        """Return what comes next; nothing at the end. Raises Broken, TooSlow and Stopped."""
        try:
            if self._body is not None:
                return self._body.read()
            if self._theirs is None:
                return next(self._chunks, b"")
            bound, used = self._theirs
            bound.use(used)
            try:
                return next(self._chunks, b"")
            finally:
                bound.leave()
        except FAILURES as error:
            raise told(error, connected=True) from None

    def close(self) -> None:
        """Let go of the connection; what was not read to its end is closed. Idempotent."""
        if self._close is not None:
            with contextlib.suppress(*FAILURES, OSError):
                self._close()
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self)


class AsyncLine:
    """The same in an event loop."""

    def __init__(
        self,
        head: Head,
        chunks: AsyncIterator[bytes] | AsyncBody,
        close: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self.head = head
        self._chunks, self._close = chunks, close

    @classmethod
    def of(cls, received: Received) -> AsyncLine:
        """Return the answer to a request of ours."""

        async def close() -> None:
            mark_rest(received)
            await received.aclose()

        head = Head(received.status, named(received.headers))
        found = async_body(received)
        if found is None:
            return cls(head, aiter(received.stream), close)  # type: ignore[arg-type]  # a loop's
        return cls(head, found, close)

    @property
    def is_over(self) -> bool:
        """Whether the end has come."""
        return isinstance(self._chunks, AsyncBody) and self._chunks.is_over

    async def read(self) -> bytes:
        """See ``Line.read``."""
        try:
            if isinstance(self._chunks, AsyncBody):
                return await self._chunks.read()
            return await anext(self._chunks, b"")
        except FAILURES as error:
            raise told(error, connected=True) from None

    async def close(self) -> None:
        """See ``Line.close``."""
        with contextlib.suppress(*FAILURES, OSError):
            await self._close()


def named(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by lower-case names; of a name that comes twice the last."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
