"""What a request becomes on its way to Anthropic, and what is refused before it goes out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
import pytest
from anthropic.types import message_count_tokens_params, message_create_params
from pydantic import TypeAdapter, ValidationError

from llmdispatcher import EmbedRequest, Image, Message, Request, ToolCall, ToolSpec
from llmdispatcher.models.card import Capability
from llmdispatcher.models.errors import BadRequest, Unsupported
from llmdispatcher.models.form import ResponseFormat
from llmdispatcher.models.message import Keepsake, Text, assistant, system, tool, user
from llmdispatcher.vendors.anthropic.known import DEFAULT_TOKENS, SAMPLING_VERSION, WHOLE_TOKENS
from llmdispatcher.vendors.anthropic.wire import VERSION, AnthropicWire
from llmdispatcher.vendors.wire.exchange import Ask, Site

SENT: TypeAdapter[Any] = TypeAdapter(message_create_params.MessageCreateParams)
COUNTED: TypeAdapter[Any] = TypeAdapter(message_count_tokens_params.MessageCountTokensParams)

HOSTED = AnthropicWire(Site(vendor="anthropic"))
OLDER = AnthropicWire(Site(vendor="anthropic"), version=SAMPLING_VERSION)
WHOLE = AnthropicWire(Site(vendor="anthropic", streaming=False))
LOCAL = AnthropicWire(Site(vendor="llama-server", local=True))

NEW, OLD, THINKER = "claude-opus-4-8", "claude-haiku-4-5", "claude-fable-5-1"

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
ADD = ToolSpec("add", "Adds.", SCHEMA)
SUB = ToolSpec("sub")


def drain(value: object) -> None:
    """Look at all that was validated: what the SDK types as Iterable is only checked then."""
    if isinstance(value, dict):
        value = value.values()
    if isinstance(value, Iterable) and not isinstance(value, str):
        for each in value:
            drain(each)


def asked(request: Request, model: str = NEW, wire: AnthropicWire = HOSTED) -> Ask:
    """Return what would be asked; what goes to Claude must be what its SDK takes."""
    (exchange,) = wire.exchanges(request, wire.card(model))
    assert exchange.ask.body is not None
    if wire is not LOCAL:
        drain(SENT.validate_python({**exchange.ask.body}))
    return exchange.ask


def body(request: Request, model: str = NEW, wire: AnthropicWire = HOSTED) -> Any:
    """Return what would be sent."""
    return asked(request, model, wire).body


def refused(request: Request, model: str = NEW, wire: AnthropicWire = HOSTED) -> Unsupported:
    """Return the refusal; it names the feature, the vendor and the model."""
    with pytest.raises(Unsupported) as caught:
        wire.exchanges(request, wire.card(model))
    return caught.value


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


def test_a_conversation_goes_as_turns_of_blocks() -> None:
    """The system is apart, turns of one role become one, and tools answer in the user's turn."""
    call = ToolCall("c:1", "add", '{"x": 1}')
    talk = [
        system("S"),
        system("T"),
        user(["A", "B"]),
        Message("assistant", ["Well."], [call, ToolCall("c2", "sub", "")]),
        tool(call, "2"),
        tool("c2", ""),
        user([Image(b"PNG"), "What?"]),
    ]
    sent = body(Request.of(talk, tools=[ADD, SUB]))
    assert [block["text"] for block in sent["system"]] == ["S", "T"]
    assert sent["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Well."},
                {"type": "tool_use", "id": "c_1", "name": "add", "input": {"x": 1}},
                {"type": "tool_use", "id": "c2", "name": "sub", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "c_1",
                    "content": [{"type": "text", "text": "2"}],
                },
                {"type": "tool_result", "tool_use_id": "c2"},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": "UE5H"},
                },
                {"type": "text", "text": "What?"},
            ],
        },
    ]


def test_thoughts_go_back_first_and_unchanged() -> None:
    """What the vendor wanted back goes in front of the turn; other dialects' does not go at all."""
    kept = (
        Keepsake("anthropic", '{"type": "thinking", "thinking": "Hm \\ud800", "signature": "s"}'),
        Keepsake("gemini", '{"thoughtSignature": "g"}'),
        Keepsake("anthropic", '{"type": "redacted_thinking", "data": "d"}'),
    )
    turn = Message("assistant", "So.", reasoning="Hm", keepsakes=kept)
    sent = body(Request.of([user("A"), turn, user("B")]), wire=LOCAL)
    assert [block["type"] for block in sent["messages"][1]["content"]] == [
        "thinking",
        "redacted_thinking",
        "text",
    ]
    assert sent["messages"][1]["content"][0]["thinking"] == "Hm \ud800"

    bare = Message("assistant", "So.", reasoning="Hm")
    (block,) = body(Request.of([user("A"), bare, user("B")]))["messages"][1]["content"]
    assert block == {"type": "text", "text": "So."}
    first, _ = body(Request.of([user("A"), bare]), wire=LOCAL)["messages"][1]["content"]
    assert first == {"type": "thinking", "thinking": "Hm", "signature": ""}

    for damaged in ("{", "[1]", "[" * 100_000):
        turn = Message("assistant", "So.", keepsakes=[Keepsake("anthropic", damaged)])
        with pytest.raises(BadRequest, match="keepsakes"):
            body(Request.of([user("A"), turn, user("B")]))


