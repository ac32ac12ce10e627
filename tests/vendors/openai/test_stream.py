"""What hosts of the OpenAI dialect answer, read however it is cut, and whoever sent it."""

from __future__ import annotations

import contextlib
import json
from itertools import pairwise
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback import events
from replies_of import Read, bytewise, streamed, whole
from speaking_openai import NO_CACHE, THOUGHTS, failed, spoken

from llmdispatcher.models.errors import (
    AuthRejected,
    BadReply,
    BadRequest,
    ContentRefused,
    ContextOverflow,
    DispatcherError,
    ModelNotFound,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    VendorError,
)
from llmdispatcher.models.reply import Delta, FinishReason, Progress, TokenLogprob
from llmdispatcher.vendors.openai.rows import ROWS
from llmdispatcher.vendors.openai.stream import ChatReplies, Expected
from llmdispatcher.vendors.openai.ways import Ways
from llmdispatcher.vendors.openai.wire import OpenAIWire
from llmdispatcher.vendors.wire.exchange import Head, Site

CALLS = (("call_a", "add", '{"x": 1}'), ("call_b", "sub", '{"name": "Zürich"}'))
SAYS: dict[str, Any] = {
    "text": "Grüezi, 日本 😀.",
    "reasoning": "Hm, well.",
    "calls": CALLS,
    "finish": "tool_calls",
    "usage": (20, 9, 4),
}


def replies(preset: str = "openai-compatible", **expected: Any) -> ChatReplies:
    """Make what reads the answer of a host."""
    return ChatReplies(ROWS[preset].ways, Expected(**expected))


def chunk(delta: Any, finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    """Return a piece of a stream."""
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish, **more}]}


def read(*messages: Any, preset: str = "openai-compatible", **expected: Any) -> Read:
    """Read a stream of messages."""
    return streamed(replies(preset, **expected), events(*messages), n=expected.get("choices", 1))


def arguments(read: Read) -> list[tuple[str, str, Any]]:
    """Return the calls, with their arguments parsed."""
    return [(c.id, c.name, json.loads(c.arguments)) for c in read.choices[0].tool_calls]


# -- replies of all hosts ----------------------------------------------------------------------


@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("preset", ROWS)
def test_every_host_is_understood(preset: str, streams: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Text, thoughts, calls, the end and usage come out alike, in whatever form they came."""
    parts = spoken(preset, **SAYS, streams=streams)
    got = streamed(replies(preset), parts) if streams else whole(replies(preset), parts[0])
    assert got.finish is not None
    assert got.finish.reason is FinishReason.TOOL_CALLS
    assert got.finish.served_model == "model-1"
    assert got.text == SAYS["text"]
    assert got.choices[0].reasoning == (SAYS["reasoning"] if preset in THOUGHTS else "")
    assert arguments(got) == [(i, name, json.loads(text)) for i, name, text in CALLS]
    usage = got.finish.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.estimated) == (20, 9, False)
    assert usage.cached_tokens == (0 if preset in NO_CACHE else 4)
    assert usage.charged_microusd == (125 if preset == "openrouter" else None)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("preset", ROWS)
def test_cut_at_every_byte_it_reads_the_same(preset: str) -> None:
    """The pieces do not depend on how the stream is cut."""
    parts = spoken(preset, **SAYS, streams=True)
    assert streamed(replies(preset), bytewise(b"".join(parts))) == streamed(replies(preset), parts)


@pytest.mark.parametrize("preset", ROWS)
def test_what_is_cut_short_never_ends(preset: str) -> None:
    """Until the host says why the reply ended, there is no end."""
    parts = spoken(preset, **SAYS, streams=True)
    last = next(i for i, part in enumerate(parts) if b'"finish_reason": "' in part)
    for count in range(last + 1):
        assert streamed(replies(preset), parts[:count]).finish is None
    assert streamed(replies(preset), parts[: last + 1]).finish is not None


def test_what_a_reply_used_is_guessed_where_it_is_not_told() -> None:
    """Without figures the prompt counts by its size, and the reply by its pieces or its size."""
    reader = replies(prompt_bytes=400)
    assert reader.usage().total_tokens == 0
    streamed(reader, events(chunk({"content": "a"}), chunk({"content": "b"}), done=False))
    assert (reader.usage().prompt_tokens, reader.usage().completion_tokens) == (100, 2)
    assert reader.usage().estimated
    streamed(reader, events(chunk({"content": "x" * 398}), done=False))
    assert reader.usage().completion_tokens == 100


def test_several_choices_keep_apart() -> None:
    """Each choice has its own text and end; llama-server's own figures are added up."""
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    got = read(
        chunk({"content": "a"}, index=1),
        chunk({"content": "b"}),
        chunk({}, "length", index=1),
        {"choices": [], "usage": usage},
        chunk({"content": "c"}, "stop"),
        {"choices": [], "usage": {**usage, "completion_tokens": 4}},
        preset="llama-server",
        choices=2,
    )
    assert [choice.text for choice in got.choices] == ["bc", "a"]
    assert got.finish is not None
    assert (got.finish.reason, *got.finish.others) == (FinishReason.STOP, FinishReason.LENGTH)
    assert got.finish.usage.completion_tokens == 7
    assert got.finish.usage.prompt_tokens == 5
    assert read(chunk({}, "stop"), choices=2).finish is None
    with pytest.raises(BadReply, match="nobody asked"):
        read(chunk({"content": "a"}, index=1))


def test_the_prompt_is_seen_to_be_read() -> None:
    """llama-server tells how far it is."""
    progress = {"total": 10, "processed": 4, "cache": 0}
    got = read(chunk({}) | {"prompt_progress": progress}, chunk({}, "stop"))
    assert got.pieces == (Progress("prompt", 4, 10),)


# -- ends --------------------------------------------------------------------------------------

ENDS = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "repetition": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "tool_calls": FinishReason.STOP,
    "content_filter": FinishReason.CONTENT_FILTER,
    "something": FinishReason.UNKNOWN,
}


