"""OpenAI's own SDK as the oracle of the responses endpoint.

It and our dialect talk to the same server: both must send the same request, up to the differences
in ``OURS``, and read the same reply.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from loopback import Answer, Loopback
from openai.types.responses import Response
from openai.types.responses.response_create_params import (
    ResponseCreateParamsNonStreaming,
    ResponseCreateParamsStreaming,
)
from openai_responses import ANSWERS, USAGE, answer, events, message, sse
from oracle import KEY, MISSING, conforms, differences, ours
from replies_of import streamed

from llmdispatcher import Image, Message, Request, ToolCall, ToolSpec
from llmdispatcher.models import errors
from llmdispatcher.models.form import ResponseFormat
from llmdispatcher.models.message import system, tool, user
from llmdispatcher.models.reply import FinishReason
from llmdispatcher.vendors.openai.rows import ROWS
from llmdispatcher.vendors.openai.wire import OpenAIWire
from llmdispatcher.vendors.wire.exchange import Exchange, Site

pytestmark = pytest.mark.soak
"""Some minutes together: each client is imported, and asked in every way."""

MODEL = "gpt-5.6-sol"
"""Asked with tools, it is served at the responses endpoint alone."""

ADD = ToolSpec("add", "Adds.", {"type": "object", "properties": {"x": {"type": "integer"}}})
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
TOOL: dict[str, Any] = {
    "type": "function",
    "name": "add",
    "description": "Adds.",
    "parameters": ADD.parameters,
    "strict": False,
}
SAID: list[dict[str, Any]] = [{"type": "message", "role": "user", "content": "Hi"}]

OURS: dict[str, tuple[Any, str]] = {
    "store": (False, "nothing is kept at the vendor"),
    "truncation": ("disabled", "the endpoint's default, said so that it stays"),
    "include[0]": ("reasoning.encrypted_content", "without a store, thoughts go back sealed"),
}
"""What our requests hold and the SDK's do not, unless asked: the value, and why."""


def wire(*, streaming: bool = True) -> OpenAIWire:
    """Return our dialect at OpenAI."""
    return OpenAIWire(Site(vendor="openai", streaming=streaming), ROWS["openai"].ways)


def exchange(request: Request, model: str = MODEL, *, streaming: bool = True) -> Exchange:
    """Return what we ask."""
    made = wire(streaming=streaming)
    (one,) = made.exchanges(request, made.card(model))
    assert one.ask.path == "/responses"
    return one


@pytest.fixture
def server() -> Iterator[Loopback]:
    """A server; what it answers is the test's to say."""
    with Loopback(lambda _: Answer.json(ANSWERS["plain"])) as loopback:
        yield loopback


@pytest.fixture
def client(server: Loopback) -> Iterator[openai.OpenAI]:
    """The SDK, at the same server."""
    with openai.OpenAI(api_key=KEY, base_url=f"{server.url}/v1", max_retries=0) as sdk:
        yield sdk


