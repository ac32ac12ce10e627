"""Streams are cut into the same messages, however their bytes came."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdispatcher.models.errors import BadReply
from llmdispatcher.vendors.wire import events
from llmdispatcher.vendors.wire.events import Cutter, Event, Lines, Sse
from llmdispatcher.vendors.wire.reading import fields, items, known, parsed, shown, tally, words

MAKERS: tuple[Callable[[], Cutter], ...] = (Sse, Lines)


def cut(cutter: Cutter, chunks: Iterable[bytes]) -> list[Event]:
    """Read chunks to their end."""
    found = [event for chunk in chunks for event in cutter.feed(chunk)]
    return [*found, *cutter.end()]


def data(*texts: bytes) -> list[Event]:
    """Return messages without names."""
    return [Event("", text) for text in texts]


ALIVE = Event("", b"", is_comment=True)


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\ndata: b\n\n", data(b"a", b"b")),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", data(b"a", b"b")),
        (b"data: a\r\rdata: b\r\r", data(b"a", b"b")),
        (b"data: a\r\n\ndata: b\n\r\n", data(b"a", b"b")),
        (b"\xef\xbb\xbfdata: a\n\n", data(b"a")),
        (b"\xef\xbb\xbf\n\ndata: a\n\n", data(b"a")),
        (b"data:a\n\n", data(b"a")),
        (b"data:  a\n\n", data(b" a")),
        (b"data: a\ndata: b\n\n", data(b"a\nb")),
        (b"data\ndata: a\n\n", data(b"a")),
        (b"event: ping\ndata: {}\n\n", [Event("ping", b"{}")]),
        (b"event: ping\n\ndata: a\n\n", data(b"a")),
        (b"event:x\nid: 7\nretry: 10\ndata: a\n\n", [Event("x", b"a")]),
        (b": still there\n\ndata: a\n\n", [ALIVE, *data(b"a")]),
        (b":\n:\n", [ALIVE, ALIVE]),
        (b"x-amzn-trace: 1\nfoo: bar\ndata: a\n\n", data(b"a")),
        (b"data: a", data(b"a")),
        (b"data: a\n", data(b"a")),
        (b'{"error": "no"}\n', data(b'{"error": "no"}')),
        (b'{\n "error": {\n  "message": "no"}}', data(b'{\n "error": {\n  "message": "no"}}')),
        (b'error: {"m": 1}\n\n', data(b'{"m": 1}')),
        (b"Internal Server Error", data(b"Internal Server Error")),
        (b"Error: upstream\n\n", data(b"Error: upstream")),
        (b"data: [DONE]\n\n", data(b"[DONE]")),
        (b"data: a\r", data(b"a")),
        (b"data: caf\xc3\xa9\n\n", data("café".encode())),
        ("data: \u2028x\u0085\n\n".encode(), data("\u2028x\u0085".encode())),
        (b"data:\n\n\n\n", []),
        (b"", []),
    ],
)
def test_server_sent_events_are_read_as_vendors_send_them(
    stream: bytes, expected: list[Event]
) -> None:
    """All three ends of a line, a byte order mark, names, comments, and what is no event at all."""
    assert cut(Sse(), [stream]) == expected
    assert cut(Sse(), [stream[i : i + 1] for i in range(len(stream))]) == expected


def test_messages_are_read_when_they_end_and_not_when_more_comes() -> None:
    """An empty line ends a message, whichever end of a line the vendor has; nothing is held."""
    for end in (b"\n", b"\r\n", b"\r"):
        cutter = Sse()
        assert [*cutter.feed(b"data: a" + end + end)] == data(b"a")


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b'{"a":1}\n{"b":2}\n', data(b'{"a":1}', b'{"b":2}')),
        (b'{"a":1}\r\n\r\n\n{"b":2}', data(b'{"a":1}', b'{"b":2}')),
        (b"  \n", []),
        (b"", []),
    ],
)
def test_lines_are_read_each_by_itself(stream: bytes, expected: list[Event]) -> None:
    """Empty lines are nothing, and the last need not end."""
    assert cut(Lines(), [stream]) == expected
    assert cut(Lines(), [stream[i : i + 1] for i in range(len(stream))]) == expected


_BITS = st.sampled_from(
    [
        b"data:",
        b"event:",
        b"id:",
        b":",
        b" ",
        b"\n",
        b"\r",
        b"\r\n",
        b"{",
        b"}",
        b'"',
        b"x",
        b"\xef\xbb\xbf",
        b"[DONE]",
        b"error:",
        b"\xff",
        b"\x00",
        b"retry",
        b"\xe2\x80\xa8",
    ]
)


@given(
    st.lists(_BITS | st.binary(max_size=4), max_size=60).map(b"".join),
    st.lists(st.integers(0, 400), max_size=30),
    st.sampled_from(MAKERS),
)
def test_where_bytes_were_cut_makes_no_difference(
    stream: bytes, cuts: list[int], maker: Callable[[], Cutter]
) -> None:
    """Any stream, cut anywhere, also into nothing, has the messages that it has in one."""
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[a:b] for a, b in itertools.pairwise(places)]

    assert cut(maker(), chunks) == cut(maker(), [stream])


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("line", [b"data: " + b"x" * 100, b"x" * 100])
def test_a_line_without_end_is_refused(
    maker: Callable[[], Cutter], line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that never ends is told at its bound, in time that grows with what came."""
    monkeypatch.setattr(events, "MAX_MESSAGE_BYTES", 10_000)
    cutter = maker()
    with pytest.raises(BadReply, match="more than 10000 bytes"):
        for _ in range(1000):
            assert not [*cutter.feed(line)]


