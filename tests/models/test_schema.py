"""The JSON schema of a class: what it says, and what is refused."""

from __future__ import annotations

import collections
import dataclasses
import enum
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Generic,
    Literal,
    NamedTuple,
    NotRequired,
    Optional,
    Required,
    TypedDict,
    TypeVar,
)
from uuid import UUID

import attrs
import pytest
from jsonschema import Draft202012Validator

from llmdispatcher import BadRequest, ResponseFormat
from llmdispatcher.models.schema import DECIMAL_PATTERN, schema_of

T = TypeVar("T")


class Colour(enum.StrEnum):
    """What a thing looks like."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    """How much."""

    LOW = 1
    HIGH = 2


class Mixed(enum.Enum):
    """Values of several types."""

    NONE = None
    ONE = 1
    WORD = "word"


@attrs.frozen
class Line:
    """A line of an order.

    More is not told.
    """

    item: Annotated[str, "What is bought.", 7]
    price: float
    count: int = 1
    _code: str = ""
    kind: str = attrs.field(default="", alias="type")
    total: float = attrs.field(init=False, default=0.0)
    shop: ClassVar[str] = "here"


@dataclasses.dataclass
class Order:
    """What is bought."""

    lines: list[Line]
    first: Line
    colour: Colour | None = None
    notes: dict[str, str] = dataclasses.field(default_factory=dict)


@attrs.define
class Node:
    """A tree."""

    name: str
    children: list[Node] = attrs.Factory(list)
    parent: Optional[Node] = None  # noqa: UP045 - the old spelling works as well


class Partial(TypedDict, total=False):
    """Some of it."""

    name: Required[str]
    age: int


class Whole(TypedDict):
    """All of it."""

    part: Partial
    note: NotRequired[Annotated[str, "Any."]]


Bare = dataclasses.make_dataclass("Bare", [("x", int)])
Point = NamedTuple("Point", [("x", int), ("y", float)])  # noqa: UP014 - it has no docstring


LINE: dict[str, Any] = {
    "type": "object",
    "description": "A line of an order.",
    "properties": {
        "item": {"type": "string", "description": "What is bought."},
        "price": {"type": "number"},
        "count": {"type": "integer"},
        "code": {"type": "string"},
        "type": {"type": "string"},
    },
    "required": ["item", "price"],
    "additionalProperties": False,
}


def test_an_attrs_class_is_a_closed_object() -> None:
    """Fields by alias in their order; without a default required; text in Annotated describes."""
    schema = schema_of(Line)

    assert schema == LINE
    assert list(schema["properties"]) == ["item", "price", "count", "code", "type"]


def test_classes_inside_are_defined_once() -> None:
    """A class that is used twice is one definition, referred to."""
    assert schema_of(Order) == {
        "type": "object",
        "description": "What is bought.",
        "properties": {
            "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}},
            "first": {"$ref": "#/$defs/Line"},
            "colour": {
                "anyOf": [{"type": "string", "enum": ["red", "blue"]}, {"type": "null"}],
            },
            "notes": {"type": "object", "additionalProperties": {"type": "string"}},
        },
        "required": ["lines", "first"],
        "additionalProperties": False,
        "$defs": {"Line": LINE},
    }


def test_a_recursive_class_refers_to_a_definition_and_not_to_the_root() -> None:
    """llama.cpp follows ``#/…`` and not ``#``, so the root is there a second time."""
    schema = schema_of(Node)
    node = schema["$defs"]["Node"]

    assert {**node, "$defs": {"Node": node}} == schema
    assert node["properties"]["children"] == {"type": "array", "items": {"$ref": "#/$defs/Node"}}
    assert node["properties"]["parent"] == {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}


def test_keys_of_a_typed_dict_are_required_as_it_says() -> None:
    """Required and NotRequired count also where annotations are text."""
    schema = schema_of(Whole)

    assert schema["description"] == "All of it."
    assert schema["required"] == ["part"]
    assert schema["properties"]["note"] == {"type": "string", "description": "Any."}
    assert schema["$defs"]["Partial"]["required"] == ["name"]


@pytest.mark.parametrize("kind", [Point, Bare])
def test_a_docstring_that_python_wrote_describes_nothing(kind: type) -> None:
    """Dataclasses and named tuples without one have their own signature."""
    assert kind.__doc__
    assert "description" not in schema_of(kind)


