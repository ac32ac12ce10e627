"""Calls are cancelled at once, from anywhere, in every state, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from plain_wire import (
    LIVE_S,
    PlainWire,
    aread,
    ask,
    closing,
    engine,
    in_thread,
    read,
    text_of,
    told,
)
from rough_server import RoughServer, answer, request, until_closed
from waits import auntil

from llmdispatcher.models.errors import Cancelled, DispatcherError, Refused
from llmdispatcher.models.reply import Delta, Finish
from llmdispatcher.vendors.http.bound import Bound, Gate, Stopped
from llmdispatcher.vendors.http.call import HttpCall
from llmdispatcher.vendors.http.engine import HttpEngine

SSE = "content-type: text/event-stream"
HEAD = answer(b"", SSE, "transfer-encoding: chunked", sized=False)
FIRST = b"%x\r\n%s\r\n" % (len(told("a")[0]), told("a")[0])
MOMENT_S = 0.03
"""By then whoever was started waits, most often; whoever does not is released all the same."""

CALLS = 200
"""Under a storm of signals, which takes half a second."""


def script(*said: bytes) -> Callable[[socket.socket], None]:
    """Say something to a request, and wait."""

    def run(connection: socket.socket) -> None:
        request(connection)
        for part in said:
            connection.sendall(part)
        until_closed(connection)

    return run


STAGES: dict[str, tuple[bytes, ...]] = {
    "waiting for the head": (),
    "in the head": (b"HTTP/1.1 200 OK\r\nx-",),
    "waiting for the body": (HEAD,),
    "in the middle of a piece": (HEAD, b"50\r\ndata: {"),
    "in an error": (b"HTTP/1.1 500 No\r\ncontent-length: 100\r\n\r\n{",),
}


@contextlib.contextmanager
def soon(action: Callable[[], object]) -> Iterator[None]:
    """Do something from another thread, shortly after the block has begun."""
    timer = threading.Timer(MOMENT_S, action)
    timer.start()
    began_s = time.monotonic()
    yield
    assert time.monotonic() - began_s < LIVE_S
    timer.join()


def all_closed(server: RoughServer) -> bool:
    """Wait until no connection is open."""
    until_s = time.monotonic() + LIVE_S
    while server.open and time.monotonic() < until_s:
        time.sleep(0.005)
    return not server.open


@pytest.mark.parametrize("stage", STAGES)
def test_a_thread_that_waits_is_released_at_once(stage: str) -> None:
    """Wherever it waits, with or without a limit, and its connection is closed."""
    with RoughServer(script(*STAGES[stage])) as server, closing(engine(server.url)) as made:
        for timeout_s in (None, 60.0):
            call = made.submit(ask(), "m")
            with soon(call.cancel), pytest.raises(Cancelled):
                call.receive(timeout_s)
            assert all_closed(server)
            with pytest.raises(Cancelled):
                call.receive(timeout_s)


@pytest.mark.parametrize("stage", STAGES)
def test_a_task_that_waits_is_released_at_once(stage: str) -> None:
    """The same in an event loop, cancelled from a thread."""

    async def main(made: HttpEngine) -> None:
        for timeout_s in (None, 60.0):
            call = made.submit(ask(), "m")
            with soon(call.cancel), pytest.raises(Cancelled):
                await call.areceive(timeout_s)
            with pytest.raises(Cancelled):
                await call.areceive(timeout_s)
            assert all_closed(server)

    with RoughServer(script(*STAGES[stage])) as server, closing(engine(server.url)) as made:
        asyncio.run(main(made))


def test_another_task_releases_a_task() -> None:
    """Cancelling from the same loop is cancelling."""

    async def main(made: HttpEngine) -> None:
        call = made.submit(ask(), "m")
        waiting = asyncio.create_task(aread(call, None))
        await asyncio.sleep(MOMENT_S)
        call.cancel()
        with pytest.raises(Cancelled):
            await asyncio.wait_for(waiting, LIVE_S)
        await auntil(lambda: len(asyncio.all_tasks()) == 1)

    with RoughServer(script(HEAD)) as server, closing(engine(server.url)) as made:
        asyncio.run(main(made))
        assert all_closed(server)


@pytest.mark.parametrize("stage", STAGES)
def test_a_cancelled_task_takes_its_connection_along(stage: str) -> None:
    """Cancellation of asyncio's own ends the call, too, and is not swallowed."""

    async def main(made: HttpEngine) -> None:
        call = made.submit(ask(), "m")
        waiting = asyncio.create_task(aread(call, 60.0))
        await asyncio.sleep(MOMENT_S)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert all_closed(server)
        with pytest.raises(Cancelled):
            await call.areceive(1.0)

    with RoughServer(script(*STAGES[stage])) as server, closing(engine(server.url)) as made:
        asyncio.run(main(made))


