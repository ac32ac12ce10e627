"""Whatever a stranger sends as Anthropic's events, messages and lists: our errors, or none."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llmdispatcher.draft import ReplyDraft
from llmdispatcher.models.errors import DispatcherError
from llmdispatcher.models.form import ResponseFormat
from llmdispatcher.models.reply import Usage
from llmdispatcher.vendors.anthropic.stream import MessageReplies
from llmdispatcher.vendors.anthropic.wire import AnthropicWire
from llmdispatcher.vendors.wire.exchange import Site

WIRE = AnthropicWire(Site(vendor="anthropic"))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)

_KINDS = (
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
    "error",
    "text",
    "thinking",
    "redacted_thinking",
    "tool_use",
    "text_delta",
    "thinking_delta",
    "signature_delta",
    "input_json_delta",
    "end_turn",
)

_NAMES = (
    "type index message content_block delta usage content text thinking signature data id name"
    " input partial_json stop_reason stop_details category output_tokens input_tokens error model"
    " cache_read_input_tokens output_tokens_details thinking_tokens"
)

VALUES = st.recursive(
    JSON | st.sampled_from(_KINDS) | st.integers(-1, 3),
    lambda inner: (
        st.dictionaries(st.sampled_from(_NAMES.split()), inner, max_size=6)
        | st.lists(inner, max_size=3)
    ),
    max_leaves=10,
)

EVENTS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(_KINDS[:6])},
        optional={name: VALUES for name in _NAMES.split() if name not in {"type", "error"}},
    )
    | VALUES,
    max_size=8,
)


@settings(max_examples=settings().max_examples * 3 // 2, deadline=None)
@given(EVENTS, st.sampled_from(("", *_KINDS)))
def test_whatever_comes(events: list[Any], name: str) -> None:
    """Any JSON gives pieces that make a reply, or one of our errors; and never anything else."""
    replies, draft = MessageReplies(), ReplyDraft(1, ResponseFormat())
    for told in events:
        try:
            for piece in replies.take(name, told):
                draft.add(piece)
        except DispatcherError:
            pass
        assert isinstance(replies.usage(), Usage)
    if (finish := replies.finish()) is not None:
        draft.finish(finish)


@settings(max_examples=settings().max_examples * 3 // 2, deadline=None)
@given(VALUES | st.fixed_dictionaries({"content": VALUES | st.lists(VALUES)}))
def test_whatever_comes_whole(told: Any) -> None:
    """The same for an answer that comes in one."""
    replies, draft = MessageReplies(), ReplyDraft(1, ResponseFormat())
    try:
        for piece in replies.whole(told):
            draft.add(piece)
    except DispatcherError:
        pass
    if (finish := replies.finish()) is not None:
        draft.finish(finish)


ROWS = st.lists(
    st.fixed_dictionaries(
        {"id": JSON | st.text(min_size=1)},
        optional={
            "max_tokens": JSON,
            "max_input_tokens": JSON,
            "capabilities": JSON,
            "lifecycle": JSON,
        },
    )
    | JSON
)


@settings(deadline=None)
@given(ROWS, JSON, JSON)
def test_whatever_the_list_is(rows: list[Any], more: Any, last: Any) -> None:
    """Any JSON gives cards or one of our errors."""
    for told in ({"data": rows, "has_more": more, "last_id": last}, more):
        with contextlib.suppress(DispatcherError):
            assert WIRE.listed(told) is not None
