"""Frames of streams: a message that fits one means what it would mean if it were parsed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdispatcher.vendors.wire.stencil import TRIES, WORTH, Stencil

TEXTS = st.text(max_size=12) | st.sampled_from(["a", "word ", '"', "\\", "\n", "é", "content", "m"])
FRAMES = st.fixed_dictionaries(
    {"id": TEXTS, "n": st.integers(), "content": TEXTS},
    optional={"model": TEXTS, "more": st.lists(TEXTS, max_size=2)},
)


def plain(message: Any) -> str | None:
    """Return the text of a message that has nothing but what every frame has."""
    if not isinstance(message, dict) or "more" in message:
        return None
    text = message.get("content")
    return text if isinstance(text, str) else None


def frame(text: str, **fields: Any) -> bytes:
    """Return a message."""
    return json.dumps({"id": "x", **fields, "content": text}, ensure_ascii=False).encode()


def learned(text: str = "word", **fields: Any) -> Stencil:
    """Return a stencil that knows the frame of a message."""
    stencil, data = Stencil(plain), frame(text, **fields)
    stencil.learn(data, json.loads(data))
    return stencil


@settings(deadline=None)
@given(st.lists(FRAMES, max_size=12), st.booleans())
def test_what_is_read_is_what_would_be_parsed(messages: list[Any], ascii_only: bool) -> None:  # noqa: FBT001 - drawn
    """Whatever was learned before, a text that is found is the one that parsing finds."""
    stencil = Stencil(plain)
    for message in messages:
        text = json.dumps(message, ensure_ascii=ascii_only)
        data = text.encode(errors="replace")
        found = stencil.text(data)
        expected = plain(json.loads(data))
        if found is None:
            stencil.learn(data, json.loads(data))
        else:
            assert expected == found


@settings(deadline=None)
@given(st.binary(max_size=20), TEXTS)
def test_bytes_in_a_frame_are_json_or_not_read(inner: bytes, text: str) -> None:
    """What stands where the text belongs is read only if all of it is one JSON string."""
    stencil = learned("word")
    before, behind = frame("|").split(b"|")
    data = before + inner + behind
    found = stencil.text(data)

    if found is not None:
        assert json.loads(data) == {"id": "x", "content": found}


def test_a_frame_is_read_without_parsing() -> None:
    """Another text in the same frame is found, of any script."""
    stencil = learned("word")

    assert [stencil.text(frame(text)) for text in ("a", "two words", "naïve 😀")] == [
        "a",
        "two words",
        "naïve 😀",
    ]


@pytest.mark.parametrize(
    "data",
    [
        frame(""),
        frame('say "hi"'),
        frame("a\nb"),
        frame("word", id="y"),
        frame("word")[:-1],
        frame("word") + b" ",
        frame("word").replace(b"word", b"\xff"),
        frame("word").replace(b"word", b"\x01"),
        b"",
    ],
)
def test_what_does_not_fit_is_parsed(data: bytes) -> None:
    """Escapes, other fields, cut messages and what is no UTF-8 are left to the parser."""
    assert learned("word").text(data) is None


def test_a_text_that_stands_elsewhere_too_is_found_in_its_place() -> None:
    """A frame is kept only if another text, put there, is read as the text."""
    stencil = learned("m", model="m")

    assert stencil.text(frame("word", model="m")) in {None, "word"}
    assert stencil.text(frame("m", model="word")) is None


def test_what_only_looks_like_the_text_teaches_nothing() -> None:
    """A text whose quoted form is a part of something else is not taken for its place."""
    data = json.dumps({"id": '"', "n": 0, "content": "\\"}).encode()
    stencil = Stencil(plain)
    stencil.learn(data, json.loads(data))

    assert stencil.text(data) is None


def test_a_stream_without_frames_is_given_up() -> None:
    """After a few frames that were of no use nothing more is tried; a useful one starts anew."""
    stencil = Stencil(plain)
    for number in range(TRIES + 2):
        data = frame("word", n=number)
        stencil.learn(data, json.loads(data))

    assert stencil.text(frame("other", n=TRIES + 1)) is None

    lasting = learned("word", n=0)
    for number in range(3 * TRIES):
        for _ in range(WORTH):
            assert lasting.text(frame("again", n=number)) == "again"
        data = frame("word", n=number + 1)
        assert lasting.text(data) is None
        lasting.learn(data, json.loads(data))
