"""Deadlines of a call: each is kept at the instant, whatever the other side does meanwhile.

A limit is a tenth of a second, or some; that it is kept is asserted with a wide margin, and every
script would go on for much longer.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from plain_wire import LIVE_S, WORLDS, Receive, ask, closing, engine, told
from rough_server import RoughServer, answer, drip, request, saying, until_closed

from llmdispatcher.models.errors import TimedOut, Unreachable, VendorError
from llmdispatcher.vendors.http import sockets

LIMIT_S = 0.15

LONGER_S = 4.0
"""A limit that something must come before, also from a server that has its turn late."""
SSE = "content-type: text/event-stream"


@pytest.fixture(params=WORLDS)
def receive(request: pytest.FixtureRequest) -> Receive:
    """Read in a thread, and in an event loop."""
    return WORLDS[request.param]


class Watch:
    """Asserts that a block took as long as a limit, and hardly longer."""

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self.limit_s = limit_s

    def __enter__(self) -> None:
        self.began_s = time.monotonic()

    def __exit__(self, *_: object) -> None:
        took_s = time.monotonic() - self.began_s
        assert self.limit_s * 0.9 <= took_s < self.limit_s + LIVE_S / 2


def silent(connection: socket.socket) -> None:
    """Read a request, and say nothing."""
    request(connection)
    until_closed(connection)


def dripping(before: bytes, dripped: bytes) -> Callable[[socket.socket], None]:
    """Say something, and go on a byte at a time."""

    def script(connection: socket.socket) -> None:
        request(connection)
        connection.sendall(before)
        drip(connection, dripped)

    return script


HEAD = answer(b"", SSE, "transfer-encoding: chunked", sized=False)

SCRIPTS: dict[str, Callable[[socket.socket], None]] = {
    "no answer": silent,
    "not even read": until_closed,
    "drip in the head": dripping(b"", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 3000),
    "drip of informational answers": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 300),
    "drip in a chunk's header": dripping(HEAD, b"0" * 3000),
    "drip in a chunk": dripping(HEAD + b"5000\r\n", b"data: " + b"x" * 3000),
    "drip in a body": dripping(answer(b"", SSE, "content-length: 5000", sized=False), b"x" * 3000),
    "drip in an error": dripping(
        answer(b"", "content-length: 5000", status="500 No", sized=False), b"x" * 3000
    ),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", [name for name in SCRIPTS if "error" not in name])
def test_the_first_byte_is_awaited_so_long(name: str, receive: Receive) -> None:
    """Bytes that come now and then and are no piece of a reply do not stretch the limit."""
    with RoughServer(SCRIPTS[name]) as server, closing(engine(server.url)) as made:
        with Watch(), pytest.raises(TimeoutError) as caught:
            receive(made, ask(), LIMIT_S)
        assert not isinstance(caught.value, TimedOut)


def test_an_error_whose_body_never_ends_is_told_by_its_status(receive: Receive) -> None:
    """What the status says is not thrown away because the rest is slow."""
    with RoughServer(SCRIPTS["drip in an error"]) as server, closing(engine(server.url)) as made:
        with Watch(LONGER_S), pytest.raises(VendorError) as caught:
            receive(made, ask(), LONGER_S)
        assert caught.value.status == 500


def test_silence_between_pieces_is_late_too(receive: Receive) -> None:
    """The limit holds for each wait, also behind pieces that have come."""

    def falls_silent(connection: socket.socket) -> None:
        request(connection)
        first = told("a")[0]
        connection.sendall(HEAD + b"%x\r\n%s\r\n" % (len(first), first))
        until_closed(connection)

    with (
        RoughServer(falls_silent) as server,
        closing(engine(server.url)) as made,
        Watch(),
        pytest.raises(TimeoutError),
    ):
        receive(made, ask(), LIMIT_S)


def test_a_slow_reader_of_the_request_is_late(receive: Receive) -> None:
    """Writing a large request is bounded like reading, also where some of it is read."""

    def sip(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        while connection.recv(512):
            time.sleep(0.02)

    with (
        RoughServer(sip) as server,
        closing(engine(server.url)) as made,
        Watch(),
        pytest.raises(TimeoutError),
    ):
        receive(made, ask("x" * (32 * 2**20)), LIMIT_S)


@pytest.mark.parametrize("timeout_s", [0, -1.0])
def test_a_limit_that_has_passed_ends_at_once(timeout_s: float, receive: Receive) -> None:
    """What is late before it begins is late."""
    with (
        RoughServer(silent) as server,
        closing(engine(server.url)) as made,
        Watch(0),
        pytest.raises(TimeoutError),
    ):
        receive(made, ask(), timeout_s)


@pytest.mark.parametrize("timeout_s", [None, math.inf, 1e12, 1e300])
def test_no_limit_is_no_limit(timeout_s: float | None, receive: Receive) -> None:
    """However it is said that there is none, a reply is read, and connecting has none either."""
    body = b"".join(told("a"))
    with RoughServer(saying(answer(body, SSE))) as server, closing(engine(server.url)) as made:
        pieces = receive(made, ask(connect_s=timeout_s), timeout_s)
    assert len(pieces) == 2


# -- connecting --------------------------------------------------------------------------------


@contextlib.contextmanager
def full(host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """The address of a listener whose queue is full: nobody gets a connection, nor a refusal."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)  # noqa: FBT003 - as the standard library has it
            waiting.connect_ex(listener.getsockname())
        time.sleep(0.05)
        yield f"http://{host}:{listener.getsockname()[1]}"


