"""Stopping a request at any point balances the books and stops the vendor."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from llmdispatcher import AsyncDispatcher, Dispatcher, DispatcherError, Scripted
from llmdispatcher.models.reply import Finish, Progress

RELEASED_S = 0.25
"""Five times the 50 ms within which a caller is to be released."""

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

        def stop() -> None:
            closed_at.append(time.monotonic())
            stream.close()

        threading.Timer(0.1, stop).start()
        pieces = [delta.text for delta in stream]

        assert time.monotonic() - closed_at[0] < RELEASED_S
        assert pieces == [s for s in script[:1] if isinstance(s, str)]
        balanced(d, 1)


def test_close_while_loading_leaves_the_load() -> None:
    """An impatient caller is released at once; the load goes on for the next one."""
    with Dispatcher(Scripted("ok", load_s=0.4)) as d:
        stream = d.stream("hi")
        threading.Timer(0.1, stream.close).start()
        began = time.monotonic()

        assert list(stream) == []
        assert time.monotonic() - began < 0.1 + RELEASED_S
        balanced(d, 1)
        assert d.send("again").decision.attempts[0].load_s < 0.4


def test_cancelling_a_task_stops() -> None:
    """A cancelled task raises CancelledError as asyncio expects, and the books balance."""

    async def go() -> None:
        async with AsyncDispatcher(Scripted(LONG)) as d:
            for verb in ("send", "stream"):
                task = asyncio.create_task(read(d, verb))
                await asyncio.sleep(0.05)
                began = time.monotonic()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert time.monotonic() - began < RELEASED_S
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
        async with AsyncDispatcher(Scripted("ok", load_s=0.3)) as d:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(d.send("hi"), 0.05)
            assert (await d.send("hi")).text == "ok"
            stats = d.stats().total
            assert (stats.cancelled, stats.served) == (1, 1)

    asyncio.run(go())


def test_closing_a_stream_from_another_task() -> None:
    """Close releases the task that waits for the next piece, whose loop then just ends."""

    async def go() -> None:
        async with AsyncDispatcher(Scripted(LONG)) as d:
            stream = d.stream("hi")
            task = asyncio.create_task(_pieces(stream))
            await asyncio.sleep(0.05)
            await stream.close()
            assert await asyncio.wait_for(task, RELEASED_S) == ["a"]
            balanced(d, 1)

    asyncio.run(go())


async def _pieces(stream: object) -> list[str]:
    return [delta.text async for delta in stream]  # type: ignore[attr-defined]


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