def test_between_two_receives_nobody_waits_and_the_connection_is_closed() -> None:
    """A call that is put aside is ended by whoever cancels it."""
    with RoughServer(script(HEAD, FIRST)) as server, closing(engine(server.url)) as made:
        call = made.submit(ask(), "m")
        assert call.receive(LIVE_S) == [Delta("a")]
        for _ in range(3):
            call.cancel()
        assert all_closed(server)
        with pytest.raises(Cancelled):
            call.receive(LIVE_S)


def test_between_two_receives_of_a_task_it_is_the_same() -> None:
    """From a thread, while the loop does something else."""

    async def main(made: HttpEngine) -> None:
        call = made.submit(ask(), "m")
        assert await call.areceive(LIVE_S) == [Delta("a")]
        await asyncio.to_thread(call.cancel)
        await auntil(lambda: not server.open)
        with pytest.raises(Cancelled):
            await call.areceive(LIVE_S)
        await auntil(lambda: len(asyncio.all_tasks()) == 1)

    with RoughServer(script(HEAD, FIRST)) as server, closing(engine(server.url)) as made:
        asyncio.run(main(made))


def test_before_the_first_receive_nothing_is_sent() -> None:
    """A call that was cancelled before anybody read it never connects."""
    with RoughServer(script()) as server, closing(engine(server.url)) as made:
        call = made.submit(ask(), "m")
        call.cancel()
        with pytest.raises(Cancelled):
            call.receive(LIVE_S)
        with pytest.raises(Cancelled):
            asyncio.run(aread(call))
        assert server.accepted == 0


@pytest.mark.usefixtures("_ends_are_waited_for")
def test_after_the_end_cancelling_is_nothing() -> None:
    """What was served stays served, and its connection is used again."""
    body = b"".join(told("a"))

    def run(connection: socket.socket) -> None:
        for _ in range(2):
            request(connection)
            connection.sendall(answer(body, SSE))

    with RoughServer(run) as server, closing(engine(server.url)) as made:
        call = made.submit(ask(), "m")
        read(call)
        call.cancel()
        with pytest.raises(Cancelled):
            call.receive(LIVE_S)
        in_thread(made, ask())
        assert server.accepted == 1


def test_a_reply_that_was_read_to_its_end_is_not_asked_for_again() -> None:
    """Who reads on gets an error, and no second reply on the bill."""
    body = b"".join(told("a"))
    with RoughServer(lambda c: c.sendall(answer(request(c)[:0] + body, SSE))) as server:
        with closing(engine(server.url)) as made:
            call = made.submit(ask(), "m")
            read(call)
            with pytest.raises(Cancelled, match="read to its end"):
                call.receive(LIVE_S)
        assert server.accepted == 1


def test_connecting_is_given_up_at_once() -> None:
    """Also while a name is looked up, which nothing can interrupt."""
    answered = threading.Event()

    def look_up(*_: object, **__: object) -> None:
        answered.wait(LIVE_S)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure")

    with pytest.MonkeyPatch.context() as patch, closing(engine("http://slow.test")) as made:
        patch.setattr(socket, "getaddrinfo", look_up)
        call = made.submit(ask(connect_s=60.0), "m")
        with soon(call.cancel), pytest.raises(Cancelled):
            call.receive(None)
        answered.set()


