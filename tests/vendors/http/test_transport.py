"""Connections: what goes over them is read, or told as what it is; they are kept, and shared."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import multiprocessing
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from loopback import Answer, Got, Loopback
from plain_wire import (
    LIVE_S,
    WORLDS,
    PlainWire,
    Receive,
    aread,
    ask,
    closing,
    engine,
    in_loop,
    in_thread,
    place,
    text_of,
    told,
)
from rough_server import RoughServer, answer, chunked, request, say, saying, until_closed
from waits import until

from llmdispatcher.models.errors import (
    BadReply,
    BadRequest,
    DispatcherError,
    StreamInterrupted,
    Unreachable,
    VendorError,
)
from llmdispatcher.models.reply import Finish
from llmdispatcher.vendors.contract import Call
from llmdispatcher.vendors.http.bound import Bound
from llmdispatcher.vendors.http.engine import HttpEngine
from llmdispatcher.vendors.http.transport import Broken, Connections
from llmdispatcher.vendors.wire.exchange import Ask

SSE = "content-type: text/event-stream"
BODY = b"".join(told("Grü", "ße"))
TEXT = "Grüße"


@pytest.fixture(params=WORLDS)
def receive(request: pytest.FixtureRequest) -> Receive:
    """Read in a thread, and in an event loop."""
    return WORLDS[request.param]


FRAMINGS = {
    "sized": answer(BODY, SSE),
    "chunked": answer(chunked(*told("Grü", "ße")), SSE, "transfer-encoding: chunked", sized=False),
    "until it closes": answer(BODY, SSE, "connection: close", sized=False),
    "of HTTP/1.0": answer(BODY, SSE, sized=False).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "behind informational answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 3
    + b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    + answer(BODY, SSE),
    "with headers twice": answer(BODY, SSE, SSE, "x-request-id: 1", "x-request-id: 2"),
    "with chunk extensions and trailers": answer(
        b"", SSE, "transfer-encoding: chunked", sized=False
    )
    + b"".join(b"%x;a=b\r\n%s\r\n" % (len(c), c) for c in told("Grü", "ße"))
    + b"0\r\nx-checksum: 1\r\n\r\n",
}


@pytest.mark.parametrize("framing", FRAMINGS)
def test_every_framing_is_read_also_byte_by_byte(framing: str, receive: Receive) -> None:
    """A reply is the same however HTTP packs it and the network cuts it."""
    data = FRAMINGS[framing]

    def bytewise(connection: socket.socket) -> None:
        request(connection)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for index in range(len(data)):
            connection.sendall(data[index : index + 1])

    for script in (saying(data), bytewise):
        with RoughServer(script) as server, closing(engine(server.url)) as made:
            assert text_of(receive(made, ask(), LIVE_S)) == TEXT


Failed = tuple[bool, DispatcherError]
"""Whether anything came before the error, and the error."""


def failed(call: Call) -> Failed:
    """Read until it fails."""
    has_begun = False
    try:
        while True:
            has_begun = bool(call.receive(LIVE_S))
    except DispatcherError as error:
        return has_begun, error


async def afailed(call: Call) -> Failed:
    """Do the same in an event loop."""
    has_begun = False
    try:
        while True:
            has_begun = bool(await call.areceive(LIVE_S))
    except DispatcherError as error:
        return has_begun, error


@pytest.mark.sampled(2)
@pytest.mark.parametrize("framing", ["sized", "chunked", "until it closes", "of HTTP/1.0"])
def test_an_answer_cut_at_any_byte_is_an_error(framing: str, receive: Receive) -> None:
    """Before a piece came it is Unreachable or no reply, behind one an interrupted stream."""
    data = FRAMINGS[framing]
    is_open = "clos" in framing or "1.0" in framing
    # where nothing says how long a body is, a reply that said that it is whole is whole
    whole = data.rfind(b"}") + 1 if is_open else data.rfind(b"0\r\n\r\n") + 5
    whole = whole if framing != "sized" else len(data)
    sizes = iter(range(whole))

    def cut(connection: socket.socket) -> None:
        request(connection)
        connection.sendall(data[: next(sizes)])

    async def areads(made: HttpEngine) -> list[Failed]:
        return [await afailed(made.submit(ask(), "m")) for _ in range(whole)]

    def reads(made: HttpEngine) -> list[Failed]:
        return [failed(made.submit(ask(), "m")) for _ in range(whole)]

    body = data.index(b"\r\n\r\n") + 4
    with RoughServer(cut) as server, closing(engine(server.url)) as made:
        found = asyncio.run(areads(made)) if receive is in_loop else reads(made)
    assert len(found) == whole
    for size, (had_begun, error) in enumerate(found):
        if had_begun:
            assert isinstance(error, StreamInterrupted), (data[:size], error)
        elif size < body:
            assert isinstance(error, Unreachable), (data[:size], error)
        else:
            assert isinstance(error, Unreachable | BadReply), (data[:size], error)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"\x15\x03\x03\x00\x02\x02\x46" * 3 + b"\r\n\r\n",
        b"HTTP/1.1 OK 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnothing like a size\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    ],
)
def test_what_is_no_http_is_a_bad_reply(data: bytes, receive: Receive) -> None:
    """A stranger on the port is told as that, with a short quotation."""
    with (
        RoughServer(saying(data, 0.02)) as server,
        closing(engine(server.url)) as made,
        pytest.raises(BadReply, match="speaks no HTTP") as caught,
    ):
        receive(made, ask(), LIVE_S)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"x-filler: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nx: ", b"y" * 100),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"0" * 100),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;", b"x" * 100),
    ],
)
def test_a_head_without_end_is_bounded(status: bytes, headers: bytes, receive: Receive) -> None:
    """Who sends headers for ever is told as no HTTP, before memory is full."""

    def script(connection: socket.socket) -> None:
        request(connection)
        connection.sendall(status)
        for _ in range(100_000):
            connection.sendall(headers)

    with (
        RoughServer(script) as server,
        closing(engine(server.url)) as made,
        pytest.raises(BadReply),
    ):
        receive(made, ask(), LIVE_S)


@pytest.mark.parametrize("status", ["301", "302", "303", "307", "308"])
def test_redirects_are_never_followed(status: str, receive: Receive) -> None:
    """Neither elsewhere nor to itself: nobody else gets the request, or the key."""
    with Loopback(lambda _: Answer.json({})) as other:
        for target in (f"{other.url}/chat", "/chat", "//127.0.0.1:1/", "http://[", "x" * 5000):
            data = answer(b"", f"location: {target}", status=f"{status} Moved")
            with RoughServer(saying(data)) as server, closing(engine(server.url)) as made:
                with pytest.raises(Unreachable, match="moved"):
                    receive(made, ask(), LIVE_S)
                assert server.accepted == 1
        assert not other.got


# -- use and reuse -----------------------------------------------------------------------------


def streams(got: Got) -> Answer:
    """Answer with a stream, as its path wants it to end."""
    end = {"/done": [b"data: [DONE]\n\n"], "/chat": []}.get(got.path, [b": end\n\n"])
    return Answer.sse([*told("a"), *end])


@pytest.mark.usefixtures("_ends_are_waited_for")
@pytest.mark.parametrize("path", ["/chat", "/done", "/commented"])
def test_connections_are_used_again(path: str, receive: Receive) -> None:
    """One connection serves request after request, also behind streams that end with [DONE]."""
    with Loopback(streams) as server, closing(engine(server.url, PlainWire(asks=(path,)))) as made:
        if receive is in_thread:
            for _ in range(10):
                assert text_of(in_thread(made, ask())) == "a"
        else:

            async def main() -> None:
                for _ in range(10):
                    assert text_of(await aread(made.submit(ask(), "m"))) == "a"

            asyncio.run(main())
        assert server.accepted == 1
        assert len(server.got) == 10


@pytest.mark.parametrize("world", WORLDS)
def test_a_stream_that_never_ends_behind_done_is_left(world: str) -> None:
    """What goes on behind the end is not waited for; the next request has a new connection."""

    def script(connection: socket.socket) -> None:
        request(connection)
        head = answer(b"", SSE, "transfer-encoding: chunked", sized=False)
        data = BODY + b"data: [DONE]\n\n"
        connection.sendall(head + b"%x\r\n%s\r\n" % (len(data), data))
        until_closed(connection)

    with RoughServer(script) as server, closing(engine(server.url)) as made:
        began_s = time.monotonic()
        for _ in range(3):
            assert text_of(WORLDS[world](made, ask(), LIVE_S)) == TEXT
        assert time.monotonic() - began_s < LIVE_S
        assert server.accepted == 3


def test_the_end_of_a_whole_reply_is_not_waited_for_beyond_the_deadline(receive: Receive) -> None:
    """A reply that is whole is given, though its connection says nothing of an end."""

    def script(connection: socket.socket) -> None:
        request(connection)
        connection.sendall(answer(BODY, SSE, "connection: close", sized=False))
        until_closed(connection)

    with RoughServer(script) as server, closing(engine(server.url)) as made:
        assert text_of(receive(made, ask(), 3.0)) == TEXT


def test_a_connection_that_was_closed_meanwhile_is_no_failure(receive: Receive) -> None:
    """A server may close what is idle; who asks next does not notice."""
    closed = threading.Semaphore(0)

    def script(connection: socket.socket) -> None:
        request(connection)
        connection.sendall(answer(BODY, SSE))
        connection.shutdown(socket.SHUT_RDWR)
        closed.release()

    with RoughServer(script) as server, closing(engine(server.url)) as made:

        async def main() -> None:
            for _ in range(5):
                assert text_of(await aread(made.submit(ask(), "m"))) == TEXT
                assert closed.acquire(timeout=LIVE_S)
                await asyncio.sleep(0.01)

        if receive is in_loop:
            asyncio.run(main())
        else:
            for _ in range(5):
                assert text_of(in_thread(made, ask())) == TEXT
                assert closed.acquire(timeout=LIVE_S)
                time.sleep(0.01)
        assert server.accepted == 5


@pytest.mark.parametrize("abort", [False, True])
def test_one_that_is_closed_as_the_request_arrives_is_unreachable(
    receive: Receive, *, abort: bool
) -> None:
    """Nobody knows whether it was read, so it is told and not sent again."""

    def script(connection: socket.socket) -> None:
        request(connection)
        if abort:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with RoughServer(script) as server, closing(engine(server.url)) as made:
        with pytest.raises(Unreachable, match="before the reply began"):
            receive(made, ask(), LIVE_S)
        assert server.accepted == 1


def test_cookies_are_not_kept(receive: Receive) -> None:
    """A vendor cannot leave anything behind, and cannot fill the memory with it."""

    def script(connection: socket.socket) -> None:
        for number in range(3):
            got.append(request(connection))
            cookies = [f"set-cookie: c{number}{n}={'x' * 100}" for n in range(50)]
            connection.sendall(answer(BODY, SSE, *cookies))

    got: list[bytes] = []
    with RoughServer(script) as server, closing(engine(server.url)) as made:
        for _ in range(2):
            receive(made, ask(), LIVE_S)
    assert not any(b"cookie" in each.lower() for each in got)


ENDS: dict[str, tuple[bytes | float, ...]] = {
    "whole": (answer(BODY, SSE),),
    "done": (answer(BODY + b"data: [DONE]\n\n", SSE),),
    "cut in the head": (b"HTTP/1.1 200",),
    "cut in the body": (answer(BODY, SSE)[:-5],),
    "garbage": (b"nonsense\r\n\r\n",),
    "an error": (answer(b"{}", status="500 No"),),
    "no reply": (answer(b"{", "content-type: application/json"),),
    "an error in a stream": (answer(b'data: {"error": {"message": "x"}}\n\n' + BODY, SSE), 0.05),
    "late": (answer(BODY, SSE)[:-5], 0.05),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("end", ENDS)
def test_however_calls_end_the_pool_keeps_nothing_of_them(end: str, receive: Receive) -> None:
    """Neither requests nor broken connections pile up in a vendor that lives long."""

    def pool_of(made: HttpEngine) -> Any:
        connections = made._connections
        if receive is in_loop:
            return connections._loops[asyncio.get_running_loop()][0]._pool
        client = connections._client
        assert client is not None
        return client._pool

    def script(connection: socket.socket) -> None:
        while True:
            request(connection)
            say(connection, ENDS[end])
            if end not in {"whole", "done", "an error", "no reply"}:
                return

    with RoughServer(script) as server, closing(engine(server.url)) as made:

        async def main() -> Any:
            for _ in range(5):
                with contextlib.suppress(DispatcherError, TimeoutError):
                    await aread(made.submit(ask(), "m"), 0.03 if end == "late" else LIVE_S)
                call = made.submit(ask(), "m")
                with contextlib.suppress(DispatcherError):
                    await call.areceive(LIVE_S)
                call.cancel()
                await asyncio.sleep(0.01)
            return pool_of(made), len(pool_of(made).connections)

        if receive is in_loop:
            pool, kept = asyncio.run(main())
        else:
            for _ in range(5):
                with contextlib.suppress(DispatcherError, TimeoutError):
                    in_thread(made, ask(), 0.03 if end == "late" else LIVE_S)
                call = made.submit(ask(), "m")
                with contextlib.suppress(DispatcherError):
                    call.receive(LIVE_S)
                call.cancel()
            pool = pool_of(made)
            kept = len(pool.connections)
        assert not pool._requests
        assert kept <= 1


# -- what is sent ------------------------------------------------------------------------------


def sent(**options: Any) -> Got:
    """Return what arrives of one request."""
    wire = options.pop("wire", None)
    with Loopback(lambda _: Answer.sse(told("a"))) as server:
        with closing(engine(server.url, wire, reached=options)) as made:
            in_thread(made, ask("ü"))
        return server.got[-1]


def test_a_request_is_json_and_asks_for_nothing_packed() -> None:
    """With the length told, and a lone surrogate as an escape."""

    class Odd(PlainWire):
        def exchanges(self, *given: Any) -> Any:
            (one,) = super().exchanges(*given)
            return [type(one)(Ask(path="/chat", body={"text": "ü\ud800"}), one.replies)]

    got = sent(wire=Odd())
    assert got.method == "POST"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["accept-encoding"] == "identity"
    assert int(got.headers["content-length"]) == len(got.raw)
    assert json.loads(got.raw)["text"] == "ü\ud800"
    assert "cookie" not in got.headers


def test_of_each_header_one_is_sent() -> None:
    """The user's go before those of the dialect, and those before the defaults."""
    got = sent(
        headers={"User-AGENT": "mine", "X-Beta": "user", "authorization": "Bearer k"},
        wire=PlainWire(headers={"x-beta": "dialect", "x-version": "1"}),
    )
    assert got.headers["user-agent"] == "mine"
    assert got.headers["x-beta"] == "user"
    assert got.headers["x-version"] == "1"
    assert got.headers["authorization"] == "Bearer k"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"x", object()])
