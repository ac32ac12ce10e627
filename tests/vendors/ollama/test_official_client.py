"""The official client and this dialect, at the same server: what they send and what they read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx2
import ollama
import pytest
from loopback import Answer, Got, Loopback
from replies_of import Read, streamed, whole
from speaking_ollama import (
    ERRORS,
    JSON,
    MODEL,
    answer,
    continued,
    failed,
    models,
    spoken,
    vectors,
)

from llmdispatcher.models.card import ModelCard
from llmdispatcher.models.embedding import EmbedRequest, Vector, Work
from llmdispatcher.models.errors import (
    AuthRejected,
    BadRequest,
    ContextOverflow,
    DispatcherError,
    EngineCrashed,
    ModelNotFound,
    Overloaded,
)
from llmdispatcher.models.form import ToolSpec
from llmdispatcher.models.message import Image, Message, Role, ToolCall, system, tool, user
from llmdispatcher.models.reply import Finish
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.ollama import shows
from llmdispatcher.vendors.ollama.wire import OllamaWire
from llmdispatcher.vendors.wire.exchange import Ask, Head, Site
from llmdispatcher.vendors.wire.reading import parsed

CARD = ModelCard(vendor="ollama", model=MODEL, local=True, capabilities=["chat", "effort"])
CALLS = (("call_a", "add", '{"a":1,"b":"ä"}'), ("call_b", "now", "{}"))
REPLIES: tuple[dict[str, Any], ...] = (
    {"text": "It was 20 °C in Köln 🙂."},
    {"text": "It was", "finish": "length", "usage": (9, 2, 0)},
    {"text": "Yes.", "reasoning": "Let me think … done."},
    {"text": "I look.", "calls": CALLS, "finish": "tool_calls"},
)
STREAMS = pytest.mark.parametrize("streams", [True, False], ids=["lines", "whole"])


@pytest.fixture
def server() -> Iterator[Loopback]:
    """Return a server that answers nothing yet."""
    with Loopback(lambda _: Answer(status=404)) as loopback:
        yield loopback


Client = Any
"""An ``ollama.Client``, whose overloads know ``stream`` only as a literal."""


@pytest.fixture
def client(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """Return the official client of that server."""
    monkeypatch.delenv("OLLAMA_API_KEY", raising=False)
    with ollama.Client(host=server.url, trust_env=False) as made:
        yield made


def wired(*, streams: bool) -> OllamaWire:
    """Return our dialect."""
    return OllamaWire(Site(vendor="ollama", local=True, streaming=streams))


def ask(wire: OllamaWire, url: str, asked: Ask) -> bytes:
    """Send an ask; return the answer. Raises what an error stands for."""
    method = "GET" if asked.body is None else "POST"
    with httpx2.Client(trust_env=False) as http:
        told = http.request(method, url + asked.path, json=asked.body)
    if told.status_code >= 300:
        raise wire.fault(Head(told.status_code, dict(told.headers)), told.content)
    return told.content


def read(url: str, work: Work, *, streams: bool) -> Read:
    """Return what our dialect reads of the only answer to some work."""
    wire = wired(streams=streams)
    (exchange,) = wire.exchanges(work, CARD)
    body = ask(wire, url, exchange.ask)
    if streams:
        return streamed(exchange.replies, [body], lines=True)
    return whole(exchange.replies, body)


def always(made: Answer) -> Callable[[Got], Answer]:
    """Return a handler that gives one answer."""
    return lambda _: made


def joined(told: Any) -> dict[str, Any]:
    """Return what the official client read, streamed or not, as one."""
    parts = [told] if isinstance(told, ollama.ChatResponse) else [*told]
    calls = [call for part in parts for call in part.message.tool_calls or ()]
    return {
        "text": "".join(part.message.content or "" for part in parts),
        "reasoning": "".join(part.message.thinking or "" for part in parts),
        "calls": [(call.function.name, dict(call.function.arguments)) for call in calls],
        "finish": parts[-1].done_reason,
        "usage": (parts[-1].prompt_eval_count, parts[-1].eval_count),
        "model": parts[-1].model,
    }


@STREAMS
@pytest.mark.parametrize("reply", REPLIES)
def test_replies(server: Loopback, client: Client, reply: dict[str, Any], *, streams: bool) -> None:
    """Both read the same text, thoughts, calls, end and figures."""
    server.handler = always(answer(spoken(**reply, streams=streams), streams=streams))
    theirs = joined(client.chat(MODEL, [{"role": "user", "content": "Hi"}], stream=streams))
    ours = read(server.url, Request.of("Hi"), streams=streams)
    (choice,) = ours.choices
    assert ours.finish is not None
    calls = [(call.name, json.loads(call.arguments)) for call in choice.tool_calls]
    usage = ours.finish.usage
    assert theirs == {
        "text": choice.text,
        "reasoning": choice.reasoning,
        "calls": calls,
        "finish": "stop" if calls else choice.finish_reason,  # Ollama says "stop" of calls too
        "usage": (usage.prompt_tokens, usage.completion_tokens),
        "model": ours.finish.served_model,
    }
    assert choice.finish_reason == reply.get("finish", "stop")


@STREAMS
def test_raw_prompts(server: Loopback, client: Client, *, streams: bool) -> None:
    """Both read the same behind a raw prompt."""
    pieces = continued(text="upon a time", finish="length", streams=streams)
    server.handler = always(answer(pieces, streams=streams))
    told = client.generate(MODEL, "Once ", raw=True, stream=streams)
    parts = [told] if isinstance(told, ollama.GenerateResponse) else [*told]
    ours = read(server.url, Request(prompt="Once "), streams=streams)
    assert "".join(part.response or "" for part in parts) == ours.text
    assert ours.choices[0].finish_reason == parts[-1].done_reason


def test_logprobs(server: Loopback, client: Client) -> None:
    """Both read the same log-probabilities."""
    near = [{"token": "A", "logprob": -0.1, "bytes": [65]}, {"token": "B", "logprob": -3.5}]
    told = json.loads(spoken(text="A", streams=False)[0])
    told["logprobs"] = [{**near[0], "top_logprobs": near}]
    server.handler = always(Answer.json(told))
    theirs = client.chat(MODEL, [], logprobs=True, top_logprobs=2).logprobs
    ours = read(server.url, Request.of("Hi", logprobs=2), streams=False).choices[0].logprobs
    assert [
        (each.token, each.logprob, [(top.token, top.logprob) for top in each.top_logprobs or ()])
        for each in theirs or ()
    ] == [(e.token, e.logprob, [(top.token, top.logprob) for top in e.top]) for e in ours]


def test_embeddings(server: Loopback, client: Client) -> None:
    """Both read the same vectors and figures."""
    server.handler = always(Answer(headers=JSON, chunks=(vectors(3),)))
    theirs = client.embed(MODEL, ["a", "b", "c"], truncate=False)
    wire = wired(streams=True)
    (exchange,) = wire.exchanges(EmbedRequest(texts=("a", "b", "c")), CARD)
    pieces = [*exchange.replies.whole(parsed(ask(wire, server.url, exchange.ask)))]
    ours = [piece.values for piece in pieces if isinstance(piece, Vector)]
    assert [pytest.approx([*row]) for row in theirs.embeddings] == [[*row] for row in ours]
    finish = exchange.replies.finish()
    assert isinstance(finish, Finish)
    assert finish.usage.prompt_tokens == theirs.prompt_eval_count
    theirs_sent, ours_sent = (got.body for got in server.got)
    assert ours_sent == theirs_sent


def test_models(server: Loopback, client: Client) -> None:
    """Both read the same list of models."""
    server.handler = always(Answer(headers=JSON, chunks=(models(),)))
    theirs = client.list().models
    wire = wired(streams=True)
    listing = wire.listing()
    assert listing is not None
    ours = wire.listed(parsed(ask(wire, server.url, listing))).cards
    assert [(each.model, each.size) for each in theirs] == [(c.model, c.size_bytes) for c in ours]
    asked, again = server.got
    assert (again.method, again.path) == (asked.method, asked.path)


def test_loaded_models(server: Loopback, client: Client) -> None:
    """Both read the same of what is loaded."""
    row = {
        "name": MODEL,
        "model": MODEL,
        "size": 100,
        "size_vram": 60,
        "context_length": 4096,
        "expires_at": "2026-08-21T18:48:22.123456Z",
    }
    server.handler = always(Answer.json({"models": [row]}))
    (theirs,) = client.ps().models
    (ours,) = shows.loaded(parsed(ask(wired(streams=True), server.url, Ask(path=shows.LOADED))))
    assert (theirs.model, theirs.context_length, theirs.expires_at) == (
        ours.model,
        ours.context_tokens,
        ours.expires_at,
    )
    assert (theirs.size, theirs.size_vram) == (ours.size_bytes, ours.vram_bytes)
    assert server.got[0].path == server.got[1].path


# -- errors ------------------------------------------------------------------------------------

KINDS: dict[str, type[DispatcherError]] = {
    "auth": AuthRejected,
    "overflow": ContextOverflow,
    "overloaded": Overloaded,
    "missing": ModelNotFound,
    "bad": BadRequest,
}
"""What each error is here; to the official client all are ResponseError."""


@STREAMS
@pytest.mark.parametrize("kind", KINDS)
def test_errors(server: Loopback, client: Client, kind: str, *, streams: bool) -> None:
    """Where the client raises its one error, we raise what it stands for, of the same status."""
    server.handler = always(failed(kind))
    with pytest.raises(ollama.ResponseError) as theirs:
        joined(client.chat(MODEL, [], stream=streams))
    with pytest.raises(DispatcherError) as ours:
        read(server.url, Request.of("Hi"), streams=streams)
    assert type(ours.value) is KINDS[kind]
    assert theirs.value.status_code == ERRORS[kind][0]
    assert getattr(ours.value, "status", None) == theirs.value.status_code


def test_errors_inside(server: Loopback, client: Client) -> None:
    """Both raise an error that comes behind the first piece."""
    server.handler = always(failed("inside"))
    with pytest.raises(ollama.ResponseError, match="unexpected EOF"):
        joined(client.chat(MODEL, [], stream=True))
    with pytest.raises(EngineCrashed, match="unexpected EOF"):
        read(server.url, Request.of("Hi"), streams=True)


# -- what is sent ------------------------------------------------------------------------------

OURS_ALONE = {
    "truncate": "the client has no word for it, and prompts would be cut silently",
    "shift": "as truncate, for replies",
}
THEIRS_ALONE = {
    "tools": "it sends an empty list for none",
    "suffix": "it sends an empty text for none",
    "system": "as suffix",
    "template": "as suffix",
}
"""Why what is sent may differ; all else must be alike."""

ADD = ToolSpec("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}})
TOOL = {
    "type": "function",
    "function": {"name": "add", "description": "Adds.", "parameters": dict(ADD.parameters)},
}
HI = [{"role": "user", "content": "Hi"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


@pytest.mark.parametrize(
    ("request_", "theirs"),
    [
        (Request.of("Hi"), {"messages": HI}),
        (
            Request.of([system("S"), user("Hi")], temperature=0.5, seed=3, max_tokens=9, stop="x"),
            {
                "messages": [{"role": "system", "content": "S"}, *HI],
                "options": {"temperature": 0.5, "seed": 3, "num_predict": 9, "stop": ["x"]},
            },
        ),
        (Request.of("Hi", tools=[ADD]), {"messages": HI, "tools": [TOOL]}),
        (Request.of("Hi", schema=SCHEMA), {"messages": HI, "format": SCHEMA}),
        (Request.of("Hi", reasoning=False), {"messages": HI, "think": False}),
        (Request.of("Hi", effort="max"), {"messages": HI, "think": "max"}),
        (
            Request.of("Hi", logprobs=4),
            {"messages": HI, "logprobs": True, "top_logprobs": 4},
        ),
        (
            Request.of([user(["Hi", Image(data=b"\x89PNG")])]),
            {"messages": [{**HI[0], "images": [b"\x89PNG"]}]},
        ),
    ],
)
def test_conversations_that_are_sent(
    server: Loopback, client: Client, request_: Request, theirs: dict[str, Any]
) -> None:
    """For an equal conversation both send the same, but for what the table allows."""
    server.handler = always(answer(spoken(text="A", streams=False), streams=False))
    client.chat(MODEL, **theirs)
    read(server.url, request_, streams=False)
    assert_alike(server)


@pytest.mark.parametrize(
    ("request_", "theirs"),
    [
        (Request(prompt="Once"), {"prompt": "Once", "raw": True, "think": False}),
        (
            Request(prompt="a(", suffix=")b"),
            {"prompt": "a(", "suffix": ")b", "think": False},
        ),
    ],
)
def test_prompts_that_are_sent(
    server: Loopback, client: Client, request_: Request, theirs: dict[str, Any]
) -> None:
    """For an equal prompt both send the same, but for what the table allows."""
    server.handler = always(answer(continued(text="A", streams=False), streams=False))
    client.generate(MODEL, **theirs)
    read(server.url, request_, streams=False)
    assert_alike(server, {"raw": False})


def test_calls_that_are_sent_back(server: Loopback, client: Client) -> None:
    """A turn with calls is the client's, with the ids that it has no field for."""
    server.handler = always(answer(spoken(text="A", streams=False), streams=False))
    turn = Message(Role.ASSISTANT, "", [ToolCall("c1", "add", '{"a":1}')], reasoning="Hm.")
    client.chat(
        MODEL,
        [
            *HI,
            {
                "role": "assistant",
                "content": "",
                "thinking": "Hm.",
                "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}],
            },
            {"role": "tool", "content": "2", "tool_name": "add"},
        ],
    )
    read(server.url, Request.of([user("Hi"), turn, tool("c1", "2")]), streams=False)
    theirs, ours = ([*got.body["messages"]] for got in server.got)
    (call,) = ours[1]["tool_calls"]
    assert (call.pop("id"), call["function"].pop("index")) == ("c1", 0)
    assert ours[2].pop("tool_call_id") == "c1"
    assert ours[1].pop("content") == ""  # it leaves out empty texts
    assert ours == theirs


def assert_alike(server: Loopback, defaults: Mapping[str, Any] | None = None) -> None:
    """Compare the only two bodies that were sent, theirs first, without what the table allows."""
    theirs, ours = (got.body for got in server.got)
    assert [got.path for got in server.got] == [server.got[0].path] * 2
    left_out = {"tools": [], "suffix": "", "system": "", "template": "", **(defaults or {})}
    for name, empty in left_out.items():
        if name not in ours and name in theirs:
            assert theirs.pop(name) == empty
            assert name in {*THEIRS_ALONE, *(defaults or {})}
    assert {name: value for name, value in ours.items() if name not in OURS_ALONE} == theirs
