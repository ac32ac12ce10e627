"""Rules: what a request may ask of a reply's shape, and what is refused before a model is asked."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import UserDict
from typing import Any

import pytest
from held import rule

from llmdispatcher.models.errors import InvalidGrammar
from llmdispatcher.models.form import ResponseFormat
from llmdispatcher.vendors.llamacpp.rules.patterns import MAX_PATTERN_DEPTH, BadPattern, rewritten
from llmdispatcher.vendors.llamacpp.rules.references import MAX_CHAIN, deepest
from llmdispatcher.vendors.llamacpp.rules.rules import ANY_JSON, Kind, embedded, rule_of

REFUSAL_S = 30.0
"""Liveness: a refusal takes milliseconds."""


def nested(depth: int) -> dict[str, Any]:
    """Make a schema of lists of lists of so many levels."""
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def chained(count: int) -> dict[str, Any]:
    """Make a schema whose definitions refer each to the next."""
    step = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}]} for i in range(count)}
    return {"$ref": "#/$defs/d0", "$defs": {**step, f"d{count}": {"type": "null"}}}


def doubled() -> dict[str, Any]:
    """Make a schema that is small in memory, and has 2^40 parts as JSON."""
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(40):
        schema = {"anyOf": [schema, schema]}
    return schema


def circular() -> dict[str, Any]:
    """Make a schema that holds itself."""
    schema: dict[str, Any] = {"type": "array"}
    schema["items"] = schema
    return schema


def test_text_has_no_rule() -> None:
    """A reply that may be any text is held to nothing."""
    assert rule_of(ResponseFormat()) is None


def test_json_is_any_object_or_array() -> None:
    """The shape json is one rule, whose values are free."""
    assert rule_of(ResponseFormat("json")) is ANY_JSON


def test_rules_can_be_compared() -> None:
    """Equal formats make equal rules, whatever kind of mapping a schema is."""
    plain = {"type": "object", "title": "ignored"}

    assert rule(plain) == rule(UserDict(plain))
    assert {rule(plain), rule({"type": "object"})} == {rule(plain)}


def test_importing_rules_loads_no_engine() -> None:
    """A format is checked without llama.cpp and without llguidance."""
    code = "import llmdispatcher.vendors.llamacpp.rules.rules, sys; print(*sys.modules, sep='\\n')"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)

    assert not {b"llama_cpp", b"llguidance", b"numpy"} & set(loaded.stdout.split())


def test_a_schema_in_a_lark_grammar_has_the_same_options() -> None:
    """What is embedded in a grammar is checked, and written, as a schema alone."""
    text = embedded({"const": 1})

    assert text == f"%json {rule({'const': 1}).source}"
    with pytest.raises(InvalidGrammar, match="/not"):
        embedded({"not": {}})


def test_comments_are_left_out_and_the_rest_is_kept() -> None:
    """Keywords that constrain nothing do not reach the engine; all others do."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://example.com/x",
        "title": "X",
        "description": "What it is.",
        "type": "object",
        "properties": {"title": {"type": "string", "examples": ["a"], "maxLength": 5}},
        "required": ["title"],
        "additionalProperties": False,
    }

    kept = json.loads(rule(schema).source)

    del kept["x-guidance"]
    assert kept == {
        "type": "object",
        "properties": {"title": {"type": "string", "maxLength": 5}},
        "required": ["title"],
        "additionalProperties": False,
    }


