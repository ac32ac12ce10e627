"""A child process and the line to it, opened and closed together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import attrs

from llmdispatcher.models.errors import DispatcherError, VendorError
from llmdispatcher.vendors.llamacpp.child import spawn
from llmdispatcher.vendors.llamacpp.worker import ends
from llmdispatcher.vendors.llamacpp.worker.command import command, environment
from llmdispatcher.vendors.llamacpp.worker.link import MAX_ANSWER_BYTES, Link, Outgoing

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

    def hang_up(self) -> None:
        """Let nothing through any more: at the latest now the child ends by itself."""
        self.outgoing.end()
        self.link.shut()

    def close(self) -> None:
        """Let go of everything. The child must have ended."""
        self.hang_up()
        self.outgoing.join()
        self.link.close()  # when nobody writes: the descriptor may be another's from here on
        self.child.forget()


def open_line(given: Sequence[str] | None) -> Line:
    """Start a worker. Call it in the thread that owns the worker, and outlives it.

    Raises ExecutableNotFound, OutOfMemory where the system has no room for a process, and another
    VendorError where it refuses for another reason.
    """
    with ExitStack() as undo:
        try:
            ours, theirs = ends.pair()
        except OSError as error:
            raise VendorError(f"no line to a worker could be made: {error.strerror}") from None
        undo.callback(ours.close)
        with closing(theirs):
            child = spawn.start(
                spawn.Order(
                    command=command(given, theirs.fileno()),
                    environment=environment(),
                    kind="worker",
                    pass_fds=(theirs.fileno(),),
                    dies_itself=True,
                )
            )
        undo.callback(child.forget)
        link = Link(ours, MAX_ANSWER_BYTES)
        line = Line(child, link, Outgoing(link))
        undo.pop_all()
    return line
