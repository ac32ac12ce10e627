"""Bodies are handed over as they have come, and heads are sent as the library would send them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_wire import LIVE_S, aread, ask, closing, engine, place, read, told
from rough_server import RoughServer, answer, chunked, saying, until_closed

from llmdispatcher.models.errors import StreamInterrupted
from llmdispatcher.models.reply import Delta, Finish, Piece
from llmdispatcher.vendors.http import bodies
from llmdispatcher.vendors.http.bodies import AsyncBody, Body
from llmdispatcher.vendors.http.bound import Bound
from llmdispatcher.vendors.http.clients import AsyncDoor, Door, url
from llmdispatcher.vendors.http.heads import MAX_KEPT, Heads
from llmdispatcher.vendors.http.lines import Line
from llmdispatcher.vendors.http.sockets import Received, Sent, parser_of
from llmdispatcher.vendors.http.transport import Connections
from llmdispatcher.vendors.wire.exchange import Ask

SSE = "content-type: text/event-stream"
WORDS = [f"w{number} " for number in range(30)]
CHUNKED = answer(chunked(*told(*WORDS)), SSE, "transfer-encoding: chunked", sized=False)


@contextmanager
def opened(server: RoughServer) -> Iterator[Line]:
    """Send a request and give its answer; its connection is closed behind the block."""
    connections, bound = Connections(place(server.url)), Bound()
    try:
        with bound.hold(LIVE_S):
            line = connections.open(Ask(path="/chat", body={}), bound)
        with contextlib.closing(line):
            yield line
    finally:
        connections.close()


def test_all_that_came_together_is_handed_over_together() -> None:
    """Thirty chunks of one packet are read in one, and the end is known without waiting for it."""

    def stay(connection: socket.socket) -> None:
        saying(CHUNKED)(connection)
        until_closed(connection)

    with RoughServer(stay) as server, opened(server) as line:
        assert line.read() == b"".join(told(*WORDS))
        assert line.is_over
        assert line.read() == b""


def test_a_reply_of_one_packet_is_read_in_one() -> None:
    """Its pieces come in order, with the end behind them, and its connection is used again."""
    with RoughServer(saying(CHUNKED)) as server, closing(engine(server.url)) as made:
        pieces = made.submit(ask(), "m").receive(LIVE_S)

    assert [each.text for each in pieces if isinstance(each, Delta)] == WORDS
    assert isinstance(pieces[-1], Finish)


BREAKS = {
    "no size of a chunk": b"xyz\r\n",
    "no end of a chunk": b"1\r\naa",
    "a size beyond all": b"f" * 40 + b"\r\n",
}


@pytest.mark.parametrize("rubbish", BREAKS)
def test_what_came_before_rubbish_is_handed_over_first(rubbish: str) -> None:
    """The same packet holds pieces and what is no HTTP: the reader gets the pieces, then hears."""
    whole = chunked(*told(*WORDS[:3])[:3]).removesuffix(b"0\r\n\r\n")
    head = answer(b"", SSE, "transfer-encoding: chunked", sized=False)
    script = saying(head + whole + BREAKS[rubbish])
    with RoughServer(script) as server, closing(engine(server.url)) as made:
        call = made.submit(ask(), "m")
        first = call.receive(LIVE_S)
        with pytest.raises(StreamInterrupted, match="the connection broke in the middle"):
            call.receive(LIVE_S)

    assert [each.text for each in first if isinstance(each, Delta)] == WORDS[:3]


def test_the_library_has_what_is_asked_for() -> None:
    """A newer one that keeps its parser elsewhere is read by itself, more slowly; here it is not.

    What is read past the library must be there: this fails where it is not, and nothing else does.
    """
    kinds: list[object] = []
    with RoughServer(saying(CHUNKED)) as server:
        target = url(server.url + "/v1/chat")
        sent = Sent(b"GET", target.target, headers=[(b"Host", target.host)])
        door = Door(place(server.url))
        kinds.append(bodies.body(door.send(sent)))
        door.close()

        async def asked() -> None:
            door = AsyncDoor(place(server.url))
            kinds.append(bodies.async_body(await door.send(sent)))
            await door.close()

        asyncio.run(asked())

    assert [type(kind) for kind in kinds] == [Body, AsyncBody]


def hidden(_: Received) -> object:
    """Have no parser to show."""
    return None


@pytest.mark.parametrize("found", [parser_of, hidden], ids=["ours", "the library's"])
def test_a_reply_is_the_same_whoever_reads_it(
    found: Callable[[Received], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the library must read, it does."""
    monkeypatch.setattr(bodies, "parser_of", found)
    with RoughServer(saying(CHUNKED)) as server, closing(engine(server.url)) as made:
        pieces = read(made.submit(ask(), "m"))

        async def asked() -> list[Piece]:
            return await aread(made.submit(ask(), "m"))

        apieces = asyncio.run(asked())
    for got in (pieces, apieces):
        assert [each.text for each in got if isinstance(each, Delta)] == WORDS
        assert isinstance(got[-1], Finish)


# -- heads -------------------------------------------------------------------------------------

NAMES = st.from_regex(rb"[A-Za-z][A-Za-z0-9-]{0,12}", fullmatch=True)
VALUES = st.from_regex(rb"[!-~]([ -~]{0,20}[!-~])?", fullmatch=True)


@given(
    pairs=st.lists(st.tuples(NAMES, VALUES), max_size=8),
    size=st.none() | st.integers(0, 10**9),
    repeats=st.integers(1, 3),
)
def test_a_head_is_sent_as_the_library_would_send_it(
    pairs: list[tuple[bytes, bytes]], size: int | None, repeats: int
) -> None:
    """Name for name and byte for byte, at the first request and at later ones."""
    taken = {b"host", b"content-length", b"transfer-encoding"}
    headers = [(b"Host", b"h"), *(pair for pair in pairs if pair[0].lower() not in taken)]
    plain = headers if size is None else [*headers, (b"Content-Length", b"%d" % size)]
    expected = h11.Request(method=b"POST", target=b"/", headers=plain).headers
    heads = Heads()
    for _ in range(repeats):
        made = heads.of(headers, size)
        sent = h11.Request(method=b"POST", target=b"/", headers=made)  # type: ignore[arg-type]
        assert sent.headers.raw_items() == expected.raw_items()
        assert [*sent.headers] == [*expected]


def test_a_header_that_cannot_be_is_left_to_the_library() -> None:
    """It says so when the request is sent, as it always did."""
    bad = [(b"Host", b"h"), (b"X-Bad", b"a\r\nX-Injected: b")]
    assert Heads().of(bad, 3) == [*bad, (b"Content-Length", b"3")]
    assert Heads().of(bad, None) == bad


def test_heads_are_not_kept_without_end() -> None:
    """A dialect that sends another header each time makes it slower, and no larger."""
    heads = Heads()
    for number in range(3 * MAX_KEPT):
        heads.of([(b"Host", b"h"), (b"X-Once", b"%d" % number)], None)
    assert len(heads._kept) <= MAX_KEPT
