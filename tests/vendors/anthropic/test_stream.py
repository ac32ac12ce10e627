"""What becomes of Anthropic's events and messages, whatever they are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from replies_of import Read, bytewise, streamed, whole
from speaking_anthropic import MODEL, SIGNATURE, event, message, spoken

from llmdispatcher.models.errors import BadReply, Overloaded
from llmdispatcher.models.message import Keepsake, ToolCall
from llmdispatcher.models.reply import CallDelta, Delta, Finish, FinishReason, Usage
from llmdispatcher.vendors.anthropic import stream
from llmdispatcher.vendors.anthropic.stream import MessageReplies

CALLS = [("toolu_1", "add", '{"x": [1, 2], "y": "grün"}'), ("toolu_2", "now", "")]

FULL: dict[str, Any] = {
    "text": "Es ist schön, wirklich 😀.",
    "reasoning": "Let me think about it…",
    "calls": CALLS,
    "finish": "tool_calls",
    "usage": (120, 45, 100),
}


def read(chunks: list[bytes]) -> Read:
    """Read a stream."""
    return streamed(MessageReplies(), chunks)


def at_once(block: dict[str, Any] | None = None, **fields: Any) -> Read:
    """Read a whole message of at most one block."""
    told = message([block] if block else [], "end_turn", (1, 2, 0)) | fields
    return whole(MessageReplies(), json.dumps(told).encode())


def finished(replies: MessageReplies) -> Finish:
    """Return the end, which must be there."""
    finish = replies.finish()
    assert finish is not None
    return finish


def test_a_stream_with_everything() -> None:
    """Text, thoughts, what goes back, and calls come as pieces, and the end has the usage."""
    got = read(spoken(**FULL, streams=True))
    (choice,) = got.choices
    assert choice.text == FULL["text"]
    assert choice.reasoning == FULL["reasoning"]
    assert choice.tool_calls == (
        ToolCall("toolu_1", "add", '{"x": [1, 2], "y": "grün"}'),
        ToolCall("toolu_2", "now", "{}"),
    )
    kept = {"type": "thinking", "thinking": FULL["reasoning"], "signature": SIGNATURE}
    assert choice.keepsakes == (Keepsake("anthropic", json.dumps(kept)),)
    assert got.finish == Finish(
        FinishReason.TOOL_CALLS,
        Usage(prompt_tokens=120, completion_tokens=45, cached_tokens=100),
        served_model=MODEL,
    )
    firsts = [c for p in got.pieces if isinstance(p, Delta) for c in p.tool_calls if c.name]
    assert firsts == [CallDelta(0, "toolu_1", "add"), CallDelta(1, "toolu_2", "now")]


def test_a_whole_message_is_the_same() -> None:
    """A message that comes in one makes the same reply."""
    pieces, one = read(spoken(**FULL, streams=True)), spoken(**FULL, streams=False)
    got = whole(MessageReplies(), one[0])
    assert got.finish == pieces.finish
    told, streamed_ = got.choices[0], pieces.choices[0]
    assert (told.text, told.reasoning, told.keepsakes) == (
        streamed_.text,
        streamed_.reasoning,
        streamed_.keepsakes,
    )
    for one_call, other in zip(told.tool_calls, streamed_.tool_calls, strict=True):
        assert (one_call.id, one_call.name) == (other.id, other.name)
        assert json.loads(one_call.arguments) == json.loads(other.arguments)


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.soak)])
def test_wherever_it_is_cut(step: int) -> None:
    """Bytes that come one by one, or halved anywhere, make the same pieces."""
    data = b"".join(spoken(**FULL, streams=True))
    want = read([data])
    assert read(bytewise(data)) == want
    for place in range(0, len(data), step):
        assert read([data[:place], data[place:]]) == want


@pytest.mark.parametrize("finish", ["stop", "length", "tool_calls", "content_filter"])
def test_a_stream_that_ends_early_is_not_whole(finish: str) -> None:
    """Whatever events are missing at the end, there is no end."""
    chunks = spoken(**FULL | {"finish": finish}, streams=True)
    for count in range(len(chunks)):
        assert read(chunks[:count]).finish is None
    assert read(chunks).finish is not None


def test_usage_of_a_stream_that_is_cut() -> None:
    """What was written until then is estimated, and never less than the vendor told."""
    replies = MessageReplies()
    assert replies.usage() == Usage(estimated=True)
    streamed(replies, spoken(text="a" * 40, usage=(9, 10, 4), streams=True)[:-2])
    cut = Usage(prompt_tokens=9, cached_tokens=4, completion_tokens=10, estimated=True)
    assert replies.usage() == cut


def test_the_last_count_holds() -> None:
    """Counts are cumulative: each kind's last number holds, and one that is not told stays."""
    start = message([], None, (7, 1, 0))
    start["usage"] |= {"cache_creation_input_tokens": 100, "cache_read_input_tokens": 20}
    end = {
        "output_tokens": 30,
        "input_tokens": 8,
        "cache_read_input_tokens": None,
        "output_tokens_details": {"thinking_tokens": 12},
    }
    got = read(
        [
            event("message_start", message=start),
            event("message_delta", delta={}, usage={"output_tokens": 3}),
            event("message_delta", delta={"stop_reason": "end_turn"}, usage=end),
            event("message_stop"),
        ]
    )
    assert got.finish is not None
    assert got.finish.usage == Usage(
        prompt_tokens=128,
        completion_tokens=30,
        cached_tokens=20,
        cache_write_tokens=100,
        reasoning_tokens=12,
    )


