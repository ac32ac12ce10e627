"""Turns nodes into values, by their types, and notes every problem where it stands.

cattrs finds out what to do for a type; what is done is strict: text is no number, ``yes`` is not
true, and a key that is not known is refused with the nearest one that is.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from enum import Enum
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any

import attrs
import cattrs

from llmdispatcher.config import arguments, kinds
from llmdispatcher.config.arguments import Argument, Maker
from llmdispatcher.config.guard import NOTHING, Guard
from llmdispatcher.config.node import Node, Notes
from llmdispatcher.config.scalars import hint
from llmdispatcher.config.secrecy import is_secret, safe
from llmdispatcher.models.card import ModelCard, Price
from llmdispatcher.models.check import nearest, path_of
from llmdispatcher.models.errors import BadRequest, ConfigError, VendorError
from llmdispatcher.models.stages import Step
from llmdispatcher.models.strategy import Strategy
from llmdispatcher.models.told import shown

_BY_WORD = {Strategy, Step}
"""Values that whoever takes them also takes by a word."""

_SCALARS = {bool, int, float, str, Path, Decimal, NoneType}

_AMOUNT = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")


class Converter:
    """Reads nodes of one file."""

    def __init__(
        self, notes: Notes, environment: Mapping[str, str], folder: Path | None = None
    ) -> None:
        """``folder`` is where relative paths begin."""
        self.notes, self._folder = notes, folder
        self.guard = Guard(notes, environment)
        self._allowed = ""
        """What the field that is being read says of what it takes."""
        self._by_type = cattrs.Converter()
        hooks: dict[Any, Callable[[Node], Any]] = {
            bool: self._bool,
            int: self._int,
            float: self._float,
            str: self._str,
            Path: self._path,
            Decimal: self._decimal,
            Price: lambda node: self.made(arguments.maker(Price.per_million), node),
        }
        for kind, hook in hooks.items():
            self._by_type.register_structure_hook(kind, partial(_untyped, hook))
        factories: list[tuple[Callable[[Any], bool], Callable[[Any], Callable[..., Any]]]] = [
            (kinds.is_anything, lambda _: lambda node, _: self.plain(node)),
            (
                lambda kind: attrs.has(kind) and kind is not Price,
                lambda kind: lambda node, _: self._value(node, kind),
            ),
            (kinds.is_union, lambda kind: lambda node, _: self._union(node, kind)),
            (kinds.is_mapping, lambda kind: lambda node, _: self._mapping(node, kind)),
            (kinds.is_list, lambda kind: lambda node, _: self._list(node, kind)),
        ]
        for predicate, factory in factories:
            self._by_type.register_structure_hook_factory(predicate, factory)

    def read(self, node: Node, kind: Any) -> Any:  # noqa: ANN401 - by the type that is asked for
        """Return a value of a type; NOTHING where it cannot be made, which is noted."""
        if kinds.is_enum(kind):  # before its base: a ``StrEnum`` is text as well
            return self._enum(node, kind)
        try:
            return self._by_type.structure(node, kind)
        except cattrs.StructureHandlerNotFoundError:
            self.notes.wrong(node, "cannot be said in a file; it is for programs", at_key=True)
            return NOTHING

    # -- mappings of keys ----------------------------------------------------------------------

    def made(
        self,
        maker: Maker,
        node: Node,
        also: Mapping[str, Any] | None = None,
        beside: Iterable[str] = (),
    ) -> Any:  # noqa: ANN401 - what the maker makes
        """Return what a maker makes of a mapping.

        ``also`` is said beside the file, and keys ``beside`` are known and read by somebody else.
        """
        said, before = dict(also or {}), len(self.notes.problems)
        allowed = {name: each for name, each in maker.arguments.items() if name not in said}
        found = self.given(allowed, node, beside)
        if any(each.is_required and name not in found for name, each in allowed.items()):
            self._each(allowed, found, node)
            return NOTHING
        # also where it is of no use any more: more may be wrong
        made = self.built(maker, {**found, **said}, node)
        return made if len(self.notes.problems) == before else NOTHING

    def _value(self, node: Node, kind: type) -> Any:  # noqa: ANN401 - of the type, or its word
        """Read the fields of a value, or the word that stands for it where it is a part."""
        if kind in _BY_WORD and isinstance(node.value, str):
            return self._str(node)
        return self.made(arguments.maker(kind), node)

    def given(
        self, allowed: Mapping[str, Argument], node: Node, beside: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Return the values of a mapping by key, without those that are wrong."""
        if node.value is not None and not isinstance(node.value, dict):
            self.notes.wrong(node, f"must be a mapping of keys, not {_kind(node)}")
            return {}
        found = {}
        for key, value in node.items.items():
            if key in allowed:
                found[key] = self._argument(allowed[key], value)
            else:
                self.unknown(value, key, [*allowed, *beside])
        for name, each in allowed.items():
            if each.is_required and name not in node.items:
                self.notes.wrong(node, f"lacks {name}, which it needs", at_key=True)
        return {key: value for key, value in found.items() if value is not NOTHING}

    def unknown(self, node: Node, key: str, allowed: Iterable[str]) -> None:
        """Note a key that means nothing here, and never what stands behind it."""
        self.notes.wrong(node, f"unknown key {key!r}; {nearest(key, set(allowed))}", at_key=True)
        self.guard.search(node)

    def _each(self, allowed: Mapping[str, Argument], found: Mapping[str, Any], node: Node) -> None:
        """Note which values cannot be, where there is too little to make the whole."""
        for name, value in found.items():
            if (error := allowed[name].refusal(value)) is not None:
                self._blame(node, name, error)

    def built(self, maker: Maker, given: dict[str, Any], node: Node) -> Any:  # noqa: ANN401 - what the maker makes
        """Have a value made, and note all that is wrong with its arguments."""
        left, is_whole = dict(given), True
        while True:
            try:
                made = maker(left)
            except (BadRequest, TypeError, ValueError, ConfigError) as error:
                is_whole = False
                if _field(error) in node.items.keys() - left.keys():
                    return NOTHING  # which is noted already
                culprit = _culprit(maker, left, error)
                self._blame(node, culprit, error, maker)
                if culprit is None or maker.arguments[culprit].is_required:
                    return NOTHING
                del left[culprit]
            else:
                return made if is_whole else NOTHING

    def _blame(
        self, node: Node, culprit: str | None, error: Exception, maker: Maker | None = None
    ) -> None:
        """Note an argument that its maker refuses."""
        place = node if culprit is None else node.items.get(culprit, node)
        if not isinstance(error, BadRequest):
            self.notes.wrong(place, str(error))
            return
        if culprit not in {None, _field(error)} and _field(error) in _lacking(node, maker):
            self.notes.wrong(node, f"lacks {_field(error)}: {error.allowed}", at_key=True)
            return
        inner = error.field.partition("[")[2].removesuffix("]")
        if isinstance(place.value, list) and inner.isdecimal() and int(inner) < len(place.value):
            place = place.value[int(inner)]
        place = place.items.get(inner.strip("'"), place)
        self.notes.wrong(place, f"{_told(place)}must be {error.allowed}")

    def _argument(self, argument: Argument, node: Node) -> Any:  # noqa: ANN401 - by its type
        if argument.is_secret:
            is_written = kinds.is_written(argument.kind)
            return self.guard.secret(argument, node) if is_written else self._hidden(argument, node)
        if argument.name.endswith("_env"):
            return self.guard.variable(node)
        several = set(typing.get_args(argument.kind)) or {argument.kind}
        if isinstance(node.value, str | int | float) and several <= _SCALARS:
            refused = argument.refusal(node.value)
            self._allowed = "" if refused is None else refused.allowed
        try:
            return self.read(node, argument.kind)
        finally:
            self._allowed = ""

    def _hidden(self, argument: Argument, node: Node) -> Any:  # noqa: ANN401 - by its type
        """Read what may not be shown and is not made of text: what is wrong is told without it."""
        problems, hints = self.notes.problems, self.notes.hints
        before = len(problems), len(hints)
        made = self.read(node, argument.kind)
        if before == (len(problems), len(hints)):
            return made
        del problems[before[0] :], hints[before[1] :]
        named = getattr(argument.kind, "__name__", str(argument.kind))
        self.notes.wrong(node, f"must be of the type {named}; what stands there is not shown")
        return NOTHING

    # -- one value -----------------------------------------------------------------------------

    def plain(self, node: Node) -> Any:  # noqa: ANN401 - what was written
        """Return a value of any kind as it was written, unless there is a secret in it."""
        if isinstance(node.value, dict):
            bad = [
                k for k, each in node.items.items() if isinstance(each.value, str) and is_secret(k)
            ]
            for key in bad:
                message = "is a secret by its name: vendors take those by api_key_env and headers"
                self.notes.wrong(node.items[key], message)
            found = {key: self.plain(each) for key, each in node.items.items() if key not in bad}
            return NOTHING if NOTHING in found.values() else found
        if isinstance(node.value, list):
            listed = [self.plain(each) for each in node.value]
            return NOTHING if NOTHING in listed else listed
        return node.value if self.guard.is_clear(node) else NOTHING

    def _bool(self, node: Node) -> Any:  # noqa: ANN401 - True, False or NOTHING
        if isinstance(node.value, bool):
            return node.value
        self._allowed = ""
        return self._refuse(node, "true or false", hint(node.value, wants="bool"))

    def _int(self, node: Node) -> Any:  # noqa: ANN401 - an integer, or NOTHING
        value = node.value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        return self._refuse(node, "an integer", hint(value, wants="number"))

    def _float(self, node: Node) -> Any:  # noqa: ANN401 - a number, or NOTHING
        if isinstance(node.value, int | float) and not isinstance(node.value, bool):
            return node.value
        return self._refuse(node, "a number", hint(node.value, wants="number"))

    def _decimal(self, node: Node) -> Any:  # noqa: ANN401 - an exact number, or NOTHING
        if isinstance(node.value, str) and _AMOUNT.fullmatch(node.text):
            return Decimal(node.text)  # in quotes, as exact numbers often are
        found = self._float(node)
        return found if found is NOTHING else _exact(node)

    def _str(self, node: Node) -> Any:  # noqa: ANN401 - text, or NOTHING
        is_number = isinstance(node.value, int | float) and not isinstance(node.value, bool)
        if not isinstance(node.value, str) and not is_number:
            return self._refuse(node, "text", "put it in quotes" if node.text else "")
        return node.text if self.guard.is_clear(node) else NOTHING

    def _path(self, node: Node) -> Any:  # noqa: ANN401 - a path, or NOTHING
        text = self._str(node)
        if text is NOTHING:
            return NOTHING
        try:
            path = path_of("", text)
        except BadRequest as error:
            self.notes.wrong(node, f"{_told(node)}must be {error.allowed}")
            return NOTHING
        return path if self._folder is None else self._folder / path

    def _enum(self, node: Node, kind: type[Enum]) -> Any:  # noqa: ANN401 - one of them, or NOTHING
        found = [each for each in kind if each.value == node.value]
        allowed = ", ".join(repr(each.value) for each in kind)
        return found[0] if found else self._refuse(node, f"one of {allowed}")

    def _refuse(self, node: Node, wanted: str, way_out: str = "") -> Any:  # noqa: ANN401 - NOTHING
        if self.guard.is_clear(node):
            ends = f"; {way_out}" if way_out else ""
            self.notes.wrong(node, f"{_told(node)}must be {self._allowed or wanted}{ends}")
        return NOTHING

    # -- several -------------------------------------------------------------------------------

    def _union(self, node: Node, kind: Any) -> Any:  # noqa: ANN401 - by its type
        several = [each for each in typing.get_args(kind) if each not in {NoneType, ModelCard}]
        if node.value is None and NoneType in typing.get_args(kind):
            return None
        if isinstance(node.value, bool) and bool in several:
            return node.value
        if isinstance(node.value, dict) and (whole := [k for k in several if attrs.has(k)]):
            return self.read(node, whole[0])
        for each in (Path, Decimal, bool, float, int, str):  # the most exact of them
            if each in several and (each not in {bool, float, int} or len(several) == 1):
                return self.read(node, each)
        return self.read(node, several[0])

    def _mapping(self, node: Node, kind: Any) -> Any:  # noqa: ANN401 - a mapping, or NOTHING
        if node.value is not None and not isinstance(node.value, dict):
            return self._refuse(node, "a mapping of names")
        inner = (typing.get_args(kind) or (str, Any))[1]
        if kinds.is_anything(inner):
            return self.plain(node) if node.value else {}
        found = {key: self.read(value, inner) for key, value in node.items.items()}
        return NOTHING if NOTHING in found.values() else found

    def _list(self, node: Node, kind: Any) -> Any:  # noqa: ANN401 - a list, or NOTHING
        inner = (typing.get_args(kind) or (Any,))[0]
        if node.value is None:
            return []
        several = node.value if isinstance(node.value, list) else [node]
        if isinstance(node.value, dict) or (attrs.has(inner) and several == [node]):
            return self._refuse(node, "a list")
        found = [self.read(each, inner) for each in several]
        if any(each is NOTHING for each in found):
            return NOTHING
        return tuple(found) if typing.get_origin(kind) is tuple else found


