"""A child process and the line to it, opened and closed together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from llmdispatcher.models.errors import DispatcherError
from llmdispatcher.vendors.llamacpp.child import spawn
from llmdispatcher.vendors.llamacpp.worker.command import command, environment
from llmdispatcher.vendors.llamacpp.worker.link import Link, Outgoing

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.child.spawn import Child


@attrs.frozen
class Line:
    """What the parent holds of a worker."""

    child: Child
    link: Link
    outgoing: Outgoing

    def tell(
        self, message: list[Any], refuse: Callable[[DispatcherError], None] = lambda _: None
    ) -> None:
        """Send a message, without waiting; ``refuse`` is told if it cannot be sent."""
        self.outgoing.put(lambda: message, refuse)

    def close(self) -> None:
        """Let go of everything. The child must have ended."""
        self.outgoing.end()
        self.link.close()
        self.outgoing.join()
        self.child.forget()


def open_line(given: Sequence[str] | None) -> Line:
    """Start a worker. Call it in the thread that owns the worker, and outlives it.

    Raises ExecutableNotFound, and OutOfMemory where the system has no room for a process.
    """
    from multiprocessing.connection import Pipe  # noqa: PLC0415 - first use

    ours, theirs = Pipe()
    try:
        child = spawn.start(
            spawn.Order(
                command=command(given, theirs.fileno()),
                environment=environment(),
                kind="worker",
                pass_fds=(theirs.fileno(),),
                dies_itself=True,
            )
        )
    except DispatcherError:
        ours.close()
        raise
    finally:
        theirs.close()
    link = Link(ours)
    return Line(child, link, Outgoing(link))
