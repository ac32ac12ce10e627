"""What a worker is held to by the system, from the plan of its model and the user's limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmdispatcher.vendors.llamacpp.limits import caps
from llmdispatcher.vendors.llamacpp.limits.caps import Caps, Measure

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.files.header import Header
    from llmdispatcher.vendors.llamacpp.plan.fit import Plan

STACK_MIB = 2
"""Of each of llama.cpp's threads in a worker (OMP_STACKSIZE): RLIMIT_DATA counts all of it, used or
not. macOS gives threads a quarter of that, and llama.cpp runs there."""

THREAD_BYTES = (STACK_MIB * 2**20 * 9) // 8
"""What counts for each thread: its stack, and what malloc sets aside for it."""

ROOM_BYTES = 8 * 2**20
"""Address space that counts and is hardly touched: the stack of one more thread of Python's."""


def held(plan: Plan, header: Header, room: dict[str, Any]) -> tuple[Measure, ...]:
    """Hold this process to ``room``: memory_bytes (or None) and gives_way. Returns how."""
    mapped = header.weight_bytes if plan.mapped else 0
    return caps.hold(
        Caps(
            memory_bytes=room["memory_bytes"],
            mapped_bytes=mapped,
            reserved_bytes=ROOM_BYTES + plan.threads * THREAD_BYTES,
            gives_way=bool(room["gives_way"]),
            uses_gpu=plan.gpu_layers > 0,
        )
    )
