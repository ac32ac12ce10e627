"""Our vectors and scores against those of llama-server: every pooling, every kind of model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from embedding_gguf import CLS, LAST, MEAN, RANK, encoder, pooled_llama, qwen3_reranker
from model_shapes import recurrent
from pooled_engine import SteppedEmbedder
from tiny_gguf import tiny_model
from upstream.llama_server import LlamaServer, Settings

if TYPE_CHECKING:
    from upstream.conftest import Serve

pytestmark = pytest.mark.upstream

TOLERANCE = 1e-3
"""Relative, of the length of the vector."""

TOKENS = 128
"""The context of every model here."""

TEXTS = (
    "hello",
    "",
    "Hello, World!",
    "the quick brown fox jumps over the lazy dog " * 2,
    "été, Ümlaut, ß, 日本語",
    "🙂 emoji and \x00 control \u200d characters",
    "   spaces   \n\n and lines \t",
    "a",
    "[CLS] </s> <s> <|user|>",
    "x " * 55,
)
DOCUMENTS = ("a panda", "", "the giant panda is a bear " * 3, "été 日本 🙂", "no", "y " * 30)


STABLE = {"ssm_a": -1.0}
"""States that fade; random ones overflow."""


@attrs.frozen
class Case:
    """A model, and how it is asked to pool; None leaves that to the file."""

    write: Callable[[Path], Path]
    asked: str | None = None


def _bert(pooling: int | None, *head: str) -> Callable[[Path], Path]:
    return lambda path: encoder(path, pooling=pooling, head=head)


CASES = {
    "bert mean": Case(_bert(MEAN)),
    "bert cls": Case(_bert(CLS)),
    "bert last": Case(_bert(LAST)),
    "bert asked": Case(_bert(CLS), "mean"),
    "bert silent": Case(_bert(None), "cls"),
    "nomic-bert mean": Case(lambda path: encoder(path, architecture="nomic-bert")),
    "llama mean": Case(lambda path: pooled_llama(path, MEAN, context=TOKENS)),
    "llama cls": Case(lambda path: pooled_llama(path, CLS, context=TOKENS)),
    "llama last": Case(lambda path: pooled_llama(path, LAST, context=TOKENS)),
    "llama asked": Case(lambda path: pooled_llama(path, None, context=TOKENS), "mean"),
    "llama sees all": Case(
        lambda path: pooled_llama(
            path, MEAN, context=TOKENS, metadata={"llama.attention.causal": False}
        )
    ),
    "mamba last": Case(
        lambda path: tiny_model(path, context=TOKENS, constant=STABLE, **recurrent()), "last"
    ),
}
"""No t5encoder: llama-server decodes it as if no token saw those after it."""
RERANKERS = {
    "bert": Case(_bert(RANK, "cls", "cls.output")),
    "bert, one layer": Case(_bert(RANK, "cls.output")),
    "bert, no output": Case(_bert(RANK, "cls")),
    "qwen3": Case(lambda path: qwen3_reranker(path, context=TOKENS)),
}


@attrs.frozen
class Pair:
    """One model twice: in our engine and in llama-server."""

    ours: SteppedEmbedder
    server: LlamaServer

    def vectors(self, texts: Sequence[str], normalize: int = 2) -> list[list[float]]:
        """Ask llama-server for vectors, 2 being its default and -1 as they are."""
        body = {"input": list(texts), "embd_normalize": normalize}
        found: list[dict[str, Any]] = self.server.post("/v1/embeddings", body)["data"]
        return [each["embedding"] for each in sorted(found, key=lambda each: each["index"])]

    def scores(self, query: str, documents: Sequence[str]) -> list[float]:
        """Ask llama-server for scores, in the order of the documents."""
        body = {"query": query, "documents": list(documents)}
        found = self.server.post("/rerank", body)["results"]
        return [each["relevance_score"] for each in sorted(found, key=lambda each: each["index"])]


def _pair(case: Case, serve: Serve, folder: Path) -> Iterator[Pair]:
    path = case.write(folder / "model.gguf")
    ours = SteppedEmbedder(path, case.asked)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        stack.callback(ours.close)
        patch.setenv("LLAMA_ARG_EMBEDDINGS", "1")
        patch.setenv("LLAMA_ARG_POOLING", ours.backend.pooling.kind)
        settings = Settings(model=path, context_tokens=256, cache_type="f32")
        yield Pair(ours, stack.enter_context(serve(settings)))


@pytest.fixture(params=CASES)
def pair(
    request: pytest.FixtureRequest, serve: Serve, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """Every embedder."""
    yield from _pair(CASES[request.param], serve, tmp_path_factory.mktemp("embedder"))


@pytest.fixture(params=RERANKERS)
def rerankers(
    request: pytest.FixtureRequest, serve: Serve, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """Every reranker."""
    yield from _pair(RERANKERS[request.param], serve, tmp_path_factory.mktemp("reranker"))


def compare(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> None:
    """Check that vectors are the same, as far as their lengths allow to say."""
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert math.dist(mine, other) <= TOLERANCE * math.hypot(*other)


def test_vectors_are_those_of_llama_server(pair: Pair) -> None:
    """Many texts in one decode, one text alone, of length 1 or raw: always the server's vector."""
    theirs, raw = pair.vectors(TEXTS), pair.vectors(TEXTS, -1)

    compare(pair.ours.embed(*TEXTS), theirs)
    compare([pair.ours.embed(text)[0] for text in TEXTS], theirs)
    compare(pair.ours.embed(*TEXTS, normalize=False), raw)


def test_scores_are_those_of_llama_server(rerankers: Pair) -> None:
    """Many documents in one decode, and each alone, are scored as the server does."""
    for query in ("what is a panda?", "", "été 日本"):
        theirs = rerankers.scores(query, DOCUMENTS)
        together = rerankers.ours.rerank(query, *DOCUMENTS)
        alone = [rerankers.ours.rerank(query, document)[0] for document in DOCUMENTS]

        assert together == pytest.approx(theirs, rel=TOLERANCE, abs=1e-5)
        assert alone == pytest.approx(theirs, rel=TOLERANCE, abs=1e-5)