REQUESTS: dict[str, tuple[str, Any, dict[str, Any], dict[str, Any]]] = {
    "tools": (
        MODEL,
        "Hi",
        {"tools": [ADD], "tool_choice": "required", "parallel_tools": False, "effort": "low"},
        {
            "input": SAID,
            "tools": [TOOL],
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "reasoning": {"effort": "low"},
        },
    ),
    "a tool": (
        MODEL,
        "Hi",
        {"tools": [ADD], "tool_choice": "add", "max_tokens": 100, "reasoning": True},
        {
            "input": SAID,
            "tools": [TOOL],
            "tool_choice": {"type": "function", "name": "add"},
            "max_output_tokens": 100,
            "reasoning": {"summary": "auto"},
        },
    ),
    "schema": (
        "gpt-5-pro",
        "Hi",
        {"schema": SCHEMA},
        {
            "input": SAID,
            "text": {
                "format": {"type": "json_schema", "name": "reply", "schema": SCHEMA, "strict": True}
            },
        },
    ),
    "json": (
        "gpt-5-codex",
        "Hi",
        {"response_format": ResponseFormat("json")},
        {"input": SAID, "text": {"format": {"type": "json_object"}}},
    ),
    "talk": (
        MODEL,
        [
            system("S"),
            user(["What?", Image(b"PNG"), Image(url="https://a.test/i.png")]),
            Message("assistant", "I add.", [ToolCall("c1", "add", '{"x": 1}')]),
            tool("c1", "2"),
        ],
        {"tools": [ADD]},
        {
            "input": [
                {"type": "message", "role": "developer", "content": "S"},
                {
                    "type": "message",
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "What?"},
                        {
                            "type": "input_image",
                            "image_url": "data:image/png;base64,UE5H",
                            "detail": "auto",
                        },
                        {
                            "type": "input_image",
                            "image_url": "https://a.test/i.png",
                            "detail": "auto",
                        },
                    ],
                },
                {"type": "message", "role": "assistant", "content": "I add."},
                {
                    "type": "function_call",
                    "call_id": "c1",
                    "name": "add",
                    "arguments": '{"x": 1}',
                },
                {"type": "function_call_output", "call_id": "c1", "output": "2"},
            ],
            "tools": [TOOL],
            "tool_choice": "auto",
        },
    ),
}
"""A model, our prompt and options, and the same said to the SDK."""


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", REQUESTS)
def test_requests_are_the_same(
    server: Loopback,
    client: openai.OpenAI,
    name: str,
    streaming: bool,  # noqa: FBT001 - as tests are given it
) -> None:
    """Field by field, what we send is what the SDK sends, beside what we add on purpose."""
    model, prompt, options, said = REQUESTS[name]
    streams = streaming and model != "gpt-5-pro"  # which cannot
    if streams:
        server.handler = lambda _: Answer.sse(sse(events(ANSWERS["plain"])))
        with client.responses.create(model=model, stream=True, **said) as stream:
            assert [*stream]
    else:
        client.responses.create(model=model, **said)
    asked = exchange(Request.of(prompt, **options), model, streaming=streaming)
    ours(f"{server.url}/v1", asked, wire().fault)
    theirs, sent = server.got
    assert (sent.path, sent.headers["authorization"]) == (
        theirs.path,
        theirs.headers["authorization"],
    )
    added = {path: (value, MISSING) for path, (value, _) in OURS.items()}
    assert differences(sent.body, theirs.body) == added
    kind = ResponseCreateParamsStreaming if streams else ResponseCreateParamsNonStreaming
    conforms(kind, sent.body)


@pytest.mark.parametrize("name", ANSWERS)
def test_thoughts_go_back_in_the_sdks_form(name: str) -> None:
    """The turn that a reply was is, sent back, of the SDK's own type of input."""
    request = Request.of("Hi", tools=[ADD])
    read = streamed(exchange(request).replies, sse(events(ANSWERS[name])))
    choice = read.choices[0]
    turn = Message("assistant", choice.text, choice.tool_calls, keepsakes=choice.keepsakes)
    again = exchange(Request.of([user("Hi"), turn], tools=[ADD]))
    conforms(ResponseCreateParamsStreaming, dict(again.ask.body or {}))


def of_sdk(response: Response) -> tuple[str, list[tuple[str, str, str]], str]:
    """Return text, calls and thoughts as the SDK reads them."""
    texts, calls, thoughts = [], [], []
    for item in response.output:
        match item.type:
            case "message":
                texts += [p.text if p.type == "output_text" else p.refusal for p in item.content]
            case "function_call":
                calls.append((item.call_id, item.name, item.arguments or "{}"))
            case "reasoning":
                thoughts += [part.text for part in item.summary]
    return "".join(texts), calls, "\n\n".join(thoughts)


