"""Several models in one budget: who is loaded, who makes room, and who waits."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import pytest
from tiny_gguf import tiny_model
from waits import SOON_S, WAIT_S, HeldLoad, until

from llmdispatcher import (
    AsyncDispatcher,
    BadRequest,
    Deadlines,
    Dispatcher,
    Event,
    LlamaCpp,
    LoadProgress,
    ModelTooLarge,
    ModelUnloaded,
    Refused,
    Scripted,
    TimedOut,
    Unsupported,
    VendorError,
)
from llmdispatcher.health import Queue, complete
from llmdispatcher.models.embedding import Work
from llmdispatcher.models.reply import Finish, Piece
from llmdispatcher.usage import Figures
from llmdispatcher.vendors.contract import Call, Footprint, Report, State, Status
from llmdispatcher.vendors.scripted import ResidentScriptedEngine

LONG: list[str | float] = ["a", 60, "b"]


def model(name: str, *replies: Any, memory_mb: int = 100, **options: Any) -> Scripted:
    """Make a vendor whose model takes memory."""
    return Scripted(*replies, name=name, model=f"m-{name}", memory_mb=memory_mb, **options)


def told(events: list[Event]) -> list[str]:
    """Say which models were loaded and unloaded, and why, in order."""
    said = []
    for event in list(events):
        if isinstance(event, ModelUnloaded):
            said.append(f"-{event.vendor}: {event.reason}")
        elif isinstance(event, LoadProgress):
            said.append(f"+{event.vendor}")
    return said


def waiting(d: Dispatcher | AsyncDispatcher, name: str) -> int:
    """Return how many wait for a vendor."""
    return next(v.status.waiting for v in d.vendors() if v.name == name)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads to ask from, ended with the test."""
    with ThreadPoolExecutor(8) as threads:
        yield threads


# -- the budget --------------------------------------------------------------------------------


def test_the_model_that_was_not_used_longest_makes_room() -> None:
    """With a budget for two, a third is loaded in the place of the least recently used."""
    events: list[Event] = []
    with Dispatcher(
        *(model(name) for name in "abc"), max_memory_mb=200, on_event=events.append
    ) as d:
        for name in "abacb":
            assert d.send("hi", vendor=name).text == "ok"

        assert told(events) == [
            *("+a", "+b", "-b: to make room for c/m-c", "+c"),
            *("-a: to make room for b/m-b", "+b"),
        ]
        states = {vendor.name: vendor.status.state for vendor in d.vendors()}
        assert states == {"a": State.ABSENT, "b": State.READY, "c": State.READY}


