"""Encryption: who is trusted, and that handshakes have limits and can be given up."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Authority
from loopback import Answer, Loopback
from plain_wire import (
    LIVE_S,
    WORLDS,
    Receive,
    aread,
    ask,
    closing,
    engine,
    in_loop,
    in_thread,
    text_of,
    told,
)
from rough_server import RoughServer, answer, drip, request, until_closed

from llmdispatcher.models.errors import (
    BadReply,
    BadRequest,
    Cancelled,
    DispatcherError,
    StreamInterrupted,
    TimedOut,
    Unreachable,
)
from llmdispatcher.vendors.http.clients import Place, check

LIMIT_S = 0.15


@pytest.fixture(params=WORLDS)
def receive(request: pytest.FixtureRequest) -> Receive:
    """Read in a thread, and in an event loop."""
    return WORLDS[request.param]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who vouches for this machine."""
    return Authority.made(tmp_path)


@pytest.fixture
def server(authority: Authority) -> Iterator[Loopback]:
    """An encrypted server on 127.0.0.1."""
    encryption = authority.server("127.0.0.1")
    with Loopback(lambda _: Answer.sse(told("a")), encryption=encryption) as made:
        yield made


@pytest.mark.usefixtures("_ends_are_waited_for")
def test_an_authority_of_ones_own_is_trusted(
    server: Loopback, authority: Authority, receive: Receive
) -> None:
    """With the file named a reply comes, and connections are used again."""
    with closing(engine(server.url, reached={"ca_file": str(authority.file)})) as made:
        for _ in range(3):
            assert text_of(receive(made, ask(), LIVE_S)) == "a"
        if receive is in_thread:
            assert server.accepted == 1


def test_an_authority_that_nobody_knows_is_not(server: Loopback, receive: Receive) -> None:
    """Who cannot prove who they are gets no request."""
    with (
        closing(engine(server.url)) as made,
        pytest.raises(Unreachable, match=r"(?i)certificate"),
    ):
        receive(made, ask(), LIVE_S)
    assert not server.got


def test_a_certificate_of_another_host_is_not_trusted(
    authority: Authority, receive: Receive
) -> None:
    """Names are compared."""
    encryption = authority.server("other.test")
    with Loopback(lambda _: Answer.sse(told("a")), encryption=encryption) as server:
        with (
            closing(engine(server.url, reached={"ca_file": str(authority.file)})) as made,
            pytest.raises(Unreachable, match=r"(?i)certificate"),
        ):
            receive(made, ask(), LIVE_S)
        assert not server.got


