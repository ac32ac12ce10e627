"""From the JSON of a reply to what was asked for: strictly, and saying what is wrong."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import sys
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime, time
from decimal import Decimal
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict
from uuid import UUID

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from llmdispatcher import BadReply, ResponseFormat
from llmdispatcher.models.conform import wrong
from llmdispatcher.models.form import Shape
from llmdispatcher.models.schema import schema_of
from llmdispatcher.typed import MAX_DIGITS, parsed


class Colour(enum.Enum):
    """What a thing looks like."""

    RED = "red"
    BLUE = "blue"


def _even(_: object, __: object, value: int) -> None:
    if value % 2:
        raise ValueError(f"{value} is odd")


@attrs.frozen
class Line:
    """A line of an order."""

    item: str
    price: float
    count: int = attrs.field(default=2, validator=_even)
    _note: str = attrs.field(default="", alias="remark")


@dataclasses.dataclass
class Order:
    """What is bought."""

    lines: list[Line]
    colour: Colour | None = None
    when: datetime | None = None
    total: Decimal = Decimal(0)


@attrs.frozen
class Node:
    """A tree."""

    name: str
    children: tuple[Node, ...] = ()
    other: Node | Line | None = None


class Point(NamedTuple):
    """A place."""

    x: int
    y: int = 7


class Account(TypedDict):
    """A person."""

    name: str
    age: NotRequired[int]


def made(value: Any, into: Any) -> Any:
    """Return a value, as JSON text, made into a class."""
    return parsed(json.dumps(value), ResponseFormat.of(into))


def refusal(text: str, into: Any) -> str:
    """Return what the refusal of a text says."""
    with pytest.raises(BadReply) as caught:
        parsed(text, ResponseFormat.of(into))
    return str(caught.value)


def test_classes_are_made_all_the_way_down() -> None:
    """Nested classes, aliases, defaults, enumerations, times and decimals."""
    value = {
        "lines": [{"item": "tea", "price": 3, "remark": "hot"}],
        "colour": "red",
        "when": "2026-11-21T12:00:00Z",
        "total": "12.50",
    }

    assert made(value, Order) == Order(
        lines=[Line("tea", 3.0, 2, "hot")],
        colour=Colour.RED,
        when=datetime(2026, 11, 21, 12, tzinfo=UTC),
        total=Decimal("12.50"),
    )


def test_recursive_classes_and_unions_of_classes_are_made() -> None:
    """Of a union the first member is made that fits."""
    value = {"name": "a", "children": [{"name": "b"}], "other": {"item": "c", "price": 1.5}}

    assert made(value, Node) == Node("a", (Node("b"),), Line("c", 1.5))


def test_named_tuples_and_typed_dicts_are_objects() -> None:
    """A NamedTuple is made from its names, and a TypedDict stays a dict."""
    assert made({"x": 1}, Point) == Point(1, 7)
    assert made({"name": "x", "age": 3}, Account) == {"name": "x", "age": 3}


@pytest.mark.parametrize(
    ("value", "into", "expected"),
    [
        (5.0, int | float, 5.0),
        (5, float | int, 5),
        (5.0, int, 5),
        (True, int | bool, True),
        ("2026-01-01", datetime | date, date(2026, 1, 1)),
        ("hello", UUID | str, "hello"),
        ("red", Literal[Colour.RED, "blue"], Colour.RED),
        (True, Literal[1, True], True),
        ([1, "a"], tuple[int, str], (1, "a")),
        ([], tuple[()], ()),
        ([1, 1], set[int], {1}),
        ({"a": [1]}, dict[str, list[Any]], {"a": [1]}),
        (None, int | str | None, None),
        ("12:30:00", time, time(12, 30)),
    ],
)
def test_values_keep_their_type(value: Any, into: Any, expected: Any) -> None:
    """A number stays what it was written as where a union leaves the choice."""
    got = made(value, into)

    assert (got, type(got)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("value", "into", "told"),
    [
        ('{"item": "a", "price": "3"}', Line, r'at $.price: a number is needed, and there is "3"'),
        ('{"item": 1, "price": 3}', Line, "at $.item: text is needed, and there is 1"),
        ('{"item": "a"}', Line, 'at $: "price" is missing'),
        ('{"item": "a", "price": 1, "x": 2}', Line, 'at $: "x" is none of its keys, item, price'),
        ('{"item": "a", "price": 1, "_note": ""}', Line, '"_note" is none of its keys'),
        ('{"item": "a", "price": 1, "count": 2.5}', Line, "at $.count: a whole number is needed"),
        ('{"item": "a", "price": 1, "count": true}', Line, "and there is true"),
        ('{"item": "a", "price": 1, "count": 3}', Line, "at $: 3 is odd"),
        ('{"lines": [{"item": "a", "price": null}]}', Order, "at $.lines[0].price: a number"),
        ('{"lines": {}}', Order, "at $.lines: a list is needed, and there is an object of 0"),
        ('{"lines": [], "colour": "green"}', Order, '"red" or "blue" or null is needed'),
        ('{"lines": [], "when": "noon"}', Order, 'at $.when: "noon" is no date with a time'),
        ('{"lines": [], "when": "2026-13-01T00:00:00Z"}', Order, "at $.when: month must be"),
        ('{"lines": [], "total": "NaN"}', Order, '"NaN" is no decimal number'),
        ('{"lines": [], "total": 1.5}', Order, "at $.total: text is needed"),
        ('{"name": "a", "other": {"item": "x"}}', Node, 'at $.other: "'),
        ('{"name": "a", "children": [{"name": 1}]}', Node, "at $.children[0].name: text"),
        ('{"x": "1"}', Point, "at $.x: a whole number"),
        ("[1]", tuple[int, str], "at $: a list with a length of at least 2"),
        ("[1, 2, 3]", tuple[int, int], "at $: a list with a length of at most 2"),
        ('"x"', UUID, "at $: badly formed"),
        ("true", Literal[1], "at $: 1 is needed, and there is true"),
        ("null", int | str, "at $: a whole number or text is needed, and there is null"),
        (f"{10**400}", float, "at $: int too large to convert to float"),
        ('"noon"', datetime | date, "at $: "),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(value: str, into: Any, told: str) -> None:
    """Nothing is converted in silence: the error says where, what was expected and what is."""
    message = refusal(value, into)

    assert told in message
    assert message.endswith(f"It begins: {value[:200]}" + "…" * (len(value) > 200))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1, column 1: it is no JSON"),
        ("Sure! {}", "it is no JSON"),
        ('{"a": 1} {"a": 2}', "line 1, column 10: it is no JSON"),
        ("{'a': 1}", "line 1, column 2"),
        ('{"a": 1, "b": 2, "a": 3}', 'the key "a" is there twice'),
        ('[{"x": {"a": 1, "a": 1}}]', 'the key "a" is there twice'),
        ("[NaN]", "NaN is no number in JSON"),
        ("-Infinity", "-Infinity is no number in JSON"),
        ("1" * (MAX_DIGITS + 1), "1000 digits is most"),
        ("[" * 100_000, "it is nested too deep"),
        ("[" * 900 + "]" * 900, None),
        ('"\\ud800"', "half of a character"),
        ('{"\\udfff": 1}', "half of a character"),
        ("```json\n{}\n```\nor\n```json\n{}\n```", "it is no JSON"),
        ("```python\n{}\n```", "it is no JSON"),
        ("```json\n{}", "it is no JSON"),
        ("```json\n{}\n``` and more", "it is no JSON"),
        ("\ufeff{}", "it is no JSON"),
    ],
)
def test_only_strict_json_is_read(text: str, told: str | None) -> None:
    """What is no JSON, or what readers of JSON understand differently, is refused."""
    form = ResponseFormat(Shape.JSON)
    if told is None:
        assert isinstance(parsed(text, form), list)
        return
    with pytest.raises(BadReply) as caught:
        parsed(text, form)

    assert told in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    "text",
    [
        '  {"a": "```"}\n',
        '```json\n{"a": "```"}\n```',
        '```\n{"a": "```"}\n```\n',
        'Here it is:\n\n```JSON\n{"a":\n "```"}\n```\nAsk me more.',
    ],
)
def test_one_block_between_fences_is_accepted(text: str) -> None:
    """Models that are served over HTTP wrap JSON so, whatever they are told."""
    assert parsed(text, ResponseFormat(Shape.JSON)) == {"a": "```"}
    other = text.replace('"```"', '"\u2028"')
    assert parsed(other, ResponseFormat(Shape.JSON)) == {"a": "\u2028"}


def test_a_reply_that_is_nested_deeper_than_its_class_can_be_made_is_refused() -> None:
    """Recursive classes recurse; the end of Python's stack is not a crash but a bad reply."""
    depth = sys.getrecursionlimit() // 4
    text = '{"name": "a", "children": [' * depth + '{"name": "b"}' + "]}" * depth

    assert "the reply is not the JSON that was asked for" in refusal(text, Node)


