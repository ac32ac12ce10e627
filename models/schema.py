"""From a class whose fields have types to the JSON schema of its values.

Only what means the same in JSON, in every JSON schema reader and in Python is taken; anything else
is a BadRequest that names the field. Keywords that llama.cpp or a vendor would refuse or read in
another way are not written: no ``$ref`` to the root, no ``items`` beside ``prefixItems``, no
``uniqueItems``. Making the values is ``dispatcher.typed``'s to do.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    NamedTuple,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)
from uuid import UUID

import attrs

from llmdispatcher.models.errors import BadRequest

Schema = dict[str, Any]

POSSIBLE = (
    "made of attrs classes, dataclasses, TypedDict, NamedTuple, Enum, Literal, str, int, float,"
    " bool, None, Any, datetime, date, time, UUID, Decimal, unions of them, and list, tuple, set,"
    " frozenset, Sequence, dict[str, …] and Mapping[str, …] of them"
)

DECIMAL_PATTERN = r"^-?[0-9]+(\.[0-9]+)?$"
"""Of the text that stands for a Decimal: a JSON number would be read as a float, and rounded."""

_PLAIN: dict[object, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    NoneType: {"type": "null"},
    None: {"type": "null"},
    Any: {},
    datetime: {"type": "string", "format": "date-time"},
    date: {"type": "string", "format": "date"},
    time: {"type": "string", "format": "time"},
    UUID: {"type": "string", "format": "uuid"},
    Decimal: {"type": "string", "pattern": DECIMAL_PATTERN},
}


_ARRAYS = {
    list: False,
    Sequence: False,
    MutableSequence: False,
    set: True,
    frozenset: True,
    AbstractSet: True,
}
"""What is an array in JSON, and whether its items must be hashable."""


def schema_of(into: type) -> Schema:
    """Return the JSON schema (draft 2020-12) of a class's values.

    Fields are properties in their order of declaration, by their aliases in attrs classes; those
    without a default are required, and there may be no others. Text in ``Annotated`` describes
    what it annotates, and the first line of a docstring its class. A NamedTuple is an object as
    well, and a Decimal is text. A class with ``model_json_schema`` and ``model_validate``, as
    pydantic's have, says itself what its schema is; it cannot be a field of one that is not.

    Raises BadRequest with the path of the field that has no schema.
    """
    if describes_itself(into):
        return _own_schema(into)
    return _Writer(into).whole()


def describes_itself(into: object) -> bool:
    """Whether a class brings its own schema and makes its own values, as pydantic models do."""
    names = ("model_json_schema", "model_validate")
    return isinstance(into, type) and all(callable(getattr(into, name, None)) for name in names)


def _own_schema(into: Any) -> Schema:  # noqa: ANN401 - a class with model_json_schema
    try:
        return dict(into.model_json_schema())
    except (RuntimeError, TypeError, NameError) as error:  # the bases of pydantic's own errors
        raise BadRequest("schema", into, f"a class that has a JSON schema ({error})") from error


class _Field(NamedTuple):
    """One property of an object."""

    name: str
    kind: Any
    required: bool


class _Writer:
    """Writes the schema of one class; the classes it is made of are defined once, by name."""

    def __init__(self, root: Any) -> None:  # noqa: ANN401 - any annotation
        self._root = root
        self._names: dict[type, str] = {}
        self._definitions: dict[str, Schema] = {}

    def whole(self) -> Schema:
        """Write it. The root itself is no reference, which not every reader would follow."""
        path = _name_of(self._root)
        fields = _fields(self._root, path)
        schema = (
            self._of(self._root, path) if fields is None else self._object(self._root, fields, path)
        )
        if self._definitions:
            schema["$defs"] = self._definitions
        return schema

    def _of(self, kind: Any, path: str) -> Schema:  # noqa: ANN401 - any annotation
        generic = get_origin(kind) or (kind if isinstance(kind, type) else None)
        writer = self._writers.get(generic)
        return writer(self, kind, path) if writer else self._named(kind, path)

    def _inner(self, kind: Any, path: str) -> Schema:  # noqa: ANN401 - any annotation
        """Write what says something about a field, and nothing about its values, by its inside."""
        return self._of(get_args(kind)[0], path)

    def _union(self, kind: Any, path: str) -> Schema:  # noqa: ANN401 - any annotation
        return {"anyOf": [self._of(item, path) for item in get_args(kind)]}

    def _literal(self, kind: Any, path: str) -> Schema:  # noqa: ANN401 - any annotation
        values = [item.value if isinstance(item, Enum) else item for item in get_args(kind)]
        return _one_of(values, kind, path)

    def _named(self, kind: Any, path: str) -> Schema:  # noqa: ANN401 - any annotation
        """Write what has no parts of other types, or fields."""
        if isinstance(kind, type) and issubclass(kind, Enum):
            return _one_of([member.value for member in kind], kind, path)
        if (isinstance(kind, type) or kind in (None, Any)) and kind in _PLAIN:
            return dict(_PLAIN[kind])
        fields = _fields(kind, path)
        if fields is None:
            raise BadRequest(path, kind, POSSIBLE)
        return {"$ref": f"#/$defs/{self._defined(kind, fields)}"}

    def _defined(self, kind: type, fields: list[_Field]) -> str:
        """Return the name of a class among the definitions, and define it the first time."""
        if kind in self._names:
            return self._names[kind]
        plain = re.sub(r"\W", "_", kind.__name__)
        name, number = plain, 1
        while name in self._definitions:
            number += 1
            name = f"{plain}_{number}"
        self._names[kind] = name
        self._definitions[name] = {}  # keeps its place and its name while its fields are written
        self._definitions[name] = self._object(kind, fields, kind.__name__)
        return name

    def _object(self, kind: type, fields: list[_Field], path: str) -> Schema:
        schema: Schema = {"type": "object"}
        if told := _docstring(kind):
            schema["description"] = told
        schema["properties"] = {
            field.name: self._of(field.kind, f"{path}.{field.name}") for field in fields
        }
        schema["required"] = [field.name for field in fields if field.required]
        schema["additionalProperties"] = False
        return schema

    def _annotated(self, kind: Any, path: str) -> Schema:  # noqa: ANN401 - any annotation
        inner, *notes = get_args(kind)
        schema = self._of(inner, path)
        if told := " ".join(note for note in notes if isinstance(note, str)):
            schema["description"] = told
        return schema

    def _array(self, kind: Any, path: str) -> Schema:  # noqa: ANN401 - any annotation
        (item,) = get_args(kind) or (Any,)
        hashed = _ARRAYS[get_origin(kind) or kind]
        if hashed and getattr(get_origin(item) or item, "__hash__", None) is None:
            raise BadRequest(f"{path}[]", item, "hashable, to be in a set")
        return {"type": "array", "items": self._of(item, f"{path}[]")}

    def _tuple(self, kind: Any, path: str) -> Schema:  # noqa: ANN401 - any annotation
        items = get_args(kind)
        if kind is tuple or (len(items) > 1 and items[1] is ...):
            return {"type": "array", "items": self._of((items or (Any,))[0], f"{path}[]")}
        count = len(items)
        schema: Schema = {"type": "array", "minItems": count, "maxItems": count}
        if items:
            schema["prefixItems"] = [
                self._of(item, f"{path}[{index}]") for index, item in enumerate(items)
            ]
        return schema

    def _mapping(self, kind: Any, path: str) -> Schema:  # noqa: ANN401 - any annotation
        key, value = get_args(kind) or (str, Any)
        if key is not str:
            raise BadRequest(f"the keys of {path}", key, "str, as all keys in JSON are")
        return {"type": "object", "additionalProperties": self._of(value, f"{path}{{}}")}

    _writers: ClassVar[dict[object, Callable[[_Writer, Any, str], Schema]]] = {
        Annotated: _annotated,
        Final: _inner,
        Required: _inner,
        NotRequired: _inner,
        Union: _union,
        UnionType: _union,
        Literal: _literal,
        tuple: _tuple,
        **dict.fromkeys(_ARRAYS, _array),
        **dict.fromkeys((dict, Mapping, MutableMapping), _mapping),
    }
    """How what is no class with a name of its own is written."""


def _one_of(values: list[Any], kind: object, path: str) -> Schema:
    """Write an enumeration, with its type where that is one."""
    allowed = (str, int, float, bool, NoneType)
    if not values or any(type(value) not in allowed or not _finite(value) for value in values):
        raise BadRequest(path, kind, "at least one str, int, finite float, bool or None")
    kinds = {type(value) for value in values}
    schema = dict(_PLAIN[kinds.pop()]) if len(kinds) == 1 else {}
    return {**schema, "enum": values}


def _finite(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _fields(kind: Any, path: str) -> list[_Field] | None:  # noqa: ANN401 - any annotation
    """List the fields of a class; None if it is no class with fields that is known here."""
    if not isinstance(kind, type):
        return None
    for is_such, listed in _LISTINGS:
        if is_such(kind):
            return listed(kind, _hints(kind, path), path)
    return None


def _hints(kind: type, path: str) -> dict[str, Any]:
    """Return the types of a class's fields, where they are text resolved."""
    try:
        return get_type_hints(kind, include_extras=True)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        allowed = (
            f"a class whose annotations can be resolved ({error}): define it, and what it names,"
            " at the top of a module and not under TYPE_CHECKING"
        )
        raise BadRequest(path, kind, allowed) from None


