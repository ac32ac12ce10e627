"""How a plan is told: bytes by part, what was chosen, and why, in plain text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs

from llmdispatcher.vendors.llamacpp.plan.estimate import (
    MIB,
    Use,
    has_states,
    ties_factors_to_cells,
)

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.files.header import Header
    from llmdispatcher.vendors.llamacpp.plan.fit import Asked, Machine, Plan

_PARTS = {
    "weights": "the model itself",
    "kv_cache": "what it remembers of each token",
    "recurrent": "what it remembers of each conversation",
    "compute": "work space",
    "output": "scores of the next tokens",
    "tokenizer": "tables of words",
    "bookkeeping": "llama.cpp's own",
    "beside": "images, adapters",
    "process": "a process of its own",
    "total": "",
    "limit": "",
    "free": "",
}
_GAP = "  "


def shown(plan: Plan) -> str:
    """Return a plan as plain text."""
    chosen = "\n".join(f"{name:<12}{value:>9}{_GAP}{what}" for name, value, what in _choices(plan))
    lines = [_sizes(plan), chosen]
    if plan.notes:
        lines.append("\n".join(f"- {note}" for note in plan.notes))
    return "\n\n".join(lines) + "\n"


def _sizes(plan: Plan) -> str:
    """Return the table of bytes; a part that takes nothing is left out."""
    columns = [("MiB", plan.need)]
    if plan.gpu_need is not None:
        columns.append(("GPU MiB", plan.gpu_need))
    rows = [("", [head for head, _ in columns], "")]
    for name, what in _PARTS.items():
        sizes = [need.parts.get(name, 0) for _, need in columns]
        if name == "total":
            sizes = [need.total_bytes for _, need in columns]
        elif name == "limit":
            sizes = [plan.limit_bytes]
        elif name == "free":
            sizes = [plan.limit_bytes - plan.need.total_bytes]
        elif not any(sizes):
            continue
        rows.append((name, [f"{size / MIB:,.1f}" for size in sizes], what))
    width = len(columns)
    return "\n".join(
        f"{name:<12}{''.join(f'{cell:>11}' for cell in cells):<{11 * width}}{_GAP}{what}".rstrip()
        for name, cells, what in rows
    )


def _choices(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """Name what was chosen, with what it means."""
    yield "context", f"{plan.context_tokens:,}", "tokens of the longest conversation"
    yield "cells", f"{plan.cells:,}", "tokens of all conversations together"
    yield "parallel", f"{plan.parallel}", "answers at once"
    yield "slots", f"{plan.slots}", "conversations, with finished ones that are remembered"
    yield "batch", f"{plan.batch_tokens}", "tokens that are read in one step"
    yield "cache type", plan.cache_type, "how the kv_cache is stored"
    if not plan.full_window:
        yield "window", "short", "layers with a sliding window keep only that"
    yield "file", "mapped" if plan.mapped else "read", "how the weights get into memory"
    yield "GPU layers", f"{plan.gpu_layers}", "layers that a GPU computes"
    yield "threads", f"{plan.threads}", "at most; fewer while the machine is busy"


@attrs.frozen
class Why:
    """What a plan came from."""

    header: Header
    asked: Asked
    machine: Machine
    best: Plan
    """What would have been taken if memory were no matter."""


def notes(why: Why, plan: Plan) -> tuple[str, ...]:
    """Say in plain words why each choice was made."""
    return (
        _limit_note(why, plan),
        _context_note(why, plan),
        _parallel_note(why, plan),
        *_cells_notes(why, plan),
        *_weights_notes(why, plan),
        *_gpu_notes(why, plan),
        _threads_note(why, plan),
    )


def _limit_note(why: Why, plan: Plan) -> str:
    if plan.limit_bytes == why.asked.limit_bytes:
        return "limit: as asked"
    return "limit: what is free now, less a reserve for other programs"


def _context_note(why: Why, plan: Plan) -> str:
    tokens, trained = plan.context_tokens, why.header.context_length
    if why.asked.context_tokens is not None:
        more = trained is not None and tokens > trained
        warning = f"; the model was trained for {trained:,}, and gets worse beyond" if more else ""
        return f"context: as asked{warning}"
    if tokens < why.best.context_tokens:
        return f"context: not {why.best.context_tokens:,} tokens, because memory is short"
    if trained is None:
        return "context: a usual length; the file does not say what the model was trained for"
    if tokens < trained:
        return f"context: a usual length; the model was trained for {trained:,}, which can be asked"
    return "context: all that the model was trained for"


def _parallel_note(why: Why, plan: Plan) -> str:
    if plan.parallel < why.best.parallel or plan.slots < why.best.slots:
        return (
            f"parallel: not {why.best.parallel} at once and {why.best.slots} slots in all, because"
            " memory is short"
        )
    if why.asked.max_parallel == plan.parallel:
        return "parallel: as asked"
    if why.asked.max_parallel is not None:
        return "parallel: fewer than asked, as many as llama.cpp takes in one step"
    if has_states(why.header):
        size = why.best.need.recurrent / why.best.slots / MIB
        return f"parallel: few, since each slot of this model takes {size:,.1f} MiB"
    return "parallel: as many as make good use of a processor; others wait for their turn"


def _cells_notes(why: Why, plan: Plan) -> Iterator[str]:
    if plan.cells > plan.context_tokens:
        whole = plan.cells / plan.context_tokens
        yield f"cells: room for {whole:.1f} conversations of full length; others wait"
    elif plan.parallel > 1 and ties_factors_to_cells(why.header):
        yield "cells: no more than the context, since this model computes otherwise with more"
    elif plan.parallel > 1:
        yield "cells: no more than the context, because memory is short; conversations share them"
    if not plan.full_window:
        yield "window: short, because memory is; a conversation that goes on is read again"


def _weights_notes(why: Why, plan: Plan) -> Iterator[str]:
    if plan.batch_tokens < min(why.best.cells, Use().batch_tokens):
        yield "batch: small, since processors take seconds for more with so large a model"
    if not plan.mapped:
        yield (
            "file: read, since the processor wants these weights in another order: mapped, they"
            " would be in memory twice"
        )


def _gpu_notes(why: Why, plan: Plan) -> Iterator[str]:
    whole, most = why.header.block_count + 1, why.asked.max_gpu_layers
    if most == 0:
        yield "GPU layers: none, as asked"
    elif not why.machine.gpus:
        yield "GPU layers: none; this llama.cpp has no GPU that it can use"
    elif plan.gpu_layers == 0:
        yield f"GPU layers: none; not one of {whole} fits there with a margin"
    elif plan.gpu_layers == most:
        yield f"GPU layers: as asked, of {whole}"
    elif plan.gpu_layers < whole:
        yield f"GPU layers: as many of {whole} as fit there with a margin"
    else:
        yield "GPU layers: all"
    if plan.gpu_layers:
        yield "GPU MiB: an estimate that was never compared with a real GPU"


def _threads_note(why: Why, plan: Plan) -> str:
    if why.asked.max_threads == plan.threads:
        return "threads: as asked"
    if plan.threads < why.machine.processors:
        return "threads: one, since the model is so small that more would only wait for each other"
    return "threads: the processors that can work at once"