def _culprit(maker: Maker, given: Mapping[str, Any], error: Exception) -> str | None:
    """Return which argument its maker refuses: the one it names, or the one without which it goes.

    None where it is none of them alone.
    """
    named = _field(error)
    if named in given and named in maker.arguments:
        return str(named)
    for name in given:
        if maker.arguments.get(name) is None or maker.arguments[name].is_required:
            continue
        try:
            maker({key: value for key, value in given.items() if key != name})
        except (BadRequest, TypeError, ValueError, ConfigError, VendorError) as other:
            if str(other) == str(error):
                continue
        return name
    return None


def _lacking(node: Node, maker: Maker | None) -> set[str]:
    """Return what could stand in a mapping and does not."""
    return set() if maker is None else maker.arguments.keys() - node.items.keys()


def _field(error: Exception) -> str:
    """Return the field that an error names; "" for none."""
    return str(getattr(error, "field", "")).partition("[")[0]


def _told(node: Node) -> str:
    """Say what stands there, where it is short."""
    if isinstance(node.value, dict | list):
        return f"is {_kind(node)}; "
    if node.value is None:
        return "says nothing; "
    return f"is {shown(safe(node.text)) if isinstance(node.value, str) else node.text[:80]}; "


def _kind(node: Node) -> str:
    if isinstance(node.value, dict):
        return "a mapping"
    return "a list" if isinstance(node.value, list) else "a single value"


def _exact(node: Node) -> Decimal:
    """Return a number as it was written, digit by digit."""
    is_decimal = not node.text.lower().startswith(("0x", "0o", ".", "-.", "+."))
    return Decimal(node.text if node.text and is_decimal else str(node.value))


def _untyped(hook: Callable[[Node], Any], node: Node, _: object) -> Any:  # noqa: ANN401 - what the hook reads
    return hook(node)
