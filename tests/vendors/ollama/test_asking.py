"""What Ollama is asked, field by field."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from llmdispatcher.models.card import ModelCard
from llmdispatcher.models.embedding import RerankRequest
from llmdispatcher.models.errors import BadRequest, Unsupported
from llmdispatcher.models.form import ResponseFormat, ToolSpec
from llmdispatcher.models.message import (
    Image,
    Message,
    Role,
    Text,
    ToolCall,
    assistant,
    system,
    tool,
    user,
)
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.ollama.wire import OllamaWire
from llmdispatcher.vendors.wire.exchange import Ask, Site

CARD = ModelCard(
    vendor="ollama", model="qwen3:8b", local=True, capabilities=["chat", "completion", "effort"]
)
PLAIN = ModelCard(vendor="ollama", model="gemma:2b", local=True, capabilities=["chat"])
ADD = ToolSpec("add", "Adds.", {"properties": {"a": {"type": "integer"}}, "required": ["a"]})
PNG = b"\x89PNG\r\n\x1a\n"


def asked(request: Request, card: ModelCard = CARD, **site: Any) -> Ask:
    """Return the only ask of a request."""
    (exchange,) = OllamaWire(Site(vendor="ollama", local=True, **site)).exchanges(request, card)
    return exchange.ask


def body(request: Request, card: ModelCard = CARD, **site: Any) -> dict[str, Any]:
    """Return what is sent, without what every ask has."""
    sent = dict(asked(request, card, **site).body or {})
    standing = {"truncate": False, "shift": False, "model": card.model}
    assert standing.items() <= sent.items()
    return {name: value for name, value in sent.items() if name not in {*standing, "stream"}}


def said(*messages: Message, **options: Any) -> Request:
    """Return a conversation."""
    return Request.of(messages or (user("Hi"),), **options)


def test_a_conversation() -> None:
    """Messages go to /api/chat with their roles, and nothing else is sent that nobody asked for."""
    request = said(system("Be brief."), user("Hi"), assistant("Hello."), user("Why?"))
    ask = asked(request)
    assert (ask.path, ask.streams, ask.at_root) == ("/api/chat", True, False)
    assert ask.body == {
        "model": "qwen3:8b",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "Why?"},
        ],
        "truncate": False,
        "shift": False,
        "stream": True,
    }


def test_a_raw_prompt() -> None:
    """A raw prompt goes past the template, and its tags of thoughts stay in the text."""
    ask = asked(Request(prompt="Once"), streaming=False)
    assert (ask.path, ask.streams) == ("/api/generate", False)
    assert body(Request(prompt="Once")) == {"prompt": "Once", "raw": True, "think": False}


def test_what_is_to_be_filled_in() -> None:
    """A suffix goes through the template: ``raw`` would drop it without a word."""
    told = body(Request(prompt="def f(", suffix="return x"))
    assert told == {"prompt": "def f(", "suffix": "return x", "think": False}


def test_an_empty_prompt() -> None:
    """An empty prompt is refused: it would only load the model."""
    with pytest.raises(Unsupported, match="empty prompt"):
        asked(Request(prompt=""))


def test_sampling() -> None:
    """Sampling, stop strings, the seed and the limit are options, of the same names but one."""
    options: dict[str, Any] = {
        "temperature": 0,
        "top_k": 5,
        "top_p": 0.5,
        "min_p": 0.1,
        "typical_p": 0.9,
        "repeat_penalty": 1.1,
        "repeat_last_n": 64,
        "presence_penalty": 0.2,
        "frequency_penalty": -0.2,
        "seed": 0,
    }
    told = body(said(max_tokens=9, stop=["\n", "END"], **options))
    assert told["options"] == {**options, "num_predict": 9, "stop": ["\n", "END"]}


@pytest.mark.parametrize(
    "name",
    ["dry_multiplier", "dry_base", "dry_allowed_length", "xtc_probability", "xtc_threshold"],
)
def test_samplers_that_ollama_lacks(name: str) -> None:
    """A sampler that Ollama would ignore is refused by its name."""
    with pytest.raises(Unsupported, match=f"no {name}") as caught:
        asked(said(**{name: 1}))
    assert (caught.value.feature, caught.value.vendor, caught.value.model) == (
        name,
        "ollama",
        "qwen3:8b",
    )


@pytest.mark.parametrize(
    ("feature", "options"),
    [
        ("n", {"n": 2}),
        ("adapters", {"adapters": ["mine"]}),
        ("prefill", {"prefill": "So"}),
        ("response_format", {"response_format": ResponseFormat("grammar", grammar="root ::= 'a'")}),
        ("tool_choice", {"tools": [ADD], "tool_choice": "required"}),
        ("tool_choice", {"tools": [ADD], "tool_choice": "add"}),
        ("parallel_tools", {"tools": [ADD], "parallel_tools": False}),
        ("response_format", {"tools": [ADD], "schema": {"type": "object"}}),
    ],
)
def test_what_ollama_cannot_do(feature: str, options: dict[str, Any]) -> None:
    """What Ollama would leave out silently is refused before anything is sent."""
    with pytest.raises(Unsupported) as caught:
        asked(said(**options))
    assert caught.value.feature == feature


def test_tools() -> None:
    """Tools have the OpenAI shape; without fields they have an empty object of them."""
    told = body(said(tools=[ADD, ToolSpec("now")]))
    assert [each["function"] for each in told["tools"]] == [
        {
            "name": "add",
            "description": "Adds.",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}},
                "required": ["a"],
            },
        },
        {"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}},
    ]


def test_tools_that_may_not_be_called() -> None:
    """``tool_choice="none"`` leaves the tools out, and so leaves room for a form."""
    told = body(said(tools=[ADD], tool_choice="none", schema={"type": "object"}))
    assert "tools" not in told
    assert told["format"] == {"type": "object"}


def test_calls_and_their_results() -> None:
    """A call goes back with an object; its result bears the id and the name of the last call."""
    request = said(
        user("1+1? 2+2?"),
        Message(Role.ASSISTANT, "", [ToolCall("call_0", "sub", "")], reasoning="Hm."),
        tool("call_0", "0"),
        Message(Role.ASSISTANT, "", [ToolCall("call_0", "add", '{"a": 1}')]),
        tool("call_0", "2"),
        tool("other", "3"),
    )
    _, first, _, second, known, unknown = body(request)["messages"]
    assert first["thinking"] == "Hm."
    assert first["tool_calls"] == [
        {"id": "call_0", "function": {"index": 0, "name": "sub", "arguments": {}}}
    ]
    assert second["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert known == {
        "role": "tool",
        "content": "2",
        "tool_call_id": "call_0",
        "tool_name": "add",
    }
    assert unknown == {"role": "tool", "content": "3", "tool_call_id": "other"}


@pytest.mark.parametrize(
    "arguments", ["[1]", "{", '{"a": NaN}', '{"a": 1e999}', "[" * 100_000, '"x"']
)
def test_arguments_that_are_no_object(arguments: str) -> None:
    """Arguments that Ollama cannot take are refused, not mended."""
    call = Message(Role.ASSISTANT, "", [ToolCall("c", "add", arguments)])
    with pytest.raises(Unsupported, match="JSON object"):
        asked(said(user("Hi"), call))


def test_pictures() -> None:
    """Pictures go as bare base64, those of data: addresses too."""
    plain = base64.b64encode(PNG).decode()
    pictures = [
        Image(data=PNG),
        Image(url=f"data:image/png;base64,{plain}"),
        Image(url="data:image/png,%89PNG%0D%0A%1A%0A"),
    ]
    (message,) = body(said(user([Text("See: "), *pictures, Text("this")])))["messages"]
    assert message == {"role": "user", "content": "See: this", "images": [plain] * 3}


@pytest.mark.parametrize(
    "url", ["https://example.com/a.png", "file:///etc/passwd", "data:image/png;base64,", "data:"]
)
def test_pictures_elsewhere(url: str) -> None:
    """A picture that Ollama would have to fetch is refused with the way out."""
    with pytest.raises(Unsupported, match="read_bytes") as caught:
        asked(said(user([Image(url=url)])))
    assert caught.value.feature == "images"


def test_forms() -> None:
    """JSON and schemas are the format, of raw prompts too."""
    assert body(said(response_format=ResponseFormat("json")))["format"] == "json"
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert body(said(schema=schema))["format"] == schema
    assert body(Request.of(Request(prompt="A"), schema=schema))["format"] == schema


@pytest.mark.parametrize(
    ("options", "think"),
    [
        ({"reasoning": True}, True),
        ({"reasoning": False}, False),
        ({"effort": "minimal"}, "low"),
        ({"effort": "low"}, "low"),
        ({"effort": "medium"}, "medium"),
        ({"effort": "high"}, "high"),
        ({"effort": "xhigh"}, "high"),
        ({"effort": "max"}, "max"),
        ({"effort": "low", "reasoning": True}, "low"),
    ],
)
def test_thinking(options: dict[str, Any], think: bool | str) -> None:  # noqa: FBT001 - a row of a table
    """Thinking is a switch or a word; of words that Ollama lacks the nearest stands for one."""
    assert body(said(**options))["think"] == think


def test_a_word_for_a_model_that_takes_none() -> None:
    """Effort is for models whose card says so; a switch is left to the server to refuse."""
    with pytest.raises(Unsupported, match="effort"):
        asked(said(effort="low"), PLAIN)
    assert body(said(reasoning=True), PLAIN)["think"] is True


def test_logprobs() -> None:
    """Log-probabilities are asked for with as many neighbours as wanted, of which 0 are none."""
    assert body(said(logprobs=0))["logprobs"] is True
    assert "top_logprobs" not in body(said(logprobs=0))
    assert body(said(logprobs=5))["top_logprobs"] == 5


@pytest.mark.parametrize(
    ("seconds", "sent"), [(300.0, 300), (0.5, 0.5), (0, 0), (-1, -1), (float("inf"), -1)]
)
def test_keeping_a_model(seconds: float, sent: float) -> None:
    """A model is kept loaded as long as the site says; for ever is less than 0."""
    assert body(said(), keep_alive_s=seconds)["keep_alive"] == sent


def test_fields_of_ollamas_own() -> None:
    """Extra fields go along; its options are joined, and what the request asks for wins."""
    extra = {"truncate": True, "stream": 1, "options": {"num_ctx": 8192, "temperature": 1}}
    ask = asked(said(temperature=0), extra=extra)
    assert ask.body is not None
    assert ask.body["options"] == {"num_ctx": 8192, "temperature": 0}
    assert (ask.body["truncate"], ask.body["stream"]) == (True, True)


def test_extra_options_that_are_none() -> None:
    """Options that cannot be joined are refused where the wire is made."""
    with pytest.raises(BadRequest, match="num_ctx"):
        OllamaWire(Site(vendor="ollama", extra={"options": [1]}))


def test_scores() -> None:
    """Ollama scores no documents, and says so."""
    wire = OllamaWire(Site(vendor="ollama"))
    with pytest.raises(Unsupported, match="no documents"):
        wire.exchanges(RerankRequest(query="q", documents=("d",)), CARD)
