"""Tells a leak from what an allocator keeps: a leak grows every time, the other once."""

from __future__ import annotations

import gc
from collections.abc import Callable

import psutil

WINDOWS = 3
"""So often the same work is measured, if need be."""


def growth_bytes(work: Callable[[int], object], count: int, enough_bytes: int) -> int:
    """Do work ``count`` times, after a warm-up; returns how much memory of its own that added.

    Of up to three such turns it is the one that added least; the first that added less than
    ``enough_bytes`` is the last.
    """
    process = psutil.Process()
    for index in range(count // 5):
        work(index)
    least = 2**63
    for window in range(WINDOWS):
        gc.collect()
        before = process.memory_full_info().uss
        for index in range(count):
            work((window + 1) * count + index)
        gc.collect()
        least = min(least, int(process.memory_full_info().uss - before))
        if least < enough_bytes:
            break
    return least
