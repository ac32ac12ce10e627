"""Sends many requests, several at a time: results in the order of the requests, errors in place.

Threads and tasks only carry one request each at a time; what happens to it is the flow's, as ever.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from llmdispatcher.models.errors import BadRequest, Cancelled, DispatcherError
from llmdispatcher.models.reply import Reply
from llmdispatcher.models.request import Options, Prompt, Request
from llmdispatcher.stream import AsyncStream, Stream

if TYPE_CHECKING:
    from llmdispatcher.desk import Desk

CONCURRENCY = 8
"""Requests under way at once, where nobody says: enough to keep a server busy, and few enough for
the limits of the smallest accounts."""

MAX_CONCURRENCY = 1024
"""Each takes a thread, or a task, and a connection."""

Result = Reply | DispatcherError


def checked(prompts: Iterable[Prompt], options: Options, concurrency: int) -> list[Prompt]:
    """Take the prompts. Raises BadRequest, and TypeError for an option that does not exist."""
    given: Any = concurrency
    if type(given) is not int or not 1 <= given <= MAX_CONCURRENCY:
        raise BadRequest("concurrency", given, f"an integer from 1 to {MAX_CONCURRENCY}")
    Request.of("", **options)  # what is wrong with the options is wrong once, not in every place
    return list(prompts)


def send(desk: Desk, prompts: list[Prompt], options: Options, concurrency: int) -> list[Result]:
    """Send all of them from threads, and wait. A Ctrl-C stops all of them."""
    batch = _Batch(desk, prompts, options)
    threads = [
        threading.Thread(target=batch.work, name=f"llmdispatcher-many-{number}", daemon=True)
        for number in range(min(concurrency, len(prompts)))
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(LOOK_S)
    finally:
        batch.stop()  # where all have ended there is nothing to stop
    return batch.results


LOOK_S = 0.2
"""How soon a main thread that waits notices a Ctrl-C that another thread was given."""


class _Batch:
    """Requests that threads take one after the other."""

    def __init__(self, desk: Desk, prompts: list[Prompt], options: Options) -> None:
        self.results: list[Result] = [Cancelled() for _ in prompts]
        self._desk, self._prompts, self._options = desk, prompts, options
        self._lock = threading.Lock()
        self._next = 0
        self._open: set[Stream] = set()
        self._stopped = False

    def work(self) -> None:
        """Send until none is left. Runs in each of the threads."""
        while (place := self._take()) is not None:
            self.results[place] = self._send(self._prompts[place])

    def _take(self) -> int | None:
        with self._lock:
            if self._stopped or self._next == len(self._prompts):
                return None
            self._next += 1
            return self._next - 1

    def _send(self, prompt: Prompt) -> Result:
        try:
            stream = Stream(self._desk, prompt, self._options, streaming=False)
        except DispatcherError as error:
            return error
        with self._lock:
            self._open.add(stream)
            stopped = self._stopped
        try:
            with stream:
                if not stopped:
                    for _ in stream:
                        pass
        except DispatcherError as error:
            return error
        finally:
            with self._lock:
                self._open.discard(stream)
        return stream.reply if stream.is_over else Cancelled()

    def stop(self) -> None:
        """Stop all that are under way, and begin no more."""
        with self._lock:
            self._stopped = True
            streams = list(self._open)
        for stream in streams:
            stream.close()


async def asend(
    desk: Desk, prompts: list[Prompt], options: Options, concurrency: int
) -> list[Result]:
    """Do the same in an event loop. Cancelling the task stops all of them."""
    import asyncio  # noqa: PLC0415 - whoever gets here has it loaded

    places = iter(range(len(prompts)))
    results: list[Result] = [Cancelled() for _ in prompts]

    async def work() -> None:
        for place in places:
            try:
                stream = AsyncStream(desk, prompts[place], options, streaming=False)
                async with stream:
                    async for _ in stream:
                        pass
                if stream.is_over:
                    results[place] = stream.reply
            except DispatcherError as error:
                results[place] = error

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, len(prompts))):
            group.create_task(work())
    return results
