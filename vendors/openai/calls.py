"""Calls of tools, put together from the pieces in which hosts send them.

Hosts differ: most give each piece the index of its call; some give none and send whole calls, with
arguments as an object; some send all calls at one index, repeat the id with every piece, or tell
the name late. Here calls come out numbered from 0 without gaps, each with an id of its own, and
the first piece of each with its id and name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from llmdispatcher.models.errors import BadReply
from llmdispatcher.models.reply import CallDelta
from llmdispatcher.vendors.wire.reading import fields, items, words

MAX_CALLS = 1024
"""Of one reply; eight times the tools that a request may have."""

_NO_ID = {"", "null"}
"""Mistral writes the missing id so."""


class _Call:
    """One call while it grows."""

    __slots__ = ("id", "is_whole", "name", "number", "said", "waiting")

    def __init__(self) -> None:
        self.id = self.name = ""
        self.number = -1
        """Its place among the calls that were told; -1 before that."""
        self.waiting: list[str] = []
        """Arguments that came before the name."""
        self.said = False
        """Whether any arguments have come."""
        self.is_whole = False
        """Its arguments came as an object, which nothing can follow."""


class Calls:
    """The calls of one choice."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._at: dict[int, _Call] = {}
        """The last call of each index that the host gave."""
        self._ids: set[str] = set()
        self._told = 0

    def __bool__(self) -> bool:
        """Whether any call was begun."""
        return bool(self._calls)

    def take(self, told: object, *, whole: bool = False) -> Iterator[CallDelta]:
        """Read a list of pieces; ``whole`` for a list of whole calls. Raises BadReply."""
        for entry in items(told):
            if isinstance(entry, dict):
                yield from self._piece(entry, whole=whole)

    def end(self) -> Iterator[CallDelta]:
        """Yield what completes the calls. Raises BadReply for one whose name never came."""
        for call in self._calls:
            if call.number < 0:
                raise BadReply("the vendor sent a call of a tool without the tool's name")
            if not call.said:
                call.said = True
                yield CallDelta(call.number, arguments="{}")

    def _piece(self, entry: Mapping[str, Any], *, whole: bool) -> Iterator[CallDelta]:
        function = fields(entry.get("function"))
        name = words(function.get("name"), "the name of a tool")
        told = entry.get("id")
        ident = words(told) if isinstance(told, str) and told not in _NO_ID else ""
        arguments = _arguments(function.get("arguments"))
        is_object = isinstance(function.get("arguments"), dict)
        call = None if whole else self._going_on(entry.get("index"), ident, name)
        if call is None or (is_object and call.said):
            call = self._begin(entry.get("index"))
        call.id, call.name = call.id or ident, call.name or name
        call.is_whole |= is_object
        call.said |= bool(arguments)
        yield from self._tell(call, arguments)

    def _going_on(self, index: object, ident: str, name: str) -> _Call | None:
        """Return the call that a piece continues; None for the first piece of another."""
        if isinstance(index, int) and not isinstance(index, bool):
            call = self._at.get(index)
            is_other = bool(call and name and ident and call.id and ident != call.id)
            return None if is_other else call
        if not self._calls:
            return None
        if not ident:
            return None if name else self._calls[-1]
        call = next((call for call in self._calls if call.id == ident), None)
        is_other = bool(call and (call.is_whole or (name and call.name and name != call.name)))
        return None if is_other else call

    def _begin(self, index: object) -> _Call:
        if len(self._calls) >= MAX_CALLS:
            raise BadReply(f"the vendor sent more than {MAX_CALLS} calls of tools")
        call = _Call()
        self._calls.append(call)
        if isinstance(index, int):
            self._at[index] = call
        return call

    def _tell(self, call: _Call, arguments: str) -> Iterator[CallDelta]:
        """Yield a piece, or keep it until the name is there."""
        if not call.name:
            call.waiting.append(arguments)
        elif call.number >= 0:
            if arguments:
                yield CallDelta(call.number, arguments=arguments)
        else:
            call.number, self._told = self._told, self._told + 1
            call.id = self._own_id(call)
            whole = "".join([*call.waiting, arguments])
            call.waiting.clear()
            yield CallDelta(call.number, call.id, call.name, whole)

    def _own_id(self, call: _Call) -> str:
        """Return an id that no other call has."""
        ident = call.id
        if not ident or ident in self._ids:
            ident = f"call_{call.number}"
            while ident in self._ids:
                ident += "_"
        self._ids.add(ident)
        return ident


def _arguments(value: object) -> str:
    """Return the JSON text of arguments, which some send as what it stands for."""
    if value is None or isinstance(value, str):
        return words(value)
    try:
        return words(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
    except (ValueError, RecursionError):
        raise BadReply("the vendor sent arguments of a tool that cannot be read") from None
