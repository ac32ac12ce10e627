"""What a flow may ask of whoever drives it. See ``flow``, and ``drive``, which does it."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import attrs

from llmdispatcher.vendors.contract import Call

if TYPE_CHECKING:
    from concurrent.futures import Future


@attrs.frozen
class Wait:
    """Wait for a future that another thread completes."""

    future: Future[Any]
    timeout_s: float | None


@attrs.frozen
class Receive:
    """Wait for the next pieces of a call; answered with a sequence of at least one piece."""

    call: Call
    timeout_s: float | None


@attrs.frozen
class Emit:
    """Show the caller something: a piece of the reply, or a whole result that has no pieces."""

    shown: Any


Step = Wait | Receive | Emit
Flow = Generator[Step, Any, Any]
