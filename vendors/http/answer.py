"""Reads the answers to the exchanges of one call, as their bytes come. Pure.

It knows HTTP and its framings, and no dialect: bytes are cut into messages and parsed here, and a
dialect's ``Replies`` makes pieces of them. A reply is whole only when the dialect says so: an
answer that ends before is an error, whatever its status.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from http import HTTPStatus
from typing import Any

import attrs

from llmdispatcher.models.errors import BadReply, DispatcherError, StreamInterrupted
from llmdispatcher.models.reply import MICRO_PER_USD, Finish, Piece, Progress, Usage
from llmdispatcher.vendors.wire.events import Cutter, Event, Lines, Sse
from llmdispatcher.vendors.wire.exchange import Ask, Exchange, Head, proving, repeating
from llmdispatcher.vendors.wire.reading import parsed
from llmdispatcher.vendors.wire.stencil import Stencil

MAX_ANSWER_BYTES = 256 * 2**20
"""Of one answer: 2,048 vectors of the widest models take some 100 MiB as text."""

MAX_FAULT_BYTES = 2**20
"""Of an error: what says more is cut, since it is a page and no error."""

SNIFFED_BYTES = 2**13
"""By so much of an answer it is known whether it is a stream under a wrong name."""

ALIVE = Progress("queued", 0, 0)
"""What a comment in a stream says: nothing yet, and somebody is there."""

SKIPPED = (
    "a part of the stream could not be read and was left out; the end of the reply proves that"
    " nothing is missing"
)
"""What ``Finish.warnings`` says of a reply in which that happened."""

_DONE = b"[DONE]"
_UNREAD = object()
"""Stands for a message that could not be read, and may not be missed."""
_SSE = frozenset({"text/event-stream"})
_LINES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})
_PAGES = frozenset({"text/html", "application/xhtml+xml"})
_FIELDS = (b"data:", b"event:", b":", b"id:", b"retry:")
"""How server-sent events begin, and JSON never does."""
_REQUEST_IDS = (
    "x-request-id",
    "request-id",
    "apim-request-id",
    "x-litellm-call-id",
    "x-generation-id",
    "x-groq-id",
)
"""Headers in which vendors name a request; the first that is there counts."""

MAX_ID_CHARS = 200
"""Of a vendor's own name for a request."""

_CHARGE = "x-litellm-response-cost"
"""Header in which LiteLLM tells what a reply cost, in dollars."""

