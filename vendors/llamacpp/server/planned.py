"""Plans how a server loads a model: as ``plan.planning``, with the GPUs that the server can use.

The GPUs of a llama-server of one's own have nothing to do with those that an installed binding was
built for, so the program is asked. Never run with a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from llmdispatcher.vendors.llamacpp.embedding import pooling as pooled
from llmdispatcher.vendors.llamacpp.plan import planning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmdispatcher.vendors.llamacpp.embedding.pooling import Pooling
    from llmdispatcher.vendors.llamacpp.files.header import Header
    from llmdispatcher.vendors.llamacpp.plan.fit import Plan
    from llmdispatcher.vendors.llamacpp.vendor import LlamaCpp


def pooling_of(spec: LlamaCpp, header: Header) -> Pooling | None:
    """Return how a file pools in a server, or None for one that writes.

    A server reads a text in parts only where the last token speaks for all of it (can_split in
    tools/server/server-context.cpp); else the batch must hold the longest text.
    """
    kind = pooled.pooling_or_none(header, spec.pooling)
    if kind is None or kind.kind == "last":
        return kind
    return attrs.evolve(kind, splits=False)


def plan(
    spec: LlamaCpp, header: Header, pooling: Pooling | None, rung: int, gpus: Sequence[int]
) -> Plan:
    """Plan for a program that can use GPUs with so many free bytes. Raises as ``make_plan``."""
    wishes = attrs.evolve(spec, isolation="process", speculate=False)  # a server does not guess
    return planning.make_plan(wishes, header, pooling, rung, gpus)
