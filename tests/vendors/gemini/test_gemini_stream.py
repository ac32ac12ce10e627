"""What is read from Gemini's answers, whole and in pieces."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from asking_gemini import OLD, WIRE
from replies_of import Read, bytewise, streamed, whole
from speaking_gemini import event, failed, message, spoken

from llmdispatcher import Message, Request, ToolCall
from llmdispatcher.models.errors import AuthRejected, BadReply, ContentRefused, Overloaded
from llmdispatcher.models.message import Keepsake, user
from llmdispatcher.models.reply import Delta, FinishReason, TokenLogprob, Usage
from llmdispatcher.vendors.gemini import keepsakes
from llmdispatcher.vendors.wire.exchange import Replies

PLAIN = Request.of("x")


def replies(request: Request = PLAIN) -> Replies:
    """Return who reads the answer to a request."""
    (exchange,) = WIRE.exchanges(request, WIRE.card(OLD))
    return exchange.replies


def told(*messages: object, request: Request = PLAIN) -> Read:
    """Read a stream of messages."""
    return streamed(replies(request), map(event, messages), n=request.n)


def ended(reason: str, *parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a message that ends a candidate."""
    candidate = {"content": {"parts": [*parts]}, "finishReason": reason, **fields}
    return {"candidates": [candidate]}


CANONICAL: list[dict[str, Any]] = [
    {"text": "Hello, Wörld! 😀", "usage": (5, 7, 2)},
    {"text": "So.", "reasoning": "Let me think…", "usage": (5, 8, 0)},
    {"calls": [("a", "add", '{"x":1}'), ("b", "sub", "{}")], "finish": "tool_calls"},
    {"text": "Cut", "finish": "length"},
    {"finish": "content_filter"},
    {},
]


def looked_up(case: dict[str, Any], read: Read) -> None:
    """Compare what was read with what was spoken."""
    prompt, completion, cached = case.get("usage", (0, 0, 0))
    thoughts = completion // 2 if "reasoning" in case else 0
    choice = read.choices[0]
    assert choice.text == case.get("text", "")
    assert choice.reasoning == case.get("reasoning", "")
    calls = [(call.id, call.name, call.arguments) for call in choice.tool_calls]
    assert calls == case.get("calls", [])
    assert read.finish is not None
    assert read.finish.reason == case.get("finish", "stop")
    assert (read.finish.request_id, read.finish.served_model) == ("resp-1", OLD)
    if completion:
        assert read.finish.usage == Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            cached_tokens=cached,
            reasoning_tokens=thoughts,
        )


@pytest.mark.parametrize("case", CANONICAL)
def test_streams_and_whole_answers_say_the_same(case: dict[str, Any]) -> None:
    """A reply is the same whole, in events, cut at every byte, and as an array of its events."""
    (body,) = spoken(**case, streams=False)
    events = spoken(**case, streams=True)
    looked_up(case, whole(replies(), body))
    plain = streamed(replies(), events)
    looked_up(case, plain)
    assert streamed(replies(), bytewise(b"".join(events))) == plain
    messages = [json.loads(each.removeprefix(b"data:")) for each in events]
    looked_up(case, whole(replies(), json.dumps(messages).encode()))
    looked_up(case, streamed(replies(), bytewise(event(messages))))


@pytest.mark.parametrize("case", CANONICAL)
def test_a_stream_that_is_cut_is_not_whole(case: dict[str, Any]) -> None:
    """Without its last message a reply has no end."""
    events = spoken(**case, streams=True)
    for count in range(len(events)):
        assert streamed(replies(), events[:count]).finish is None
    assert whole(replies(), b"{}").finish is None


