"""Laws of text: the way tokens are cut never shows in what the caller reads."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from llmdispatcher.vendors.llamacpp.engine.text import TextStream

CUTS = st.lists(st.integers(0, 60), max_size=30)
STOPS = st.lists(st.text("ab\né€😀", min_size=1, max_size=4), max_size=3)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut bytes at the given places."""
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def shown(data: bytes, cuts: list[int], stops: list[str]) -> tuple[list[str], str | None]:
    """Feed the pieces until a stop string ends them, as the engine does."""
    stream = TextStream(stops)
    out = []
    for piece in pieces(data, cuts):
        out.append(stream.feed(piece))
        if stream.stopped is not None:
            break
    return [*out, stream.flush()], stream.stopped


def expected(text: str, stops: list[str]) -> str:
    """Cut text in front of the stop string that is complete first."""
    for end in range(1, len(text) + 1):
        done = [stop for stop in stops if text[:end].endswith(stop)]
        if done:
            return text[: end - max(map(len, done))]
    return text


@given(text=st.text("ab\né€😀", max_size=40), cuts=CUTS, stops=STOPS)
def test_cutting_never_shows(text: str, cuts: list[int], stops: list[str]) -> None:
    """However the bytes arrive, the text ends before the stop string that is first complete."""
    out, stopped = shown(text.encode(), cuts, stops)

    assert "".join(out) == expected(text, stops)
    assert (stopped is not None) == any(stop in text for stop in stops)


@given(data=st.binary(max_size=60), cuts=CUTS)
def test_bytes_that_are_no_text_become_replacement_characters(data: bytes, cuts: list[int]) -> None:
    """Invalid bytes never raise, and decode as they would in one piece."""
    out, _ = shown(data, cuts, [])

    assert "".join(out) == data.decode(errors="replace")


@given(text=st.text("ab", max_size=40), cuts=CUTS)
def test_a_stop_string_is_found_across_pieces(text: str, cuts: list[int]) -> None:
    """With one stop string, the text is what stands in front of its first occurrence."""
    out, stopped = shown(text.encode(), cuts, ["aba"])

    assert "".join(out) == text.split("aba", maxsplit=1)[0]
    assert (stopped == "aba") == ("aba" in text)


def test_what_cannot_become_a_stop_string_is_shown_at_once() -> None:
    """Only a possible beginning of a stop string is held back."""
    stream = TextStream(["\nUser:"])

    assert stream.feed(b"Hello") == "Hello"
    assert stream.feed(b"\nUs") == ""
    assert stream.feed(b"eful") == "\nUseful"
    assert stream.feed("é".encode()[:1]) == ""
    assert stream.feed("é".encode()[1:]) == "é"
