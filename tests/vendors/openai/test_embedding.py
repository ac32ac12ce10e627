"""Vectors and scores of hosts of the OpenAI dialect: what is asked, and what is read."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from speaking_openai import vectors

from llmdispatcher.models.embedding import EmbedRequest, RerankRequest, Score, Vector, Work
from llmdispatcher.models.errors import BadReply, DispatcherError, VendorError
from llmdispatcher.models.reply import FinishReason
from llmdispatcher.vendors.openai.rows import ROWS
from llmdispatcher.vendors.openai.wire import OpenAIWire
from llmdispatcher.vendors.wire.exchange import Exchange, Site


def exchanges(preset: str, work: Work, model: str = "model-1") -> list[Exchange]:
    """Return what would be asked."""
    spoken = OpenAIWire(Site(vendor="v"), ROWS[preset].ways)
    return [*spoken.exchanges(work, spoken.card(model))]


def body(exchange: Exchange) -> dict[str, Any]:
    """Return what would be sent."""
    return dict(exchange.ask.body or {})


def read(exchange: Exchange, message: Any) -> list[Any]:
    """Read an answer."""
    return [*exchange.replies.whole(message)]


def test_texts_go_in_parts() -> None:
    """All texts go out once, in order, as many at once as the host takes."""
    texts = [str(number) for number in range(70)]
    parts = exchanges("llama-server", EmbedRequest.of(texts, normalize=False))
    assert [len(body(part)["input"]) for part in parts] == [32, 32, 6]
    assert [text for part in parts for text in body(part)["input"]] == texts
    assert body(parts[0])["embd_normalize"] == -1
    assert body(parts[0])["encoding_format"] == "base64"
    (whole,) = exchanges("openai", EmbedRequest.of(texts))
    assert whole.ask.path == "/embeddings"
    assert body(whole)["encoding_format"] == "base64"
    assert body(exchanges("mistral", EmbedRequest.of("a"))[0])["encoding_format"] == "float"


@pytest.mark.parametrize("packed", [True, False])
def test_vectors_are_read(packed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Packed and plain vectors are read alike, each in its place, with the tokens they took."""
    first, second = exchanges("llama-server", EmbedRequest.of(["a"] * 34))
    pieces = read(first, json.loads(vectors(32, packed=packed)))
    pieces += read(second, json.loads(vectors(2, packed=packed)))
    assert sorted(piece.index for piece in pieces) == [*range(34)]
    assert all(isinstance(piece, Vector) for piece in pieces)
    by_place = {piece.index: list(piece.values) for piece in pieces}
    assert by_place[33] == [0.0, 1.0, 0.0]
    finish = second.replies.finish()
    assert finish is not None
    assert (finish.reason, finish.served_model) == (FinishReason.STOP, "model-1")
    assert finish.usage.prompt_tokens == 4
    assert not finish.usage.estimated
    read(second, json.loads(vectors(2)) | {"model": "a\ud83d"})
    finish = second.replies.finish()
    assert finish is not None
    assert finish.served_model == "a\ufffd"


def test_vectors_have_the_length_that_was_asked_for() -> None:
    """Length 1 whatever the host sends, or as the model made them."""
    for normalize, meant in ((True, 1.0), (False, 2.0)):
        (asked,) = exchanges("openai", EmbedRequest.of("a", normalize=normalize))
        (piece,) = read(asked, json.loads(vectors(1)))
        assert math.isclose(math.hypot(*piece.values), meant)
    (asked,) = exchanges("openai", EmbedRequest.of("a"))
    (piece,) = read(asked, {"data": [{"embedding": [0, 0]}]})
    assert list(piece.values) == [0.0, 0.0]


def test_scores_are_read() -> None:
    """Each document has its score, whichever of the names the host has for it."""
    work = RerankRequest.of("q", ["a", "b"], top=1)
    (asked,) = exchanges("vllm", work)
    assert asked.ask.path == "/rerank"
    assert body(asked) == {
        "model": "model-1",
        "query": "q",
        "documents": ["a", "b"],
        "top_n": 2,
    }
    rows = [{"index": 1, "relevance_score": 0.5}, {"index": 0, "relevance_score": -1}]
    assert read(asked, {"results": rows}) == [Score(1, 0.5), Score(0, -1.0)]
    assert asked.replies.usage().estimated
    (asked,) = exchanges("vllm", work)
    assert read(asked, [{"index": 0, "score": 1}, {"index": 1, "score": 2}])


BROKEN: list[Any] = [
    [],
    {},
    {"data": []},
    {"data": [{"index": 1, "embedding": [1.0]}]},
    {"data": [{"index": True, "embedding": [1.0]}]},
    {"data": [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}]},
    {"data": [{"index": 0, "embedding": "!"}]},
    {"data": [{"index": 0, "embedding": "AAA="}]},
    {"data": [{"index": 0, "embedding": []}]},
    {"data": [{"index": 0, "embedding": [math.nan]}]},
    {"data": [{"index": 0, "embedding": [1e39]}]},
    {"data": [{"index": 0, "embedding": [10**400]}]},
    {"data": [{"index": 0, "embedding": ["x"]}]},
    {"data": [{"index": 0}]},
]


@pytest.mark.parametrize("answer", BROKEN)
def test_what_are_no_vectors_is_a_bad_reply(answer: Any) -> None:
    """Whatever else a host answers for texts is told as such, and ends nothing."""
    (asked,) = exchanges("openai", EmbedRequest.of("a"))
    with pytest.raises(BadReply):
        read(asked, answer)
    assert asked.replies.finish() is None


def test_an_error_is_no_vector() -> None:
    """An error with status 200 is raised as what it stands for."""
    (asked,) = exchanges("openai", EmbedRequest.of("a"))
    with pytest.raises(VendorError):
        [*asked.replies.take("", {"error": {"message": "x", "code": 500}})]


ROW = st.dictionaries(
    st.sampled_from(["index", "embedding", "relevance_score", "score"]),
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.lists(st.floats() | st.integers() | st.none(), max_size=4),
)


@given(st.lists(ROW, max_size=3), st.sampled_from(["data", "results", "models"]))
def test_a_stranger_s_answer_makes_only_our_errors(rows: list[Any], name: str) -> None:
    """Whatever comes, it gives vectors or scores, or one of our errors."""
    for work in (EmbedRequest.of("a"), RerankRequest.of("q", ["a"])):
        (asked,) = exchanges("vllm", work)
        for message in (rows, {name: rows}):
            with contextlib.suppress(DispatcherError):
                read(asked, message)
