"""A model that makes vectors or scores: stepped by hand, or as a vendor with its own thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import attrs

from llmdispatcher.models.card import FREE, ModelCard
from llmdispatcher.models.embedding import EmbedRequest, RerankRequest, Score, Vector, Work
from llmdispatcher.models.errors import Refused
from llmdispatcher.models.reply import Piece
from llmdispatcher.vendors.contract import Call, Report, State, Status
from llmdispatcher.vendors.llamacpp.embedding.embedder import EmbedLoop, LoadedPooled, PooledCall
from llmdispatcher.vendors.llamacpp.embedding.pooled import Pooled, PooledSetup
from llmdispatcher.vendors.llamacpp.embedding.pooling import choose, pooling_of
from llmdispatcher.vendors.llamacpp.engine.inbox import Inbox
from llmdispatcher.vendors.llamacpp.engine.keeping import Subject
from llmdispatcher.vendors.llamacpp.engine.thread import EngineThread
from llmdispatcher.vendors.llamacpp.files import gguf
from llmdispatcher.vendors.llamacpp.plan.fit import Asked, Machine

ROOMY = Machine(available_bytes=2**34)


def pooled(path: Path, asked: str | None = None, **fields: Any) -> Pooled:
    """Load a model; ``fields`` are those of ``PooledSetup``, and ``context_tokens``."""
    header = gguf.read_header(path)
    pooling = pooling_of(header, asked)
    wishes = Asked(context_tokens=fields.pop("context_tokens", None), cache_type="f32")
    plan = choose(header, pooling, wishes, ROOMY)
    setup = PooledSetup.of(path, pooling, plan)
    return Pooled(attrs.evolve(setup, **fields), lambda _: True)


class SteppedEmbedder:
    """An engine on a real model, stepped by hand."""

    def __init__(self, path: Path, asked: str | None = None, **fields: Any) -> None:
        self.backend = pooled(path, asked, **fields)
        self.inbox = Inbox()
        self.decodes: list[int] = []
        """The tokens of each decode."""
        loaded = LoadedPooled(self.backend, govern=lambda tokens, _: self.decodes.append(tokens))
        self.loop = EmbedLoop(loaded, self.inbox)
        self.inbox.attach(lambda on: self.backend.interrupt(on=on))

    def submit(self, work: EmbedRequest | RerankRequest) -> PooledCall:
        """Queue a request."""
        call = PooledCall(work, self.inbox.cancel)
        self.inbox.submit(call)
        return call

    def run(self, limit: int = 100_000) -> int:
        """Step until nothing is left to do; returns the number of steps."""
        for count in range(limit):
            if not self.loop.step():
                return count
        raise AssertionError(f"the engine is not done after {limit} steps")

    def embed(self, *texts: str, normalize: bool = True) -> list[list[float]]:
        """Embed texts alone."""
        call = self.submit(EmbedRequest(texts=texts, normalize=normalize))
        self.run()
        return vectors_of(call.receive(0.0))

    def rerank(self, query: str, *documents: str) -> list[float]:
        """Score documents alone."""
        call = self.submit(RerankRequest(query=query, documents=documents))
        self.run()
        found = {p.index: p.value for p in call.receive(0.0) if isinstance(p, Score)}
        return [found[index] for index in range(len(documents))]

    def close(self) -> None:
        """Give the memory back."""
        self.inbox.close()
        self.loop.close(Refused("the test is over"))


def vectors_of(pieces: Sequence[Piece]) -> list[list[float]]:
    """Return the vectors in the order of their texts."""
    found = {p.index: list(p.values) for p in pieces if isinstance(p, Vector)}
    return [found[index] for index in range(len(found))]


@attrs.frozen
class PooledVendor:
    """A vendor of one such model, in a thread of its own."""

    path: Path
    asked: str | None = None
    name: str = "pooled"
    govern: Callable[[int, float], None] = lambda _tokens, _began_s: None

    def start(self, report: Report) -> PooledEngine:
        """Make the engine."""
        return PooledEngine(self)


class PooledEngine:
    """Loads on demand, as the vendor's own engine does."""

    def __init__(self, spec: PooledVendor) -> None:
        self._spec = spec
        self._thread: EngineThread | None = None
        pooling = pooling_of(gguf.read_header(spec.path), spec.asked)
        self._card = ModelCard(
            vendor=spec.name,
            model=spec.path.stem,
            local=True,
            price=FREE,
            capabilities=(pooling.capability,),
        )

    def cards(self) -> Sequence[ModelCard]:
        """Return the one card."""
        return (self._card,)

    def status(self) -> Status:
        """Return nothing of interest."""
        return Status(State.READY)

    def load(self, model: str) -> Future[None]:
        """Load the model once."""
        if self._thread is None:
            spec = self._spec
            self._thread = EngineThread(
                lambda _: LoadedPooled(pooled(spec.path, spec.asked), govern=spec.govern),
                Subject(vendor=spec.name, model=model, path=spec.path, cache_type="f16"),
            )
        return self._thread.loaded

    def submit(self, work: Work, model: str) -> Call:
        """Begin to serve."""
        assert self._thread is not None
        return self._thread.submit(work)

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._thread.stop()
            self._thread.join()