@pytest.mark.parametrize("usage", [None, 5, {}, {"output_tokens": None}, {"input_tokens": "9"}])
def test_usage_that_never_came(usage: object) -> None:
    """Without numbers the reply is whole all the same, and its usage estimated."""
    got = at_once({"type": "text", "text": "abcde"}, usage=usage)
    assert got.finish is not None
    assert got.finish.usage == Usage(completion_tokens=2, estimated=True)


def test_counts_beyond_all_measure() -> None:
    """Numbers that no reply has are no error."""
    huge = {"input_tokens": 1e400, "cache_read_input_tokens": 2**80, "output_tokens": float("nan")}
    got = at_once(usage=huge | {"output_tokens_details": {"thinking_tokens": 2**70}})
    assert got.finish is not None
    assert got.finish.usage.prompt_tokens == 2**63 - 1
    assert got.finish.usage.reasoning_tokens == 0
    both = {"cache_read_input_tokens": 3, "cache_creation_input_tokens": 2**80}
    got = at_once(usage={"input_tokens": 9, **both})
    assert got.finish is not None
    usage = got.finish.usage
    assert usage.cached_tokens + usage.cache_write_tokens == usage.prompt_tokens == 2**63 - 1


@pytest.mark.parametrize(
    ("told", "reason", "warning"),
    [
        ("end_turn", FinishReason.STOP, ""),
        ("stop_sequence", FinishReason.STOP, ""),
        ("max_tokens", FinishReason.LENGTH, ""),
        ("tool_use", FinishReason.TOOL_CALLS, ""),
        ("refusal", FinishReason.CONTENT_FILTER, ""),
        ("model_context_window_exceeded", FinishReason.LENGTH, "context"),
        ("pause_turn", FinishReason.UNKNOWN, "paused"),
        ("tired", FinishReason.UNKNOWN, "tired"),
    ],
)
def test_why_a_reply_ended(told: str, reason: FinishReason, warning: str) -> None:
    """Every reason has its counterpart, and what is lost by it is told as a warning."""
    got = at_once(stop_reason=told)
    assert got.finish is not None
    assert got.finish.reason is reason
    assert warning in "".join(got.finish.warnings)
    assert bool(got.finish.warnings) == bool(warning)


def test_a_refusal_says_why() -> None:
    """The category and the explanation are told, cut."""
    details = {"type": "refusal", "category": "bio", "explanation": "because " * 100}
    got = at_once(stop_reason="refusal", stop_details=details)
    assert got.finish is not None
    (warning,) = got.finish.warnings
    assert "bio: because" in warning
    assert len(warning) < 400
    got = at_once(stop_reason="refusal", stop_details={"category": "\x1b[2Jbio\ud83d"})
    assert got.finish is not None
    assert got.finish.warnings == ("the vendor refused to answer: bio\ufffd",)


@pytest.mark.parametrize("given", ["\ud83d", {"x": "\ud83d"}])
def test_half_a_character_is_replaced(given: object) -> None:
    """Arguments can be written as UTF-8, whatever is in them."""
    (call,) = at_once({"type": "tool_use", "name": "f", "input": given}).choices[0].tool_calls
    assert "\ufffd" in call.arguments
    assert call.arguments.encode()


def test_calls_decide_how_it_ended() -> None:
    """A reply with calls finishes with them, unless it was cut."""
    call = {"type": "tool_use", "id": "t", "name": "add", "input": {}}
    for told, reason in (("end_turn", "tool_calls"), ("max_tokens", "length")):
        got = at_once(call, stop_reason=told)
        assert got.finish is not None
        assert got.finish.reason == reason


def test_a_message_without_a_reason_is_not_whole() -> None:
    """Nobody said why it ended."""
    assert at_once(stop_reason=None).finish is None
    assert read([event("message_start"), event("message_stop")]).finish is None


def test_hidden_thoughts_go_back() -> None:
    """They have no text, and are kept for the next turn; thoughts that nobody signed are not."""
    hidden = {"type": "redacted_thinking", "data": "xyz"}
    (choice,) = at_once(hidden).choices
    assert choice.keepsakes == (Keepsake("anthropic", json.dumps(hidden)),)
    assert choice.reasoning == ""
    (choice,) = at_once({"type": "thinking", "thinking": "Hm", "signature": ""}).choices
    assert (choice.keepsakes, choice.reasoning) == ((), "Hm")
    (choice,) = at_once({"type": "thinking", "thinking": "", "signature": "s"}).choices
    assert len(choice.keepsakes) == 1


