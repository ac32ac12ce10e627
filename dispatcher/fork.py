"""The branches of a flow: flows that run beside it, each in a thread of its own, or a task.

    branches = Branches()
    stopper.arm(branches.cancel)
    try:
        first = yield Fork(branches, flow, its_stopper)
        for news in (yield Receive(branches, timeout_s)):
            ...news.branch, news.piece; or, once for each branch, an ``Ended``...
        branches.stop(first)            # it ends soon, and says so
    finally:
        branches.cancel()               # the driver waits for what runs still

What a branch emits waits here until the flow takes it, and the branch with it where that is much:
nothing is kept without bound. One that was stopped is closed where it emits something.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import aclosing, closing
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Self

import attrs

from llmdispatcher import drive
from llmdispatcher.models.errors import Cancelled
from llmdispatcher.vendors.mailbox import Mailbox, fire

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future
    from types import TracebackType

    from llmdispatcher.release import Stopper
    from llmdispatcher.steps import Flow, Step

AHEAD = 64
"""So many pieces of a branch may wait to be taken; then the branch waits."""

SETTLE_S = 1.0
"""How long a flow that has ended waits for branches that were stopped. Whoever hears of it ends at
once; a thread may be in a call of the system, such as asking for an address, that nobody can stop,
and ends behind it."""


@attrs.frozen
class Shown:
    """A branch has emitted something."""

    branch: int
    piece: Any


@attrs.frozen(eq=False)
class Ended:
    """A branch has ended: with what its flow returned, or with an error."""

    branch: int
    value: Any = None
    error: Exception | None = None


News = Shown | Ended


@attrs.frozen
class _Whole:
    """What a flow returned, to be told from what it emitted."""

    value: Any


class Branches:
    """Those of one flow. What is received from them is their news, in the order in which it came.

    Has the shape of a ``contract.Call``.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # garbage may be collected, and so a flow closed, anywhere
        self._box = Mailbox()
        self._all: list[Branch] = []
        self._is_over = False

    # -- for the flow --------------------------------------------------------------------------

    def receive(self, timeout_s: float | None) -> Sequence[News]:
        """Take all news, at least one. Raises Cancelled after ``cancel``, and TimeoutError."""
        return self._taken(self._box.receive(timeout_s))

    async def areceive(self, timeout_s: float | None) -> Sequence[News]:
        """Do the same as ``receive`` in an event loop."""
        return self._taken(await self._box.areceive(timeout_s))

    def stop(self, branch: int) -> None:
        """Stop a branch, from any thread; its ``Ended`` comes when it has settled. Never blocks."""
        self._all[branch].stop()

    def cancel(self) -> None:
        """Stop all of them, and whoever waits for news, from any thread. Never blocks."""
        with self._lock:
            self._is_over, branches = True, tuple(self._all)
        for branch in branches:
            branch.stop()
        fire([self._box.fail(Cancelled())])

    # -- for the drivers -----------------------------------------------------------------------

    def start(self, flow: Flow, stopper: Stopper) -> int:
        """Run a flow in a thread; returns its number. Raises Cancelled after ``cancel``."""
        branch = self._made(stopper)
        context = copy_context()  # as tasks have it
        thread = threading.Thread(
            target=lambda: context.run(branch.run, flow),
            name=f"llmdispatcher-branch-{branch.number}",
            daemon=True,
        )
        thread.start()
        branch.thread = thread
        return branch.number

    def astart(self, flow: Flow, stopper: Stopper) -> int:
        """Run a flow in a task; see ``start``."""
        import asyncio  # noqa: PLC0415 - whoever gets here has it loaded

        branch = self._made(stopper)
        name = f"llmdispatcher-branch-{branch.number}"
        branch.task = asyncio.create_task(branch.arun(flow), name=name)
        return branch.number

    def join(self) -> None:
        """Stop all, and wait until they have ended, but for one that nobody can stop."""
        self.cancel()
        until_s = time.monotonic() + SETTLE_S
        for branch in self._all:
            thread = branch.thread
            if thread is not None and thread is not threading.current_thread():
                thread.join(max(0.0, until_s - time.monotonic()))

    async def ajoin(self) -> None:
        """Do the same for tasks; one that does not end by itself is cancelled."""
        import asyncio  # noqa: PLC0415 - as above

        self.cancel()
        tasks = [branch.task for branch in self._all if branch.task is not None]
        left = {task for task in tasks if not task.done()}
        try:
            if left:
                _, left = await asyncio.wait(left, timeout=SETTLE_S)
        finally:  # also when this task is cancelled once more
            for task in left:
                task.cancel()
        if left:
            await asyncio.wait(left, timeout=SETTLE_S)

    def _made(self, stopper: Stopper) -> Branch:
        with self._lock:
            if self._is_over:
                raise Cancelled
            branch = Branch(self, len(self._all), stopper)
            self._all.append(branch)
        return branch

    def _taken(self, pieces: Sequence[Any]) -> Sequence[News]:
        """Let branches go on that waited for their pieces to be taken."""
        for news in pieces:
            if isinstance(news, Shown):
                self._all[news.branch].taken()
        return pieces

    # -- for a branch --------------------------------------------------------------------------

    def put(self, news: News) -> None:
        """Tell the flow. Nobody hears it after ``cancel``."""
        told: Any = news
        fire([self._box.put(told)])