def test_asyncio_does_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tasks over three models are all answered, each by a model that was loaded."""
    monkeypatch.setattr("llmdispatcher.residency.TURN_S", WAIT_S)  # no turn ends while they ask
    events: list[Event] = []
    names = [random.Random(7).choice("abc") for _ in range(100)]  # noqa: S311 - a trace

    async def ask() -> list[str]:
        vendors = [model(name, f"I am {name}", load_s=0.02) for name in "abc"]
        async with AsyncDispatcher(*vendors, max_memory_mb=200, on_event=events.append) as d:
            replies = await asyncio.gather(*(d.send("hi", vendor=name) for name in names))
        return [reply.text for reply in replies]

    assert asyncio.run(ask()) == [f"I am {name}" for name in names]
    assert sum(line.startswith("+") for line in told(events)) <= 6


def test_a_model_larger_than_the_budget_is_refused() -> None:
    """The numbers and the way out are told, nothing is loaded, and the next candidate serves."""
    big, small = model("big", memory_mb=300), model("small", price=None)
    events: list[Event] = []
    with Dispatcher(big, small, max_memory_mb=200, on_event=events.append) as d:
        with pytest.raises(ModelTooLarge, match=r"300 MiB of memory.* 200 MiB.*max_memory_mb") as e:
            d.send("hi", vendor="big")
        reply = d.send("hi")

    assert (e.value.needed_bytes, e.value.limit_bytes) == (300 * 2**20, 200 * 2**20)
    assert [a.vendor for a in reply.decision.attempts] == ["big", "small"]
    assert told(events) == ["+small"]


def test_memory_of_gpus_has_a_budget_of_its_own() -> None:
    """A model that fits the main memory and not that of the GPUs is refused."""
    with (
        Dispatcher(Odd("a", OnGpu), model("b"), max_memory_mb=200, max_vram_mb=100) as d,
        pytest.raises(ModelTooLarge, match=r"150 MiB of GPU memory.*max_vram_mb"),
    ):
        d.send("hi", vendor="a")


def test_a_pinned_model_stays() -> None:
    """It is never unloaded to make room, and one that does not fit beside it is told so."""
    events: list[Event] = []
    vendors = (model("a", pinned=True), model("b"), model("c"), model("d", memory_mb=150))
    with Dispatcher(*vendors, max_memory_mb=200, on_event=events.append) as d:
        for name in "abcb":
            d.send("hi", vendor=name)
        with pytest.raises(ModelTooLarge, match=r"pinned models \(a/m-a\) hold 100 MiB"):
            d.send("hi", vendor="d")

    assert not [line for line in told(events) if line.startswith("-a")]


def test_without_a_budget_nothing_makes_room() -> None:
    """Models stay, however many; those that take no memory here are never counted."""
    events: list[Event] = []
    with Dispatcher(*(model(name) for name in "abcd"), on_event=events.append) as d:
        for name in "abcdabcd":
            d.send("hi", vendor=name)
    with Dispatcher(Scripted("x"), model("a"), max_memory_mb=100, on_event=events.append) as d:
        for name in ["scripted", "a", "scripted"]:
            d.send("hi", vendor=name)

    assert not [line for line in told(events) if line.startswith("-")]


def test_a_budget_must_be_a_number() -> None:
    """A wrong budget is refused when the dispatcher is made."""
    for wrong in (0, -1, 1.5, "2 GB", True):
        with pytest.raises(BadRequest, match="max_memory_mb"):
            Dispatcher(Scripted(), max_memory_mb=wrong)  # type: ignore[arg-type]
        with pytest.raises(BadRequest, match="max_vram_mb"):
            AsyncDispatcher(Scripted(), max_vram_mb=wrong)  # type: ignore[arg-type]
        with pytest.raises(BadRequest, match="memory_mb"):
            Scripted(memory_mb=wrong)  # type: ignore[arg-type]


def test_an_idle_model_is_given_back() -> None:
    """After ``keep_alive_s`` without a request it is unloaded, by itself, and loaded on demand."""
    events: list[Event] = []
    with Dispatcher(model("a", keep_alive_s=0.05), on_event=events.append) as d:
        d.send("hi")
        until(lambda: len(told(events)) == 2)
        d.send("hi")

    assert told(events)[:3] == ["+a", "-a: not used for 0.05 s", "+a"]


# -- those who use it --------------------------------------------------------------------------


def test_a_model_in_use_is_not_unloaded() -> None:
    """Who needs its room waits, within the deadline for loading; the reply goes on."""
    slow = model("a", ["one ", 0.3, "two"])
    events: list[Event] = []
    with (
        Dispatcher(slow, model("b"), max_memory_mb=100, on_event=events.append) as d,
        d.stream("hi", vendor="a") as stream,
    ):
        next(stream)
        with pytest.raises(TimedOut, match="loading"):
            d.send("hi", vendor="b", deadlines=Deadlines(load_s=0.05))
        rest = list(stream)

        assert [delta.text for delta in rest] == ["two"]
        assert told(events) == ["+a"]
        waited = d.send("hi", vendor="b").decision.attempts[0]
        assert waited.load_s < WAIT_S


def test_waiting_for_a_load_does_not_use_up_the_total() -> None:
    """The wait for room and for the load is counted as loading alone."""
    with Dispatcher(model("a"), model("b", load_s=2.5), max_memory_mb=100) as d:
        d.send("hi", vendor="a")
        reply = d.send("hi", vendor="b", deadlines=Deadlines(total_s=2.4))

        (attempt,) = reply.decision.attempts
        assert attempt.load_s >= 2.5
        assert attempt.latency_s < 2.4


def test_a_stream_that_is_left_gives_its_model_back() -> None:
    """Closed, dropped or failed: the model may go at once, and only once."""
    with Dispatcher(model("a", LONG), model("b", LONG), max_memory_mb=100) as d:
        for name in "ab" * 3:
            with d.stream("hi", vendor=name) as stream:
                next(stream)
        for name in "ab":
            next(d.stream("hi", vendor=name))  # and forgets it
        d.unload("m-b")
        d.unload("m-b")


def test_a_load_that_nobody_waits_for_is_dropped() -> None:
    """A queued load is not begun when its last caller gave up; one that is begun goes on."""
    events: list[Event] = []
    held = HeldLoad(model("a"))
    with Dispatcher(held, model("b"), model("c"), on_event=events.append) as d:
        for name, load_s in (("a", 4.0), ("b", 0.05)):  # a is begun, b waits for its turn
            with pytest.raises(TimedOut):
                d.send("hi", vendor=name, deadlines=Deadlines(load_s=load_s))
        held.go_on.set()
        d.send("hi", vendor="c")

    assert told(events) == ["+a", "+c"]


def test_a_task_that_is_cancelled_waits_no_more() -> None:
    """Cancelling a task that waits for room takes it out of the queue."""

    async def ask() -> None:
        async with AsyncDispatcher(model("a", LONG), model("b"), max_memory_mb=100) as d:
            async with d.stream("hi", vendor="a") as stream:
                await anext(stream)
                task = asyncio.create_task(d.send("hi", vendor="b"))
                await asyncio.to_thread(until, lambda: waiting(d, "b"))
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert waiting(d, "b") == 0
            assert (await d.send("hi", vendor="b")).text == "ok"

    asyncio.run(ask())


def test_one_impatient_caller_does_not_stop_the_others(pool: ThreadPoolExecutor) -> None:
    """A load that is waited for by another one goes on when a caller gives up."""
    held = HeldLoad(model("a"))
    with Dispatcher(held, model("b")) as d:
        first = pool.submit(d.send, "hi", vendor="a")
        until(lambda: waiting(d, "a"))
        patient = pool.submit(d.send, "hi", vendor="b")
        until(lambda: waiting(d, "b"))
        with pytest.raises(TimedOut):
            d.send("hi", vendor="b", deadlines=Deadlines(load_s=0.01))
        held.go_on.set()

        assert first.result(WAIT_S).text == patient.result(WAIT_S).text == "ok"


def test_one_load_at_a_time(pool: ThreadPoolExecutor) -> None:
    """Also without a budget: loads at once would each take longer than one after another."""
    vendors = [Odd(name, Counted) for name in "abcd"]
    with Dispatcher(*vendors) as d:
        asked = [pool.submit(d.send, "hi", vendor=name) for name in "abcdabcd"]
        assert {each.result(WAIT_S).text for each in asked} == {"ok"}

    begun = [vendor.made[0].begun_s for vendor in vendors]
    ended = [vendor.made[0].ended_s for vendor in vendors]
    assert all(end <= begin for end, begin in zip(sorted(ended), sorted(begun)[1:], strict=False))


def test_a_busy_model_makes_room_in_its_turn(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many requests one model gets, the other has its turn; they all are served."""
    monkeypatch.setattr("llmdispatcher.residency.TURN_S", 0.2)
    events: list[Event] = []
    done = threading.Event()
    vendors = (model("a", ["x", 0.03, "y"]), model("b"))
    with Dispatcher(*vendors, max_memory_mb=100, on_event=events.append) as d:

        def keep_busy() -> int:
            served = 0
            while not done.is_set():
                served += d.send("hi", vendor="a").text == "xy"
            return served

        busy = [pool.submit(keep_busy) for _ in range(4)]
        until(lambda: d.stats().total.served > 4)
        try:
            assert d.send("hi", vendor="b").text == "ok"
        finally:
            done.set()
        assert all(each.result(WAIT_S) for each in busy)
        assert "-a: to make room for b/m-b" in told(events)


