"""What a request gives to waiting for local servers that are full. Pure.

``RetryPolicy.full_wait_s`` says how long in all; ``course`` says when, and whom to ask instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import attrs

from llmdispatcher.models.policy import RetryPolicy

MIN_WAIT_S = 0.05
"""Whoever is said to have room again at once is not asked again at once, round and round."""

SHARE = 4
"""Of a time that ends the request all these pauses take a fourth at most: who is paid, and what
fails there, needs the rest."""


@attrs.frozen
class Line:
    """What one request has given to waiting for local servers that are full, all of them."""

    pauses: int = 0
    waited_s: float = 0.0

    def pause_s(
        self, policy: RetryPolicy, least_s: float, room_s: float, draw: float
    ) -> float | None:
        """Return how long to wait now; None where that is too long, or it has been enough.

        The pauses double and fill ``full_wait_s``. None is shorter than ``least_s``, for which the
        server is taken to be full anyway, or longer than ``room_s``.
        """
        whole_s, most = policy.full_wait_s, policy.same_target
        if self.pauses >= most:
            return None
        share_s = whole_s * 2.0**self.pauses / (2.0**most - 1) * (1 - draw / 4)
        longest_s = min(whole_s - self.waited_s, room_s)
        pause_s = min(max(least_s + MIN_WAIT_S * draw, share_s, MIN_WAIT_S), longest_s)
        return pause_s if pause_s >= max(least_s, MIN_WAIT_S) else None

    def longer(self, wait_s: float) -> Line:
        """Return it after one more pause."""
        return Line(self.pauses + 1, self.waited_s + wait_s)

    def in_vain(self) -> Line:
        """Return it after a pause that nothing was sent after: others had come before."""
        return Line(max(0, self.pauses - 1), self.waited_s)

    def room_s(self, left_s: Iterable[float | None]) -> float:
        """Return how long a pause may be, where so much is left until the request ends.

        None is no end.
        """
        shares_s = [(each + self.waited_s) / SHARE for each in left_s if each is not None]
        return min(shares_s, default=math.inf) - self.waited_s


NOBODY_WAITED = Line()
