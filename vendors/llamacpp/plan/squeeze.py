"""What to give up after running out of memory, rung by rung. Pure.

A plan is an estimate, and other programs take memory too. When a model that was planned to fit ran
out of memory all the same, the next plan must take less, whatever the numbers said. First goes what
only makes it faster, then how many are served at once, and last what a single caller would miss.
"""

from __future__ import annotations

from typing import Any

import attrs

from llmdispatcher.vendors.llamacpp.files.header import Header
from llmdispatcher.vendors.llamacpp.plan.fit import (
    DEFAULT_CONTEXT_TOKENS,
    DEFAULT_PARALLEL,
    LEAST_CONTEXT_TOKENS,
    Asked,
)

RUNGS = 4
"""1: smaller batches, nothing remembered of finished conversations, no guesses. 2: a quarter of the
conversations at once. 3: a quarter of the context, where it was not asked for, and half of the
layers on GPUs. 4: the least context, and nothing on GPUs."""

SQUEEZED_BATCH_TOKENS = 64
"""An eighth of the usual batch, and of its work space; prompts take longer to read."""


def squeezed(asked: Asked, header: Header, rung: int) -> Asked:
    """Return what to ask for on a rung; 0 is what the user asked for."""
    given: dict[str, Any] = {}
    if rung >= 1:
        given |= {"batch_tokens": SQUEEZED_BATCH_TOKENS, "retained": 0, "more_rows": 0}
    if rung >= 2:  # noqa: PLR2004 - rungs are told in RUNGS
        given["max_parallel"] = max(1, (asked.max_parallel or DEFAULT_PARALLEL) // 4)
    if rung >= 3:  # noqa: PLR2004
        layers = header.block_count + 1 if asked.max_gpu_layers is None else asked.max_gpu_layers
        given["max_gpu_layers"] = layers // 2 if rung < RUNGS else 0
        if asked.context_tokens is None:
            most = min(header.context_length or DEFAULT_CONTEXT_TOKENS, DEFAULT_CONTEXT_TOKENS)
            less = most // 4 if rung < RUNGS else LEAST_CONTEXT_TOKENS
            given["context_tokens"] = min(most, max(LEAST_CONTEXT_TOKENS, less))
    return attrs.evolve(asked, **given)
