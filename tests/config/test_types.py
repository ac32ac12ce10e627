"""What stands at a key of a vendor is of the type that its spec takes, or refused at its place."""

from __future__ import annotations

import enum
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
import yaml

from llmdispatcher import Azure, BadRequest, ConfigError, HttpVendor, OpenAI, Secret
from llmdispatcher.config import arguments, kinds, settings
from llmdispatcher.config.convert import Converter
from llmdispatcher.config.guard import NOTHING
from llmdispatcher.config.node import Node, Notes
from llmdispatcher.models.errors import Problem
from llmdispatcher.vendors import discovery
from llmdispatcher.vendors.contract import VendorSpec

ANYTHING: tuple[Any, ...] = (
    {},
    {"": 0},
    {"a": "b"},
    {"a": {"b": "c"}},
    [],
    [0],
    ["x", {}],
    0,
    -1.5,
    True,
    None,
    "x",
)
"""Of every kind that a file has."""


def fields() -> Iterator[tuple[str, str, arguments.Argument]]:
    """Walk through what can be said of vendors; those that are made alike are met once."""
    seen = set()
    for kind in discovery.names():
        for name, argument in arguments.maker(discovery.find(kind)).arguments.items():
            if (name, argument.field, argument.kind) not in seen:
                seen.add((name, argument.field, argument.kind))
                yield kind, name, argument


