"""OpenAI's own SDK as the oracle of what it alone tells, and all SDKs of vectors and models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from loopback import Answer, Loopback, events
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion
from openai_sdks import SDKS, exchange, wire
from oracle import KEY, MISSING, ask, conforms, differences, ours
from speaking_openai import models, vectors

from llmdispatcher import EmbedRequest, Request
from llmdispatcher.models.embedding import Vector
from llmdispatcher.models.reply import FinishReason
from llmdispatcher.vendors.wire.exchange import Exchange
from llmdispatcher.vendors.wire.reading import parsed

pytestmark = pytest.mark.soak
"""Some minutes together: each client is imported, and asked in every way."""

HI: list[Any] = [{"role": "user", "content": "Hi"}]

USAGE = {
    "prompt_tokens": 40,
    "completion_tokens": 30,
    "total_tokens": 70,
    "prompt_tokens_details": {"cached_tokens": 16, "audio_tokens": 0, "cache_write_tokens": 8},
    "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 0},
}


def token(text: str, value: float, *likely: tuple[str, float]) -> dict[str, Any]:
    """Return a token as OpenAI tells it."""
    top = [{"token": t, "logprob": v, "bytes": [*t.encode()]} for t, v in likely]
    return {"token": text, "logprob": value, "bytes": [*text.encode()], "top_logprobs": top}


def delta(index: int = 0, finish: str | None = None, logprobs: Any = None, **part: Any) -> Any:
    """Return a piece of a choice."""
    told = None if logprobs is None else {"content": logprobs, "refusal": None}
    return {"index": index, "delta": part, "finish_reason": finish, "logprobs": told}


def called(index: int, arguments: str, call_id: str | None = None, name: str | None = None) -> Any:
    """Return a piece of a call."""
    made: dict[str, Any] = {"index": index, "function": {"arguments": arguments}}
    if call_id is not None:
        made |= {"id": call_id, "type": "function"}
        made["function"]["name"] = name
    return made


STREAMS: dict[str, list[Any]] = {
    "choices": [
        delta(0, role="assistant", content=""),
        delta(1, role="assistant", content=""),
        delta(1, content="Two"),
        delta(0, content="On"),
        delta(1, content=" of it"),
        delta(0, content="e"),
        delta(1, "length"),
        delta(0, "stop"),
    ],
    "log-probabilities": [
        delta(role="assistant", content="", refusal=None),
        delta(content="Hi", logprobs=[token("Hi", -0.5, ("Hi", -0.5), ("Ho", -1.25))]),
        delta(content=" 🙂", logprobs=[token(" ", -0.25), token("🙂", -9999.0)]),
        delta(finish="stop"),
    ],
    "refusal": [
        delta(role="assistant", content=None, refusal=""),
        delta(refusal="I can"),
        delta(refusal="not."),
        delta(finish="stop"),
    ],
    "calls": [
        delta(role="assistant", content=None, tool_calls=[called(0, "", "call_a", "add")]),
        delta(tool_calls=[called(0, '{"x"')]),
        delta(tool_calls=[called(1, "", "call_b", "now")]),
        delta(tool_calls=[called(0, ": 1}"), called(1, "{}")]),
        delta(finish="tool_calls"),
    ],
}
"""Pieces of replies, as they come."""


def chunks(pieces: list[Any], *, with_usage: bool = True) -> list[dict[str, Any]]:
    """Return the chunks in which pieces come."""
    base = {
        "id": "chatcmpl-7",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": "gpt-4o-2024-08-06",
    }
    made = [{**base, "choices": [piece], "usage": None} for piece in pieces]
    return [*made, {**base, "choices": [], "usage": USAGE}] if with_usage else made


@pytest.fixture
def server() -> Iterator[Loopback]:
    """A server; what it answers is the test's to say."""
    with Loopback(lambda _: Answer.json({})) as loopback:
        yield loopback


def grown(server: Loopback) -> ChatCompletion:
    """Return what the SDK grows of a stream."""
    state: Any = ChatCompletionStreamState()
    with (
        openai.OpenAI(api_key=KEY, base_url=f"{server.url}/v1", max_retries=0) as client,
        client.chat.completions.create(model="gpt-4o", messages=HI, stream=True) as stream,
    ):
        for chunk in stream:
            state.handle_chunk(chunk)
    made: ChatCompletion = state.current_completion_snapshot
    return made


