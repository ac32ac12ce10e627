"""What the responses endpoint is asked, and what is refused before it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai_responses import ANSWERS, events, sse
from replies_of import streamed

from llmdispatcher import Image, Message, Request, ToolCall, ToolSpec
from llmdispatcher.models.card import ModelCard
from llmdispatcher.models.errors import BadRequest, Unsupported
from llmdispatcher.models.form import ResponseFormat
from llmdispatcher.models.message import Keepsake, assistant, system, tool, user
from llmdispatcher.vendors.openai import responses
from llmdispatcher.vendors.openai.known import Known
from llmdispatcher.vendors.openai.responses_items import DIALECT
from llmdispatcher.vendors.wire.exchange import Exchange, Site

ADD = ToolSpec("add", "Adds.", {"type": "object", "properties": {"x": {"type": "integer"}}})
STRICT = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}


def exchange(
    prompt: Any, model: str = "gpt-5.6", site: Site | None = None, **options: Any
) -> Exchange:
    """Return what would be asked."""
    card = ModelCard(vendor="openai", model=model, local=False)
    return responses.exchange(Request.of(prompt, **options), card, site or Site(vendor="openai"))


def body(prompt: Any, model: str = "gpt-5.6", **options: Any) -> dict[str, Any]:
    """Return what would be sent."""
    ask = exchange(prompt, model, **options).ask
    assert ask.path == "/responses"
    return dict(ask.body or {})


def test_nothing_is_stored_or_cut() -> None:
    """Nothing is kept at the vendor, and no old message is dropped to make room."""
    sent = body("x")
    assert sent == {
        "model": "gpt-5.6",
        "input": [{"type": "message", "role": "user", "content": "x"}],
        "store": False,
        "truncation": "disabled",
        "include": ["reasoning.encrypted_content"],
        "stream": True,
    }
    assert "include" not in body("x", "gpt-4o")
    whole = exchange("x", site=Site(vendor="openai", streaming=False)).ask
    assert not whole.streams
    assert "stream" not in dict(whole.body or {})
    assert not exchange("x", "gpt-5-pro").ask.streams
    assert exchange("x").ask.streams


def test_a_conversation_becomes_items() -> None:
    """Each message is an item, each call one of its own, and pictures are parts."""
    call = ToolCall("c1", "add", '{"x": 1}')
    talk = [
        system("S"),
        user(["A", "B"]),
        Message("assistant", "I add.", [call, ToolCall("c2", "add", "")]),
        tool(call, "2"),
        tool("c2", [Image(b"PNG"), "seen"]),
        user([Image(url="https://a.test/i.png"), "What?"]),
    ]
    assert body(talk)["input"] == [
        {"type": "message", "role": "developer", "content": "S"},
        {"type": "message", "role": "user", "content": "AB"},
        {"type": "message", "role": "assistant", "content": "I add."},
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"x": 1}'},
        {"type": "function_call", "call_id": "c2", "name": "add", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "2"},
        {
            "type": "function_call_output",
            "call_id": "c2",
            "output": [
                {
                    "type": "input_image",
                    "image_url": "data:image/png;base64,UE5H",
                    "detail": "auto",
                },
                {"type": "input_text", "text": "seen"},
            ],
        },
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": "https://a.test/i.png", "detail": "auto"},
                {"type": "input_text", "text": "What?"},
            ],
        },
    ]
    assert body([system("S"), user("x")], "gpt-4o")["input"][0]["role"] == "system"
    assert body([user("x"), assistant("")])["input"][1]["content"] == ""


@pytest.mark.parametrize("name", ["thoughts", "calls", "mixed", "parts", "plain"])
def test_a_turn_goes_back_as_it_came(name: str) -> None:
    """Sealed thoughts, labels, texts and calls of a reply are sent back in their order."""
    reader = exchange("x").replies
    choice = streamed(reader, sse(events(ANSWERS[name]))).choices[0]
    turn = Message("assistant", choice.text, choice.tool_calls, keepsakes=choice.keepsakes)
    sent = body([user("x"), turn])["input"][1:]
    expected = []
    for item in ANSWERS[name]["output"]:
        if item["type"] == "message":
            text = "".join(part["text"] for part in item["content"])
            phase = {"phase": item["phase"]} if "phase" in item else {}
            item = {"type": "message", "role": "assistant", "content": text, **phase}  # noqa: PLW2901 - as it is sent
        elif item["type"] == "function_call":
            keys = ("type", "call_id", "name", "arguments")
            item = {key: item[key] or "{}" for key in keys}  # noqa: PLW2901 - as it is sent
        expected.append(item)
    assert sent == expected


def test_only_keepsakes_of_this_endpoint_go_back() -> None:
    """Those of other dialects are left out, and what nobody here made is refused."""
    turn = Message("assistant", "a", keepsakes=[Keepsake("anthropic", "?")])
    assert len(body([user("x"), turn])["input"]) == 2
    for data in ("?", "[]", '{"item": {"type": "x"}}', "[" * 5000):
        turn = Message("assistant", "a", keepsakes=[Keepsake(DIALECT, data)])
        with pytest.raises(BadRequest, match="keepsakes"):
            body([user("x"), turn])


def test_a_turn_that_was_shortened_keeps_its_thoughts() -> None:
    """Where the text or the calls of a turn were taken away, what is left goes in order."""
    mark = {"item": {"type": "reasoning", "id": "r"}, "chars": 99, "calls": 7}
    turn = Message("assistant", "abc", keepsakes=[Keepsake(DIALECT, json.dumps(mark))])
    assert [item["type"] for item in body([user("x"), turn])["input"][1:]] == [
        "message",
        "reasoning",
    ]


def test_effort_and_thoughts_are_asked_for() -> None:
    """The word for the effort is the nearest; a summary is asked for with reasoning alone."""
    assert body("x", effort="minimal")["reasoning"] == {"effort": "low"}
    assert body("x", reasoning=True)["reasoning"] == {"summary": "auto"}
    resting = body("x", reasoning=False)
    assert resting["reasoning"] == {"effort": "none"}
    assert "include" not in resting
    assert body("x", "gpt-5.1", reasoning=True)["reasoning"] == {
        "effort": "medium",
        "summary": "auto",
    }
    assert "reasoning" not in body("x")


def test_sampling_is_sent_where_it_is_taken() -> None:
    """Temperature, top_p and log-probabilities go to models that rest."""
    sent = body("x", "gpt-5.1", temperature=0.5, top_p=0.9, logprobs=3, max_tokens=16)
    assert sent["temperature"] == 0.5
    assert sent["top_p"] == 0.9
    assert sent["top_logprobs"] == 3
    assert sent["include"] == ["message.output_text.logprobs"]
    assert sent["reasoning"] == {"effort": "none"}
    assert sent["max_output_tokens"] == 16
    assert body("x", "gpt-4o", logprobs=0)["top_logprobs"] == 0
    assert body("x", temperature=1)["temperature"] == 1


def test_tools_are_flat_and_lenient() -> None:
    """Tools are told as they were given: what may be left out stays so."""
    sent = body("x", tools=[ADD, ToolSpec("sub")], parallel_tools=False)
    assert sent["tools"] == [
        {
            "type": "function",
            "name": "add",
            "description": "Adds.",
            "parameters": ADD.parameters,
            "strict": False,
        },
        {
            "type": "function",
            "name": "sub",
            "parameters": {"type": "object", "properties": {}},
            "strict": False,
        },
    ]
    assert sent["tool_choice"] == "auto"
    assert sent["parallel_tool_calls"] is False
    assert "parallel_tool_calls" not in body("x", tools=[ADD])
    assert body("x", tools=[ADD], tool_choice="none")["tool_choice"] == "none"
    named = body("x", tools=[ADD], tool_choice="add")["tool_choice"]
    assert named == {"type": "function", "name": "add"}
    assert "tool_choice" not in body("x")


def test_forms_are_asked_for() -> None:
    """JSON and schemas have their places; strict is a schema that can be."""
    assert body("x", response_format=ResponseFormat("json"))["text"] == {
        "format": {"type": "json_object"}
    }
    told = body("x", schema=STRICT)["text"]["format"]
    assert told == {"type": "json_schema", "name": "reply", "schema": STRICT, "strict": True}
    loose = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert body("x", schema=loose)["text"]["format"]["strict"] is False


def test_the_vendors_own_fields_are_joined() -> None:
    """What a site adds goes into the request; objects of the same name become one."""
    site = Site(vendor="openai", extra={"reasoning": {"summary": "auto"}, "service_tier": "flex"})
    sent = dict(exchange("x", site=site, effort="high").ask.body or {})
    assert sent["reasoning"] == {"effort": "high", "summary": "auto"}
    assert sent["service_tier"] == "flex"


@pytest.mark.parametrize(
    ("options", "feature"),
    [
        ({"n": 2}, "n"),
        ({"stop": "."}, "stop"),
        ({"seed": 1}, "seed"),
        ({"presence_penalty": 1}, "presence_penalty"),
        ({"top_k": 1}, "top_k"),
        ({"prefill": "It"}, "prefill"),
        ({"adapters": ["a"]}, "adapters"),
        ({"response_format": ResponseFormat("grammar", grammar="root ::= x")}, "grammar"),
        ({"max_tokens": 15}, "max_tokens"),
        ({"temperature": 0}, "temperature"),
        ({"logprobs": 1}, "logprobs"),
    ],
)
def test_what_there_is_not_is_refused(options: dict[str, Any], feature: str) -> None:
    """What the endpoint or the model does not take is refused, with the way out."""
    with pytest.raises(Unsupported, match=r"takes|tells") as caught:
        body("x", **options)
    assert caught.value.feature == feature
    with pytest.raises(Unsupported, match="give messages"):
        body(Request(prompt="x"))


def test_what_cannot_be_said_is_refused() -> None:
    """A picture in a turn of the assistant has no place, nor a result without a call."""
    with pytest.raises(Unsupported, match="no pictures"):
        body([user("x"), Message("assistant", [Image(b"a")])])
    with pytest.raises(BadRequest, match="tool_call_id"):
        body([user("x"), Message("tool", "2")])


def test_a_deployment_is_what_its_row_says() -> None:
    """A model whose name tells nothing is asked for what its row is said to take."""
    card = ModelCard(vendor="azure", model="mine", local=False)
    site = Site(vendor="azure")
    request = Request.of("x", temperature=0, effort="minimal")
    sent = dict(responses.exchange(request, card, site).ask.body or {})
    assert sent["reasoning"] == {"effort": "minimal"}
    assert "include" not in sent
    row = Known(thinks=True, efforts=("high",))
    sent = dict(responses.exchange(request, card, site, row).ask.body or {})
    assert sent["reasoning"] == {"effort": "high"}