FIELDS = [*fields()]


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type, all the way down."""
    inner = typing.get_args(kind)
    if kinds.is_anything(kind):
        return True
    if kinds.is_union(kind):
        return any(fits(value, each) for each in inner)
    if kinds.is_mapping(kind):
        pairs = value.items() if isinstance(value, Mapping) else [(None, None)]
        return all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in pairs)
    if kinds.is_list(kind):
        several = isinstance(value, list | tuple | set | frozenset)
        return several and all(fits(each, inner[0]) for each in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def said(kind: str, name: str, value: object) -> bytes:
    """Make a file that says one thing of a vendor, and else what it needs."""
    table = {"model_path": "/m/x.gguf"} if kind == "llamacpp" else {}
    return yaml.safe_dump({"vendors": {kind: {**table, name: value}}}).encode()


def read(text: bytes) -> tuple[VendorSpec | None, tuple[Problem, ...]]:
    """Read a file of one vendor: its spec, or what is wrong with it."""
    try:
        (spec,) = settings.parse(text, {}, "file.yaml").specs
    except ConfigError as error:
        return None, error.problems
    return spec, ()


def test_all_are_walked_through() -> None:
    """Those of every field of the specs that come with the package are among them."""
    names = {name for _, name, _ in FIELDS}

    assert {"proxy", "headers", "ca_file", "api_key", "replies", "adapters", "price"} <= names
    assert len(FIELDS) > 40


@pytest.mark.parametrize(
    ("kind", "name", "argument"), FIELDS, ids=[f"{kind}.{name}" for kind, name, _ in FIELDS]
)
def test_a_value_is_of_its_type_or_refused_where_it_stands(
    kind: str, name: str, argument: arguments.Argument
) -> None:
    """Of whatever kind: no error but ConfigError, and no spec with something else in it."""
    for value in ANYTHING:
        spec, problems = read(said(kind, name, value))
        made = getattr(spec, name, NOTHING)  # which a script puts into its card
        assert (spec is None) is bool(problems)
        assert made is NOTHING or fits(made, argument.kind), (value, made)
        for problem in problems:
            assert problem.key_path.startswith(f"vendors.{kind}.{name}"), (value, problem)


@pytest.mark.parametrize("value", [{"": 0}, {"": "0"}, {"http": "http://127.0.0.1:3128"}, [], True])
@pytest.mark.parametrize("name", ["proxy", "api_key"])
def test_a_secret_that_is_text_is_no_mapping_of_texts(name: str, value: object) -> None:
    """Headers are; nothing else is taken for them because it may hold a secret as well."""
    _, (problem,) = read(said("openai", name, value))

    assert problem.key_path == f"vendors.openai.{name}"
    assert problem.message.startswith("must be text")


def test_headers_are_no_text() -> None:
    """They are told to be a mapping, whose texts may name variables."""
    _, (problem,) = read(said("openai", "headers", "X-Title"))

    assert problem.key_path == "vendors.openai.headers"
    assert "a mapping of names to texts" in problem.message


class Colour(enum.Enum):
    """A kind of its own."""

    RED = "red"


class Tone(enum.StrEnum):
    """One that is text as well."""

    HIGH = "high"


@attrs.frozen
class Foreign:
    """A spec of another package that shows little of itself."""

    pin: int = attrs.field(default=0, repr=False)
    pins: list[int] = attrs.field(factory=list, repr=False)
    colour: Colour = attrs.field(default=Colour.RED, repr=False)
    tones: tuple[Tone, ...] = ()
    keys: dict[str, Secret] | Secret | None = attrs.field(default=None, repr=False)
    store: Path | None = attrs.field(default=None, repr=False)


def read_foreign(name: str, value: Any, text: str = "") -> tuple[Any, list[str]]:
    """Read one of its fields."""
    notes = Notes("file.yaml")
    whole = Node({name: Node(value, path=name, text=text)})
    given = Converter(notes, {"A": "b"}).given(arguments.of_class(Foreign), whole)
    return given.get(name, NOTHING), [problem.message for problem in notes.problems]


def test_what_is_not_shown_need_be_no_text() -> None:
    """A field that shows nothing is still of its own type, and what is wrong there is not shown."""
    assert read_foreign("pin", 5, "5") == (5, [])
    assert read_foreign("pins", [Node(5, text="5")]) == ([5], [])
    hidden = "what stands there is not shown"
    for bad in (Node("hunter2", text="hunter2"), Node([Node("hunter2", text="hunter2")])):
        assert read_foreign("pin", bad.value, bad.text) == (
            NOTHING,
            [f"must be of the type int; {hidden}"],
        )
        if isinstance(bad.value, list):
            (told,) = read_foreign("pins", bad.value)[1]
            assert told.startswith("must be of the type list")
            assert told.endswith(hidden)
    assert read_foreign("colour", "red", "red") == (Colour.RED, [])
    assert "hunter2" not in str(read_foreign("colour", "hunter2", "hunter2")[1])
    assert read_foreign("keys", "${A}", "${A}") == ("b", [])
    assert read_foreign("keys", {"x": Node("${A}", text="${A}")}) == ({"x": "b"}, [])
    assert read_foreign("store", "${A}", "${A}") == ("b", [])
    assert read_foreign("store", {"x": Node("${A}", text="${A}")})[0] is NOTHING


def test_an_enumeration_is_said_by_its_value() -> None:
    """Also one that is text, in a list; what is none of its values is told which there are."""
    (tone,) = read_foreign("tones", [Node("high", text="high")])[0]
    assert tone is Tone.HIGH
    bad = [Node("low", text="low")]
    assert read_foreign("tones", bad) == (NOTHING, ["is 'low'; must be one of 'high'"])


TEXTS = ("base_url", "api_key", "api_key_env", "api_version", "proxy", "ca_file")


@pytest.mark.parametrize("value", [{"a": "hunter2"}, ["hunter2"], 5, True, b"hunter2"], ids=repr)
@pytest.mark.parametrize("name", TEXTS)
def test_a_program_is_told_at_once_what_must_be_text(name: str, value: object) -> None:
    """By the name of the field, and without what was given: a password may be in it."""
    given: Any = {name: value}
    for make in (OpenAI, Azure):
        with pytest.raises(BadRequest, match=name) as raised:
            make(**given)
        assert "hunter2" not in str(raised.value)
    assert isinstance(OpenAI(ca_file=Path("/x/y.pem")), HttpVendor)  # type: ignore[arg-type]