class Branch:
    """One flow that runs beside another: where it is driven, as a context that reports its end."""

    def __init__(self, branches: Branches, number: int, stopper: Stopper) -> None:
        self.number = number
        self.thread: threading.Thread | None = None
        self.task: asyncio.Task[None] | None = None
        self._put: Callable[[News], None] = branches.put
        self._stopper: Stopper | None = stopper
        """None once it has ended: there is nothing to stop."""
        self._lock = threading.RLock()
        self._value: Any = None
        self._waiting = 0
        """Pieces that nobody has taken yet."""
        self._room: Future[None] | None = None
        """What the branch waits for, if there are too many."""
        self._is_stopped = False

    def run(self, flow: Flow) -> None:
        """Drive the flow, in a thread of its own."""
        with self, closing(drive.run(_whole(flow))) as source:
            for shown in source:
                if (room := self._show(shown)) is not None:
                    drive.wait(room, None)

    async def arun(self, flow: Flow) -> None:
        """Drive the flow, in a task of its own."""
        with self:
            async with aclosing(drive.arun(_whole(flow))) as source:
                async for shown in source:
                    if (room := self._show(shown)) is not None:
                        await drive.result(room, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> bool:
        """Report how it ended. An error is the flow's to deal with; what ends a task ends it."""
        if error is None:
            told = Ended(self.number, self._value)
        elif isinstance(error, Exception):
            if self._is_stopped:  # where it was stopped says nothing, and holds all that it held
                error.__traceback__ = None
            told = Ended(self.number, error=error)
        else:
            told = Ended(self.number, error=Cancelled("the task or thread of a branch was ended"))
        with self._lock:
            self._stopper = None
        self._put(told)
        self._put, self._value = _unheard, None  # so that nothing holds what is over
        return isinstance(error, Exception)

    def stop(self) -> None:
        """Stop it. Its pieces are wanted no more."""
        with self._lock:
            self._is_stopped, stopper = True, self._stopper
        if stopper is not None:
            stopper.stop()
        self._make_room()

    def taken(self) -> None:
        """Take note that one of its pieces was taken."""
        with self._lock:
            self._waiting -= 1
            lets_go = self._room is not None and self._waiting <= AHEAD // 2
        if lets_go:
            self._make_room()

    def _show(self, shown: Any) -> Future[None] | None:  # noqa: ANN401 - whatever the flow emits
        """Tell what it emitted; returns what it must wait for before it goes on, if anything."""
        if isinstance(shown, _Whole):
            self._value = shown.value
            return None
        with self._lock:
            if self._is_stopped:
                raise Cancelled  # it need not wait for anything to hear of it
            self._waiting += 1
            room = self._room = self._new_room() if self._waiting >= AHEAD else None
        self._put(Shown(self.number, shown))
        return room

    @staticmethod
    def _new_room() -> Future[None]:
        from concurrent.futures import Future  # noqa: PLC0415 - 10 ms at import, rarely needed

        return Future()

    def _make_room(self) -> None:
        with self._lock:
            room, self._room = self._room, None
        if room is not None:
            room.set_result(None)


def _unheard(_: News) -> None:
    """Tell nobody."""


def _whole(flow: Flow) -> Generator[Step, Any, _Whole]:
    return _Whole((yield from flow))
