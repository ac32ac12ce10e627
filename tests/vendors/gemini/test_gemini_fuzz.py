"""Whatever a stranger sends, Gemini's dialect gives pieces or one of our errors."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from asking_gemini import OLD, WIRE
from hypothesis import given, settings
from hypothesis import strategies as st
from loopback import events

from llmdispatcher import EmbedRequest, Request
from llmdispatcher.models.errors import DispatcherError
from llmdispatcher.models.reply import Finish
from llmdispatcher.vendors.wire.events import Sse
from llmdispatcher.vendors.wire.exchange import Head, Replies
from llmdispatcher.vendors.wire.reading import parsed

_KEYS = tuple(
    """
candidates content parts text thought thoughtSignature functionCall name args id finishReason index
usageMetadata promptTokenCount candidatesTokenCount thoughtsTokenCount cachedContentTokenCount
promptFeedback blockReason error code message status details logprobsResult chosenCandidates
topCandidates token logProbability modelVersion responseId embeddings values models nextPageToken
inputTokenLimit supportedGenerationMethods totalTokens executableCode inlineData @type retryDelay
""".replace("\n", " ")
    .strip()
    .split(" ")
)

_WORDS = ("STOP", "MAX_TOKENS", "SAFETY", "MALFORMED_FUNCTION_CALL", "models/x", "", "\ud800", "7s")

_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.sampled_from([2**63, 10**400, 1e308, -1e-308])
    | st.floats()
    | st.sampled_from(_WORDS)
    | st.text(max_size=4)
)

_JSON = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(_KEYS) | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=25,
)


def _bent(value: Any) -> st.SearchStrategy[Any]:
    """A reply in which some place holds something else."""
    if isinstance(value, dict):
        return st.fixed_dictionaries({}, optional={k: _bent(v) for k, v in value.items()}) | _JSON
    if isinstance(value, list):
        return st.lists(st.one_of([*map(_bent, value)]), max_size=4) | _JSON
    return st.just(value) | _LEAVES


_CANDIDATE: dict[str, Any] = {
    "content": {
        "role": "model",
        "parts": [
            {"text": "Hm", "thought": True, "thoughtSignature": "czA="},
            {"text": "Hello", "thoughtSignature": "czE="},
            {"functionCall": {"id": "a", "name": "f", "args": {"x": 1}}},
            {"executableCode": {"code": "1"}},
        ],
    },
    "finishReason": "STOP",
    "index": 0,
    "logprobsResult": {
        "chosenCandidates": [{"token": "x", "logProbability": -1}],
        "topCandidates": [{"candidates": [{"token": "x", "logProbability": -1}]}],
    },
}

_MESSAGES = _JSON | _bent(
    {
        "candidates": [_CANDIDATE],
        "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 2},
        "promptFeedback": {"blockReason": "SAFETY"},
        "modelVersion": "m",
        "responseId": "r",
    }
)


def replies(n: int = 2) -> Replies:
    """Return who reads the answer to a request that asks for all there is."""
    request = Request.of("x", n=n, logprobs=2)
    return WIRE.exchanges(request, WIRE.card(OLD))[0].replies


@settings(max_examples=3 * settings().max_examples, deadline=None)
@given(st.lists(_MESSAGES, max_size=5), st.booleans())
def test_streams_and_answers(messages: list[Any], at_once: bool) -> None:  # noqa: FBT001 - drawn
    """Figures and the end can be asked for at any time, before and behind an error."""
    reader = replies()
    for message in messages:
        with contextlib.suppress(DispatcherError):
            _ = [*(reader.whole(message) if at_once else reader.take("", message))]
        assert reader.usage().total_tokens >= 0
        assert reader.finish() is None or isinstance(reader.finish(), Finish)


@settings(max_examples=2 * settings().max_examples, deadline=None)
@given(_JSON | _bent({"embeddings": [{"values": [1.5]}], "usageMetadata": {"promptTokenCount": 1}}))
def test_vectors(message: Any) -> None:
    """Vectors are whole or none."""
    request = EmbedRequest(texts=["x"])
    reader = WIRE.exchanges(request, WIRE.card("gemini-embedding-001"))[0].replies
    try:
        pieces = [*reader.take("", message)]
    except DispatcherError:
        assert reader.finish() is None
    else:
        assert len(pieces) == 1
        assert reader.finish() is not None


@settings(max_examples=2 * settings().max_examples, deadline=None)
@given(
    _JSON | _bent({"models": [{"name": "models/x", "inputTokenLimit": 5}], "nextPageToken": "t"})
)
def test_lists_and_counts(message: Any) -> None:
    """A list is cards, a count a number, or it is an error of ours."""
    for ask in (WIRE.listed, WIRE.counted):
        with contextlib.suppress(DispatcherError):
            ask(message)


@settings(max_examples=2 * settings().max_examples, deadline=None)
@given(st.integers(300, 599), st.binary(max_size=60) | _JSON.map(lambda v: json.dumps(v).encode()))
def test_faults(status: int, body: bytes) -> None:
    """Any answer with an error's status is an error, and says how healthy Gemini is."""
    head = Head(status, {"content-type": "application/json"})
    assert isinstance(WIRE.fault(head, body), DispatcherError)
    assert not WIRE.probed(head, body).is_ready


@settings(max_examples=2 * settings().max_examples, deadline=None)
@given(st.lists(_MESSAGES, max_size=3), st.data())
def test_damaged_streams(messages: list[Any], data: st.DataObject) -> None:
    """Bytes that were dropped, doubled or exchanged on the way make nothing but our errors."""
    stream = bytearray(b"".join(events(*messages, done=False)))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(stream)))
        stream[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    reader, cutter = replies(), Sse()
    with contextlib.suppress(DispatcherError):
        for event in [*cutter.feed(bytes(stream)), *cutter.end()]:
            if event.data:
                _ = [*reader.take(event.name, parsed(event.data))]
    assert reader.usage().total_tokens >= 0
