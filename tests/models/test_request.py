"""Requests: what is accepted, and what a refusal says."""

from __future__ import annotations

import math
import pickle
import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from llmdispatcher import (
    BadRequest,
    Deadlines,
    Image,
    Message,
    Request,
    ResponseFormat,
    Sampling,
    Text,
    ToolCall,
    ToolSpec,
    assistant,
    system,
    user,
)
from llmdispatcher.models.fields import MAX_CHOICES, MAX_LOGPROBS, MAX_STOPS
from llmdispatcher.models.form import Shape
from llmdispatcher.models.message import Role
from llmdispatcher.models.request import Options
from llmdispatcher.models.sampling import MAX_SEED


def test_text_becomes_one_user_message() -> None:
    """Text stands for a conversation of one message by the user."""
    assert Request.of("hi").messages == (user("hi"),)


def test_mappings_become_messages() -> None:
    """A conversation may be given as role and content mappings, as other libraries do."""
    made = Request.of(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x"}]
    )

    assert made.messages == (system("Be brief."), user("x"))


def test_options_replace_fields_of_a_request() -> None:
    """Options given with a request win over its own fields and leave the others alone."""
    base = Request.of("hi", max_tokens=5, temperature=0.5)

    made = Request.of(base, max_tokens=7, top_k=3)

    assert (made.max_tokens, made.sampling) == (7, Sampling(temperature=0.5, top_k=3))
    assert base.max_tokens == 5


def test_options_are_exactly_the_fields() -> None:
    """Every field of Request and Sampling is an option, except those that ``of`` makes itself.

    The dispatcher sets ``streamed`` and ``once``. ``schema`` is one more, for a response_format.
    """
    made = {"messages", "prompt", "sampling", "streamed", "once"}
    request = {field.name for field in attrs.fields(Request)} - made
    sampling = {field.name for field in attrs.fields(Sampling)}

    assert request | sampling | {"schema"} == Options.__optional_keys__


def test_unknown_option_names_the_nearest() -> None:
    """A misspelt option is a TypeError that names the option that was meant."""
    with pytest.raises(TypeError, match="'temprature'; did you mean 'temperature'"):
        Request.of("hi", temprature=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("option", "told"),
    [("timeout", "Deadlines"), ("system", "system(…)"), ("top_logprobs", "logprobs=k")],
)
def test_what_people_try_is_answered_with_what_there_is(option: str, told: str) -> None:
    """Options that other libraries have are answered with how it is done here."""
    with pytest.raises(TypeError, match=re.escape(told)):
        Request.of("hi", **{option: 1})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"temperature": -0.1}, "temperature is -0.1; temperature must be a number from 0 to 100"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"temperature": True}, "temperature is True"),
        ({"top_p": 1.01}, "top_p is 1.01; top_p must be a number from 0 to 1"),
        ({"top_k": -1}, "top_k is -1; top_k must be an integer from 0 to"),
        ({"top_k": 1.5}, "top_k is 1.5"),
        ({"seed": MAX_SEED + 1}, "seed must be an integer from 0 to"),
        ({"max_tokens": 0}, "max_tokens is 0; max_tokens must be an integer from 1 to"),
        ({"max_tokens": True}, "max_tokens is True"),
        ({"stop": [""]}, "stop must be made of non-empty strings"),
        ({"stop": ["x"] * (MAX_STOPS + 1)}, f"at most {MAX_STOPS} strings"),
        ({"stop": [1]}, "stop is 1; stop must be text"),
        ({"deadlines": 3}, "deadlines must be a Deadlines, such as Deadlines(total_s=30)"),
        ({"response_format": "json"}, "response_format must be a ResponseFormat, such as"),
        ({"stop": 5}, "stop is 5; stop must be a sequence"),
        ({"tools": 5}, "tools is 5; tools must be a sequence"),
        ({"tools": [{}]}, "tools must be a ToolSpec("),
        ({"n": 0}, f"n is 0; n must be an integer from 1 to {MAX_CHOICES}"),
        ({"n": MAX_CHOICES + 1}, f"n is {MAX_CHOICES + 1}; n must be"),
        ({"n": 2.0}, "n is 2.0; n must be an integer"),
        ({"n": True}, "n is True; n must be an integer"),
        ({"n": 3, "seed": MAX_SEED - 1}, f"seed must be at most {MAX_SEED - 2} with n=3"),
        ({"logprobs": -1}, f"logprobs must be an integer from 0 to {MAX_LOGPROBS}"),
        ({"logprobs": MAX_LOGPROBS + 1}, f"logprobs is {MAX_LOGPROBS + 1}; logprobs must be"),
        ({"logprobs": True}, "logprobs is True; logprobs must be an integer"),
        ({"prefill": 5}, "prefill is 5; prefill must be text"),
        ({"prefill": "a\ud800"}, "prefill must be text without lone surrogates"),
        ({"priority": 101}, "priority is 101; priority must be an integer from -100 to 100"),
        ({"priority": "high"}, "priority is 'high'"),
        ({"allow_cloud": "yes"}, "allow_cloud is 'yes'; allow_cloud must be True or False"),
    ],
)
def test_a_value_out_of_range_is_named(options: Any, told: str) -> None:
    """A refusal names the field, shows the value and says what is allowed."""
    with pytest.raises(BadRequest) as caught:
        Request.of("hi", **options)

    assert told in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_long_values_are_cut_in_messages() -> None:
    """A refusal shows no more of a value than a person reads."""
    with pytest.raises(BadRequest) as caught:
        Message("user" * 1000, "hi")

    assert len(str(caught.value)) < 300
    assert caught.value.value == "user" * 1000


