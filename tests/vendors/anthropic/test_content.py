"""What the turns of a conversation become on their way to Anthropic."""

from __future__ import annotations

import pytest
from asking_anthropic import (
    ADD,
    LOCAL,
    OLD,
    SUB,
    body,
    refused,
)

from llmdispatcher import Image, Message, Request, ToolCall
from llmdispatcher.models.errors import BadRequest
from llmdispatcher.models.message import Keepsake, Text, assistant, system, tool, user


def test_a_conversation_goes_as_turns_of_blocks() -> None:
    """The system is apart, turns of one role become one, and tools answer in the user's turn."""
    call = ToolCall("c:1", "add", '{"x": 1}')
    talk = [
        system("S"),
        system("T"),
        user(["A", "B"]),
        Message("assistant", ["Well."], [call, ToolCall("c2", "sub", "")]),
        tool(call, "2"),
        tool("c2", ""),
        user([Image(b"PNG"), "What?"]),
    ]
    sent = body(Request.of(talk, tools=[ADD, SUB]))
    assert [block["text"] for block in sent["system"]] == ["S", "T"]
    assert sent["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Well."},
                {"type": "tool_use", "id": "c_1", "name": "add", "input": {"x": 1}},
                {"type": "tool_use", "id": "c2", "name": "sub", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "c_1",
                    "content": [{"type": "text", "text": "2"}],
                },
                {"type": "tool_result", "tool_use_id": "c2"},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": "UE5H"},
                },
                {"type": "text", "text": "What?"},
            ],
        },
    ]


def test_thoughts_go_back_first_and_unchanged() -> None:
    """What the vendor wanted back goes in front of the turn; other dialects' does not go at all."""
    kept = (
        Keepsake("anthropic", '{"type": "thinking", "thinking": "Hm \\ud800", "signature": "s"}'),
        Keepsake("gemini", '{"thoughtSignature": "g"}'),
        Keepsake("anthropic", '{"type": "redacted_thinking", "data": "d"}'),
    )
    turn = Message("assistant", "So.", reasoning="Hm", keepsakes=kept)
    sent = body(Request.of([user("A"), turn, user("B")]), wire=LOCAL)
    assert [block["type"] for block in sent["messages"][1]["content"]] == [
        "thinking",
        "redacted_thinking",
        "text",
    ]
    assert sent["messages"][1]["content"][0]["thinking"] == "Hm \ud800"

    bare = Message("assistant", "So.", reasoning="Hm")
    (block,) = body(Request.of([user("A"), bare, user("B")]))["messages"][1]["content"]
    assert block == {"type": "text", "text": "So."}
    first, _ = body(Request.of([user("A"), bare]), wire=LOCAL)["messages"][1]["content"]
    assert first == {"type": "thinking", "thinking": "Hm", "signature": ""}

    for damaged in ("{", "[1]", "[" * 100_000):
        turn = Message("assistant", "So.", keepsakes=[Keepsake("anthropic", damaged)])
        with pytest.raises(BadRequest, match="keepsakes"):
            body(Request.of([user("A"), turn, user("B")]))


def test_empty_parts_are_left_out() -> None:
    """The API takes no empty text; an empty turn of the user is sent, for the vendor to refuse."""
    sent = body(Request.of([user(["", "A"]), assistant(""), user("B"), assistant("C"), user("")]))
    assert [turn["role"] for turn in sent["messages"]] == ["user", "assistant", "user"]
    assert [block["text"] for block in sent["messages"][0]["content"]] == ["A", "B"]
    assert sent["messages"][2]["content"] == [{"type": "text", "text": ""}]


def test_marks_for_the_cache() -> None:
    """A hint becomes a mark, of a tool's answer as a whole; of more than four the last stay."""
    talk = [
        system([Text("S", cache=True)]),
        user([Text("A", cache=True), Text("", cache=True)]),
        Message("assistant", "", [ToolCall("c", "add", "{}")]),
        tool("c", [Text("1", cache=True), Text("2", cache=True)]),
        user([Text("B", cache=True), Text("C", cache=True)]),
    ]
    sent = body(Request.of(talk, tools=[ADD]))
    assert sent["system"] == [{"type": "text", "text": "S"}]
    blocks = [block for turn in sent["messages"] for block in turn["content"]]
    marked = [block["type"] for block in blocks if "cache_control" in block]
    assert marked == ["text", "tool_result", "text", "text"]
    assert blocks[2]["content"] == [{"type": "text", "text": "1"}, {"type": "text", "text": "2"}]


@pytest.mark.parametrize(
    ("image", "source"),
    [
        (Image(url="HTTPS://x/y.png"), {"type": "url", "url": "HTTPS://x/y.png"}),
        (
            Image(url="data:image/WEBP;base64,UE5H"),
            {"type": "base64", "media_type": "image/webp", "data": "UE5H"},
        ),
    ],
)
def test_addresses_of_pictures(image: Image, source: object) -> None:
    """Addresses go as they are, and data in them as data."""
    (turn,) = body(Request.of(user(image)))["messages"]
    assert turn["content"] == [{"type": "image", "source": source}]


@pytest.mark.parametrize(
    "image",
    [
        Image(b"x", media_type="image/bmp"),
        Image(url="file:///etc/passwd"),
        Image(url="data:text/plain,x"),
        Image(url="data:image/png;base64"),
    ],
)
def test_pictures_that_cannot_be_shown(image: Image) -> None:
    """Kinds and addresses that the vendor does not take are refused."""
    assert refused(Request.of(user(image))).feature == "images"


def test_data_that_is_no_base64() -> None:
    """A damaged address is the caller's mistake."""
    with pytest.raises(BadRequest, match="base64"):
        body(Request.of(user(Image(url="data:image/png;base64,%%%"))))


def test_pictures_of_the_system() -> None:
    """The system only says text."""
    talk = [system(Image(b"PNG")), user("A")]
    assert refused(Request.of(talk)).feature == "images"


def test_the_system_in_the_middle() -> None:
    """It stays where it is, behind the user, where the model takes that; else it is refused."""
    late = [user("A"), system("S"), system("T"), assistant("B"), user("C"), system("U")]
    sent = body(Request.of(late))
    roles = ["user", "system", "assistant", "user", "system"]
    assert [turn["role"] for turn in sent["messages"]] == roles
    assert "system" not in sent
    assert refused(Request.of(late), OLD).feature == "system"
    misplaced = [user("A"), assistant("B"), system("S"), user("C")]
    assert refused(Request.of(misplaced)).feature == "system"
    assert body(Request.of(misplaced), wire=LOCAL)


@pytest.mark.parametrize("arguments", ["{", "[1]", '{"x": NaN}', "[" * 100_000])
def test_calls_that_are_no_objects(arguments: str) -> None:
    """Arguments that the API would not take back are refused, and the message shows them."""
    turn = Message("assistant", "", [ToolCall("c", "add", arguments)])
    error = refused(Request.of([user("A"), turn, tool("c", "1")], tools=[ADD]))
    assert error.feature == "tool_calls"
    assert arguments[:5] in str(error)


def test_an_answer_to_no_call() -> None:
    """A tool answers a call, by its id."""
    with pytest.raises(BadRequest, match="tool_call_id"):
        body(Request.of([user("A"), Message("tool", "1")]))
