"""What a vendor's answer tells about the limits that hold there."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import attrs


class Quantity(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    """Input and output together."""
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"


@attrs.frozen(kw_only=True)
class Room:
    """One limit of a vendor, as it stood when the answer began. None is not told."""

    quantity: Quantity
    limit: int | None = None
    remaining: int | None = None
    reset_s: float | None = None
    """Seconds from the answer until the whole limit is there again."""
    window: str = ""
    """``minute``, ``day`` or the like, where one vendor tells of several limits of a quantity;
    empty where there is only one."""


def _rooms(value: Iterable[Room]) -> tuple[Room, ...]:
    return tuple(value)


@attrs.frozen
class Headroom:
    """All limits that an answer tells of, each quantity and window once."""

    rooms: tuple[Room, ...] = attrs.field(default=(), converter=_rooms)

    def __bool__(self) -> bool:
        """Whether anything was told."""
        return bool(self.rooms)

    def of(self, quantity: Quantity, window: str = "") -> Room | None:
        """Return one of the limits, if it was told."""
        found = (r for r in self.rooms if r.quantity is quantity and r.window == window)
        return next(found, None)
