"""Answers, read from their bytes: the same however they were cut, whole or an error."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_wire import PlainReplies, PlainWire, text_of, told
from plain_wire import read_answer as read

from llmdispatcher.models.errors import (
    AuthRejected,
    BadReply,
    DispatcherError,
    Overloaded,
    RateLimited,
    StreamInterrupted,
    Unreachable,
    VendorError,
)
from llmdispatcher.models.reply import Delta, Finish, FinishReason, Piece, Usage
from llmdispatcher.vendors.http import answer
from llmdispatcher.vendors.http.answer import ALIVE, Reading
from llmdispatcher.vendors.wire.exchange import Ask, Exchange, Head

SSE = "text/event-stream"
NDJSON = "application/x-ndjson"
JSON = "application/json"


def head(kind: str | None = SSE, status: int = 200, **headers: str) -> Head:
    """Return the beginning of an answer."""
    named = {} if kind is None else {"content-type": kind}
    return Head(status, {**named, **{k.replace("_", "-"): v for k, v in headers.items()}})


def reading(count: int = 1) -> Reading:
    """Return what reads as many exchanges."""
    asks = [Exchange(Ask(path=f"/{n}", body={}), PlainReplies()) for n in range(count)]
    return Reading(asks, PlainWire().fault)


def whole(body: bytes, beginning: Head) -> list[Piece]:
    """Read an answer that came in one."""
    return read(reading(), beginning, [body] if body else [])


STREAM = b"".join(told("Grü", "ße", " 世界"))
LINES = b'{"t": "Gr\xc3\xbc"}\n{"t": "\xc3\x9fe \xe4\xb8\x96\xe7\x95\x8c"}\n{"end": 3}\n'
ONE = '{"text": "Grüße 世界", "end": 3}'.encode()
TEXT = "Grüße 世界"

FRAMED = [(SSE, STREAM), (NDJSON, LINES), (JSON, ONE)]


@pytest.mark.parametrize(("kind", "body"), FRAMED)
def test_an_answer_that_came_byte_by_byte_is_the_same(kind: str, body: bytes) -> None:
    """Every cut inside of characters, names and numbers included."""
    pieces = read(reading(), head(kind), [body[i : i + 1] for i in range(len(body))])

    assert text_of(pieces) == text_of(whole(body, head(kind))) == TEXT
    finish = pieces[-1]
    assert isinstance(finish, Finish)
    assert finish.usage.completion_tokens == 3


@pytest.mark.parametrize(("kind", "body"), FRAMED)
def test_an_answer_that_was_cut_is_never_a_reply(kind: str, body: bytes) -> None:
    """At every byte; behind the first piece it is an interrupted stream, however it was cut."""
    last = body.rstrip().rfind(b"}")
    for size in range(last + 1):
        made = reading()
        with pytest.raises((BadReply, StreamInterrupted)) as caught:
            read(made, head(kind), [body[:size]])
        if made.has_begun:
            assert isinstance(caught.value, StreamInterrupted), body[:size]
        assert not made.is_over


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (JSON, STREAM),
        ("text/plain; charset=utf-8", STREAM),
        ("application/octet-stream", STREAM),
        (None, STREAM),
        (JSON, b"\xef\xbb\xbf" + STREAM),
        (JSON, b": hello\n\n" + STREAM),
        (JSON, b"event: x\n" + STREAM),
        (JSON, LINES),
        ("text/plain", LINES),
        (None, LINES),
        (None, ONE),
        ("text/plain", ONE),
        ("text/html", ONE),
        (JSON, b"\xef\xbb\xbf" + ONE),
        (JSON, b" \r\n" + ONE + b"\n\n"),
        (JSON, json.dumps({"text": TEXT, "end": 3}, indent=2).encode()),
        (SSE, STREAM.replace(b"\n", b"\r\n")),
        (SSE, STREAM.replace(b"\n", b"\r")),
        (SSE, STREAM + b"data: [DONE]\n\n"),
        ("Text/Event-Stream;charset=UTF-8", STREAM),
        ("application/jsonl", LINES),
    ],
)
def test_what_an_answer_is_called_does_not_hide_what_it_is(kind: str | None, body: bytes) -> None:
    """A wrong or missing content type, a mark of byte order, any end of a line: it is read."""
    assert text_of(whole(body, head(kind))) == TEXT
    assert text_of(read(reading(), head(kind), [bytes([b]) for b in body])) == TEXT


def test_a_stream_under_a_wrong_name_is_read_as_it_comes() -> None:
    """Pieces are told when they come, so that silence can be told from a long reply."""
    for kind, body in ((JSON, told("a")[0]), ("text/plain", b'{"t": "a"}\n{"t": "b"}\n')):
        made = reading()
        made.begin(head(kind))
        assert text_of(made.feed(body)).startswith("a")


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        (JSON, b"", "empty"),
        (SSE, b"", "empty"),
        (NDJSON, b"\n\n", "empty"),
        (JSON, b"null", ""),
        (JSON, b"{}", ""),
        (JSON, b"[]", ""),
        (JSON, b"OK", "no JSON"),
        ("text/html", b"<html><body>Welcome to nginx!</body></html>", "web page"),
        ("text/html; charset=utf-8", b"", "empty"),
        (SSE, b"data: {\n\n", "no JSON"),
        (SSE, b"data: [DONE]\n\n", "empty"),
        (SSE, b": only\n\n: comments\n\n", "empty"),
        (SSE, b"upstream connect error", "no JSON"),
        (JSON, b"\xff\xfe\x00", "no JSON"),
    ],
)
def test_what_is_no_reply_is_an_error_with_the_reason(kind: str, body: bytes, words: str) -> None:
    """Whatever came with status 200, it is told what."""
    with pytest.raises((BadReply, StreamInterrupted), match=words or None):
        whole(body, head(kind))


@pytest.mark.parametrize("status", [201, 202, 204, 205, 206, 299])
def test_other_statuses_of_success_are_read_like_200(status: int) -> None:
    """A reply is a reply; nothing is nothing."""
    assert text_of(whole(STREAM, head(status=status))) == TEXT
    with pytest.raises(BadReply, match=rf"empty .HTTP {status}"):
        whole(b"", head(status=status))


def test_an_answer_that_is_packed_says_so() -> None:
    """It was not asked for, and is not unpacked: how large it would get is not known."""
    with pytest.raises(BadReply, match=r"packed .'gzip'"):
        whole(gzip.compress(STREAM), head(SSE, content_encoding="gzip"))
    assert text_of(whole(STREAM, head(SSE, content_encoding="identity"))) == TEXT
    with pytest.raises(RateLimited):
        whole(gzip.compress(b"{}"), head(JSON, 429, content_encoding="br"))
    with pytest.raises(BadReply, match="empty"):
        whole(b"", head(SSE, content_encoding="gzip"))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, Unreachable),
        (302, Unreachable),
        (303, Unreachable),
        (307, Unreachable),
        (308, Unreachable),
        (401, AuthRejected),
        (429, RateLimited),
        (503, Overloaded),
        (600, VendorError),
        (999, VendorError),
    ],
)
def test_statuses_of_failure_are_the_errors_that_they_stand_for(
    status: int, kind: type[DispatcherError]
) -> None:
    """Whatever the body is, and however it is called."""
    for body in (b"", b"{}", b"<html>", STREAM, b"\xff" * 100):
        for named in (SSE, JSON, "text/html", None):
            with pytest.raises(kind):
                whole(body, head(named, status))


def test_pieces_before_an_error_are_not_lost_with_it() -> None:
    """However the bytes were cut, what came before is read first, then the error is raised."""
    body = b"".join(told("a", "b")[:2]) + b'data: {"error": {"message": "boom"}}\n\n'
    for chunks in ([body], [bytes([b]) for b in body]):
        made = reading()
        made.begin(head())
        pieces: list[Piece] = []
        with pytest.raises(VendorError, match="boom"):
            for chunk in chunks:
                pieces += made.feed(chunk)
                made.check()
        assert text_of(pieces) == "ab"


def test_the_last_pieces_of_a_stream_that_was_cut_are_not_lost() -> None:
    """An event that nothing ends is read, and then the stream was cut."""
    made = reading()
    made.begin(head())
    assert not made.feed(b'data: {"t": "a"}')
    assert text_of(made.end()) == "a"
    with pytest.raises(StreamInterrupted):
        made.check()
    assert made.usage() == Usage(prompt_tokens=1)


def test_comments_are_a_sign_of_life_and_no_reply() -> None:
    """Of many that came together one is told, and a reply has not begun."""
    made = reading()
    made.begin(head())
    assert made.feed(b": a\n\n: b\n\n: c\n\n") == [ALIVE]
    assert not made.has_begun
    assert made.feed(told("x")[0] + b": d\n\n") == [Delta("x")]
    assert made.has_begun


def test_done_ends_a_stream_and_nothing_behind_it_counts() -> None:
    """What follows is not read, also where it came along."""
    made = reading()
    made.begin(head())
    pieces = made.feed(STREAM + b"data: [DONE]\n\ndata: nonsense\n\n")
    assert made.is_answered
    assert text_of([*pieces, *made.end()]) == TEXT


# -- bounds ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SSE, NDJSON, JSON, "text/html"])
def test_answers_are_bounded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many messages it has."""
    monkeypatch.setattr(answer, "MAX_ANSWER_BYTES", 10_000)
    made = reading()
    made.begin(head(kind))
    line = told("a")[0] if kind == SSE else b'{"t": "a"}\n'
    with pytest.raises(BadReply, match="longer than 10000 bytes"):
        for _ in range(1000):
            made.feed(line)


