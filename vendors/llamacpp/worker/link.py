"""Whole messages between this process and a worker, over one pair of pipes that nobody else uses.

Both ends use the connections of ``multiprocessing``, for their framing and for Windows, and nothing
else of it. A peer that is gone is ``Gone`` on either side; what it wrote that is no message raises
``codec.Garbled``. Never file descriptors 0 and 1: native code prints there.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmdispatcher.models.errors import DispatcherError
from llmdispatcher.vendors.llamacpp.worker import codec

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

PROTOCOL = 1
"""Counts the changes of what messages mean. Both ends must have the same."""

MAX_MESSAGE_BYTES = 1024 * 2**20
"""Of one message: the largest are requests with images, and vectors of two thousand texts."""

MAX_OUTGOING = 65_536
"""Messages that wait to be written; requests are bounded by ``inbox.MAX_WAITING`` long before."""


class Gone(Exception):
    """The other end is closed."""


class Link:
    """One end. Messages may be sent from any thread and are received by one."""

    def __init__(self, connection: Connection[bytes, bytes]) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, message: list[Any]) -> None:
        """Write a message; waits while the pipe is full. Raises Gone, and BadRequest."""
        data = codec.encode(message)
        try:
            with self._sending:
                self._connection.send_bytes(data)
        except (OSError, ValueError) as error:
            raise Gone(str(error)) from None

    def receive(self) -> list[Any]:
        """Wait for the next message. Raises Gone at the end, and Garbled."""
        try:
            data = self._connection.recv_bytes(MAX_MESSAGE_BYTES)
        except EOFError:
            raise Gone("the other end was closed") from None
        except OSError as error:
            if error.errno is None:  # it is not the system's: a length that cannot be
                raise codec.Garbled(str(error)) from None
            raise Gone(str(error)) from None
        return codec.decode(data)

    def is_ready(self, wait_s: float) -> bool:
        """Wait for something to receive, which may be the end."""
        try:
            return self._connection.poll(wait_s)
        except (OSError, EOFError):
            return True  # and ``receive`` says what it is

    def close(self) -> None:
        """Close this end."""
        self._connection.close()


class Outgoing:
    """Messages on their way out of a process whose threads must not wait for the other end."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._changed = threading.Condition()
        self._messages: deque[tuple[Callable[[], list[Any]], Callable[[DispatcherError], None]]]
        self._messages = deque(maxlen=MAX_OUTGOING)
        self._ends = False
        self._thread = threading.Thread(target=self._run, name="llama-outgoing", daemon=True)
        self._thread.start()

    def put(
        self,
        make: Callable[[], list[Any]],
        refuse: Callable[[DispatcherError], None] = lambda _: None,
    ) -> None:
        """Send what ``make`` returns, soon; ``refuse`` is told if that cannot be sent."""
        with self._changed:
            self._messages.append((make, refuse))
            self._changed.notify()

    def end(self) -> None:
        """Send no more."""
        with self._changed:
            self._ends = True
            self._changed.notify()

    def join(self) -> None:
        """Wait for the thread, whose link is closed."""
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