def test_what_is_not_known_is_ignored() -> None:
    """New events, blocks and deltas, and the vendor's own tools, leave the reply as it is."""
    known = spoken(text="Hello", streams=True)
    noise = [
        event("ping"),
        event("content_block_start", index=8, content_block={"type": "server_tool_use", "id": "s"}),
        event(
            "content_block_delta",
            index=8,
            delta={"type": "input_json_delta", "partial_json": '{"q": 1}'},
        ),
        event("content_block_delta", index=8, delta={"type": "citations_delta", "citation": {}}),
        event("content_block_delta", index=9, delta={"type": "signature_delta", "signature": "s"}),
        event("content_block_stop", index=8),
        event("message_sang", song=[[]]),
        b'data: {"odd": 1}\n\n',
    ]
    chunks = [part for chunk in known[:-1] for part in (chunk, *noise)]
    assert read([*noise, *chunks, known[-1]]) == read(known)


def test_servers_that_imitate_the_api() -> None:
    """Blocks without numbers or ends, arguments at the beginning, calls without ids: all are read.

    So llama-server does it: a call takes the number of the text, and no id, and no message_start.
    """

    def begin(index: int, **block: Any) -> bytes:
        return event("content_block_start", index=index, content_block=block)

    def grow(index: int, **delta: Any) -> bytes:
        return event("content_block_delta", index=index, delta=delta)

    got = read(
        [
            grow(0, type="thinking_delta", thinking="Hm"),
            grow(0, type="text_delta", text="A"),
            begin(0, type="tool_use", name="add"),
            grow(0, type="input_json_delta", partial_json='{"x":1}'),
            begin(0, type="tool_use", name="sub", input={"y": 2}),
            begin(1, type="tool_use", name="raw", input='{"z":3}'),
            event("message_delta", delta={"stop_reason": "end_turn"}),
            event("message_stop"),
        ]
    )
    (choice,) = got.choices
    assert (choice.text, choice.reasoning) == ("A", "Hm")
    assert choice.tool_calls == (
        ToolCall("call_0", "add", '{"x":1}'),
        ToolCall("call_1", "sub", '{"y":2}'),
        ToolCall("call_2", "raw", '{"z":3}'),
    )
    assert choice.finish_reason is FinishReason.TOOL_CALLS


def test_events_without_names() -> None:
    """The message says what it is; where it does not, the event's name does."""
    replies = MessageReplies()
    assert replies.take("", {"type": "content_block_delta", "delta": {}}) == []
    told = {"delta": {"type": "text_delta", "text": "A"}}
    assert replies.take("content_block_delta", told) == [Delta("A")]
    replies.take("message_delta", {"delta": {"stop_reason": "end_turn"}})
    replies.take("message_stop", {})
    assert replies.is_done
    assert finished(replies).reason is FinishReason.STOP


@pytest.mark.parametrize(
    "error",
    [
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        {"error": {"type": "overloaded_error", "message": "Overloaded"}},
        {"type": "overloaded_error", "message": "Overloaded", "code": 529},
    ],
)
def test_errors_inside(error: dict[str, Any]) -> None:
    """An error in a stream, or in an answer with status 200, is raised as what it stands for."""
    with pytest.raises(Overloaded):
        MessageReplies().take("error", error)
    if "error" in error:
        with pytest.raises(Overloaded):
            MessageReplies().whole(error)


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        None,
        {"content": None},
        {"content": "text"},
        {"content": [], "model": 5},
        {"content": [{"type": "text", "text": 5}]},
        {"content": [{"type": "tool_use", "name": []}]},
        {"content": [{"type": "tool_use", "id": "a", "input": {}}]},
        {"content": [{"type": "tool_use", "name": "f", "id": {}}]},
        {"content": [{"type": "tool_use", "name": "f", "input": {"x": float("inf")}}]},
        {"content": [], "stop_reason": True},
        {"content": [{"type": "text"}] * (stream.MAX_BLOCKS + 1)},
    ],
)
def test_what_is_no_message(wrong: Any) -> None:
    """What cannot be read is no reply."""
    with pytest.raises(BadReply):
        MessageReplies().whole(wrong)


def test_arguments_that_nest_without_end() -> None:
    """They are no reply, and no crash."""
    deep: Any = {}
    for _ in range(100_000):
        deep = {"x": deep}
    with pytest.raises(BadReply):
        MessageReplies().whole({"content": [{"type": "tool_use", "name": "f", "input": deep}]})
    while deep:  # freed level by level: Python 3.11 would recurse
        deep = deep.pop("x")
