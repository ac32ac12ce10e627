"""Laws of reading replies: the way a reply is cut never shows in what is heard."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from spoken import STYLES, TOOLS, Style, hear

from llmdispatcher.vendors.llamacpp.speech.reader import Reader

CUTS = st.lists(st.integers(1, 400), max_size=40)
STYLE = st.sampled_from(STYLES)

MARKS = sorted(
    {
        mark
        for style in STYLES
        for mark in (*style.speech.markers, *style.speech.fences, *style.speech.call)
        if mark
    }
)
SCRAPS = [
    *MARKS,
    *[mark[:-1] for mark in MARKS],
    *[mark[: len(mark) // 2] for mark in MARKS],
    *[
        '{"name": "now"',
        '"arguments": {',
        '"parameters": {}',
        '"tool_calls": [',
        "get_weather",
        "now",
    ],
    *["now(", "a=", "'", '"', "\\", "{", "}", "[", "]", ",", ":", " ", "\n", "a", "é😀", "all\n"],
    *["<function=now>", "<parameter=", "</parameter>", "</function>", "```", " to=functions.now"],
]
"""What replies are made of, and pieces of it."""


@st.composite
def written(draw: st.DrawFn) -> tuple[Style, str]:
    """A reply as a model writes it, perhaps cut or damaged, or a heap of scraps."""
    style = draw(STYLE)
    if draw(st.booleans()):
        return style, "".join(draw(st.lists(st.sampled_from(SCRAPS), max_size=30)))
    raw = style.reply(draw(st.sampled_from(style.scenes())))
    place = draw(st.integers(0, len(raw)))
    gone = draw(st.integers(0, 10))
    return style, raw[:place] + draw(st.sampled_from(["", *SCRAPS])) + raw[place + gone :]


def cut(raw: str, cuts: list[int]) -> list[str]:
    """Cut text at the given places."""
    places = sorted({0, len(raw), *(place for place in cuts if place < len(raw))})
    return [raw[a:b] for a, b in itertools.pairwise(places)]


@settings(max_examples=6 * settings().max_examples, deadline=None)
@given(written=written(), cuts=CUTS, reasons=st.booleans())
def test_cutting_never_shows(written: tuple[Style, str], cuts: list[int], *, reasons: bool) -> None:
    """However a reply arrives, text, reasoning and calls are the same when joined."""
    style, raw = written
    whole = hear(style.speech, [raw], reasons=reasons)

    assert hear(style.speech, cut(raw, cuts), reasons=reasons) == whole
    assert hear(style.speech, list(raw), reasons=reasons) == whole


@settings(max_examples=3 * settings().max_examples, deadline=None)
@given(written=written(), cuts=CUTS)
def test_what_was_told_stays_told(written: tuple[Style, str], cuts: list[int]) -> None:
    """A call is told of in order, its name once and first, and nothing after the end."""
    style, raw = written
    reader = Reader(style.speech, TOOLS)
    begun = 0
    for piece in [*cut(raw, cuts), None]:
        heard = reader.flush() if piece is None else reader.feed(piece)
        for call in heard.calls:
            assert bool(call.name) == (call.index == begun)
            begun = max(begun, call.index + 1)
            assert bool(call.id) == bool(call.name)
            assert call.index == begun - 1
        assert reader.calls == begun
    assert reader.flush() == ("", "", ())


@settings(max_examples=2 * settings().max_examples, deadline=None)
@given(text=st.text("abc <>[]|_`\n", max_size=60), style=STYLE, cuts=CUTS)
def test_text_that_calls_nothing_is_unchanged(text: str, style: Style, cuts: list[int]) -> None:
    """What holds no marker comes out as it is, unless the way of writing wraps text itself."""
    if style.speech.harmony or style.speech.recipients:
        return
    assert hear(style.speech, cut(text, cuts)).text == text
