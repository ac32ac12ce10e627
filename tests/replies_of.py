"""What a dialect's ``Replies`` make of bytes, as the transport would hand them over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from llmdispatcher.draft import ReplyDraft
from llmdispatcher.models.form import ResponseFormat
from llmdispatcher.models.reply import Choice, Finish, Piece, Progress
from llmdispatcher.vendors.wire.events import Cutter, Lines, Sse
from llmdispatcher.vendors.wire.exchange import Replies
from llmdispatcher.vendors.wire.reading import parsed


@attrs.frozen
class Read:
    """A whole reply, read."""

    pieces: tuple[Piece, ...]
    finish: Finish | None
    choices: tuple[Choice, ...]

    @property
    def text(self) -> str:
        """Of the first choice."""
        return self.choices[0].text


def streamed(replies: Replies, chunks: Iterable[bytes], *, lines: bool = False, n: int = 1) -> Read:
    """Read a stream; ``lines`` for one JSON text a line."""
    cutter: Cutter = Lines() if lines else Sse()
    pieces: list[Piece] = []
    for chunk in chunks:
        for event in cutter.feed(chunk):
            _take(replies, event.name, event.data, pieces)
    for event in cutter.end():
        _take(replies, event.name, event.data, pieces)
    return _read(pieces, replies.finish(), n)


def whole(replies: Replies, body: bytes, n: int = 1) -> Read:
    """Read an answer that came in one."""
    pieces = [*replies.whole(parsed(body))]
    return _read(pieces, replies.finish(), n)


def bytewise(data: bytes) -> list[bytes]:
    """Cut at every byte."""
    return [data[i : i + 1] for i in range(len(data))]


def _take(replies: Replies, name: str, data: bytes, pieces: list[Piece]) -> None:
    if data and data != b"[DONE]" and not replies.is_done:
        pieces += replies.take(name, parsed(data))


def _read(pieces: Sequence[Piece], finish: Finish | None, n: int) -> Read:
    draft = ReplyDraft(n, ResponseFormat())
    for piece in pieces:
        if not isinstance(piece, Progress | Finish):
            draft.add(piece)
    if finish is None:
        return Read(tuple(pieces), None, ())
    draft.finish(finish)
    return Read(tuple(pieces), finish, draft.choices)
