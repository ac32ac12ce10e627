"""Makes JSON of arguments that a model wrote otherwise, by the types that the schema wants."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

MAX_DEPTH = 8
"""References and alternatives that are followed to find a parameter's type."""


def unwrapped(raw: str) -> str:
    """Return arguments that were written as a JSON string without that string, and null as {}."""
    text = raw.strip()
    if text in {"", "null"}:
        return "{}"
    if text.startswith('"'):
        inner = parsed(text)
        if isinstance(inner, str) and isinstance(parsed(inner), dict):
            return inner
    return text


class Invalid:
    """What ``parsed`` returns for text that is no JSON."""


def parsed(text: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Parse JSON; what is none, or nested deeper than Python can follow, is Invalid."""
    try:
        return json.loads(text, strict=False, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return Invalid


def _refuse(name: str) -> None:
    raise ValueError(name)


def dumped(text: str) -> str:
    """Write a text as JSON."""
    return json.dumps(text, ensure_ascii=False)


def parameter_types(parameters: Mapping[str, Any], key: str) -> set[str]:
    """Return the JSON types of one parameter of a tool; empty where its schema says nothing."""
    properties = parameters.get("properties")
    found = properties.get(key) if isinstance(properties, Mapping) else None
    return types_of(found, parameters) if isinstance(found, Mapping) else set()


def types_of(
    schema: Mapping[str, Any], root: Mapping[str, Any], depth: int = MAX_DEPTH
) -> set[str]:
    """Return the JSON types that a schema names, itself or in its alternatives; empty is any.

    ``root`` is the schema that it is a part of, for what it refers to.
    """
    if depth == 0:
        return set()
    if isinstance(target := schema.get("$ref"), str):
        return types_of(_referred(target, root), root, depth - 1)
    told = schema.get("type")
    types = {each for each in (told, *listed(told)) if isinstance(each, str)}
    for key in ("anyOf", "oneOf"):
        for option in listed(schema.get(key)):
            if isinstance(option, Mapping):
                types |= types_of(option, root, depth - 1)
    if not types:
        options = listed(schema.get("enum")) or ([schema["const"]] if "const" in schema else [])
        types = {_type(value) for value in options}
    return types


def listed(value: object) -> Sequence[Any]:
    """Return what a schema lists; nothing where it is no list: nobody has checked that schema."""
    return value if isinstance(value, list | tuple) else ()


def _referred(target: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a reference within a schema; one that leads nowhere is a schema of anything."""
    found: Any = root
    for part in target.removeprefix("#").split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


_TYPES: list[tuple[type | tuple[type, ...], str]] = [
    (str, "string"),
    (bool, "boolean"),
    ((int, float), "number"),
    (dict, "object"),
    (list, "array"),
]


def _type(value: object) -> str:
    return next((name for kind, name in _TYPES if isinstance(value, kind)), "null")


def as_json(raw: str, types: set[str], *, whole: bool) -> str:
    """Write a parameter's text as JSON of one of these types; of any if there are none.

    One line break at either end belongs to the tags. Text that is not of a wanted type is a string.
    """
    text = raw.removeprefix("\n").removesuffix("\n")
    if types != {"string"}:
        if not whole:
            return text if "string" not in types else dumped(text)[:-1]
        value = parsed(_LITERALS.get(text.strip(), text))
        if value is not Invalid and _fits(value, types):
            return _LITERALS.get(text.strip(), text).strip()
    return dumped(text) if whole else dumped(text)[:-1]


_LITERALS = {"True": "true", "False": "false", "None": "null"}


def _fits(value: object, types: set[str]) -> bool:
    kind = _type(value)
    return not types or kind in types or (kind == "number" and "integer" in types)


def without_beginning(text: str, mark: str) -> str:
    """Cut off what a text ends with if that is the beginning of a mark."""
    cut = next((n for n in range(len(mark), 0, -1) if text.endswith(mark[:n])), 0)
    return text[: len(text) - cut]
