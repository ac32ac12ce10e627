"""What a request becomes on its way to Anthropic, and what is refused before it goes out."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from asking_anthropic import (
    ADD,
    COUNTED,
    HOSTED,
    LOCAL,
    NEW,
    OLD,
    OLDER,
    SCHEMA,
    SENT,
    SUB,
    THINKER,
    WHOLE,
    asked,
    body,
    drain,
    refused,
)
from pydantic import ValidationError

from llmdispatcher import EmbedRequest, Request
from llmdispatcher.models.card import Capability
from llmdispatcher.models.errors import Unsupported
from llmdispatcher.models.form import ResponseFormat
from llmdispatcher.models.message import assistant, system, user
from llmdispatcher.vendors.anthropic.known import DEFAULT_TOKENS, SAMPLING_VERSION, WHOLE_TOKENS
from llmdispatcher.vendors.anthropic.wire import VERSION, AnthropicWire
from llmdispatcher.vendors.wire.exchange import Site


def test_the_types_of_the_sdk_look_inside() -> None:
    """What these tests hold requests against finds a mistake deep inside of one."""
    wrong = {"type": "tool_result", "tool_use_id": 1}
    talk = [{"role": "user", "content": [wrong]}]
    with pytest.raises(ValidationError):
        drain(SENT.validate_python({"model": NEW, "max_tokens": 1, "messages": talk}))


def test_a_plain_question() -> None:
    """Text goes as one turn; the length, which must be told, is the most that the model writes."""
    ask = asked(Request.of("Hi"))
    assert ask.path == "/v1/messages"
    assert ask.headers == {"anthropic-version": VERSION}
    assert ask.streams
    assert ask.body == {
        "model": NEW,
        "max_tokens": 128_000,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        "stream": True,
    }


def test_tools_and_the_choice_of_them() -> None:
    """The words of the API for each choice; one call at a time only where that is asked for."""

    def choice(**options: Any) -> object:
        return body(Request.of("x", tools=[ADD, SUB], **options)).get("tool_choice")

    assert body(Request.of("x", tools=[ADD, SUB]))["tools"] == [
        {"name": "add", "description": "Adds.", "input_schema": SCHEMA},
        {"name": "sub", "input_schema": {"type": "object"}},
    ]
    assert choice() is None
    assert choice(tool_choice="none", parallel_tools=False) == {"type": "none"}
    assert choice(tool_choice="required") == {"type": "any"}
    one = {"type": "tool", "name": "sub", "disable_parallel_tool_use": True}
    assert choice(tool_choice="sub", parallel_tools=False) == one
    assert choice(parallel_tools=False) == {"type": "auto", "disable_parallel_tool_use": True}
    assert "tools" not in body(Request.of("x"))


def test_what_cannot_be_made_to_call() -> None:
    """Models that always think, and those that are told to, are not made to call a tool."""
    forced = Request.of("x", tools=[ADD], tool_choice="add")
    assert refused(forced, THINKER).feature == "tool_choice"
    assert refused(Request.of(forced, reasoning=True)).feature == "tool_choice"
    assert body(Request.of(forced, reasoning=False))


def test_tools_elsewhere() -> None:
    """Servers that read little of the choice are shown only the tools that may be called."""

    def sent(**options: Any) -> Any:
        return body(Request.of("x", tools=[ADD, SUB], **options), "qwen", LOCAL)

    assert not {"tools", "tool_choice"} & {*sent(tool_choice="none")}
    assert [t["name"] for t in sent(tool_choice="sub")["tools"]] == ["sub"]
    assert len(sent(tool_choice="required")["tools"]) == 2
    assert "tool_choice" not in sent()
    alone = Request.of("x", tools=[ADD], parallel_tools=False)
    assert refused(alone, "qwen", LOCAL).feature == "parallel_tools"


def test_schemas() -> None:
    """A schema goes into the output's format, its objects closed, as the vendor demands."""
    nested = {
        "type": "object",
        "properties": {
            "a": {"type": "array", "items": {"type": "object"}},
            "b": {"anyOf": [{"type": "object", "properties": {}}, {"type": "null"}]},
            "c": {"type": "object", "additionalProperties": {"type": "string"}},
            "d": {"allOf": [{"type": "object"}, {"type": "object"}]},
        },
    }
    sent = body(Request.of("x", schema=nested, effort="low"))["output_config"]
    closed = sent["format"]["schema"]
    assert sent["effort"] == "low"
    assert sent["format"]["type"] == "json_schema"
    assert closed["additionalProperties"] is False
    inside = closed["properties"]
    assert inside["a"]["items"]["additionalProperties"] is False
    assert inside["b"]["anyOf"][0]["additionalProperties"] is False
    assert inside["c"] == nested["properties"]["c"]  # type: ignore[index]
    assert inside["d"] == nested["properties"]["d"]  # type: ignore[index]
    assert "additionalProperties" not in nested