@attrs.frozen
class Add:
    """A sum."""

    terms: tuple[Add | Product, ...]
    op: Literal["+"] = "+"


@attrs.frozen
class Product:
    """A product."""

    terms: tuple[Add | Product, ...]
    op: Literal["*"] = "*"


def test_unions_of_unions_do_not_multiply_the_work() -> None:
    """Which member is meant shows last here, at every level; tried apart it would take for ever."""
    text, expected = '{"terms": [], "op": "*"}', Product(())
    for _ in range(40):
        text, expected = f'{{"terms": [{text}], "op": "*"}}', Product((expected,))

    assert parsed(text, ResponseFormat.of(Product)) == expected
    assert "at $.terms[0].terms[0]" in refusal(text.replace('[], "op": "*"', "3"), Product)


class Pydantic:
    """What a pydantic model looks like from outside."""

    def __init__(self, count: int) -> None:
        self.count = count

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """Return its schema."""
        return {"type": "object", "properties": {"count": {"type": "integer"}}}

    @classmethod
    def model_validate(cls, value: Any) -> Pydantic:
        """Make one, from text as well."""
        if int(value["count"]) < 0:
            raise ValueError("count must be\nat least 0")
        return cls(int(value["count"]))


def test_a_class_that_makes_its_own_values_is_let_make_them() -> None:
    """A pydantic model validates, after its own schema was compared: it converts nothing."""
    assert made({"count": 3}, Pydantic).count == 3
    assert "at $: count must be at least 0" in refusal('{"count": -1}', Pydantic)
    assert "at $.count: a whole number" in refusal('{"count": "3"}', Pydantic)


