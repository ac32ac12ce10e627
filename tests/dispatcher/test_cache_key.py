"""The key of a kept reply: what it may depend on is in it, the rest is listed with a reason."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdispatcher import Deadlines, Image, Message, Request, Sampling, Text, ToolCall, ToolSpec
from llmdispatcher.cache_key import IRRELEVANT, KEY_BYTES, key
from llmdispatcher.models.form import ResponseFormat, Shape
from llmdispatcher.models.message import Keepsake

MAKER = ("v", "m", "file")

BASE = Request.of("Who?", temperature=0)
RAW = Request(prompt="Who?")
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}
TOOL = ToolSpec("f", "Does.", {"type": "object"})

OTHERS: dict[str, tuple[Request, Any]] = {
    "messages": (BASE, [Message("user", "Who")]),
    "prompt": (RAW, "Who"),
    "max_tokens": (BASE, 7),
    "stop": (BASE, ["x"]),
    "sampling": (BASE, Sampling(temperature=0.5)),
    "tools": (BASE, [TOOL]),
    "tool_choice": (attrs.evolve(BASE, tools=[TOOL]), "required"),
    "parallel_tools": (BASE, False),
    "response_format": (BASE, ResponseFormat(Shape.JSON)),
    "n": (BASE, 2),
    "logprobs": (BASE, 0),
    "prefill": (BASE, "It is"),
    "suffix": (RAW, "."),
    "reasoning": (BASE, True),
    "effort": (BASE, "low"),
    "adapters": (BASE, {"a": 0.5}),
    "vendor": (BASE, "v"),
    "model": (BASE, "m"),
    "allow_cloud": (BASE, False),
    "strategy": (BASE, "latency"),
    "task": (BASE, "debugging"),
    "deadlines": (BASE, Deadlines(total_s=1)),
    "priority": (BASE, 5),
    "tags": (BASE, ["t"]),
    "max_cost_usd": (BASE, Decimal(1)),
    "resume": (BASE, "restart"),
    "streamed": (BASE, False),
    "cached": (BASE, False),
    "once": (BASE, "name"),
}
"""By field: a request, and another value of that field."""


def test_every_field_of_a_request_is_decided_upon() -> None:
    """A field that is added is in the key, and in this table; one that is left out has a reason."""
    fields = {field.name for field in attrs.fields(Request)}

    assert fields == OTHERS.keys()
    assert all(IRRELEVANT[Request].values())
    for kind, spared in IRRELEVANT.items():
        assert spared.keys() <= {field.name for field in attrs.fields(kind)}


@pytest.mark.parametrize("field", OTHERS)
def test_a_field_changes_the_key_unless_it_is_listed(field: str) -> None:
    """Every field that is not listed as irrelevant tells two requests apart."""
    request, value = OTHERS[field]
    other = attrs.evolve(request, **{field: value})

    assert (key(request, MAKER) == key(other, MAKER)) is (field in IRRELEVANT[Request])


SAMPLED = Sampling(**{field.name: 1 for field in attrs.fields(Sampling)})


@pytest.mark.parametrize("field", [field.name for field in attrs.fields(Sampling)])
def test_every_field_of_sampling_counts(field: str) -> None:
    """Also one that is not set is told from one that is."""
    base, other = (
        attrs.evolve(BASE, sampling=each)
        for each in (SAMPLED, attrs.evolve(SAMPLED, **{field: None}))
    )
    assert key(base, MAKER) != key(other, MAKER)


CALL = ToolCall("id", "f", "{}")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([Message("user", "a")], [Message("assistant", "a")]),
        (
            [Message("user", "ab"), Message("user", "")],
            [Message("user", "a"), Message("user", "b")],
        ),
        ([Message("user", [Text("a"), Text("b")])], [Message("user", [Text("ab")])]),
        ([Message("user", [Text("a")])], [Message("user", [Text("a", cache=True)])]),
        ([Message("user", [Image(b"a")])], [Message("user", [Image(b"b")])]),
        ([Message("user", [Image(b"a")])], [Message("user", [Image(url="a")])]),
        (
            [Message("assistant", "", [CALL])],
            [Message("assistant", "", [attrs.evolve(CALL, name="g")])],
        ),
        (
            [Message("assistant", "a", keepsakes=(Keepsake("d", "1"),))],
            [Message("assistant", "a", keepsakes=(Keepsake("d", "2"),))],
        ),
        ([Message("user", "e\u0301")], [Message("user", "\u00e9")]),
    ],
)
def test_messages_are_told_apart_by_all_that_they_hold(one: Any, other: Any) -> None:
    """Roles, parts, where one ends, pictures, calls and keepsakes; text as it is, byte by byte."""
    keys = {key(Request.of(each), MAKER) for each in (one, other)}

    assert len(keys) == 2


def test_a_schema_counts_in_its_order_and_its_class_does_not() -> None:
    """A model is told the properties in their order; what is made of the JSON changes nothing."""
    turned = {**SCHEMA, "properties": dict(reversed(SCHEMA["properties"].items()))}  # type: ignore[attr-defined]

    @attrs.frozen
    class Made:
        a: str

    made = ResponseFormat.of(Made)
    assert key(Request.of("x", schema=SCHEMA), MAKER) != key(Request.of("x", schema=turned), MAKER)
    assert key(Request.of("x", schema=Made), MAKER) == key(
        Request.of("x", response_format=attrs.evolve(made, into=None)), MAKER
    )


@pytest.mark.parametrize("place", range(3))
def test_who_makes_it_counts(place: int) -> None:
    """Vendor, model, and what stands behind the name."""
    other = [*MAKER]
    other[place] = "other"

    assert key(BASE, MAKER) != key(BASE, (other[0], other[1], other[2]))
    assert len(key(BASE, MAKER)) == KEY_BYTES


def test_what_cannot_be_told_apart_has_no_key() -> None:
    """A value of a kind that is not known is not guessed at."""
    odd = attrs.evolve(BASE, response_format=ResponseFormat(Shape.SCHEMA, {"a": object()}))
    with pytest.raises(TypeError, match="object"):
        key(odd, MAKER)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=30)
@given(JSON, JSON)
def test_equal_keys_mean_the_same_json(one: Any, other: Any) -> None:
    """Two schemas have one key exactly if they are written alike."""
    keys = [key(Request.of("x", schema={"default": value}), MAKER) for value in (one, other)]
    assert (keys[0] == keys[1]) is (repr(one) == repr(other))
