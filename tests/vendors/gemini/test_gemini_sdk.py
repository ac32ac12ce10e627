"""Google's own SDK is the oracle of what is read: it and we talk to one server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import attrs
import pytest
from asking_gemini import OLD, WHOLE, WIRE, sent
from google import genai
from google.genai import errors, types
from loopback import Answer, Got, Loopback
from replies_of import Read, streamed, whole
from speaking_gemini import as_json, failed, models, spoken, vectors

from llmdispatcher import EmbedRequest, ModelCard, Request
from llmdispatcher.models import errors as our
from llmdispatcher.models.embedding import Vector
from llmdispatcher.vendors.wire.exchange import Head, Wire

CASES: dict[str, dict[str, Any]] = {
    "text": {"text": "Hello, Wörld! 😀", "usage": (5, 7, 2)},
    "thoughts": {"text": "So.", "reasoning": "Let me think…", "usage": (5, 8, 0)},
    "calls": {"calls": [("a", "add", '{"x":1}'), ("b", "sub", "{}")], "finish": "tool_calls"},
    "length": {"text": "Cut", "finish": "length", "usage": (1, 1, 0)},
    "filter": {"finish": "content_filter", "usage": (1, 0, 0)},
}

REASONS = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}


def ours(server: Loopback, request: Request, wire: Wire, model: str = OLD) -> Read:
    """Ask, and read the reply."""
    (exchange,) = wire.exchanges(request, wire.card(model))
    got = sent(server, exchange.ask)
    if got.headers["content-type"] == "text/event-stream":
        return streamed(exchange.replies, [got.content], n=request.n)
    return whole(exchange.replies, got.content, n=request.n)


@attrs.frozen
class Theirs:
    """What the SDK made of a reply: of its last message the figures, of all the parts."""

    text: str
    thoughts: str
    calls: tuple[tuple[str, str, dict[str, Any]], ...]
    finish: str
    usage: tuple[int, int, int, int]


def theirs(messages: Sequence[types.GenerateContentResponse]) -> Theirs:
    """Add up what the SDK says."""
    candidates = [(message.candidates or [])[0] for message in messages]
    parts = [part for c in candidates if c.content for part in c.content.parts or []]
    usage = messages[-1].usage_metadata
    assert usage is not None
    reason = candidates[-1].finish_reason
    return Theirs(
        "".join(part.text or "" for part in parts if not part.thought),
        "".join(part.text or "" for part in parts if part.thought),
        tuple(
            (
                part.function_call.id or "",
                part.function_call.name or "",
                part.function_call.args or {},
            )
            for part in parts
            if part.function_call
        ),
        reason.value if reason else "",
        (
            usage.prompt_token_count or 0,
            (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0),
            usage.cached_content_token_count or 0,
            usage.thoughts_token_count or 0,
        ),
    )


@pytest.mark.sampled(2)
@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_the_sdk_reads_the_same(
    server: Loopback,
    client: genai.Client,
    case: str,
    streams: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Text, thoughts, calls, end and figures agree, whole and streamed."""
    told = spoken(**CASES[case], streams=streams)
    server.handler = lambda _: Answer.sse(told) if streams else as_json(told[0])
    if streams:
        stream = client.models.generate_content_stream(model=OLD, contents="x")
        expected = theirs([*stream])
    else:
        expected = theirs([client.models.generate_content(model=OLD, contents="x")])
    read = ours(server, Request.of("x"), WIRE if streams else WHOLE)
    choice, finish = read.choices[0], read.finish
    assert finish is not None
    usage = finish.usage
    counted = (
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
    )
    if usage.estimated:  # the SDK does not estimate
        counted = expected.usage
    assert expected == Theirs(
        choice.text,
        choice.reasoning,
        tuple((call.id, call.name, json.loads(call.arguments)) for call in choice.tool_calls),
        REASONS[finish.reason],
        counted,
    )


# -- errors ------------------------------------------------------------------------------------

