"""A key goes to the vendor, and nowhere else: no log, no error, no frame, no other host."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from loopback import Answer, Got, Loopback
from plain_wire import LIVE_S, WORLDS, Receive, aread, ask, closing, engine, told
from rough_server import RoughServer, answer, drip, request, until_closed
from small_proxy import SmallProxy
from talkative import shown

from llmdispatcher.models.errors import DispatcherError

KEY = "zq-geheim-0123456789-äußerst".encode("ascii", "ignore").decode()
REACHED: dict[str, Any] = {
    "headers": {"authorization": f"Bearer {KEY}", "x-other": "1"},
    "secrets": (f"Bearer {KEY}", KEY),
}


@pytest.fixture(params=WORLDS)
def receive(request: pytest.FixtureRequest) -> Receive:
    """Read in a thread, and in an event loop."""
    return WORLDS[request.param]


def echo(connection: socket.socket) -> None:
    """Say nothing but what was asked."""
    connection.sendall(request(connection))


def echoed_head(connection: socket.socket) -> None:
    """Repeat the request as a head that is none."""
    got = request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\n" + got.split(b"\r\n", 1)[1].replace(b": ", b" "))


def echoed(status: str, kind: str) -> Callable[[socket.socket], None]:
    """Repeat the request in a body."""

    def script(connection: socket.socket) -> None:
        got = request(connection)
        connection.sendall(answer(got, f"content-type: {kind}", status=status))

    return script


def moved(connection: socket.socket) -> None:
    """Point elsewhere, with the key in the address."""
    request(connection)
    where = f"location: https://x.test/{KEY}?key={KEY}"
    connection.sendall(answer(KEY.encode(), where, status="302 Moved"))


def error_in_a_stream(connection: socket.socket) -> None:
    """Repeat the key in an event."""
    request(connection)
    body = b'data: {"error": {"message": "bad key %s", "code": 401}}\n\n' % KEY.encode()
    connection.sendall(answer(body, "content-type: text/event-stream", f"x-request-id: {KEY}"))


def dripping(connection: socket.socket) -> None:
    """Answer for ever."""
    request(connection)
    drip(connection, b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1000)


def not_read(connection: socket.socket) -> None:
    """Do not even read it all."""
    connection.recv(10)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


SCRIPTS = {
    "echo": echo,
    "echoed head": echoed_head,
    "echoed error": echoed("400 Bad", "text/plain"),
    "echoed rejection": echoed("401 No", "application/json"),
    "echoed reply": echoed("200 OK", "application/json"),
    "echoed page": echoed("200 OK", "text/html"),
    "echoed stream": echoed("200 OK", "text/event-stream"),
    "echoed lines": echoed("200 OK", "application/x-ndjson"),
    "moved": moved,
    "error in a stream": error_in_a_stream,
    "late": dripping,
    "silent": until_closed,
    "not read": not_read,
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_error_shows_the_key(
    name: str, receive: Receive, caplog: pytest.LogCaptureFixture
) -> None:
    """Not its words, not its facts, not what it came from, and no variable of any frame of it.

    Nor does any log, of whatever library, at whatever level; only what a vendor puts into the head
    of its answer is in httpcore2's, at DEBUG.
    """
    caplog.set_level(logging.DEBUG)
    for logger in ("httpx2", "httpcore2", "httpcore2.connection", "httpcore2.http11", "asyncio"):
        caplog.set_level(logging.DEBUG, logger)
    with RoughServer(SCRIPTS[name]) as server, closing(engine(server.url, reached=REACHED)) as made:
        with pytest.raises((DispatcherError, TimeoutError)) as caught:
            receive(made, ask(), 0.2 if name in {"late", *UNHEARD} else LIVE_S)
        assert KEY not in shown(caught.value)
    records = [r for r in caplog.records if "receive_response_headers.complete" not in r.message]
    assert len(records) < len(caplog.records) or name in {"echo", "echoed head", "late", *UNHEARD}
    assert not [record for record in records if KEY in str(record.__dict__)]


UNHEARD = ("silent", "not read")


def test_being_cancelled_shows_no_key() -> None:
    """From another thread, which finds the reader in the middle of the library."""
    for timeout_s in (None, LIVE_S):
        for in_a_loop in (False, True):
            with (
                RoughServer(until_closed) as server,
                closing(engine(server.url, reached=REACHED)) as made,
            ):
                call = made.submit(ask("x" * 10_000_000), "m")
                timer = threading.Timer(0.05, call.cancel)
                timer.start()
                with pytest.raises(DispatcherError) as caught:
                    if in_a_loop:
                        asyncio.run(aread(call, timeout_s))
                    else:
                        call.receive(timeout_s)
                timer.join()
                assert KEY not in shown(caught.value)


def test_what_cannot_be_reached_shows_no_key(receive: Receive) -> None:
    """Refused, unknown, late."""
    for url, patience_s in (("http://127.0.0.1:9", LIVE_S), ("http://nowhere.invalid:9", 0.3)):
        with closing(engine(url, reached=REACHED)) as made:
            with pytest.raises((DispatcherError, TimeoutError)) as caught:
                receive(made, ask(connect_s=patience_s), LIVE_S)
            assert KEY not in shown(caught.value)


def test_a_proxy_is_not_shown_the_key_and_errors_not_its_password(
    receive: Receive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The key is inside the tunnel; the password is the proxy's alone."""
    caplog.set_level(logging.DEBUG)
    authority = Authority.made(tmp_path)
    encryption = authority.server("vendor.test")
    password = "sesam-öffne-dich".encode("ascii", "ignore").decode()

    def fail(got: Got) -> Answer:
        return Answer.json({"error": {"message": str(dict(got.headers))}}, status=401)

    with Loopback(fail, encryption=encryption) as server, SmallProxy(server.port) as proxy:
        reached = {
            **REACHED,
            "proxy": f"http://u:{password}@127.0.0.1:{proxy.port}",
            "secrets": (*REACHED["secrets"], password),
            "ca_file": str(authority.file),
        }
        with (
            closing(engine("https://vendor.test", reached=reached)) as made,
            pytest.raises(DispatcherError) as caught,
        ):
            receive(made, ask(), LIVE_S)
    for secret in (KEY, password):
        assert secret not in shown(caught.value)
        assert secret not in caplog.text
    assert not any(KEY.encode() in head for head in proxy.heads)
    assert KEY in server.got[0].headers["authorization"]


