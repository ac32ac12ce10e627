"""How a vendor is, seen by the dispatcher: what its engine says, and what only others know. Pure.

An engine does not know of requests that wait for its model to be loaded, nor how long replies took.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from llmdispatcher.usage import Figures
from llmdispatcher.vendors.contract import State, Status

_SERVING = frozenset({State.READY, State.BUSY})
_AWAY = frozenset({State.ABSENT, State.LOADING, State.RESTARTING, State.FAILED})


@attrs.frozen(kw_only=True)
class Queue:
    """Those who wait for a vendor's models to be loaded."""

    waiting: int = 0
    load_s: float | None = None
    """How long the last load took."""


def complete(status: Status, queue: Queue, figures: Sequence[Figures]) -> Status:
    """Return a local vendor's status with the queue and the expected wait filled in."""
    detail = status.detail
    if queue.waiting and status.state is State.ABSENT:
        detail = detail or "waits for its turn to be loaded"
    expected_wait_s = status.expected_wait_s
    if expected_wait_s is None:
        expected_wait_s = _expected_wait_s(status, queue, figures)
    return attrs.evolve(
        status,
        detail=detail,
        waiting=status.waiting + queue.waiting,
        expected_wait_s=expected_wait_s,
    )


def _expected_wait_s(status: Status, queue: Queue, figures: Sequence[Figures]) -> float | None:
    """Guess by Little's law: places in the queue come free as fast as replies end."""
    if status.state in _AWAY:
        return queue.load_s  # all who wait for a load are let in together
    if status.state not in _SERVING:
        return None
    if not status.waiting:
        return 0.0
    served = sum(each.served for each in figures)
    if not served:
        return None
    latency_s = sum(each.latency_s for each in figures) / served
    return status.waiting * latency_s / max(1, status.running)
