"""The mailbox between an engine's thread and its consumers."""

from __future__ import annotations

import asyncio
import math
import threading

import pytest
from waits import WAIT_S, until

from llmdispatcher import Refused
from llmdispatcher.models.errors import Cancelled
from llmdispatcher.models.reply import Delta, Progress
from llmdispatcher.vendors.mailbox import Mailbox, Waker, fire


def test_pieces_come_in_order_and_all_at_once() -> None:
    """Whatever waits is taken together."""
    box = Mailbox()
    for text in "abc":
        assert box.put(Delta(text)) is None

    assert box.receive(None) == [Delta("a"), Delta("b"), Delta("c")]


def test_an_error_comes_after_the_pieces_before_it() -> None:
    """What arrived before the end is read first; what comes after the end is dropped."""
    box = Mailbox()
    box.put(Delta("a"))
    box.fail(Refused("over"))
    box.fail(Cancelled())
    box.put(Delta("too late"))

    assert box.receive(0) == [Delta("a")]
    for _ in range(2):
        with pytest.raises(Refused, match="over"):
            box.receive(0)


def test_signs_of_life_do_not_pile_up() -> None:
    """Progress is dropped while something waits, so a consumer that sleeps costs no memory."""
    box = Mailbox()
    for done in range(1000):
        box.put(Progress("prompt", done, 1000))

    assert box.receive(0) == [Progress("prompt", 0, 1000)]


@pytest.mark.parametrize("timeout_s", [0, -1, 0.01])
def test_silence_times_out_in_both_worlds(timeout_s: float) -> None:
    """Nothing in time is TimeoutError, also for a deadline that has passed."""
    with pytest.raises(TimeoutError):
        Mailbox().receive(timeout_s)
    with pytest.raises(TimeoutError):
        asyncio.run(Mailbox().areceive(timeout_s))


@pytest.mark.parametrize("timeout_s", [None, math.inf, 1e12, WAIT_S])
def test_a_sleeper_is_woken(timeout_s: float | None) -> None:
    """A consumer that sleeps, for however long, wakes when a piece comes."""
    box = Mailbox()
    producer = threading.Timer(0.02, lambda: fire([box.put(Delta("x"))]))
    producer.start()

    assert box.receive(timeout_s) == [Delta("x")]


def test_one_wake_up_serves_a_whole_event_loop() -> None:
    """All consumers of a loop are woken by a single call into it, however many they are."""
    calls: list[int] = []

    async def go() -> list[object]:
        loop = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe

        def counted(callback: object, *args: object) -> object:
            calls.append(1)
            return wake(callback, *args)  # type: ignore[arg-type]

        loop.call_soon_threadsafe = counted  # type: ignore[assignment,method-assign]
        boxes = [Mailbox() for _ in range(50)]
        tasks = [asyncio.create_task(box.areceive(WAIT_S)) for box in boxes]
        await asyncio.sleep(0)
        wakers: list[Waker | None] = [box.put(Delta("x")) for box in boxes]
        thread = threading.Thread(target=fire, args=(wakers,))
        thread.start()
        out = await asyncio.gather(*tasks)
        thread.join()
        return [piece for pieces in out for piece in pieces]

    assert asyncio.run(go()) == [Delta("x")] * 50
    assert len(calls) == 1


def test_a_consumer_that_is_gone_is_no_error() -> None:
    """Waking whoever timed out, was cancelled or lost its loop does nothing."""
    box, late = Mailbox(), Mailbox()

    async def leave() -> None:
        task = asyncio.create_task(box.areceive(60))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(leave())
    with pytest.raises(TimeoutError):
        late.receive(0)

    fire([box.put(Delta("x")), late.put(Delta("y"))])

    assert box.receive(0) == [Delta("x")]
    assert late.receive(0) == [Delta("y")]


def test_an_end_wakes_a_sleeper_whose_waker_is_held_back() -> None:
    """A producer may keep a waker for a while; whoever ends the call does not wait for that."""
    box = Mailbox()
    heard: list[object] = []
    thread = threading.Thread(target=lambda: heard.append(box.receive(WAIT_S)))
    thread.start()
    until(lambda: box._waker is not None)  # it sleeps
    held = box.put(Delta("a"))
    assert held is not None

    fire([box.fail(Cancelled())])
    thread.join(WAIT_S)
    fire([held])

    assert heard
    assert not thread.is_alive()