def test_connecting_has_a_limit_of_its_own(receive: Receive) -> None:
    """Who cannot be reached is told as that, with the limit, and not as silence."""
    with (
        full() as url,
        closing(engine(url)) as made,
        Watch(),
        pytest.raises(TimedOut) as caught,
    ):
        receive(made, ask(connect_s=LIMIT_S), LIVE_S)
    assert (caught.value.phase, caught.value.limit_s) == ("connect", LIMIT_S)


def test_the_limit_of_the_wait_holds_while_connecting(receive: Receive) -> None:
    """Where the first byte is due sooner than the connection, that is what was late."""
    with (
        full() as url,
        closing(engine(url)) as made,
        Watch(),
        pytest.raises(TimeoutError) as caught,
    ):
        receive(made, ask(connect_s=LIVE_S), LIMIT_S)
    assert not isinstance(caught.value, TimedOut)


def test_nobody_listening_is_told_at_once(receive: Receive) -> None:
    """A refused connection is Unreachable, and says what the system says."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with (
        closing(engine(f"http://127.0.0.1:{port}")) as made,
        Watch(0),
        pytest.raises(Unreachable, match="Connection refused"),
    ):
        receive(made, ask(), LIVE_S)


def test_a_name_that_is_not_known_is_unreachable(
    receive: Receive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name without an address is told by what the system says of it."""

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with (
        closing(engine("http://nowhere.test")) as made,
        Watch(0),
        pytest.raises(Unreachable, match="Name or service not known"),
    ):
        receive(made, ask(), LIVE_S)


def test_a_slow_lookup_of_a_name_is_bounded(
    receive: Receive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's lookup cannot be interrupted, and nobody waits for it longer than agreed."""
    answered = threading.Event()

    def wait(*_: object, **__: object) -> None:
        answered.wait(LONGER_S)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure")

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    with closing(engine("http://slow.test")) as made:
        began_s = time.monotonic()
        with pytest.raises(TimedOut, match="connecting"):
            receive(made, ask(connect_s=LIMIT_S), LIVE_S)
        assert time.monotonic() - began_s < LIVE_S
        answered.set()


def test_a_dead_address_leaves_time_for_the_next(
    receive: Receive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two addresses of a host the second is asked while there is time."""
    body = b"".join(told("a"))
    with RoughServer(saying(answer(body, SSE))) as server, full("127.0.0.2", server.port):

        def two(*_: object, **__: object) -> list[Any]:
            hosts = ("127.0.0.2", "127.0.0.1")
            kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
            return [(*kind, (host, server.port)) for host in hosts]

        monkeypatch.setattr(socket, "getaddrinfo", two)
        with closing(engine(f"http://two.test:{server.port}")) as made:
            pieces = receive(made, ask(connect_s=2 * LONGER_S), LIVE_S)
    assert len(pieces) == 2


def test_the_guard_of_blocking_sockets_is_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's pool uses our sockets: if its innards change, this fails, and not a user."""
    seen: list[str] = []
    real = sockets.Backend.connect_tcp

    def connect(self: sockets.Backend, host: str, *rest: Any, **more: Any) -> Any:
        seen.append(host)
        return real(self, host, *rest, **more)

    monkeypatch.setattr(sockets.Backend, "connect_tcp", connect)
    body = b"".join(told("a"))
    with RoughServer(saying(answer(body, SSE))) as server, closing(engine(server.url)) as made:
        WORLDS["threads"](made, ask(), LIVE_S)

    assert seen == ["127.0.0.1"]


def test_many_bytes_at_a_time_cost_no_time() -> None:
    """A request larger than what is written at once arrives whole."""
    got: list[bytes] = []

    def script(connection: socket.socket) -> None:
        got.append(request(connection))
        connection.sendall(answer(b"".join(told("a")), SSE))

    text = "".join(itertools.islice(itertools.cycle("abcdefghij"), 200_000))
    with RoughServer(script) as server, closing(engine(server.url)) as made:
        WORLDS["threads"](made, ask(text), LIVE_S)
    assert text.encode() in got[0]
