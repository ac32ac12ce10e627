"""What is read of the responses endpoint's answers, however they come."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai_responses import (
    ANSWERS,
    answer,
    call,
    events,
    logprob,
    message,
    said,
    sse,
    thoughts,
)
from replies_of import Read, bytewise, streamed, whole

from llmdispatcher.models.errors import BadReply, DispatcherError
from llmdispatcher.models.reply import FinishReason, Progress, Usage
from llmdispatcher.vendors.openai.responses_parts import MAX_CALLS
from llmdispatcher.vendors.openai.responses_stream import ResponsesReplies

REASONS = {
    "calls": FinishReason.TOOL_CALLS,
    "mixed": FinishReason.TOOL_CALLS,
    "refused": FinishReason.CONTENT_FILTER,
    "filtered": FinishReason.CONTENT_FILTER,
    "cut": FinishReason.LENGTH,
}


def replies() -> ResponsesReplies:
    """Return a reader of one answer."""
    return ResponsesReplies(400, logprobs=5)


def told(*made: dict[str, Any]) -> Read:
    """Read a stream of events."""
    return streamed(replies(), sse(made))


def in_one(name: str) -> Read:
    """Read an answer that came in one."""
    return whole(replies(), json.dumps(ANSWERS[name]).encode())


@pytest.mark.parametrize("name", ANSWERS)
def test_a_whole_answer_is_read(name: str) -> None:
    """Text, thoughts, calls, tokens and the reason for the end are those of the answer."""
    read, output = in_one(name), ANSWERS[name]["output"]
    choice, finish = read.choices[0], read.finish
    parts = [part for item in output for part in item.get("content", ())]
    assert choice.text == "".join(part.get("text") or part.get("refusal", "") for part in parts)
    calls = [item for item in output if item["type"] == "function_call"]
    assert [(c.id, c.name, c.arguments) for c in choice.tool_calls] == [
        (c["call_id"], c["name"], c["arguments"] or "{}") for c in calls
    ]
    assert finish
    assert finish.reason is REASONS.get(name, FinishReason.STOP)
    assert (finish.request_id, finish.served_model) == ("resp_1", "gpt-5.6-sol-2026-07-01")
    assert finish.usage == Usage(
        prompt_tokens=50,
        completion_tokens=30,
        cached_tokens=20,
        cache_write_tokens=10,
        reasoning_tokens=12,
    )


@pytest.mark.parametrize("name", ANSWERS)
def test_a_stream_says_what_a_whole_answer_says(name: str) -> None:
    """However the bytes are cut, a stream makes the reply that the answer in one makes."""
    data, one = b"".join(sse(events(ANSWERS[name]))), in_one(name)
    for chunks in ([data], bytewise(data)):
        read = streamed(replies(), chunks)
        assert read.choices == one.choices
        assert read.finish == one.finish


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize(
    "left_out", ["delta", "text.done", "_item.done", "_item.added", "part", "done", "output"]
)
def test_what_a_server_leaves_out_is_made_up_for(name: str, left_out: str) -> None:
    """A text that comes only in pieces, or only as a whole, is neither lost nor doubled."""
    made = [event for event in events(ANSWERS[name]) if left_out not in event["type"]]
    if left_out == "output":  # the endings are there, and tell of no items
        made = [{**e, "response": {**e["response"], "output": []}} for e in made if "response" in e]
        made = [e for e in events(ANSWERS[name]) if "response" not in e] + made[-1:]
    if left_out in {"_item.added", "delta"}:  # deltas of arguments cannot come without
        made = [e for e in made if "arguments.delta" not in e["type"]]
    read, one = streamed(replies(), sse(made)), in_one(name)
    choice, other = read.choices[0], one.choices[0]
    assert (choice.text, choice.reasoning) == (other.text, other.reasoning)
    assert choice.tool_calls == other.tool_calls
    assert choice.logprobs == other.logprobs
    sealed = [k for k in choice.keepsakes if "encrypted_content" in k.data]
    assert sealed == [k for k in other.keepsakes if "encrypted_content" in k.data]
    assert read.finish == one.finish


@pytest.mark.parametrize("name", ANSWERS)
def test_a_stream_that_breaks_off_has_no_end(name: str) -> None:
    """Before its last event a reply is not whole, and its tokens are estimated."""
    made = sse(events(ANSWERS[name]))
    for count in range(len(made)):
        reader = replies()
        assert streamed(reader, made[:count]).finish is None
        assert not reader.is_done
        assert reader.usage().estimated
        assert reader.usage().prompt_tokens == (100 if count > 2 else 0)


def test_the_end_ends_it() -> None:
    """Behind the last event nothing is read."""
    reader = replies()
    assert streamed(reader, sse([*events(ANSWERS["plain"]), {"type": "error"}])).finish
    assert reader.is_done


def test_log_probabilities_are_read_where_asked() -> None:
    """Each token is told once, with as many neighbours as were asked for; else none is."""
    first, second = in_one("logprobs").choices[0].logprobs
    assert (first.token, first.data, first.logprob) == ("Hi", b"Hi", -0.25)
    assert [(each.token, each.logprob) for each in second.top] == [(" you", 0.0), (" me", -9999.0)]
    body = json.dumps(ANSWERS["logprobs"]).encode()
    assert whole(ResponsesReplies(), body).choices[0].logprobs == ()
    few = whole(ResponsesReplies(logprobs=1), body).choices[0].logprobs
    assert [len(each.top) for each in few] == [1, 1]
    for bad in ({"token": "a"}, {"token": 1, "logprob": 0}, {"token": "a", "logprob": True}, 7):
        with pytest.raises(BadReply, match="log-probability"):
            whole(replies(), json.dumps(answer(message(said("a", [bad])))).encode())  # type: ignore[list-item]
    with pytest.raises(BadReply, match="log-probability"):
        whole(
            replies(), json.dumps(answer(message(said("a", [logprob("a", float("nan"))])))).encode()
        )


def test_waiting_in_a_queue_is_a_sign_of_life() -> None:
    """An answer that is queued is told as progress."""
    (piece,) = replies().take("", {"type": "response.queued", "response": {}})
    assert isinstance(piece, Progress)


@pytest.mark.parametrize(
    ("made", "said_of_it"),
    [
        ({"type": "error", "code": "rate_limit_exceeded", "message": "slow"}, "slow"),
        ({"type": "error", "error": {"message": "inner"}}, "inner"),
        ({"error": {"message": "bare"}}, "bare"),
        ({"type": "response.failed", "response": {"error": {"message": "broken"}}}, "broken"),
        ({"type": "response.failed", "response": {"status": "failed"}}, "failed"),
        ({"type": "response.cancelled", "response": {}}, "cancelled"),
        ({"type": "response.completed", "response": {"status": "queued"}}, "queued"),
        ({"type": "response.completed", "response": {"status": "\x1b[2J"}}, "is '.x1b"),
        (
            {
                "type": "response.output_item.added",
                "item": {"type": "function_call", "arguments": "{}"},
            },
            "no tool",
        ),
        ({"type": "response.function_call_arguments.delta", "delta": "{"}, "told nothing of"),
        ({"type": "response.output_text.delta", "delta": ["a"]}, "where a text belongs"),
        (["a"], "no event"),
    ],
)
def test_an_error_in_a_stream_is_raised(made: Any, said_of_it: str) -> None:
    """An error, in any of its forms, and what cannot be read are raised as our errors."""
    reader = replies()
    with pytest.raises(DispatcherError, match=said_of_it):
        [*reader.take("", made)]
    assert reader.finish() is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        None,
        {"status": "in_progress"},
        {"error": {"message": "x"}},
        {"status": "failed", "error": None},
        {"status": "completed", "output": [{"type": "function_call"}]},
        {"output": [{"type": "message", "content": [{"type": "output_text", "text": 7}]}]},
    ],
)
def test_what_is_no_answer_is_refused(body: Any) -> None:
    """An answer in one that is an error, or none, raises one of our errors."""
    with pytest.raises(DispatcherError):
        [*replies().whole(body)]


def test_a_lenient_server_is_read() -> None:
    """Ids, states and places that are missing are done without."""
    bare = {"output": [{"type": "function_call", "name": "f"}, {"type": "web_search_call"}]}
    read = whole(replies(), json.dumps(bare).encode())
    assert read.finish
    assert read.finish.usage.estimated
    assert [(c.id, c.arguments) for c in read.choices[0].tool_calls] == [("call_0", "{}")]
    made: list[dict[str, Any]] = [
        {"type": "response.output_item.added", "item": {"type": "function_call", "name": name}}
        for name in ("f", "g")
    ]
    made.insert(1, {"type": "response.function_call_arguments.delta", "delta": '{"a": 1}'})
    made.append({"type": "response.function_call_arguments.delta", "delta": "{}"})
    calls = told(*made, {"type": "response.completed"}).choices[0].tool_calls
    assert [(c.id, c.arguments) for c in calls] == [("call_0", '{"a": 1}'), ("call_1", "{}")]


def test_calls_that_come_at_once_are_told_apart() -> None:
    """Pieces of several calls may alternate: each goes to the call of its id or place."""
    made: list[dict[str, Any]] = []
    for place, item in enumerate((call("f", "", "a"), call("g", "", "b"))):
        item["id"] = f"i{place}"
        made.append({"type": "response.output_item.added", "output_index": place, "item": item})
    kind = "response.function_call_arguments.delta"
    made += [
        {"type": kind, "item_id": "i0", "delta": '{"a'},
        {"type": kind, "output_index": 1, "delta": '{"b'},
        {"type": kind, "item_id": "other", "output_index": 0, "delta": '": 1}'},
        {"type": kind, "item_id": "i1", "delta": '": 2}'},
    ]
    calls = told(*made, {"type": "response.completed"}).choices[0].tool_calls
    assert [c.arguments for c in calls] == ['{"a": 1}', '{"b": 2}']


def test_open_thoughts_are_thoughts() -> None:
    """A server that shows the thoughts themselves is read as one that shows a summary."""
    item = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm, so."}]}
    made: list[dict[str, Any]] = [
        {"type": "response.reasoning_text.delta", "output_index": 0, "delta": piece}
        for piece in ("Hm, ", "so.")
    ]
    end = {"type": "response.completed", "response": {"output": [item]}}
    assert told(*made, end).choices[0].reasoning == "Hm, so."
    assert told(end).choices[0].reasoning == "Hm, so."
    assert not told(*made, end).choices[0].keepsakes


def test_half_a_character_is_none() -> None:
    """Text that UTF-8 cannot hold comes with a mark in its place."""
    read = whole(replies(), json.dumps(answer(message("a\ud83d"), call("f", "{}", "i"))).encode())
    assert read.text == "a\ufffd"


def test_usage_that_cannot_be_is_put_right() -> None:
    """Parts are no larger than their whole, and what is no number counts nothing."""
    odd = {"input_tokens": 5, "input_tokens_details": {"cached_tokens": 9}, "output_tokens": "x"}
    read = whole(replies(), json.dumps(answer(message("a"), usage=odd)).encode())
    assert read.finish
    assert read.finish.usage == Usage(prompt_tokens=5, cached_tokens=5)


# -- anything at all ---------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
FIELDS = (
    "type item item_id id call_id name arguments delta text refusal part response status output"
    " error code message usage input_tokens output_tokens input_tokens_details cached_tokens"
    " logprobs token logprob bytes top_logprobs content summary encrypted_content phase"
    " output_index content_index summary_index incomplete_details reason model"
)
KINDS = [event["type"] for name in ANSWERS for event in events(ANSWERS[name])]
WORDS = [*KINDS, "error", "message", "function_call", "reasoning", "output_text", "failed"]
LIKELY = st.recursive(
    SCALARS | st.sampled_from(WORDS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS.split()), inner)
    ),
    max_leaves=15,
)
EVENTS = st.sampled_from([e for name in ANSWERS for e in events(ANSWERS[name])])


@settings(max_examples=80)
@given(st.lists(st.tuples(EVENTS, st.dictionaries(st.sampled_from(FIELDS.split()), LIKELY))))
def test_mutated_streams_make_pieces_or_our_errors(made: list[tuple[Any, Any]]) -> None:
    """Whatever events come in whatever order, there are pieces, or one of our errors."""
    reader = replies()
    with contextlib.suppress(DispatcherError):
        for event, mutation in made:
            [*reader.take("", {**event, **mutation})]
    assert reader.usage().total_tokens >= 0
    assert (reader.finish() is None) or reader.is_done


@settings(max_examples=2 * settings().max_examples)
@given(JSON | LIKELY)
def test_any_json_makes_pieces_or_our_errors(body: Any) -> None:
    """Whatever JSON is the answer, there are pieces, or one of our errors."""
    for read in (replies().whole, lambda each: replies().take("response.completed", each)):
        with contextlib.suppress(DispatcherError):
            [*read(body)]


def test_deep_nests_are_survived() -> None:
    """JSON that nests as deep as a parser goes is read, or is one of our errors."""
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    sealed = {**thoughts(), "content": deep, "phase": deep}
    reader = replies()
    for item in (sealed, message("a", phase=deep), {"type": deep}, deep):
        with contextlib.suppress(DispatcherError):
            [*reader.take("", {"type": "response.output_item.done", "item": item})]


def test_bounds_hold() -> None:
    """Thoughts that nest without end are refused, and so are calls without end."""
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    sealed = {**thoughts(), "more": deep}
    with pytest.raises(BadReply, match="too deep"):
        [*replies().take("", {"type": "response.output_item.done", "item": sealed})]
    calls = [call("f", "{}", f"c{place}") for place in range(MAX_CALLS + 1)]
    assert len(whole(replies(), json.dumps(answer(*calls[:-1])).encode()).choices[0].tool_calls)
    with pytest.raises(BadReply, match="more than 1024 calls"):
        whole(replies(), json.dumps(answer(*calls)).encode())