def test_what_json_has_no_words_for_is_a_bad_request(value: object, receive: Receive) -> None:
    """It can only be the user's own, so it is theirs to mend."""

    class Odd(PlainWire):
        def exchanges(self, *given: Any) -> Any:
            (one,) = super().exchanges(*given)
            return [type(one)(Ask(path="/chat", body={"x": value}), one.replies)]

    with (
        closing(engine("http://127.0.0.1:9", Odd())) as made,
        pytest.raises(BadRequest, match="values that JSON has"),
    ):
        receive(made, ask(), LIVE_S)


def test_many_addresses_cost_no_memory() -> None:
    """Addresses that are kept ready are few."""
    connections = Connections(place("http://127.0.0.1:9"))
    for number in range(2000):
        connections._url(Ask(path=f"/models/{number}"))
    assert len(connections._urls) <= 256


def test_a_unix_socket_is_an_address_too(tmp_path: Any, receive: Receive) -> None:
    """As a supervised server listens on."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                request(connection)
                connection.sendall(answer(BODY, SSE))

        thread = threading.Thread(target=serve)
        thread.start()
        with closing(engine("http://127.0.0.1", reached={"socket": path})) as made:
            assert text_of(receive(made, ask(), LIVE_S)) == TEXT
        thread.join()
    if receive is in_thread:
        return  # httpcore2 leaves the socket to the garbage collector, which warns
    with (
        closing(engine("http://127.0.0.1", reached={"socket": path + "x"})) as made,
        pytest.raises(Unreachable),
    ):
        receive(made, ask(), LIVE_S)


# -- threads, loops and processes --------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Loopback]:
    """Says a reply after a moment."""
    with Loopback(lambda _: Answer.sse([0.02, *told("a", "b")])) as made:
        yield made


@pytest.mark.usefixtures("_ends_are_waited_for")
def test_threads_and_loops_share_an_engine(server: Loopback) -> None:
    """32 at once, from loops and threads, each with its own reply, and connections are kept."""
    found: list[str] = []

    def loop(made: HttpEngine) -> None:
        async def main() -> list[str]:
            calls = [aread(made.submit(ask(), "m")) for _ in range(8)]
            return [text_of(pieces) for pieces in await asyncio.gather(*calls)]

        for _ in range(2):
            found.extend(asyncio.run(main()))

    def thread(made: HttpEngine) -> None:
        found.extend(text_of(in_thread(made, ask())) for _ in range(2))

    with closing(engine(server.url)) as made:
        work = [threading.Thread(target=loop, args=(made,)) for _ in range(2)]
        work += [threading.Thread(target=thread, args=(made,)) for _ in range(16)]
        for each in work:
            each.start()
        for each in work:
            each.join(60)
    assert found == ["ab"] * 64
    assert server.accepted <= 16 + 32


@pytest.mark.usefixtures("_ends_are_waited_for")
def test_loop_after_loop_leaves_nothing(server: Loopback) -> None:
    """Each ``asyncio.run`` has connections of its own, which end with it, and is forgotten."""
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def main(made: HttpEngine) -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        for _ in range(3):
            assert text_of(await aread(made.submit(ask(), "m"))) == "ab"

    with closing(engine(server.url)) as made:
        for number in range(5):
            asyncio.run(main(made))
            until_s = time.monotonic() + LIVE_S
            while server.open and time.monotonic() < until_s:
                time.sleep(0.005)
            assert server.open == 0
            assert server.accepted == number + 1
        assert not made._connections._loops
        gc.collect()
        assert not [loop for loop in loops if loop() is not None]


@pytest.mark.parametrize("stage", [0, 1])
def test_a_loop_that_ends_with_a_call_open_leaves_nothing(stage: int) -> None:
    """Not begun, or in the middle of a reply: no task and no socket complains."""

    def script(connection: socket.socket) -> None:
        request(connection)
        head = answer(b"", SSE, "transfer-encoding: chunked", sized=False)
        connection.sendall(head + b"%x\r\n%s\r\n" % (len(told("a")[0]), told("a")[0]))
        until_closed(connection)

    async def main(made: HttpEngine) -> list[Any]:
        calls = [made.submit(ask(), "m") for _ in range(3)]
        for call in calls[: 3 * stage]:
            await call.areceive(LIVE_S)
        return calls

    with RoughServer(script) as server, closing(engine(server.url)) as made:
        kept = asyncio.run(main(made))
        assert asyncio.run(main(made)) is not kept
        for call in kept:
            call.cancel()  # its loop is closed
        gc.collect()
        until_s = time.monotonic() + LIVE_S
        while server.open and time.monotonic() < until_s:
            time.sleep(0.005)
        assert server.open == 0


@pytest.mark.parametrize("turns", range(4))
def test_a_loop_that_ends_right_behind_a_cancel_leaves_nothing(turns: int) -> None:
    """However many turns it has left: what was to be closed is closed."""

    def script(connection: socket.socket) -> None:
        request(connection)
        head = answer(b"", SSE, "transfer-encoding: chunked", sized=False)
        connection.sendall(head + b"%x\r\n%s\r\n" % (len(told("a")[0]), told("a")[0]))
        until_closed(connection)

    async def main(made: HttpEngine, end: Callable[[Any], None]) -> None:
        call = made.submit(ask(), "m")
        await call.areceive(LIVE_S)
        end(call)
        for _ in range(turns):
            await asyncio.sleep(0)

    with RoughServer(script) as server:
        with closing(engine(server.url)) as made:
            for _ in range(5):
                asyncio.run(main(made, lambda call: call.cancel()))
        for _ in range(5):
            with closing(engine(server.url)) as made:
                asyncio.run(main(made, lambda _: made.close()))
        gc.collect()
        until_s = time.monotonic() + LIVE_S
        while server.open and time.monotonic() < until_s:
            time.sleep(0.005)
        assert server.open == 0


def test_loops_that_nobody_tidies_are_forgotten_when_the_next_comes(server: Loopback) -> None:
    """A loop that was closed without ``asyncio.run`` is not kept for ever."""
    with closing(engine(server.url)) as made:
        for _ in range(4):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(aread(made.submit(ask(), "m")))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
        assert not made._connections._loops
        for _ in range(4):
            loop = asyncio.new_event_loop()
            made._connections._loops[loop] = None  # type: ignore[assignment]
            loop.close()
        asyncio.run(aread(made.submit(ask(), "m")))
        assert not made._connections._loops


@pytest.mark.usefixtures("_ends_are_waited_for")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # that it has threads
def test_a_forked_process_has_connections_of_its_own(server: Loopback) -> None:
    """It never writes into those of its parent, though their locks were held when it was made."""

    def child(made: HttpEngine, told: Any) -> None:
        told.send((text_of(in_thread(made, ask())), text_of(in_loop(made, ask()))))
        made.close()
        told.close()

    with closing(engine(server.url)) as made:
        in_thread(made, ask())
        assert server.accepted == 1
        ours, theirs = multiprocessing.Pipe()
        with made._connections._lock:
            # forking while a thread of this process holds the lock, as any may
            context = multiprocessing.get_context("fork")
            forked = context.Process(target=child, args=(made, theirs), daemon=True)
            holder = threading.Thread(target=forked.start)
            holder.start()
            holder.join()
        assert ours.poll(30)
        assert ours.recv() == ("ab", "ab")
        forked.join(30)
        assert forked.exitcode == 0
        ours.close()
        theirs.close()
        assert server.accepted == 3
        in_thread(made, ask())
        assert server.accepted == 3


# -- closing -----------------------------------------------------------------------------------


def has_client(connections: Connections) -> bool:
    """Whether connections of threads may be open."""
    return connections._client is not None


def test_connections_close_in_every_state(server: Loopback) -> None:
    """Never used, used, in use, twice; afterwards nothing can be opened."""
    Connections(place("http://127.0.0.1:9")).close()

    used = Connections(place(server.url))
    line = used.open(Ask(path="/", body={}), Bound())
    used.close()
    assert b"end" in b"".join(iter(line.read, b""))  # what is being read may be read on
    assert has_client(used)
    line.close()
    line.close()
    assert not has_client(used)
    used.close()
    with pytest.raises(Broken, match="closed"):
        used.open(Ask(path="/"), Bound())

    async def main() -> None:
        connections = Connections(place(server.url))
        line = await connections.aopen(Ask(path="/", body={}), None)
        assert b"t" in await line.read()
        connections.close()
        connections.close()
        await asyncio.sleep(0.05)
        with pytest.raises(Broken, match="closed"):
            await connections.aopen(Ask(path="/"), None)

    asyncio.run(main())
    asyncio.run(main())


def test_a_line_that_is_dropped_does_not_keep_a_vendor_open(server: Loopback) -> None:
    """Closing waits for who reads, and not for who has gone."""
    connections = Connections(place(server.url))
    line = connections.open(Ask(path="/", body={}), Bound())
    close = line._close
    del line
    gc.collect()
    connections.close()
    assert connections._client is None
    assert close is not None
    close()


@pytest.mark.parametrize("world", WORLDS)
def test_a_vendor_that_is_closed_while_it_connects_is_cancelled(world: str) -> None:
    """Or refused; whatever is open is closed, and nothing is left to complain."""
    with RoughServer(until_closed) as server, closing(engine(server.url)) as made:
        timer = threading.Timer(0.03, made.close)
        timer.start()
        with pytest.raises(DispatcherError) as caught:
            WORLDS[world](made, ask(), LIVE_S)
        timer.join()
        assert not isinstance(caught.value, VendorError)


def test_a_finish_is_last() -> None:
    """A reply ends with one Finish, in the thread that reads, and no thread of ours is left."""
    before = {*threading.enumerate()}
    with Loopback(lambda _: Answer.sse(told("a"))) as server, closing(engine(server.url)) as made:
        assert isinstance(in_thread(made, ask())[-1], Finish)
        # the one that connected has done so, and may be about to end
        until(lambda: len({*threading.enumerate()} - before) == 1)
