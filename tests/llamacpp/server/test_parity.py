"""A supervised server against our own engine: the same requests get the same answers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
from embedding_gguf import LAST, MEAN, RANK, encoder, pooled_llama
from llamacpp.server.conftest import real_server
from llamacpp.server.served import Served, drain, text
from lora_gguf import lora
from tiny_gguf import tiny_model
from vision_gguf import picture, seeing_model, tiny_projector

from llmdispatcher import EmbedRequest, Image, Message, Request, RerankRequest
from llmdispatcher.models.embedding import Score, Vector, Work
from llmdispatcher.models.errors import BadRequest, ContextOverflow, RequestError, Unsupported
from llmdispatcher.models.reply import Finish, Piece
from llmdispatcher.vendors.llamacpp import hosting
from llmdispatcher.vendors.llamacpp.host import Host, Reporting
from llmdispatcher.vendors.llamacpp.vendor import LlamaCpp, card_of

pytestmark = pytest.mark.upstream

TOLERANCE = 1e-3
"""Relative, of the length of the vector: other batches round otherwise."""

FIM = {
    f"tokenizer.ggml.fim_{name}_token_id": 290 + at for at, name in enumerate(("pre", "suf", "mid"))
}


@contextmanager
def both(spec: LlamaCpp) -> Iterator[tuple[Served, Host]]:
    """Load the same in a server, and in this process."""
    own = hosting.begin(
        hosting.Life(
            spec=attrs.evolve(spec, isolation="thread"),
            card=card_of(spec),
            report=Reporting(lambda _: None),
        )
    )
    try:
        own.loaded.result(30)
        with Served(attrs.evolve(spec, executable=real_server())) as served:
            yield served.ready(), own
    finally:
        own.stop()
        own.join()


def told(served: Served, own: Host, work: Work) -> tuple[list[Piece], list[Piece]]:
    """Ask both."""
    return served.ask(work), drain(own.submit(work))


def vectors(pieces: list[Piece]) -> dict[int, list[float]]:
    """Return the vectors by place."""
    return {piece.index: list(piece.values) for piece in pieces if isinstance(piece, Vector)}


def whole(pieces: list[Piece]) -> str:
    """Return the text without what is no whole character at its end: only one tells it."""
    return text(pieces).rstrip("\ufffd")


def near(one: list[float], other: list[float]) -> bool:
    """Whether two vectors are the same but for rounding."""
    return math.dist(one, other) <= TOLERANCE * math.hypot(*other)


@pytest.mark.parametrize("kind", ["encoder", "mean", "last"])
@pytest.mark.parametrize("normalize", [True, False])
def test_vectors_are_the_same(tmp_path: Path, kind: str, normalize: bool) -> None:  # noqa: FBT001
    """A hundred texts get the vectors that our engine makes, each exactly once."""
    path = tmp_path / "model.gguf"
    if kind == "encoder":
        encoder(path)
    else:
        pooled_llama(path, {"mean": MEAN, "last": LAST}[kind])
    texts = [f"text {number} " * (1 + number % 5) for number in range(100)]
    with both(LlamaCpp(path, cache_type="f32")) as (served, own):
        ours, theirs = told(served, own, EmbedRequest.of(texts, normalize=normalize))
        found, expected = vectors(ours), vectors(theirs)
        assert found.keys() == expected.keys() == set(range(100))
        assert all(near(found[place], expected[place]) for place in found)
        assert isinstance(ours[-1], Finish)
        assert isinstance(theirs[-1], Finish)
        assert ours[-1].usage.prompt_tokens == theirs[-1].usage.prompt_tokens
        with pytest.raises(BadRequest, match="not empty"):
            served.ask(EmbedRequest.of(["a", ""]))
        with pytest.raises(ContextOverflow):
            served.ask(EmbedRequest.of("a b " * 2000))


def test_scores_are_the_same(tmp_path: Path) -> None:
    """Documents get the scores that our engine gives."""
    path = encoder(tmp_path / "rank.gguf", pooling=RANK, head=("cls", "cls.output"))
    request = RerankRequest.of("a panda", [f"document {number}" for number in range(50)])
    with both(LlamaCpp(path)) as (served, own):
        ours, theirs = (
            {piece.index: piece.value for piece in pieces if isinstance(piece, Score)}
            for pieces in told(served, own, request)
        )
        assert ours.keys() == theirs.keys() == set(range(50))
        assert all(math.isclose(ours[place], theirs[place], rel_tol=1e-3) for place in ours)


def test_greedy_replies_are_the_same(tmp_path: Path) -> None:
    """Without chance, what is written is the same: raw, in a conversation, filled in."""
    path = tiny_model(tmp_path / "model.gguf", metadata=FIM)
    with both(LlamaCpp(path, max_threads=1, cache_type="f32")) as (served, own):
        for request in (
            Request.of(Request(prompt="tata lolo"), temperature=0, max_tokens=12),
            Request.of(Request(prompt="ta", suffix="lo"), temperature=0, max_tokens=12),
            Request.of("tata", temperature=0, max_tokens=12),
            Request.of("tata", temperature=0, max_tokens=12, prefill="lo"),
        ):
            ours, theirs = told(served, own, request)
            assert whole(ours) == whole(theirs)


def test_adapters_are_applied_by_name(tmp_path: Path) -> None:
    """A request gets the adapters that it names, and none that it does not."""
    base = tiny_model(tmp_path / "base.gguf")
    adapters = {
        name: lora(tmp_path / f"{name}.gguf", base, seed=number)
        for number, name in enumerate(("one", "two"))
    }
    with both(LlamaCpp(base, adapters=adapters, max_threads=1, cache_type="f32")) as (served, own):
        texts = []
        for wanted in ({}, {"one": 1.0}, {"two": 2.0}, {"one": 1.0, "two": 1.0}):
            request = Request.of("tata", temperature=0, max_tokens=12, adapters=wanted)
            ours, theirs = told(served, own, request)
            assert whole(ours) == whole(theirs)
            texts.append(text(ours))
        assert len({*texts}) > 1
        with pytest.raises(RequestError, match="three"):
            served.ask(Request.of("tata", adapters=["three"]))


def test_pictures_are_seen(tmp_path: Path) -> None:
    """A picture reaches the model through the projector, and an address is not followed."""
    base = seeing_model(tmp_path / "base.gguf", "gemma3")
    eye = tiny_projector(tmp_path / "eye.gguf")
    spec = LlamaCpp(base, projector_path=eye, executable=real_server())
    with Served(spec) as served:
        served.ready()
        seen = Message("user", ["What is this?", Image(picture())])
        assert served.ask(Request.of([seen], max_tokens=4))
        far = Message("user", [Image(url="https://example.org/x.png")])
        with pytest.raises(Unsupported, match="fetches nothing"):
            served.ask(Request.of([far]))
