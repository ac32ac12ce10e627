"""Reads one tool call, or a list of them, out of the text behind a call's marker.

Arguments are passed on as JSON text while they come, or a parameter at a time where they are not
written as JSON. What turns out to be no call raises ``NotACall``; a call that has begun stays one,
however it ends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Protocol

import attrs

from llmdispatcher.vendors.llamacpp.speech.arguments import (
    as_json,
    dumped,
    parameter_types,
    unwrapped,
    without_beginning,
)
from llmdispatcher.vendors.llamacpp.speech.dialect import Head, Speech, Tags
from llmdispatcher.vendors.llamacpp.speech.pythonic import read_arguments
from llmdispatcher.vendors.llamacpp.speech.quoted import read_quoted
from llmdispatcher.vendors.llamacpp.speech.tape import (
    Marks,
    Reading,
    Tape,
    read_nested,
    read_string,
    read_value,
)

MAX_HEAD = 512
"""Characters in front of a call's arguments, its name included; several times the longest name."""

MAX_DEPTH = 4
"""Objects around a call's name: ``{"tool_calls": [{"function": {"name": …`` has three."""

_NAMES = {"name", "tool_name", "function", "function_name"}
_ARGUMENTS = {"arguments", "parameters", "args"}
_IDS = {"id", "tool_call_id", "call_id"}


class NotACall(Exception):
    """What was read is no call."""


class Caller(Protocol):
    """Whoever wants to know of calls."""

    def begin(self, name: str, identity: str) -> None:
        """A call begins; "" is no id."""

    def argue(self, text: str) -> None:
        """More of its arguments' JSON."""

    def hold(self, text: str) -> None:
        """Text between calls: white space and commas, unless text follows."""

    def aside(self, text: str) -> None:
        """Text in the middle of a call, which is no part of it."""


@attrs.define
class _Draft:
    """What is known of a call before it can begin."""

    name: str = ""
    identity: str = ""
    arguments: str | None = None
    begun: bool = False