def test_a_connection_that_comes_too_late_is_closed() -> None:
    """The thread that went on connecting closes what nobody wants any more."""
    asked, answered = threading.Event(), threading.Event()
    real = socket.getaddrinfo

    def look_up(_: str, port: int, *rest: int, **more: int) -> object:
        asked.set()
        answered.wait(LIVE_S)
        return real("127.0.0.1", port, *rest, **more)

    with RoughServer(until_closed) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", look_up)
        with closing(engine(f"http://slow.test:{server.port}")) as made:
            call = made.submit(ask(connect_s=60.0), "m")

            def cancel() -> None:
                asked.wait(LIVE_S)
                call.cancel()

            with soon(cancel), pytest.raises(Cancelled):
                call.receive(None)
            answered.set()
            until_s = time.monotonic() + LIVE_S
            while not server.accepted and time.monotonic() < until_s:
                time.sleep(0.005)
            assert server.accepted == 1
            assert all_closed(server)


def test_a_large_request_that_nobody_reads_is_given_up() -> None:
    """Writing is left as promptly as reading."""
    over = threading.Event()

    def deaf(_: socket.socket) -> None:
        over.wait(LIVE_S)

    with RoughServer(deaf) as server, closing(engine(server.url)) as made:
        call = made.submit(ask("x" * (32 * 2**20)), "m")
        with soon(call.cancel), pytest.raises(Cancelled):
            call.receive(None)
        over.set()


@pytest.mark.parametrize("stage", ["waiting for the head", "waiting for the body"])
def test_a_signal_handler_may_cancel(stage: str) -> None:
    """The handler runs in the thread that waits, in the middle of whatever it does."""
    with RoughServer(script(*STAGES[stage])) as server, closing(engine(server.url)) as made:
        call = made.submit(ask(), "m")
        before = signal.signal(signal.SIGUSR1, lambda *_: call.cancel())
        try:
            with soon(lambda: os.kill(os.getpid(), signal.SIGUSR1)), pytest.raises(Cancelled):
                call.receive(LIVE_S)
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert all_closed(server)


def test_a_storm_of_signals_never_locks() -> None:
    """Whatever the handler interrupts, a lock of ours among it, it does not wait for itself."""
    body = b"".join(told("a"))

    def run(connection: socket.socket) -> None:
        while True:
            request(connection)
            connection.sendall(answer(body, SSE))

    calls: list[HttpCall] = []

    def handle(*_: object) -> None:
        for call in calls:
            call.cancel()

    def storm() -> None:
        while not done.wait(0.0007):
            signal.pthread_kill(main, signal.SIGUSR1)

    main, done = threading.get_ident(), threading.Event()
    before = signal.signal(signal.SIGUSR1, handle)
    sender = threading.Thread(target=storm)
    try:
        with RoughServer(run) as server, closing(engine(server.url)) as made:
            sender.start()
            for _ in range(CALLS):
                calls[:] = [made.submit(ask(), "m")]
                with contextlib.suppress(Cancelled):
                    read(calls[0])
            done.set()
            sender.join()
            assert text_of(in_thread(made, ask())) == "a"
    finally:
        done.set()
        sender.join()
        signal.signal(signal.SIGUSR1, before)


def test_cancelling_races_with_reading_and_never_breaks_either() -> None:
    """At whatever moment it comes, a call ends with its reply or as cancelled, in both worlds."""

    def run(connection: socket.socket) -> None:
        while True:
            request(connection)
            connection.sendall(HEAD)
            for event in told("a"):
                connection.sendall(b"%x\r\n%s\r\n" % (len(event), event))
            connection.sendall(b"0\r\n\r\n")

    def race(made: HttpEngine, number: int) -> str:
        call = made.submit(ask(), "m")
        timer = threading.Timer(number * 0.00002, call.cancel)
        timer.start()
        try:
            return text_of(read(call))
        except Cancelled:
            return "cancelled"
        finally:
            timer.join()

    async def arace(made: HttpEngine, number: int) -> str:
        call = made.submit(ask(), "m")
        timer = threading.Timer(number * 0.00005, call.cancel)
        timer.start()
        try:
            return text_of(await aread(call))
        except Cancelled:
            return "cancelled"
        finally:
            timer.join()

    async def main(made: HttpEngine) -> set[str]:
        return {await arace(made, number) for number in range(100)}

    with RoughServer(run) as server, closing(engine(server.url)) as made:
        seen = {race(made, number) for number in range(100)} | asyncio.run(main(made))
        assert seen <= {"cancelled", "a"}
        assert text_of(in_thread(made, ask())) == "a"