def test_a_closed_dispatcher_waits_for_nobody(pool: ThreadPoolExecutor) -> None:
    """Closing releases those who wait for room, and those who wait for a load."""
    d = Dispatcher(model("a", LONG), model("b"), model("c", load_s=60), max_memory_mb=200)
    stream = d.stream("hi", vendor="a")
    next(stream)
    asked = [pool.submit(d.send, "hi", vendor=name) for name in "cb"]
    until(lambda: waiting(d, "b") and waiting(d, "c"))

    d.close()

    for each in asked:
        with pytest.raises(Refused):
            each.result(WAIT_S)
    with pytest.raises(Refused):
        d.load("m-b")


def test_a_forgotten_dispatcher_leaves_no_thread() -> None:
    """Its landlord's thread ends with it, though nobody closed it."""
    d = Dispatcher(model("a", keep_alive_s=60))
    d.send("hi")
    del d
    gc.collect()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_is_not_kept_waiting() -> None:
    """A thread that was at it when the process was forked is not there in the child."""
    code = """
import os
from llmdispatcher import Dispatcher, Scripted
d = Dispatcher(*(Scripted("ok", name=n, memory_mb=60) for n in "ab"), max_memory_mb=100)
d.send("x", vendor="a")
d._desk._landlord._baton.acquire()
d._desk._landlord._clerk._changed.acquire()
if os.fork() == 0:
    print(d.send("y", vendor="b").text, flush=True)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        check=True,
        timeout=WAIT_S,
        text=True,
    )

    assert done.stdout == "ok\n0\n"


# -- asked for by name -------------------------------------------------------------------------


def test_warming_up() -> None:
    """``load`` returns when the model is loaded; the first request then waits for nothing."""
    events: list[Event] = []
    with Dispatcher(model("a", load_s=0.1), on_event=events.append) as d:
        assert d.load("m-a") is None  # type: ignore[func-returns-value]
        assert told(events) == ["+a"]
        d.load("m-a", vendor="a")
        assert d.send("hi").decision.attempts[0].load_s == 0.0


def test_unloading_waits_for_those_who_are_served(pool: ThreadPoolExecutor) -> None:
    """Who comes meanwhile waits for the next load."""
    events: list[Event] = []
    with Dispatcher(model("a", ["x", 0.3, "y"], "later"), on_event=events.append) as d:
        stream = d.stream("hi")
        next(stream)
        gone = pool.submit(d.unload, "m-a")
        until(lambda: d._desk._landlord._residency.model("a/m-a").is_leaving)  # type: ignore[union-attr]
        late = pool.submit(d.send, "hi")
        until(lambda: waiting(d, "a"))
        assert not gone.done()

        assert [delta.text for delta in stream] == ["y"]
        assert gone.result(WAIT_S) is None
        assert late.result(WAIT_S).text == "later"
        d.unload("m-a")
        d.unload("m-a")  # which is not there any more

    assert told(events) == ["+a", "-a: asked to", "+a", "-a: asked to"]


def test_both_verbs_in_asyncio() -> None:
    """The same, awaited."""
    events: list[Event] = []

    async def ask() -> None:
        async with AsyncDispatcher(model("a", load_s=0.05), on_event=events.append) as d:
            await asyncio.gather(d.load("m-a"), d.load("m-a"), d.send("hi"))
            await asyncio.gather(d.unload("m-a"), d.unload("m-a", "a"))
            assert d.vendors()[0].status.state is State.ABSENT

    asyncio.run(ask())
    assert told(events) == ["+a", "-a: asked to"]


def test_names_must_be_known() -> None:
    """A name that is not there, or is there twice, is refused with those that are."""
    twins = [Scripted(name=name, model="same", memory_mb=1) for name in ("v", "w")]
    with Dispatcher(*twins, Scripted("x")) as d:
        with pytest.raises(BadRequest, match="same, script"):
            d.load("other")
        with pytest.raises(BadRequest, match="v, w"):
            d.unload("same")
        with pytest.raises(BadRequest, match="v, w"):
            d.load("same", vendor="x")
        d.load("same", vendor="w")
        d.load("script")
        with pytest.raises(Unsupported, match="no memory"):
            d.unload("script")


def test_a_load_that_fails_is_told() -> None:
    """``load`` raises what the load did, and in time; unloading what failed is no error."""
    broken = VendorError("the file is broken")
    with Dispatcher(model("a", load_error=broken)) as d:
        for _ in range(2):
            with pytest.raises(VendorError, match="a/m-a: the file is broken"):
                d.load("m-a")
        d.unload("m-a")
    with (
        Dispatcher(model("b", load_s=600), deadlines=Deadlines(load_s=0.05)) as d,
        pytest.raises(TimedOut, match="b/m-b: timed out: loading"),
    ):
        d.load("m-b")


# -- engines that misbehave --------------------------------------------------------------------


@attrs.frozen
class Odd:
    """A vendor whose engine does something odd."""

    name: str
    kind: Callable[[Scripted, Report], ResidentScriptedEngine]
    made: list[Any] = attrs.field(factory=list)

    def start(self, report: Report) -> ResidentScriptedEngine:
        """Make the engine, and keep it for the test to look at."""
        self.made.append(self.kind(model(self.name, load_s=0.1), report))
        return self.made[-1]  # type: ignore[no-any-return]


class Mortal(ResidentScriptedEngine):
    """Dies when it is told to, as a child process does; then it must be loaded again."""

    loads = 0

    def die(self) -> None:
        """Be gone at once."""
        self._loaded = None

    def load(self, model: str) -> Future[None]:
        """Count the loads."""
        if self._loaded is None:
            self.loads += 1
        return super().load(model)


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "while another one loads"])
def test_a_model_that_died_is_loaded_again(pool: ThreadPoolExecutor, *, beside: bool) -> None:
    """Whoever comes next waits for that; while another one loads, until it has its turn."""
    mortal, held = Odd("a", Mortal), HeldLoad(model("b"))
    with Dispatcher(mortal, held, max_memory_mb=200) as d:
        d.send("hi", vendor="a")
        mortal.made[0].die()
        other = pool.submit(d.send, "hi", vendor="b") if beside else None
        until(lambda: not beside or d.vendors()[1].status.state is State.LOADING)
        asked = [pool.submit(d.send, "hi", vendor="a") for _ in range(4)]
        if beside:
            until(lambda: waiting(d, "a") == 4)
            assert mortal.made[0].loads == 1
            held.go_on.set()

        assert {each.result(WAIT_S).text for each in asked} == {"ok"}
        assert mortal.made[0].loads == 2
        assert other is None or other.result(WAIT_S).text == "ok"


class Counted(ResidentScriptedEngine):
    """Notes when its load began and ended."""

    begun_s = ended_s = 0.0

    def load(self, model: str) -> Future[None]:
        """Note when, the first time."""
        self.begun_s = self.begun_s or time.monotonic()
        loading = super().load(model)
        loading.add_done_callback(lambda _: self._end())
        return loading

    def _end(self) -> None:
        self.ended_s = self.ended_s or time.monotonic()


class Buggy(ResidentScriptedEngine):
    """Has a bug where it weighs its model."""

    def footprint(self, model: str) -> Footprint:
        """Raise what is no error of ours."""
        raise ZeroDivisionError("weights")


class Unable(ResidentScriptedEngine):
    """Has a bug where it loads its model."""

    def load(self, model: str) -> Future[None]:
        """Raise what is no error of ours."""
        raise ZeroDivisionError("loading")


class Stuck(ResidentScriptedEngine):
    """Has a bug where it unloads its model."""

    def unload(self, model: str) -> Future[None]:
        """Raise what is no error of ours."""
        raise ZeroDivisionError("cannot")


class Heavy(ResidentScriptedEngine):
    """Takes what the machine has left, and finds that too little while others are loaded."""

    others: ResidentScriptedEngine
    asked = 0

    def footprint(self, model: str) -> Footprint:
        """Fit only if nobody else is there."""
        self.asked += 1
        if self.others.status().state is State.READY:
            raise ModelTooLarge("no room", needed_bytes=150 * 2**20, limit_bytes=100 * 2**20)
        return Footprint(memory_bytes=150 * 2**20)


class Hasty(ResidentScriptedEngine):
    """Reports before it has said that it loads, and cannot be waited for by who hears that."""

    hears: threading.Thread | None = None
    was_kept = False
    """Whether the listener still waited when it should have been refused."""

    def load(self, model: str) -> Future[None]:
        """Begin to load, and let the listener ask before anybody knows."""
        if threading.current_thread() is self.hears:
            refused: Future[None] = Future()
            refused.set_exception(Refused("it would wait for itself"))
            return refused
        if self.hears is None:
            progress = LoadProgress(vendor="a", model=model, fraction=0.0, elapsed_s=0.0)
            self.hears = threading.Thread(target=self._report, args=(progress,))
            self.hears.start()
            self.hears.join(0.2)
        return super().load(model)

    def _load(self, loaded: Future[None], model: str) -> None:
        if self.hears is not None:
            self.hears.join(SOON_S)  # as where it is the thread that loads
            self.was_kept = self.hears.is_alive()
        super()._load(loaded, model)


def test_a_listener_that_asks_before_the_load_is_noted_is_refused() -> None:
    """However soon a load reports: who would wait for itself is told so, and does not wait."""
    refused: list[Refused] = []

    def hear(event: Event) -> None:
        if isinstance(event, LoadProgress) and event.fraction == 0:
            try:
                d.send("hi")
            except Refused as error:
                refused.append(error)

    hasty = Odd("a", Hasty)
    with Dispatcher(hasty, on_event=hear) as d:
        assert d.send("hi").text == "ok"
        hasty.made[0].hears.join(WAIT_S)

    assert not hasty.made[0].was_kept
    assert len(refused) == 1


def test_a_bug_of_an_engine_is_that_vendors_failure() -> None:
    """Whoever asked is told, and nobody else is kept waiting."""
    odd = Odd("a", Buggy), Odd("b", Stuck), Odd("d", Unable)
    with Dispatcher(*odd, model("c"), max_memory_mb=100) as d:
        for name, bug in (("a", "weights"), ("d", "loading")):
            with pytest.raises(VendorError, match=f"a bug in the vendor: ZeroDivisionError: {bug}"):
                d.send("hi", vendor=name)
        for name in "bcbc":
            assert d.send("hi", vendor=name).text == "ok"


def test_a_model_that_fits_only_alone_is_left_alone() -> None:
    """One that finds the machine too full is weighed again when the others have made room."""
    heavy = Odd("a", Heavy)
    other = Odd("b", ResidentScriptedEngine)
    with Dispatcher(heavy, other, max_memory_mb=200) as d:
        heavy.made[0].others = other.made[0]
        d.load("m-b")

        assert d.send("hi", vendor="a").text == "ok"
        assert other.made[0].status().state is State.ABSENT


class OnGpu(ResidentScriptedEngine):
    """Takes memory of a GPU."""

    def footprint(self, model: str) -> Footprint:
        """Take more there than here."""
        return Footprint(memory_bytes=50 * 2**20, gpu_bytes=150 * 2**20)


class Grown(ResidentScriptedEngine):
    """Is found to take more than was planned, once it is loaded."""

    def footprint(self, model: str) -> Footprint:
        """Take half more when loaded."""
        loaded = self.status().state is State.READY
        return Footprint(memory_bytes=(150 if loaded else 100) * 2**20)


def test_what_a_model_is_found_to_take_counts() -> None:
    """A model that grew while it was loaded leaves less room to the others."""
    events: list[Event] = []
    with Dispatcher(Odd("a", Grown), model("b"), max_memory_mb=200, on_event=events.append) as d:
        d.load("m-a")
        until(lambda: d._desk._landlord._residency.model("a/m-a").footprint.memory_bytes > 2**27)  # type: ignore[union-attr]
        d.load("m-b")

    assert told(events) == ["+a", "-a: to make room for b/m-b", "+b"]


class Read:
    """A call that knows whether its end was read; what plays it may be told of that later."""

    def __init__(self, call: Call) -> None:
        self._call, self.is_over = call, False
        self.usage = call.usage

    def receive(self, timeout_s: float | None) -> Sequence[Piece]:
        """Take pieces, and note whether the end is among them."""
        pieces = self._call.receive(timeout_s)
        self.is_over = any(isinstance(piece, Finish) for piece in pieces)
        return pieces

    async def areceive(self, timeout_s: float | None) -> Sequence[Piece]:
        """Take nothing: it is read by threads."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Be wanted no more."""
        self.is_over = True
        self._call.cancel()


