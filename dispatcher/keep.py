"""The life of a conversation that is put aside in a file, and of one that is taken up again.

What is saved must be decoded first, so saving asks the model as any request does, for one token.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import attrs

from llmdispatcher import warm
from llmdispatcher.draft import ReplyDraft
from llmdispatcher.flow import serve
from llmdispatcher.landlord import Landlord
from llmdispatcher.models.card import Capability
from llmdispatcher.models.errors import BadRequest, NoCandidate, StateUnusable
from llmdispatcher.models.form import ResponseFormat
from llmdispatcher.models.request import Deadlines, Request
from llmdispatcher.models.sampling import Sampling
from llmdispatcher.shelf import Target
from llmdispatcher.steps import Emit, Step, Wait
from llmdispatcher.trial import Job
from llmdispatcher.vendors.contract import Keeper

_WRITERS = frozenset({Capability.CHAT, Capability.COMPLETION})
"""A model for vectors may have the same engine, but no conversations."""


TRIES = 3
"""Between the reply and the saving, others may need the room where a conversation is remembered."""


def question(request: Request) -> Request:
    """Return the cheapest request that has the same conversation decoded."""
    return attrs.evolve(
        request,
        max_tokens=1,
        n=1,
        logprobs=None,
        stop=(),
        sampling=Sampling(temperature=0),
        response_format=ResponseFormat(),
    )


def save(job: Job[Request], path: Path) -> Generator[Step, Any, None]:
    """Emit what was saved. Raises as ``flow.serve``, and StateUnusable."""
    keepers = [t for t in job.ranking.targets if isinstance(t.engine, Keeper)]
    if not keepers:
        considered = [*job.ranking.candidates, *job.ranking.excluded]
        why = "keeps no conversations, or cannot serve this one"
        raise NoCandidate({f"{c.vendor}/{c.model}": why for c in considered})
    job = attrs.evolve(job, ranking=attrs.evolve(job.ranking, targets=tuple(keepers)))
    for tries_left in reversed(range(TRIES)):
        served = yield from serve(job, lambda: ReplyDraft(1, job.request.response_format))
        last = served.attempts[-1]
        target = next(t for t in keepers if t.card.vendor == last.vendor)
        assert isinstance(target.engine, Keeper)  # noqa: S101 - for the type checker
        lease = job.landlord.lease(target.card, target.engine)
        try:
            yield from warm.arrive(lease, target, job.deadlines.load_s)
            saving = target.engine.save(job.request, path)
            yield Wait(saving, None)
        except StateUnusable as error:
            if error.part != "size" or not tries_left:
                raise
        else:
            yield Emit(saving.result())
            return
        finally:
            lease.end()


def restore(
    targets: Sequence[Target], path: Path, deadlines: Deadlines, landlord: Landlord
) -> Generator[Step, Any, None]:
    """Emit what was taken up. Raises StateUnusable, and what loading the model raises."""
    keepers = [
        t for t in targets if isinstance(t.engine, Keeper) and t.card.capabilities & _WRITERS
    ]
    names = sorted({target.card.vendor for target in keepers})
    if not keepers:
        raise NoCandidate({t.card.name: "keeps no conversations" for t in targets})
    if len(names) > 1:
        raise BadRequest("vendor", None, f"the one that saved it: {', '.join(names)}")
    target = keepers[0]
    assert isinstance(target.engine, Keeper)  # noqa: S101 - for the type checker
    lease = landlord.lease(target.card, target.engine)
    try:
        yield from warm.arrive(lease, target, deadlines.load_s)
        restoring = target.engine.restore(path)
        yield Wait(restoring, None)
    finally:
        lease.end()
    yield Emit(restoring.result())