def test_lone_surrogates_are_refused() -> None:
    """Text that has no UTF-8 form is refused here, not deep inside an engine."""
    with pytest.raises(BadRequest, match="lone surrogates"):
        Request.of("a\ud800b")


@pytest.mark.parametrize(
    "prompt", [(), [], 5, [5], b"x", [{"role": "user"}], [{"role": "user", "text": "x"}], [{}]]
)
def test_what_is_no_prompt_is_refused(prompt: object) -> None:
    """A prompt that is empty or no conversation is a BadRequest, whatever it is."""
    with pytest.raises(BadRequest):
        Request.of(prompt)  # type: ignore[arg-type]


def test_a_request_has_one_kind_of_prompt() -> None:
    """Messages and a raw prompt exclude each other."""
    with pytest.raises(BadRequest, match="either messages or a prompt"):
        Request(messages="hi", prompt="hi")


def test_a_raw_prompt_has_no_prefill() -> None:
    """A prefill beside a raw prompt is refused with what to do instead."""
    with pytest.raises(BadRequest, match="prefill is 'x'; prefill must be appended to the prompt"):
        Request(prompt="hi", prefill="x")

    assert Request(prompt="hi", prefill="").prompt == "hi"


def test_every_choice_has_a_seed() -> None:
    """The highest seeds are taken where each choice still has one of its own."""
    assert Request.of("hi", n=3, seed=MAX_SEED - 2).n == 3
    assert Request.of("hi", seed=MAX_SEED).sampling.seed == MAX_SEED


def test_the_prefill_is_read_by_the_model() -> None:
    """The size of a request counts the text of the prefill."""
    assert Request.of("hi", prefill="né").text_bytes == 5


def test_deadlines_are_replaced_and_nothing_else() -> None:
    """``within`` gives a copy that differs in its deadlines, and leaves the request as it is."""
    base = Request.of([system("s"), user("u")], tools=[ToolSpec("f")], seed=3, n=2)

    made = base.within(Deadlines(total_s=1))

    assert made == attrs.evolve(base, deadlines=Deadlines(total_s=1))
    assert base.deadlines is None
    assert made.within(Deadlines(total_s=1)) == made


def test_message_keeps_parts_in_order() -> None:
    """Content of several parts is kept in order; ``text`` joins those that are text."""
    picture = Image(url="https://example.org/x.png")
    message = user(["What is ", picture, Text("this?")])

    assert message.content == (Text("What is "), picture, Text("this?"))
    assert message.text == "What is this?"


def test_parts_in_the_shape_of_the_openai_api() -> None:
    """Content written as other libraries write it is read, never dropped."""
    parts = [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "data:x"}}]

    message = Message.of({"role": "user", "content": parts})

    assert message.content == (Text("Hi"), Image(url="data:x"))


@pytest.mark.parametrize(
    "content", [[1, 2], 5, b"x", [b"x"], {"type": "text"}, [{"type": "audio"}]]
)
def test_content_that_is_none_is_refused(content: Any) -> None:
    """What is neither text nor a part is a BadRequest, not an empty message."""
    with pytest.raises(BadRequest, match="content"):
        Message(Role.USER, content)