class Watched(ResidentScriptedEngine):
    """Notes whether it was ever asked to serve while it was not loaded."""

    wrong = 0

    def __init__(self, spec: Scripted, report: Report) -> None:
        super().__init__(spec, report)
        self.calls: list[Read] = []

    def submit(self, work: Work, model: str) -> Call:
        """Count what should not happen."""
        self.wrong += self._loaded is None
        self.calls.append(Read(super().submit(work, model)))
        return self.calls[-1]

    def unload(self, model: str) -> Future[None]:
        """Count replies that are cut."""
        self.wrong += sum(not call.is_over for call in self.calls)
        return super().unload(model)


def test_nobody_is_served_by_a_model_that_is_gone(pool: ThreadPoolExecutor) -> None:
    """Eight threads over three models, with streams that are left: no reply is ever cut."""
    vendors = [Odd(name, Watched) for name in "abc"]
    randomly = random.Random(3)  # noqa: S311 - a trace

    with Dispatcher(*vendors, max_memory_mb=200) as d:

        def ask(name: str, *, leave: bool) -> str:
            with d.stream("hi", vendor=name) as stream:
                return "" if leave else "".join(delta.text for delta in stream)

        trace = [(randomly.choice("abc"), randomly.random() < 0.2) for _ in range(200)]
        asked = [pool.submit(ask, name, leave=leave) for name, leave in trace]
        texts = [each.result(WAIT_S) for each in asked]

    assert texts == ["" if leave else "ok" for _, leave in trace]
    assert [vendor.made[0].wrong for vendor in vendors] == [0, 0, 0]