def _attrs_fields(kind: Any, hints: Mapping[str, Any], path: str) -> list[_Field]:  # noqa: ANN401 - an attrs class
    return [
        _Field(
            field.alias or field.name,
            _typed(hints.get(field.name, field.type), f"{path}.{field.name}"),
            field.default is attrs.NOTHING,
        )
        for field in attrs.fields(kind)
        if field.init
    ]


def _dataclass_fields(kind: Any, hints: Mapping[str, Any], path: str) -> list[_Field]:  # noqa: ANN401 - a dataclass
    for name, hint in hints.items():
        if isinstance(hint, dataclasses.InitVar):
            raise BadRequest(f"{path}.{name}", hint, "a field, not an InitVar")
    missing = dataclasses.MISSING
    return [
        _Field(
            field.name,
            hints[field.name],
            field.default is missing and field.default_factory is missing,
        )
        for field in dataclasses.fields(kind)
        if field.init
    ]


def _typed_dict_fields(kind: Any, hints: Mapping[str, Any], path: str) -> list[_Field]:  # noqa: ANN401 - a TypedDict
    """List the keys. With annotations that are text, only their origin tells what is required."""
    del path
    required = {Required: True, NotRequired: False}
    return [
        _Field(name, hint, required.get(get_origin(hint), name in kind.__required_keys__))
        for name, hint in hints.items()
    ]