def test_a_schema_without_end() -> None:
    """A schema that nests deeper than anybody's is sent as it is."""
    deep: dict[str, Any] = {"type": "object"}
    for _ in range(500):
        deep = {"type": "array", "items": deep}
    assert (
        body(Request.of("x", schema=deep))["output_config"]["format"]["schema"]["type"] == "array"
    )


@pytest.mark.parametrize(
    ("request_", "model", "feature"),
    [
        (Request(prompt="x"), NEW, "prompt"),
        (Request.of("x", n=2), NEW, "n"),
        (Request.of("x", logprobs=0), NEW, "logprobs"),
        (Request.of("x", adapters=["a"]), NEW, "adapters"),
        (Request.of("x", prefill="A"), NEW, "prefill"),
        (Request.of("x", prefill="A "), OLD, "prefill"),
        (Request.of("x", prefill="A", reasoning=True), OLD, "prefill"),
        (Request.of("x", prefill="A", schema=SCHEMA), OLD, "prefill"),
        (Request.of("x", seed=1), NEW, "sampling"),
        (Request.of("x", min_p=0.1, presence_penalty=0), OLD, "sampling"),
        (Request.of("x", temperature=1), NEW, "sampling"),
        (Request.of("x", temperature=1), OLD, "sampling"),
        (Request.of("x", reasoning=False), THINKER, "reasoning"),
        (Request.of("x", reasoning=True, max_tokens=1024), OLD, "reasoning"),
        (Request.of("x", schema=SCHEMA), "claude-3-haiku-20240307", "response_format"),
        (Request.of("x", response_format=ResponseFormat("json")), NEW, "response_format"),
        (
            Request.of("x", response_format=ResponseFormat("grammar", grammar='root ::= "a"')),
            NEW,
            "response_format",
        ),
    ],
)
def test_what_is_refused(request_: Request, model: str, feature: str) -> None:
    """What cannot be said is refused, and the refusal says whose it is and the way out."""
    error = refused(request_, model)
    assert (error.feature, error.vendor, error.model) == (feature, "anthropic", model)
    assert len(str(error)) > 20


def test_vectors_are_refused() -> None:
    """There are none in this dialect."""
    with pytest.raises(Unsupported, match="vectors"):
        HOSTED.exchanges(EmbedRequest.of("x"), HOSTED.card(NEW))


def test_sampling_in_the_older_version() -> None:
    """Models that take it get it there, within what they take; newer models in no version."""
    drawn = Request.of("x", temperature=0.5, top_k=3)
    ask = asked(drawn, OLD, OLDER)
    assert ask.headers == {"anthropic-version": SAMPLING_VERSION}
    assert ask.body is not None
    assert (ask.body["temperature"], ask.body["top_k"]) == (0.5, 3)
    for wrong in (
        Request.of("x", temperature=0.5, top_p=0.5),
        Request.of("x", temperature=1.5),
        Request.of("x", temperature=0.5, reasoning=True),
        Request.of("x", top_k=5, effort="low"),
    ):
        assert refused(wrong, OLD, OLDER).feature == "sampling"
    assert refused(drawn, NEW, OLDER).feature == "sampling"
    assert body(Request.of("x", temperature=1.5, top_p=0.5), "qwen", LOCAL)["temperature"] == 1.5


def test_a_reply_that_was_begun() -> None:
    """The beginning is the last turn, or the end of it."""
    begun = body(Request.of("x", prefill="A"), OLD)["messages"]
    assert begun[-1] == {"role": "assistant", "content": [{"type": "text", "text": "A"}]}
    joined = body(Request.of([user("x"), assistant("A")], prefill="B"), OLD)["messages"]
    assert [block["text"] for block in joined[-1]["content"]] == ["A", "B"]