def test_errors_are_cut_where_they_are_no_error_any_more() -> None:
    """A page without end is told by its status."""
    made = reading()
    made.begin(head("text/html", 503))
    with pytest.raises(VendorError) as caught:
        for _ in range(10_000):
            made.feed(b"x" * 1000)
    assert caught.value.status == 503


# -- several exchanges -------------------------------------------------------------------------


def test_exchanges_follow_one_another_and_their_usage_adds_up() -> None:
    """One Finish ends them all, and knows what all of them used."""
    made = reading(3)
    pieces: list[Piece] = []
    for number in range(3):
        assert made.ask.path == f"/{number}"
        pieces += read(made, head(), told("a", tokens=number + 1))
    assert made.is_over
    assert [piece for piece in pieces if isinstance(piece, Finish)] == pieces[-1:]
    assert made.usage() == Usage(prompt_tokens=3, completion_tokens=6)


class Charged(PlainReplies):
    """A dialect that tells prices, and warns."""

    def __init__(self, price: int | None, warning: str) -> None:
        super().__init__()
        self.price, self.warning = price, warning

    def finish(self) -> Finish | None:
        """Return the end."""
        usage = Usage(charged_microusd=self.price)
        return Finish(FinishReason.STOP, usage, (self.warning,)) if self.tokens else None


