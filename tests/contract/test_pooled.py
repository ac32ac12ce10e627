"""What an engine whose card lists EMBED or RERANK must do. A new engine is a row in ``SPECS``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
from embedding_gguf import RANK, encoder
from pooled_engine import PooledVendor

from llmdispatcher import Capability, DispatcherError, FinishReason, Refused, Scripted
from llmdispatcher.models.embedding import EmbedRequest, RerankRequest, Score, Vector
from llmdispatcher.models.errors import Cancelled
from llmdispatcher.models.reply import Finish, Piece, Progress
from llmdispatcher.vendors.contract import Call, Engine, VendorSpec

WAIT_S = 60.0
TEXTS = [f"text {number}" for number in range(100)]


@attrs.frozen
class Spec:
    """How to make an engine, and what it is asked."""

    make: Callable[[Path], VendorSpec]
    work: EmbedRequest | RerankRequest
    capability: Capability


def _encoder(folder: Path) -> VendorSpec:
    return PooledVendor(encoder(folder / "embed.gguf"))


def _reranker(folder: Path) -> VendorSpec:
    return PooledVendor(encoder(folder / "rank.gguf", pooling=RANK, head=("cls", "cls.output")))


EMBED, RERANK = EmbedRequest(texts=TEXTS), RerankRequest(query="text", documents=TEXTS)
SPECS = {
    "scripted embed": Spec(lambda _: Scripted(), EMBED, Capability.EMBED),
    "scripted rerank": Spec(lambda _: Scripted(), RERANK, Capability.RERANK),
    "llamacpp embed": Spec(_encoder, EMBED, Capability.EMBED),
    "llamacpp rerank": Spec(_reranker, RERANK, Capability.RERANK),
}


@attrs.frozen
class Started:
    """An engine that is loaded, and what it is asked."""

    engine: Engine
    work: EmbedRequest | RerankRequest

    def call(self) -> Call:
        """Submit the work."""
        return self.engine.submit(self.work, self.engine.cards()[0].model)


@pytest.fixture(params=SPECS)
def started(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Started]:
    """An engine of each kind."""
    spec = SPECS[request.param]
    engine: Engine = spec.make(tmp_path).start(lambda _: None)
    (card,) = engine.cards()
    assert spec.capability in card.capabilities
    engine.load(card.model).result(WAIT_S)
    yield Started(engine, spec.work)
    engine.close()


def drain(call: Call) -> list[Piece]:
    """Read a call to its finish."""
    pieces: list[Piece] = []
    while not pieces or not isinstance(pieces[-1], Finish):
        pieces.extend(call.receive(WAIT_S))
    return pieces


def test_every_text_is_answered_once(started: Started) -> None:
    """One vector or score for each text, each once and in any order, and then one finish."""
    call = started.call()
    *pieces, last = drain(call)

    kind = Vector if isinstance(started.work, EmbedRequest) else Score
    answers = [piece for piece in pieces if not isinstance(piece, Progress)]
    assert all(isinstance(piece, kind) for piece in answers)
    places = [piece.index for piece in answers if isinstance(piece, Vector | Score)]
    assert sorted(places) == list(range(len(TEXTS)))
    assert isinstance(last, Finish)
    assert last.reason is FinishReason.STOP
    assert last.usage == call.usage()
    assert last.usage.prompt_tokens > 0
    assert last.usage.completion_tokens == 0


def test_a_cancelled_call_ends_as_cancelled(started: Started) -> None:
    """Cancelling is taken at any time, any number of times, and the next call is served."""
    call = started.call()
    call.cancel()
    call.cancel()
    with pytest.raises(Cancelled):
        while True:
            call.receive(WAIT_S)

    assert drain(started.call())


def test_closing_ends_calls(started: Started) -> None:
    """Closing fails what has not ended."""
    calls = [started.call() for _ in range(30)]
    started.engine.close()

    for call in calls:
        ended: DispatcherError | Piece | None = None
        while not isinstance(ended, Finish | DispatcherError):
            try:
                ended = call.receive(WAIT_S)[-1]
            except DispatcherError as error:
                ended = error
        assert isinstance(ended, Finish | Refused)
