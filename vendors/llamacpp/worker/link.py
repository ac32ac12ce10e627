"""Whole messages between this process and a worker, over a line that nobody else uses.

A peer that is gone is ``Gone`` on either side; what it wrote that is no message raises
``codec.Garbled``. Never file descriptors 0 to 2: native code prints there.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmdispatcher.models.errors import DispatcherError, LimitReached, OutOfMemory
from llmdispatcher.vendors.llamacpp.worker import codec
from llmdispatcher.vendors.llamacpp.worker.ends import TooLong

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.worker.ends import End

PROTOCOL = 1
"""Counts the changes of what messages mean. Both ends must have the same."""

MAX_MESSAGE_BYTES = 1024 * 2**20
"""Of one message to a worker: the largest are requests with images."""

MAX_ANSWER_BYTES = 32 * 2**20
"""Of one message from a worker: the largest are the vectors of one step, a few megabytes. JSON
takes many times its length in memory, and what a worker says may be anything."""

MAX_OUTGOING = 65_536
"""Messages that wait to be written; requests are bounded by ``inbox.MAX_WAITING`` long before."""


class Gone(Exception):
    """The other end is closed."""


class Link:
    """One end. Messages may be sent from any thread and are received by one."""

    def __init__(self, end: End, most_bytes: int = MAX_MESSAGE_BYTES) -> None:
        """``most_bytes`` is the longest message that is received."""
        self._end, self._most_bytes = end, most_bytes
        self._sending = threading.Lock()

    def send(self, message: list[Any]) -> None:
        """Write a message; waits while the line is full. Raises Gone, and BadRequest."""
        data = codec.encode(message)
        if len(data) > MAX_MESSAGE_BYTES:
            raise codec.too_long(len(data), MAX_MESSAGE_BYTES)
        try:
            with self._sending:
                self._end.send(data)
        except OSError as error:
            raise Gone(str(error)) from None

    def receive(self, wait_s: float | None = None) -> list[Any] | None:
        """Return the next message; None if it has not come whole within so many seconds.

        Without a limit it waits. Raises Gone at the end, and Garbled.
        """
        try:
            data = self._end.receive(wait_s, self._most_bytes)
        except TooLong as error:
            raise codec.Garbled(str(error)) from None
        except (OSError, EOFError) as error:
            raise Gone(str(error) or "the other end was closed") from None
        return None if data is None else codec.decode(data)

    def shut(self) -> None:
        """Let nothing through any more; whoever waits to send is released."""
        self._end.shut()

    def close(self) -> None:
        """Close this end. Nobody may be sending."""
        self._end.close()


class Outgoing:
    """Messages on their way out of a process whose threads must not wait for the other end."""

    def __init__(self, link: Link) -> None:
        """Begin. Raises OutOfMemory where no thread can be started."""
        self._link = link
        self._changed = threading.Condition()
        self._messages: deque[tuple[Callable[[], list[Any]], Callable[[DispatcherError], None]]]
        self._messages = deque()
        self._ends = False
        self._thread = threading.Thread(target=self._run, name="llama-outgoing", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise OutOfMemory(f"no thread could be started to write to a worker: {error}") from None

    def put(
        self,
        make: Callable[[], list[Any]],
        refuse: Callable[[DispatcherError], None] = lambda _: None,
    ) -> None:
        """Send what ``make`` returns, soon; ``refuse`` is told if that cannot be sent."""
        with self._changed:
            is_full = len(self._messages) >= MAX_OUTGOING
            if not is_full:
                self._messages.append((make, refuse))
                self._changed.notify()
        if is_full:
            refuse(LimitReached(f"{MAX_OUTGOING} messages wait for the worker already"))

    def end(self) -> None:
        """Send no more."""
        with self._changed:
            self._ends = True
            self._changed.notify()

    def join(self) -> None:
        """Wait for the thread, whose link is shut."""
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._messages or self._ends):
                    self._changed.wait()
                if self._ends:
                    return
                make, refuse = self._messages.popleft()
            try:
                self._link.send(make())
            except DispatcherError as error:
                refuse(error)
            except Gone:
                return  # whoever reads the link learns it too
