"""What every HTTP vendor must do, whatever its dialect: one suite, a row for each preset.

Each runs over real sockets, against a server on this machine that says what the vendor says.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import traceback
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
from http_hosts import ERRORS, HOSTS, KEY, Host
from loopback import Answer, Got, Loopback

from llmdispatcher import (
    AllVendorsFailed,
    AsyncDispatcher,
    Capability,
    Deadlines,
    Dispatcher,
    DispatcherError,
    FinishReason,
    Image,
    Message,
    Reply,
    Scripted,
    StreamInterrupted,
    TimedOut,
    ToolCall,
    VendorError,
    tool,
    user,
)
from llmdispatcher.models.errors import BadReply, Unsupported
from llmdispatcher.vendors.contract import State

TEXT = 'Grüße, 世界 👋 — a reply of some words, with "quotes" and a \\ in it.'
CALL = ToolCall("call_a1", "add", '{"a":1,"b":[2,{"c":"ü"}]}')
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108020000009077"
    "53de0000000c4944415408d763f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)

Where = Callable[[Host], bool]


def of(where: Where) -> pytest.MarkDecorator:
    """Run a test over the vendors that have something; the others have no way to say it."""
    chosen = [host for host in HOSTS if where(host)]
    return pytest.mark.parametrize("host", chosen, ids=lambda host: host.preset, indirect=True)


FAULTS = [
    pytest.param(host, kind, id=f"{host.preset}-{kind}")
    for host in HOSTS
    for kind in ERRORS
    if kind in host.kinds
]

LIVE_S = 20.0
"""A bound on what must happen at once."""


@pytest.fixture(params=HOSTS, ids=lambda host: host.preset)
def host(request: pytest.FixtureRequest) -> Host:
    """Each vendor in turn."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def server(host: Host) -> Iterator[Loopback]:
    """A server that says the usual reply."""
    with Loopback(chatting(host, text=TEXT, usage=(12, 5, 0))) as made:
        yield made


def chatting(host: Host, **reply: Any) -> Callable[[Got], Answer]:
    """Answer probes and loads as a server does that is ready, and requests with a reply."""
    says = host.says(**reply)

    def answer(got: Got) -> Answer:
        return says(got) if is_chat(got) else looks(host, got)

    return answer


def is_chat(got: Got) -> bool:
    """Whether a request asks for a reply or for vectors, and not about the server."""
    body = got.body or {}
    if body.get("max_tokens") == 1:  # LM Studio loads a model when it is asked for a reply
        return False
    return any(name in body for name in ("messages", "contents", "input", "requests"))


def looks(host: Host, got: Got) -> Answer:
    """Answer questions about the server."""
    if got.path.endswith(("/models", "/tags", "/capabilities")) and host.models:
        return Answer(headers={"content-type": "application/json"}, chunks=(host.models,))
    if got.method == "POST":
        return Answer.json({"model": host.model, "done": True, "done_reason": "load"})
    return Answer.json({"status": "ok", "version": "0.33.0", "models": []})


def asked(server: Loopback) -> list[Got]:
    """Return the requests for replies."""
    return [got for got in server.got if is_chat(got)]


def test_a_reply_is_whole_with_its_account(host: Host, server: Loopback) -> None:
    """Text, reason and usage are those that the vendor told, asked for in one."""
    with Dispatcher(host.vendor(server)) as d:
        reply = d.send("Hello.", max_tokens=50)

    assert reply.text == TEXT
    assert reply.finish_reason is FinishReason.STOP
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (12, 5)
    assert not reply.usage.estimated
    assert (reply.vendor, reply.model) == (host.preset, host.model)
    (got,) = asked(server)
    assert "Hello." in json.dumps(got.body)


def test_a_stream_is_the_same_reply_in_pieces(host: Host, server: Loopback) -> None:
    """Pieces, joined, are the text, and usage is told behind them."""
    with Dispatcher(host.vendor(server)) as d:
        stream = d.stream("Hello.", max_tokens=50)
        pieces = [delta.text for delta in stream]

    assert len(pieces) > 1
    assert "".join(pieces) == stream.reply.text == TEXT
    assert (stream.reply.usage.prompt_tokens, stream.reply.usage.completion_tokens) == (12, 5)


def test_event_loops_read_the_same(host: Host, server: Loopback) -> None:
    """What threads get, tasks get, whole and in pieces."""

    async def main() -> tuple[Reply, str]:
        async with AsyncDispatcher(host.vendor(server)) as d:
            reply = await d.send("Hello.", max_tokens=50)
            stream = d.stream("Hello.", max_tokens=50)
            return reply, "".join([delta.text async for delta in stream])

    reply, streamed = asyncio.run(main())
    assert reply.text == streamed == TEXT