@pytest.mark.parametrize("content", [None, b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nx\n"])
def test_a_file_without_certificates_is_refused_when_the_vendor_is_made(
    content: bytes | None, tmp_path: Path
) -> None:
    """Missing, empty or garbage: it is named, before anything is sent."""
    file = tmp_path / "authority.pem"
    if content is not None:
        file.write_bytes(content)
    for path in (str(file), str(tmp_path), "a\0b"):
        with pytest.raises(BadRequest, match="ca_file"):
            check(Place(root="https://x", base="https://x", ca_file=path))


def test_one_side_with_encryption_and_one_without_is_told(
    server: Loopback, authority: Authority, receive: Receive
) -> None:
    """Both ways round, with what can be told of it."""
    with (
        closing(engine(server.url.replace("https", "http"))) as made,
        pytest.raises((Unreachable, BadReply)),
    ):
        receive(made, ask(), LIVE_S)

    def puzzled(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer(b"", status="400 Bad Request"))

    with (
        RoughServer(puzzled) as plain,
        closing(engine(plain.url.replace("http", "https"))) as made,
        pytest.raises(Unreachable),
    ):
        receive(made, ask(), LIVE_S)


@pytest.mark.parametrize("dripped", [b"", b"\x16\x03\x03\x40\x00" + b"\x02" * 3000])
def test_a_slow_handshake_is_late(dripped: bytes, receive: Receive) -> None:
    """Silence, and a byte now and then, belong to connecting."""

    def script(connection: socket.socket) -> None:
        connection.recv(65536)
        drip(connection, dripped)
        until_closed(connection)

    with (
        RoughServer(script) as server,
        closing(engine(server.url.replace("http", "https"))) as made,
    ):
        began_s = time.monotonic()
        with pytest.raises(TimedOut) as caught:
            receive(made, ask(connect_s=LIMIT_S), LIVE_S)
        assert LIMIT_S * 0.9 <= time.monotonic() - began_s < LIVE_S / 2
    assert (caught.value.phase, caught.value.limit_s) == ("connect", LIMIT_S)


def test_connecting_and_shaking_hands_have_one_limit(receive: Receive) -> None:
    """What the one has taken is not there for the other."""
    limit_s = 5.0 if receive is in_loop else 2.0  # so a busy machine has four seconds to spare
    real = socket.getaddrinfo

    def look_up(host: object, port: object, *rest: object, **more: object) -> object:
        if host == "slow.test":
            time.sleep(limit_s * 0.9)
        return real("127.0.0.1", port, *rest, **more)  # type: ignore[arg-type]

    with RoughServer(until_closed) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", look_up)
        with closing(engine(f"https://slow.test:{server.port}")) as made:
            began_s = time.monotonic()
            with pytest.raises(TimedOut):
                receive(made, ask(connect_s=limit_s), LIVE_S)
            assert time.monotonic() - began_s < limit_s * 1.8 or receive is in_thread


def test_a_handshake_is_given_up_at_once() -> None:
    """By a thread and by a task, and the connection is closed."""

    def script(connection: socket.socket) -> None:
        connection.recv(65536)
        until_closed(connection)

    async def main() -> None:
        call = made.submit(ask(connect_s=60.0), "m")
        timer = threading.Timer(0.05, call.cancel)
        timer.start()
        with pytest.raises(Cancelled):
            await call.areceive(None)
        timer.join()
        waiting = asyncio.create_task(aread(made.submit(ask(connect_s=60.0), "m"), None))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    with (
        RoughServer(script) as server,
        closing(engine(server.url.replace("http", "https"))) as made,
    ):
        call = made.submit(ask(connect_s=60.0), "m")
        timer = threading.Timer(0.05, call.cancel)
        timer.start()
        began_s = time.monotonic()
        with pytest.raises(Cancelled):
            call.receive(None)
        timer.join()
        asyncio.run(main())
        assert time.monotonic() - began_s < LIVE_S / 2
        until_s = time.monotonic() + LIVE_S
        while server.open and time.monotonic() < until_s:
            time.sleep(0.005)
        assert server.open == 0


@pytest.mark.parametrize("stage", ["head", "body"])
def test_an_encrypted_reply_is_given_up_at_once_and_is_late_at_the_instant(
    stage: str, authority: Authority, receive: Receive
) -> None:
    """Deadlines and cancelling are those of plain connections."""
    encryption = authority.server("127.0.0.1")

    def script(plain: socket.socket) -> None:
        with encryption.wrap_socket(plain, server_side=True) as connection:
            request(connection)
            if stage == "body":
                connection.sendall(answer(b"", "content-length: 9000", sized=False))
                drip(connection, b"x" * 9000)
            until_closed(connection)

    reached = {"ca_file": str(authority.file)}
    with (
        RoughServer(script) as server,
        closing(engine(server.url.replace("http", "https"), reached=reached)) as made,
    ):
        began_s = time.monotonic()
        with pytest.raises(TimeoutError):
            receive(made, ask(), LIMIT_S)
        assert LIMIT_S * 0.9 <= time.monotonic() - began_s < LIVE_S / 2
        call = made.submit(ask(), "m")
        timer = threading.Timer(LIMIT_S, call.cancel)
        timer.start()
        began_s = time.monotonic()
        with pytest.raises(Cancelled):
            if receive is in_loop:
                asyncio.run(aread(call, None))
            else:
                call.receive(None)
        assert time.monotonic() - began_s < LIVE_S / 2
        timer.join()


@pytest.mark.parametrize("how", ["cut", "garbage", "without a farewell"])
def test_an_encrypted_reply_that_breaks_is_an_interrupted_stream(
    how: str, authority: Authority, receive: Receive
) -> None:
    """Whatever the library makes of it: it is one of our errors, and never a reply."""
    encryption = authority.server("127.0.0.1")
    first = told("a")[0]

    def script(plain: socket.socket) -> None:
        outside, inside = ssl.MemoryBIO(), ssl.MemoryBIO()
        peer = encryption.wrap_bio(inside, outside, server_side=True)

        def flush() -> None:
            plain.sendall(outside.read())

        while True:
            try:
                peer.do_handshake()
                break
            except ssl.SSLWantReadError:
                flush()
                inside.write(plain.recv(65536))
        flush()
        while True:
            try:
                peer.read(65536)
                break
            except ssl.SSLWantReadError:
                inside.write(plain.recv(65536))
        kind = "content-type: text/event-stream"
        peer.write(answer(b"", kind, "connection: close", sized=False) + first)
        data = outside.read()
        plain.sendall(data[:-3] if how == "cut" else data)
        if how == "garbage":
            plain.sendall(b"\x17\x03\x03\x00\x20" + b"nonsense" * 4)
            until_closed(plain)

    reached = {"ca_file": str(authority.file)}
    with (
        RoughServer(script) as server,
        closing(engine(server.url.replace("http", "https"), reached=reached)) as made,
        pytest.raises(DispatcherError) as caught,
    ):
        receive(made, ask(), LIVE_S)
    assert isinstance(caught.value, Unreachable if how == "cut" else StreamInterrupted)