def test_a_class_is_compared_with_its_own_schema_whatever_was_sent() -> None:
    """A schema that was written by hand does not let another type into the class."""
    form = ResponseFormat(Shape.SCHEMA, {"type": "object"}, into=Point)

    assert parsed('{"x": 1}', form) == Point(1)
    with pytest.raises(BadReply, match=r"\$\.x: a whole number"):
        parsed('{"x": "1"}', form)


PLAIN: dict[str, Any] = {
    "type": "object",
    "properties": {
        "a": {"$ref": "#/$defs/small~1number"},
        "b": {"enum": ["x", {"y": [1, None]}]},
        "c": {"type": ["string", "null"], "maxLength": 3},
        "d": {"prefixItems": [{"type": "integer"}], "items": {"type": "string"}, "minItems": 1},
        "e": {"oneOf": [{"const": 1}, {"type": "array", "items": False}]},
        "f": {"allOf": [{"type": "number"}, {"exclusiveMinimum": 0}]},
        "g": {"items": [{"type": "integer"}], "additionalItems": False},
        "h": {"type": "string", "pattern": "^a$", "format": "email"},
    },
    "required": ["a"],
    "additionalProperties": {"type": "boolean"},
    "$defs": {"small/number": {"type": "number", "maximum": 5}},
}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"a": 5}, None),
        ({"a": 6}, "$.a: a number of at most 5 is needed, and there is 6"),
        ({"a": 1, "b": {"y": [1, None]}}, None),
        ({"a": 1, "b": {"y": [True, None]}}, '$.b: "x" or an object of 1 is needed'),
        ({"a": 1, "c": None}, None),
        ({"a": 1, "c": "abcd"}, "$.c: text with a length of at most 3"),
        ({"a": 1, "c": 1}, "$.c: text or null is needed"),
        ({"a": 1, "d": [1, "x", 2]}, "$.d[2]: text is needed"),
        ({"a": 1, "d": []}, "$.d: a list with a length of at least 1"),
        ({"a": 1, "e": []}, None),
        ({"a": 1, "e": [2]}, "$.e[0]: nothing may be here"),
        ({"a": 1, "f": 0}, "$.f: a number above 0"),
        ({"a": 1, "g": [1, 2]}, "$.g[1]: nothing may be here"),
        ({"a": 1, "h": "not compared"}, None),
        ({"a": 1, "z": True}, None),
        ({"a": 1, "z": 1}, "$.z: true or false is needed, and there is 1"),
        ({}, '$: "a" is missing'),
        ([], "$: an object is needed, and there is a list of 0"),
    ],
)
def test_a_plain_schema_is_compared_as_far_as_it_goes(value: Any, told: str | None) -> None:
    """Structure, enumerations and bounds; what is not compared is taken to fit."""
    form = ResponseFormat.of(PLAIN)
    if told is None:
        assert parsed(json.dumps(value), form) == value
        return
    with pytest.raises(BadReply) as caught:
        parsed(json.dumps(value), form)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": 5, "required": "a", "properties": [], "enum": 3, "minimum": "x", "items": 7},
        {"type": ["odd", 1], "anyOf": {}, "allOf": None, "oneOf": [], "$ref": 1},
        {"$ref": "#/nowhere/0"},
        {"$ref": "https://example.com/schema.json"},
        {"properties": {"a": 1}, "patternProperties": {"^a": {}}, "additionalProperties": False},
        {"prefixItems": 1, "items": None, "const": [1, 2]},
    ],
)
def test_a_malformed_schema_is_no_reason_to_fail(schema: dict[str, Any]) -> None:
    """Keywords that mean nothing here are let pass: what compiles them has refused them."""
    value: list[int] = [1, 2]

    assert parsed(json.dumps(value), ResponseFormat.of(schema)) == value


