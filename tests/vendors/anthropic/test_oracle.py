"""Anthropic's own SDK as the oracle: it and our dialect talk to the same server.

Both must send the same request, up to the differences in ``as_blocks``, and read the same reply.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.types import Message as Theirs
from loopback import Answer, Loopback
from speaking_anthropic import MODEL, failed, models, page, row, spoken

from llmdispatcher import Image, Message, Request, ToolCall, ToolSpec
from llmdispatcher.draft import ReplyDraft
from llmdispatcher.models import errors
from llmdispatcher.models.form import ResponseFormat
from llmdispatcher.models.message import Keepsake, Text, system, tool, user
from llmdispatcher.models.reply import Choice, Finish, FinishReason, Progress
from llmdispatcher.vendors.anthropic.known import SAMPLING_VERSION
from llmdispatcher.vendors.anthropic.wire import AnthropicWire
from llmdispatcher.vendors.wire.events import Sse
from llmdispatcher.vendors.wire.exchange import Ask, Head, Replies, Site
from llmdispatcher.vendors.wire.reading import parsed

REASONS = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}

CALLS = [("toolu_1", "add", '{"x": [1, 2], "y": "grün"}'), ("toolu_2", "now", "")]

PLAIN: dict[str, Any] = {"max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}


def wire(*, streaming: bool, **options: Any) -> AnthropicWire:
    """Return our dialect."""
    return AnthropicWire(Site(vendor="anthropic", streaming=streaming), **options)


@contextlib.contextmanager
def both(answer: Answer) -> Iterator[tuple[anthropic.Anthropic, Loopback]]:
    """Give the SDK, and a server that answers the same to all."""
    with (
        Loopback(lambda _: answer) as server,
        anthropic.Anthropic(api_key="k", base_url=server.url, max_retries=0) as client,
    ):
        yield client, server


def told(streams: bool, chunks: Sequence[bytes]) -> Answer:  # noqa: FBT001 - as tests are given it
    """Return a reply as the server answers it."""
    if streams:
        return Answer.sse(chunks)
    return Answer(headers={"content-type": "application/json"}, chunks=tuple(chunks))


def exchange(server: Loopback, ask: Ask, spoken_by: AnthropicWire, replies: Replies) -> list[Any]:
    """Do what the transport does: send, and hand over what comes."""
    pieces: list[Any] = []
    method = "GET" if ask.body is None else "POST"
    with (
        httpx2.Client(base_url=server.url, headers=dict(ask.headers)) as client,
        client.stream(method, ask.path, json=ask.body) as answer,
    ):
        head = Head(answer.status_code, {k.lower(): v for k, v in answer.headers.items()})
        if not answer.is_success:
            raise spoken_by.fault(head, answer.read())
        if head.media_type != "text/event-stream":
            return [*replies.whole(parsed(answer.read()))]
        cutter = Sse()
        for chunk in answer.iter_bytes():
            for event in cutter.feed(chunk):
                pieces += replies.take(event.name, parsed(event.data))
    return pieces


def ours(server: Loopback, request: Request, spoken_by: AnthropicWire) -> tuple[Choice, Finish]:
    """Return the reply that our dialect reads."""
    (made,) = spoken_by.exchanges(request, spoken_by.card(request.model or MODEL))
    draft = ReplyDraft(1, ResponseFormat())
    for piece in exchange(server, made.ask, spoken_by, made.replies):
        assert not isinstance(piece, Progress | Finish)
        draft.add(piece)
    finish = made.replies.finish()
    assert finish is not None
    draft.finish(finish)
    return draft.choices[0], finish


def theirs(client: anthropic.Anthropic, *, streams: bool) -> Theirs:
    """Return the reply that the SDK reads."""
    if not streams:
        made: Theirs = client.messages.create(model=MODEL, **PLAIN)
        return made
    with client.messages.stream(model=MODEL, **PLAIN) as stream:
        return stream.get_final_message()


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(
    "reply",
    [
        {"text": "Hello, world. 😀 Schön."},
        {"text": "Hello", "reasoning": "Let me think.", "usage": (100, 20, 60)},
        {"calls": CALLS, "finish": "tool_calls"},
        {"text": "Well.", "reasoning": "Hm.", "calls": CALLS, "finish": "tool_calls"},
        {"text": "Once upon", "finish": "length"},
        {"text": "I", "finish": "content_filter"},
        {"finish": "stop"},
    ],
)
def test_replies_are_read_alike(streams: bool, reply: dict[str, Any]) -> None:  # noqa: FBT001
    """Text, thoughts, calls, what goes back, the end and the usage are what the SDK finds."""
    with both(told(streams, spoken(**reply, streams=streams))) as (client, server):
        want = theirs(client, streams=streams)
        choice, finish = ours(server, Request.of("Hi", max_tokens=100), wire(streaming=streams))

    def joined(kind: str, field: str) -> str:
        return "".join(getattr(block, field) for block in want.content if block.type == kind)

    assert choice.text == joined("text", "text")
    assert choice.reasoning == joined("thinking", "thinking")
    calls = [(call.id, call.name, json.loads(call.arguments)) for call in choice.tool_calls]
    assert calls == [(b.id, b.name, b.input) for b in want.content if b.type == "tool_use"]
    kept = [b.to_dict() for b in want.content if b.type == "thinking"]
    assert [json.loads(keepsake.data) for keepsake in choice.keepsakes] == kept
    assert want.stop_reason is not None
    assert finish.reason is REASONS[want.stop_reason]
    assert finish.served_model == want.model
    usage = want.usage
    cached, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    assert finish.usage.prompt_tokens == usage.input_tokens + cached + written
    assert (finish.usage.cached_tokens, finish.usage.cache_write_tokens) == (cached, written)
    assert finish.usage.completion_tokens == usage.output_tokens
    assert not finish.usage.estimated


ERRORS: dict[str, tuple[type[anthropic.APIStatusError], type[errors.DispatcherError]]] = {
    "auth": (anthropic.AuthenticationError, errors.AuthRejected),
    "rate": (anthropic.RateLimitError, errors.RateLimited),
    "quota": (anthropic.PaymentRequiredError, errors.QuotaExhausted),
    "overflow": (anthropic.BadRequestError, errors.ContextOverflow),
    "overloaded": (anthropic.InternalServerError, errors.Overloaded),
    "missing": (anthropic.NotFoundError, errors.ModelNotFound),
    "filter": (anthropic.BadRequestError, errors.ContentRefused),
    "bad": (anthropic.BadRequestError, errors.BadRequest),
    "inside": (anthropic.APIStatusError, errors.Overloaded),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_are_read_alike(kind: str) -> None:
    """Each of the SDK's errors has one of ours, which is finer where the SDK only has a status."""
    their_error, our_error = ERRORS[kind]
    with both(failed(kind)) as (client, server):
        with pytest.raises(their_error) as want:
            theirs(client, streams=True)
        with pytest.raises(our_error) as got:
            ours(server, Request.of("Hi"), wire(streaming=True))
    error = got.value
    if isinstance(error, errors.VendorError) and kind != "inside":
        assert error.status == want.value.status_code
        assert error.request_id == want.value.request_id
    if isinstance(error, errors.RateLimited):
        assert error.retry_after_s == 7


