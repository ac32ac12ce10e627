"""What is read from Ollama's replies, whole and in lines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from replies_of import bytewise, streamed, whole
from speaking_ollama import MODEL, continued, failed, spoken

from llmdispatcher.models.errors import AuthRejected, BadReply, EngineCrashed
from llmdispatcher.models.message import ToolCall
from llmdispatcher.models.reply import Delta, Finish, FinishReason, Usage
from llmdispatcher.vendors.ollama.stream import OllamaReplies

CALLS = (("call_a", "add", '{"a":1,"b":"ä"}'), ("", "now", "{}"))
REPLIES: tuple[dict[str, Any], ...] = (
    {"text": "It was 20 °C in Köln 🙂."},
    {"text": "It was", "finish": "length", "usage": (7, 2, 0)},
    {"text": "Yes.", "reasoning": "Let me think … done."},
    {"calls": CALLS, "finish": "tool_calls"},
    {"text": "I look.", "reasoning": "Hm.", "calls": CALLS, "finish": "tool_calls"},
)


def line(**told: Any) -> bytes:
    """Return a line."""
    return json.dumps({"model": MODEL, "done": False, **told}).encode() + b"\n"


def said(content: str, **told: Any) -> bytes:
    """Return a line of a conversation."""
    return line(message={"role": "assistant", "content": content}, **told)


END = said("", done=True, done_reason="stop", prompt_eval_count=7, eval_count=3)


@pytest.mark.parametrize("reply", REPLIES)
def test_in_lines_as_whole(reply: dict[str, Any]) -> None:
    """A reply in lines is the reply that comes whole."""
    one = whole(OllamaReplies(), b"".join(spoken(**reply, streams=False)))
    many = streamed(OllamaReplies(), spoken(**reply, streams=True), lines=True)
    assert one.choices == many.choices
    assert one.finish == many.finish
    (choice,) = one.choices
    assert choice.text == reply.get("text", "")
    assert choice.reasoning == reply.get("reasoning", "")
    assert choice.finish_reason == reply.get("finish", "stop")


@pytest.mark.parametrize("reply", REPLIES)
def test_cut_at_every_byte(reply: dict[str, Any]) -> None:
    """Where the stream is cut changes nothing."""
    lines = spoken(**reply, streams=True)
    expected = streamed(OllamaReplies(), lines, lines=True)
    assert streamed(OllamaReplies(), bytewise(b"".join(lines)), lines=True) == expected


@pytest.mark.parametrize("reply", REPLIES)
def test_ended_behind_every_line(reply: dict[str, Any]) -> None:
    """A stream that ends before its last line has no end."""
    lines = spoken(**reply, streams=True)
    for count in range(len(lines)):
        replies = OllamaReplies()
        assert streamed(replies, lines[:count], lines=True).finish is None
        assert not replies.is_done


def test_calls() -> None:
    """Calls are counted on over the lines, get an id where they have none, and end the reply."""
    read = streamed(OllamaReplies(), spoken(calls=CALLS, streams=True), lines=True)
    assert read.finish is not None
    assert read.finish.reason is FinishReason.TOOL_CALLS
    assert read.choices[0].tool_calls == (
        ToolCall("call_a", "add", '{"a":1,"b":"ä"}'),
        ToolCall("call_1", "now", "{}"),
    )


def test_arguments_left_out() -> None:
    """A call without arguments has an empty object of them, and text is taken as it is."""
    calls = [{"function": {"name": "a"}}, {"function": {"name": "b", "arguments": '{"x": 1}'}}]
    told = {"role": "assistant", "content": "", "tool_calls": calls}
    read = whole(OllamaReplies(), line(message=told, done=True, done_reason="stop"))
    assert [call.arguments for call in read.choices[0].tool_calls] == ["{}", '{"x": 1}']


def test_the_end_of_a_reply() -> None:
    """The end tells the figures and the model, and ends the reading."""
    replies = OllamaReplies()
    read = streamed(replies, [said("A"), END, said("B")], lines=True)
    assert replies.is_done
    assert read.text == "A"
    usage = Usage(prompt_tokens=7, completion_tokens=3)
    assert read.finish == Finish(FinishReason.STOP, usage, served_model=MODEL)


def test_a_raw_prompts_reply() -> None:
    """What goes on behind a raw prompt is read in both forms."""
    for streams in (True, False):
        pieces = continued(text="upon a time", streams=streams)
        read = (
            streamed(OllamaReplies(), pieces, lines=True)
            if streams
            else whole(OllamaReplies(), pieces[0])
        )
        assert read.text == "upon a time"


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ({"done": True, "done_reason": ""}, None),
        ({"done": True}, None),
        ({"done": "yes", "done_reason": "stop"}, None),
        ({"done": True, "done_reason": 5}, None),
        ({"done": True, "done_reason": "tired"}, FinishReason.UNKNOWN),
        ({"done": True, "done_reason": "length"}, FinishReason.LENGTH),
    ],
)
def test_reasons(end: dict[str, Any], reason: FinishReason | None) -> None:
    """A reply without a reason was cut, and a reason that nobody knows is unknown."""
    for read in (
        whole(OllamaReplies(), said("A", **end)),
        streamed(OllamaReplies(), [said("A", **end)], lines=True),
    ):
        assert (read.finish.reason if read.finish else None) is reason


@pytest.mark.parametrize("reason", ["load", "unload"])
def test_an_answer_that_only_loaded(reason: str) -> None:
    """What loads or unloads a model is no reply."""
    with pytest.raises(BadReply, match=reason):
        whole(OllamaReplies(), said("", done=True, done_reason=reason))


def test_an_error_inside() -> None:
    """An error behind the first piece is raised as what it stands for."""
    lines = [chunk for chunk in failed("inside").chunks if isinstance(chunk, bytes)]
    replies = OllamaReplies()
    with pytest.raises(EngineCrashed, match="unexpected EOF"):
        streamed(replies, lines, lines=True)
    assert replies.finish() is None
    with pytest.raises(AuthRejected, match="ollama signin"):
        whole(OllamaReplies(), b'{"error": "unauthorized", "signin_url": "https://x"}')


def test_usage_until_now() -> None:
    """Before the end, usage is counted in pieces and marked as estimated."""
    replies = OllamaReplies(prompt_bytes=9)
    assert replies.usage() == Usage(prompt_tokens=3, estimated=True)
    streamed(replies, [said("a"), said("b")], lines=True)
    assert replies.usage() == Usage(prompt_tokens=3, completion_tokens=2, estimated=True)


def test_figures_that_are_left_out() -> None:
    """Ollama leaves out a figure of 0: with text there it is estimated, without it is 0."""
    read = whole(OllamaReplies(prompt_bytes=8), said("twelve chars", done=True, done_reason="stop"))
    assert read.finish is not None
    assert read.finish.usage == Usage(prompt_tokens=2, completion_tokens=3, estimated=True)
    empty = said("", done=True, done_reason="stop", prompt_eval_count=7)
    assert whole(OllamaReplies(), empty).finish == Finish(
        FinishReason.STOP, Usage(prompt_tokens=7), served_model=MODEL
    )


@pytest.mark.parametrize("told", [True, -1, "7", None, float("nan"), [7]])
def test_figures_that_are_none(told: object) -> None:
    """A figure that is no number counts as one that is left out."""
    end = said("a", done=True, done_reason="stop", prompt_eval_count=told, eval_count=told)
    finish = whole(OllamaReplies(prompt_bytes=4), end).finish
    assert finish is not None
    assert finish.usage == Usage(prompt_tokens=1, completion_tokens=1, estimated=True)


def test_a_model_of_the_cloud() -> None:
    """Where Ollama passes a request on, the model that served is the one behind it."""
    end = said("a", done=True, done_reason="stop", remote_model="gpt-oss:120b")
    finish = whole(OllamaReplies(), end).finish
    assert finish is not None
    assert finish.served_model == "gpt-oss:120b"


TOKEN = {"token": "ä", "logprob": -0.5, "bytes": [195, 164]}


def test_logprobs() -> None:
    """Log-probabilities come with their pieces, at most as many neighbours as were asked for."""
    near = [TOKEN, {"token": "b", "logprob": -1}, {"token": "c", "logprob": -2}]
    one = said("ä", logprobs=[{**TOKEN, "top_logprobs": near}])
    read = streamed(OllamaReplies(top=2), [one, END], lines=True)
    (told,) = read.choices[0].logprobs
    assert (told.token, told.data, told.logprob) == ("ä", "ä".encode(), -0.5)
    assert [(each.token, each.logprob) for each in told.top] == [("ä", -0.5), ("b", -1.0)]
    assert read.finish is not None
    assert not read.finish.warnings


def test_logprobs_without_text() -> None:
    """Log-probabilities of text that is held back come alone, and none come unasked."""
    lines = [said("", logprobs=[TOKEN]), END]
    assert [type(piece) for piece in streamed(OllamaReplies(top=0), lines, lines=True).pieces] == [
        Delta
    ]
    assert streamed(OllamaReplies(), lines, lines=True).pieces == ()


def test_logprobs_that_do_not_come() -> None:
    """A server that ignores the wish for log-probabilities is told of."""
    finish = streamed(OllamaReplies(top=0), [said("a"), END], lines=True).finish
    assert finish is not None
    assert "0.12.11" in finish.warnings[0]


@pytest.mark.parametrize(
    "told",
    [
        [5],
        [{"token": "a"}],
        [{"token": "a", "logprob": "x"}],
        [{"token": "a", "logprob": float("nan")}],
        [{"token": "a", "logprob": 10**400}],
        [{"token": "a", "logprob": -1, "bytes": [300]}],
        [{"token": "a", "logprob": -1, "bytes": ["x"]}],
        [{"token": "a", "logprob": -1, "top_logprobs": [None]}],
    ],
)
def test_logprobs_that_cannot_be_read(told: object) -> None:
    """Log-probabilities that are none are a bad reply."""
    with pytest.raises(BadReply):
        streamed(OllamaReplies(top=1), [said("a", logprobs=told)], lines=True)


@pytest.mark.parametrize(
    "message",
    [
        [],
        "text",
        None,
        {"message": {"content": 5}},
        {"message": {"content": "a", "thinking": {}}},
        {"message": {"tool_calls": [{}]}},
        {"message": {"tool_calls": ["x"]}},
        {"message": {"tool_calls": [{"function": {"name": ""}}]}},
        {"message": {"tool_calls": [{"function": {"name": "a", "arguments": 5}}]}},
        {"message": {"tool_calls": [{"function": {"name": "a", "arguments": {"x": 1e999}}}]}},
        {"response": []},
        {"error": {"deep": 1}},
        {"error": True},
    ],
)
def test_what_cannot_be_read(message: object) -> None:
    """What is no reply is a bad reply, whole and in lines."""
    with pytest.raises(BadReply):
        [*OllamaReplies().take("", message)]
    with pytest.raises(BadReply):
        [*OllamaReplies().whole(message)]


def test_what_is_not_known() -> None:
    """Unknown fields and messages without content change nothing."""
    lines = [line(), line(message={}), line(message=None, new=[1]), said("A", new={}), END]
    assert streamed(OllamaReplies(), lines, lines=True).text == "A"


def test_half_characters() -> None:
    """Half of a character that no UTF-8 can hold is replaced, in texts and in arguments."""
    call = {"id": "\ud800", "function": {"name": "a\udc00", "arguments": {"k\ud800": "\udfff"}}}
    told = {"content": "a\ud83d", "thinking": "\ude00b🙂", "tool_calls": [call]}
    read = whole(OllamaReplies(), line(message=told, done=True, done_reason="stop"))
    (choice,) = read.choices
    assert (choice.text, choice.reasoning) == ("a�", "�b🙂")
    assert choice.tool_calls == (ToolCall("�", "a�", '{"k�":"�"}'),)