REASONS: dict[str, FinishReason] = {
    "STOP": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    "CONTINUATION": FinishReason.LENGTH,
    "SAFETY": FinishReason.CONTENT_FILTER,
    "RECITATION": FinishReason.CONTENT_FILTER,
    "LANGUAGE": FinishReason.CONTENT_FILTER,
    "BLOCKLIST": FinishReason.CONTENT_FILTER,
    "PROHIBITED_CONTENT": FinishReason.CONTENT_FILTER,
    "SPII": FinishReason.CONTENT_FILTER,
    "ESCALATION": FinishReason.CONTENT_FILTER,
    "MODEL_ARMOR": FinishReason.CONTENT_FILTER,
    "IMAGE_SAFETY": FinishReason.CONTENT_FILTER,
    "OTHER": FinishReason.UNKNOWN,
    "FINISH_REASON_UNSPECIFIED": FinishReason.UNKNOWN,
    "SOMETHING_NEW": FinishReason.UNKNOWN,
}


@pytest.mark.parametrize(("reason", "expected"), REASONS.items())
def test_why_a_reply_ended(reason: str, expected: FinishReason) -> None:
    """Gemini's many reasons are our few; new ones are unknown."""
    read = told(ended(reason, {"text": "x"}))
    assert read.finish is not None
    assert read.finish.reason is expected


@pytest.mark.parametrize(
    "reason",
    [
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
        "MALFORMED_RESPONSE",
    ],
)
def test_an_end_that_is_a_failure(reason: str) -> None:
    """A reply that Gemini could not make is no reply, and why is told."""
    with pytest.raises(BadReply, match=f"{reason}: call of nothing"):
        told(ended(reason, finishMessage="call of nothing"))


def test_an_account_that_was_limited() -> None:
    """Another vendor may serve, this one does not."""
    with pytest.raises(AuthRejected, match="PUP_LIMITED_DISABLED"):
        told(ended("PUP_LIMITED_DISABLED"))


def test_a_prompt_that_was_blocked() -> None:
    """Without candidates, the reason why the prompt was refused is an error."""
    body = b"".join(chunk for chunk in failed("filter").chunks if isinstance(chunk, bytes))
    with pytest.raises(ContentRefused, match="SAFETY"):
        whole(replies(), body)
    with pytest.raises(ContentRefused, match="Not this"):
        told({"promptFeedback": {"blockReason": "OTHER", "blockReasonMessage": "Not this"}})
    blocked = {"promptFeedback": {"blockReason": "OTHER"}, **ended("STOP", {"text": "x"})}
    assert told(blocked).text == "x"


