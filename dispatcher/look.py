"""Waits for vendors that are looking which models they have, before a request is ranked. No I/O.

A vendor that is slow to tell holds nobody up for long who can be served without it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import attrs

from llmdispatcher.models.embedding import Work
from llmdispatcher.models.errors import Cancelled, TimedOut
from llmdispatcher.models.request import Deadlines
from llmdispatcher.release import Stopper, Watch
from llmdispatcher.steps import Flow, Step, Wait
from llmdispatcher.trial import Job
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
    total = _Total(limits.total_s, job.clock)
    yield from wait(looking, total.at_most(PATIENCE_S), job.stopper)
    job = rank()
    if not job.ranking.targets:  # then they are all there is to wait for, and may have news
        afresh = [finder.found(afresh=True) for finder in finders]
        yield from wait(afresh, total.at_most(limits.connect_s), job.stopper)
        job = rank()
    return (yield from serve(total.rest(job)))


class _Total:
    """The deadline of a whole request, of which looking is a part."""

    def __init__(self, total_s: float | None, clock: Callable[[], float]) -> None:
        self._total_s, self._clock, self._began_s = total_s, clock, clock()

    def left_s(self) -> float | None:
        """Return what is left of it, at least 0; None is no limit."""
        if self._total_s is None:
            return None
        return max(0.0, self._total_s - (self._clock() - self._began_s))

    def at_most(self, limit_s: float | None) -> float | None:
        """Return a limit, or what is left where that is less."""
        known = [limit for limit in (limit_s, self.left_s()) if limit is not None]
        return min(known, default=None)

    def rest(self, job: Job[W]) -> Job[W]:
        """Return the job with what is left for it. Raises TimedOut where nothing is."""
        left_s = self.left_s()
        if left_s is None:
            return job
        if left_s == 0 and job.ranking.targets:
            raise TimedOut("total", self._total_s or 0.0)
        return attrs.evolve(job, deadlines=attrs.evolve(job.deadlines, total_s=left_s))


def wait(
    looking: Sequence[Future[Any]], limit_s: float | None, stopper: Stopper
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


def _together(futures: Sequence[Future[Any]]) -> Future[None]:
    """Return a future that is done when all of them are, of which none fails."""
    import threading  # noqa: PLC0415 - few get here

    done: Future[None] = Future()
    lock, left = threading.Lock(), len(futures)

    def count(_: Future[Any]) -> None:
        nonlocal left
        with lock:
            left -= 1
            is_last = left == 0
        if is_last:
            done.set_result(None)

    for future in futures:
        future.add_done_callback(count)
    return done