class CallReader:
    """Reads calls from a tape; ``schemas`` has the parameters of every tool."""

    def __init__(
        self, speech: Speech, tape: Tape, caller: Caller, schemas: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self._speech, self._tape, self._caller, self._schemas = speech, tape, caller, schemas
        ends = (speech.section[1], speech.call[1])
        self._ends = tuple(mark for mark in ends if mark)
        self._depth = 0

    def read(self) -> Reading[None]:
        """Read what stands behind a call's marker."""
        self._depth = 0
        yield from self._tape.space()
        first = yield from self._tape.peek()
        head = self._speech.head
        if first == "[":
            self._tape.take(1)
            yield from self._list()
        elif first == "{" and (head is None or "{" not in head.ends):
            yield from self._objects(in_list=False)
        elif head:
            yield from self._headed(head)
            yield from self._further(head)
        elif self._speech.pythonic:
            yield from self._python()
        else:
            raise NotACall

    def read_behind_brace(self) -> Reading[None]:
        """Read a call whose first brace was its marker."""
        self._depth = 0
        yield from self._object()
        yield from self._objects(in_list=False, begun=True)

    def read_tags(self, name: str) -> Reading[None]:
        """Read the parameters of a call whose name is known."""
        self._begin(_Draft(name))
        if self._speech.tags:
            yield from self._tagged(name, self._speech.tags)

    def read_json(self, name: str, identity: str = "") -> Reading[None]:
        """Read the arguments of a call whose name is known."""
        self._begin(_Draft(name, identity))
        yield from self._tape.space()
        first = yield from self._tape.peek()
        if first != "{":
            if first or not self._tape.ended:  # or the reply was cut before they came
                self._caller.argue("{}")
        elif self._speech.quoted:
            yield from read_quoted(self._tape, self._caller.argue)
        else:
            yield from read_nested(self._tape, self._caller.argue, self._ends)

    def _begin(self, draft: _Draft) -> None:
        draft.begun = True
        self._tape.recorded()
        self._caller.begin(draft.name, draft.identity)

    # -- JSON --------------------------------------------------------------------------------

    def _list(self) -> Reading[None]:
        yield from self._tape.space()
        if self._speech.pythonic and (yield from self._tape.peek()) != "{":
            yield from self._python(in_list=True)
        else:
            yield from self._objects(in_list=True)

    def _objects(self, *, in_list: bool, begun: bool = False) -> Reading[None]:
        """Read objects up to what is none, or to the end of the list."""
        gap = ""
        while True:
            gap += yield from self._tape.space()
            following = yield from self._tape.peek()
            if following == "{":
                if begun:
                    self._tape.record(gap)
                self._tape.take(1)
                yield from self._object()
                gap, begun = "", True
            elif following and following in ",;" and begun and not gap.strip():
                gap += self._tape.take(1)
            elif following == "]" and in_list:
                self._tape.take(1)
                return
            else:
                if not begun:
                    raise NotACall
                self._caller.hold(gap)
                return

    def _object(self) -> Reading[None]:
        """Read the object of a call behind its first brace."""
        draft, depth = _Draft(), self._depth
        try:
            whole = yield from self._members(draft)
        except NotACall:
            if not draft.name or draft.arguments is None:
                raise
            whole = False
        self._depth = depth
        if not draft.begun:
            silent = draft.arguments is None
            if not draft.name or (silent and (self._speech.bare or not whole)):
                raise NotACall
            self._check(draft.name)
            self._begin(draft)
            self._caller.argue(draft.arguments or "{}")

    def _members(self, draft: _Draft) -> Reading[bool]:
        """Read the members of an object; say whether it was whole."""
        tape = self._tape
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NotACall
        while True:
            yield from tape.space()
            if (yield from tape.next_is("}")):
                return True
            if not (yield from tape.peek()):
                return False
            if draft.begun and (yield from tape.peek()) not in {",", '"'}:
                return False
            yield from tape.next_is(",")
            yield from tape.space()
            key = yield from self._text(draft)
            yield from tape.space()
            if not (yield from tape.next_is(":")):
                raise_unless(draft.begun)
                return False
            yield from tape.space()
            yield from self._member(key, draft)

    def _member(self, key: str, draft: _Draft) -> Reading[None]:
        first = yield from self._tape.peek()
        if key in _ARGUMENTS:
            yield from self._arguments(first, draft)
        elif key in _NAMES and first == '"':
            draft.name = yield from self._text(draft)
            self._check(draft.name)
        elif key in _IDS:
            raw = yield from self._value()
            draft.identity = draft.identity or raw.strip().strip('"')
        elif key == "function" and first == "{":
            self._tape.take(1)
            yield from self._members(draft)
        elif self._speech.name_key and first == "{":
            draft.name = key
            yield from self._arguments(first, draft)
        elif self._speech.bare and key in {"tool_calls", "tool_call"}:
            yield from self._wrapped(first, draft)
        elif self._speech.bare and key not in {"type", "thought"}:
            raise_unless(draft.begun)
            yield from self._value()
        else:
            yield from self._value()

    def _wrapped(self, first: str, draft: _Draft) -> Reading[None]:
        """Read the calls within ``{"tool_calls": …}``."""
        if first not in {"[", "{"} or draft.name:
            raise NotACall
        if first == "[":
            self._tape.take(1)
        yield from self._objects(in_list=first == "[")
        draft.begun = True

    def _arguments(self, first: str, draft: _Draft) -> Reading[None]:
        if draft.begun:
            yield from self._value()
        elif draft.name and first == "{" and not self._late(draft):
            self._begin(draft)
            yield from read_nested(self._tape, self._caller.argue, self._ends)
        else:
            draft.arguments = unwrapped((yield from self._value()))

    def _late(self, draft: _Draft) -> bool:
        return self._speech.late_id and not draft.identity

    def _value(self) -> Reading[str]:
        found: list[str] = []
        yield from read_value(self._tape, found.append, self._ends)
        return "".join(found)

    def _text(self, draft: _Draft) -> Reading[str]:
        """Read a JSON string."""
        found = ['"']
        if not (yield from self._tape.next_is('"')):
            raise_unless(draft.begun)
            return ""
        yield from read_string(self._tape, found.append)
        try:
            return str(json.loads("".join(found), strict=False))
        except ValueError:
            raise_unless(draft.begun)
            return ""

    def _check(self, name: str) -> None:
        """Without a marker, only the name of a tool tells a call from other JSON."""
        if self._speech.bare and name not in self._schemas:
            raise NotACall

    # -- with the name in front --------------------------------------------------------------

    def _headed(self, head: Head) -> Reading[None]:
        found: list[str] = []
        marks = Marks((*head.ends, *self._ends))
        length = 0
        while True:
            piece, mark = yield from self._tape.some(marks)
            found.append(piece)
            length += len(piece)
            if mark or not piece or length > MAX_HEAD:
                break
        match = re.fullmatch(head.form, "".join(found), re.DOTALL)
        if not match or length > MAX_HEAD or not mark:
            self._tape.back(mark)
            raise NotACall
        name, identity = match["name"], match.groupdict().get("id") or ""
        tags = self._speech.tags
        if mark in self._ends or mark == "{" or (tags and mark == tags.key[0]):
            self._tape.back(mark)
        if tags:
            yield from self.read_tags(name)
        else:
            yield from self.read_json(name, identity)

    def _further(self, head: Head) -> Reading[None]:
        """Read calls that follow between the same markers."""
        while head.begin:
            self._caller.hold((yield from self._tape.space()))
            if not (yield from self._tape.next_is(head.begin)):
                return
            self._tape.back(head.begin)
            self._tape.record()
            yield from self._headed(head)

    def _tagged(self, name: str, tags: Tags) -> Reading[None]:
        """Read parameters that are written one by one."""
        tape, put = self._tape, self._caller.argue
        marks = Marks((tags.key[0], tags.end, *self._ends))
        junk: list[str] = []
        before = "{"
        while (mark := (yield from tape.until(marks, junk.append))) == tags.key[0]:
            key = yield from self._key(tags)
            if key is None:
                mark = ""
                break
            raw, whole = yield from self._between_tags(tags)
            types = parameter_types(self._schemas.get(name, {}), key)
            put(f"{before}{dumped(key)}: {as_json(raw, types, whole=whole)}")
            before = ", "
            if not whole:
                return
        if mark:
            put("{}" if before == "{" else "}")
        elif before == "{":
            put("{")
        if mark in self._ends:
            tape.back(mark)
        if text := "".join(junk).strip():
            self._caller.aside(text)

    def _key(self, tags: Tags) -> Reading[str | None]:
        """Read a parameter's name, and up to where its value begins; None if that never comes."""
        key: list[str] = []
        attributes: list[str] = []
        mark = yield from self._tape.until(Marks((tags.key[1],)), key.append)
        if mark and tags.value[0]:
            mark = yield from self._tape.until(Marks((tags.value[0],)), attributes.append)
        return "".join(key).strip() if mark else None

    def _between_tags(self, tags: Tags) -> Reading[tuple[str, bool]]:
        """Read a value up to the tag that ends it: one behind which the call goes on or ends."""
        found: list[str] = []
        marks = Marks((tags.value[1],))
        following = tuple(mark for mark in (tags.key[0], tags.end, *self._ends) if mark)
        longest = max(map(len, following))
        while True:
            mark = yield from self._tape.until(marks, found.append)
            if not mark:
                return without_beginning("".join(found), tags.value[1]), False
            space = yield from self._tape.space()
            there = yield from self._tape.peek(longest)
            cut = self._tape.ended and any(f.startswith(there) for f in following)
            if cut or there.startswith(following):
                return "".join(found), True
            found += (mark, space)

    # -- as in Python ------------------------------------------------------------------------

    def _python(self, *, in_list: bool = False) -> Reading[None]:
        """Read calls as Python writes them, one or a list."""
        begun = False
        while True:
            yield from self._tape.space()
            if in_list and (yield from self._tape.next_is("]")):
                return
            if begun and not (in_list and (yield from self._tape.next_is(","))):
                return
            yield from self._tape.space()
            name: list[str] = []
            mark = yield from self._tape.until(_CALL, name.append)
            match = re.fullmatch(r"([\w.-]+?)(\.call)?", "".join(name).strip())
            if mark != "(" or not match:
                self._tape.back(mark)
                if begun:
                    self._caller.hold("".join(name))
                    return
                raise NotACall
            self._check(match[1])
            self._begin(_Draft(match[1]))
            yield from read_arguments(self._tape, self._caller.argue)
            begun = True


_CALL = Marks(("(", "[", "]", "{", "<", "\n", "'", '"'))


def raise_unless(begun: object) -> None:
    """A call that has begun stays one."""
    if not begun:
        raise NotACall
