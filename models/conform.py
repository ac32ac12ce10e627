"""Whether a JSON value is what a schema asks for, and where it is not.

Compares as far as that needs no library: types, properties, items, enumerations, bounds and
lengths, ``$ref`` within the schema, anyOf and allOf. What is left out, such as patterns, formats,
``not``, conditions and that only one of oneOf fits, is taken to fit: no value that fits is refused.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple
from urllib.parse import unquote

_SHOWN_CHARS = 80
"""How much of a value is shown."""


def wrong(value: object, schema: Mapping[str, Any]) -> Wrong | None:
    """Return the first thing about a value that its schema does not allow, or None."""
    return _Comparison(schema).wrong(value, schema)


def shown(value: object) -> str:
    """Show a value as JSON, cut to a readable length."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    if isinstance(value, str):
        value = value[: _SHOWN_CHARS + 1]  # it may be the whole reply
    return _cut(json.dumps(value, ensure_ascii=False))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


class Wrong(NamedTuple):
    """What is wrong with a value, and the way to it from the value that was compared."""

    where: tuple[str | int, ...]
    told: str
    other: bool = False
    """It is another thing altogether, so that the rest was not looked at."""

    def under(self, step: str | int) -> Wrong:
        """Return the same, seen from the value around."""
        return Wrong((step, *self.where), self.told)


class _Comparison:
    """Compares values with a schema. Keywords that are unknown or malformed allow everything."""

    def __init__(self, root: object) -> None:
        self._root = root
        self._known: dict[tuple[int, int], Wrong | None] = {}
        """What was found for a value and a schema, by their ids. Where the members of a union are
        unions themselves, each would else be compared twice as often as the one around it."""

    def wrong(self, value: Any, schema: Any) -> Wrong | None:  # noqa: ANN401 - JSON
        """Return the first thing that is wrong, or None."""
        if schema is False:
            return Wrong((), f"nothing may be here, and there is {shown(value)}")
        if not isinstance(schema, Mapping):
            return None
        if not isinstance(value, dict | list):
            return self._first(value, schema)
        key = id(value), id(schema)
        if key not in self._known:
            self._known[key] = self._first(value, schema)
        return self._known[key]

    def _first(self, value: Any, schema: Mapping[str, Any]) -> Wrong | None:  # noqa: ANN401 - JSON
        rules = (self._type, _choice, _bounds, self._properties, self._items, self._combined)
        return next((found for rule in rules if (found := rule(value, schema))), None)

    def _type(self, value: Any, schema: Mapping[str, Any]) -> Wrong | None:  # noqa: ANN401 - JSON
        names = schema.get("type")
        checks = [_TYPES.get(str(name)) for name in (names if isinstance(names, list) else [names])]
        if any(check is None or check(value) for check in checks):
            return None
        return _unlike(value, schema)

    def _properties(self, value: Any, schema: Mapping[str, Any]) -> Wrong | None:  # noqa: ANN401 - JSON
        if not isinstance(value, dict):
            return None
        for name in _listed(schema, "required"):
            if isinstance(name, str) and name not in value:
                return Wrong((), f"{shown(name)} is missing")
        known = schema.get("properties")
        known = known if isinstance(known, Mapping) else {}
        others = True if "patternProperties" in schema else schema.get("additionalProperties", True)
        for name, item in value.items():
            if name not in known and others is False:
                return Wrong((), f"{shown(name)} is none of its keys, {_cut(', '.join(known))}")
            if found := self.wrong(item, known.get(name, others)):
                return found.under(name)
        return None

    def _items(self, value: Any, schema: Mapping[str, Any]) -> Wrong | None:  # noqa: ANN401 - JSON
        if not isinstance(value, list):
            return None
        first, rest = _listed(schema, "prefixItems"), schema.get("items", True)
        if isinstance(rest, list):  # as it was written before 2020-12
            first, rest = rest, schema.get("additionalItems", True)
        for index, item in enumerate(value):
            if found := self.wrong(item, first[index] if index < len(first) else rest):
                return found.under(index)
        return None

    def _combined(self, value: Any, schema: Mapping[str, Any]) -> Wrong | None:  # noqa: ANN401 - JSON
        for part in (*self._referred(schema), *_listed(schema, "allOf")):
            if found := self.wrong(value, part):
                return found
        for key in ("anyOf", "oneOf"):
            wrongs = [self.wrong(value, part) for part in _listed(schema, key)]
            if wrongs and None not in wrongs:
                # the member that was meant is the one that was wrong last
                meant = max(
                    filter(None, wrongs), key=lambda found: (len(found.where), not found.other)
                )
                return _unlike(value, schema) if meant.other and not meant.where else meant
        return None

    def _referred(self, schema: Mapping[str, Any]) -> Iterator[Any]:
        """Give what ``$ref`` refers to, if that is in the same schema."""
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#"):
            return
        found: Any = self._root
        for step in unquote(reference).split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and key.isdecimal():
                found = dict(enumerate(found)).get(int(key))
            else:
                found = found.get(key) if isinstance(found, Mapping) else None
        yield found