def reason_of_sdk(response: Response) -> FinishReason:
    """Return why a response ended, as its own fields say."""
    if response.status == "incomplete":
        assert response.incomplete_details
        return {
            "max_output_tokens": FinishReason.LENGTH,
            "content_filter": FinishReason.CONTENT_FILTER,
        }[str(response.incomplete_details.reason)]
    if any(item.type == "function_call" for item in response.output):
        return FinishReason.TOOL_CALLS
    is_refused = any(
        part.type == "refusal"
        for item in response.output
        if item.type == "message"
        for part in item.content
    )
    return FinishReason.CONTENT_FILTER if is_refused else FinishReason.STOP


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ANSWERS)
def test_replies_are_read_alike(
    server: Loopback,
    client: openai.OpenAI,
    name: str,
    streaming: bool,  # noqa: FBT001 - as tests are given it
) -> None:
    """Text, calls, thoughts, tokens and the end are what the SDK finds in the same bytes."""
    if streaming:
        server.handler = lambda _: Answer.sse(sse(events(ANSWERS[name])))
        with client.responses.stream(model=MODEL, input="Hi") as stream:
            grown = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
            if name in {"cut", "filtered"}:  # the SDK takes only what is complete as a response
                theirs = Response.model_validate(ANSWERS[name])
            else:
                theirs = Response.model_validate(stream.get_final_response().model_dump())
        assert grown == theirs.output_text
    else:
        server.handler = lambda _: Answer.json(ANSWERS[name])
        theirs = client.responses.create(model=MODEL, input="Hi")
    request = Request.of("Hi", logprobs=5, effort=None, reasoning=False, tools=[ADD])
    asked = exchange(request, "gpt-5.3-codex", streaming=streaming)
    read = ours(f"{server.url}/v1", asked, wire().fault)
    choice, finish = read.choices[0], read.finish
    calls = [(c.id, c.name, c.arguments) for c in choice.tool_calls]
    assert (choice.text, calls, choice.reasoning) == of_sdk(theirs)
    assert finish
    assert finish.reason is reason_of_sdk(theirs)
    assert (finish.request_id, finish.served_model) == (theirs.id, theirs.model)
    assert theirs.usage
    assert finish.usage.prompt_tokens == theirs.usage.input_tokens
    assert finish.usage.cached_tokens == theirs.usage.input_tokens_details.cached_tokens
    assert finish.usage.cache_write_tokens == theirs.usage.input_tokens_details.cache_write_tokens
    assert finish.usage.completion_tokens == theirs.usage.output_tokens
    assert finish.usage.reasoning_tokens == theirs.usage.output_tokens_details.reasoning_tokens
    if name == "logprobs":
        (item,) = theirs.output
        assert item.type == "message"
        (part,) = item.content
        assert part.type == "output_text"
        told = [(t.token, bytes(t.bytes), t.logprob) for t in part.logprobs or ()]
        assert [(t.token, t.data, t.logprob) for t in choice.logprobs] == told


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (
            {"type": "error", "code": "rate_limit_exceeded", "message": "Slow.", "param": None},
            errors.RateLimited,
        ),
        (
            {
                "type": "error",
                "error": {
                    "type": "invalid_request_error",
                    "code": "context_length_exceeded",
                    "message": "Your input exceeds the context window of this model.",
                },
            },
            errors.ContextOverflow,
        ),
        (
            {
                "type": "response.failed",
                "response": answer(
                    message("It"),
                    status="failed",
                    error={"code": "server_error", "message": "It broke."},
                    usage=None,
                ),
            },
            errors.BadReply,
        ),
        (
            {
                "type": "response.failed",
                "response": answer(
                    status="failed",
                    error={"code": "invalid_prompt", "message": "Against the rules."},
                    usage=USAGE,
                ),
            },
            errors.ContentRefused,
        ),
    ],
)
def test_errors_in_a_stream_are_the_same(
    server: Loopback,
    client: openai.OpenAI,
    made: dict[str, Any],
    kind: type[errors.DispatcherError],
) -> None:
    """What is an error, or a failed response, to the SDK is an error here."""
    begun = events(ANSWERS["plain"])[:3]
    server.handler = lambda _: Answer.sse(sse([*begun, {**made, "sequence_number": 3}]))
    told = made.get("message") or (made.get("error") or made["response"]["error"])["message"]
    with client.responses.create(model=MODEL, input="Hi", stream=True) as stream:
        if "error" in made:
            with pytest.raises(openai.APIError, match=told):
                list(stream)
        else:
            *_, last = stream
            found = last.response.error if last.type == "response.failed" else last
            assert getattr(found, "message", None) == told
    request = Request.of("Hi", tools=[ADD])
    with pytest.raises(kind) as caught:
        ours(f"{server.url}/v1", exchange(request), wire().fault)
    assert told in str(caught.value) or kind is errors.ContextOverflow