def asked(name: str, *, streaming: bool) -> tuple[Exchange, int]:
    """Return what we ask, and for how many choices."""
    options: dict[str, Any] = {
        "choices": {"n": 2},
        "log-probabilities": {"logprobs": 5},
    }.get(name, {})
    request = Request.of("Hi", **options)
    return exchange("openai", request, streaming=streaming), request.n


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", STREAMS)
def test_replies_are_read_alike(
    server: Loopback,
    name: str,
    streaming: bool,  # noqa: FBT001 - as tests are given it
) -> None:
    """Every choice, token, call and figure is what the SDK finds in the same bytes."""
    server.handler = lambda _: Answer.sse(events(*chunks(STREAMS[name])))
    theirs = grown(server)
    if not streaming:  # the same in one
        body = theirs.model_dump(mode="json")
        server.handler = lambda _: Answer.json({**body, "object": "chat.completion"})
    one, n = asked(name, streaming=streaming)
    read = ours(f"{server.url}/v1", one, wire("openai").fault, n)
    finish = read.finish
    assert finish
    reasons = (finish.reason, *finish.others)
    for choice, their, reason in zip(read.choices, theirs.choices, reasons, strict=True):
        told = their.message
        assert choice.text == (told.content or "") + (told.refusal or "")
        calls: list[Any] = [*(told.tool_calls or ())]
        assert [(c.id, c.name, c.arguments) for c in choice.tool_calls] == [
            (c.id, c.function.name, c.function.arguments) for c in calls
        ]
        rows = their.logprobs.content if their.logprobs else None
        assert [(t.token, [*t.data], t.logprob, len(t.top)) for t in choice.logprobs] == [
            (t.token, t.bytes, t.logprob, len(t.top_logprobs)) for t in rows or ()
        ]
        is_refused = bool(told.refusal)
        assert reason == (FinishReason.CONTENT_FILTER if is_refused else their.finish_reason)
    figures = theirs.usage
    assert figures
    assert figures.prompt_tokens_details
    assert figures.completion_tokens_details
    usage = finish.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (
        figures.prompt_tokens,
        figures.completion_tokens,
    )
    assert usage.cached_tokens == figures.prompt_tokens_details.cached_tokens
    assert usage.cache_write_tokens == USAGE["prompt_tokens_details"]["cache_write_tokens"]  # type: ignore[index]
    assert usage.reasoning_tokens == figures.completion_tokens_details.reasoning_tokens
    assert (finish.served_model, finish.request_id) == (theirs.model, theirs.id)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_without_usage_is_estimated(server: Loopback, name: str) -> None:
    """Where the SDK has no figures, ours are marked as estimated."""
    server.handler = lambda _: Answer.sse(events(*chunks(STREAMS[name], with_usage=False)))
    assert grown(server).usage is None
    one, n = asked(name, streaming=True)
    finish = ours(f"{server.url}/v1", one, wire("openai").fault, n).finish
    assert finish
    assert finish.usage.estimated
    assert finish.usage.completion_tokens


# -- vectors and models ------------------------------------------------------------------------

INPUTS: dict[str, str] = {"mistral": "inputs"}
"""The SDK's own name of what it sends as ``input``."""

VECTOR_MODELS = {
    "openai": "text-embedding-3-small",
    "azure": "my-embed",
    "azure-dated": "my-embed",
    "together": "BAAI/bge-base-en-v1.5",
    "mistral": "mistral-embed",
}


@pytest.mark.parametrize("preset", VECTOR_MODELS)
def test_vectors_are_asked_for_and_read_alike(server: Loopback, preset: str) -> None:
    """The same texts become the same vectors, in their order, for the same tokens."""
    packed = preset in {"openai", "azure", "azure-dated"}
    body = json.loads(vectors(2, packed=packed))
    body["data"].reverse()  # SDKs leave rows in the order in which they come
    server.handler = lambda _: Answer.json({"id": "e", **body})
    sdk, model, texts = SDKS[preset], VECTOR_MODELS[preset], ["one", "two"]
    with sdk.make(server.url) as client:
        their = client.embeddings.create(model=model, **{INPUTS.get(preset, "input"): texts})
    made = wire(preset)
    work = EmbedRequest(texts=texts, normalize=False)
    (one,) = made.exchanges(work, made.card(model))
    _, answer = ask(server.url + sdk.base, one.ask)
    pieces = [*one.replies.whole(parsed(answer))]
    first, second = server.got
    assert (second.path, second.query) == (first.path, first.query)
    said = {} if packed else {"encoding_format": ("float", MISSING)}
    assert differences(second.body, first.body) == said
    if packed:
        conforms(openai.types.EmbeddingCreateParams, second.body)
    assert all(isinstance(piece, Vector) for piece in pieces)
    assert [[*piece.values] for piece in pieces if isinstance(piece, Vector)] == [
        row.embedding for row in their.data
    ]
    finish = one.replies.finish()
    assert finish
    assert finish.served_model == their.model
    figures = their.usage if isinstance(their.usage, dict) else dict(their.usage)
    assert finish.usage.prompt_tokens == figures["prompt_tokens"]


@pytest.mark.parametrize("preset", ["openai", "azure", "groq", "mistral"])
def test_models_are_listed_alike(server: Loopback, preset: str) -> None:
    """The list is asked for at the same place, and holds the same models."""
    told = json.loads(models(preset))
    for row in told["data"]:
        row |= {"created": 1, "object": "model", "owned_by": "x", "type": "base"}
    server.handler = lambda _: Answer.json(told)
    sdk, made = SDKS[preset], wire(preset)
    with sdk.make(server.url) as client:
        listed = client.models.list()
    listing = made.listing()
    assert listing is not None
    _, body = ask(server.url + sdk.base, listing)
    first, second = server.got
    assert (second.method, second.path) == (first.method, first.path)
    cards = made.listed(parsed(body)).cards
    assert [card.model for card in cards] == [model.id for model in listed.data]
