"""Waits for vendors that are looking which models they have, before a request is ranked. No I/O.

A vendor that is slow to tell holds nobody up for long who can be served without it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from typing import TypeVar

from llmdispatcher.flow import Flow, Job, Step, Wait
from llmdispatcher.models.embedding import Work
from llmdispatcher.models.errors import Cancelled
from llmdispatcher.models.request import Deadlines
from llmdispatcher.release import Stopper, Watch
from llmdispatcher.vendors.contract import Finder

PATIENCE_S = 0.5
"""For vendors that are still looking, where others can serve: a server of one's own tells its
models in milliseconds, and a cloud in tenths of a second."""

W = TypeVar("W", bound=Work)
Ranked = Callable[[], Job[W]]
"""Ranks who can serve the request now."""


def first(
    finders: Sequence[Finder], rank: Ranked[W], serve: Callable[[Job[W]], Flow], limits: Deadlines
) -> Flow:
    """Return the flow that looks first, and then serves; none of it is begun yet."""
    looking = [found for finder in finders if not (found := finder.found()).done()]
    if not looking and (job := rank()).ranking.targets:
        return serve(job)
    return _looking(looking, finders, (rank, serve), limits)


def _looking(
    looking: Sequence[Future[None]],
    finders: Sequence[Finder],
    steps: tuple[Ranked[W], Callable[[Job[W]], Flow]],
    limits: Deadlines,
) -> Flow:
    rank, serve = steps
    job = rank()
    yield from _wait(looking, PATIENCE_S, job.stopper)
    job = rank()
    if not job.ranking.targets:  # then they are all there is to wait for, and may have news
        afresh = [finder.found(afresh=job.request.model is not None) for finder in finders]
        yield from _wait(afresh, limits.connect_s, job.stopper)
        job = rank()
    return (yield from serve(job))


def _wait(
    looking: Sequence[Future[None]], limit_s: float | None, stopper: Stopper
) -> Generator[Step, None, None]:
    """Wait for all of them together, no longer than the limit. Raises Cancelled."""
    left = [found for found in looking if not found.done()]
    if not left:
        return
    watch = Watch(_together(left))
    stopper.arm(lambda: watch.end(Cancelled()))
    try:
        yield Wait(watch.future, limit_s)
    except TimeoutError:
        return
    finally:
        watch.leave()


def _together(futures: Sequence[Future[None]]) -> Future[None]:
    """Return a future that is done when all of them are, of which none fails."""
    import threading  # noqa: PLC0415 - few get here

    done: Future[None] = Future()
    lock, left = threading.Lock(), len(futures)

    def count(_: Future[None]) -> None:
        nonlocal left
        with lock:
            left -= 1
            is_last = left == 0
        if is_last:
            done.set_result(None)

    for future in futures:
        future.add_done_callback(count)
    return done
