"""JSON schemas: checked, and written as the engine is to read them.

Every keyword is enforced, is a comment, or is refused: none is dropped in silence. Sizes are
bounded before anything is compiled. Where versions of JSON schema differ, 2020-12 is meant: it is
the stricter one for all that is not refused. Pure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from llmdispatcher.models.check import nearest
from llmdispatcher.models.errors import InvalidGrammar
from llmdispatcher.vendors.llamacpp.rules.patterns import BadPattern, rewritten
from llmdispatcher.vendors.llamacpp.rules.references import Links, step

MAX_SCHEMA_CHARS = 256 * 1024
"""As JSON. Longer than what a model can be told of it."""

MAX_DEPTH = 100
"""Of JSON in JSON: the engine's parser goes 128 deep."""

MAX_COUNT = 1_000
"""Of items, properties and choices: the engine's work for them grows with the square."""

MAX_LENGTH = 1_000_000
"""Of a string: more than any context holds."""

MAX_NUMBER = 2**53
"""Whole numbers are exact up to here in the doubles that readers of JSON use."""

MAX_MULTIPLE = 10_000
"""Of ``multipleOf``, its decimal point aside: the engine has a state for each remainder."""

MAX_DECIMALS = 9
"""Of ``multipleOf``."""

OPTIONS = {"whitespace_pattern": r" |\n {0,20}", "json_allowed_escapes": 'nrbtf\\"'}
"""Of the engine. Between two marks of JSON may be a space, or a line end and an indent: what models
write, each its own way, and forcing one on a model trained on the other costs quality. Without a
bound, a small model would write line ends until it is cut. Escapes leave out ``\\u``, so that each
string has one spelling: the engine takes the key ``"\\u0061"`` for another than ``"a"``."""

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")

FORMATS = (
    *("date-time", "date", "time", "duration", "email", "hostname"),
    *("ipv4", "ipv6", "uri", "uuid"),
)
"""Those that the engine can check."""

COMMENTS = (
    *("$comment", "default", "deprecated", "description", "discriminator"),
    *("examples", "readOnly", "title", "writeOnly"),
)
"""Keywords that constrain nothing (2020-12, section 9; ``discriminator`` is OpenAPI's)."""

_VERSIONS = ("2020-12", "2019-09", "draft-07", "draft-06", "draft-04")
_BOUNDS = (
    ("minimum", "maximum"),
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
)
_INSTEAD = {
    "if": "anyOf",
    "not": "enum or pattern, which say what may be",
    "contains": "prefixItems",
    "additionalItems": "prefixItems and items",
    "dependencies": "anyOf",
    "dependentRequired": "anyOf",
    "dependentSchemas": "anyOf",
    "unevaluatedProperties": "additionalProperties",
    "unevaluatedItems": "items",
    "propertyNames": "patternProperties and additionalProperties: false",
    "$anchor": "a $ref that is a path, such as #/$defs/name",
    "$dynamicRef": "$ref",
    "$recursiveRef": "$ref",
    "id": "a $ref that is a path, such as #/$defs/name",
}
_BARE = {"\b", "\t", "\n", "\f", "\r"}
"""Control characters that JSON can write without ``\\u``."""


def enforceable(schema: Mapping[str, Any]) -> str:
    """Return the JSON of a schema as the engine is to read it, its options included.

    Raises InvalidGrammar with the place as a JSON pointer, the value, and what is possible.
    """
    plain = _Copier().copied(schema, "", 0)
    if not isinstance(plain, dict):
        raise refusal("", schema, "a mapping")
    checker = _Checker()
    checked = checker.schema(plain, "")
    checker.links.check()
    return json.dumps({"x-guidance": OPTIONS, **checked}, ensure_ascii=False)


def refusal(place: str, value: object, allowed: str) -> InvalidGrammar:
    """Make the error that names a place in a schema, shows the value and says what may be there."""
    shown = repr(value)
    shown = shown if len(shown) <= _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS]}…"
    return InvalidGrammar(f"the schema has {shown} at {place or '/'}; possible is {allowed}")


_SHOWN_CHARS = 80
"""How much of a value an error message shows."""


