"""Proxies: when one is used, and that all that holds without one holds behind one."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Authority
from loopback import Answer, Loopback
from plain_wire import LIVE_S, WORLDS, Receive, ask, closing, engine, in_thread, text_of, told
from rough_server import RoughServer, answer, drip, request, until_closed
from small_proxy import SmallProxy

from llmdispatcher.models.errors import BadRequest, Cancelled, TimedOut, Unreachable
from llmdispatcher.vendors.http import environment
from llmdispatcher.vendors.http.address import address
from llmdispatcher.vendors.http.clients import Place, check

LIMIT_S = 0.15
SSE = "content-type: text/event-stream"
NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(params=WORLDS)
def receive(request: pytest.FixtureRequest) -> Receive:
    """Read in a thread, and in an event loop."""
    return WORLDS[request.param]


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin with an environment that names no proxy."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("variables", "url", "expected"),
    [
        ({}, "https://api.test", None),
        ({"HTTPS_PROXY": "http://p:3128"}, "https://api.test", "http://p:3128"),
        ({"https_proxy": "p:3128"}, "https://api.test", "http://p:3128"),
        ({"HTTPS_PROXY": "http://p"}, "http://api.test", None),
        ({"HTTP_PROXY": "http://p"}, "http://api.test", "http://p"),
        ({"HTTP_PROXY": "http://p"}, "https://api.test", None),
        ({"ALL_PROXY": "http://p"}, "https://api.test", "http://p"),
        ({"ALL_PROXY": "http://a", "HTTPS_PROXY": "http://p"}, "https://api.test", "http://p"),
        ({"ALL_PROXY": "http://p", "NO_PROXY": "api.test"}, "https://api.test", None),
        ({"ALL_PROXY": "http://p", "NO_PROXY": "test"}, "https://api.test", None),
        ({"ALL_PROXY": "http://p", "NO_PROXY": ".test"}, "https://api.test", None),
        ({"ALL_PROXY": "http://p", "NO_PROXY": "*"}, "https://api.test", None),
        ({"ALL_PROXY": "http://p", "NO_PROXY": "api.test:81"}, "https://api.test:81", None),
        ({"ALL_PROXY": "http://p", "NO_PROXY": "api.test:82"}, "https://api.test:81", "http://p"),
        ({"ALL_PROXY": "http://p", "NO_PROXY": "other,pi.test"}, "https://api.test", "http://p"),
        ({"ALL_PROXY": "http://p", "NO_PROXY": "10.0.0.0/8"}, "https://10.1.2.3", None),
        ({"ALL_PROXY": "http://p", "NO_PROXY": " fd00::/8 ,x/y"}, "https://[fd00::1]", None),
        ({"ALL_PROXY": "http://p", "NO_PROXY": "10.0.0.0/8"}, "https://11.1.2.3", "http://p"),
        ({"ALL_PROXY": "http://p"}, "http://127.0.0.1:1", None),
        ({"ALL_PROXY": "http://p"}, "http://localhost:1", None),
        ({"ALL_PROXY": "http://p"}, "http://[::1]:1", None),
        ({"ALL_PROXY": "http://p"}, "http://[::ffff:127.0.0.1]:1", None),
        ({"ALL_PROXY": "http://p"}, "http://0.0.0.0:1", None),
        ({"ALL_PROXY": "http://p"}, "http://10.0.0.1:1", "http://p"),
    ],
)
def test_the_environment_names_a_proxy(
    variables: dict[str, str], url: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As everywhere on the system, and never for this machine."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert environment.proxy(address(url)) == expected


@pytest.mark.parametrize(
    "proxy", ["", "p", "p:1", "ftp://p", "http://", "http://[", "socks5://p:1", "http://p:99999"]
)
def test_what_cannot_be_a_proxy_is_refused_when_the_vendor_is_made(proxy: str) -> None:
    """With the way out, and without its password."""
    with pytest.raises(BadRequest, match="proxy"):
        check(Place(root="https://x", base="https://x", proxy=proxy))
    with pytest.raises(BadRequest) as caught:
        check(Place(root="https://x", base="https://x", proxy="ftp://u:geheim@p"))
    assert "geheim" not in str(caught.value)


def test_requests_without_encryption_are_forwarded(receive: Receive) -> None:
    """The proxy gets the whole address, and its name and password for itself."""
    with Loopback(lambda _: Answer.sse(told("a"))) as server, SmallProxy(server.port) as proxy:
        url = f"http://user:geheim@127.0.0.1:{proxy.port}"
        with closing(engine("http://vendor.test", reached={"proxy": url})) as made:
            assert text_of(receive(made, ask(), LIVE_S)) == "a"
    assert proxy.heads[0].startswith(b"POST http://vendor.test/chat HTTP/1.1\r\n")
    assert b"proxy-authorization: basic dXNlcjpnZWhlaW0=" in proxy.heads[0].replace(
        b"Proxy-Authorization: Basic", b"proxy-authorization: basic"
    )


def dripping(connection: socket.socket) -> None:
    """Answer a byte now and then."""
    request(connection)
    connection.sendall(answer(b"", SSE, "content-length: 99999", sized=False))
    drip(connection, b"x" * 5000)


def test_deadlines_hold_behind_a_proxy(receive: Receive) -> None:
    """The guard of blocking sockets is in place there, too: a drip is late."""
    with RoughServer(dripping) as server, SmallProxy(server.port) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        with closing(engine("http://vendor.test", reached={"proxy": url})) as made:
            began_s = time.monotonic()
            with pytest.raises(TimeoutError):
                receive(made, ask(), LIMIT_S)
            assert LIMIT_S * 0.9 <= time.monotonic() - began_s < LIVE_S / 2


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who vouches for vendor.test."""
    return Authority.made(tmp_path)