@pytest.mark.usefixtures("_ends_are_waited_for")
def test_cancelling_one_call_never_breaks_the_next_on_its_connection() -> None:
    """A connection that went back to the pool is nobody's to shut down."""
    body = b"".join(told("a"))

    def run(connection: socket.socket) -> None:
        while True:
            request(connection)
            connection.sendall(answer(body, SSE))

    with RoughServer(run) as server, closing(engine(server.url)) as made:
        late: list[HttpCall] = []

        def storm() -> None:
            while not done.is_set():
                for call in late[-2:]:
                    call.cancel()

        done = threading.Event()
        thread = threading.Thread(target=storm)
        thread.start()
        try:
            for _ in range(200):
                call = made.submit(ask(), "m")
                first, *_, last = read(call)
                assert first == Delta("a")
                assert isinstance(last, Finish)
                late.append(call)  # from now on it is cancelled, all the time
        finally:
            done.set()
            thread.join()
        assert server.accepted == 1


# -- engines -----------------------------------------------------------------------------------


def test_closing_an_engine_releases_all_that_wait() -> None:
    """Threads and loops, at once; what is asked afterwards is refused."""
    errors: list[BaseException] = []

    def wait(made: HttpEngine, *, in_loop: bool) -> None:
        call = made.submit(ask(), "m")
        try:
            if in_loop:
                asyncio.run(aread(call, None))
            else:
                call.receive(None)
        except DispatcherError as error:
            errors.append(error)

    with RoughServer(script(HEAD)) as server, closing(engine(server.url)) as made:
        threads = [
            threading.Thread(target=wait, args=(made,), kwargs={"in_loop": number % 2 == 0})
            for number in range(8)
        ]
        for thread in threads:
            thread.start()
        until_s = time.monotonic() + LIVE_S
        while server.accepted < len(threads) and time.monotonic() < until_s:
            time.sleep(0.005)
        made.close()
        made.close()
        for thread in threads:
            thread.join(LIVE_S)
        assert not any(thread.is_alive() for thread in threads)
        assert [type(error) for error in errors] == [Refused] * 8
        assert all_closed(server)
        for world in (in_thread, lambda e, r: asyncio.run(aread(e.submit(r, "m")))):
            with pytest.raises(Refused, match="closed"):
                world(made, ask())


def test_a_call_that_is_dropped_is_forgotten() -> None:
    """Nobody keeps what its consumer let go of, and nothing is left open that complains."""
    with RoughServer(script(HEAD, FIRST)) as server, closing(engine(server.url)) as made:
        call = made.submit(ask(), "m")
        call.receive(LIVE_S)
        call.cancel()
        del call
        gc.collect()
        assert all_closed(server)
        assert made.status().running == 0


def test_a_refused_request_is_not_under_way() -> None:
    """An error while encoding ends the call before it begins, and it is not counted."""

    class Refusing(PlainWire):
        def exchanges(self, *_: object) -> list[object]:  # type: ignore[override]
            raise Refused("not this one")

    with closing(engine("http://127.0.0.1:9", Refusing())) as made:
        call = made.submit(ask(), "m")
        assert made.status().running == 0
        for _ in range(2):
            with pytest.raises(Refused, match="not this one"):
                call.receive(1.0)


# -- bounds ------------------------------------------------------------------------------------


def test_a_gate_opens_once_and_stays_open_to_whoever_asks_again() -> None:
    """Opening is safe from anywhere, any number of times."""
    gate = Gate()
    assert not gate.wait(0.01)
    gate.open()
    gate.open()
    assert gate.wait(0.01)


def test_a_bound_that_was_stopped_lets_nothing_begin() -> None:
    """Every question of it raises, and a socket that was noted is let go."""
    bound = Bound()
    bound.stop()
    with socket.socket() as used, bound.hold(1.0):
        with pytest.raises(Stopped):
            bound.left_s()
        with pytest.raises(Stopped):
            bound.use(used)
        with pytest.raises(Stopped):
            bound.wait(Gate())
