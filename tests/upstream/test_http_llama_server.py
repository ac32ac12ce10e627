"""The preset for llama-server against a real one: what only it can do, and what becomes of it.

Forms, tools, log-probabilities, choices, raw prompts, vectors and scores; and a server that loads,
that is left in the middle, that dies and comes back.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from embedding_gguf import RANK, encoder
from real_servers import KEY, MODEL, WAIT_S, RealServer, llama_server, slots, until
from upstream import loading
from upstream.variants import STRETCHED_TOKENS, stretched

from llmdispatcher import (
    Anthropic,
    AsyncDispatcher,
    AuthRejected,
    Deadlines,
    Dispatcher,
    FinishReason,
    HttpVendor,
    LlamaServer,
    OpenAICompatible,
    Reply,
    Request,
    ResponseFormat,
    Sampling,
    Scripted,
    StreamInterrupted,
    ToolCall,
    Unreachable,
    assistant,
    tool,
    user,
)
from llmdispatcher.models.errors import DispatcherError, VendorError
from llmdispatcher.vendors.contract import State

pytestmark = pytest.mark.upstream

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"enum": [2]}, "b": {"enum": ["ü"]}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Zürich"]}, "yes": {"type": "boolean"}},
    "required": ["city", "yes"],
    "additionalProperties": False,
}

SAMPLING = Sampling(
    temperature=0.5,
    top_k=7,
    top_p=0.75,
    min_p=0.25,
    typical_p=0.5,
    repeat_penalty=1.5,
    repeat_last_n=9,
    presence_penalty=0.5,
    frequency_penalty=0.25,
    dry_multiplier=0.5,
    dry_base=2.0,
    dry_allowed_length=3,
    xtc_probability=0.125,
    xtc_threshold=0.375,
    seed=11,
)
"""Numbers that 32 bits hold exactly."""

LONG_TOKENS = 3000
"""Of a reply that takes some seconds, and is not read to its end."""

TEMPLATE = "meetkai-functionary-medium-v3.2.jinja"
"""One that knows tools, and begins with the call: others leave room for any text before it."""

UNDECIDED = ("--temp", "2", "--top-k", "0", "--top-p", "1", "--min-p", "0")
"""Nothing that the form allows is left out, however little the model thinks of it."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """llama-server with the embedded model."""
    with llama_server(tmp_path_factory.mktemp("llama")) as made:
        yield made


@pytest.fixture
def slow(tmp_path: Path, slow_model: Path) -> Iterator[RealServer]:
    """The same with a model whose replies take seconds, and do not end by chance before."""
    with llama_server(tmp_path, slow_model, "--ctx-size", str(4 * 4096), "--ignore-eos") as made:
        yield made


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def streams(request: pytest.FixtureRequest) -> bool:
    """Whether replies are asked for in pieces."""
    return request.param  # type: ignore[no-any-return]


def at(server: RealServer, **options: Any) -> HttpVendor:
    """Make the vendor."""
    return LlamaServer(**{"base_url": server.url, "api_key": KEY, **options})


def send(server: RealServer, prompt: Any, *, streams: bool, **options: Any) -> Reply:
    """Ask without chance."""
    with Dispatcher(at(server, streaming=streams)) as d:
        return d.send(prompt, temperature=0, **options)


# -- what can be asked for ---------------------------------------------------------------------


def test_a_schema_is_kept_to(server: RealServer, *, streams: bool) -> None:
    """What comes back follows it, and is Python's own values; JSON of any form is JSON."""
    reply = send(server, QUESTION, streams=streams, schema=SCHEMA, max_tokens=300)
    assert reply.parsed["city"] in {"Oslo", "Zürich"}
    assert isinstance(reply.parsed["yes"], bool)
    assert json.loads(reply.text) == reply.parsed
    any_form = send(
        server, QUESTION, streams=streams, response_format=ResponseFormat("json"), max_tokens=200
    )
    assert isinstance(any_form.parsed, dict)


