"""Messages that cannot be read: left out where the end proves that nothing is missing, or cuts."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from loopback import Answer, Got, Loopback, events
from openai_responses import answer, call, message, refusal, sse, thoughts
from openai_responses import events as told
from plain_wire import read_answer

from llmdispatcher import (
    VLLM,
    Anthropic,
    AsyncDispatcher,
    BadReply,
    Dispatcher,
    DispatcherError,
    HttpVendor,
    LlamaServer,
    OpenAI,
    Reply,
    Request,
    StreamInterrupted,
)
from llmdispatcher.models.reply import Delta, Finish, Piece
from llmdispatcher.vendors.http.answer import SKIPPED, Reading
from llmdispatcher.vendors.openai.responses_stream import ResponsesReplies
from llmdispatcher.vendors.openai.rows import ROWS
from llmdispatcher.vendors.openai.stream import ChatReplies, Expected
from llmdispatcher.vendors.wire.exchange import Ask, Exchange, Head

RAW = Request(prompt="Count:", max_tokens=6)
WORDS = (" one", " two", " three", " four", " five", " six")
TEXT = "".join(WORDS)
SPOILT = b'data: {"id": "c", "choices": [{"text": "\n\n'
GARBAGE = (SPOILT, b"keepalive\n\n", b"data: \xff\xfe\n\n", b"data: {}}\n\n")
MODEL = "gpt-5.5-pro"
"""Asked at the responses endpoint."""

Heard = tuple[str, Reply | DispatcherError]


@pytest.fixture
def server() -> Iterator[Loopback]:
    """A server whose answer a test sets."""
    with Loopback(lambda _: Answer.json({})) as made:
        yield made


def stream(vendors: Sequence[HttpVendor], asked: Request | str, **options: Any) -> Heard:
    """Return what a reader in a thread saw, and the end."""
    shown: list[str] = []
    with Dispatcher(*vendors) as d, d.stream(asked, **options) as stream:
        try:
            shown.extend(delta.text for delta in stream)
        except DispatcherError as error:
            return "".join(shown), error
        return "".join(shown), stream.reply


def astream(vendors: Sequence[HttpVendor], asked: Request | str, **options: Any) -> Heard:
    """Return what a reader in an event loop saw, and the end."""

    async def main() -> Heard:
        shown: list[str] = []
        async with AsyncDispatcher(*vendors) as d, d.stream(asked, **options) as stream:
            try:
                async for delta in stream:
                    shown.append(delta.text)  # noqa: PERF401 - what came before an error stays
            except DispatcherError as error:
                return "".join(shown), error
            return "".join(shown), stream.reply

    return asyncio.run(main())


Read = Callable[..., Heard]


@pytest.fixture(params=[stream, astream], ids=["sync", "async"])
def read(request: pytest.FixtureRequest) -> Read:
    """Both worlds."""
    made: Read = request.param
    return made


# -- by the number of tokens -------------------------------------------------------------------


def raw(text: str, reason: str | None = None, **more: Any) -> dict[str, Any]:
    """Return an event of a raw prompt, as llama-server has it."""
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": reason}
    return {"id": "c", "object": "text_completion", "choices": [choice], **more}


def end(tokens: int, reason: str = "length") -> dict[str, Any]:
    """Return the last of them."""
    return raw("", reason, usage={"prompt_tokens": 2, "completion_tokens": tokens})


def counted(*, lost: int = 0, tokens: int = len(WORDS), junk: bytes = SPOILT) -> list[bytes]:
    """Return a stream in which something cannot be read, and so many words are lost with it."""
    chunks = events(*map(raw, WORDS), end(tokens))
    return [*chunks[:2], junk, *chunks[2 + lost :]]


def small(server: Loopback) -> HttpVendor:
    """Return the server as llama-server."""
    return LlamaServer(base_url=server.url, models=["m"])


@pytest.mark.parametrize("junk", GARBAGE)
def test_garbage_beside_all_tokens_is_left_out(server: Loopback, read: Read, junk: bytes) -> None:
    """As many tokens were told as pieces came: the reply is whole, and says what happened."""
    server.handler = lambda _: Answer.sse(counted(junk=junk))

    shown, reply = read([small(server)], RAW)

    assert isinstance(reply, Reply), reply
    assert shown == reply.text == TEXT
    assert reply.warnings == (SKIPPED,)


def test_a_lost_token_is_a_cut(server: Loopback, read: Read) -> None:
    """What came is shown and kept, and it is never given as a whole reply."""
    server.handler = lambda _: Answer.sse(counted(lost=1))

    shown, error = read([small(server)], RAW)

    assert isinstance(error, StreamInterrupted)
    assert shown == error.partial == TEXT.replace(" three", "")


@pytest.mark.parametrize(
    "chunks",
    [
        counted(tokens=len(WORDS) + 1),
        [*counted()[:-2], *events(raw("", "length"))],
        [*counted()[:-2], *events(raw("", "length", usage={"prompt_tokens": 2}))],
        # one told too early: the word behind it was lost
        [
            *events(*map(raw, WORDS[:4]), done=False),
            *events(raw(WORDS[4], usage={"prompt_tokens": 2, "completion_tokens": 5}), done=False),
            SPOILT,
            *events(raw("", "length")),
        ],
    ],
    ids=["an end token", "no usage", "no count", "counted too early"],
)
def test_what_the_count_does_not_prove_is_a_cut(
    server: Loopback, read: Read, chunks: list[bytes]
) -> None:
    """A number that differs, is missing or was told before the end proves nothing."""
    server.handler = lambda _: Answer.sse(chunks)

    _, error = read([small(server)], RAW)

    assert isinstance(error, StreamInterrupted)


def test_garbage_and_no_end_is_a_cut(server: Loopback, read: Read) -> None:
    """A stream that ends without a reason is never whole."""
    server.handler = lambda _: Answer.sse(counted()[:-2])

    shown, error = read([small(server)], RAW)

    assert isinstance(error, StreamInterrupted)
    assert "before that" in str(error)
    assert shown == TEXT


def test_a_reply_without_garbage_says_nothing(server: Loopback, read: Read) -> None:
    """The warning is of those that had some; the end token is no matter then."""
    server.handler = lambda _: Answer.sse(counted(junk=b": here\n\n", tokens=7))

    _, reply = read([small(server)], RAW)

    assert isinstance(reply, Reply)
    assert reply.warnings == ()


def test_garbage_alone_is_no_reply(server: Loopback, read: Read) -> None:
    """Nothing was read before it, so the next vendor is asked at once."""
    server.handler = lambda _: Answer.sse([SPOILT, *counted()])

    _, error = read([small(server)], RAW)

    assert isinstance(error, BadReply)


def test_where_nothing_can_be_proved_it_fails_at_once(server: Loopback, read: Read) -> None:
    """A conversation at llama-server, whose parser may make two pieces of a token, and vLLM."""
    told = [{"id": "c", "choices": [{"index": 0, "delta": {"content": w}}]} for w in WORDS]
    last = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
    chunks = events(*told, {**last, "usage": {"prompt_tokens": 2, "completion_tokens": 6}})
    server.handler = lambda _: Answer.sse([*chunks[:2], SPOILT, *chunks[2:]])
    vllm = VLLM(base_url=server.url, models=["m"])

    for vendor in (small(server), vllm):
        shown, error = read([vendor], "Count.")
        assert isinstance(error, StreamInterrupted)
        assert isinstance(error.__cause__, BadReply)
        assert shown == " one two"


# -- by the whole text -------------------------------------------------------------------------

SAID = answer(thoughts(), message("Two compasses, since one fails."))


def at_responses(server: Loopback, **options: Any) -> HttpVendor:
    """Return the server as OpenAI, with a model that only the responses endpoint serves."""
    return OpenAI(base_url=server.url, models=[MODEL], api_key="none", **options)


def spoilt(made: dict[str, Any], at: int, *, lost: int = 0) -> list[bytes]:
    """Return the events of an answer; before a piece of its text is garbage, for pieces or not."""
    chunks = [*told(made)]
    deltas = [n for n, event in enumerate(chunks) if event["type"].endswith(".delta")]
    here = deltas[at]
    return [*sse(chunks[:here]), SPOILT, *sse(chunks[here + lost :])]


@pytest.mark.parametrize("at", [1, 4, -1])
def test_garbage_in_a_text_that_is_repeated_is_left_out(
    server: Loopback, read: Read, at: int
) -> None:
    """The end tells the whole text, and nothing of it is missing."""
    server.handler = lambda _: Answer.sse(spoilt(SAID, at))

    shown, reply = read([at_responses(server)], "Why?")

    assert isinstance(reply, Reply), reply
    assert shown == reply.text == "Two compasses, since one fails."
    assert reply.warnings == (SKIPPED,)


@pytest.mark.parametrize("at", [1, 4, -1])
def test_a_lost_piece_of_a_text_is_a_cut(server: Loopback, read: Read, at: int) -> None:
    """Nothing is shown twice, nothing is made up, and the hole is no part of a whole reply."""
    server.handler = lambda _: Answer.sse(spoilt(SAID, at, lost=1))

    shown, error = read([at_responses(server)], "Why?")

    assert isinstance(error, StreamInterrupted), error
    assert error.partial == shown
    assert len(shown) == len("Two compasses, since one fails.") - (4 if at != -1 else 3)


@pytest.mark.parametrize(
    "made",
    [
        answer(thoughts("I must look."), message("Done, and said.")),
        answer(message("One, ", "two, "), message("three.")),
        answer(message("Let me look.", phase="commentary")),
        answer(message("I look."), call("look", "{}", "call_1")),
        {**SAID, "output": []},
    ],
    ids=["thoughts", "messages", "label", "call", "no output"],
)
def test_what_the_end_does_not_repeat_is_a_cut(
    server: Loopback, read: Read, made: dict[str, Any]
) -> None:
    """Thoughts, calls and labels are not compared, so that nothing is proved of them."""
    begun = {**made, "output": SAID["output"]} if not made["output"] else made
    chunks = spoilt(begun, 1)
    last = {"type": "response.completed", "response": made}
    server.handler = lambda _: Answer.sse([*chunks[:-1], *sse([last])])

    _, error = read([at_responses(server)], "Why?")

    assert isinstance(error, StreamInterrupted), error


def test_a_refusal_is_a_text_too(server: Loopback, read: Read) -> None:
    """It is repeated like one."""
    made = answer(message(refusal("I cannot do that.")))
    server.handler = lambda _: Answer.sse(spoilt(made, 2))

    _, reply = read([at_responses(server)], "Why?")

    assert isinstance(reply, Reply), reply
    assert reply.text == "I cannot do that."


def test_a_dialect_that_repeats_nothing_fails_at_once(server: Loopback, read: Read) -> None:
    """Anthropic's tells no text at the end, and its pieces are no tokens."""
    begun = {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 3}}}
    opened = {"index": 0, "content_block": {"type": "text", "text": ""}}
    made: list[dict[str, Any]] = [begun, {"type": "content_block_start", **opened}]
    piece = {"type": "text_delta", "text": "a"}
    made += [{"type": "content_block_delta", "index": 0, "delta": piece}]
    server.handler = lambda _: Answer.sse([*sse(made), SPOILT, *sse(made[2:])])

    shown, error = read([Anthropic(base_url=server.url, models=["m"], api_key="none")], "Why?")

    assert isinstance(error, StreamInterrupted)
    assert shown == "a"


