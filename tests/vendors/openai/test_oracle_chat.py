"""The vendors' own SDKs as the oracle of the chat-completions dialect.

Each SDK and our dialect talk to the same server: both must send the same request, up to what is in
``ADDED``, and read the same reply.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from loopback import Answer, Loopback
from openai_sdks import SDKS, exchange, wire
from oracle import MISSING, conforms, differences, ours
from speaking_openai import spoken

from llmdispatcher import Image, Message, Request, ToolCall, ToolSpec
from llmdispatcher.models.form import ResponseFormat
from llmdispatcher.models.message import system, tool, user
from llmdispatcher.models.reply import FinishReason
from llmdispatcher.vendors.openai.rows import ROWS

pytestmark = pytest.mark.soak
"""Some minutes together: each client is imported, and asked in every way."""

STREAMED: dict[str, tuple[dict[str, Any], str]] = {
    "openai": (
        {"stream_options.include_usage": True, "stream_options.include_obfuscation": False},
        "usage is wanted, and padding is not",
    ),
    "azure": ({"stream_options.include_usage": True}, "usage is wanted"),
    "azure-dated": ({"stream_options.include_usage": True}, "usage is wanted"),
    "together": ({"stream_options.include_usage": True}, "usage is wanted"),
}
"""What our requests for streams hold and the SDK's do not, unless asked, and why."""

# What our other requests hold and the SDK's do not, unless asked: it is said, so that no server's
# own default counts. Mistral's SDK says so too.
WHOLE: dict[str, Any] = {"stream": False}

OURS: dict[tuple[str, str], dict[str, Any]] = {
    ("together", "talk"): {"messages[2].tool_calls[0].index": 0}
}
"""What our requests hold and the SDK's do not, though its own types demand it."""

THEIRS: dict[tuple[str, str], dict[str, Any]] = {
    ("mistral", "talk"): {"messages[2].prefix": False, "messages[2].tool_calls[0].index": 0}
}
"""What the SDK's requests hold and ours do not: its types have these by default."""

ADD = ToolSpec("add", "Adds.", {"type": "object", "properties": {"x": {"type": "integer"}}})
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "add", "description": "Adds.", "parameters": ADD.parameters},
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
}
HI: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
CLOUDS = frozenset(SDKS)


@attrs.frozen(kw_only=True)
class Case:
    """A request, in our words and in those of OpenAI's SDK."""

    prompt: Any = "Hi"
    options: dict[str, Any]
    said: dict[str, Any]
    at: frozenset[str] = CLOUDS


CASES: dict[str, Case] = {
    "sampling": Case(
        options={"temperature": 0.5, "top_p": 0.9, "max_tokens": 100, "seed": 7, "stop": ["END"]},
        said={
            "messages": HI,
            "temperature": 0.5,
            "top_p": 0.9,
            "max_completion_tokens": 100,
            "seed": 7,
            "stop": ["END"],
        },
    ),
    "penalties": Case(
        options={"presence_penalty": 0.5, "frequency_penalty": -0.5, "n": 2},
        said={"messages": HI, "presence_penalty": 0.5, "frequency_penalty": -0.5, "n": 2},
        at=CLOUDS - {"groq"},
    ),
    "tools": Case(
        options={"tools": [ADD], "tool_choice": "required"},
        said={"messages": HI, "tools": [TOOL], "tool_choice": "required"},
    ),
    "one tool at a time": Case(
        options={"tools": [ADD], "tool_choice": "add", "parallel_tools": False},
        said={
            "messages": HI,
            "tools": [TOOL],
            "tool_choice": {"type": "function", "function": {"name": "add"}},
            "parallel_tool_calls": False,
        },
        at=CLOUDS - {"together"},
    ),
    "schema": Case(
        options={"schema": SCHEMA},
        said={
            "messages": HI,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "reply", "schema": SCHEMA, "strict": True},
            },
        },
    ),
    "json": Case(
        options={"response_format": ResponseFormat("json")},
        said={"messages": HI, "response_format": {"type": "json_object"}},
    ),
    "log-probabilities": Case(
        options={"logprobs": 3},
        said={"messages": HI, "logprobs": True, "top_logprobs": 3},
        at=CLOUDS - {"groq", "together"},
    ),
    "talk": Case(
        prompt=[
            system("S"),
            user(["What?", Image(b"PNG"), Image(url="https://a.test/i.png")]),
            Message("assistant", "I add.", [ToolCall("callabc12", "add", '{"x": 1}')]),
            tool("callabc12", "2"),
        ],
        options={},
        said={
            "messages": [
                {"role": "system", "content": "S"},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What?"},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,UE5H"}},
                        {"type": "image_url", "image_url": {"url": "https://a.test/i.png"}},
                    ],
                },
                {
                    "role": "assistant",
                    "content": "I add.",
                    "tool_calls": [
                        {
                            "id": "callabc12",
                            "type": "function",
                            "function": {"name": "add", "arguments": '{"x": 1}'},
                        }
                    ],
                },
                {"role": "tool", "content": "2", "tool_call_id": "callabc12"},
            ]
        },
    ),
}