def test_a_named_tuple_is_an_object() -> None:
    """Names tell a model more than places do."""
    assert schema_of(Point) == {
        "type": "object",
        "properties": {"x": {"type": "integer"}, "y": {"type": "number"}},
        "required": ["x", "y"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (str, {"type": "string"}),
        (bool, {"type": "boolean"}),
        (Any, {}),
        (None, {"type": "null"}),
        (datetime, {"type": "string", "format": "date-time"}),
        (date, {"type": "string", "format": "date"}),
        (time, {"type": "string", "format": "time"}),
        (UUID, {"type": "string", "format": "uuid"}),
        (Decimal, {"type": "string", "pattern": DECIMAL_PATTERN}),
        (Colour, {"type": "string", "enum": ["red", "blue"]}),
        (Level, {"type": "integer", "enum": [1, 2]}),
        (Mixed, {"enum": [None, 1, "word"]}),
        (Literal["a"], {"type": "string", "enum": ["a"]}),
        (Literal["a", 1, Colour.RED], {"enum": ["a", 1, "red"]}),
        (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (list, {"type": "array", "items": {}}),
        (Sequence[int], {"type": "array", "items": {"type": "integer"}}),
        (set[str], {"type": "array", "items": {"type": "string"}}),
        (frozenset, {"type": "array", "items": {}}),
        (tuple, {"type": "array", "items": {}}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (tuple[()], {"type": "array", "minItems": 0, "maxItems": 0}),
        (
            tuple[int, str],
            {
                "type": "array",
                "minItems": 2,
                "maxItems": 2,
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
            },
        ),
        (dict, {"type": "object", "additionalProperties": {}}),
        (Mapping[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Final[int], {"type": "integer"}),
    ],
)
def test_every_type_that_json_can_hold_has_a_schema(kind: Any, expected: dict[str, Any]) -> None:
    """The schema of each is the plainest that means it, and is a valid schema."""
    assert schema_of(kind) == expected
    Draft202012Validator.check_schema(schema_of(kind))


def test_two_classes_of_one_name_are_two_definitions() -> None:
    """A definition is named after its class, with a number where the name is taken."""
    other: Any = attrs.make_class("Line", {"width": attrs.field(type=int)})
    both = attrs.make_class("Both", {"one": attrs.field(type=Line), "two": attrs.field(type=other)})

    schema = schema_of(both)

    assert list(schema["$defs"]) == ["Line", "Line_2"]
    assert schema["properties"]["two"] == {"$ref": "#/$defs/Line_2"}


@attrs.define
class Box(Generic[T]):
    """Holds one."""

    inside: T


class Pydantic:
    """What a pydantic model looks like from outside."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """Return a schema."""
        return {"type": "object", "title": cls.__name__}

    @classmethod
    def model_validate(cls, value: Any) -> Pydantic:
        """Make one."""
        return cls()


class Broken(Pydantic):
    """One that has no schema."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """Refuse, as pydantic does for a field of any class."""
        raise RuntimeError("no schema for a callable")


@dataclasses.dataclass
class WithInitVar:
    """Takes what it does not keep."""

    name: str
    seed: dataclasses.InitVar[int] = 0


Untyped = collections.namedtuple("Untyped", ["a", "b"])  # noqa: PYI024 - what is tested


@attrs.define
class Lost:
    """Names what is nowhere."""

    name: Missing  # type: ignore[name-defined]  # noqa: F821 - what is tested


def class_with(kind: Any) -> type:
    """Make a class that has a list of a type in a field."""
    return attrs.make_class("Thing", {"parts": attrs.field(type=kind)})


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (class_with(list[bytes]), r"Thing\.parts\[\] is <class 'bytes'>; .* attrs classes"),
        (class_with(dict[str, object]), r"Thing\.parts\{\} is <class 'object'>"),
        (class_with(tuple[int, complex]), r"Thing\.parts\[1\] is <class 'complex'>"),
        (class_with(dict[int, str]), r"the keys of Thing\.parts is <class 'int'>; .* must be str"),
        (class_with(set[Node]), r"Thing\.parts\[\] is .*Node.* hashable"),
        (class_with(set[list[int]]), r"hashable"),
        (class_with(None), r"Thing\.parts is None; .* given a type"),
        (class_with(T), r"Thing\.parts is ~T"),
        (class_with(Box[int]), r"Thing\.parts is .*Box\[int\]"),
        (class_with(Pydantic), r"Thing\.parts is .*Pydantic"),
        (class_with(Literal[b"x"]), r"at least one str"),
        (class_with([int]), r"Thing\.parts is \[<class 'int'>\]"),
        (enum.Enum("Empty", []), r"Empty is .* at least one"),
        (enum.Enum("Odd", {"A": float("nan")}), r"Odd is .* finite"),
        (enum.Enum("Odd", {"A": (1, 2)}), r"Odd is .* at least one str"),
        (object, r"object is <class 'object'>"),
        (Box, r"Box\.inside is ~T"),
        (WithInitVar, r"WithInitVar\.seed is .*not an InitVar"),
        (Untyped, r"Untyped\.a is None"),
        (Lost, r"Lost is .*name 'Missing' is not defined.*top of a module"),
        (Broken, r"no schema for a callable"),
    ],
)
def test_what_has_no_schema_is_refused_by_its_path(kind: type, told: str) -> None:
    """The error names the class, the field, its type, and what is possible."""
    with pytest.raises(BadRequest, match=told):
        schema_of(kind)


def test_what_can_be_hashed_may_be_in_a_set() -> None:
    """Frozen classes can; that of a set is the schema of a list."""
    assert schema_of(set[Line])["items"] == {"$ref": "#/$defs/Line"}


def test_a_class_that_describes_itself_is_believed() -> None:
    """A pydantic model writes its own schema; pydantic is not imported for that."""
    assert ResponseFormat.of(Pydantic).schema == {"type": "object", "title": "Pydantic"}
