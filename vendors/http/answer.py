"""Reads the answers to the exchanges of one call, as their bytes come. Pure.

It knows HTTP and its framings, and no dialect: bytes are cut into messages and parsed here, and a
dialect's ``Replies`` makes pieces of them. A reply is whole only when the dialect says so: an
answer that ends before is an error, whatever its status.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus

import attrs

from llmdispatcher.models.errors import BadReply, DispatcherError, StreamInterrupted
from llmdispatcher.models.reply import Finish, Piece, Progress, Usage
from llmdispatcher.vendors.wire.events import Cutter, Event, Lines, Sse
from llmdispatcher.vendors.wire.exchange import Ask, Exchange, Head
from llmdispatcher.vendors.wire.reading import parsed

MAX_ANSWER_BYTES = 256 * 2**20
"""Of one answer: 2,048 vectors of the widest models take some 100 MiB as text."""

MAX_FAULT_BYTES = 2**20
"""Of an error: what says more is cut, since it is a page and no error."""

ALIVE = Progress("queued", 0, 0)
"""What a comment in a stream says: nothing yet, and somebody is there."""

_SSE = frozenset({"text/event-stream"})
_LINES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})
_REQUEST_IDS = (
    "x-request-id",
    "request-id",
    "apim-request-id",
    "x-litellm-call-id",
    "x-generation-id",
    "x-groq-id",
)
"""Headers in which vendors name a request; the first that is there counts."""

Fault = Callable[[Head, bytes], DispatcherError]


def request_id(head: Head) -> str:
    """Return the vendor's own name for a request; empty where it has none."""
    return next((head.headers[name] for name in _REQUEST_IDS if name in head.headers), "")


class Reading:
    """Of one call."""

    def __init__(self, exchanges: Sequence[Exchange], fault: Fault) -> None:
        self._exchanges = list(exchanges)
        self._fault = fault
        self._place = 0
        self._before: Usage | None = None
        """Of the exchanges that have ended."""
        self._answer: _Answer | None = None
        self.has_begun = False
        """Whether any piece of a reply has come."""
        self.is_over = False

    @property
    def ask(self) -> Ask:
        """What to ask now."""
        return self._exchanges[self._place].ask

    @property
    def is_answered(self) -> bool:
        """Whether all that matters of the answer that is being read has come."""
        return self._answer is None or self._answer.is_done

    def begin(self, head: Head) -> None:
        """Take the beginning of an answer."""
        self._answer = _Answer(self._exchanges[self._place], head, self._fault)

    def feed(self, chunk: bytes) -> list[Piece]:
        """Take the next bytes. Raises the error that they are, or BadReply."""
        assert self._answer is not None  # noqa: S101 - begun before it is fed
        pieces = self._answer.feed(chunk)
        self.has_begun = self.has_begun or any(not isinstance(p, Progress) for p in pieces)
        return pieces

    def end(self) -> list[Piece]:
        """Take the end of an answer; gives the Finish behind the last of them.

        Raises StreamInterrupted for a reply that is not whole.
        """
        assert self._answer is not None  # noqa: S101 - begun before it ends
        pieces, finish = self._answer.end()
        self._answer = None
        self._before = finish.usage if self._before is None else self._before + finish.usage
        self._place += 1
        if self._place == len(self._exchanges):
            self.is_over = True
            pieces.append(attrs.evolve(finish, usage=self._before))
        return pieces

    def is_whole(self) -> bool:
        """Whether the answer that is being read could end here."""
        return self._answer is not None and self._answer.is_whole()

    def usage(self) -> Usage:
        """Return the tokens until now."""
        if self._answer is None:
            return self._before or Usage()
        now = self._exchanges[self._place].replies.usage()
        return now if self._before is None else self._before + now


class _Answer:
    """One answer."""

    def __init__(self, exchange: Exchange, head: Head, fault: Fault) -> None:
        self._head, self._fault = head, fault
        self._replies = exchange.replies
        self._is_fault = not HTTPStatus.OK <= head.status < HTTPStatus.MULTIPLE_CHOICES
        self._is_page = head.media_type in {"text/html", "application/xhtml+xml"}
        self._cutter = None if self._is_fault else _cutter(head)
        self._kept = bytearray()
        self._size = 0
        self._was_told = False
        self.is_done = False

    def feed(self, chunk: bytes) -> list[Piece]:
        self._size += len(chunk)
        if self._size > MAX_ANSWER_BYTES:
            raise BadReply(f"the vendor's answer is longer than {MAX_ANSWER_BYTES} bytes")
        if self._cutter is None:
            self._kept += chunk
            if (self._is_fault or self._is_page) and len(self._kept) > MAX_FAULT_BYTES:
                raise self._fault(self._head, bytes(self._kept[:MAX_FAULT_BYTES]))
            return []
        return self._pieces(self._cutter.feed(chunk))

    def _pieces(self, events: Iterator[Event]) -> list[Piece]:
        pieces: list[Piece] = []
        for event in events:
            if event.is_comment:
                if not pieces:
                    pieces.append(ALIVE)
            elif event.data.strip() == b"[DONE]":
                self.is_done = True
            elif not self.is_done:
                self._was_told = True
                pieces += self._replies.take(event.name, parsed(event.data))
                self.is_done = self._replies.is_done
        return pieces

    def end(self) -> tuple[list[Piece], Finish]:
        if self._is_fault or self._is_page:
            raise self._fault(self._head, bytes(self._kept))
        pieces = self._whole() if self._cutter is None else self._pieces(self._cutter.end())
        finish = self._replies.finish()
        if finish is None:
            raise self._cut()
        given = finish.request_id or request_id(self._head)
        return pieces, attrs.evolve(finish, request_id=given[:200])

    def _whole(self) -> list[Piece]:
        """Read an answer that has no framing, or whose framing nobody told."""
        body = bytes(self._kept).strip()
        if not body:
            return []
        self._was_told = True
        try:
            return [*self._replies.whole(parsed(body))]
        except BadReply:
            cutter = _guessed(body)
            if cutter is None:
                raise
        events = [*cutter.feed(body), *cutter.end()]
        return self._pieces(iter(events))

    def _cut(self) -> DispatcherError:
        if not self._was_told:
            told = f"the vendor's answer is empty (HTTP {self._head.status}); ask again"
            return BadReply(told, status=self._head.status, request_id=request_id(self._head))
        return StreamInterrupted("the vendor's answer ended before the reply was whole")

    def is_whole(self) -> bool:
        return self._replies.finish() is not None


def _cutter(head: Head) -> Cutter | None:
    """Return what cuts an answer; None for one that is read whole."""
    if head.media_type in _SSE:
        return Sse()
    return Lines() if head.media_type in _LINES else None


def _guessed(body: bytes) -> Cutter | None:
    """Return what cuts a stream that came under a wrong name."""
    if body.startswith((b"data:", b"event:", b":", b"id:", b"retry:")):
        return Sse()
    first, _, rest = body.partition(b"\n")
    return Lines() if rest and first.rstrip().endswith(b"}") else None
