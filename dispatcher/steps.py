"""What a flow may ask of whoever drives it. See ``flow``, and ``drive``, which does it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Protocol

import attrs

if TYPE_CHECKING:
    from concurrent.futures import Future

    from llmdispatcher.fork import Branches
    from llmdispatcher.release import Stopper


class Source(Protocol):
    """What pieces can be received from: a ``Call``, or the branches of a flow."""

    def receive(self, timeout_s: float | None) -> Sequence[Any]:
        """See ``contract.Call.receive``."""

    async def areceive(self, timeout_s: float | None) -> Sequence[Any]:
        """See ``contract.Call.areceive``."""


@attrs.frozen
class Wait:
    """Wait for a future that another thread completes."""

    future: Future[Any]
    timeout_s: float | None


@attrs.frozen
class Receive:
    """Wait for the next pieces of a call; answered with a sequence of at least one piece."""

    call: Source
    timeout_s: float | None


@attrs.frozen
class Emit:
    """Show the caller something: a piece of the reply, or a whole result that has no pieces."""

    shown: Any


@attrs.frozen(eq=False)
class Fork:
    """Run another flow beside this one, among its branches; answered with the branch's number.

    Whatever the branch does and comes to is news that ``Receive(branches, …)`` brings. When this
    flow has ended, however it did, the driver stops what still runs and waits for its end.
    """

    branches: Branches
    flow: Flow
    """Not yet begun."""
    stopper: Stopper
    """What the flow arms: so it can be stopped by itself."""


class Sign(Enum):
    """What an attempt emits where ``Job.signs`` asks for it."""

    ASKED = auto()
    """It was loaded, its turn has come, and it was sent."""
    BEGAN = auto()
    """Its first piece has come, of a reply that is not streamed."""


Step = Wait | Receive | Emit | Fork
Flow = Generator[Step, Any, Any]
