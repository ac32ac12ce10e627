"""Whatever a stranger sends, Ollama's dialect gives pieces or raises errors of ours."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from replies_of import streamed
from speaking_ollama import JSON, models, spoken, vectors

from llmdispatcher.models.errors import DispatcherError
from llmdispatcher.models.reply import Usage
from llmdispatcher.vendors.ollama import shows
from llmdispatcher.vendors.ollama.stream import OllamaReplies
from llmdispatcher.vendors.ollama.vectors import OllamaVectors
from llmdispatcher.vendors.ollama.wire import OllamaWire
from llmdispatcher.vendors.wire.exchange import Head, Replies, Site

WIRE = OllamaWire(Site(vendor="ollama", local=True))

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["\ud800", "stop", "load", "add", "{", "7B", "completion"])
)
NAMES = st.sampled_from(
    [
        *("message", "content", "thinking", "response", "tool_calls", "function", "name", "id"),
        *("arguments", "logprobs", "token", "logprob", "bytes", "top_logprobs", "done", "error"),
        *("done_reason", "prompt_eval_count", "eval_count", "embeddings", "models", "model"),
        *("details", "families", "parameter_size", "context_length", "capabilities", "size"),
        *("model_info", "general.parameter_count", "size_vram", "expires_at", "version"),
    ]
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=30,
)
RECORDED = [
    *[json.loads(line) for line in spoken(text="a b", calls=(("", "f", "{}"),), streams=True)],
    json.loads(models()),
    json.loads(vectors(1)),
]


def _changed(recorded: Any, place: int, value: Any) -> Any:
    """Put a value in a place of what was recorded, counted through all of it."""
    if isinstance(recorded, dict) and recorded:
        name = sorted(recorded)[place % len(recorded)]
        inner = recorded[name]
        deeper = isinstance(inner, dict | list) and inner and place % 3
        return {**recorded, name: _changed(inner, place // 2, value) if deeper else value}
    if isinstance(recorded, list) and recorded:
        return [_changed(recorded[0], place // 2, value), *recorded[1:]]
    return value


MESSAGES = VALUES | st.builds(_changed, st.sampled_from(RECORDED), st.integers(0, 999), VALUES)


def _survives(read: Callable[[], object]) -> None:
    with contextlib.suppress(DispatcherError):
        read()


@given(st.lists(MESSAGES, max_size=4))
def test_replies(messages: list[Any]) -> None:
    """Lines, answers and vectors give pieces or errors of ours, and always a usage."""
    makers: list[Callable[[], Replies]] = [
        OllamaReplies,
        lambda: OllamaReplies(top=2, prompt_bytes=5),
        lambda: OllamaVectors(0, 1),
    ]
    for make in makers:
        replies, other = make(), make()
        for message in messages:
            _survives(lambda message=message, to=replies: [*to.take("", message)])  # type: ignore[misc]
            _survives(lambda message=message, to=other: [*to.whole(message)])  # type: ignore[misc]
        for each in (replies, other):
            each.finish()
            assert isinstance(each.usage(), Usage)


@given(MESSAGES)
def test_lists_and_errors(message: Any) -> None:
    """Lists, loaded models, details, probes and errors are read, or refused by errors of ours."""
    _survives(lambda: WIRE.listed(message))
    _survives(lambda: shows.loaded(message))
    _survives(lambda: shows.shown(WIRE.card("m"), message))
    for status in (200, 400, 404, 500):
        body = json.dumps(message).encode()
        assert isinstance(WIRE.fault(Head(status, JSON), body), DispatcherError)
        WIRE.probed(Head(status, JSON), body)


@given(st.binary(max_size=200), st.integers(0, 599))
def test_bytes(data: bytes, status: int) -> None:
    """Bytes that are no JSON are read, or refused by errors of ours."""
    assert isinstance(WIRE.fault(Head(status, {}), data), DispatcherError)
    WIRE.probed(Head(status, {}), data)
    _survives(lambda: streamed(OllamaReplies(), [data], lines=True))


def test_what_nests() -> None:
    """What nests as deep as JSON is parsed is read, or refused by errors of ours."""
    for name in ("arguments", "error", "message", "function"):
        deep: Any = {}
        for _ in range(900):
            deep = {name: [deep]} if name == "arguments" else {name: deep}
        call = {"function": {"name": "f", "arguments": deep}}
        told = {"message": {"tool_calls": [call]}, "done": True}
        _survives(lambda told=told: [*OllamaReplies().whole(told)])  # type: ignore[misc]
        _survives(lambda deep=deep: [*OllamaReplies().whole(deep)])  # type: ignore[misc]
        _survives(lambda deep=deep: WIRE.listed({"models": [deep], "error": deep}))  # type: ignore[misc]
