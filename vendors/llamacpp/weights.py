"""In which order llama.cpp may keep weights here: the file's, or one that is faster to compute on.

It must be the file's where the build's own way of computing with the other ends the process. That
is known of Intel's matrix tiles (AMX): GCC before 11.5, 12.4, 13.3 and 14.1 loses most of what
``_tile_loadconfig`` is given (GCC bug 114098), so that the first prompt of a model with quantised
weights is a general protection fault. A trial in a throw-away child finds out.
"""

from __future__ import annotations

import os
from enum import StrEnum

from llmdispatcher.vendors.llamacpp import processor

VARIABLE = "LLMDISPATCHER_WEIGHTS"
"""Says it in the environment of a process that is not to find out by itself."""


class Packing(StrEnum):
    """How weights may be kept."""

    PLAIN = "plain"
    """As the file has them."""
    PACKED = "packed"
    """In an order of their own, for some types."""
    TILED = "tiled"
    """For more types: in tiles as well."""


def has_tiles() -> bool:
    """Whether this processor has the units whose code some compilers spoil."""
    return processor.flags() >= processor.TILES


def packing() -> Packing:
    """Return how llama.cpp may keep weights in this process.

    The first time, where the processor has tiles, this starts a process and waits for it; see
    ``trial.try_library``.
    """
    try:
        return Packing(os.environ.get(VARIABLE, ""))
    except ValueError:
        pass  # nobody has said it
    if not has_tiles():
        return Packing.PACKED
    from llmdispatcher.vendors.llamacpp import trial  # noqa: PLC0415 - few processors need one

    return trial.packing()
