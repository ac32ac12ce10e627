"""Serves one request: asks the server, and hands on what comes, as it comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llmdispatcher.models.reply import Piece, Progress
from llmdispatcher.vendors.http.answer import ALIVE, Reading
from llmdispatcher.vendors.llamacpp.server import faults
from llmdispatcher.vendors.mailbox import fire

if TYPE_CHECKING:
    from llmdispatcher.vendors.http.transport import AsyncLine, Connections
    from llmdispatcher.vendors.llamacpp.server.call import ServerCall
    from llmdispatcher.vendors.llamacpp.server.wire import Asked

CONNECT_S = 5.0
"""To this machine, which answers at once or not at all."""

Prompted = Callable[[int], None]
"""Told how many tokens a prompt has."""


async def serve(
    connections: Connections, call: ServerCall, asked: Asked, prompted: Prompted
) -> None:
    """Have a request served, exchange by exchange.

    Raises a DispatcherError, and Broken or TooSlow where the connection fails.
    """
    reading = Reading(asked.exchanges, lambda head, body: faults.of_answer(head, body, reading.ask))
    while not reading.is_over:
        line = await connections.aopen(reading.ask, CONNECT_S)
        try:
            reading.begin(line.head)
            await _relay(line, reading, call, prompted)
        finally:
            await line.close()


async def _relay(line: AsyncLine, reading: Reading, call: ServerCall, prompted: Prompted) -> None:
    """Hand on the pieces of one answer."""

    def hand_on(pieces: list[Piece]) -> None:
        """Tell the consumer; comments say nothing here, since the server is looked at otherwise."""
        for piece in pieces:
            if isinstance(piece, Progress) and piece.phase == "prompt":
                prompted(piece.total)
        call.used = reading.usage()
        fire([call.put(piece) for piece in pieces if piece is not ALIVE])
        reading.check()

    while not reading.is_answered and (chunk := await line.read()):
        hand_on(reading.feed(chunk))
    hand_on(reading.end())