@pytest.fixture
def server() -> Iterator[Loopback]:
    """A server; what it answers is the test's to say."""
    with Loopback(lambda _: Answer.json({})) as loopback:
        yield loopback


def answers(preset: str, *, streams: bool, **reply: Any) -> Answer:
    """Return a reply as a vendor answers it."""
    chunks = spoken(preset, **reply, streams=streams)
    if streams:
        return Answer.sse(chunks)
    body = json.loads(chunks[0])
    body["object"] = "chat.completion"
    if preset == "together":
        body["prompt"] = []
    return Answer.json(body)


def theirs(preset: str, server: Loopback, *, streams: bool, **said: Any) -> list[Any]:
    """Ask with the SDK; return what it makes of the answer, in the pieces that it makes."""
    said = {"model": SDKS[preset].model, **said}
    with SDKS[preset].make(server.url) as client:
        if preset != "mistral":
            create = client.chat.completions.create
            if not streams:
                return [create(**said)]
            with create(**said, stream=True) as stream:
                return [*stream]
        if not streams:
            return [client.chat.complete(**said)]
        with client.chat.stream(**said) as stream:
            return [event.data for event in stream]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("preset", "name"),
    [(preset, name) for name, case in CASES.items() for preset in sorted(case.at)],
)
def test_requests_are_the_same(
    server: Loopback,
    preset: str,
    name: str,
    streaming: bool,  # noqa: FBT001 - as tests are given it
) -> None:
    """Field by field, what we send is what the SDK sends, beside what we add on purpose."""
    case, sdk = CASES[name], SDKS[preset]
    asked = exchange(preset, Request.of(case.prompt, **case.options), streaming=streaming)
    assert asked.ask.streams == streaming or ROWS[preset].ways.streams_forms is False
    streams = asked.ask.streams
    server.handler = lambda _: answers(preset, text="Hi", streams=streams)
    theirs(preset, server, streams=streams, **sdk.said(case.said))
    n = case.options.get("n", 1)
    if n == 1:
        ours(server.url + sdk.base, asked, wire(preset, streaming=streams).fault)
    else:  # of which the answer has one
        with pytest.raises(IndexError):
            ours(server.url + sdk.base, asked, wire(preset, streaming=streams).fault, n).text  # noqa: B018 - it is not whole
    first, second = server.got
    assert (second.path, second.query) == (first.path, first.query)
    added: dict[str, Any] = STREAMED.get(preset, ({}, ""))[0] if streams else WHOLE
    if preset == "mistral":
        added = {}
    added = {**added, **OURS.get((preset, name), {})}
    of_theirs = THEIRS.get((preset, name), {})
    assert differences(second.body, first.body) == {
        **{path: (value, MISSING) for path, value in added.items()},
        **{path: (MISSING, value) for path, value in of_theirs.items()},
    }
    known = {name: value for name, value in second.body.items() if name not in sdk.untyped}
    conforms(sdk.streamed if streams else sdk.whole, known)


