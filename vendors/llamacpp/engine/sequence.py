"""A request's tokens and where it stands. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llmdispatcher.vendors.llamacpp.engine.voice import Voice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmdispatcher.vendors.llamacpp.engine.backend import Adapting, Constraint, Picture, Sampler
    from llmdispatcher.vendors.llamacpp.engine.guessing import Memory
    from llmdispatcher.vendors.llamacpp.engine.inbox import EngineCall


class Sequence:
    """One reply being made: a request's only one, or one of the ``n`` that it asks for."""

    __slots__ = (
        "accepted",
        "adapters",
        "call",
        "constraint",
        "deadline_s",
        "draft",
        "exact",
        "index",
        "left",
        "memory",
        "number",
        "overtaken",
        "pictures",
        "position",
        "priority",
        "sampler",
        "slot",
        "tokens",
        "voice",
    )

    def __init__(self, call: EngineCall, index: int, tokens: list[int], limit: int) -> None:
        self.call = call
        self.index = index
        """Which of the replies to the request."""
        self.tokens = tokens
        """The prompt, and what was drawn after it."""
        self.position = 0
        """How many of the tokens are decoded."""
        self.left = limit
        """Tokens that may still be drawn."""
        self.voice = Voice(index)
        self.constraint: Constraint | None = None
        """What it must match; given to the sampler once it has one."""
        self.sampler: Sampler | None = None
        self.adapters: Adapting = ()
        self.pictures: Mapping[int, Picture] = {}
        """What the prompt shows, by the first of the tokens that stand for it."""
        self.draft: list[int] = []
        """Guesses at the next tokens, for the next step."""
        self.accepted = 0
        """How many of the last guesses were right."""
        self.memory: Memory | None = None
        """What guesses are made of, once there are any."""
        self.slot = -1
        """Where it is decoded; -1 while it waits."""
        self.priority = 0
        self.deadline_s = math.inf
        """When its caller stops waiting, in seconds of the monotonic clock."""
        self.number = 0
        """Requests are numbered as they come."""
        self.overtaken = 0
        """How many that came later were served before it."""
        self.exact = False
        """Whether it must not depend, to the last bit, on what was asked before it."""

    @property
    def is_reading(self) -> bool:
        """Whether more than one token is to be decoded before the next can be drawn."""
        return self.position < len(self.tokens) - 1


def common(a: list[int], b: list[int], limit: int) -> int:
    """Return with how many equal tokens two lists begin, ``limit`` at most."""
    limit = min(limit, len(a), len(b))
    if a[:limit] == b[:limit]:
        return limit
    low = 0  # so many are equal; comparing slices is a hundred times as fast as a loop
    while limit - low > 1:
        middle = (low + limit) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            limit = middle
    return low