def as_blocks(value: Any) -> Any:
    """Write what may be said in two ways in one: text alone is one block of text.

    We always write blocks. These are all differences that there may be.
    """
    if isinstance(value, list):
        return [as_blocks(each) for each in value]
    if not isinstance(value, dict):
        return value
    written = {name: as_blocks(each) for name, each in value.items()}
    for name in ("content", "system"):
        if isinstance(value.get(name), str):
            written[name] = [{"type": "text", "text": value[name]}]
    return written


SCHEMA: Any = {
    "type": "object",
    "properties": {"x": {"type": "integer"}},
    "required": ["x"],
    "additionalProperties": False,
}

ADD = ToolSpec("add", "Adds.", SCHEMA)
THEIR_ADD: Any = {"name": "add", "description": "Adds.", "input_schema": SCHEMA}

THOUGHT = {"type": "thinking", "thinking": "Hm", "signature": "s"}

Same = tuple[Request, Callable[[anthropic.Anthropic], object], dict[str, str]]


def create(**fields: Any) -> Callable[[anthropic.Anthropic], object]:
    """Return what has the SDK send this."""
    given: dict[str, Any] = {"model": MODEL, **PLAIN, **fields}
    return lambda client: client.messages.create(**given)


def asking(prompt: Any, **options: Any) -> Request:
    """Return the like request of ours."""
    return Request.of(prompt, **{"max_tokens": 100, **options})


