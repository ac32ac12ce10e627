"""How a server is to run a model: every number that decides what memory it takes. Pure.

``made`` turns a plan into them. What a plan of ours does not know is bounded here: the prompt cache
in main memory, which llama-server would let grow to 8 GiB, and the checkpoints of models that
cannot go back in a conversation.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from llmdispatcher.vendors.llamacpp.plan.estimate import MIB, has_states, has_windows

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.embedding.pooling import Pooling
    from llmdispatcher.vendors.llamacpp.files.header import Header
    from llmdispatcher.vendors.llamacpp.plan.fit import Plan
    from llmdispatcher.vendors.llamacpp.vendor import LlamaCpp

MAX_CACHE_MIB = 1024
"""Of prompts that are remembered in main memory: some conversations of a usual model."""

SPARE_PART = 2
"""Of what the limit leaves beside the plan, one part in so many may be a cache: the plan is an
estimate, and the server looks at the limit of its cache only after it has put something in."""

MAX_CHECKPOINTS = 4
"""For each conversation: so many places to go back to, where the model keeps states."""


@attrs.frozen(kw_only=True)
class Settings:
    """What to tell a server; llama-server's flags in brackets."""

    model: Path
    alias: str
    """What it calls the model [--alias]; else it tells everybody the path."""
    context_tokens: int
    """The longest conversation [--kv-unified-per-slot]."""
    cells: int
    """Tokens of all conversations together [--ctx-size]."""
    slots: int
    """Conversations that are held [--parallel]."""
    parallel: int
    """Conversations that are answered at once; the host keeps the others waiting."""
    batch_tokens: int
    """[--batch-size, --ubatch-size]"""
    threads: int
    gpu_layers: int
    cache_type: str
    mapped: bool
    packs: bool = True
    """Weights may be kept in an order of the server's own [--no-repack]; see ``weights``."""
    full_window: bool = False
    """[--swa-full]; only where the model has windows."""
    cache_mib: int = 0
    """[--cache-ram]"""
    checkpoints: int = 0
    """[--ctx-checkpoints]"""
    projector: Path | None = None
    adapters: tuple[Path, ...] = ()
    pooling: str | None = None
    """One of ``pooling.POOLINGS``: it makes vectors or scores, and writes nothing."""
    template: str | None = None
    """Jinja source instead of the file's own."""


def made(
    spec: LlamaCpp, alias: str, header: Header, plan: Plan, pooling: Pooling | None
) -> Settings:
    """Say what to tell a server so that it runs a model as planned."""
    spare = max(0, plan.limit_bytes - plan.need.total_bytes) // SPARE_PART
    longest = plan.need.kv_cache * plan.context_tokens // max(1, plan.cells) + plan.need.recurrent
    goes_back = has_states(header) or (has_windows(header) and not plan.full_window)
    checkpoints = 0
    if goes_back and pooling is None and plan.parallel * longest:
        checkpoints = min(MAX_CHECKPOINTS, spare // (plan.parallel * longest))
        spare -= checkpoints * plan.parallel * longest
    spare -= longest  # it is told of its limit only after another one was put in
    writes = pooling is None
    slots = plan.slots
    if pooling is not None and pooling.has_cache:
        # texts that were read stay in the cache until their slot is used anew: as many slots as
        # the cache holds of the longest, or the server fails them all when it is full
        slots = max(1, min(slots, plan.cells // plan.context_tokens))
    return Settings(
        model=spec.model_path.absolute(),
        alias=alias,
        context_tokens=plan.context_tokens,
        cells=plan.cells,
        slots=slots,
        parallel=min(plan.parallel, slots),
        batch_tokens=plan.batch_tokens,
        threads=plan.threads,
        gpu_layers=plan.gpu_layers,
        cache_type=plan.cache_type,
        mapped=plan.mapped,
        full_window=plan.full_window and has_windows(header),
        cache_mib=min(MAX_CACHE_MIB, max(0, spare) // MIB) if writes else 0,
        checkpoints=checkpoints,
        projector=spec.projector_path if writes else None,
        adapters=tuple(path.absolute() for path in spec.adapters.values()) if writes else (),
        pooling=None if pooling is None else pooling.kind,
        template=spec.chat_template,
    )