def test_a_schema_that_refers_to_itself_ends() -> None:
    """A reference that never gets anywhere is told as a nesting without end."""
    with pytest.raises(BadReply, match="nested too deep"):
        parsed("1", ResponseFormat.of({"$ref": "#"}))


# -- any class, any value ----------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
WHOLE = st.integers(-(2**70), 2**70)
REAL = st.floats(allow_nan=False, allow_infinity=False)
AWARE = st.datetimes(timezones=st.just(UTC)) | st.datetimes()
MONEY = st.decimals(allow_nan=False, allow_infinity=False, places=2)

SCALARS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (str, TEXT),
    (int, WHOLE),
    (float, REAL),
    (bool, st.booleans()),
    (NoneType, st.none()),
    (datetime, AWARE),
    (date, st.dates()),
    (time, st.times()),
    (UUID, st.uuids()),
    (Decimal, MONEY),
    (Colour, st.sampled_from(Colour)),
    (Literal["a", 1] | None, st.sampled_from(["a", 1, None])),
    (Annotated[int, "A number."], WHOLE),
]
"""Types that can be in a set, and their values."""


@st.composite
def kinds(draw: st.DrawFn, depth: int = 2) -> tuple[Any, st.SearchStrategy[Any]]:
    """Draw a type and what draws values of it."""
    scalar, its_values = draw(st.sampled_from(SCALARS))
    if depth == 0 or draw(st.booleans()):
        return scalar, its_values
    kind, values = draw(kinds(depth - 1) | classes(depth - 1))
    lists = st.lists(values, max_size=3)
    tuples = lists.map(tuple)
    shapes = [
        (of(list, kind), lists),
        (kind | None, values | st.none()),
        (of(Mapping, str, kind), st.dictionaries(TEXT, values, max_size=3)),
        (of(tuple, kind, ...), tuples),
        (of(Sequence, kind), tuples),
        (of(tuple, kind, scalar), st.tuples(values, its_values)),
        (of(set, scalar), st.sets(its_values, max_size=3)),
        (of(AbstractSet, scalar), st.frozensets(its_values, max_size=3)),
    ]
    return shapes[draw(st.integers(0, len(shapes) - 1))]