# -- any of it ---------------------------------------------------------------------------------


def read_all(replies: Any, chunks: Sequence[bytes]) -> list[Piece]:
    """Read a stream as a call does. Raises what comes behind its pieces."""
    asked = Exchange(Ask(path="/x", body={}), replies)
    made = Reading([asked], lambda *_: BadReply("a fault"))
    return read_answer(made, Head(200, {"content-type": "text/event-stream"}), chunks)


def text_of(pieces: Sequence[Piece]) -> str:
    """Return the text of all choices."""
    return "".join(piece.text for piece in pieces if isinstance(piece, Delta))


MIXED = answer(thoughts(), message("One and the other."), call("look", '{"at": "it"}', "call_c"))
STREAMS: dict[str, tuple[Callable[[], Any], list[bytes]]] = {
    "one text": (ResponsesReplies, sse(told(SAID))),
    "thoughts": (ResponsesReplies, sse(told(answer(thoughts("Hm, I see."), message("Done."))))),
    "messages": (ResponsesReplies, sse(told(answer(message("One, ", "two"), message(" three."))))),
    "calls": (ResponsesReplies, sse(told(MIXED))),
    "raw": (
        lambda: ChatReplies(ROWS["llama-server"].ways, Expected(raw=True)),
        events(*map(raw, WORDS), end(len(WORDS))),
    ),
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("count", [1, 2])
def test_no_event_can_be_lost_unseen(name: str, count: int) -> None:
    """Whichever events are spoilt, the reply is what it would have been, or an error."""
    make, chunks = STREAMS[name]
    whole = read_all(make(), chunks)
    proved = 0
    for places in itertools.combinations(range(len(chunks)), count):
        cut = [SPOILT if place in places else chunk for place, chunk in enumerate(chunks)]
        try:
            pieces = read_all(make(), cut)
        except (StreamInterrupted, BadReply):
            continue
        finish = pieces[-1]
        assert isinstance(finish, Finish)
        assert text_of(pieces) == text_of(whole), places
        assert _calls(pieces) == _calls(whole), places
        assert _thoughts(pieces) == _thoughts(whole), places
        assert finish.warnings == (SKIPPED,), places
        proved += 1
    assert proved or name != "one text"


def _calls(pieces: Sequence[Piece]) -> str:
    made = [each for piece in pieces if isinstance(piece, Delta) for each in piece.tool_calls]
    return "".join(each.name + each.arguments for each in made)


def _thoughts(pieces: Sequence[Piece]) -> str:
    return "".join(piece.reasoning for piece in pieces if isinstance(piece, Delta))


# -- and then ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["proof", "cut"])
def test_nobody_goes_on_behind_a_hole(server: Loopback, read: Read, ending: str) -> None:
    """However the stream then broke: the next vendor would continue a text that lacks a part."""

    def handle(got: Got) -> Answer:
        if "responses" not in got.path:
            return Answer.json(
                {"id": "v", "choices": [{"message": {"content": "all"}, "finish_reason": "stop"}]}
            )
        chunks = spoilt(SAID, 4, lost=1)
        return Answer.sse(chunks) if ending == "proof" else Answer.sse(chunks[:-3], cut=True)

    server.handler = handle
    vendors = [at_responses(server, local=True), VLLM(base_url=server.url, models=["v"])]

    shown, error = read(vendors, "Why?", resume="continue")
    assert isinstance(error, StreamInterrupted), error
    assert error.partial == shown
    asked = [got for got in server.got if got.method == "POST"]  # and not how it is
    assert all("responses" in got.path for got in asked)

    shown, reply = read(vendors, "Why?", resume="restart")
    assert isinstance(reply, Reply), reply
    assert reply.text == "all"
    asked = [got for got in server.got if got.method == "POST"]
    assert json.loads(asked[-1].raw)["messages"] == [{"role": "user", "content": "Why?"}]
