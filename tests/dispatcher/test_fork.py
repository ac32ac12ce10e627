"""Flows that run beside another: their news, their ends, and that none outlives its flow."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import aclosing, closing
from contextvars import ContextVar
from typing import Any

import pytest
from waits import SOON_S, auntil, until

from llmdispatcher import Cancelled, drive, fork
from llmdispatcher.fork import AHEAD, Branches, Ended, News, Shown
from llmdispatcher.patience import pause
from llmdispatcher.release import Stopper
from llmdispatcher.steps import Emit, Flow, Fork, Receive, Step, Wait

pytestmark = pytest.mark.usefixtures("settled")

Driven = Callable[[Flow], list[Any]]


def in_a_thread(flow: Flow) -> list[Any]:
    """Return what a flow shows and, last, what it returns."""
    return list(drive.run(flow))


def in_a_task(flow: Flow) -> list[Any]:
    """Do the same in an event loop."""

    async def go() -> list[Any]:
        return [shown async for shown in drive.arun(flow)]

    return asyncio.run(go())


both = pytest.mark.parametrize("driven", [in_a_thread, in_a_task])


def branch(name: str, wait_s: float, stopper: Stopper, log: list[str]) -> Flow:
    """Emit a name after a while, and return it in capitals."""
    try:
        yield from pause(stopper, wait_s)
        yield Emit(name)
        return name.upper()
    finally:
        log.append(name)


def bug(_: Stopper) -> Flow:
    """Break as no flow should."""
    yield Emit("before")
    raise ZeroDivisionError("a bug")


Made = Callable[[Stopper], Flow]


class Story:
    """A flow with branches, and what it heard of them."""

    def __init__(
        self, *made: Made, stops: int | None = None, heard: Future[None] | None = None
    ) -> None:
        """``heard`` is ended once the end of a branch was heard of."""
        self.branches, self.news = Branches(), list[News]()
        self.log: list[str] = []
        self._made, self._stops, self._heard = made, stops, heard

    def flow(self) -> Generator[Step, Any, str]:
        """Fork all, stop the one that is to be stopped when another ends, and hear all ends."""
        try:
            for make in self._made:
                stopper = Stopper()
                yield Fork(self.branches, make(stopper), stopper)
            left = len(self._made)
            while left:
                for news in (yield Receive(self.branches, SOON_S)):
                    self.news.append(news)
                    if isinstance(news, Ended):
                        left -= 1
                        self._ended()
            yield Emit("all ended")
        finally:
            self.branches.cancel()
            self.log.append("parent")
        return "done"

    def _ended(self) -> None:
        if self._stops is not None:
            self.branches.stop(self._stops)
        if self._heard is not None and not self._heard.done():
            self._heard.set_result(None)

    def of(self, number: int) -> list[Any]:
        """Return what a branch showed, and what it came to."""
        mine = [each for each in self.news if each.branch == number]
        return [
            each.piece if isinstance(each, Shown) else (each.value, type(each.error))
            for each in mine
        ]


def named(name: str, wait_s: float, log: list[str]) -> Made:
    """Make a branch with a name."""
    return lambda stopper: branch(name, wait_s, stopper, log)


def behind(future: Future[None], name: str) -> Made:
    """Make a branch that shows its name once a future has ended."""

    def made(_: Stopper) -> Flow:
        yield Wait(future, SOON_S)
        yield Emit(name)
        return name.upper()

    return made


@both
def test_news_of_branches_come_as_they_happen(driven: Driven) -> None:
    """The flow hears what each branch shows and returns, in order, and shows what it likes."""
    heard: Future[None] = Future()
    story = Story(behind(heard, "slow"), named("quick", 0.0, []), heard=heard)

    assert driven(story.flow()) == ["all ended", "done"]
    assert story.of(0) == ["slow", ("SLOW", type(None))]
    assert story.of(1) == ["quick", ("QUICK", type(None))]
    assert [news.branch for news in story.news] == [1, 1, 0, 0]


@both
def test_one_branch_is_stopped_and_others_go_on(driven: Driven) -> None:
    """A branch that is stopped settles, and ends as cancelled."""
    log: list[str] = []
    story = Story(named("never", 60, log), named("quick", 0.0, log), stops=0)

    driven(story.flow())

    assert story.of(0) == [(None, Cancelled)]
    assert log == ["quick", "never"]


@both
def test_a_bug_in_a_branch_is_its_end(driven: Driven) -> None:
    """What a branch raises is told to the flow, which goes on."""
    story = Story(bug, named("quick", 0.05, []))

    assert driven(story.flow())[-1] == "done"
    assert story.of(0) == ["before", (None, ZeroDivisionError)]


@both
def test_branches_may_have_branches(driven: Driven) -> None:
    """A stop reaches the branches of a branch, and the end of a branch is the end of its own."""
    log: list[str] = []
    begun: Future[None] = Future()

    def deep(stopper: Stopper) -> Flow:
        begun.set_result(None)
        return (yield from branch("inner", 60, stopper, log))

    inner = Story(deep)

    def outer(stopper: Stopper) -> Flow:
        stopper.arm(inner.branches.cancel)
        return (yield from inner.flow())

    story = Story(outer, behind(begun, "quick"), stops=0)
    driven(story.flow())

    assert story.of(0) == [(None, Cancelled)]
    assert log == ["inner"]


@both
def test_a_branch_sees_the_context_of_its_flow(driven: Driven) -> None:
    """What was set in the caller's context, such as the span of a trace, is set in the branches."""
    seen: list[str] = []

    def look(_: Stopper) -> Flow:
        seen.append(SPAN.get("none"))
        yield Emit("x")

    token = SPAN.set("mine")
    try:
        driven(Story(look).flow())
    finally:
        SPAN.reset(token)
    assert seen == ["mine"]