@pytest.mark.sampled(2)
def test_a_stream_cut_at_every_byte_reads_the_same(host: Host, server: Loopback) -> None:
    """Where the network cuts a stream means nothing, inside a character neither."""
    body = b"".join(host.spoken(text=TEXT, usage=(12, 5, 0), streams=True))
    server.handler = lambda got: (
        host.answer([body[i : i + 1] for i in range(len(body))], streams=True)
        if is_chat(got)
        else looks(host, got)
    )
    with Dispatcher(host.vendor(server)) as d:
        assert "".join(delta.text for delta in d.stream("Hello.", max_tokens=50)) == TEXT


@pytest.mark.sampled(3)
def test_a_reply_that_is_cut_is_never_whole(host: Host, server: Loopback) -> None:
    """At whichever message a stream ends before its reply does: an error with the text so far."""
    parts = host.spoken(text=TEXT, usage=(12, 5, 0), streams=True)
    ends = [count for count in range(len(parts)) if not ended(host, parts[:count])]
    assert len(ends) > 2
    with Dispatcher(host.vendor(server)) as d:
        for count in ends:
            for cut in (True, False):
                server.handler = cut_off(host, parts[:count], cut=cut)
                stream = d.stream("Hello.", max_tokens=50)
                with pytest.raises(VendorError) as caught:
                    list(stream)
                if stream.partial:
                    assert isinstance(caught.value, StreamInterrupted)
                    assert TEXT.startswith(caught.value.partial)


def ended(host: Host, parts: list[bytes]) -> bool:
    """Whether a reply that stops here says why it ends; usage and end marks may still lack."""
    told = b"".join(parts)
    marks = {
        "anthropic": b'"stop_reason": "end_turn"',
        "gemini": b'"finishReason": "STOP"',
        "ollama": b'"done": true',
    }
    return marks.get(host.preset, b'"finish_reason": "') in told


def cut_off(host: Host, parts: list[bytes], *, cut: bool) -> Callable[[Got], Answer]:
    """Answer with the beginning of a stream, ended properly or not."""
    return lambda got: (
        host.answer(parts, streams=True, cut=cut) if is_chat(got) else looks(host, got)
    )


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
def test_calls_of_tools_are_read(host: Host, server: Loopback, *, streams: bool) -> None:
    """Name and arguments come as they were sent, in pieces or whole, and end the turn."""
    server.handler = chatting(
        host, calls=[(CALL.id, CALL.name, CALL.arguments)], finish="tool_calls", usage=(9, 4, 0)
    )
    with Dispatcher(host.vendor(server, streaming=streams)) as d:
        reply = d.send("Add.", tools=[TOOL], max_tokens=50)

    (call,) = reply.tool_calls
    assert call.name == CALL.name
    assert json.loads(call.arguments) == json.loads(CALL.arguments)
    assert call.id
    assert reply.finish_reason is FinishReason.TOOL_CALLS
    assert "add" in json.dumps(asked(server)[0].body)


def test_the_answer_of_a_tool_goes_back(host: Host, server: Loopback) -> None:
    """The turn with the call and the tool's answer are both sent, in the vendor's own form."""
    turns = [user("Add."), Message("assistant", "", [CALL]), tool(CALL, "It is 42.")]
    with Dispatcher(host.vendor(server)) as d:
        d.send(turns, tools=[TOOL], max_tokens=50)

    told = json.dumps(asked(server)[0].body)
    assert "It is 42." in told
    assert "add" in told


def test_a_schema_is_sent_and_its_reply_parsed(host: Host, server: Loopback) -> None:
    """JSON that was asked for by a schema comes back as Python's own values, from every host.

    One that cannot hold its model to a schema tells the model.
    """
    server.handler = chatting(host, text='{"city": "Oslo"}', usage=(9, 4, 0))
    with Dispatcher(host.vendor(server)) as d:
        reply = d.send("Where?", schema=SCHEMA, max_tokens=50)

    assert reply.parsed == {"city": "Oslo"}
    assert "city" in json.dumps(asked(server)[0].body)