def test_a_grammar_is_kept_to(server: RealServer, *, streams: bool) -> None:
    """Whatever the model would say, it says what the grammar allows."""
    rules = ResponseFormat("grammar", grammar='root ::= "yes" | "no"')
    reply = send(server, QUESTION, streams=streams, response_format=rules, max_tokens=20)
    assert reply.text in {"yes", "no"}


def test_a_prefill_is_continued(server: RealServer, *, streams: bool) -> None:
    """The reply goes on where it was begun, and does not repeat it."""
    reply = send(server, QUESTION, streams=streams, prefill="The capital")
    assert reply.text == ANSWER.removeprefix("The capital")


def test_a_raw_prompt_is_continued(server: RealServer, *, streams: bool) -> None:
    """Without a template, and counted without one."""
    prompt = Request(prompt="The capital of France is")
    reply = send(server, prompt, streams=streams, max_tokens=8)
    with Dispatcher(at(server)) as d:
        count = d.count_tokens(prompt)

    assert reply.text.startswith(" Paris")
    assert (count.tokens, count.estimated) == (reply.usage.prompt_tokens, False)


def test_choices_are_drawn_from_one_prompt(server: RealServer, *, streams: bool) -> None:
    """Each is whole; what all used is added up, or marked as a guess where only one is told."""
    one = send(server, QUESTION, streams=streams)
    three = send(server, QUESTION, streams=streams, n=3)

    assert [choice.text for choice in three.choices] == [ANSWER] * 3
    assert {choice.finish_reason for choice in three.choices} == {FinishReason.STOP}
    assert three.usage.prompt_tokens == one.usage.prompt_tokens
    assert three.usage.completion_tokens == 3 * one.usage.completion_tokens
    assert three.usage.estimated is not streams


def test_probabilities_of_tokens_are_told(server: RealServer) -> None:
    """Of every token that has text, the same whole and streamed; the end is told in one alone."""
    whole = send(server, QUESTION, streams=False, logprobs=2)
    pieces = send(server, QUESTION, streams=True, logprobs=2)

    texts = "".join(token.token for token in pieces.logprobs)
    assert texts == ANSWER
    assert [t.token for t in whole.logprobs[: len(pieces.logprobs)]] == [
        t.token for t in pieces.logprobs
    ]
    for one, other in zip(whole.logprobs, pieces.logprobs, strict=False):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
        assert len(one.top) == len(other.top) == 2
    assert len(whole.logprobs) == whole.usage.completion_tokens


def test_parameters_of_sampling_are_taken(server: RealServer) -> None:
    """All that llama.cpp knows reach it: the server tells what it drew with."""
    drawn = attrs.asdict(SAMPLING)
    with Dispatcher(at(server)) as d:
        d.send(Request(messages=QUESTION, max_tokens=2, sampling=SAMPLING))
    told = [slot["params"] for slot in server.ask("/slots")[1] if slot.get("params")]

    assert any(all(params[name] == value for name, value in drawn.items()) for params in told)


# -- tools -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def able(tmp_path_factory: pytest.TempPathFactory, llama_cpp_sources: Path) -> Iterator[RealServer]:
    """llama-server with a template that knows tools, and room for what that says of them."""
    folder = tmp_path_factory.mktemp("tools")
    template = llama_cpp_sources / "models" / "templates" / TEMPLATE
    flags = ("--chat-template-file", str(template), "--ctx-size", str(4 * STRETCHED_TOKENS))
    with llama_server(folder, stretched(folder), *flags, *UNDECIDED) as made:
        yield made


@pytest.mark.parametrize("preset", [LlamaServer, OpenAICompatible, Anthropic])
def test_a_demanded_call_comes(able: RealServer, preset: Any, *, streams: bool) -> None:
    """With arguments that keep to the schema, whole or in pieces, in every dialect."""
    vendor = preset(base_url=able.url, api_key=KEY, models=[str(MODEL)], streaming=streams)
    # the template lets a model write before it calls, and one that knows no tools may never end:
    # its text is cut then, or a call with much white space in it; it may also call twice
    with Dispatcher(vendor) as d:
        asked: dict[str, Any] = {"tools": [ADD], "tool_choice": "required", "max_tokens": 100}
        for _ in range(200):
            reply = d.send("Add.", **asked)
            ended = reply.finish_reason is FinishReason.TOOL_CALLS
            if ended and len(reply.tool_calls) == 1:
                break

    assert len(reply.tool_calls) == 1, reply
    call = reply.tool_calls[0]
    assert (call.name, json.loads(call.arguments)) == ("add", {"a": 2, "b": "ü"})
    assert call.id
    assert reply.finish_reason is FinishReason.TOOL_CALLS
    assert not reply.usage.estimated