@pytest.mark.parametrize(("told", "meant"), ENDS.items())
def test_ends_have_one_meaning(told: str, meant: FinishReason) -> None:
    """What hosts call the end is one of ours; calls that never came are none."""
    finish = read(chunk({"content": "a"}), chunk({}, told)).finish
    assert finish is not None
    assert finish.reason is meant


def test_calls_are_the_end_whatever_is_said() -> None:
    """A reply with a call ends for it, except where it was cut."""
    call = {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}]}
    for told, meant in (("stop", "tool_calls"), ("other", "tool_calls"), ("length", "length")):
        finish = read(chunk(call), chunk({}, told)).finish
        assert finish is not None
        assert finish.reason == meant


def test_a_refusal_is_text_that_was_filtered() -> None:
    """What the model says instead is shown, and the end tells what it is."""
    got = read(chunk({"refusal": "I can"}), chunk({"refusal": "not."}), chunk({}, "stop"))
    assert got.text == "I cannot."
    assert got.choices[0].finish_reason is FinishReason.CONTENT_FILTER


FAILED = {
    "vllm gave up": (chunk({}, "abort"), Overloaded),
    "deepseek has no room": (chunk({}, "insufficient_system_resource"), Overloaded),
    "no reason": (chunk({}, "error"), BadReply),
    "groq stopped": (chunk({}) | {"x_groq": {"error": "over capacity"}}, VendorError),
    "an error": ({"error": {"message": "x", "code": 500}}, VendorError),
    "an error beside a choice": (chunk({}) | {"error": {"message": "x", "code": 502}}, VendorError),
    "an error in a choice": (chunk({}, error={"message": "x", "code": 429}), RateLimited),
    "an error as text": ({"error": "model crashed"}, VendorError),
    "a flat error": ({"object": "error", "message": "x", "code": 500}, VendorError),
    "a list of errors": ([{"error": {"code": 503, "message": "x"}}], VendorError),
    "no object": ("x", BadReply),
    "text that is none": (chunk({"content": {}}), BadReply),
}


@pytest.mark.parametrize(("message", "kind"), FAILED.values(), ids=FAILED)
def test_errors_are_raised_wherever_they_stand(message: Any, kind: type[Exception]) -> None:
    """An error inside an answer is no piece of it."""
    with pytest.raises(kind):
        read(chunk({"content": "a"}), message)
    with pytest.raises(kind):
        whole(replies(), json.dumps(message).encode())


