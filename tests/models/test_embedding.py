"""Requests for vectors and scores are checked once, and results say what they hold."""

from __future__ import annotations

import pickle
from array import array
from typing import Any

import pytest

from llmdispatcher import BadRequest, Deadlines, Decision, Usage
from llmdispatcher.models.embedding import (
    MAX_TEXT_BYTES,
    MAX_TEXTS,
    Embeddings,
    EmbedRequest,
    Reranked,
    RerankRequest,
    best_first,
)

ACCOUNT: dict[str, Any] = {
    "usage": Usage(),
    "vendor": "v",
    "model": "m",
    "cost_microusd": 0,
    "latency_s": 0.0,
    "decision": Decision(),
}


def test_one_text_is_a_sequence_of_one() -> None:
    """A single text needs no list around it, nor does any sequence need to be a list."""
    assert EmbedRequest(texts="a").texts == ("a",)
    assert EmbedRequest(texts=["a", ""]).texts == ("a", "")
    assert RerankRequest(query="q", documents="d").documents == ("d",)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("texts", []),
        ("texts", 5),
        ("texts", b"bytes"),
        ("texts", None),
        ("texts", iter("ab")),
        ("texts", ["a"] * (MAX_TEXTS + 1)),
        ("texts[1]", ["a", 5]),
        ("texts[1]", ["a", "\ud800"]),
        ("texts", ["x" * (MAX_TEXT_BYTES // 2), "é" * (MAX_TEXT_BYTES // 2)]),
    ],
)
def test_wrong_texts_are_refused_by_name(field: str, value: Any) -> None:
    """What is wrong is named, down to the text."""
    with pytest.raises(BadRequest) as raised:
        EmbedRequest(texts=value)

    assert raised.value.field == field


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("query", {"query": 5}),
        ("query", {"query": "\ud800"}),
        ("documents", {"documents": ()}),
        ("documents[0]", {"documents": [None]}),
        ("top", {"top": 0}),
        ("top", {"top": True}),
        ("priority", {"priority": 101}),
        ("deadlines", {"deadlines": 3}),
        ("allow_cloud", {"allow_cloud": 1}),
    ],
)
def test_wrong_fields_of_a_reranking_are_refused_by_name(
    field: str, fields: dict[str, Any]
) -> None:
    """The same holds for the other kind of request."""
    with pytest.raises(BadRequest) as raised:
        RerankRequest(**{"query": "q", "documents": ["d"], **fields})

    assert raised.value.field == field


def test_normalize_is_true_or_false() -> None:
    """Nothing that is like them is taken."""
    with pytest.raises(BadRequest, match="True or False"):
        EmbedRequest(texts="a", normalize=2)  # type: ignore[arg-type]


def test_sizes_count_what_is_read() -> None:
    """Bytes are those of UTF-8, and a query is read with every document."""
    assert EmbedRequest(texts=["ab", "é"]).text_bytes == 4
    assert RerankRequest(query="éé", documents=["a", "b"]).text_bytes == 10


def test_requests_can_be_built_from_requests() -> None:
    """What is given replaces a field, and the rest stays."""
    base = EmbedRequest(texts="a", vendor="v")
    ranked = RerankRequest(query="q", documents="d", top=1)

    assert EmbedRequest.of(base) is base
    assert EmbedRequest.of(base, normalize=False) == EmbedRequest(
        texts="a", vendor="v", normalize=False
    )
    assert EmbedRequest.of("a", vendor="v", normalize=True) == base
    assert RerankRequest.of(ranked) is ranked
    assert RerankRequest.of(ranked, ["e"], model="m").documents == ("e",)
    assert RerankRequest.of("q", "d", top=1) == ranked
    with pytest.raises(TypeError, match="temperature"):
        EmbedRequest.of("a", temperature=1)  # type: ignore[call-arg]


def test_within_changes_only_the_deadlines() -> None:
    """A copy for one attempt keeps its kind, and equal deadlines need none."""
    request, limits = EmbedRequest(texts="a"), Deadlines(total_s=1)
    copied = request.within(limits)

    assert (copied.deadlines, copied.texts) == (limits, request.texts)
    assert copied.within(limits) is copied
    assert request.deadlines is None


def test_best_first_keeps_the_order_of_equals() -> None:
    """Of equal scores the earlier is first, and ``top`` cuts the list."""
    assert best_first([0.5, 2.0, 0.5, -1.0], None) == (1, 0, 2, 3)
    assert best_first([0.5, 2.0, 0.5, -1.0], 2) == (1, 0)


def test_results_are_values() -> None:
    """They can be compared and pickled, and a vector is made of 32-bit floats."""
    embedded = Embeddings(vectors=(array("f", [0.1, 2]),), **ACCOUNT)
    ranked = Reranked(scores=(0.1,), order=(0,), **ACCOUNT)

    for result in (embedded, ranked):
        assert pickle.loads(pickle.dumps(result)) == result  # noqa: S301 - our own bytes
    assert embedded.dimensions == 2
    assert embedded.vectors[0].itemsize == 4
