"""Run a flow: once for threads, once for asyncio. The only difference is how each waits.

Both yield the deltas that the flow emits and, last of all, the reply. Both close the flow however
they end, which is what settles a request that its caller gives up; and both end with the branches
that it forked, which run in threads of their own here and in tasks there.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any

from llmdispatcher.models.reply import Delta, Reply
from llmdispatcher.steps import Emit, Flow, Receive, Wait
from llmdispatcher.vendors.mailbox import patiently

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

    from llmdispatcher.fork import Branches
    from llmdispatcher.steps import Fork


def run(flow: Flow) -> Generator[Delta | Reply, None, None]:
    """Run a flow in the thread that iterates."""
    answer: Any = None
    error: Exception | None = None
    forked: list[Branches] = []
    try:
        while True:
            try:
                step = flow.send(answer) if error is None else flow.throw(error)
            except StopIteration as stop:
                yield stop.value
                return
            answer = error = None
            try:  # by class and not by ``match``: this runs for every piece
                if isinstance(step, Receive):
                    answer = step.call.receive(step.timeout_s)
                elif isinstance(step, Emit):
                    yield step.shown
                elif isinstance(step, Wait):
                    wait(step.future, step.timeout_s)
                else:
                    answer = _branch(forked, step).start(step.flow, step.stopper)
            except Exception as raised:  # noqa: BLE001 - not swallowed: the flow gets it
                error = raised
    finally:
        try:
            flow.close()
        finally:
            for branches in forked:
                branches.join()


async def arun(flow: Flow) -> AsyncGenerator[Delta | Reply, None]:
    """Run a flow in the task that iterates."""
    answer: Any = None
    error: Exception | None = None
    forked: list[Branches] = []
    try:
        while True:
            try:
                step = flow.send(answer) if error is None else flow.throw(error)
            except StopIteration as stop:
                yield stop.value
                return
            answer = error = None
            try:  # as above
                if isinstance(step, Receive):
                    answer = await step.call.areceive(step.timeout_s)
                elif isinstance(step, Emit):
                    yield step.shown
                elif isinstance(step, Wait):
                    await result(step.future, step.timeout_s)
                else:
                    answer = _branch(forked, step).astart(step.flow, step.stopper)
            except Exception as raised:  # noqa: BLE001 - not swallowed: the flow gets it
                error = raised
    finally:
        try:
            flow.close()
        finally:
            for branches in forked:
                await branches.ajoin()


def _branch(forked: list[Branches], step: Fork) -> Branches:
    """Take note of the branches of a flow, which are to end with it."""
    if step.branches not in forked:
        forked.append(step.branches)
    return step.branches


def wait(future: Future[Any], timeout_s: float | None) -> None:
    """Wait for another thread's future."""
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    if not patiently(done.wait, timeout_s):
        raise TimeoutError
    future.result()


async def result(future: Future[Any], timeout_s: float | None) -> None:
    """Wait for a thread's future without ever cancelling it, unlike ``asyncio.wrap_future``."""
    import asyncio  # noqa: PLC0415 - whoever gets here has it loaded

    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not done.done():
            done.set_result(None)

    def wake_from_thread(_: Future[None]) -> None:
        try:
            loop.call_soon_threadsafe(wake)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    future.add_done_callback(wake_from_thread)
    async with asyncio.timeout(timeout_s):
        await done
    future.result()
