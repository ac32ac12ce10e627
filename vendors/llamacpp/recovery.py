"""What to do after a model's host died: when to try again, and with how much less. Pure.

One life after another is told to a ``Recovery``. Crashes in a row, with nothing served between
them, make the next start wait, longer each time, and at last make it refuse for a while: a model
that dies at each request must not keep a processor busy loading. A life that ran out of memory is
followed by one on the next *rung*, which takes less (see ``plan.squeeze``).
"""

from __future__ import annotations

from llmdispatcher.models.errors import (
    BadReply,
    BreakerOpen,
    DispatcherError,
    EngineCrashed,
    OutOfMemory,
    TimedOut,
)
from llmdispatcher.vendors.llamacpp.plan.squeeze import RUNGS

CRASHES = (EngineCrashed, TimedOut, BadReply, OutOfMemory)
"""How a host dies. Everything else that ends one is a load that failed for a reason that waiting
does not change, such as a file that is no model."""

FIRST_WAIT_S = 0.5
"""After the second crash in a row, doubled after each further one. The first restart is at once:
most crashes are of one request, which does not come back."""
MOST_WAIT_S = 30.0

MOST_CRASHES = 5
"""In a row; then it is left alone for REST_S, and after each further one for twice as long."""
REST_S = 30.0
MOST_REST_S = 600.0


class Recovery:
    """Remembers how a model's last lives ended. Not safe for threads."""

    def __init__(self) -> None:
        self.crashes = 0
        """In a row, with nothing served between them."""
        self.rung = 0
        """How much less the next life is to take."""
        self._ended_s = 0.0
        self._last: DispatcherError | None = None

    def ended(self, error: DispatcherError, *, served: bool, now_s: float) -> None:
        """Note the end of a life; ``served``: whether it ever finished a request."""
        self._ended_s, self._last = now_s, error
        if served:
            self.crashes = 0
        if isinstance(error, OutOfMemory) and self.rung < RUNGS:
            self.rung += 1  # the next is another plan, so this one says nothing about it
        elif isinstance(error, CRASHES):
            self.crashes += 1
        else:
            self.crashes = 0

    def wait_s(self, now_s: float, spread: float) -> float:
        """Return how long to wait before the next start.

        ``spread``, from 0 to 1, shortens the pause by up to a half, so that several programs that
        died together do not start together.
        """
        if self.crashes < 2:  # noqa: PLR2004 - the first restart is at once
            return 0.0
        pause_s = min(MOST_WAIT_S, FIRST_WAIT_S * 2.0 ** (self.crashes - 2))
        return max(0.0, self._ended_s + pause_s * (1 - spread / 2) - now_s)

    def refusal(self, now_s: float) -> BreakerOpen | None:
        """Return why not to try now, if so."""
        if self.crashes < MOST_CRASHES:
            return None
        rest_s = min(MOST_REST_S, REST_S * 2.0 ** (self.crashes - MOST_CRASHES))
        left_s = self._ended_s + rest_s - now_s
        if left_s <= 0:
            return None
        return BreakerOpen(
            f"the model died {self.crashes} times in a row and is left alone for {left_s:.0f} s"
            f" more; the last time: {self._last}",
            retry_after_s=left_s,
        )
