"""Gathers what is written of a request, so that its head and its body go in one packet. Pure."""

from __future__ import annotations

WRITE_BYTES = 16 * 2**10
"""Written at once, so that a slow reader cannot stretch the limit of one operation: a kernel takes
as much in one piece, and so does a record of TLS."""


class Packet:
    """What of a request is written but not sent: its head and its body go in one packet.

    The library writes them one by one, and an empty end behind them; each would cost a call of the
    system here, and one there.
    """

    __slots__ = ("_parts", "_size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def take(self, buffer: bytes) -> bytes:
        """Add to it, and return what is to be sent now; nothing added is the end of it."""
        if not buffer and not self._parts:
            return b""
        self._parts.append(buffer)
        self._size += len(buffer)
        if buffer and self._size < WRITE_BYTES:
            return b""
        packet = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        return packet