def test_what_is_no_reply_is_passed_over() -> None:
    """Objects of another kind, empty errors and fields of other types are ignored in a stream."""
    got = read(
        {"type": "mcp_tool_result", "result": {}},
        {"error": None, "choices": [], "usage": None},
        chunk({"content": "a", "reasoning": {"x": 1}, "tool_calls": None, "audio": 3}),
        chunk(None, "stop") | {"usage": 7, "id": 3, "model": None},
    )
    assert got.text == "a"
    with pytest.raises(BadReply, match="no reply"):
        whole(replies(), b"{}")
    with pytest.raises(VendorError):
        streamed(replies(), [b'event: error\ndata: {"message": "x"}\n\n'])


KINDS: dict[str, type[DispatcherError]] = {
    "auth": AuthRejected,
    "rate": RateLimited,
    "quota": QuotaExhausted,
    "overflow": ContextOverflow,
    "overloaded": Overloaded,
    "missing": ModelNotFound,
    "filter": ContentRefused,
    "bad": BadRequest,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("preset", ROWS)
def test_every_host_s_errors_are_understood(preset: str, kind: str) -> None:
    """An error answer is the error that it stands for, whichever host says it."""
    answer = failed(preset, kind)
    wire = OpenAIWire(Site(vendor="v"), ROWS[preset].ways)
    body = b"".join(part for part in answer.chunks if isinstance(part, bytes))
    error = wire.fault(Head(answer.status, answer.headers), body)
    assert isinstance(error, KINDS[kind])
    if isinstance(error, RateLimited):
        assert error.retry_after_s == 7


# -- calls -------------------------------------------------------------------------------------


def call(index: int | None = None, ident: Any = None, name: Any = None, args: Any = None) -> Any:
    """Return a piece of a call, with what is given."""
    told = {"index": index, "id": ident, "function": {"name": name, "arguments": args}}
    return {"tool_calls": [{key: value for key, value in told.items() if value is not None}]}


ODD_CALLS = {
    "no index, no id, whole": (
        [call(name="f", args={"x": 1}), call(name="f", args={"x": 2})],
        [("call_0", "f", {"x": 1}), ("call_1", "f", {"x": 2})],
    ),
    "no index, pieces": (
        [call(ident="a", name="f", args='{"x"'), call(args=": 1}"), call(ident="b", name="g")],
        [("a", "f", {"x": 1}), ("b", "g", {})],
    ),
    "all at one index": (
        [call(0, "a", "f", "{}"), call(0, "b", "g", '{"y": 1}'), call(0, args="")],
        [("a", "f", {}), ("b", "g", {"y": 1})],
    ),
    "the id with every piece": (
        [call(0, "a", "f", '{"x"'), call(0, "a", None, ": 1"), call(0, "a", "f", "}")],
        [("a", "f", {"x": 1})],
    ),
    "the id with every piece, no index": (
        [call(None, "a", "f", '{"x"'), call(None, "a", "f", ": 1}"), call(None, "b", "f", "{}")],
        [("a", "f", {"x": 1}), ("b", "f", {})],
    ),
    "one id for two": (
        [call(0, "a", "f", "{}"), call(1, "a", "f", '{"x": 1}')],
        [("a", "f", {}), ("call_1", "f", {"x": 1})],
    ),
    "the name late": (
        [call(0, "a", args='{"x"'), call(1, "b", "g", "{}"), call(0, name="f", args=": 1}")],
        [("b", "g", {}), ("a", "f", {"x": 1})],
    ),
    "gaps": ([call(3, "a", "f", "{}"), call(7, "b", "g")], [("a", "f", {}), ("b", "g", {})]),
    "no id by name": ([call(0, "null", "f", {})], [("call_0", "f", {})]),
    "an old call": (
        [
            {"function_call": {"name": "f", "arguments": '{"x"'}},
            {"function_call": {"arguments": ": 1}"}},
        ],
        [("call_0", "f", {"x": 1})],
    ),
}


@pytest.mark.parametrize(("deltas", "meant"), ODD_CALLS.values(), ids=ODD_CALLS)
def test_calls_come_out_right_however_they_come(deltas: list[Any], meant: list[Any]) -> None:
    """Calls are numbered without gaps, each with an id of its own and arguments that are JSON."""
    got = read(*map(chunk, deltas), chunk({}, "tool_calls"))
    assert arguments(got) == meant
    firsts = [c for p in got.pieces if isinstance(p, Delta) for c in p.tool_calls if c.name]
    assert [c.index for c in firsts] == [*range(len(meant))]
    assert all(c.id for c in firsts)


def test_whole_calls_of_one_id_stay_apart() -> None:
    """In a whole reply each entry is a call, whatever its id."""
    entry = {"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}
    message = {"content": None, "tool_calls": [entry, entry]}
    told = {"choices": [{"message": message, "finish_reason": "stop"}]}
    got = whole(replies(), json.dumps(told).encode())
    assert [c.id for c in got.choices[0].tool_calls] == ["a", "call_1"]


def test_a_call_without_a_name_is_none() -> None:
    """Nobody can make a call whose name never came; and calls are not without number."""
    with pytest.raises(BadReply, match="name"):
        read(chunk(call(0, "a", args="{}")), chunk({}, "stop"))
    with pytest.raises(BadReply, match="more than"):
        read(*(chunk(call(i, name="f")) for i in range(1025)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_arguments_that_are_no_json_are_refused(value: float) -> None:
    """Arguments that came as an object are written as JSON, which has no such numbers."""
    function = {"name": "f", "arguments": {"x": value}}
    with pytest.raises(BadReply, match="cannot be read"):
        read(chunk({"tool_calls": [{"id": "a", "function": function}]}))


@pytest.mark.parametrize("index", [True, False, 1.0, "0", -1, 1])
def test_a_choice_that_nobody_asked_for_is_refused(index: object) -> None:
    """Choices are counted from 0, by whole numbers."""
    with pytest.raises(BadReply, match="nobody asked for"):
        read({"choices": [{"index": index, "delta": {"content": "a"}}]})


# -- log-probabilities, keepsakes, prefill -----------------------------------------------------

TOKEN = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
NEAR = [
    {"token": "b", "logprob": -2.0, "bytes": None},
    {"token": "a", "logprob": -0.5, "bytes": [97]},
]
LIKELY = (TokenLogprob("a", b"a", -0.5), TokenLogprob("b", b"b", -2.0))
SHAPES = {
    "objects": ({"logprobs": {"content": [{**TOKEN, "top_logprobs": NEAR}]}}),
    "arrays": (
        {
            "logprobs": {
                "tokens": ["a"],
                "token_logprobs": [-0.5],
                "top_logprobs": [{"b": -2.0, "a": -0.5}],
            }
        }
    ),
    "a number": ({"logprobs": -0.5, "top_logprobs": {"b": -2.0, "a": -0.5}}),
}


@pytest.mark.parametrize("more", SHAPES.values(), ids=SHAPES)
def test_logprobs_are_read_in_all_shapes(more: dict[str, Any]) -> None:
    """Each token comes with its likeliest neighbours, likeliest first, as many as were asked."""
    for top in (0, 1, 2):
        got = read(chunk({"content": "a"}, "stop", **more), top=top)
        assert got.choices[0].logprobs == (TokenLogprob("a", b"a", -0.5, LIKELY[:top]),)
    assert read(chunk({"content": "a"}, "stop", **more)).choices[0].logprobs == ()


@pytest.mark.parametrize("value", [float("nan"), True, "x", None, 10**400, [1]])
def test_logprobs_that_are_none_are_refused(value: Any) -> None:
    """A number that cannot be is a bad reply."""
    told = {"content": [{**TOKEN, "logprob": value}]}
    with pytest.raises(BadReply):
        read(chunk({"content": "a"}, "stop", logprobs=told), top=0)


def test_what_the_host_wants_back_is_kept() -> None:
    """Pieces of one entry are joined; the field's own name is the dialect of the keepsake."""
    kind = "reasoning.text"
    got = read(
        chunk({"reasoning_details": [{"type": kind, "index": 0, "text": "Hm", "id": "x"}]}),
        chunk({"reasoning_details": [{"type": kind, "index": 0, "text": "m.", "id": None}]}),
        chunk({"reasoning_details": [{"type": kind, "index": 0, "signature": "s"}]}),
        chunk({"reasoning_details": [{"type": "reasoning.encrypted", "index": 1, "data": "d"}]}),
        chunk({}, "stop"),
        preset="openrouter",
    )
    (kept,) = got.choices[0].keepsakes
    assert kept.dialect == "reasoning_details"
    assert json.loads(kept.data) == [
        {"type": kind, "index": 0, "id": "x", "signature": "s", "text": "Hmm."},
        {"type": "reasoning.encrypted", "index": 1, "data": "d"},
    ]
    assert read(chunk({"reasoning_details": [{}]}, "stop")).choices[0].keepsakes == ()


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (["He", "llo wor", "ld"], " world"),
        (["Hello"], ""),
        (["Hel"], "Hel"),
        (["Help", " me"], "Help me"),
    ],
)
def test_a_prefill_is_not_repeated(told: list[str], text: str) -> None:
    """What the reply begins with was given; a host that says it again is not believed to add it."""
    got = read(*(chunk({"content": t}) for t in told), chunk({}, "stop"), prefill="Hello")
    assert got.text == text


def test_half_a_character_is_replaced() -> None:
    """Lone surrogates, which JSON can hold and UTF-8 cannot, become U+FFFD."""
    got = streamed(replies(), [b'data: {"choices": [{"delta": {"content": "a\\ud83d"}}]}\n\n'])
    assert got.pieces == (Delta("a\ufffd"),)


def test_figures_that_cannot_be_are_put_right() -> None:
    """Parts are never larger than the whole, and thoughts counted beside the reply are added."""
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "total_tokens": 18,
        "prompt_tokens_details": {"cached_tokens": 9, "cache_write_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 10},
        "cost": "nan",
    }
    finish = read(chunk({}, "stop") | {"usage": usage}, preset="openrouter").finish
    assert finish is not None
    told = attrs.asdict(finish.usage)
    assert told["cached_tokens"] == 5
    assert told["cache_write_tokens"] == 0
    assert told["completion_tokens"] == 13
    assert told["reasoning_tokens"] == 10
    assert told["charged_microusd"] is None


# -- strangers ---------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=5)
    | st.sampled_from(["error", "stop", "null", "function", "thinking", "1e999999999"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "delta",
                    "message",
                    "content",
                    "text",
                    "type",
                    "thinking",
                    "reasoning",
                    "reasoning_details",
                    "tool_calls",
                    "function",
                    "name",
                    "id",
                    "index",
                    "arguments",
                    "finish_reason",
                    "logprobs",
                    "tokens",
                    "token_logprobs",
                    "top_logprobs",
                    "token",
                    "logprob",
                    "bytes",
                    "usage",
                    "prompt_tokens",
                    "completion_tokens",
                    "total_tokens",
                    "prompt_tokens_details",
                    "cached_tokens",
                    "prompt_cache_hit_tokens",
                    "prompt_cache_miss_tokens",
                    "cost",
                    "error",
                    "detail",
                    "x_groq",
                    "prompt_progress",
                    "total",
                    "processed",
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)


@given(st.lists(JSON, max_size=4), st.booleans(), st.sampled_from(["openrouter", "llama-server"]))
def test_a_stranger_s_json_makes_only_our_errors(
    messages: list[Any],
    is_nested: bool,  # noqa: FBT001 - drawn
    preset: str,
) -> None:
    """Whatever comes, it gives pieces or one of our errors."""
    for reader in (replies(preset, top=2, choices=2), replies(preset, prefill="err")):
        for message in messages:
            told = {"choices": [{"delta": message, **_fields(message)}]} if is_nested else message
            for read_it in (reader.whole, lambda each, take=reader.take: take("", each)):
                with contextlib.suppress(DispatcherError):
                    [*read_it(told)]
        assert reader.usage().total_tokens >= 0
        reader.finish()


def _fields(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


@given(st.data())
def test_however_a_stream_is_cut_it_reads_the_same(data: st.DataObject) -> None:
    """The pieces do not depend on where the chunks end, for any host."""
    preset = data.draw(st.sampled_from([*ROWS]))
    whole_stream = b"".join(spoken(preset, **SAYS, streams=True))
    edges = sorted(data.draw(st.lists(st.integers(0, len(whole_stream)), max_size=20)))
    chunks = [whole_stream[a:b] for a, b in pairwise([0, *edges, len(whole_stream)])]
    assert streamed(replies(preset), chunks) == streamed(replies(preset), [whole_stream])


def test_a_deep_nest_is_a_bad_reply() -> None:
    """Arguments that nest beyond all reason are read or refused, and nothing else."""
    deep: Any = 1
    for _ in range(200_000):
        deep = {"x": deep}
    with pytest.raises(BadReply):
        [*ChatReplies(Ways(), Expected()).take("", chunk(call(0, "a", "f", deep)))]