NOT_ENFORCEABLE: list[tuple[Any, str]] = [
    ({"not": {"type": "null"}}, "/not"),
    ({"if": {}, "then": {}}, "/if"),
    ({"properties": {"a": {"uniqueItems": True}}}, "/properties/a/uniqueItems"),
    ({"$defs": {"a/b": {"contains": {}}}}, r"/\$defs/a~1b/contains"),
    ({"maxLenght": 3}, "did you mean 'maxLength'"),
    ({"x-guidance": {"lenient": True}}, "/x-guidance"),
    ({"$anchor": "a"}, "a path"),
    ({"properties": {"a": {"$id": "b"}}}, r"/properties/a/\$id"),
    ({"$schema": "https://example.com/own"}, "2020-12"),
    ({"$ref": "https://example.com/schema"}, "nothing is fetched"),
    ({"$ref": "#/$defs/missing"}, "no schema at that place"),
    ({"$ref": "#/$defs/a/title", "$defs": {"a": {"title": "x"}}}, "no schema at that place"),
    ({"$ref": "#name"}, "a path"),
    ({"$ref": "#"}, "no value ever fits"),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "no value ever fits"),
    ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "no value ever"),
    ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "no value ever fits"),
    ({"allOf": [False]}, "no value ever fits the schema at /"),
    ({"type": "object", "properties": {"a": False}, "required": ["a"]}, "no value ever fits"),
    ({"type": "object", "additionalProperties": False, "required": ["a"]}, "no value ever fits"),
    ({"enum": []}, "at least one value"),
    ({"enum": "abc"}, "at least one value"),
    ({"anyOf": []}, "1 to 1000 schemas"),
    ({"type": []}, "one of null, boolean"),
    ({"type": "int"}, "one of null, boolean"),
    ({"type": ["string", 1]}, "one of null, boolean"),
    ({"properties": []}, "names to schemas"),
    ({"properties": {"a": 1}}, "/properties/a;"),
    ({"items": [{"type": "null"}]}, "a schema: a mapping"),
    ({"required": "a"}, "a list of names"),
    ({"minimum": 3, "maximum": 2}, "/minimum"),
    ({"minLength": 3, "maxLength": 2}, "/minLength"),
    ({"minItems": 3, "maxItems": 2}, "/minItems"),
    ({"minLength": 10**9}, "from 0 to 1000000"),
    ({"maxItems": 10**9}, "from 0 to 1000"),
    ({"minItems": -1}, "from 0 to"),
    ({"minItems": True}, "from 0 to"),
    ({"minItems": 1.5}, "from 0 to"),
    ({"minProperties": 2}, "up to 1"),
    ({"minimum": 10**30}, "finite"),
    ({"minimum": float("nan")}, "finite"),
    ({"const": float("inf")}, "finite"),
    ({"multipleOf": 0}, "above 0"),
    ({"multipleOf": -1}, "above 0"),
    ({"multipleOf": 1_000_003}, "above 0, up to 10000"),
    ({"multipleOf": 1e-12}, "9 decimals"),
    ({"format": "iban"}, "one of date-time"),
    ({"format": ["date"]}, "one of date-time"),
    ({"pattern": "(?=a)b"}, "looking around"),
    ({"pattern": r"(a)\1"}, "looking around or back"),
    ({"pattern": "("}, "not closed"),
    ({"pattern": 5}, "text"),
    ({"patternProperties": {"[": {}}}, "not closed"),
    ({"patternProperties": {"a": {}, "(?:a)": {}, "(b)": {}, "(?:b)": {}}}, "no name fits two of"),
    ({"const": "\x00"}, "control characters"),
    ({"const": [{"\x1b": 1}]}, "control characters"),
    ({"properties": {"\x7f": {}}}, "control characters"),
    ({"const": "\ud800"}, "surrogate"),
    ({"\ud800": 1}, "surrogate"),
    ({1: 2}, "a key that is text"),
    ({"const": {1}}, "JSON: mappings"),
    ({"const": b"bytes"}, "JSON: mappings"),
    (nested(10_000), "levels deep"),
    (circular(), "levels deep"),
    (doubled(), "more than 262144 characters"),
    ({"description": "x" * 2**20}, "more than 262144 characters"),
    ({"enum": ["x" * 100] * 10_000}, "more than 262144 characters"),
    (chained(MAX_CHAIN), f"the most are {MAX_CHAIN}"),
    ({"properties": {str(i): True for i in range(1001)}}, "up to 1000 names"),
]


@pytest.mark.parametrize(("schema", "told"), NOT_ENFORCEABLE)
def test_what_cannot_be_enforced_is_refused(schema: Any, told: str) -> None:
    """A schema is refused in no time, with the place and what is possible, and never cut down."""
    began = time.monotonic()

    with pytest.raises(InvalidGrammar, match=told):
        rule(schema)

    assert time.monotonic() - began < REFUSAL_S


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"$ref": "#"}},
        {"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": {"type": "null"}}},
        {"properties": {"a": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"$ref": "#"}, "b": False}, "required": []},
        chained(MAX_CHAIN // 2 - 1),
        nested(49),
        {"uniqueItems": False, "minProperties": 1, "maxProperties": 9},
        {"multipleOf": 0.01},
        {"multipleOf": 10_000},
    ],
)
def test_what_is_at_the_edge_is_allowed(schema: dict[str, Any]) -> None:
    """References that end, and what is as large as it may be, are rules."""
    assert rule(schema).kind is Kind.SCHEMA


