"""What of a model goes to GPUs: whole layers, as llama.cpp would put them there.

Pure arithmetic over ``estimate``. The rules are those of load_tensors in llama-model.cpp: layers
move from the last one backwards, the output counts as one more, and what looks tokens up stays.
Several GPUs get layers in proportion to what is free on them. No GPU was ever at hand to compare
with, so the figures are estimates, and a margin is kept.
"""

from __future__ import annotations

import re

import attrs

from llmdispatcher.vendors.llamacpp.files.header import Header
from llmdispatcher.vendors.llamacpp.plan.estimate import (
    MIB,
    Need,
    Use,
    entry_bytes,
    estimate,
    kv_by_layer,
    states_by_layer,
    tied_embeddings,
)

MARGIN_BYTES = 1024 * MIB
MARGIN_PART = 10
"""Left free on each GPU, or such a part of what is free there if that is more: the driver's own
memory, and what the estimate of work space may miss. llama.cpp's --fit leaves 1024 MiB."""

_BLOCK = re.compile(r"blk\.(\d+)\.")
_NOTHING = Need(weights=0, kv_cache=0, recurrent=0, compute=0, output=0, tokenizer=0, bookkeeping=0)


@attrs.frozen(kw_only=True)
class Split:
    """What stays in main memory, and what goes to GPUs."""

    layers: int
    host: Need
    gpu: Need | None = None


def most_layers(
    header: Header, cells: int, use: Use, gpus: tuple[int, ...], asked: int | None
) -> int:
    """Return how many layers fit into the free bytes of all GPUs; ``asked`` is the most."""
    present = [free for free in gpus if free > 0]
    if not present or asked == 0:
        return 0
    sizes = [part.total_bytes for part in _moving(header, cells, use)]
    kept = estimate(header, cells, use).compute  # of each GPU
    if len(present) > 1:
        kept += max(sizes)  # a layer is not divided
    room = min(
        (free - max(MARGIN_BYTES, free // MARGIN_PART) - kept) * sum(present) // free
        for free in present
    )
    layers = 0
    for size in sizes[:asked]:
        room -= size
        if room < 0:
            break
        layers += 1
    return layers


def divide(header: Header, cells: int, use: Use, layers: int) -> Split:
    """Return what main memory and the GPUs need with so many layers there."""
    whole = estimate(header, cells, use)
    if layers == 0:
        return Split(layers=0, host=whole)
    moving = _moving(header, cells, use)
    moved = moving[:layers]
    gpu = attrs.evolve(
        _NOTHING,
        weights=sum(part.weights for part in moved),
        kv_cache=sum(part.kv_cache for part in moved),
        recurrent=sum(part.recurrent for part in moved),
        compute=whole.compute,
    )
    tied = tied_embeddings(header)  # are needed on both sides
    host = attrs.evolve(
        whole,
        weights=whole.weights - gpu.weights + (tied.size_bytes if tied else 0),
        kv_cache=whole.kv_cache - gpu.kv_cache,
        recurrent=whole.recurrent - gpu.recurrent,
        compute=entry_bytes(header, cells, use) if layers >= len(moving) else whole.compute,
    )
    return Split(layers=len(moved), host=host, gpu=gpu)


def _moving(header: Header, cells: int, use: Use) -> list[Need]:
    """List what can move, in the order in which it does: the output, then the layers backwards."""
    count = header.block_count
    weights = [0] * count
    tied = tied_embeddings(header)
    output = tied.size_bytes if tied else 0
    for tensor in header.tensors:
        block = _BLOCK.match(tensor.name)
        if block is not None and int(block[1]) < count:
            weights[int(block[1])] += tensor.size_bytes
        elif tensor.name.startswith("output"):
            output += tensor.size_bytes
    caches, states = kv_by_layer(header, cells, use), states_by_layer(header, use)
    return [
        attrs.evolve(_NOTHING, weights=output),
        *(
            attrs.evolve(_NOTHING, weights=weights[at], kv_cache=caches[at], recurrent=states[at])
            for at in reversed(range(count))
        ),
    ]