# -- health ------------------------------------------------------------------------------------


def test_who_waits_for_room_is_counted(pool: ThreadPoolExecutor) -> None:
    """A vendor's status counts requests that wait for its load, and says what they wait for."""
    with Dispatcher(model("a", LONG), model("b"), max_memory_mb=100) as d:
        with d.stream("hi", vendor="a") as stream:
            next(stream)
            asked = [pool.submit(d.send, "hi", vendor="b") for _ in range(3)]
            until(lambda: waiting(d, "b") == 3)
            busy, queued = (vendor.status for vendor in d.vendors())
        assert (busy.state, busy.running, busy.expected_wait_s) == (State.BUSY, 1, 0.0)
        assert queued.state is State.ABSENT
        assert "turn" in queued.detail
        assert [each.result(WAIT_S).text for each in asked] == ["ok"] * 3


@pytest.mark.parametrize(
    ("status", "queue", "expected"),
    [
        (Status(State.READY), Queue(), 0.0),
        (Status(State.BUSY, running=4), Queue(), 0.0),
        (Status(State.BUSY, running=4, waiting=8), Queue(), 1.0),
        (Status(State.BUSY, waiting=2), Queue(), 1.0),
        (Status(State.ABSENT), Queue(), None),
        (Status(State.ABSENT), Queue(waiting=3, load_s=2.5), 2.5),
        (Status(State.RESTARTING), Queue(load_s=2.5), 2.5),
        (Status(State.BROKEN), Queue(load_s=2.5), None),
        (Status(State.BUSY, expected_wait_s=7.0, waiting=1), Queue(), 7.0),
    ],
)
def test_the_expected_wait(status: Status, queue: Queue, expected: float | None) -> None:
    """Places come free as fast as replies end; before a load, it is as long as the last one."""
    served = [Figures(served=4, latency_s=2.0)]

    assert complete(status, queue, served).expected_wait_s == expected
    assert complete(status, queue, served).waiting == status.waiting + queue.waiting