@pytest.mark.parametrize(
    ("prices", "total"), [((3, 4), 7), ((None, 4), None), ((3, None), None), ((0, 0), 0)]
)
def test_a_price_that_is_not_known_makes_the_sum_unknown(
    prices: Sequence[int | None], total: int | None
) -> None:
    """Unknown and something is unknown; warnings of all are kept."""
    asks = [
        Exchange(Ask(path="/"), Charged(price, f"w{number}")) for number, price in enumerate(prices)
    ]
    made = Reading(asks, PlainWire().fault)
    finish = [read(made, head(), told("a"))[-1] for _ in prices][-1]
    assert isinstance(finish, Finish)
    assert finish.usage.charged_microusd == total
    assert finish.warnings == ("w0", "w1")


def test_an_error_in_the_second_exchange_keeps_what_the_first_used() -> None:
    """What was paid for is on the books."""
    made = reading(2)
    read(made, head(), told("a", tokens=5))
    with pytest.raises(RateLimited):
        read(made, head(JSON, 429), [b"{}"])
    assert made.usage() == Usage(prompt_tokens=2, completion_tokens=5)
    assert not made.is_over


@pytest.mark.parametrize(
    "headers",
    [{"x_request_id": "r1"}, {"request_id": "r1"}, {"x_request_id": "r1", "request_id": "r2"}],
)
def test_the_vendors_name_for_a_request_is_told(headers: dict[str, str]) -> None:
    """From the head, the first that is there, and never endless."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    finish = whole(STREAM, Head(200, {"content-type": SSE, **named}))[-1]
    assert isinstance(finish, Finish)
    assert finish.request_id == "r1"
    finish = whole(STREAM, head(SSE, x_request_id="x" * 10_000))[-1]
    assert isinstance(finish, Finish)
    assert len(finish.request_id) == 200


# -- anything ----------------------------------------------------------------------------------

_MESSAGES = st.sampled_from([*told("a", "b"), b"data: [DONE]\n\n", b": x\n\n", b'{"t": "c"}\n'])
_BITS = _MESSAGES | st.binary(max_size=8) | st.sampled_from([b"data: ", b"\n\n", b'{"error": 1}'])


@given(
    st.lists(_BITS, max_size=12).map(b"".join),
    st.sampled_from([SSE, NDJSON, JSON, "text/html", "text/plain", None]),
    st.sampled_from([200, 204, 301, 400, 429, 500]),
    st.lists(st.integers(0, 200), max_size=6),
)
def test_any_answer_is_a_reply_or_one_of_our_errors(
    body: bytes, kind: str | None, status: int, cuts: list[int]
) -> None:
    """Nothing else is raised whatever comes, and where it was cut makes no difference."""
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    chunks = [body[a:b] for a, b in itertools.pairwise(places)]

    assert outcome([c for c in chunks if c], head(kind, status)) == outcome(
        [body] if body else [], head(kind, status)
    )


def outcome(chunks: Sequence[bytes], beginning: Head) -> tuple[Any, ...]:
    """Return what an answer came to: its text, and its error."""
    made = reading()
    made.begin(beginning)
    pieces: list[Piece] = []
    try:
        for chunk in chunks:
            pieces += made.feed(chunk)
            made.check()
            if made.is_answered:
                break
        pieces += made.end()
        made.check()
    except DispatcherError as error:
        return text_of(pieces), type(error), str(error)
    return text_of(pieces), made.is_over