@pytest.mark.parametrize("line", [b"data: x\n", b"data:\n", b"y\n"])
def test_an_event_of_many_lines_is_bounded_in_memory(
    line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines of a byte cost more than a byte, and that counts."""
    bound = 2**20
    monkeypatch.setattr(events, "MAX_MESSAGE_BYTES", bound)
    cutter = Sse()
    tracemalloc.start()
    try:
        with pytest.raises(BadReply):
            for _ in range(1000):
                assert not [*cutter.feed(line * 100)]
        assert tracemalloc.get_traced_memory()[1] < 4 * bound
    finally:
        tracemalloc.stop()


# -- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [b"", b"{", b"nul", b"\xff", b"[" * 100_000, b"1" * 5000, b'{"a":1}x', b"\x00"]
)
def test_what_is_no_json_is_a_bad_reply(text: bytes) -> None:
    """Whatever is wrong with it, and the beginning is shown."""
    with pytest.raises(BadReply) as caught:
        parsed(text)
    assert len(str(caught.value)) < 1500


@given(st.binary(max_size=60))
def test_any_bytes_parse_or_are_a_bad_reply(text: bytes) -> None:
    """Nothing else ever comes of a stranger's bytes."""
    try:
        parsed(text)
    except BadReply:
        return


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(_JSON)
def test_any_json_can_be_looked_at(value: object) -> None:
    """What has another type than expected is empty, and counts are counts."""
    assert isinstance(fields(value), dict)
    assert isinstance(items(value), list)
    assert 0 <= tally(value) <= 2**63 - 1
    assert known(value) is None or 0 < (known(value) or 0) < 2**40
    assert len(shown(value)) < 1500
    if isinstance(value, str) or value is None:
        assert words(value) == (value or "")
    else:
        with pytest.raises(BadReply):
            words(value)


def test_what_is_shown_of_a_deep_value_is_short() -> None:
    """A value that nests a thousand deep, or is long, is shown as well as any."""
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert len(shown(deep)) < 1500
    assert len(shown([["x" * 100] * 100] * 1000)) < 1500
    inner = deep
    while inner:  # taken apart by hand: a destructor would go as deep
        inner = inner.pop()  # type: ignore[assignment]
