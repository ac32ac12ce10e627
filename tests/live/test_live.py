"""Vendors elsewhere, as they are today: a short suite for each that environment variables tell.

    LLMDISPATCHER_LIVE_OLLAMA=http://127.0.0.1:11434 pytest -m live
    LLMDISPATCHER_LIVE_OPENAI=1 LLMDISPATCHER_LIVE_OPENAI_MODEL=… OPENAI_API_KEY=… pytest -m live

Every request is short; a run costs less than a cent on small models.
"""

from __future__ import annotations

import json

import attrs
import pytest
from live.conftest import Live, missing

from llmdispatcher import (
    AuthRejected,
    Capability,
    Dispatcher,
    FinishReason,
    Reply,
    Unsupported,
    tool,
    user,
)

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]  # a model may have to be loaded

ASKED = "Reply with the word ready, and nothing else."

ROOM_TOKENS = 2000
"""For models that think before they answer."""

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two integers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


def test_some_vendor_is_told() -> None:
    """A run that tries nobody is no success: it says what to set."""
    if lines := missing():
        told = "\n  ".join(lines)
        pytest.fail(f"no vendor is told; set one or more of\n  {told}", pytrace=False)


def able(d: Dispatcher, *wanted: Capability) -> None:
    """Skip the test where no card lists what it needs."""
    d.send(ASKED, max_tokens=ROOM_TOKENS)  # finds the models, where none was named
    if not any(card.capabilities.issuperset(wanted) for v in d.vendors() for card in v.cards):
        pytest.skip(f"none of its models lists {', '.join(wanted)}")


def is_whole(reply: Reply) -> bool:
    """Whether a reply is one, with its account."""
    return (
        bool(reply.text)
        and reply.finish_reason is FinishReason.STOP
        and reply.usage.prompt_tokens > 0
        and reply.usage.completion_tokens > 0
    )


def test_it_replies(live: Live) -> None:
    """Whole, with usage that the vendor counted."""
    with Dispatcher(live.vendor()) as d:
        reply = d.send(ASKED, max_tokens=ROOM_TOKENS)

    assert is_whole(reply), reply
    assert "ready" in reply.text.lower()
    assert not reply.usage.estimated


def test_it_streams(live: Live) -> None:
    """In pieces, which joined are the reply."""
    with Dispatcher(live.vendor()) as d:
        stream = d.stream("Count from 1 to 20, with a comma between.", max_tokens=ROOM_TOKENS)
        pieces = [delta.text for delta in stream if delta.text]

    assert is_whole(stream.reply), stream.reply
    assert "".join(pieces) == stream.reply.text
    assert len(pieces) > 1


def test_it_calls_a_tool(live: Live) -> None:
    """On demand, where that can be demanded, and goes on with what the tool answered."""
    talk = [user("What is 2 + 3? Use the tool.")]
    with Dispatcher(live.vendor()) as d:
        able(d, Capability.TOOLS)
        try:
            reply = d.send(talk, tools=[ADD], tool_choice="required", max_tokens=ROOM_TOKENS)
        except Unsupported:
            reply = d.send(talk, tools=[ADD], max_tokens=ROOM_TOKENS)
        assert reply.finish_reason is FinishReason.TOOL_CALLS
        (call, *_) = reply.tool_calls
        assert json.loads(call.arguments) == {"a": 2, "b": 3}
        talk += [reply.message, *(tool(each, "5") for each in reply.tool_calls)]
        assert "5" in d.send(talk, tools=[ADD], max_tokens=ROOM_TOKENS).text


def test_it_keeps_to_a_schema(live: Live) -> None:
    """The reply is JSON of that form."""
    with Dispatcher(live.vendor()) as d:
        able(d, Capability.SCHEMA)
        reply = d.send(
            "Which city is the capital of Norway? Answer as JSON with the field city.",
            schema=SCHEMA,
            max_tokens=ROOM_TOKENS,
        )

    assert set(reply.parsed) == {"city"}
    assert "Oslo" in reply.parsed["city"]


def test_it_lists_its_models(live: Live) -> None:
    """Found without naming any; the one that is asked for is among them, or is taken as named."""
    with Dispatcher(live.vendor(models=())) as d:
        reply = d.send(ASKED, model=live.model or None, max_tokens=ROOM_TOKENS)
        (vendor,) = d.vendors()

    assert vendor.cards
    assert reply.model in {name for card in vendor.cards for name in (card.model, *card.aliases)}


def test_it_counts(live: Live) -> None:
    """As its replies do, about; where nobody tells, the estimate says that it is one."""
    with Dispatcher(live.vendor()) as d:
        reply = d.send(ASKED, max_tokens=ROOM_TOKENS)
        count = d.count_tokens(ASKED)

    assert count.tokens > 0
    if not count.estimated:
        assert abs(count.tokens - reply.usage.prompt_tokens) <= 10


def test_a_wrong_key_is_told(live: Live) -> None:
    """As that, and without the key."""
    if not live.needs_key:
        pytest.skip("it needs no key")
    wrong = attrs.evolve(live.vendor(), api_key="sk-wrong-0123456789", api_key_env=None)
    with Dispatcher(wrong) as d, pytest.raises(AuthRejected) as caught:
        d.send(ASKED, max_tokens=ROOM_TOKENS)

    assert "0123456789" not in str(caught.value)
