"""Requests wait for vendors that look for their models: as long as documented, and no longer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import attrs
import pytest
from waits import SOON_S, WAIT_S, auntil, until
from worlds import WORLDS, World

from llmdispatcher import (
    AsyncDispatcher,
    Deadlines,
    Dispatcher,
    ModelCard,
    NoCandidate,
    Scripted,
    Stream,
)
from llmdispatcher.look import PATIENCE_S
from llmdispatcher.vendors.contract import Call, Engine, Status


class Finding:
    """An engine with a model that it must look for; its list is told by the test."""

    def __init__(self, inner: Engine, held: Held) -> None:
        self.inner, self.held = inner, held
        self.looks: list[bool] = []
        self.looking: list[Future[None]] = []
        self.is_found = held.known

    def found(self, *, afresh: bool = False) -> Future[None]:
        """Begin to look."""
        self.looks.append(afresh)
        done: Future[None] = Future()
        if self.is_found or (self.held.once and len(self.looks) > 1):
            done.set_result(None)
            return done
        self.looking.append(done)
        threading.Thread(target=self._look, args=(done,), daemon=True).start()
        return done

    def _look(self, done: Future[None]) -> None:
        self.held.gate.wait(self.held.wait_s)
        self.is_found = self.held.finds
        done.set_result(None)

    def cards(self) -> Sequence[ModelCard]:
        """Return the models that were found."""
        return self.inner.cards() if self.is_found else ()

    def status(self) -> Status:
        """As the inner one."""
        return attrs.evolve(self.inner.status(), detail="nobody listens there")

    def load(self, model: str) -> Future[None]:
        """As the inner one."""
        return self.inner.load(model)

    def submit(self, work: Any, model: str) -> Call:
        """As the inner one."""
        return self.inner.submit(work, model)

    def close(self) -> None:
        """Stop looking."""
        self.held.gate.set()
        self.inner.close()


class Together:
    """Opens when so many wait, all at the same time."""

    def __init__(self, count: int) -> None:
        self._barrier = threading.Barrier(count)

    def wait(self, timeout_s: float) -> None:
        """Wait for the others. Raises BrokenBarrierError if they do not come."""
        self._barrier.wait(timeout_s)

    def set(self) -> None:
        """Let go of those who wait."""
        self._barrier.abort()


@attrs.frozen
class Held:
    """A vendor whose look takes as long as a test says."""

    name: str = "found"
    wait_s: float = 0.05
    finds: bool = True
    known: bool = False
    """It was found before."""
    once: bool = False
    """Later looks end at once, and find nothing."""
    gate: threading.Event | Together = attrs.field(factory=threading.Event)
    made: list[Finding] = attrs.field(factory=list)

    def start(self, report: Callable[[Any], None]) -> Finding:
        """Make the engine."""
        self.made.append(Finding(Scripted(["from afar"], name=self.name).start(report), self))
        return self.made[-1]


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> World:
    """Threads, and event loops."""
    return WORLDS[request.param]


def test_where_all_are_found_nobody_waits(world: World) -> None:
    """A vendor that knows its models costs a request nothing."""
    vendor = Held(known=True, wait_s=60)
    heard = world((vendor,), "send", "Hello.")
    assert heard.reply is not None
    assert heard.reply.text == "from afar"
    assert vendor.made[0].looks == [False]


def test_the_only_vendor_is_waited_for(world: World) -> None:
    """Longer than others would be: there is nobody else."""
    began_s = time.monotonic()
    heard = world((Held(wait_s=PATIENCE_S + 0.2),), "send", "Hello.")
    assert heard.reply is not None
    assert heard.reply.text == "from afar"
    assert time.monotonic() - began_s >= PATIENCE_S + 0.2


def test_nobody_is_held_up_for_long_who_can_be_served(world: World) -> None:
    """A vendor that is slow to tell is left out, after a moment."""
    began_s = time.monotonic()
    heard = world((Held(wait_s=60), Scripted(["at hand"])), "send", "Hello.")
    assert heard.reply is not None
    assert heard.reply.text == "at hand"
    assert PATIENCE_S * 0.9 < time.monotonic() - began_s < PATIENCE_S + SOON_S


def test_who_is_found_in_that_moment_is_considered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the same rules as all."""
    monkeypatch.setattr("llmdispatcher.look.PATIENCE_S", WAIT_S)
    heard = world((Held(wait_s=0.02), Scripted(["at hand"])), "send", "Hello.", vendor="found")
    assert heard.reply is not None
    assert heard.reply.text == "from afar"


