"""How many requests at once a server bears, found out by trying. Pure.

Additive increase, multiplicative decrease: the rule that lets many who share something end up with
fair parts of all of it, each seeing only whether it was too much (Chiu and Jain 1989, "Analysis of
the increase and decrease algorithms for congestion avoidance"), as TCP does since Jacobson 1988. A
server that tells no limits says that it is too much by refusing, by falling silent, or by getting
slow, which TCP Vegas takes as the earliest sign (Brakmo and Peterson 1995).
"""

from __future__ import annotations

import attrs

from llmdispatcher.models import errors
from llmdispatcher.models.policy import Limits

START = 4.0
"""As many slots as llama-server and Ollama have by default."""

MOST = 64
"""What it grows to where the user says nothing; more at once is no local server."""

DECREASE = 0.5
"""As TCP."""

INFLATION = 3.0
"""Slower than its best by this factor is too slow. Replies that are drawn together are each slower
and still faster in all, so that being a little slower is no sign of anything."""

DRIFT = 0.05
"""Part of the way that the best pace moves towards each slower one, so that a server that became
slower for good is judged by what it is now."""

_SIGNS = (errors.Overloaded, errors.RateLimited, errors.OutOfMemory, errors.TimedOut)
_SLOW = frozenset({"connect", "first_token", "idle"})


def is_congestion(error: errors.DispatcherError) -> bool:
    """Whether an error says that there were too many requests at once."""
    if isinstance(error, errors.TimedOut):
        return error.phase in _SLOW
    return isinstance(error, _SIGNS)


@attrs.define(kw_only=True)
class Window:
    """How many may be under way now: at least 1, at most ``most``."""

    most: float
    size: float
    is_adaptive: bool
    best_pace_s: float | None = None
    cut: int = 0
    """The number of the newest request at the last decrease: those up to it still felt the old
    size, and one round of them halves it once."""

    def has_room(self, in_flight: int) -> bool:
        """Whether one more may go."""
        return in_flight < int(self.size)

    def served(self, number: int, in_flight: int, newest: int, pace_s: float | None) -> None:
        """Note a reply, of one of ``in_flight`` requests. ``pace_s`` is its own, if known.

        A pace is anything that is alike for all requests while the server has nothing else to do:
        seconds for a token of the reply.
        """
        if not self.is_adaptive:
            return
        if pace_s is not None and self._is_slow(pace_s):
            self.congested(number, newest)
        elif in_flight >= int(self.size):  # only who uses all of it learns whether more is borne
            self.size = min(self.most, self.size + 1 / self.size)

    def congested(self, number: int, newest: int) -> None:
        """Note that it was too much; ``newest`` is the number of the last request that went."""
        if self.is_adaptive and number > self.cut:
            self.size = max(1.0, self.size * DECREASE)
            self.cut = newest

    def _is_slow(self, pace_s: float) -> bool:
        best_s = self.best_pace_s
        if best_s is None or pace_s <= best_s:
            self.best_pace_s = pace_s
            return False
        self.best_pace_s = best_s + DRIFT * (pace_s - best_s)
        return pace_s > best_s * INFLATION


def window(limits: Limits) -> Window | None:
    """Make the window of a user's limits; None if nothing bounds how many go at once."""
    if limits.concurrency is None and not limits.adaptive:
        return None
    most = float(limits.concurrency or MOST)
    size = min(START, most) if limits.adaptive else most
    return Window(most=most, size=size, is_adaptive=limits.adaptive)
