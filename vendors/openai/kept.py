"""What a host wants back with a turn, gathered from the pieces in which it streams.

Pieces of one entry follow each other: they have the same type and index, and their texts go on.
"""

from __future__ import annotations

import json
from typing import Any

from llmdispatcher.models.errors import BadReply
from llmdispatcher.models.message import Keepsake
from llmdispatcher.vendors.wire.reading import items, words

_GROWING = ("text", "thinking", "summary", "data")
"""Fields whose texts are pieces."""


class _Entry:
    """One entry while it grows."""

    __slots__ = ("fields", "texts")

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.texts: dict[str, list[str]] = {}

    def is_of(self, piece: dict[str, Any]) -> bool:
        """Whether a piece goes on with this entry: not once it is signed, except to be signed."""
        alike = all(self.fields.get(name) == piece.get(name) for name in ("type", "index"))
        is_signed = bool(self.fields.get("signature")) and not piece.get("signature")
        return alike and not is_signed

    def add(self, piece: dict[str, Any]) -> None:
        for name, value in piece.items():
            if name in _GROWING and isinstance(value, str):
                self.texts.setdefault(name, []).append(value)
            elif value is not None or name not in self.fields:
                self.fields[name] = value

    def whole(self) -> dict[str, Any]:
        return self.fields | {name: "".join(parts) for name, parts in self.texts.items()}


class Kept:
    """The entries of one choice; ``dialect`` is the name of the field that they come in."""

    def __init__(self, dialect: str) -> None:
        self._dialect = dialect
        self._entries: list[_Entry] = []

    def add(self, told: object) -> None:
        """Read a list of pieces; what is none is ignored."""
        for piece in items(told):
            if not isinstance(piece, dict):
                continue
            if not self._entries or not self._entries[-1].is_of(piece):
                self._entries.append(_Entry())
            self._entries[-1].add(piece)

    def take(self) -> tuple[Keepsake, ...]:
        """Return what was gathered, once. Raises BadReply."""
        if not self._entries:
            return ()
        entries, self._entries = [entry.whole() for entry in self._entries], []
        try:
            data = json.dumps(entries, ensure_ascii=False, separators=(",", ":"))
        except (ValueError, RecursionError):
            raise BadReply(f"the vendor sent {self._dialect} that cannot be read") from None
        return (Keepsake(self._dialect, words(data)),)
