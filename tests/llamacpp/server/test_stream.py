"""What a server streams, read however it is cut, and what its errors stand for."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

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
)
from llmdispatcher.models.reply import (
    CallDelta,
    Delta,
    Finish,
    FinishReason,
    Piece,
    Progress,
    TokenLogprob,
)
from llmdispatcher.vendors.llamacpp.server import faults
from llmdispatcher.vendors.llamacpp.server.stream import MAX_LINE_BYTES, Lines, Replies
from llmdispatcher.vendors.llamacpp.server.wire import Ask

ASK = Ask(path="/v1/chat/completions", body={})


def event(message: Any) -> bytes:
    """Write a message as a server does."""
    return b"data: " + json.dumps(message, ensure_ascii=False).encode() + b"\n\n"


def chunk(delta: dict[str, Any], index: int = 0, reason: str | None = None, **more: Any) -> bytes:
    """Write a piece of a reply."""
    return event({"choices": [{"index": index, "delta": delta, "finish_reason": reason}], **more})


USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 2},
}
WHOLE = b"".join(
    (
        b": a comment\n\n",
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
]


def read(data: list[bytes], ask: Ask = ASK) -> tuple[list[Piece], Replies]:
    """Read chunks of a stream."""
    lines, replies = Lines(), Replies(ask)
    pieces = [p for part in data for line in lines.feed(part) for p in replies.take(line)]
    return pieces, replies


@given(st.lists(st.integers(0, len(WHOLE)), max_size=40))
def test_however_it_is_cut_it_reads_the_same(cuts: list[int]) -> None:
    """The pieces do not depend on how the stream is cut into chunks."""
    edges = [0, *sorted(cuts), len(WHOLE)]
    data = [WHOLE[a:b] for a, b in pairwise(edges)]
    pieces, replies = read(data)
    assert pieces == EXPECTED
    assert replies.is_done
    assert replies.partial == "Zürich 日本\u2028\r"
    finish = replies.finish()
    assert isinstance(finish, Finish)
    assert finish.reason is FinishReason.TOOL_CALLS
    assert finish.usage.prompt_tokens == 5
    assert finish.usage.completion_tokens == 7
    assert finish.usage.cached_tokens == 2
    assert not finish.usage.estimated


@given(st.binary(max_size=300))
def test_bytes_that_are_no_reply_are_refused(data: bytes) -> None:
    """Whatever comes is a piece, or the error that it is no reply; nothing else is raised."""
    try:
        pieces, replies = read([data, b"\n"])
    except BadReply:
        return
    assert pieces == []
    assert replies.finish() is None


def test_choices_are_counted_once_each() -> None:
    """A prompt that choices share is counted once, and what they say is summed."""
    ask = Ask(path="", body={}, choices=2)
    data = [
        chunk({"content": "a"}, 1),
        chunk({"content": "b"}, 0),
        chunk({}, 1, "length"),
        event({"choices": [], "usage": USAGE}),
    ]
    pieces, replies = read(data, ask)
    assert [piece.index for piece in pieces if isinstance(piece, Delta)] == [1, 0]
    assert replies.finish() is None
    assert replies.usage().estimated
    data += [chunk({}, 0, "stop"), event({"choices": [], "usage": USAGE})]
    _, replies = read(data, ask)
    finish = replies.finish()
    assert finish is not None
    assert (finish.reason, finish.others) == (FinishReason.STOP, (FinishReason.LENGTH,))
    assert finish.usage.prompt_tokens == 5
    assert finish.usage.completion_tokens == 14


def test_raw_completions_are_read_too() -> None:
    """Where there is no conversation, text comes under another name, with figures beside it."""
    data = [
        event({"choices": [{"index": 0, "text": "a", "finish_reason": None}]}),
        event({"choices": [{"index": 0, "text": "", "finish_reason": "odd"}], "usage": USAGE}),
    ]
    pieces, replies = read(data)
    assert pieces == [Delta("a")]
    finish = replies.finish()
    assert finish is not None
    assert finish.reason is FinishReason.UNKNOWN
    assert finish.usage.completion_tokens == 7


def test_logprobs_are_whole_tokens() -> None:
    """A token that was cut at a stop string is told whole, as it is among its neighbours."""
    token = {
        "id": 9,
        "token": " ",
        "bytes": [32],
        "logprob": -0.5,
        "top_logprobs": [
            {"id": 9, "token": " file", "bytes": [32, 102], "logprob": -0.5},
            {"id": 4, "token": "\ufffd", "bytes": [195], "logprob": -2},
        ],
    }
    told = {"index": 0, "delta": {"content": " "}, "logprobs": {"content": [token]}}
    ask = Ask(path="", body={}, top=1)
    pieces, _ = read([event({"choices": [told]})], ask)
    first = TokenLogprob(" f", b" f", -0.5)
    assert pieces == [Delta(" ", 0, (TokenLogprob(" f", b" f", -0.5, (first,)),))]
    assert read([event({"choices": [told]})])[0] == [Delta(" ")]
    unlikely = {**token, "bytes": [999], "top_logprobs": []}
    strange: list[Any] = [{}, {"content": [{}]}, {"content": [unlikely]}, []]
    for broken in strange:
        with pytest.raises(BadReply):
            read([event({"choices": [{**told, "logprobs": broken}]})], ask)


STRANGE = [
    b"data: {\n",
    b"data: 5\n",
    b"data: {}\n",
    b"data: \xff\xfe\n",
    b"<html>\n",
    event({"choices": [{"index": 1, "delta": {}}]}),
    event({"choices": [{"index": 0, "delta": {"content": 5}}]}),
    event({"choices": [5]}),
    event({"choices": [{"index": 0, "delta": {"tool_calls": [{}]}}]}),
    b"data: " + b"[" * 200_000 + b"\n",
]


@pytest.mark.parametrize("data", STRANGE, ids=range(len(STRANGE)))
def test_what_is_no_reply_is_told(data: bytes) -> None:
    """Whatever else a server sends in a stream is told as such."""
    with pytest.raises(BadReply):
        read([data])


def test_a_line_without_end_is_given_up() -> None:
    """No more of a line is kept than any piece could be long, and it is not searched anew."""
    lines = Lines()
    with pytest.raises(BadReply, match="a line of more than"):
        for _ in range(MAX_LINE_BYTES // 2**20 + 2):
            assert not [*lines.feed(b"x" * 2**20)]


# -- errors ------------------------------------------------------------------------------------

FORMED = Ask(path="/v1/chat/completions", body={"grammar": "root ::= x"})

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
    (400, {"message": "'messages' is required"}, ASK, BadRequest),
    (400, {"message": "Cannot use custom grammar constraints with tools."}, FORMED, Unsupported),
    (401, {"message": "Invalid API Key", "type": "authentication_error"}, ASK, AuthRejected),
    (404, {"message": "File Not Found"}, ASK, Unsupported),
    (500, {"message": "image input is not supported"}, ASK, Unsupported),
    (500, {"message": "Context size has been exceeded."}, ASK, Overloaded),
    (500, {"message": "std::bad_alloc"}, ASK, OutOfMemory),
    (500, {"message": "Compute error."}, ASK, BadReply),
    (501, {"message": "This server does not support embeddings."}, ASK, Unsupported),
    (503, {"message": "Loading model", "type": "unavailable_error"}, ASK, Overloaded),
]


@pytest.mark.parametrize(
    ("status", "error", "ask", "kind"),
    ERRORS,
    ids=[f"{row[0]} {row[3].__name__}" for row in ERRORS],
)
def test_errors_are_what_they_stand_for(
    status: int, error: dict[str, Any], ask: Ask, kind: type[DispatcherError]
) -> None:
    """An error is the same whether it is the answer or comes in the middle of a stream."""
    answered = faults.of_answer(status, json.dumps({"error": error}).encode(), ask)
    assert type(answered) is kind
    with pytest.raises(kind) as raised:
        read([event({"error": {"code": status, **error}})], ask)
    assert str(raised.value) == str(answered)
    if isinstance(answered, ContextOverflow):
        assert (answered.needed_tokens, answered.limit_tokens) == (9, 8)


def test_answers_that_are_no_errors_are_told() -> None:
    """An answer without JSON, and one with a bare text, are read as far as they can be."""
    assert isinstance(faults.of_answer(502, b"<html>Bad Gateway</html>", ASK), BadReply)
    assert isinstance(faults.of_answer(400, b'{"error": "no"}', ASK), BadRequest)
    assert isinstance(faults.of_answer(500, b"\xff", ASK), BadReply)