def test_images_are_sent(host: Host, server: Loopback) -> None:
    """Their bytes reach the vendor, where the model sees."""
    with Dispatcher(host.vendor(server)) as d:
        card = d.vendors()[0].cards[0]
        seeing = attrs.evolve(card, capabilities={*card.capabilities, Capability.VISION})
    with Dispatcher(host.vendor(server, models=[seeing])) as d:
        try:
            d.send(user(["What is it?", Image(PNG)]), max_tokens=50)
        except Unsupported:
            assert not asked(server)  # refused before anything was sent
            return

    assert b64encode(PNG).decode() in json.dumps(asked(server)[0].body)


@of(lambda host: host.tells_thoughts)
@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
def test_thoughts_are_told_apart(host: Host, server: Loopback, *, streams: bool) -> None:
    """What a model thinks is no part of its text."""
    server.handler = chatting(host, text="So: 4.", reasoning="Two and two…", usage=(9, 4, 0))
    with Dispatcher(host.vendor(server, streaming=streams)) as d:
        reply = d.send("2+2?", max_tokens=50)

    assert (reply.text, reply.reasoning) == ("So: 4.", "Two and two…")


@of(lambda host: host.tells_cached)
@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
def test_what_was_cached_is_part_of_the_prompt(
    host: Host, server: Loopback, *, streams: bool
) -> None:
    """One meaning for all vendors: the prompt's tokens are all of them, cached ones included."""
    server.handler = chatting(host, text="ok", usage=(100, 4, 64))
    with Dispatcher(host.vendor(server, streaming=streams)) as d:
        usage = d.send("Hi.", max_tokens=50).usage

    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (100, 64, 4)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
def test_a_reply_that_reached_its_limit_says_so(
    host: Host, server: Loopback, *, streams: bool
) -> None:
    """A cut at max_tokens is a reply, and no error."""
    server.handler = chatting(host, text="and then", finish="length", usage=(9, 4, 0))
    with Dispatcher(host.vendor(server, streaming=streams)) as d:
        assert d.send("Go.", max_tokens=4).finish_reason is FinishReason.LENGTH


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("host", "kind"), FAULTS, indirect=["host"])
@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
def test_errors_are_what_they_stand_for(
    host: Host, server: Loopback, kind: str, *, streams: bool
) -> None:
    """Each body of each vendor becomes the same kind of error, without the key in it."""
    fault = host.failed(kind)
    server.handler = lambda got: fault if is_chat(got) else looks(host, got)
    with (
        Dispatcher(host.vendor(server, streaming=streams)) as d,
        pytest.raises(ERRORS[kind]) as caught,
    ):
        d.send("Hi.", max_tokens=50)

    told = "".join(traceback.format_exception(caught.value))
    assert KEY not in told
    if isinstance(caught.value, VendorError):
        assert (caught.value.vendor, caught.value.model) == (host.preset, host.model)


def test_an_error_in_the_middle_of_a_stream_is_one(host: Host, server: Loopback) -> None:
    """With HTTP 200 and a part of the text before it, what was shown is kept."""
    fault = host.failed("inside")
    server.handler = lambda got: fault if is_chat(got) else looks(host, got)
    with Dispatcher(host.vendor(server)) as d:
        stream = d.stream("Hi.", max_tokens=50)
        with pytest.raises(StreamInterrupted) as caught:
            list(stream)

    assert caught.value.partial == stream.partial != ""


def test_a_failure_falls_back_unseen(host: Host, server: Loopback) -> None:
    """Where the next vendor can serve, the caller gets its reply, and the first is on the books."""
    fault = host.failed("overloaded")
    server.handler = lambda got: fault if is_chat(got) else looks(host, got)
    with Dispatcher(host.vendor(server), Scripted("Hello from elsewhere.", price=None)) as d:
        reply = d.send("Hi.", max_tokens=50)

    assert reply.text == "Hello from elsewhere."
    assert [attempt.vendor for attempt in reply.decision.attempts][-1] == "scripted"


@pytest.mark.sampled(3)
@pytest.mark.parametrize("body", [b"", b"<html><title>502</title></html>", b"{", b"[]", b"null"])
@pytest.mark.parametrize("status", [200, 502])
def test_garbage_is_an_error(host: Host, server: Loopback, body: bytes, status: int) -> None:
    """A proxy's page, an empty answer and half a JSON are told, whatever status they come with."""
    kind = "text/html" if body.startswith(b"<") else "application/json"
    garbage = Answer(status=status, headers={"content-type": kind}, chunks=(body,) if body else ())
    server.handler = lambda got: garbage if is_chat(got) else looks(host, got)
    with Dispatcher(host.vendor(server)) as d, pytest.raises(VendorError) as caught:
        d.send("Hi.", max_tokens=50)

    assert "<html>" not in str(caught.value)