def of(container: Any, *items: Any) -> Any:
    """Return a container type with items of a type that is not known before the test runs."""
    return container[items if items[1:] else items[0]]


@st.composite
def classes(draw: st.DrawFn, depth: int = 2) -> tuple[Any, st.SearchStrategy[Any]]:
    """Draw an attrs class, and what draws its instances."""
    fields, values = {}, {}
    for index in range(draw(st.integers(0, 4))):
        name, alias = f"f{index}", draw(st.sampled_from([f"f{index}", f"a{index}"]))
        kind, made_by = draw(kinds(depth))
        if draw(st.booleans()):
            fields[name] = attrs.field(type=kind, alias=alias, kw_only=True, default=draw(made_by))
        else:
            fields[name] = attrs.field(type=kind, alias=alias, kw_only=True)
        values[alias] = made_by
    made = attrs.make_class("Made", fields)
    return made, st.builds(made, **values)


def plain(value: Any) -> Any:
    """Return what stands for a value in JSON."""
    if attrs.has(type(value)):
        return {f.alias: plain(getattr(value, f.name)) for f in attrs.fields(type(value))}
    match value:
        case enum.Enum():
            value = value.value
        case datetime() | date() | time():
            value = value.isoformat()
        case UUID():
            value = str(value)
        case Decimal():
            value = format(value, "f")
        case dict():
            value = {key: plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            value = [plain(item) for item in value]
    return value


@settings(max_examples=settings().max_examples * 3 // 2, deadline=None)
@given(st.data())
def test_any_value_of_any_class_survives_json(data: st.DataObject) -> None:
    """Its JSON is valid for the class's schema, and is made into the same value again."""
    kind, values = data.draw(classes())
    value = data.draw(values)
    schema = schema_of(kind)
    text = json.dumps(plain(value))

    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(json.loads(text))
    assert parsed(text, ResponseFormat.of(kind)) == value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from([0.5, 1.0]) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=settings().max_examples * 3 // 2, deadline=None)
@given(st.data())
def test_other_json_fits_as_a_validator_of_json_schema_says(data: st.DataObject) -> None:
    """What is compared here for schemas of classes is all that they say, patterns apart."""
    kind, values = data.draw(kinds())
    value = data.draw(JSON | values.map(plain) | st.lists(values.map(plain), max_size=3))
    schema = schema_of(kind)
    text = json.dumps(schema)
    valid = Draft202012Validator(json.loads(text.replace('"pattern"', '"title"'))).is_valid(value)

    assert (wrong(value, schema) is None) == valid
    assert not isinstance(value, float) or math.isfinite(value)


def test_numbers_beyond_floats_are_exact() -> None:
    """A reply is not lost for a number that JSON can write and a float cannot hold."""
    form = ResponseFormat("json")

    assert parsed("[1e999, 0.5]", form) == [Decimal("1e999"), 0.5]
    number = ResponseFormat.of({"type": "integer"})
    assert parsed("1e999", number) == Decimal("1e999")
    with pytest.raises(BadReply, match="too large for a float"):
        parsed("[1e999]", attrs.evolve(form, into=list))
