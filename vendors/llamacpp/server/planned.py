"""Plans how a server loads a model: as ``plan.planning``, with the GPUs that the server can use.

The GPUs of a llama-server of one's own have nothing to do with those that an installed binding was
built for, so the program is asked. Never run with a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from llmdispatcher.vendors.llamacpp.embedding import pooling as pooled
from llmdispatcher.vendors.llamacpp.files import gguf
from llmdispatcher.vendors.llamacpp.plan import fit, planning
from llmdispatcher.vendors.llamacpp.plan.estimate import MIB
from llmdispatcher.vendors.llamacpp.plan.squeeze import squeezed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmdispatcher.vendors.llamacpp.embedding.pooling import Pooling
    from llmdispatcher.vendors.llamacpp.files.header import Header
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
) -> fit.Plan:
    """Plan for a program that can use GPUs with so many free bytes. Raises as ``make_plan``."""
    if not gpus:
        return planning.make_plan(attrs.evolve(spec, max_gpu_layers=0), header, pooling, rung)
    beside = [*([] if spec.projector_path is None else [spec.projector_path])]
    beside += [*spec.adapters.values()]
    limit = spec.max_memory_mb
    asked = fit.Asked(
        context_tokens=spec.context_tokens,
        max_parallel=spec.max_parallel,
        limit_bytes=None if limit is None else limit * MIB,
        cache_type=spec.cache_type,
        max_gpu_layers=spec.max_gpu_layers,
        max_threads=spec.max_threads,
        beside_bytes=sum(gguf.read_header(path).weight_bytes for path in beside),
        process_bytes=planning.WORKER_BYTES,
    )
    there = attrs.evolve(planning.machine(gpus=False), gpus=allowed(gpus, spec.max_vram_mb))
    asked = squeezed(asked, header, rung)
    if pooling is not None:
        return pooled.choose(header, pooling, asked, there)
    return fit.choose(header, asked, there)


def allowed(free: Sequence[int], max_vram_mb: int | None) -> tuple[int, ...]:
    """Return what of each GPU may be taken, the first ones first."""
    if max_vram_mb is None:
        return tuple(free)
    left, taken = max_vram_mb * MIB, []
    for size in free:
        taken.append(min(size, left))
        left -= taken[-1]
    return tuple(taken)
