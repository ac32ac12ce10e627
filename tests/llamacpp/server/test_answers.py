"""What a supervised server answers: how its replies are read, and what its errors stand for."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdispatcher.models.errors import (
    AuthRejected,
    BadReply,
    BadRequest,
    ContextOverflow,
    DispatcherError,
    InvalidGrammar,
    OutOfMemory,
    Overloaded,
    Unsupported,
    VendorError,
)
from llmdispatcher.models.reply import (
    CallDelta,
    Delta,
    Finish,
    FinishReason,
    Piece,
    Progress,
    TokenLogprob,
    Usage,
)
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.http.answer import Reading
from llmdispatcher.vendors.llamacpp.server import faults
from llmdispatcher.vendors.llamacpp.server.wire import Abilities, asked
from llmdispatcher.vendors.wire.exchange import Ask, Head

STREAM = Head(200, {"content-type": "text/event-stream"})
PLAIN = Request.of("x" * 80)


def event(message: Any) -> bytes:
    """Write a message as a server does."""
    return b"data: " + json.dumps(message, ensure_ascii=False).encode() + b"\n\n"


def chunk(delta: dict[str, Any], index: int = 0, reason: str | None = None, **more: Any) -> bytes:
    """Write a piece of a reply."""
    return event({"choices": [{"index": index, "delta": delta, "finish_reason": reason}], **more})


def begun(request: Request = PLAIN) -> Reading:
    """Begin to read the answer to a request."""
    exchanges = asked(request, Abilities(slots=4), "m").exchanges
    reading = Reading(exchanges, lambda head, body: faults.of_answer(head, body, reading.ask))
    reading.begin(STREAM)
    return reading


def read(data: list[bytes], request: Request = PLAIN) -> list[Piece]:
    """Read chunks of a stream to its end."""
    reading, pieces = begun(request), []
    for part in data:
        pieces += reading.feed(part)
        reading.check()
    return [*pieces, *reading.end()]


USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 2},
}
WHOLE = b"".join(
    (
        event({"choices": [], "prompt_progress": {"total": 5, "processed": 3, "cache": 2}}),
        chunk({"role": "assistant", "content": None}),
        chunk({"reasoning_content": "Hm."}),
        chunk({"content": "Zürich"}),
        chunk({"content": " 日本\u2028\r"}),
        chunk({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "add"}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
        chunk({}, reason="tool_calls"),
        event({"choices": [], "usage": USAGE}),
        b"data: [DONE]\n\n",
    )
)
EXPECTED: list[Piece] = [
    Progress("prompt", 3, 5),
    Delta("", reasoning="Hm."),
    Delta("Zürich"),
    Delta(" 日本\u2028\r"),
    Delta("", tool_calls=(CallDelta(0, "c", "add"),)),
    Delta("", tool_calls=(CallDelta(0, arguments="{}"),)),
    Finish(
        FinishReason.TOOL_CALLS,
        Usage(prompt_tokens=5, completion_tokens=7, cached_tokens=2),
    ),
]


@given(st.lists(st.integers(0, len(WHOLE)), max_size=40))
def test_however_it_is_cut_it_reads_the_same(cuts: list[int]) -> None:
    """The pieces do not depend on how the stream is cut into chunks."""
    edges = [0, *sorted(cuts), len(WHOLE)]
    assert read([WHOLE[a:b] for a, b in pairwise(edges)]) == EXPECTED


def test_what_is_used_is_counted_while_it_comes() -> None:
    """The prompt is as long as the server says before the end, and each piece is a token."""
    reading = begun()
    reading.feed(event({"choices": [], "prompt_progress": {"total": 9, "processed": 3}}))
    for _ in range(2):
        reading.feed(chunk({"content": "a word of many letters"}))
    used = reading.usage()
    assert (used.prompt_tokens, used.completion_tokens, used.estimated) == (9, 2, True)


def test_choices_are_counted_once_each() -> None:
    """A prompt that choices share is counted once, and what they say is summed."""
    data = [
        chunk({"content": "a"}, 1),
        chunk({"content": "b"}, 0),
        chunk({}, 1, "length"),
        event({"choices": [], "usage": USAGE}),
        chunk({}, 0, "stop"),
        event({"choices": [], "usage": USAGE}),
    ]
    *pieces, finish = read(data, attrs.evolve(PLAIN, n=2))
    assert [piece.index for piece in pieces if isinstance(piece, Delta)] == [1, 0]
    assert isinstance(finish, Finish)
    assert (finish.reason, finish.others) == (FinishReason.STOP, (FinishReason.LENGTH,))
    assert (finish.usage.prompt_tokens, finish.usage.completion_tokens) == (5, 14)


def test_logprobs_are_whole_tokens() -> None:
    """A token that was cut at a stop string is told whole, as it is among its neighbours."""
    token = {
        "id": 9,
        "token": " ",
        "bytes": [32],
        "logprob": -0.5,
        "top_logprobs": [
            {"id": 4, "token": "\ufffd", "bytes": [195], "logprob": -2},
            {"id": 9, "token": " f", "bytes": [32, 102], "logprob": -0.5},
        ],
    }
    told = {"index": 0, "delta": {"content": " "}, "logprobs": {"content": [token]}}
    data = [event({"choices": [told]}), chunk({}, reason="stop")]
    first = TokenLogprob(" f", b" f", -0.5)
    pieces = read(data, attrs.evolve(PLAIN, logprobs=1))
    assert pieces[0] == Delta(" ", 0, (TokenLogprob(" f", b" f", -0.5, (first,)),))
    assert read(data)[0] == Delta(" ")
    lone = {**token, "top_logprobs": []}
    told["logprobs"] = {"content": [lone]}
    (piece, _) = read([event({"choices": [told]}), data[1]], attrs.evolve(PLAIN, logprobs=0))
    assert piece == Delta(" ", 0, (TokenLogprob(" ", b" ", -0.5),))


# -- errors ------------------------------------------------------------------------------------

ASK = Ask(path="/chat/completions", body={})
FORMED = Ask(path="/chat/completions", body={"grammar": "root ::= x"})

ERRORS: list[tuple[int, Any, Ask, type[DispatcherError]]] = [
    (
        400,
        {"type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 8},
        ASK,
        ContextOverflow,
    ),
    (
        400,
        {
            "type": "exceed_context_size_error",
            "message": "request (9 tokens) exceeds the available context size (8 tokens)",
        },
        ASK,
        ContextOverflow,
    ),
    (
        500,
        {"message": "input (9 tokens) is too large to process. batch size: 8"},
        ASK,
        ContextOverflow,
    ),
    (400, {"message": "failed to parse grammar"}, FORMED, InvalidGrammar),
    (400, {"message": "JSON schema error at #"}, FORMED, InvalidGrammar),
    (400, {"message": "Unresolved $ref #/x"}, FORMED, InvalidGrammar),
    (400, {"message": "Unresolved $ref #/x"}, ASK, BadRequest),
    (400, {"message": "'messages' is required"}, FORMED, BadRequest),
    (400, {"message": "Cannot use custom grammar constraints with tools."}, FORMED, Unsupported),
    (500, {"message": "Cannot use both json_schema and grammar"}, FORMED, Unsupported),
    (401, {"message": "Invalid API Key", "type": "authentication_error"}, ASK, AuthRejected),
    (404, {"message": "File Not Found"}, ASK, Unsupported),
    (500, {"message": "image input is not supported"}, ASK, Unsupported),
    (500, {"message": "Context size has been exceeded."}, ASK, Overloaded),
    (500, {"message": "failed to find room in the KV cache"}, ASK, Overloaded),
    (500, {"message": "std::bad_alloc"}, ASK, OutOfMemory),
    (500, {"message": "Compute error."}, ASK, BadReply),
    (501, {"message": "This server does not support embeddings."}, ASK, Unsupported),
    (503, {"message": "Loading model", "type": "unavailable_error"}, ASK, Overloaded),
]


def answered(status: int, body: bytes, ask: Ask = ASK) -> DispatcherError:
    """Return what an answer stands for."""
    return faults.of_answer(Head(status, {"content-type": "application/json"}), body, ask)


@pytest.mark.parametrize(
    ("status", "error", "ask", "kind"),
    ERRORS,
    ids=[f"{row[0]} {row[3].__name__}" for row in ERRORS],
)
def test_errors_are_what_they_stand_for(
    status: int, error: dict[str, Any], ask: Ask, kind: type[DispatcherError]
) -> None:
    """Each of llama-server's errors has one meaning, and its facts."""
    told = answered(status, json.dumps({"error": {"code": status, **error}}).encode(), ask)
    assert type(told) is kind
    if isinstance(told, ContextOverflow):
        assert (told.needed_tokens, told.limit_tokens) == (9, 8)
    if isinstance(told, VendorError):
        assert told.status == status