@pytest.mark.sampled(2)
@pytest.mark.parametrize("limit_s", [0.05, 0.2])
def test_waiting_ends_with_the_limit_for_connecting(world: World, limit_s: float) -> None:
    """Whoever has not told by then cannot serve, and the error says why."""
    began_s = time.monotonic()
    deadlines = Deadlines(connect_s=limit_s)
    heard = world((Held(wait_s=60),), "send", "Hello.", deadlines=deadlines)
    assert isinstance(heard.error, NoCandidate)
    assert "nobody listens there" in str(heard.error)
    took_s = time.monotonic() - began_s
    assert limit_s * 0.9 <= took_s < PATIENCE_S + limit_s + SOON_S


def test_a_total_deadline_is_kept_while_looking(world: World) -> None:
    """It counts from the beginning, and looking is a part of it."""
    began_s = time.monotonic()
    heard = world((Held(wait_s=60),), "send", "Hello.", deadlines=Deadlines(total_s=0.1))
    assert heard.error is not None
    assert 0.09 <= time.monotonic() - began_s < SOON_S


def test_a_vendor_that_found_nothing_before_is_asked_again(world: World) -> None:
    """Where nobody can serve the request: it may have been started meanwhile."""
    vendor = Held(wait_s=0.01, finds=False, once=True)
    heard = world((vendor,), "send", "Hello.")
    assert isinstance(heard.error, NoCandidate)
    assert vendor.made[0].looks == [False, True]


def test_a_model_that_nobody_has_is_looked_for_afresh(world: World) -> None:
    """It may be new."""
    vendor = Held(known=True)
    heard = world((vendor,), "send", "Hello.", model="new")
    assert isinstance(heard.error, NoCandidate)
    assert vendor.made[0].looks == [False, True]


def test_several_are_waited_for_together(world: World) -> None:
    """Not one after the other: here none is found before all are looking."""
    gate = Together(6)
    vendors = tuple(Held(name=f"v{n}", wait_s=WAIT_S, gate=gate) for n in range(6))
    deadlines = Deadlines(connect_s=WAIT_S)
    heard = world(vendors, "send", "Hello.", vendor="v5", deadlines=deadlines)
    assert heard.reply is not None
    assert heard.reply.text == "from afar"


PATIENT = Deadlines(connect_s=WAIT_S)
"""Of one who would wait as long as a look takes."""


def test_closing_a_stream_releases_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that waits for a list ends as if the reply were over."""
    monkeypatch.setattr("llmdispatcher.look.PATIENCE_S", WAIT_S)
    vendor = Held(wait_s=60)
    with Dispatcher(vendor) as d:
        stream = d.stream("Hello.", deadlines=PATIENT)
        timer = threading.Timer(0.05, stream.close)
        timer.start()
        began_s = time.monotonic()
        assert list(stream) == []
        assert time.monotonic() - began_s < SOON_S
        timer.join()


def test_cancelling_a_task_releases_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that waits for a list is cancelled at once, and leaves no task."""
    monkeypatch.setattr("llmdispatcher.look.PATIENCE_S", WAIT_S)
    vendor = Held(wait_s=60)

    async def main() -> None:
        async with AsyncDispatcher(vendor) as d:
            task = asyncio.create_task(d.send("Hello.", deadlines=PATIENT))
            await auntil(lambda: vendor.made[0].looking)
            began_s = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - began_s < SOON_S
            stream = d.stream("Hello.", deadlines=PATIENT)
            waiting = asyncio.create_task(anext(stream, None))
            await auntil(lambda: len(vendor.made[0].looking) == 2)
            await stream.close()
            assert await waiting is None
            await auntil(lambda: len(asyncio.all_tasks()) == 1)

    asyncio.run(main())


def test_lists_are_waited_for_by_whatever_is_asked() -> None:
    """Vectors too: the vendor that has them may be looking."""
    with Dispatcher(Held(wait_s=0.02)) as d:
        assert d.embed("Hello.").vendor == "found"


def test_who_stops_waiting_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that goes on holds no request."""
    monkeypatch.setattr("llmdispatcher.look.PATIENCE_S", WAIT_S)
    vendor = Held(wait_s=60)
    with Dispatcher(vendor, Scripted(["at hand"] * 5)) as d:
        (finding,) = vendor.made
        for count in range(1, 4):
            stream = d.stream("Hello.")

            def close(stream: Stream = stream, count: int = count) -> None:
                until(lambda: len(finding.looking) == count)
                stream.close()

            button = threading.Thread(target=close)
            button.start()
            assert list(stream) == []
            button.join()
        vendor.gate.set()
        for looking in finding.looking:
            looking.result(WAIT_S)