def test_none_means_the_default() -> None:
    """None for an option is the same as leaving it out."""
    options: Any = dict.fromkeys(
        Options.__optional_keys__ - {"allow_cloud", "cached", "parallel_tools"}
    )

    assert Request.of("hi", **options) == Request.of("hi")


def test_an_image_has_one_source() -> None:
    """An image is bytes or an address."""
    with pytest.raises(BadRequest):
        Image()
    with pytest.raises(BadRequest):
        Image(data=b"x", url="https://example.org")


def test_tool_calls_in_the_shape_of_the_openai_api() -> None:
    """History with tool calls may come in the shape that other libraries write."""
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

    message = Message.of({"role": "assistant", "content": None, "tool_calls": [call]})

    assert message == Message(Role.ASSISTANT, (), (ToolCall("c1", "f", "{}"),))


def test_a_schema_goes_with_its_shape() -> None:
    """A schema without the shape that asks for it is refused, and the other way round."""
    assert ResponseFormat(Shape.SCHEMA, schema={"type": "object"}).schema == {"type": "object"}
    with pytest.raises(BadRequest):
        ResponseFormat(Shape.SCHEMA)
    with pytest.raises(BadRequest):
        ResponseFormat(schema={"type": "object"})
    with pytest.raises(BadRequest):
        ResponseFormat(Shape.GRAMMAR)


def test_deadlines_have_the_stated_defaults() -> None:
    """The defaults are those that the documentation names, in seconds."""
    assert attrs.asdict(Deadlines()) == {
        "connect_s": 5.0,
        "first_token_s": 60.0,
        "idle_s": 30.0,
        "total_s": None,
        "load_s": 300.0,
        "whole_s": 600.0,
        "floor_pieces_per_s": None,
    }
    assert Deadlines(idle_s=None).idle_s is None
    with pytest.raises(BadRequest, match="idle_s is -1; idle_s must be a number of at least 0"):
        Deadlines(idle_s=-1)


def test_requests_are_frozen_and_travel() -> None:
    """A request cannot be changed, and survives pickling."""
    request = Request.of(
        [system("s"), assistant("a"), user("u")], tools=[ToolSpec("f")], seed=3, n=2
    )
    request = Request.of(request, logprobs=2, prefill="x", priority=-3)

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        request.max_tokens = 5  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(request)) == request  # noqa: S301 - our own bytes


def test_a_tool_has_a_name_and_named_arguments() -> None:
    """What no template could show is refused where it is made."""
    with pytest.raises(BadRequest, match="name that is not empty"):
        ToolSpec("")
    with pytest.raises(BadRequest, match="type 'object'"):
        ToolSpec("add", "", {"type": "string"})
    assert ToolSpec.of({"type": "function", "function": {"name": "add"}}) == ToolSpec("add")


@pytest.mark.parametrize("schema", [{}, True, 5, '{"type": "object"}'])
def test_what_is_no_schema_is_refused_with_what_is(schema: Any) -> None:
    """The field, the value and the ways out are named."""
    with pytest.raises(BadRequest, match=r"schema must be a JSON schema .*json\.loads.*pydantic"):
        Request.of("x", schema=schema)


def test_the_shape_is_one_of_four() -> None:
    """A shape that does not exist is a wrong request like any other."""
    with pytest.raises(BadRequest, match="text, json, schema, grammar"):
        ResponseFormat("xml")


def test_reasoning_is_switched_in_templates() -> None:
    """A raw prompt has none."""
    with pytest.raises(BadRequest, match="reasoning"):
        Request(prompt="x", reasoning=False)


@pytest.mark.parametrize("data", ["photo.jpg", Path("photo.jpg")])
def test_an_image_is_bytes(data: Any) -> None:
    """A path is not read in silence."""
    with pytest.raises(BadRequest, match="read_bytes"):
        Image(data=data)


def test_adapters_are_names_and_scales() -> None:
    """In one order, so that equal sets are equal; none at all is 0."""
    made = Request.of("x", adapters={"b": 1, "a": 0.5, "c": 0})

    assert made.adapters == (("a", 0.5), ("b", 1.0))
    assert Request.of("x", adapters=["b", "a"]).adapters == (("a", 1.0), ("b", 1.0))
    for wrong in ({"a": True}, {"a": float("nan")}, {"a": 1e9}, {5: 1.0}, {"a": "1"}):
        with pytest.raises(BadRequest, match="adapters"):
            Request.of("x", adapters=wrong)  # type: ignore[arg-type]