SAME: dict[str, Same] = {
    "plain": (asking("Hi"), create(), {}),
    "system, stop and a mark": (
        asking([system("S"), user([Text("A", cache=True), "B"])], stop=["x"]),
        create(
            system="S",
            stop_sequences=["x"],
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "A", "cache_control": {"type": "ephemeral"}},
                        {"type": "text", "text": "B"},
                    ],
                }
            ],
        ),
        {},
    ),
    "tools": (
        asking("Hi", tools=[ADD], tool_choice="add", parallel_tools=False),
        create(
            tools=[THEIR_ADD],
            tool_choice={"type": "tool", "name": "add", "disable_parallel_tool_use": True},
        ),
        {},
    ),
    "a loop of tools": (
        asking(
            [
                user("Hi"),
                Message(
                    "assistant",
                    "Well.",
                    [ToolCall("c1", "add", '{"x": 1}')],
                    keepsakes=[Keepsake("anthropic", json.dumps(THOUGHT))],
                ),
                tool("c1", "2"),
            ],
            tools=[ADD],
        ),
        create(
            tools=[THEIR_ADD],
            messages=[
                {"role": "user", "content": "Hi"},
                {
                    "role": "assistant",
                    "content": [
                        THOUGHT,
                        {"type": "text", "text": "Well."},
                        {"type": "tool_use", "id": "c1", "name": "add", "input": {"x": 1}},
                    ],
                },
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "2"}],
                },
            ],
        ),
        {},
    ),
    "schema and effort": (
        asking("Hi", schema=SCHEMA, effort="xhigh"),
        create(
            thinking={"type": "adaptive", "display": "summarized"},
            output_config={"effort": "xhigh", "format": {"type": "json_schema", "schema": SCHEMA}},
        ),
        {},
    ),
    "pictures": (
        asking(user([Image(b"PNG"), Image(url="https://x/y.jpg")])),
        create(
            messages=[
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": "UE5H"},
                        },
                        {"type": "image", "source": {"type": "url", "url": "https://x/y.jpg"}},
                    ],
                }
            ]
        ),
        {},
    ),
    "a prefill": (
        asking("Hi", prefill="A", model="claude-haiku-4-5"),
        create(
            model="claude-haiku-4-5",
            messages=[*PLAIN["messages"], {"role": "assistant", "content": "A"}],
        ),
        {},
    ),
    "sampling in the older version": (
        asking("Hi", temperature=0.5, top_k=4, model="claude-haiku-4-5"),
        create(
            model="claude-haiku-4-5",
            extra_body={"temperature": 0.5, "top_k": 4},
            extra_headers={"anthropic-version": SAMPLING_VERSION},
        ),
        {"version": SAMPLING_VERSION},
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_requests_are_sent_alike(case: str) -> None:
    """The same path, version and body as the SDK's for what it calls the same."""
    request, create_, options = SAME[case]
    with both(told(False, spoken(text="Hello", streams=False))) as (client, server):  # noqa: FBT003
        create_(client)
        ours(server, request, wire(streaming=False, **options))
        want, got = server.got
    assert (got.method, got.path, got.query) == (want.method, want.path, want.query)
    for name in ("anthropic-version", "content-type"):
        assert got.headers[name] == want.headers[name]
    assert got.body == as_blocks(want.body)


def test_streams_are_asked_for_alike() -> None:
    """The same body as the SDK's where the reply is to come in pieces."""
    with both(told(True, spoken(text="Hello", streams=True))) as (client, server):  # noqa: FBT003
        theirs(client, streams=True)
        ours(server, asking("Hi"), wire(streaming=True))
        want, got = server.got
    assert got.body == as_blocks(want.body)
    assert got.body["stream"] is True


def test_counts_are_alike() -> None:
    """The same question, and the same number."""
    with both(Answer.json({"input_tokens": 2095})) as (client, server):
        counted = client.messages.count_tokens(
            model=MODEL, messages=PLAIN["messages"], tools=[THEIR_ADD], system="S"
        )
        ours_ = wire(streaming=True)
        request = asking([system("S"), user("Hi")], tools=[ADD])
        ask = ours_.counting(request, ours_.card(MODEL))
        assert ask is not None
        with httpx2.Client(base_url=server.url) as http:
            answer = http.post(ask.path, json=ask.body)
        want, got = server.got
    assert ours_.counted(answer.json()) == counted.input_tokens == 2095
    assert (got.path, got.body) == (want.path, as_blocks(want.body))


def test_models_are_listed_alike() -> None:
    """All pages are read, and each model has the window that the SDK sees."""
    pages = {
        "": page([row("claude-a", max_input_tokens=5)], has_more=True),
        "claude-a": json.loads(models()),
    }

    def answered(server: Loopback) -> None:
        def answer(got: Any) -> Answer:
            after = dict(pair.split("=") for pair in got.query.split("&")).get("after_id", "")
            return Answer.json(pages[after])

        server.handler = answer

    with both(Answer()) as (client, server):
        answered(server)
        want = {each.id: each.max_input_tokens for each in client.models.list(limit=1000)}
        ours_ = wire(streaming=True)
        got: dict[str, int | None] = {}
        ask = ours_.listing()
        with httpx2.Client(base_url=server.url) as http:
            while ask is not None:
                listed = ours_.listed(http.get(ask.path).json())
                got |= {card.model: card.context_tokens for card in listed.cards}
                ask = listed.more
        queries = [{*each.query.split("&")} for each in server.got]
    assert got == want
    assert len(got) == 3
    assert queries[:2] == queries[2:]