def test_without_replies_no_wait_is_guessed() -> None:
    """Before anything was served, nobody knows how long a reply takes."""
    assert complete(Status(State.BUSY, waiting=1), Queue(), []).expected_wait_s is None


# -- real models -------------------------------------------------------------------------------


def test_three_real_models_in_a_budget_for_two(
    tmp_path: Path, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 mixed requests from 8 threads are all answered, with few loads.

    Few is twice those of one who knew the order beforehand, and could keep two of them.
    """
    monkeypatch.setattr("llmdispatcher.residency.TURN_S", WAIT_S)  # no turn ends by the clock
    specs = [
        LlamaCpp(
            tiny_model(tmp_path / f"{name}.gguf", vocab=600, context=256, seed=seed),
            name=name,
            max_threads=1,
            isolation="thread",
        )
        for seed, name in enumerate("abc")
    ]
    needs = [spec.plan().need.total_bytes for spec in specs]
    budget_mb = -(-sum(sorted(needs)[1:]) // 2**20) + 1
    assert sum(needs) > budget_mb * 2**20
    events: list[Event] = []
    trace = random.Random(11).choices("abc", k=200)  # noqa: S311 - a trace

    with Dispatcher(*specs, max_memory_mb=budget_mb, on_event=events.append) as d:
        asked = [pool.submit(d.send, "hi", vendor=name, max_tokens=8) for name in trace]
        replies = [each.result(WAIT_S) for each in asked]

    assert [reply.vendor for reply in replies] == trace
    loads = [e for e in events if isinstance(e, LoadProgress) and e.fraction == 1]
    assert len(loads) <= 2 * best_loads(trace)


def best_loads(trace: list[str]) -> int:
    """Count the loads of one who keeps the two that are needed next (Belady 1966)."""
    here: list[str] = []
    loads = 0
    for index, name in enumerate(trace):
        if name not in here:
            loads += 1
            rest = trace[index + 1 :]
            here.sort(key=lambda each: rest.index(each) if each in rest else len(rest))
            here[1:] = [name]
    return loads