@pytest.mark.parametrize("preset", [LlamaServer, OpenAICompatible, Anthropic])
def test_what_a_tool_answered_goes_back(able: RealServer, preset: Any) -> None:
    """The turn with the call and the answer both reach the template: the prompt is longer."""
    call = ToolCall("call_1", "add", '{"a": 2, "b": "ü"}')
    talk = [user("Add."), attrs.evolve(assistant(""), tool_calls=[call]), tool(call, "It is 42.")]
    vendor = preset(base_url=able.url, api_key=KEY, models=[str(MODEL)])
    asked: dict[str, Any] = {"tools": [ADD], "tool_choice": "required", "max_tokens": 20}
    with Dispatcher(vendor) as d:
        sizes = [d.send(talk[:n], **asked).usage.prompt_tokens for n in (1, 3)]

    assert sizes[1] > sizes[0] + 10


# -- vectors and scores ------------------------------------------------------------------------


def test_texts_become_vectors_and_scores(tmp_path: Path) -> None:
    """More of them than go into one request, in their order, of length 1 or as they are made."""
    texts = [f"text {number} " * (1 + number % 5) for number in range(70)]
    path = encoder(tmp_path / "embed.gguf")
    with (
        llama_server(tmp_path, path, "--embeddings") as server,
        Dispatcher(at(server)) as d,
    ):
        made = d.embed(texts)
        raw = d.embed(texts[:2], normalize=False)
        alone = d.embed([texts[-1]])

    assert len(made.vectors) == 70
    assert sum(x * x for x in made.vectors[3]) == pytest.approx(1, abs=1e-4)
    assert made.vectors[-1] == pytest.approx(alone.vectors[0], abs=1e-3)
    assert sum(x * x for x in raw.vectors[0]) != pytest.approx(1, abs=1e-2)
    assert made.usage.prompt_tokens > 70

    ranker = encoder(tmp_path / "rank.gguf", pooling=RANK, head=("cls", "cls.output"))
    with (
        llama_server(tmp_path, ranker, "--reranking") as server,
        Dispatcher(at(server, models=["reranker"])) as d,
    ):
        ranked = d.rerank("a panda", texts[:40])
    assert sorted(ranked.order) == list(range(40))


# -- its life ----------------------------------------------------------------------------------


def test_a_server_that_loads_is_waited_for(tmp_path: Path) -> None:
    """Asked while it reads its model, it is no failure: the load is waited for, and told apart."""
    replies: list[Reply] = []
    with (
        loading.held(tmp_path) as server,
        Dispatcher(at(server, models=["any"])) as d,
        Dispatcher(at(server)) as other,
    ):
        asking = threading.Thread(
            target=lambda: replies.append(d.send(Request(prompt="tata"), max_tokens=2))
        )
        asking.start()
        until(lambda: "llmdispatcher-load" in {thread.name for thread in threading.enumerate()})
        time.sleep(0.1)
        loading.go_on(server)
        asking.join(WAIT_S)
        assert replies[0].decision.attempts[0].load_s > 0.05
        model = other.send(Request(prompt="tata"), max_tokens=2).model
        assert model == str(tmp_path / loading.HEAVY)
        assert d.vendors()[0].status.state in {State.READY, State.BUSY}


def test_a_load_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    """By the caller alone, after as long as was said."""
    with loading.held(tmp_path) as server, Dispatcher(at(server, models=["any"])) as d:
        with pytest.raises(VendorError, match="load"):
            d.send(Request(prompt="tata"), max_tokens=2, deadlines=Deadlines(load_s=0.05))
        loading.go_on(server)
        assert d.send(Request(prompt="tata"), max_tokens=2).text