REPLIES: dict[str, dict[str, Any]] = {
    "plain": {"text": "Grüße, 世界! 🙂", "usage": (20, 9, 4)},
    "calls": {
        "text": "Well.",
        "calls": [("callabc12", "add", '{"x":1,"y":"é"}'), ("callabc34", "now", "{}")],
        "finish": "tool_calls",
        "usage": (20, 9, 0),
    },
    "cut": {"text": "It goes on and", "finish": "length", "usage": (1, 2, 0)},
    "thoughts": {"text": "Done.", "reasoning": "Hm, so.", "usage": (1, 2, 0)},
    "empty": {"usage": (1, 0, 0)},
    "filtered": {"text": "It was", "finish": "content_filter", "usage": (1, 2, 0)},
}


def words(content: Any) -> str:
    """Return the text of content: a string, or parts of which some are text."""
    if isinstance(content, list):
        return "".join(part.text for part in content if part.type == "text")
    return content or ""


def thoughts(part: Any) -> str:
    """Return the thoughts of a part of a reply, by any of the names that SDKs have for them."""
    if isinstance(part.content, list):
        chunks = [chunk for chunk in part.content if chunk.type == "thinking"]
        return "".join(text.text for chunk in chunks for text in chunk.thinking)
    return getattr(part, "reasoning", None) or getattr(part, "reasoning_content", None) or ""


def grown(told: list[Any]) -> tuple[str, str, list[list[str]], str]:
    """Return text, thoughts, calls and the reason for the end, of all that an SDK told."""
    text, thought, reason = "", "", ""
    calls: list[list[str]] = []
    for each in told:
        for choice in each.choices:
            part = getattr(choice, "delta", None) or choice.message
            text += words(part.content)
            thought += thoughts(part)
            reason = choice.finish_reason or reason
            for place, call in enumerate(part.tool_calls or ()):
                at = call.index if hasattr(choice, "delta") else place
                if at == len(calls):
                    calls.append([call.id, call.function.name, ""])
                arguments = call.function.arguments
                arguments = "" if arguments is None else arguments
                if not isinstance(arguments, str):
                    arguments = json.dumps(arguments, separators=(",", ":"), ensure_ascii=False)
                calls[int(at)][2] += arguments
    return text, thought, calls, str(reason)


REASONS = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("preset", SDKS)
@pytest.mark.parametrize("name", REPLIES)
def test_replies_are_read_alike(
    server: Loopback,
    preset: str,
    name: str,
    streams: bool,  # noqa: FBT001 - as tests are given it
) -> None:
    """Text, thoughts, calls, tokens and the end are what the SDK finds in the same bytes."""
    server.handler = lambda _: answers(preset, streams=streams, **REPLIES[name])
    told = theirs(preset, server, streams=streams, messages=HI)
    text, thought, calls, reason = grown(told)
    asked = exchange(preset, Request.of("Hi"), streaming=streams)
    fault = wire(preset, streaming=streams).fault
    read = ours(server.url + SDKS[preset].base, asked, fault)
    choice, finish = read.choices[0], read.finish
    assert (choice.text, choice.reasoning) == (text, thought)
    assert [[c.id, c.name, c.arguments] for c in choice.tool_calls] == calls
    assert finish
    assert finish.reason is REASONS[reason]
    assert (finish.served_model, finish.request_id) in {
        (told[-1].model, told[-1].id),
        (told[-1].model, "req_1"),  # Groq's own, of which the SDK makes a field
    }
    usage = next(each.usage for each in reversed(told) if _usage(each))
    assert finish.usage.prompt_tokens == usage.prompt_tokens
    assert finish.usage.completion_tokens == usage.completion_tokens
    details = getattr(usage, "prompt_tokens_details", None)
    assert finish.usage.cached_tokens == (getattr(details, "cached_tokens", 0) or 0)
    assert not finish.usage.estimated


def _usage(told: Any) -> Any:
    """Return the figures of a piece, which Groq has in a place of its own."""
    own = getattr(told, "x_groq", None)
    if own is not None and own.usage is not None:
        told.usage = own.usage
    return getattr(told, "usage", None)