def _listed(schema: Mapping[str, Any], key: str) -> list[Any]:
    found = schema.get(key)
    return list(found) if isinstance(found, list | tuple) else []


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    if isinstance(value, Decimal):
        exponent = value.as_tuple().exponent
        return isinstance(exponent, int) and exponent >= 0
    return _is_number(value) and (isinstance(value, int) or float(value).is_integer())  # type: ignore[arg-type]


_TYPES: dict[str, Callable[[object], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": _is_whole,
    "number": _is_number,
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}

_NAMES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
}


def _unlike(value: object, schema: object) -> Wrong:
    return Wrong((), f"{_expected(schema)} is needed, and there is {shown(value)}", other=True)


def _expected(schema: object) -> str:
    """Say in words what a schema asks for."""
    if not isinstance(schema, Mapping):
        return "nothing" if schema is False else "anything"
    choices = [schema["const"]] if "const" in schema else _listed(schema, "enum")
    if choices:
        return " or ".join(map(shown, choices))
    parts = _listed(schema, "anyOf") or _listed(schema, "oneOf")
    if parts:
        return " or ".join(dict.fromkeys(map(_expected, parts)))
    names = schema.get("type")
    names = names if isinstance(names, list) else [names or "object"]
    return " or ".join(_NAMES.get(str(name), str(name)) for name in names)


def _choice(value: Any, schema: Mapping[str, Any]) -> Wrong | None:  # noqa: ANN401 - JSON
    choices = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(choices, list | tuple) or any(same(value, item) for item in choices):
        return None
    return _unlike(value, schema)


def same(one: object, other: object) -> bool:
    """Whether two values are equal in JSON, where true is not 1."""
    if isinstance(one, dict) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def _bounds(value: Any, schema: Mapping[str, Any]) -> Wrong | None:  # noqa: ANN401 - JSON
    for key, (applies, measured, fits, told) in _BOUNDS.items():
        bound = schema.get(key)
        if _is_number(bound) and applies(value) and not fits(measured(value), bound):
            return Wrong((), f"{told} {bound} is needed, and there is {shown(value)}")
    return None


_Bound = tuple[Callable[[Any], bool], Callable[[Any], Any], Callable[[Any, Any], bool], str]

_BOUNDS: dict[str, _Bound] = {
    "minimum": (_is_number, operator.pos, operator.ge, "a number of at least"),
    "maximum": (_is_number, operator.pos, operator.le, "a number of at most"),
    "exclusiveMinimum": (_is_number, operator.pos, operator.gt, "a number above"),
    "exclusiveMaximum": (_is_number, operator.pos, operator.lt, "a number below"),
    "minLength": (_TYPES["string"], len, operator.ge, "text with a length of at least"),
    "maxLength": (_TYPES["string"], len, operator.le, "text with a length of at most"),
    "minItems": (_TYPES["array"], len, operator.ge, "a list with a length of at least"),
    "maxItems": (_TYPES["array"], len, operator.le, "a list with a length of at most"),
    "minProperties": (_TYPES["object"], len, operator.ge, "an object with a size of at least"),
    "maxProperties": (_TYPES["object"], len, operator.le, "an object with a size of at most"),
}
