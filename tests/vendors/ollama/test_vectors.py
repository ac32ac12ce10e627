"""Texts that Ollama turns into vectors."""

from __future__ import annotations

import json

import pytest
from replies_of import whole
from speaking_ollama import vectors

from llmdispatcher.models.card import ModelCard
from llmdispatcher.models.embedding import EmbedRequest, Vector
from llmdispatcher.models.errors import BadReply, ContextOverflow, Unsupported
from llmdispatcher.models.reply import Usage
from llmdispatcher.vendors.ollama.vectors import PART, OllamaVectors
from llmdispatcher.vendors.ollama.wire import OllamaWire
from llmdispatcher.vendors.wire.exchange import Site

CARD = ModelCard(vendor="ollama", model="all-minilm", local=True, capabilities=["embed"])


def test_what_is_asked() -> None:
    """Texts go in parts, in order, and none may be cut."""
    texts = [f"text {place}" for place in range(PART + 1)]
    wire = OllamaWire(Site(vendor="ollama", keep_alive_s=60, extra={"options": {"num_ctx": 1}}))
    first, second = (each.ask for each in wire.exchanges(EmbedRequest(texts=texts), CARD))
    assert (first.path, first.streams) == ("/api/embed", False)
    assert first.body == {
        "model": "all-minilm",
        "input": texts[:PART],
        "truncate": False,
        "keep_alive": 60,
    }
    assert second.body is not None
    assert second.body["input"] == texts[PART:]


def test_lengths() -> None:
    """Ollama makes every vector of length 1, and what asks for another is refused."""
    wire = OllamaWire(Site(vendor="ollama"))
    with pytest.raises(Unsupported, match="normalize=True"):
        wire.exchanges(EmbedRequest(texts="a", normalize=False), CARD)


def test_vectors() -> None:
    """Vectors come with the places of their texts, and the tokens that were read."""
    replies = OllamaVectors(32, 2, prompt_bytes=100)
    assert replies.finish() is None
    assert replies.usage() == Usage(prompt_tokens=25, estimated=True)
    first, second = replies.whole(json.loads(vectors(2)))
    assert isinstance(first, Vector)
    assert isinstance(second, Vector)
    assert (first.index, [*first.values], second.index) == (32, [1.0, 0.0], 33)
    finish = replies.finish()
    assert finish is not None
    assert finish.usage == Usage(prompt_tokens=8)
    assert finish.served_model == "all-minilm:latest"
    list(replies.whole(json.loads(vectors(2)) | {"model": "a\ud83d"}))
    finish = replies.finish()
    assert finish is not None
    assert finish.served_model == "a\ufffd"


def test_a_line() -> None:
    """An answer that comes as a line is the same."""
    one, other = OllamaVectors(0, 1), OllamaVectors(0, 1)
    message = json.loads(vectors(1))
    assert [*one.take("", message)] == [*other.whole(message)]


def test_a_text_that_is_too_long() -> None:
    """A text that does not fit is an overflow."""
    with pytest.raises(ContextOverflow):
        whole(OllamaVectors(0, 1), b'{"error": "the input length exceeds the context length"}')


@pytest.mark.parametrize(
    "rows",
    [
        None,
        [],
        [[1.0], [1.0]],
        ["x"],
        [[]],
        [["x"]],
        [[None]],
        [[float("nan")]],
        [[float("inf")]],
        [[1e300]],
        [[10**400]],
        [[[1.0]]],
        {},
    ],
)
def test_vectors_that_are_none(rows: object) -> None:
    """What is no vector for each text is a bad reply."""
    replies = OllamaVectors(0, 1)
    with pytest.raises(BadReply):
        [*replies.whole({"embeddings": rows})]
    assert replies.finish() is None