@pytest.mark.parametrize("preset", [LlamaServer, OpenAICompatible, Anthropic])
def test_whoever_stops_reading_frees_the_slot(slow: RealServer, preset: Any) -> None:
    """The connection is closed, which is how the server learns of it; threads and tasks.

    It learns of it only where it sends pieces: a reply that is made in one is made to its end.
    """
    vendor = preset(base_url=slow.url, api_key=KEY, models=["any"], streaming=True)

    async def tasks() -> None:
        async with AsyncDispatcher(vendor) as d:
            stream = d.stream("Go.", max_tokens=LONG_TOKENS)
            await anext(aiter(stream))
            whole = asyncio.create_task(d.send("Go.", max_tokens=LONG_TOKENS))
            await asyncio.to_thread(until, lambda: slots(slow) == 2)
            await stream.close()
            whole.cancel()
            await asyncio.gather(whole, return_exceptions=True)
            await asyncio.to_thread(until, lambda: slots(slow) == 0)

    with Dispatcher(vendor) as d:
        with d.stream("Go.", max_tokens=LONG_TOKENS) as stream:
            next(stream)
            assert slots(slow) == 1
        until(lambda: slots(slow) == 0)
    asyncio.run(tasks())


def test_a_server_that_dies_in_a_stream_is_an_error(slow: RealServer) -> None:
    """With the text so far; the next request goes to the next vendor, and back when it serves."""
    with Dispatcher(at(slow, models=["any"]), Scripted("From elsewhere.", price=None)) as d:
        stream = d.stream("Go.", max_tokens=LONG_TOKENS)
        seen = "".join(next(stream).text for _ in range(5))
        slow.kill()
        with pytest.raises(StreamInterrupted) as caught:
            for delta in stream:
                seen += delta.text
        assert caught.value.partial == stream.partial == seen
        reply = d.send("Go.", max_tokens=3)
        assert (reply.text, reply.vendor) == ("From elsewhere.", "scripted")

        slow.start()
        slow.ready()
        assert d.send("Go.", max_tokens=3, vendor="llama-server").vendor == "llama-server"


def test_a_server_that_dies_in_a_whole_reply_is_made_good(slow: RealServer) -> None:
    """Nothing was shown yet: the next vendor answers, and the books have both."""
    replies: list[Reply | DispatcherError] = []
    with Dispatcher(at(slow, models=["any"]), Scripted("From elsewhere.", price=None)) as d:
        asking = threading.Thread(
            target=lambda: replies.append(d.send("Go.", max_tokens=LONG_TOKENS))
        )
        asking.start()
        until(lambda: slots(slow) == 1)
        slow.kill()
        asking.join(WAIT_S)

    (reply,) = replies
    assert isinstance(reply, Reply)
    assert reply.text == "From elsewhere."
    assert [attempt.vendor for attempt in reply.decision.attempts] == ["llama-server", "scripted"]


def test_a_server_that_is_away_is_told(slow: RealServer) -> None:
    """By the address's vendor, at once, and as long as it is away."""
    slow.kill()
    with Dispatcher(at(slow, models=["any"])) as d:
        for _ in range(2):
            with pytest.raises(Unreachable):
                d.send("Go.", max_tokens=3)
        slow.start()
        slow.ready()
        assert d.send("Go.", max_tokens=3).text


def test_keys_come_from_the_environment(
    server: RealServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the variable that llama-server itself reads, or from one that is named."""
    monkeypatch.setenv("LLAMA_API_KEY", KEY)
    with Dispatcher(LlamaServer(base_url=server.url)) as d:
        assert d.send(QUESTION, temperature=0).text == ANSWER
    monkeypatch.setenv("OWN_KEY", "sk-wrong")
    with (
        Dispatcher(LlamaServer(base_url=server.url, api_key_env="OWN_KEY", models=["any"])) as d,
        pytest.raises(AuthRejected),
    ):
        d.send(QUESTION)