def test_the_way_out_is_told() -> None:
    """An old server is to be replaced, one that is full asked for less, one that loads later."""
    old = answered(404, b'{"error": {"code": 404, "message": "File Not Found"}}')
    assert "install a newer one" in str(old)
    assert "/chat/completions" in str(old)
    loading = answered(503, b'{"error": {"code": 503, "message": "Loading model"}}')
    assert isinstance(loading, Overloaded)
    assert loading.retry_after_s == faults.LOADING_S
    full = {"error": {"code": 500, "message": "Context size has been exceeded."}}
    assert "max_parallel" in str(answered(500, json.dumps(full).encode()))
    with pytest.raises(Overloaded) as raised:
        read([event(full)])
    assert "max_parallel" in str(faults.meant(raised.value))


def test_answers_that_are_no_errors_are_told() -> None:
    """An answer without JSON, and one with a bare text, are read as far as they can be."""
    for status, body in ((502, b"<html>Bad Gateway</html>"), (500, b"\xff"), (418, b"")):
        assert isinstance(answered(status, body), DispatcherError)
    assert isinstance(answered(400, b'{"error": "no"}'), BadRequest)


@given(st.integers(300, 599), st.binary(max_size=300))
def test_whatever_is_answered_is_an_error_of_ours(status: int, body: bytes) -> None:
    """No body makes anything but an error that can be told."""
    assert str(answered(status, body, FORMED))
