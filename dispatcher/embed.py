"""The lives of requests for vectors and for scores: ``flow.serve``, with a result of their own.

A result has no pieces that a caller could use before the last has come, so each of these flows
emits exactly once: the whole result.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from llmdispatcher.draft import ScoresDraft, VectorsDraft
from llmdispatcher.flow import serve
from llmdispatcher.models.embedding import (
    Embeddings,
    EmbedRequest,
    Reranked,
    RerankRequest,
    best_first,
)
from llmdispatcher.steps import Emit, Step
from llmdispatcher.trial import Job


def embed(job: Job[EmbedRequest]) -> Generator[Step, Any, None]:
    """Emit one vector for each text. Raises as ``flow.serve``."""
    served = yield from serve(job, lambda: VectorsDraft(len(job.request.texts)))
    yield Emit(Embeddings(vectors=served.draft.vectors, **served.account(job.ranking)))


def rerank(job: Job[RerankRequest]) -> Generator[Step, Any, None]:
    """Emit one score for each document, and the order. Raises as ``flow.serve``."""
    served = yield from serve(job, lambda: ScoresDraft(len(job.request.documents)))
    scores = served.draft.scores
    order = best_first(scores, job.request.top)
    yield Emit(Reranked(scores=scores, order=order, **served.account(job.ranking)))