class _Copier:
    """Copies what a caller gave: nobody else changes it later, and its size is bounded."""

    def __init__(self) -> None:
        self._left = MAX_SCHEMA_CHARS

    def copied(self, value: Any, place: str, depth: int) -> Any:  # noqa: ANN401 - JSON
        """Copy JSON. Raises InvalidGrammar for what is none, is too large or too deep."""
        if depth > MAX_DEPTH:
            raise InvalidGrammar(
                f"the schema is more than {MAX_DEPTH} levels deep at {place[:80]}…"
            )
        self._spend(1)
        match value:
            case Mapping():
                return {
                    self._text(key, place): self.copied(inner, step(place, str(key)), depth + 1)
                    for key, inner in value.items()
                }
            case list() | tuple():
                return [
                    self.copied(inner, f"{place}/{index}", depth + 1)
                    for index, inner in enumerate(value)
                ]
            case str():
                return self._text(value, place)
            case bool() | None:
                return value
            case int() if abs(value) <= MAX_NUMBER:
                return value
            case float() if math.isfinite(value):
                return value
            case int() | float():
                raise refusal(place, type(value), f"finite, and up to ±{MAX_NUMBER} if whole")
        raise refusal(place, type(value), "JSON: mappings, lists, text, numbers, True, False, None")

    def _text(self, value: object, place: str) -> str:
        if not isinstance(value, str):
            raise refusal(place, value, "a key that is text")
        self._spend(len(value))
        try:
            value.encode()
        except UnicodeEncodeError:
            raise refusal(place, value[:20], "text without half of a surrogate pair") from None
        return value

    def _spend(self, chars: int) -> None:
        self._left -= chars
        if self._left < 0:
            told = f"the schema has more than {MAX_SCHEMA_CHARS} characters"
            raise InvalidGrammar(f"{told}: leave out what the reply need not be held to")


class _Checker:
    """Walks a schema once, and writes down which schemas it holds and what they refer to."""

    def __init__(self) -> None:
        self.links = Links()

    def schema(self, schema: Any, place: str) -> Any:  # noqa: ANN401 - JSON
        """Check a schema, and return it as the engine is to read it."""
        if not isinstance(schema, dict | bool):
            raise refusal(place, schema, "a schema: a mapping, True or False")
        self.links.add(place, schema)
        if isinstance(schema, bool):
            return schema
        checked = {}
        for key, value in schema.items():
            keep = self._keyword(key, value, place)
            if keep is not None:
                checked[key] = keep[0]
        _check_bounds(schema, place)
        return checked

    def _keyword(self, key: str, value: Any, place: str) -> tuple[Any] | None:  # noqa: ANN401 - JSON
        """Check a keyword; None leaves it out, since it constrains nothing."""
        here = step(place, key)
        if key in _KEYWORDS:
            return (_KEYWORDS[key](self, value, here),)
        if key in COMMENTS:
            return None
        if key in {"$schema", "$id"} and not place:
            if key == "$schema" and not any(version in str(value) for version in _VERSIONS):
                raise refusal(here, value, f"one of the versions {', '.join(_VERSIONS)}")
            return None
        if key == "uniqueItems" and value is False:
            return None
        known = (*_KEYWORDS, *COMMENTS)
        way = f"use {_INSTEAD[key]}" if key in _INSTEAD else nearest(key, known)
        raise refusal(here, value, f"no such keyword, which could not be enforced; {way}")

    def map_of_schemas(self, value: Any, place: str) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Check schemas under names."""
        return {
            _spellable(name, place): self.schema(inner, step(place, name))
            for name, inner in _mapping(value, place).items()
        }

    def definitions(self, value: Any, place: str) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Check schemas that are referred to."""
        found = _mapping(value, place, most=MAX_SCHEMA_CHARS)
        return {name: self.schema(inner, step(place, name)) for name, inner in found.items()}

    def map_of_patterns(self, value: Any, place: str) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Check schemas under patterns of names."""
        found = {
            pattern(name, place): self.schema(inner, step(place, name))
            for name, inner in _mapping(value, place).items()
        }
        if len(found) < len(value):
            raise refusal(place, list(value), "patterns that no name fits two of")
        return found

    def list_of_schemas(self, value: Any, place: str) -> list[Any]:  # noqa: ANN401 - JSON
        """Check schemas in a list, which is not empty."""
        found = _list(value, place, "schemas")
        return [self.schema(inner, f"{place}/{index}") for index, inner in enumerate(found)]

    def reference(self, value: Any, place: str) -> str:  # noqa: ANN401 - JSON
        """Check a reference; where it leads is looked at when all schemas are known."""
        if not isinstance(value, str) or not (value == "#" or value.startswith("#/")):
            allowed = "a path into this schema, such as #/$defs/name: nothing is fetched"
            raise refusal(place, value, allowed)
        self.links.refer(place, value)
        return value


def pattern(value: Any, place: str) -> str:  # noqa: ANN401 - JSON
    """Check a pattern, and return it in the engine's dialect."""
    if not isinstance(value, str):
        raise refusal(place, value, "a pattern: text")
    try:
        return rewritten(value)
    except BadPattern as error:
        allowed = "what all dialects of patterns read alike, without looking around or back"
        raise refusal(place, value, f"{allowed}; this has {error}") from None


def _mapping(value: Any, place: str, most: int = MAX_COUNT) -> dict[str, Any]:  # noqa: ANN401 - JSON
    if not isinstance(value, dict) or len(value) > most:
        raise refusal(place, value, f"a mapping of up to {most} names to schemas")
    return value


def _list(value: Any, place: str, what: str) -> list[Any]:  # noqa: ANN401 - JSON
    if not isinstance(value, list) or not 0 < len(value) <= MAX_COUNT:
        raise refusal(place, value, f"a list of 1 to {MAX_COUNT} {what}")
    return value


