"""The last lines of a log: whole, in order, bounded, and fit to be shown."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmdispatcher.vendors.llamacpp.child import tail as tails
from llmdispatcher.vendors.llamacpp.child.tail import Tail


def test_listeners_hear_every_line_once_and_in_order() -> None:
    """Those that were there before they listened come first."""
    tail, heard = Tail(), list[str]()
    tail.feed(b"one\ntwo\nth")
    tail.listen(heard.append)
    tail.feed(b"ree\nfour")
    assert heard == ["one", "two", "three"]
    tail.end()
    assert heard == ["one", "two", "three", "four"]
    assert tail.text() == "one\ntwo\nthree\nfour"


def test_a_tail_is_bounded() -> None:
    """Long lines are cut, many are forgotten, and a line that never ends takes no memory."""
    tail = Tail()
    for _ in range(1000):
        tail.feed(b"x" * 10_000)
    tail.feed(b"\nshort\n")
    assert tail.text() == "x" * tails.MAX_LINE_BYTES + "…\nshort"
    for number in range(1000):
        tail.feed(b"%d %s\n" % (number, b"y" * 3000))
    assert len(tail.text()) <= tails.MAX_CHARS + tails.MAX_LINES
    assert tail.text().splitlines()[-1].startswith("999 ")


def test_what_a_terminal_would_obey_is_not_kept() -> None:
    """A log is shown to people: no control characters, no bytes that are not text."""
    tail = Tail()
    tail.feed(b"\x1b[31mred\x07 caf\xc3\xa9 \xff\tend\r\n10 %\r50 %\r100 %\r\n\x00\n")

    assert tail.text() == "\ufffd[31mred\ufffd café \ufffd\tend\n100 %\n\ufffd"


@given(st.lists(st.binary(max_size=60)), st.binary(max_size=300))
def test_how_a_log_is_cut_into_pieces_does_not_matter(pieces: list[bytes], more: bytes) -> None:
    """Pipes hand over what they have, in the middle of lines and of letters."""
    parts, whole = Tail(), Tail()
    for piece in (*pieces, more):
        parts.feed(piece)
    whole.feed(b"".join((*pieces, more)))
    for tail in (parts, whole):
        tail.end()

    assert parts.text() == whole.text()