MAX_USD = 10**6
"""Of one reply; more is no price."""

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
        self._warnings: tuple[str, ...] = ()
        """The same."""
        self._answer: _Answer | None = None
        self._held: DispatcherError | None = None
        """What to raise once the pieces before it have been taken."""
        self.headers: Mapping[str, str] = {}
        """Of the answer that is being read, or was read last."""
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

    @property
    def has_gap(self) -> bool:
        """Whether a part of the answer could not be read, and may be missed."""
        return self._answer is not None and bool(self._answer.gap)

    def begin(self, head: Head) -> None:
        """Take the beginning of an answer."""
        self.headers = head.headers
        self._answer = _Answer(self._exchanges[self._place], head, self._fault)

    def check(self) -> None:
        """Raise what came behind the pieces that were taken last, if an error did."""
        if self._held is not None:
            raise self._held

    def feed(self, chunk: bytes) -> list[Piece]:
        """Take the next bytes. Raises the error that they are, or BadReply."""
        assert self._answer is not None  # noqa: S101 - begun before it is fed
        pieces: list[Piece] = []
        try:
            self._answer.feed(chunk, pieces)
        except DispatcherError as error:
            self._hold(error, pieces)
        self.has_begun = self.has_begun or _has_begun(pieces)
        return pieces

    def end(self, before: Sequence[Piece] = ()) -> list[Piece]:
        """Take the end of an answer; gives the Finish behind the last of them.

        ``before`` is what was fed last and nobody has taken yet: it comes first, and an error is
        raised behind it. Raises StreamInterrupted for a reply that is not whole.
        """
        assert self._answer is not None  # noqa: S101 - begun before it ends
        pieces = [*before]
        if self._held is not None or not self._ends(self._answer, pieces):
            return pieces
        finish = self._answer.finish()
        self._answer = None
        self._before = finish.usage if self._before is None else self._before + finish.usage
        self._warnings += finish.warnings
        self._place += 1
        if self._place == len(self._exchanges):
            self.is_over = True
            if self._place > 1:
                finish = attrs.evolve(finish, usage=self._before, warnings=self._warnings)
            pieces.append(finish)
        return pieces

    def _ends(self, answer: _Answer, pieces: list[Piece]) -> bool:
        """Add what the end of an answer completes, and tell whether the answer is whole."""
        try:
            answer.end(pieces)
        except DispatcherError as error:
            self._hold(error, pieces)
            return False
        finally:
            self.has_begun = self.has_begun or _has_begun(pieces)
        return True

    def _hold(self, error: DispatcherError, pieces: Sequence[Piece]) -> None:
        """Keep an error until the pieces before it were taken, where there are some."""
        if not pieces:
            raise error
        self._held = error

    def may_end(self, *, broken: bool) -> bool:
        """Whether the answer that is being read could end here, though its end is missing.

        Where the connection broke, only an error can: a reply may lack what comes behind it.
        """
        answer = self._answer
        return answer is not None and (answer.is_fault or (not broken and answer.is_whole()))

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
        self._repeating = repeating(self._replies)
        self._stencil = None if self._repeating is None else Stencil(self._repeating.plain)
        self.is_fault = not HTTPStatus.OK <= head.status < HTTPStatus.MULTIPLE_CHOICES
        self._is_packed = head.headers.get("content-encoding", "").lower() not in {"", "identity"}
        self._cutter = None if self.is_fault else _cutter(head)
        self._is_one = self.is_fault
        """It is no stream under a wrong name."""
        self._kept = bytearray()
        self._size = 0
        self._was_told = False
        self.is_done = False
        self.gap = ""
        """Why a message could not be read that the end may prove to be no part of the reply."""

    def feed(self, chunk: bytes, pieces: list[Piece]) -> None:
        """Take the next bytes and add what they say; an error leaves what was said before it."""
        self._size += len(chunk)
        if self._size > MAX_ANSWER_BYTES:
            raise BadReply(f"the vendor's answer is longer than {MAX_ANSWER_BYTES} bytes")
        if self._is_packed:
            self._check_packed()
        if (cutter := self._cutter) is None:
            self._kept += chunk
            if self.is_fault and len(self._kept) > MAX_FAULT_BYTES:
                raise self._fault(self._head, bytes(self._kept[:MAX_FAULT_BYTES]))
            self._cutter = cutter = None if self._is_one else self._sniffed()
            if cutter is None:
                return
            chunk = bytes(self._kept)
            self._kept.clear()
        data = cutter.only(chunk)
        if data is None:
            self._take(cutter.feed(chunk), pieces)
        elif not self.is_done:
            self._read("", data, pieces)

    def _check_packed(self) -> None:
        """Raise what an answer is that was packed although that was not asked for."""
        if self.is_fault:
            raise self._fault(self._head, b"")
        packing = self._head.headers["content-encoding"][:20]
        raise BadReply(
            f"the answer is packed ({packing!r}), which was not asked for: switch that off in the"
            " server, or in the proxy before it",
            status=self._head.status,
        )

    def _sniffed(self) -> Cutter | None:
        """Return what cuts a stream that came under a wrong name."""
        begun = bytes(self._kept[:SNIFFED_BYTES]).removeprefix(codecs.BOM_UTF8).lstrip()
        self._is_one = len(self._kept) >= SNIFFED_BYTES
        return _guessed(begun)

    def _take(self, events: Iterable[Event], pieces: list[Piece], *, is_end: bool = False) -> None:
        for event in events:
            if event.is_comment:
                if not pieces:
                    pieces.append(ALIVE)
            elif event.data == _DONE or event.data.strip() == _DONE:
                self.is_done = True
            elif not self.is_done:
                self._read(event.name, event.data, pieces, is_end=is_end)

    def _read(self, name: str, data: bytes, pieces: list[Piece], *, is_end: bool = False) -> None:
        """Read a message: by the frame that it shares with others, or by parsing it."""
        replies, stencil, same = self._replies, self._stencil, self._repeating
        if stencil is None or same is None or name:
            message = self._parsed(data, is_end=is_end)
        elif (text := stencil.text(data)) is not None:
            pieces.append(same.again(text))
            return
        else:
            message = self._parsed(data, is_end=is_end)
            if message is not _UNREAD:
                stencil.learn(data, message)
        if message is _UNREAD:
            return
        for piece in replies.take(name, message):
            pieces.append(piece)  # noqa: PERF402 - what came before an error stays
        self.is_done = replies.is_done

    def _parsed(self, data: bytes, *, is_end: bool) -> Any:  # noqa: ANN401 - a stranger's JSON
        """Parse a message; what is cut off at the end of a stream is no worse than nothing."""
        was_told, self._was_told = self._was_told, True
        try:
            return parsed(data)
        except BadReply as error:
            if is_end and was_told:
                raise self._cut() from None
            replies = proving(self._replies)
            if not was_told or replies is None or not replies.doubt():
                raise
            self.gap = self.gap or str(error)
            return _UNREAD

    def end(self, pieces: list[Piece]) -> None:
        """Take the end, and add what only that completes. Raises the error that all of it is."""
        if self._is_packed and self._size:
            self._check_packed()
        if self.is_fault:
            raise self._fault(self._head, bytes(self._kept))
        if self._cutter is None:
            self._whole(pieces)
        else:
            self._take(self._cutter.end(), pieces, is_end=True)
        if self._replies.finish() is None:
            raise self._cut()
        if self.gap and not ((replies := proving(self._replies)) and replies.is_proved()):
            raise StreamInterrupted(f"text may be missing in the middle of the reply: {self.gap}")

    def finish(self) -> Finish:
        finish = self._replies.finish()
        assert finish is not None  # noqa: S101 - else ``end`` raised
        given = request_id(self._head) or finish.request_id  # support asks for the header's
        served = finish.served_model[:MAX_ID_CHARS]
        usage = finish.usage
        if usage.charged_microusd is None and (told := self._head.headers.get(_CHARGE)):
            usage = attrs.evolve(usage, charged_microusd=_microusd(told))
        return Finish(  # all of it by name: ``attrs.evolve`` takes three times as long
            finish.reason,
            usage,
            (*finish.warnings, SKIPPED) if self.gap else finish.warnings,
            finish.others,
            request_id=given[:MAX_ID_CHARS],
            served_model=served,
        )

    def _whole(self, pieces: list[Piece]) -> None:
        """Read an answer that has no framing."""
        body = bytes(self._kept).strip()
        if not body:
            return
        if self._head.media_type in _PAGES and not body.startswith((b"{", b"[")):
            raise BadReply(
                f"a web page came, and no reply (HTTP {self._head.status}): look whether base_url"
                " is the address of the API",
                status=self._head.status,
            )
        self._was_told = True
        for piece in self._replies.whole(parsed(body)):
            pieces.append(piece)  # noqa: PERF402 - what came before an error stays

    def _cut(self) -> DispatcherError:
        if not self._was_told:
            told = f"the vendor's answer is empty (HTTP {self._head.status}); ask again"
            return BadReply(told, status=self._head.status, request_id=request_id(self._head))
        before = f"; before that, {self.gap}" if self.gap else ""
        return StreamInterrupted(f"the vendor's answer ended before the reply was whole{before}")

    def is_whole(self) -> bool:
        return self._replies.finish() is not None


def _has_begun(pieces: Iterable[Piece]) -> bool:
    return any(not isinstance(piece, Progress) for piece in pieces)


def _microusd(told: str) -> int | None:
    """Return an amount in dollars, rounded up; None for what is none."""
    try:
        amount = Decimal(told)
    except InvalidOperation:
        return None
    if not amount.is_finite() or not 0 <= amount <= MAX_USD:
        return None
    return int((amount * MICRO_PER_USD).to_integral_value(ROUND_CEILING))


def _cutter(head: Head) -> Cutter | None:
    """Return what cuts an answer; None for one that is read whole."""
    if head.media_type in _SSE:
        return Sse()
    return Lines() if head.media_type in _LINES else None


def _guessed(begun: bytes) -> Cutter | None:
    """Return what cuts a stream of which this is the beginning; None for what may be none."""
    if begun.startswith(_FIELDS):
        return Sse()
    first, _, rest = begun.partition(b"\n")
    is_rows = first.rstrip().endswith(b"}") and rest.lstrip().startswith(b"{")
    return Lines() if is_rows else None