def test_empty_parts_are_left_out() -> None:
    """The API takes no empty text; an empty turn of the user is sent, for the vendor to refuse."""
    sent = body(Request.of([user(["", "A"]), assistant(""), user("B"), assistant("C"), user("")]))
    assert [turn["role"] for turn in sent["messages"]] == ["user", "assistant", "user"]
    assert [block["text"] for block in sent["messages"][0]["content"]] == ["A", "B"]
    assert sent["messages"][2]["content"] == [{"type": "text", "text": ""}]


def test_marks_for_the_cache() -> None:
    """A hint becomes a mark, of a tool's answer as a whole; of more than four the last stay."""
    talk = [
        system([Text("S", cache=True)]),
        user([Text("A", cache=True), Text("", cache=True)]),
        Message("assistant", "", [ToolCall("c", "add", "{}")]),
        tool("c", [Text("1", cache=True), Text("2", cache=True)]),
        user([Text("B", cache=True), Text("C", cache=True)]),
    ]
    sent = body(Request.of(talk, tools=[ADD]))
    assert sent["system"] == [{"type": "text", "text": "S"}]
    blocks = [block for turn in sent["messages"] for block in turn["content"]]
    marked = [block["type"] for block in blocks if "cache_control" in block]
    assert marked == ["text", "tool_result", "text", "text"]
    assert blocks[2]["content"] == [{"type": "text", "text": "1"}, {"type": "text", "text": "2"}]


@pytest.mark.parametrize(
    ("image", "source"),
    [
        (Image(url="HTTPS://x/y.png"), {"type": "url", "url": "HTTPS://x/y.png"}),
        (
            Image(url="data:image/WEBP;base64,UE5H"),
            {"type": "base64", "media_type": "image/webp", "data": "UE5H"},
        ),
    ],
)
def test_addresses_of_pictures(image: Image, source: object) -> None:
    """Addresses go as they are, and data in them as data."""
    (turn,) = body(Request.of(user(image)))["messages"]
    assert turn["content"] == [{"type": "image", "source": source}]


@pytest.mark.parametrize(
    "image",
    [
        Image(b"x", media_type="image/bmp"),
        Image(url="file:///etc/passwd"),
        Image(url="data:text/plain,x"),
        Image(url="data:image/png;base64"),
    ],
)
def test_pictures_that_cannot_be_shown(image: Image) -> None:
    """Kinds and addresses that the vendor does not take are refused."""
    assert refused(Request.of(user(image))).feature == "images"


def test_data_that_is_no_base64() -> None:
    """A damaged address is the caller's mistake."""
    with pytest.raises(BadRequest, match="base64"):
        body(Request.of(user(Image(url="data:image/png;base64,%%%"))))


def test_pictures_of_the_system() -> None:
    """The system only says text."""
    talk = [system(Image(b"PNG")), user("A")]
    assert refused(Request.of(talk)).feature == "images"


def test_the_system_in_the_middle() -> None:
    """It stays where it is, behind the user, where the model takes that; else it is refused."""
    late = [user("A"), system("S"), system("T"), assistant("B"), user("C"), system("U")]
    sent = body(Request.of(late))
    roles = ["user", "system", "assistant", "user", "system"]
    assert [turn["role"] for turn in sent["messages"]] == roles
    assert "system" not in sent
    assert refused(Request.of(late), OLD).feature == "system"
    misplaced = [user("A"), assistant("B"), system("S"), user("C")]
    assert refused(Request.of(misplaced)).feature == "system"
    assert body(Request.of(misplaced), wire=LOCAL)


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


@pytest.mark.parametrize("arguments", ["{", "[1]", '{"x": NaN}', "[" * 100_000])
def test_calls_that_are_no_objects(arguments: str) -> None:
    """Arguments that the API would not take back are refused, and the message shows them."""
    turn = Message("assistant", "", [ToolCall("c", "add", arguments)])
    error = refused(Request.of([user("A"), turn, tool("c", "1")], tools=[ADD]))
    assert error.feature == "tool_calls"
    assert arguments[:5] in str(error)


def test_an_answer_to_no_call() -> None:
    """A tool answers a call, by its id."""
    with pytest.raises(BadRequest, match="tool_call_id"):
        body(Request.of([user("A"), Message("tool", "1")]))


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
