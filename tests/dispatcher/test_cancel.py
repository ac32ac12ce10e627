"""Stopping a request at any point balances the books and stops the vendor."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from waits import SOON_S, HeldLoad, auntil, until

from llmdispatcher import (
    AsyncDispatcher,
    AsyncStream,
    Dispatcher,
    DispatcherError,
    Event,
    LoadProgress,
    Scripted,
)
from llmdispatcher.models.reply import Finish, Progress

LONG: list[str | float | DispatcherError | Progress | Finish] = ["a", 60, "b"]


def balanced(d: Dispatcher | AsyncDispatcher, cancelled: int) -> None:
    """Check that every attempt was settled, as cancelled."""
    stats = d.stats()
    assert (stats.in_flight, stats.total.cancelled, stats.total.attempts) == (0, *[cancelled] * 2)


def test_leaving_the_with_block_stops() -> None:
    """A stream that is left half read is settled as cancelled, and the text so far is kept."""
    with Dispatcher(Scripted(LONG)) as d:
        with d.stream("hi") as stream:
            next(stream)
        balanced(d, 1)
        assert stream.partial == "a"
        assert list(stream) == []


def test_dropping_a_stream_stops() -> None:
    """A stream that is forgotten is settled as cancelled too."""
    with Dispatcher(Scripted(LONG)) as d:
        next(d.stream("hi"))
        balanced(d, 1)


def test_a_stream_that_was_never_read_costs_nothing() -> None:
    """Nothing is begun before the first piece is asked for."""
    with Dispatcher(Scripted(LONG)) as d:
        d.stream("hi").close()
        assert d.stats().requests == 0


@pytest.mark.parametrize("script", [LONG, [60]], ids=["between tokens", "before the first"])
def test_close_from_another_thread_releases_the_reader(script: list[str | float]) -> None:
    """A stop button may call close while another thread waits for the next piece."""
    with Dispatcher(Scripted(script)) as d:
        stream = d.stream("hi")
        closed_at: list[float] = []
        pieces: list[str] = []
        said = [text for text in script if isinstance(text, str)]

        def stop() -> None:
            until(lambda: d.stats().in_flight and len(pieces) == len(said[:1]))
            time.sleep(0.05)  # by then the reader waits, most often
            closed_at.append(time.monotonic())
            stream.close()

        button = threading.Thread(target=stop)
        button.start()
        for delta in stream:
            pieces.append(delta.text)  # noqa: PERF401 - the other thread looks at it
        button.join()

        assert time.monotonic() - closed_at[0] < SOON_S
        assert pieces == said[:1]
        balanced(d, 1)


def test_close_while_loading_leaves_the_load() -> None:
    """An impatient caller is released at once; the load goes on for the next one."""
    vendor = HeldLoad(Scripted("ok"))
    loaded: list[Event] = []
    with Dispatcher(vendor, on_event=loaded.append) as d:
        stream = d.stream("hi")

        def stop() -> None:
            until(lambda: d.stats().in_flight)
            time.sleep(0.1)  # by then it waits for the load, most often
            stream.close()

        button = threading.Thread(target=stop)
        button.start()

        assert list(stream) == []
        assert not vendor.go_on.is_set()
        balanced(d, 1)
        button.join()
        vendor.go_on.set()
        assert d.send("again").text == "ok"
        assert sum(isinstance(event, LoadProgress) for event in loaded) == 1


def test_cancelling_a_task_stops() -> None:
    """A cancelled task raises CancelledError as asyncio expects, and the books balance."""

    async def go() -> None:
        async with AsyncDispatcher(Scripted(LONG)) as d:
            for verb in ("send", "stream"):
                task = asyncio.create_task(read(d, verb))
                await auntil(lambda: d.stats().in_flight)
                await asyncio.sleep(0.05)
                began = time.monotonic()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert time.monotonic() - began < SOON_S
            balanced(d, 2)

    asyncio.run(go())


async def read(d: AsyncDispatcher, verb: str) -> None:
    """Read a reply to its end in either way."""
    if verb == "send":
        await d.send("hi")
    else:
        async for _ in d.stream("hi"):
            pass


def test_cancelling_a_task_while_loading_leaves_the_load() -> None:
    """Cancelling the waiter never cancels the load that others wait for."""

    async def go() -> None:
        vendor = HeldLoad(Scripted("ok"))
        async with AsyncDispatcher(vendor) as d:
            waiting = asyncio.create_task(d.send("hi"))
            await auntil(lambda: d.stats().in_flight)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(waiting, 0.05)
            vendor.go_on.set()
            assert (await d.send("hi")).text == "ok"
            stats = d.stats().total
            assert (stats.cancelled, stats.served) == (1, 1)

    asyncio.run(go())


def test_closing_a_stream_from_another_task() -> None:
    """Close releases the task that waits for the next piece, whose loop then just ends."""

    async def go() -> None:
        async with AsyncDispatcher(Scripted(LONG)) as d:
            stream = d.stream("hi")
            pieces: list[str] = []
            task = asyncio.create_task(_read(stream, pieces))
            await auntil(lambda: pieces)
            await asyncio.sleep(0.05)
            await stream.close()
            await asyncio.wait_for(task, SOON_S)
            assert pieces == ["a"]
            balanced(d, 1)

    asyncio.run(go())


async def _read(stream: AsyncStream, pieces: list[str]) -> None:
    async for delta in stream:
        pieces.append(delta.text)  # noqa: PERF401 - the other task looks at it


def test_breaking_out_of_async_for_settles() -> None:
    """A plain ``async for`` that breaks is settled as soon as the stream is dropped."""

    async def go() -> None:
        async with AsyncDispatcher(Scripted(LONG)) as d:
            async for _ in d.stream("hi"):
                break
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            balanced(d, 1)

    asyncio.run(go())


def test_closing_the_dispatcher_ends_requests_in_flight() -> None:
    """A reader of a dispatcher that is closed elsewhere gets an error, not silence."""
    d = Dispatcher(Scripted(LONG))
    stream = d.stream("hi")
    next(stream)
    threading.Timer(0.05, d.close).start()

    with pytest.raises(Exception, match="the dispatcher was closed"):
        next(stream)
    assert d.stats().in_flight == 0