def _spellable(text: str, place: str) -> str:
    r"""Refuse text that JSON can only write with ``\u``."""
    if any((char < " " and char not in _BARE) or char == "\x7f" for char in text):
        raise refusal(place, text, "text without control characters other than \\b \\t \\n \\f \\r")
    return text


def _value(value: Any, place: str) -> Any:  # noqa: ANN401 - JSON
    """Check a value that a reply is to hold exactly."""
    match value:
        case str():
            return _spellable(value, place)
        case list():
            return [_value(inner, place) for inner in value]
        case dict():
            return {_spellable(name, place): _value(inner, place) for name, inner in value.items()}
    return value


def _values(value: Any, place: str) -> list[Any]:  # noqa: ANN401 - JSON
    if not isinstance(value, list) or not value:
        raise refusal(place, value, "a list of at least one value")
    return [_value(inner, place) for inner in value]


def _types(value: Any, place: str) -> Any:  # noqa: ANN401 - JSON
    names = value if isinstance(value, list) else [value]
    if not names or any(not isinstance(name, str) or name not in TYPES for name in names):
        raise refusal(place, value, f"one of {', '.join(TYPES)}, or a list of them")
    return value


def _names(value: Any, place: str) -> list[str]:  # noqa: ANN401 - JSON
    if not isinstance(value, list) or any(not isinstance(name, str) for name in value):
        raise refusal(place, value, "a list of names")
    return [_spellable(name, place) for name in value]


def _number(value: Any, place: str) -> float:  # noqa: ANN401 - JSON
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > MAX_NUMBER:
        raise refusal(place, value, f"a number within ±{MAX_NUMBER}")
    return value


def _multiple(value: Any, place: str) -> float:  # noqa: ANN401 - JSON
    number = Decimal(repr(_number(value, place)))
    digits = int(number.scaleb(MAX_DECIMALS)) if number > 0 else 0
    while digits and not digits % 10 and digits > number:
        digits //= 10
    if not digits or digits > MAX_MULTIPLE or number != round(number, MAX_DECIMALS):
        allowed = f"above 0, up to {MAX_MULTIPLE} without its point, with {MAX_DECIMALS} decimals"
        raise refusal(place, value, allowed)
    return float(value) if isinstance(value, float) else int(value)


def _format(value: Any, place: str) -> str:  # noqa: ANN401 - JSON
    if value not in FORMATS:
        raise refusal(place, value, f"one of {', '.join(FORMATS)}, or a pattern instead")
    return str(value)


def _count(most: int) -> Callable[[_Checker, Any, str], int]:
    def check(_: _Checker, value: Any, place: str) -> int:  # noqa: ANN401 - JSON
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise refusal(place, value, f"a whole number from 0 to {most}; or none, for no limit")
        return value

    return check


def _alone(check: Callable[[Any, str], Any]) -> Callable[[_Checker, Any, str], Any]:
    """Make a check of a keyword that holds no schemas."""
    return lambda _, value, place: check(value, place)


def _check_bounds(schema: dict[str, Any], place: str) -> None:
    """Refuse bounds that nothing fits, and a count of properties that cannot be enforced."""
    for low, high in _BOUNDS:
        if low in schema and high in schema and schema[low] > schema[high]:
            allowed = f"at most {high}, which is {schema[high]}"
            raise refusal(step(place, low), schema[low], allowed)
    least = schema.get("minProperties", 0)
    most = max(1, len(set(schema.get("required", ()))) + 1)
    if least > most:  # names that are not listed may be written twice, and then count once
        allowed = f"up to {most}: list the names in properties, and require them"
        raise refusal(step(place, "minProperties"), least, allowed)


_KEYWORDS: dict[str, Callable[[_Checker, Any, str], Any]] = {
    "$ref": _Checker.reference,
    "$defs": _Checker.definitions,
    "definitions": _Checker.definitions,
    "allOf": _Checker.list_of_schemas,
    "anyOf": _Checker.list_of_schemas,
    "oneOf": _Checker.list_of_schemas,
    "prefixItems": _Checker.list_of_schemas,
    "items": _Checker.schema,
    "additionalProperties": _Checker.schema,
    "properties": _Checker.map_of_schemas,
    "patternProperties": _Checker.map_of_patterns,
    "type": _alone(_types),
    "enum": _alone(_values),
    "const": _alone(_value),
    "required": _alone(_names),
    "pattern": _alone(pattern),
    "format": _alone(_format),
    "multipleOf": _alone(_multiple),
    **dict.fromkeys(
        ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _alone(_number)
    ),
    **dict.fromkeys(("minLength", "maxLength"), _count(MAX_LENGTH)),
    **dict.fromkeys(("minItems", "maxItems", "minProperties", "maxProperties"), _count(MAX_COUNT)),
}
