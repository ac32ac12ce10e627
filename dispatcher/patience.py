"""How stubborn a dispatcher is, and what it remembers of vendors that failed."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import attrs

from llmdispatcher.breakers import Breakers
from llmdispatcher.hedging import Hedging
from llmdispatcher.limits import Limiters
from llmdispatcher.models.errors import Cancelled
from llmdispatcher.models.policy import BreakerPolicy, RetryPolicy
from llmdispatcher.release import Stopper
from llmdispatcher.steps import Step, Wait

if TYPE_CHECKING:
    from concurrent.futures import Future


RETRY, BREAKER = RetryPolicy(), BreakerPolicy()
"""What holds where the user sets nothing else."""


@attrs.frozen(kw_only=True)
class Patience:
    """Of one dispatcher."""

    retry: RetryPolicy = attrs.field(factory=RetryPolicy)
    breakers: Breakers = attrs.field(factory=Breakers)
    limiters: Limiters = attrs.field(factory=Limiters)
    hedging: Hedging = attrs.field(factory=Hedging)
    draw: Callable[[], float] = random.random
    """Random in [0, 1); for jitter, which nobody gains by guessing."""


def pause(stopper: Stopper, wait_s: float) -> Generator[Step, Any, None]:
    """Wait so long, unless the request is stopped meanwhile: then Cancelled is raised."""
    from concurrent.futures import Future  # noqa: PLC0415 - 10 ms at import, and few pause

    ends: list[Future[None]] = [Future()]
    future = ends[0]

    def stop() -> None:
        if ends:  # once: whoever is stopped twice is stopped
            ends.pop().set_exception(Cancelled())

    stopper.arm(stop)
    try:
        with contextlib.suppress(TimeoutError):  # the pause is over
            yield Wait(future, wait_s)
    finally:
        ends.clear()