@pytest.mark.parametrize(
    ("model", "options", "thinking", "effort"),
    [
        (NEW, {}, None, None),
        (NEW, {"reasoning": True}, {"type": "adaptive", "display": "summarized"}, None),
        (NEW, {"reasoning": False}, {"type": "disabled"}, None),
        (NEW, {"effort": "minimal"}, {"type": "adaptive", "display": "summarized"}, "low"),
        (THINKER, {"effort": "max"}, {"type": "adaptive", "display": "summarized"}, "max"),
        ("claude-sonnet-4-6", {"effort": "xhigh"}, None, "high"),
        (
            "claude-opus-4-5",
            {"effort": "max"},
            {"type": "enabled", "budget_tokens": 32_000},
            "high",
        ),
        (OLD, {"effort": "low"}, {"type": "enabled", "budget_tokens": 2048}, None),
        (OLD, {"reasoning": True}, {"type": "enabled", "budget_tokens": 8192}, None),
        (
            OLD,
            {"effort": "max", "max_tokens": 4000},
            {"type": "enabled", "budget_tokens": 2000},
            None,
        ),
        (
            OLD,
            {"effort": "max", "max_tokens": 1025},
            {"type": "enabled", "budget_tokens": 1024},
            None,
        ),
    ],
)
def test_thinking(model: str, options: Any, thinking: object, effort: object) -> None:
    """Models are told to think, and how hard, in the way and the words that they know."""
    sent = body(Request.of("x", **options), model)
    if thinking is not None or not options:
        assert sent.get("thinking") == thinking
    assert sent.get("output_config", {}).get("effort") == effort


def test_thinking_elsewhere() -> None:
    """A local server also hears of it by the switch of its template; effort it knows none."""
    sent = body(Request.of("x", reasoning=True, max_tokens=4000), "qwen", LOCAL)
    assert sent["thinking"] == {"type": "enabled", "budget_tokens": 2000}
    assert sent["chat_template_kwargs"] == {"enable_thinking": True, "thinking": True}
    off = body(Request.of("x", reasoning=False), "qwen", LOCAL)
    assert off["thinking"] == {"type": "disabled"}
    assert not any(off["chat_template_kwargs"].values())
    assert refused(Request.of("x", effort="low"), "qwen", LOCAL).feature == "effort"


def test_the_length_of_a_reply() -> None:
    """It is what was asked for; else the model's most, less where the reply comes in one."""
    assert body(Request.of("x", max_tokens=50_000), wire=WHOLE)["max_tokens"] == 50_000
    whole = asked(Request.of("x"), wire=WHOLE)
    assert whole.body is not None
    assert whole.body["max_tokens"] == WHOLE_TOKENS
    assert "stream" not in whole.body
    assert not whole.streams
    assert body(Request.of("x"), "qwen", LOCAL)["max_tokens"] == DEFAULT_TOKENS


def test_what_the_site_adds() -> None:
    """Its own fields go into every request for a reply; what only we know of does not."""
    wire = AnthropicWire(Site(vendor="anthropic", extra={"service_tier": "standard_only"}))
    sent = body(Request.of("x", stop=["a", "b"], priority=5), wire=wire)
    assert sent["service_tier"] == "standard_only"
    assert sent["stop_sequences"] == ["a", "b"]
    assert "priority" not in sent


def test_counting() -> None:
    """All that the model reads is counted, with nothing that only says how to answer."""
    talk = [system("S"), user("A")]
    request = Request.of(
        talk, tools=[ADD], tool_choice="none", reasoning=True, stop="x", max_tokens=9, schema=SCHEMA
    )
    ask = HOSTED.counting(request, HOSTED.card(NEW))
    assert ask is not None
    assert ask.path == "/v1/messages/count_tokens"
    assert ask.body is not None
    drain(COUNTED.validate_python({**ask.body}))
    assert {*ask.body} == {
        "model",
        "messages",
        "system",
        "thinking",
        "output_config",
        "tools",
        "tool_choice",
    }
    assert HOSTED.counting(Request(prompt="x"), HOSTED.card(NEW)) is None


def test_what_a_card_says_decides() -> None:
    """A card that was made by hand may say that a model takes what its name does not tell."""
    card = LOCAL.card("qwen")
    assert Capability.PREFILL not in card.capabilities
    able = attrs.evolve(card, capabilities=card.capabilities | {Capability.PREFILL})
    (exchange,) = LOCAL.exchanges(Request.of("x", prefill="A "), able)
    assert exchange.ask.body is not None
    assert exchange.ask.body["messages"][-1]["role"] == "assistant"