SPAN: ContextVar[str] = ContextVar("SPAN")


@both
def test_nothing_is_forked_after_the_end(driven: Driven) -> None:
    """A flow that was stopped starts no branch any more."""
    log: list[str] = []
    story = Story(named("late", 0.0, log))
    story.branches.cancel()

    with pytest.raises(Cancelled):
        driven(story.flow())
    assert (log, story.log) == ([], ["parent"])


class Talker:
    """A branch that shows pieces for ever, and counts them."""

    def __init__(self) -> None:
        self.said = 0
        self.has_ended = False

    def flow(self, _: Stopper) -> Flow:
        """Show and show."""
        try:
            while True:
                self.said += 1
                yield Emit("x")
        finally:
            self.has_ended = True


def test_a_branch_waits_for_the_flow_to_take_its_pieces() -> None:
    """Only so many pieces wait, however long nobody takes them; the branch goes on when they do."""
    talker, branches = Talker(), Branches()

    def listen() -> Flow:
        stopper = Stopper()
        yield Fork(branches, talker.flow(stopper), stopper)
        yield Emit("begun")
        yield Receive(branches, SOON_S)
        yield Emit("taken")

    with closing(drive.run(listen())) as source:
        next(source)
        until(lambda: talker.said == AHEAD)
        threading.Event().wait(0.05)
        assert talker.said == AHEAD
        next(source)
        until(lambda: talker.said > AHEAD)
    assert talker.has_ended


def test_a_task_waits_for_the_flow_to_take_its_pieces() -> None:
    """The same holds in an event loop."""
    talker, branches = Talker(), Branches()

    def listen() -> Flow:
        stopper = Stopper()
        yield Fork(branches, talker.flow(stopper), stopper)
        yield Emit("begun")
        yield Receive(branches, SOON_S)
        yield Emit("taken")

    async def go() -> None:
        async with aclosing(drive.arun(listen())) as source:
            await anext(source)
            await auntil(lambda: talker.said == AHEAD)
            await asyncio.sleep(0.05)
            assert talker.said == AHEAD
            await anext(source)
            await auntil(lambda: talker.said > AHEAD)
        assert talker.has_ended

    asyncio.run(go())


def showing(branches: Branches, log: list[str]) -> Flow:
    """Fork three branches that wait for ever, and show when each was begun."""
    try:
        for name in "abc":
            stopper = Stopper()
            yield Fork(branches, branch(name, 60, stopper, log), stopper)
            yield Emit(name)
        yield Receive(branches, None)
    finally:
        branches.cancel()
        log.append("parent")


@pytest.mark.parametrize("after", range(4))
def test_closing_a_flow_ends_its_branches(after: int) -> None:
    """Wherever a flow is left, its branches have settled, and their threads are gone, after it."""
    log: list[str] = []
    before = set(threading.enumerate())

    with closing(drive.run(showing(Branches(), log))) as source:
        begun = [next(source) for _ in range(after)]

    assert sorted(log) == sorted([*begun, "parent"] if after else [])
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("after", range(4))
def test_closing_a_flow_in_an_event_loop_ends_its_branches(after: int) -> None:
    """The same holds for tasks."""

    async def go() -> None:
        log: list[str] = []
        async with aclosing(drive.arun(showing(Branches(), log))) as source:
            begun = [await anext(source) for _ in range(after)]
        assert sorted(log) == sorted([*begun, "parent"] if after else [])
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(go())


def test_cancelling_a_task_ends_its_branches() -> None:
    """A task that is cancelled while it waits for news ends when its branches have settled."""

    async def go() -> None:
        log: list[str] = []

        async def read() -> None:
            async for _ in drive.arun(showing(Branches(), log)):
                pass

        task = asyncio.create_task(read())
        await auntil(lambda: len(asyncio.all_tasks()) == 5)
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(log) == ["a", "b", "c", "parent"]
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(go())


def test_a_branch_that_nobody_can_stop_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread in a call that hears nothing is left to end by itself, and its flow has ended."""
    monkeypatch.setattr(fork, "SETTLE_S", 0.05)
    go_on, log = threading.Event(), list[str]()

    def deaf(_: Stopper) -> Flow:
        try:
            go_on.wait(SOON_S)
            yield Emit("too late")
        finally:
            log.append("deaf")

    def leave() -> Flow:
        branches, stopper = Branches(), Stopper()
        yield Fork(branches, deaf(stopper), stopper)
        yield Emit("forked")

    with closing(drive.run(leave())) as source:
        next(source)
    assert log == []
    go_on.set()
    until(lambda: log == ["deaf"])


def test_a_future_that_a_branch_waits_for_is_not_ended_with_it() -> None:
    """What several flows wait for goes on when one of them is stopped."""
    shared: Future[None] = Future()

    def wait(_: Stopper) -> Flow:
        yield Wait(shared, 0.05)

    story = Story(wait)
    in_a_task(story.flow())

    assert story.of(0) == [(None, TimeoutError)]
    assert not shared.done()