def _said(answer: Answer, _: Got) -> Answer:
    return answer


def test_other_hosts_never_see_the_key(receive: Receive) -> None:
    """Neither by a redirect nor by a cookie nor by an address in an answer."""
    with Loopback(lambda _: Answer.sse(told("a"))) as other:
        for status in (301, 302, 303, 307, 308):
            headers = {
                "location": f"{other.url}/chat",
                "content-location": f"{other.url}/chat",
                "link": f"<{other.url}/chat>; rel=preload",
                "refresh": f"0; url={other.url}/chat",
                "alt-svc": f'http/1.1="127.0.0.1:{other.port}"',
            }
            told_so = Answer(status=status, headers=headers)
            with (
                Loopback(partial(_said, told_so)) as server,
                closing(engine(server.url, reached=REACHED)) as made,
                pytest.raises(DispatcherError),
            ):
                receive(made, ask(), LIVE_S)
        assert not other.got
        assert not other.accepted


def test_a_reply_is_not_touched(receive: Receive) -> None:
    """What a model writes is the reply, though it should write the key."""
    with (
        Loopback(lambda _: Answer.sse(told(KEY))) as server,
        closing(engine(server.url, reached=REACHED)) as made,
    ):
        assert KEY in str(receive(made, ask(), LIVE_S))


def test_nothing_that_lives_on_shows_the_key(receive: Receive) -> None:
    """Whatever object of ours is printed later."""
    with (
        Loopback(lambda _: Answer.sse(told("a"))) as server,
        closing(engine(server.url, reached=REACHED)) as made,
    ):
        receive(made, ask(), LIVE_S)
        ours = [
            each
            for each in gc.get_objects()
            if str(type(each).__module__).startswith("llmdispatcher.")
        ]
        assert ours
        for each in ours:
            assert KEY not in repr(each)
