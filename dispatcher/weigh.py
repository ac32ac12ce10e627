"""Has local models that cost money count a prompt with their own tokenizers, before it is ranked.

What is free needs no count, and asking vendors over HTTP before each request would take longer than
it saves: of those the bytes of a token are learned from usage (``history``). No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from llmdispatcher.look import wait
from llmdispatcher.release import Stopper
from llmdispatcher.steps import Flow

if TYPE_CHECKING:
    from concurrent.futures import Future

PATIENCE_S = 0.2
"""For a model that is in the middle of a step; then its tokens are estimated."""

Counts = Mapping[str, int]
"""Tokens of a prompt by the name of a model."""


def first(
    counting: Mapping[str, Future[int | None]], serve: Callable[[Counts], Flow], stopper: Stopper
) -> Flow:
    """Return the flow that waits for the counts, and then serves with those that came."""
    yield from wait([*counting.values()], PATIENCE_S, stopper)
    counts = {}
    for name, counted in counting.items():
        if counted.done() and counted.exception() is None and (told := counted.result()):
            counts[name] = told
    return (yield from serve(counts))