BAD_GRAMMARS: list[tuple[str, str]] = [
    ("x ::= 'a'", "line 1, column 7"),
    ("a ::= [a]", "no rule named root"),
    ("root", "no ::= after root"),
    ("root ::= missing", "names missing"),
    ("root ::= (missing)", "the rule root of the grammar names missing"),
    ("root ::= root", "has no end"),
    ('root ::= "a" root', "has no end"),
    ('root ::= [a] ("b" root)+', "has no end"),
    ('root ::= "a"\nroot ::= "b"', "a second rule root in line 2"),
    ('root ::= "a', "not closed"),
    ("root ::= [a", "not closed"),
    ("root ::= []", "a set of no characters"),
    ("root ::= [z-a]", "from low to high"),
    ("root ::= (", "a \\( that is not closed"),
    ("root ::= )", "nothing begins with"),
    ("root ::= *", "nothing begins with"),
    ('root ::= "a"**', "nothing begins with and nothing repeats"),
    ('root ::= "a"{2001}', "up to 2000"),
    ('root ::= "a"{3,2}', "from low to high"),
    ('root ::= "a"{,2}', "not like"),
    ('root ::= "\\q"', "the escape"),
    ('root ::= "\\ud800"', "U\\+D800"),
    ('root ::= "\\UFFFFFFFF"', "U\\+FFFFFFFF"),
    ("root ::= <a", "a token that is not closed"),
    ("root ::= " + "(" * 100_000, "more than 100 brackets"),
    ("root ::= " + "[a]" * 100_000, "the most are 131072"),
    ("\n".join(f"r{i} ::= r{i + 1}" for i in range(4000)) + '\nr4000 ::= "a"\nroot ::= r0', "400"),
    ("\x00", "no name of a rule"),
    ("🙂 ::= 🙂", "no name of a rule"),
]


@pytest.mark.parametrize(("grammar", "told"), BAD_GRAMMARS)
def test_grammars_that_mean_nothing_are_refused(grammar: str, told: str) -> None:
    """A grammar is refused in no time, with the line or the rule that is wrong."""
    began = time.monotonic()

    with pytest.raises(InvalidGrammar, match=told):
        rule(grammar)

    assert time.monotonic() - began < REFUSAL_S


@pytest.mark.parametrize(
    ("pattern", "written"),
    [
        ("a", r"^(?:(?s:.*)\x{61}(?s:.*))$"),
        ("^a|b$", r"^(?:\x{61}(?s:.*)|(?s:.*)\x{62})$"),
        (r"^\d+?$", r"^(?:(?:[0-9])+)$"),
        ("^(?<x>.){2,}$", r"^(?:(?:(?:[^\n\r\x{2028}\x{2029}])){2,})$"),
        (r"^[^\d-]$", r"^(?:[^\p{Nd}\x{2d}])$"),
        ("^😀$", r"^(?:\x{1f600})$"),
        (r"^\uD83D\uDE00\0\/$", r"^(?:\x{1f600}\x{0}\x{2f})$"),
        ("^{}$", r"^(?:\x{7b}\x{7d})$"),
        ("", "^(?:(?s:.*)(?s:.*))$"),
    ],
)
def test_patterns_are_written_for_the_engine(pattern: str, written: str) -> None:
    """A pattern becomes one that is anchored, and that no dialect reads in another way."""
    assert written == rewritten(pattern)


BAD_PATTERNS = (
    *("a$b", "(^a)", r"\bx", r"\p{L}", "(?i)a", "a**", "*", "a{2,1}", "a{5000}", "[b-a]", "a)"),
    *(r"\Z", r"\uD800", "[]", "[^]", "(?P=x)", "a++", "x" * 1001, r"[\d-z", "\\"),
    "(" * (MAX_PATTERN_DEPTH + 1) + ")" * (MAX_PATTERN_DEPTH + 1),
)


@pytest.mark.parametrize("pattern", BAD_PATTERNS)
def test_patterns_that_dialects_read_differently_are_refused(pattern: str) -> None:
    """What one reader of a schema would take and another would not is no pattern."""
    with pytest.raises(BadPattern, match="character"):
        rewritten(pattern)


def test_the_deepest_chain_is_never_underestimated() -> None:
    """Nodes in circles count all; of the others, the longest path counts."""
    edges = {"a": ["b", "c"], "b": ["d"], "c": [], "d": ["b", "e"], "e": ["e"]}

    assert deepest(edges, dict.fromkeys(edges, 1)) == 4
    assert deepest(edges, {**dict.fromkeys(edges, 1), "c": 9}) == 10
    assert deepest({}, {}) == 0