FAILURES: dict[str, tuple[type[our.DispatcherError], type[errors.APIError], int]] = {
    "auth": (our.AuthRejected, errors.ClientError, 400),
    "rate": (our.RateLimited, errors.ClientError, 429),
    "quota": (our.QuotaExhausted, errors.ClientError, 429),
    "overflow": (our.ContextOverflow, errors.ClientError, 400),
    "overloaded": (our.Overloaded, errors.ServerError, 503),
    "missing": (our.ModelNotFound, errors.ClientError, 404),
    "bad": (our.BadRequest, errors.ClientError, 400),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("kind", FAILURES)
def test_errors_agree(
    server: Loopback,
    client: genai.Client,
    kind: str,
    streams: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Where the SDK raises, so do we; and we say which of its few errors it is."""
    server.handler = lambda _: failed(kind)
    mine, class_, code = FAILURES[kind]
    with pytest.raises(class_) as caught:
        if streams:
            _ = [*client.models.generate_content_stream(model=OLD, contents="x")]
        else:
            client.models.generate_content(model=OLD, contents="x")
    assert caught.value.code == code
    with pytest.raises(mine) as raised:
        ours(server, Request.of("x"), WIRE if streams else WHOLE)
    assert getattr(raised.value, "status", code) == code
    if kind == "rate":
        assert isinstance(raised.value, our.RateLimited)
        assert raised.value.retry_after_s == 7


def test_an_error_inside_a_stream(server: Loopback, client: genai.Client) -> None:
    """Both raise behind the text that came."""
    server.handler = lambda _: failed("inside")
    texts = []
    with pytest.raises(errors.APIError) as caught:
        for message in client.models.generate_content_stream(model=OLD, contents="x"):
            texts.append(message.text)  # noqa: PERF401 - the loop raises
    assert texts == ["Hel"]
    assert caught.value.code == 503
    with pytest.raises(our.Overloaded):
        ours(server, Request.of("x"), WIRE)


def test_a_blocked_prompt(server: Loopback, client: genai.Client) -> None:
    """The SDK returns a reply without candidates and says why there; we raise."""
    server.handler = lambda _: failed("filter")
    reply = client.models.generate_content(model=OLD, contents="x")
    assert not reply.candidates
    assert reply.prompt_feedback is not None
    assert reply.prompt_feedback.block_reason == types.BlockedReason.SAFETY
    with pytest.raises(our.ContentRefused):
        ours(server, Request.of("x"), WHOLE)


# -- the rest ----------------------------------------------------------------------------------


def test_vectors_agree(server: Loopback, client: genai.Client) -> None:
    """The same batch asks alike and gives the same vectors."""
    server.handler = lambda _: as_json(vectors(2))
    model = "gemini-embedding-001"
    texts: list[Any] = ["a", "b"]
    reply = client.models.embed_content(model=model, contents=texts)
    request = EmbedRequest(texts=texts, normalize=False)
    (exchange,) = WIRE.exchanges(request, WIRE.card(model))
    got = sent(server, exchange.ask)
    pieces = [*exchange.replies.whole(got.json())]
    found = [[*piece.values] for piece in pieces if isinstance(piece, Vector)]
    assert found == [each.values for each in reply.embeddings or []]
    them, us = server.got
    assert them.path == us.path
    body = them.body
    for each in body["requests"]:
        assert each["content"].pop("role") == "user"  # the SDK says who speaks, to nobody
    assert body == us.body
    finish = exchange.replies.finish()
    assert finish is not None
    assert reply.usage_metadata is not None
    assert finish.usage.prompt_tokens == reply.usage_metadata.prompt_token_count


def test_counts_agree(server: Loopback, client: genai.Client) -> None:
    """The SDK counts turns alone; we count the whole request, at the same place."""
    server.handler = lambda _: Answer.json({"totalTokens": 31})
    reply = client.models.count_tokens(model=OLD, contents="x")
    ask = WIRE.counting(Request.of("x"), WIRE.card(OLD))
    assert ask is not None
    assert WIRE.counted(sent(server, ask).json()) == reply.total_tokens == 31
    them, us = server.got
    assert (them.method, them.path) == (us.method, us.path)
    assert them.body["contents"] == us.body["generateContentRequest"]["contents"]


def test_lists_agree(server: Loopback, client: genai.Client) -> None:
    """Page by page, the same models with the same limits."""
    pages: list[dict[str, Any]] = [{"models": [each]} for each in json.loads(models())["models"]]
    pages[0]["nextPageToken"] = "p 2"

    def page(got: Got) -> Answer:
        return Answer.json(pages["pageToken=p" in got.query])

    server.handler = page
    listed = [*client.models.list(config={"query_base": True})]
    cards: list[ModelCard] = []
    ask = WIRE.listing()
    while ask is not None:
        found = WIRE.listed(sent(server, ask).json())
        cards += found.cards
        ask = found.more
    assert [(f"models/{c.model}", c.context_tokens, c.max_output_tokens) for c in cards] == [
        (model.name, model.input_token_limit, model.output_token_limit) for model in listed
    ]
    queries = [got.query for got in server.got if got.path == "/v1beta/models"]
    assert len(queries) == 4
    health = WIRE.probed(Head(200, {}), sent(server, WIRE.probe()).content)
    assert health.is_ready
