"""A reply on its way, as a caller of either world holds it.

``Stream`` iterates for threads and ``AsyncStream`` for asyncio; both own one flow of ``Desk`` and
end it when they are left, closed or forgotten.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Self

from llmdispatcher.drive import arun, run
from llmdispatcher.models.errors import Cancelled
from llmdispatcher.models.reply import Delta, Reply
from llmdispatcher.models.request import Options, Prompt
from llmdispatcher.release import Stopper

if TYPE_CHECKING:
    from llmdispatcher.desk import Desk


class _Held:
    """What a stream of either world holds: the text so far, and the reply once it is whole."""

    def __init__(self, desk: Desk, prompt: Prompt, options: Options, *, streaming: bool) -> None:
        self._stopper = Stopper()
        self._flow = desk.flow(prompt, options, self._stopper, streaming=streaming)
        self._texts: list[str] = []
        self._reply: Reply | None = None

    @property
    def partial(self) -> str:
        """The text of the first choice that was shown until now."""
        return "".join(self._texts)

    @property
    def is_over(self) -> bool:
        """Whether the stream has been read to its end, and so ``reply`` is there."""
        return self._reply is not None

    @property
    def reply(self) -> Reply:
        """The whole reply, once the stream has been read to its end. RuntimeError before that."""
        if self._reply is None:
            raise RuntimeError("the stream has no reply yet: read it to its end first")
        return self._reply

    def _keep(self, piece: Delta | Reply) -> Delta | None:
        """Keep a piece; None is the end."""
        if isinstance(piece, Reply):
            self._reply = piece
            return None
        if piece.restarts:
            self._texts.clear()
        if piece.index == 0:
            self._texts.append(piece.text)
        return piece


class Stream(_Held):
    """A reply on its way: an iterator over deltas, and a context manager.

    Leaving the ``with`` block, or ``close``, stops the model. ``close`` may be called from another
    thread; the iteration then ends as if the reply were over, and ``reply`` stays unset.
    """

    def __init__(self, desk: Desk, prompt: Prompt, options: Options, *, streaming: bool) -> None:
        super().__init__(desk, prompt, options, streaming=streaming)
        self._source = run(self._flow)

    def __iter__(self) -> Iterator[Delta]:
        return self

    def __next__(self) -> Delta:
        try:
            delta = self._keep(next(self._source))
        except Cancelled:
            delta = None
        if delta is None:
            raise StopIteration
        return delta

    def close(self) -> None:
        """Stop the request, from any thread. Idempotent."""
        self._stopper.stop()
        with contextlib.suppress(ValueError):  # another thread is in it, and is being released
            self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncStream(_Held):
    """A reply on its way: an async iterator over deltas, and an async context manager.

    Leaving the ``async with`` block, ``close``, or cancelling the task stops the model.
    """

    def __init__(self, desk: Desk, prompt: Prompt, options: Options, *, streaming: bool) -> None:
        super().__init__(desk, prompt, options, streaming=streaming)
        self._source = arun(self._flow)

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self

    async def __anext__(self) -> Delta:
        try:
            delta = self._keep(await anext(self._source))
        except Cancelled:
            delta = None
        if delta is None:
            raise StopAsyncIteration
        return delta

    async def close(self) -> None:
        """Stop the request, from any task. Idempotent."""
        self._stopper.stop()
        with contextlib.suppress(RuntimeError):  # another task is in it, and is being released
            await self._source.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