@pytest.fixture
def vendor(authority: Authority) -> Iterator[Loopback]:
    """An encrypted server that calls itself vendor.test."""
    encryption = authority.server("vendor.test")
    with Loopback(lambda _: Answer.sse(told("a")), encryption=encryption) as made:
        yield made


@pytest.mark.usefixtures("_ends_are_waited_for")
def test_encrypted_requests_go_through_a_tunnel(
    vendor: Loopback, authority: Authority, receive: Receive
) -> None:
    """The proxy sees the host, and nothing else; the tunnel is used again."""
    with SmallProxy(vendor.port) as proxy:
        reached = {
            "proxy": f"http://u:geheim@127.0.0.1:{proxy.port}",
            "ca_file": str(authority.file),
            "headers": {"authorization": "Bearer sk-secret"},
        }
        with closing(engine("https://vendor.test", reached=reached)) as made:
            assert text_of(receive(made, ask(), LIVE_S)) == "a"
            if receive is in_thread:
                assert text_of(receive(made, ask(), LIVE_S)) == "a"
    assert len(proxy.heads) == 1
    assert proxy.heads[0].startswith(b"CONNECT vendor.test:443 HTTP/1.1\r\n")
    assert b"sk-secret" not in proxy.heads[0]
    assert vendor.got[0].headers["authorization"] == "Bearer sk-secret"
    assert "proxy-authorization" not in vendor.got[0].headers


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n", "password"),
        (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", "403"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "502"),
        (b"220 smtp.test ESMTP\r\n\r\n", ""),
        (b"x", ""),
    ],
)
def test_a_tunnel_that_is_refused_is_unreachable(
    refusal: bytes, words: str, receive: Receive
) -> None:
    """Nothing reached the vendor, and the reason is told, with the way out."""
    with SmallProxy(1, refusal) as proxy:
        url = f"http://u:geheim@127.0.0.1:{proxy.port}"
        with (
            closing(engine("https://vendor.test", reached={"proxy": url})) as made,
            pytest.raises(Exception, match=words or None) as caught,
        ):
            receive(made, ask(), LIVE_S)
    assert isinstance(caught.value, Unreachable) or not words
    assert "geheim" not in str(caught.value)


def test_a_forwarding_proxy_that_wants_a_password_is_unreachable(receive: Receive) -> None:
    """It is not the vendor's key that is wrong."""
    refusal = answer(b"", status="407 Proxy Authentication Required")
    with RoughServer(lambda c: c.sendall(refusal if request(c) else b"")) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        with (
            closing(engine("http://vendor.test", reached={"proxy": url})) as made,
            pytest.raises(Unreachable, match="password"),
        ):
            receive(made, ask(), LIVE_S)


def test_a_proxy_that_is_not_there_is_unreachable(receive: Receive) -> None:
    """And so is the vendor behind it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    reached = {"proxy": f"http://127.0.0.1:{port}"}
    for url in ("http://vendor.test", "https://vendor.test"):
        with (
            closing(engine(url, reached=reached)) as made,
            pytest.raises(Unreachable, match="refused"),
        ):
            receive(made, ask(), LIVE_S)


@pytest.mark.parametrize("how", ["silent", "dripping", "silent behind the tunnel"])
def test_connecting_through_a_proxy_has_one_limit(how: str, receive: Receive) -> None:
    """The proxy's answer and the encryption belong to connecting: together they have its limit."""

    def script(connection: socket.socket) -> None:
        connection.recv(65536)
        if how == "dripping":
            drip(connection, b"HTTP/1.1 200 OK\r\nx: " + b"y" * 5000)
        elif how != "silent":
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        until_closed(connection)

    with RoughServer(script) as proxy:
        reached = {"proxy": f"http://127.0.0.1:{proxy.port}"}
        with closing(engine("https://vendor.test", reached=reached)) as made:
            began_s = time.monotonic()
            with pytest.raises(TimedOut) as caught:
                receive(made, ask(connect_s=LIMIT_S), LIVE_S)
            assert LIMIT_S * 0.9 <= time.monotonic() - began_s < LIVE_S / 2
    assert (caught.value.phase, caught.value.limit_s) == ("connect", LIMIT_S)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_tunnel_that_is_being_made_is_given_up_at_once(said: bytes) -> None:
    """While the proxy answers, and while hands are shaken behind it."""

    def script(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(said)
        until_closed(connection)

    with RoughServer(script) as proxy:
        reached = {"proxy": f"http://127.0.0.1:{proxy.port}"}
        with closing(engine("https://vendor.test", reached=reached)) as made:
            call = made.submit(ask(connect_s=60.0), "m")
            timer = threading.Timer(0.05, call.cancel)
            timer.start()
            began_s = time.monotonic()
            with pytest.raises(Cancelled):
                call.receive(None)
            assert time.monotonic() - began_s < LIVE_S / 2
            timer.join()
