"""The flow of a request whose dispatcher has a cache: what is kept is replayed, the rest is served.

A reply is found under the model that would be asked first, and kept under the one that made it.
Without I/O, as ``flow`` is: looking up and storing are the cache's own thread's.
"""

from __future__ import annotations

from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any

import attrs

from llmdispatcher import flow
from llmdispatcher.cache import Cache, Found, Maker
from llmdispatcher.cache_reply import WHOLE
from llmdispatcher.draft import ReplyDraft
from llmdispatcher.models.decision import Decision
from llmdispatcher.models.errors import BadReply, Cancelled
from llmdispatcher.models.reply import Reply
from llmdispatcher.models.request import Request
from llmdispatcher.release import Watch
from llmdispatcher.shelf import Target
from llmdispatcher.steps import Emit, Step, Wait
from llmdispatcher.trial import Job

LOOK_S = 0.25
"""How long a request waits to hear whether its reply is kept: a disk answers in milliseconds."""


def dispatch(job: Job[Request], cache: Cache) -> Generator[Step, Any, Reply]:
    """Return the reply that is kept, or ask for one and keep it. Raises as ``flow.dispatch``."""
    targets = job.ranking.targets
    if not targets or not cache.takes(job.request):
        return (yield from flow.dispatch(job))
    began_s = job.clock()
    found = (yield from _look(job, cache, targets[0])) if job.request.cached else None
    if found is not None and (draft := _replayed(job.request, found)) is not None:
        if job.streaming:
            for delta in found.kept.deltas():
                yield Emit(delta)
        job.books.hit()
        return _reply(job, found, draft, job.clock() - began_s)
    reply = yield from flow.dispatch(job)
    if all(choice.finish_reason in WHOLE for choice in reply.choices) and _is_of_one(job, reply):
        served = (reply.vendor, reply.model)
        made_by = (each for each in targets if (each.card.vendor, each.card.model) == served)
        for target in made_by:
            cache.keep(job.request, _maker(target), reply, job.report)
    return reply


def _is_of_one(job: Job[Request], reply: Reply) -> bool:
    """Whether one model made all of it: no other may have gone on where it broke off."""
    return job.request.resume == "fail" or len(reply.decision.attempts) == 1


def _look(job: Job[Request], cache: Cache, target: Target) -> Generator[Step, Any, Found | None]:
    finding = cache.find(job.request, _maker(target), job.report)
    watch = Watch(finding)
    job.stopper.arm(lambda: watch.end(Cancelled()))
    try:
        yield Wait(watch.future, min(LOOK_S, job.deadlines.total_s or LOOK_S))
    except TimeoutError:
        return None
    finally:
        watch.leave()
    return finding.result()


def _maker(target: Target) -> Maker:
    """Return who makes a reply; its identity is asked for elsewhere, as files may be looked at."""
    engine, card = target.engine, target.card
    identity = getattr(engine, "identity", None)  # ``Identified``, which is slow to ask
    return card.vendor, card.model, lambda: "" if identity is None else identity(card.model)


def _replayed(asked: Request, found: Found) -> ReplyDraft | None:
    """Look at a kept reply as at a new one; None if it is not what is asked for."""
    draft = ReplyDraft(asked.n, asked.response_format)
    draft.is_loose = True  # as the one was, perhaps, that it came from
    try:
        for delta in found.kept.deltas():
            draft.add(delta)
        draft.finish(found.kept.finish())
    except BadReply:
        return None
    return draft


def _reply(job: Job[Request], found: Found, draft: ReplyDraft, latency_s: float) -> Reply:
    card, when = job.ranking.targets[0].card, datetime.fromtimestamp(found.stored_s, UTC)
    choices = draft.choices
    return Reply(
        text=choices[0].text,
        finish_reason=choices[0].finish_reason,
        usage=attrs.evolve(found.kept.usage, charged_microusd=None),
        vendor=card.vendor,
        model=card.model,
        cost_microusd=0,
        latency_s=latency_s,
        first_token_s=None,
        decision=Decision(
            considered=job.ranking.considered,
            notes=(
                *job.ranking.notes,
                f"from the cache, where it has been since {when:%Y-%m-%d %H:%M:%S} UTC",
            ),
            cached_s=found.stored_s,
        ),
        warnings=found.kept.warnings,
        choices=choices,
    )