@pytest.mark.sampled(3)
def test_a_stream_that_falls_silent_is_late_at_the_instant(host: Host, server: Loopback) -> None:
    """Silence is bounded, and so is a reply whose bytes only drip."""
    parts = host.spoken(text=TEXT, usage=(12, 5, 0), streams=True)
    stuck: list[bytes | float] = [*parts[:3], 30.0]
    dripping: list[bytes | float] = []
    for byte in b"".join(parts):
        dripping += [bytes([byte]), 0.02]
    quick = Deadlines(idle_s=0.3, first_token_s=0.3, total_s=0.6)
    with Dispatcher(host.vendor(server)) as d:
        for chunks in (stuck, dripping):
            silent = host.answer(chunks, streams=True)
            server.handler = lambda got, silent=silent: (  # type: ignore[misc]
                silent if is_chat(got) else looks(host, got)
            )
            began = time.monotonic()
            with pytest.raises((TimedOut, StreamInterrupted)):
                list(d.stream("Hi.", max_tokens=50, deadlines=quick))
            assert time.monotonic() - began < LIVE_S


@of(lambda host: bool(host.models))
def test_models_are_found(host: Host, server: Loopback) -> None:
    """A vendor that was given no models is asked for its list before the first request."""
    with Dispatcher(host.vendor(server, models=())) as d:
        reply = d.send("Hi.", model=host.model, max_tokens=50)
        (vendor,) = d.vendors()

    assert reply.text == TEXT
    assert host.model in {card.model for card in vendor.cards}
    assert vendor.status.state in {State.READY, State.BUSY}


@of(lambda host: host.vectors is not None)
def test_texts_become_vectors(host: Host, server: Loopback) -> None:
    """One vector for each text, in their order, however the vendor sends them."""
    made = host.vectors
    assert made is not None

    def answer(got: Got) -> Answer:
        if not is_chat(got):
            return looks(host, got)
        texts = got.body.get("input") or got.body.get("requests") or []
        head = {"content-type": "application/json"}
        return Answer(headers=head, chunks=(made(len(texts)),))

    server.handler = answer
    with Dispatcher(host.vendor(server, models=[host.embedder])) as d:
        result = d.embed(["a", "b", "c"])

    assert len(result.vectors) == 3
    assert all(abs(sum(x * x for x in vector) - 1) < 1e-5 for vector in result.vectors)
    assert result.usage.prompt_tokens > 0


def test_the_key_goes_where_it_belongs(
    host: Host, server: Loopback, caplog: pytest.LogCaptureFixture
) -> None:
    """Into one header of each request, and into no repr, no log and no address."""
    caplog.set_level(logging.DEBUG)
    vendor = host.vendor(server)
    with Dispatcher(vendor) as d:
        d.send("Hi.", max_tokens=50)
        told = repr(vendor) + str(vendor) + repr(d.vendors()) + repr(d.stats())

    (got,) = asked(server)
    assert sum(KEY in value for value in got.headers.values()) == 1
    assert KEY not in got.path + got.query + told
    assert KEY not in caplog.text


def test_a_redirect_is_not_followed(host: Host, server: Loopback) -> None:
    """Whoever sends us elsewhere does not get the key to go there."""
    with Loopback(chatting(host, text="stolen")) as thief:
        away = Answer(status=307, headers={"location": thief.url + "/v1/chat/completions"})
        server.handler = lambda got: away if is_chat(got) else looks(host, got)
        with Dispatcher(host.vendor(server)) as d, pytest.raises(VendorError):
            d.send("Hi.", max_tokens=50)
        assert not thief.got


@pytest.mark.usefixtures("_ends_are_waited_for")
def test_connections_are_kept(host: Host, server: Loopback) -> None:
    """Requests in a row share one connection, streamed ones too."""
    with Dispatcher(host.vendor(server)) as d:
        for _ in range(5):
            d.send("Hi.", max_tokens=50)
            list(d.stream("Hi.", max_tokens=50))

    assert server.accepted <= 2  # one of them for the probe


def test_a_server_that_is_not_there_is_unreachable(host: Host) -> None:
    """At once, with the way it was looked for."""
    with Loopback(lambda _: Answer.json({})) as gone:
        vendor = host.vendor(gone)
    with Dispatcher(vendor) as d, pytest.raises(DispatcherError) as caught:
        d.send("Hi.", max_tokens=50)

    assert not isinstance(caught.value, AllVendorsFailed | BadReply)
