"""What a conversation becomes on its way to Gemini."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from asking_gemini import NEW, OLD, TOP, ask, body

from llmdispatcher import Image, Message, Request, ToolCall
from llmdispatcher.models.errors import BadRequest, Unsupported
from llmdispatcher.models.message import Keepsake, assistant, system, tool, user
from llmdispatcher.vendors.gemini import keepsakes

PIXEL = b"\x89PNG"


def turns(*messages: Message, model: str = OLD) -> list[dict[str, Any]]:
    """Return the turns of a conversation as they would be sent."""
    return list(body(Request.of([*messages]), model)["contents"])


def test_turns_have_two_roles_and_the_system_stands_apart() -> None:
    """Consecutive turns of one role are one, and what the system says is in none of them."""
    sent = body(
        Request.of(
            [system("S"), user("A"), user(["B", "C"]), assistant("D"), system("T"), user("E")]
        )
    )
    assert sent["systemInstruction"] == {"parts": [{"text": "S"}, {"text": "T"}]}
    assert sent["contents"] == [
        {"role": "user", "parts": [{"text": "A"}, {"text": "B"}, {"text": "C"}]},
        {"role": "model", "parts": [{"text": "D"}]},
        {"role": "user", "parts": [{"text": "E"}]},
    ]
    assert sent.keys() <= TOP
    assert turns(user([]), assistant("")) == [{"role": "user", "parts": [{"text": ""}]}]


def test_results_of_tools_bear_the_name_of_the_call() -> None:
    """The name is found by the id; JSON objects go as they are, and other text as the output."""
    calls = [ToolCall("c1", "add", '{"x": 1}'), ToolCall("c2", "sub", "")]
    sent = turns(
        user("A"),
        Message("assistant", "B", calls, reasoning="I think."),
        tool("c1", '{"sum": 2}'),
        tool("c2", "[1]"),
        user("C"),
    )
    assert sent[1]["parts"] == [
        {"text": "B"},
        {"functionCall": {"id": "c1", "name": "add", "args": {"x": 1}}},
        {"functionCall": {"id": "c2", "name": "sub", "args": {}}},
    ]
    assert sent[2]["parts"] == [
        {"functionResponse": {"id": "c1", "name": "add", "response": {"sum": 2}}},
        {"functionResponse": {"id": "c2", "name": "sub", "response": {"output": "[1]"}}},
        {"text": "C"},
    ]


@pytest.mark.parametrize("text", ["NaN", '{"x": NaN}', '{"x": 1e999}', "{", '"x"', "[" * 100000])
def test_a_result_that_is_no_sendable_object_goes_as_text(text: str) -> None:
    """Numbers that JSON cannot write, and JSON that is none, are sent as the text that they are."""
    call = ToolCall("c", "f", "{}")
    sent = turns(user("A"), Message("assistant", "", [call]), tool(call, text))
    assert sent[2]["parts"][0]["functionResponse"]["response"] == {"output": text}


def test_pictures_go_inline_or_by_address() -> None:
    """Bytes and data: URLs go inline; addresses go with the kind that their end tells."""
    encoded = base64.b64encode(PIXEL).decode()
    inline = {"inlineData": {"mimeType": "image/png", "data": encoded}}
    pictures = [
        Image(PIXEL),
        Image(url=f"data:image/png;base64,{encoded}"),
        Image(url="data:image/png,%89PNG"),
        Image(url="https://x.test/a.JPG?b=c.d"),
        Image(url="https://x.test/a"),
        Image(url="gs://x/a", media_type="image/webp"),
    ]
    parts = turns(user(pictures))[0]["parts"]
    assert parts[:3] == [inline, inline, inline]
    assert [part["fileData"]["mimeType"] for part in parts[3:]] == [
        "image/jpeg",
        "image/png",
        "image/webp",
    ]
    assert parts[3]["fileData"]["fileUri"] == "https://x.test/a.JPG?b=c.d"


def test_results_with_pictures() -> None:
    """From version 3 on the result of a tool may hold pictures."""
    call = ToolCall("c", "f", "{}")
    talk = [user("A"), Message("assistant", "", [call]), tool(call, ["seen", Image(PIXEL)])]
    response = turns(*talk, model=NEW)[2]["parts"][0]["functionResponse"]
    assert response["response"] == {"output": "seen"}
    assert response["parts"][0]["inlineData"]["mimeType"] == "image/png"
    with pytest.raises(Unsupported, match="version 3"):
        turns(*talk)


def test_signatures_go_back_on_their_parts() -> None:
    """A signed stretch of text is a part of its own again, and a call has its signature beside."""
    kept = [
        keepsakes.of_part({"thought": True, "text": "T", "thoughtSignature": "czA="}, 0),
        keepsakes.of_text(3, 5, "czE="),
        keepsakes.of_part({"executableCode": {"code": "1", "language": "PYTHON"}}, 5),
        keepsakes.of_call("c1", "czI="),
        Keepsake("anthropic", "{}"),
    ]
    call = ToolCall("c1", "add", "{}")
    turn = Message("assistant", "Hello!", [call], keepsakes=kept)
    sent = turns(user("A"), turn, tool(call, "2"), model=NEW)
    assert sent[1]["parts"] == [
        {"thought": True, "text": "T", "thoughtSignature": "czA="},
        {"text": "Hel"},
        {"text": "lo", "thoughtSignature": "czE="},
        {"executableCode": {"code": "1", "language": "PYTHON"}},
        {"text": "!"},
        {
            "functionCall": {"id": "c1", "name": "add", "args": {}},
            "thoughtSignature": "czI=",
        },
    ]


def test_signatures_of_a_text_that_was_changed_are_left_out() -> None:
    """What fits nowhere any more belongs to a text that is no longer sent."""
    kept = [keepsakes.of_text(0, 3, "YQ=="), keepsakes.of_text(2, 4, "Yg==")]
    kept += [keepsakes.of_text(5, 90, "Yw=="), keepsakes.of_part({"toolCall": {}}, 99)]
    sent = turns(user("A"), Message("assistant", "Hello", keepsakes=kept))
    assert sent[1]["parts"] == [{"text": "Hel", "thoughtSignature": "YQ=="}, {"text": "lo"}]


@pytest.mark.parametrize(
    "data", ["", "x", "[]", "{}", '{"call": 1}', '{"text": [1], "signature": "s"}', "[" * 100000]
)
def test_keepsakes_that_were_not_made_here(data: str) -> None:
    """A keepsake of ours that cannot be read is the caller's mistake, and is told."""
    turn = Message("assistant", "x", keepsakes=[Keepsake("gemini", data)])
    with pytest.raises(BadRequest, match="keepsakes"):
        turns(user("A"), turn)


