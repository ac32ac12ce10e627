"""The flow of ``Dispatcher.count_tokens``: who would serve is asked, where it tells. No I/O."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from llmdispatcher.models.count import TokenCount
from llmdispatcher.models.errors import Cancelled, NoCandidate, TimedOut
from llmdispatcher.models.request import Request
from llmdispatcher.release import Watch
from llmdispatcher.route import expected_usage
from llmdispatcher.shelf import Target
from llmdispatcher.steps import Emit, Step, Wait
from llmdispatcher.trial import Job
from llmdispatcher.vendors.contract import Counter, Resident
from llmdispatcher.warm import arrive


def count(job: Job[Request]) -> Generator[Step, Any, None]:
    """Emit how many tokens the prompt has for the model that would be asked first.

    Raises NoCandidate where nobody would, and the VendorError with which the asking fails.
    """
    if not job.ranking.targets:
        raise NoCandidate({f"{c.vendor}/{c.model}": c.note for c in job.ranking.excluded})
    target = job.ranking.targets[0]
    card, engine = target.card, target.engine
    told = None
    if isinstance(engine, Counter):
        if card.local and isinstance(engine, Resident):  # its own tokenizer comes with the model
            yield from _loaded(job, target)
        told = yield from _asked(job, engine, card.model)
    tokens = expected_usage(job.request).prompt_tokens if told is None else told
    yield Emit(
        TokenCount(vendor=card.vendor, model=card.model, tokens=tokens, estimated=told is None)
    )


def _loaded(job: Job[Request], target: Target) -> Generator[Step, Any, None]:
    """Have a local model loaded, which counts with its own tokenizer."""
    lease = job.landlord.lease(target.card, target.engine)
    try:
        yield from arrive(lease, target, job.deadlines.load_s)
    finally:
        lease.end()


def _asked(job: Job[Request], engine: Counter, model: str) -> Generator[Step, Any, int | None]:
    counting = engine.count(job.request, model)
    watch = Watch(counting)
    job.stopper.arm(lambda: watch.end(Cancelled()))
    limit_s = job.deadlines.first_token_s
    try:
        yield Wait(watch.future, limit_s)
    except TimeoutError:
        raise TimedOut("first_token", limit_s or 0.0) from None
    finally:
        watch.leave()
    return counting.result()