def _named_tuple_fields(kind: Any, hints: Mapping[str, Any], path: str) -> list[_Field]:  # noqa: ANN401 - a NamedTuple
    return [
        _Field(name, _typed(hints.get(name), f"{path}.{name}"), name not in kind._field_defaults)
        for name in kind._fields
    ]


def _typed(hint: object, path: str) -> object:
    """Refuse a field without a type; one annotated with None has NoneType."""
    if hint is None:
        raise BadRequest(path, hint, f"given a type, {POSSIBLE}")
    return hint


_Listing = Callable[[Any, Mapping[str, Any], str], list[_Field]]

_LISTINGS: tuple[tuple[Callable[[Any], bool], _Listing], ...] = (
    (attrs.has, _attrs_fields),
    (dataclasses.is_dataclass, _dataclass_fields),
    (lambda kind: hasattr(kind, "__required_keys__"), _typed_dict_fields),
    (lambda kind: issubclass(kind, tuple) and hasattr(kind, "_fields"), _named_tuple_fields),
)
"""The kinds of classes that have fields, and how these are listed."""


def _docstring(kind: type) -> str:
    """Return the first line of a class's own docstring, but not of one that Python wrote."""
    told = vars(kind).get("__doc__") or ""
    first = _first_line(told.splitlines())
    return "" if first.startswith(f"{kind.__name__}(") else first


def _first_line(lines: Iterable[str]) -> str:
    return next((line.strip() for line in lines if line.strip()), "")


def _name_of(kind: object) -> str:
    return kind.__name__ if isinstance(kind, type) else repr(kind)