def test_calls_of_other_models_stand_in_for_signed_ones() -> None:
    """Version 3 wants a signature on the first call of a step; older turns it does not look at."""
    one, two = ToolCall("c1", "add", "{}"), ToolCall("c2", "add", "{}")
    talk = [
        user("A"),
        Message("assistant", "", [one]),
        tool(one, "1"),
        user("B"),
        Message("assistant", "", [one, two]),
        tool(one, "1"),
        tool(two, "2"),
    ]
    sent = turns(*talk, model=NEW)
    signed = [
        part.get("thoughtSignature") for turn in sent for part in turn["parts"] if len(part) > 1
    ]
    assert signed == [keepsakes.UNSIGNED]
    assert "thoughtSignature" in sent[3]["parts"][0]
    assert "thoughtSignature" not in json.dumps(turns(*talk))


MISTAKEN: list[Callable[[], Request]] = [
    lambda: Request.of([system("only")]),
    lambda: Request.of([user("x"), tool("nobody", "1")]),
    lambda: Request.of([user("x"), Message("tool", "1")]),
    lambda: Request.of([user("x"), Message("assistant", "", [ToolCall("c", "f", "[1]")])]),
    lambda: Request.of([user("x"), Message("assistant", "", [ToolCall("c", "f", "{")])]),
    lambda: Request.of(user([Image(url="data:image/png;base64,%%%")])),
    lambda: Request.of(user([Image(url="data:image/png;base64")])),
]


@pytest.mark.parametrize("make", MISTAKEN)
def test_what_cannot_be_sent_is_a_mistake(make: Callable[[], Request]) -> None:
    """Conversations that are none, and JSON and URLs that cannot be read, are the caller's."""
    with pytest.raises(BadRequest):
        ask(make())