def test_errors_inside_a_stream() -> None:
    """An error that comes after text, and is no event, is the error that it is."""
    chunks = [chunk for chunk in failed("inside").chunks if isinstance(chunk, bytes)]
    for cut in (chunks, bytewise(b"".join(chunks))):
        with pytest.raises(Overloaded):
            streamed(replies(), cut)
    wrapped = [{"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}]
    with pytest.raises(Overloaded):
        replies().whole(wrapped)


def test_calls_without_ids_get_made_ones() -> None:
    """They count on from the calls of the conversation, so that no two are alike."""
    call = {"functionCall": {"name": "f", "args": {"ü": [1, None]}}}
    read = told(message([call]), ended("STOP", call, {"functionCall": {"name": "g"}}))
    assert read.choices[0].tool_calls == (
        ToolCall("call_0", "f", '{"ü":[1,null]}'),
        ToolCall("call_1", "f", '{"ü":[1,null]}'),
        ToolCall("call_2", "g", "{}"),
    )
    before = Message("assistant", "", read.choices[0].tool_calls)
    request = Request.of([user("x"), before, Message("tool", "1", tool_call_id="call_0")])
    assert told(ended("STOP", call), request=request).choices[0].tool_calls[0].id == "call_3"


def test_a_call_cut_short_is_no_call() -> None:
    """A limit that was reached stays one, whatever was called before."""
    read = told(ended("MAX_TOKENS", {"functionCall": {"name": "f"}}))
    assert read.finish is not None
    assert read.finish.reason is FinishReason.LENGTH


def test_signatures_are_kept_and_go_back_on_their_parts() -> None:
    """What came signed is sent again part for part, however it was cut into messages."""
    parts: list[dict[str, Any]] = [
        {"text": "Hm.", "thought": True, "thoughtSignature": "czA="},
        {"text": "Let "},
        {"text": "me see", "thoughtSignature": "czE="},
        {"executableCode": {"code": "1"}},
        {"text": "", "thoughtSignature": "czI="},
        {"functionCall": {"id": "a", "name": "f", "args": {}}, "thoughtSignature": "czM="},
        {"functionCall": {"id": "b", "name": "f", "args": {}}},
    ]
    one_by_one = told(*(message([part]) for part in parts), ended("STOP"))
    at_once = told(ended("STOP", *parts))
    for read in (one_by_one, at_once):
        choice = read.choices[0]
        turn = Message("assistant", choice.text, choice.tool_calls, keepsakes=choice.keepsakes)
        results = [Message("tool", "1", tool_call_id=name) for name in "ab"]
        request = Request.of([user("x"), turn, *results])
        (exchange,) = WIRE.exchanges(request, WIRE.card("gemini-3.8-flash"))
        assert exchange.ask.body is not None
        assert exchange.ask.body["contents"][1]["parts"] == parts


def test_parts_of_unknown_kinds() -> None:
    """They are no text; signed ones are kept, for Gemini wants those back."""
    drawn = {"inlineData": {"mimeType": "image/png", "data": "AA=="}}
    read = told(message([drawn, {"videoMetadata": {}}]), ended("STOP", {"text": "x"}))
    assert read.choices[0].keepsakes == ()
    signed = {**drawn, "thoughtSignature": "czE="}
    kept = told(ended("STOP", {"text": "ab"}, signed)).choices[0].keepsakes
    assert kept == (keepsakes.of_part(signed, 2),)
    assert isinstance(kept[0], Keepsake)


def test_several_candidates() -> None:
    """Each has its text and its end; a reply is whole when all have ended."""
    request = Request.of("x", n=3)

    def said(index: int, text: str, reason: str = "") -> dict[str, Any]:
        candidate = {"index": index, "content": {"parts": [{"text": text}]}}
        return candidate | ({"finishReason": reason} if reason else {})

    messages = [
        {"candidates": [said(0, "a"), said(1, "b")]},
        {"candidates": [said(2, "c", "MAX_TOKENS"), said(1, "B", "STOP")]},
    ]
    assert told(*messages, request=request).finish is None
    read = told(*messages, {"candidates": [said(0, "A", "SAFETY")]}, request=request)
    assert [choice.text for choice in read.choices] == ["aA", "bB", "c"]
    assert read.finish is not None
    assert read.finish.reason is FinishReason.CONTENT_FILTER
    assert read.finish.others == (FinishReason.STOP, FinishReason.LENGTH)
    unnumbered = [{"content": {"parts": [{"text": text}]}} for text in "abc"]
    placed = replies(request).take("", {"candidates": unnumbered})
    assert [(d.index, d.text) for d in placed if isinstance(d, Delta)] == [
        (0, "a"),
        (1, "b"),
        (2, "c"),
    ]
    for index in (3, -1, True, "0", None, 1.0):
        with pytest.raises(BadReply):
            replies(request).take("", {"candidates": [{"index": index}]})


def test_log_probabilities() -> None:
    """As many of the likeliest are told as were asked for; a certain token's may be left out."""
    result = {
        "chosenCandidates": [{"token": "ä", "logProbability": -0.5}, {"token": "!"}],
        "topCandidates": [
            {"candidates": [{"token": c, "logProbability": -i} for i, c in enumerate("abc")]}
        ],
    }
    answer = ended("STOP", {"text": "ä!"}, logprobsResult=result)
    top = (TokenLogprob("a", b"a", 0.0), TokenLogprob("b", b"b", -1.0))
    read = told(answer, request=Request.of("x", logprobs=2))
    assert read.choices[0].logprobs == (
        TokenLogprob("ä", "ä".encode(), -0.5, top),
        TokenLogprob("!", b"!", 0.0),
    )
    assert told(answer).choices[0].logprobs == ()
    for bad in (True, "x", float("nan"), float("-inf")):
        broken = {"chosenCandidates": [{"token": "x", "logProbability": bad}]}
        with pytest.raises(BadReply):
            replies(Request.of("x", logprobs=0)).take("", ended("STOP", logprobsResult=broken))


USAGES: list[tuple[Sequence[dict[str, Any]], Usage]] = [
    (
        [{"promptTokenCount": 3}, {"promptTokenCount": 3, "candidatesTokenCount": 2}],
        Usage(prompt_tokens=3, completion_tokens=2),
    ),
    (
        [
            {"promptTokenCount": 9, "cachedContentTokenCount": 4, "candidatesTokenCount": 1},
            {"promptTokenCount": 9, "thoughtsTokenCount": 5, "toolUsePromptTokenCount": 1},
        ],
        Usage(prompt_tokens=10, completion_tokens=6, cached_tokens=4, reasoning_tokens=5),
    ),
    (
        [{"promptTokenCount": 2, "cachedContentTokenCount": 8, "candidatesTokenCount": 1}],
        Usage(prompt_tokens=2, completion_tokens=1, cached_tokens=2),
    ),
    ([], Usage(prompt_tokens=1, completion_tokens=2, estimated=True)),
    ([{"promptTokenCount": 7}], Usage(prompt_tokens=7, completion_tokens=2, estimated=True)),
    (
        [{"candidatesTokenCount": 1e400, "thoughtsTokenCount": 5, "promptTokenCount": "x"}],
        Usage(completion_tokens=2**63 - 1, reasoning_tokens=5),
    ),
]


@pytest.mark.parametrize(("usages", "expected"), USAGES)
def test_what_was_used(usages: Sequence[dict[str, Any]], expected: Usage) -> None:
    """Figures grow from message to message; without them, four bytes count as a token."""
    reader = replies()
    for usage in usages:
        reader.take("", {"usageMetadata": usage})
    reader.take("", ended("STOP", {"text": "12345"}))
    assert reader.usage() == expected


HOSTILE: list[Any] = [
    None,
    1,
    "x",
    [1],
    [[{}]],
    {"candidates": [None]},
    {"candidates": ["x"]},
    ended("STOP", {"text": 1}),
    {"candidates": [{"content": {"parts": ["x"]}}]},
    {"candidates": [{"finishReason": 1}]},
    ended("STOP", {"functionCall": None}),
    ended("STOP", {"functionCall": {"name": ""}}),
    ended("STOP", {"functionCall": {"name": "f", "args": []}}),
    ended("STOP", {"functionCall": {"name": "f", "args": {"x": float("nan")}}}),
    ended("STOP", {"functionCall": {"name": "f", "id": 1}}),
    ended("STOP", {"thought": True, "text": "x", "y": float("inf"), "thoughtSignature": "s"}),
    ended("STOP", {"text": "x", "thoughtSignature": 1}),
    {"promptFeedback": {"blockReason": "x", "blockReasonMessage": 1}},
]


@pytest.mark.parametrize("answer", HOSTILE)
def test_what_is_no_reply_is_bad(answer: Any) -> None:
    """Whatever comes in the wrong type is told as that."""
    with pytest.raises(BadReply):
        replies().take("", answer)
    with pytest.raises(BadReply):
        replies().whole(answer)


def test_half_a_character_is_replaced() -> None:
    """Names that a reply can do without can be written as UTF-8 too."""
    got = told(ended("STOP", {"text": "a"}) | {"modelVersion": "m\ud83d", "responseId": "\ude00"})
    assert got.finish is not None
    assert (got.finish.served_model, got.finish.request_id) == ("m\ufffd", "\ufffd")


def test_arguments_without_end_are_bad() -> None:
    """JSON that is nested beyond reason is no reply either."""
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"x": deep}
    for part in ({"functionCall": {"name": "f", "args": deep}}, {"toolCall": deep}):
        with pytest.raises(BadReply):
            replies().take("", ended("STOP", part))
