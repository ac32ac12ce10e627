"""Vectors and scores of real models: packed, shared, split, stopped; and files that cannot."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pytest
from embedding_gguf import CLS, LAST, MEAN, RANK, encoder, pooled_llama, qwen3_reranker
from leaks import growth_bytes
from model_shapes import recurrent, sliding
from pooled_engine import ROOMY, SteppedEmbedder, vectors_of
from tiny_gguf import tiny_model

from llmdispatcher import (
    BadRequest,
    Capability,
    ContextOverflow,
    CorruptModel,
    DispatcherError,
    ModelTooLarge,
    Refused,
    Request,
    Unsupported,
    UnsupportedArchitecture,
)
from llmdispatcher.models.embedding import EmbedRequest, RerankRequest, Vector
from llmdispatcher.models.errors import Cancelled
from llmdispatcher.models.reply import Finish, Piece, Progress
from llmdispatcher.vendors.llamacpp.embedding import embedder
from llmdispatcher.vendors.llamacpp.embedding.embedder import PooledCall
from llmdispatcher.vendors.llamacpp.embedding.pooling import (
    BATCH_TOKENS,
    Span,
    choose,
    is_embedder,
    pooling_of,
)
from llmdispatcher.vendors.llamacpp.engine.backend import Interrupted
from llmdispatcher.vendors.llamacpp.engine.inbox import EngineCall, Job
from llmdispatcher.vendors.llamacpp.files import gguf
from llmdispatcher.vendors.llamacpp.plan.fit import Asked

UNHURRIED_S = 60.0
"""For a step to turn all that has arrived into tokens, on whatever machine."""


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no clock decide what a step decodes."""
    monkeypatch.setattr(embedder, "PREPARE_S", UNHURRIED_S)


WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
TEXTS = [" ".join(WORDS[: count % 11]) + "!" * (count % 3) for count in range(40)]
CLOSE = 5e-4
"""How far vectors of length 1 may be apart that differ only in what was decoded beside them: sums
are rounded differently, and ggml looks its GELU up in a table of 16-bit floats, of which a last bit
is a two-thousandth. The models here are up to 5e-5 apart, each processor rounding its own way."""
MIB = 2**20
GROWTH_MIB = 8
"""Resident memory may grow by this much over a thousand requests: allocator's noise."""

Write = Callable[[Path], Path]
STABLE = {"ssm_a": -1.0}
MODELS: dict[str, tuple[Write, str | None]] = {
    "bert": (encoder, None),
    "nomic-bert": (lambda path: encoder(path, architecture="nomic-bert", pooling=CLS), None),
    "t5encoder": (lambda path: encoder(path, architecture="t5encoder"), None),
    "llama": (lambda path: pooled_llama(path, LAST), None),
    "llama asked": (lambda path: pooled_llama(path, None), "mean"),
    "mamba": (lambda path: tiny_model(path, constant=STABLE, **recurrent()), "last"),
    "gemma2": (lambda path: tiny_model(path, **sliding(width=32, layers=2, window=8)), "mean"),
}


def far(ours: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> float:
    """Return how far apart the two of any pair are, at most."""
    return max(math.dist(mine, other) for mine, other in zip(ours, others, strict=True))


def ended(call: PooledCall) -> DispatcherError:
    """Return the error that ended a call."""
    with pytest.raises(DispatcherError) as raised:
        while True:
            call.receive(0.0)
    return raised.value


@pytest.fixture(scope="module")
def bert_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bert whose texts have at most 128 tokens."""
    return encoder(tmp_path_factory.mktemp("bert") / "bert.gguf")


@pytest.fixture
def bert(bert_path: Path) -> Iterator[SteppedEmbedder]:
    """It, loaded."""
    with closing(SteppedEmbedder(bert_path)) as made:
        yield made


@pytest.mark.parametrize("name", MODELS)
def test_a_text_has_one_vector(name: str, tmp_path: Path) -> None:
    """Whatever is decoded beside a text, its vector is that of the text alone."""
    write, asked = MODELS[name]
    with closing(SteppedEmbedder(write(tmp_path / "model.gguf"), asked)) as engine:
        together = engine.embed(*TEXTS)
        assert len(engine.decodes) < len(TEXTS) / 2

        assert far(together, [engine.embed(text)[0] for text in TEXTS]) < CLOSE
        assert far(together, engine.embed(*TEXTS)) < CLOSE
        assert {round(math.hypot(*vector), 5) for vector in together} == {1.0}
        assert len({tuple(vector) for vector in together}) > len(TEXTS) / 2


def test_raw_vectors_have_the_same_direction(bert: SteppedEmbedder) -> None:
    """Without normalize, a vector is as long as the model made it."""
    (raw,), (unit,) = bert.embed("alpha", normalize=False), bert.embed("alpha")
    length = math.hypot(*raw)

    assert length != pytest.approx(1, abs=0.01)
    assert math.dist([value / length for value in raw], unit) < CLOSE


def test_decodes_are_filled(bert: SteppedEmbedder) -> None:
    """Short texts fill a decode up to its slots, longer ones up to its tokens."""
    bert.embed(*["a b"] * 200)
    assert len(bert.decodes) == math.ceil(200 / bert.backend.slots)

    bert.decodes.clear()
    bert.embed(*["a " * 62] * 8)
    assert bert.decodes == [BATCH_TOKENS] * 2


def test_what_fits_goes_beside_what_is_long(tmp_path: Path) -> None:
    """A text that does not fit the rest of a decode lets shorter ones pass, and is next."""
    path = encoder(tmp_path / "long.gguf", context=512)
    with closing(SteppedEmbedder(path)) as engine:
        texts = ["a " * 150, "b " * 150, *["c " * 40] * 2, "d " * 300]
        engine.embed(*texts)

        assert engine.decodes == [152 + 2 * 42, 152, 302]


@pytest.mark.parametrize("pooling", [MEAN, LAST])
def test_long_texts_are_read_in_parts(pooling: int, tmp_path: Path) -> None:
    """Where no token sees those after it, parts of a text make the vector of the whole."""
    path = pooled_llama(tmp_path / "causal.gguf", pooling)
    texts = ["ba " * 50, "so long " * 25, "a", "or not", "de " * 61]
    with closing(SteppedEmbedder(path)) as engine:
        whole = engine.embed(*texts)
    with closing(SteppedEmbedder(path, batch_tokens=64, slots=4)) as engine:
        parts = engine.embed(*texts)
        assert max(engine.decodes) <= 64

        assert far(whole, parts) < CLOSE


def test_long_documents_are_read_in_parts(tmp_path: Path) -> None:
    """The same holds for the scores of a causal reranker."""
    path = qwen3_reranker(tmp_path / "causal.gguf")
    documents = ["ba " * 30, "so long " * 15, "a"]
    with closing(SteppedEmbedder(path)) as engine:
        whole = engine.rerank("or not", *documents)
    with closing(SteppedEmbedder(path, batch_tokens=32, slots=4)) as engine:
        assert engine.rerank("or not", *documents) == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("prepare_s", [0.0, UNHURRIED_S], ids=["slow", "fast"])
def test_requests_share_decodes_and_take_turns(
    bert: SteppedEmbedder, prepare_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request of one text that comes after one of many is served in the next decode.

    However slow the machine is: where a step has no time to turn texts into tokens, some are.
    """
    monkeypatch.setattr(embedder, "PREPARE_S", prepare_s)
    many = bert.submit(EmbedRequest(texts=["alpha beta gamma"] * 500))
    bert.loop.step()
    single = bert.submit(EmbedRequest(texts="delta"))
    bert.loop.step()

    assert isinstance(single.receive(0.0)[-1], Finish)
    assert many.missing > 0
    bert.run()
    assert isinstance(many.receive(0.0)[-1], Finish)


def test_higher_priority_goes_first(tmp_path: Path) -> None:
    """Of the requests that wait, the one of the highest priority is decoded first."""
    path = encoder(tmp_path / "one.gguf", pooling=RANK, head=("cls",))
    with closing(SteppedEmbedder(path)) as engine:
        assert engine.backend.slots == 1
        asked = [RerankRequest(query="a", documents=["b"], priority=p) for p in (0, 5, -5)]
        calls = [engine.submit(work) for work in asked]
        engine.loop.step()

        assert [call.missing for call in calls] == [1, 0, 1]


def test_usage_and_progress_are_told(tmp_path: Path) -> None:
    """Usage counts every token that was read, and a request of many decodes hears of each."""
    with closing(SteppedEmbedder(encoder(tmp_path / "bert.gguf"))) as engine:
        call = engine.submit(EmbedRequest(texts=["a " * 100] * 10))
        pieces: list[Piece] = []
        while engine.loop.step():
            pieces += call.receive(0.0)

        assert [p.done for p in pieces if isinstance(p, Progress)] == []  # vectors are sign enough
        assert isinstance(pieces[-1], Finish)
        assert pieces[-1].usage == call.usage()
        assert call.usage().prompt_tokens == 10 * 102 == sum(engine.decodes)


def test_a_long_text_shows_progress(tmp_path: Path) -> None:
    """Who waits for a single long text is told how much of it was read."""
    path = pooled_llama(tmp_path / "causal.gguf", LAST)
    with closing(SteppedEmbedder(path, batch_tokens=16, slots=4)) as engine:
        call = engine.submit(EmbedRequest(texts="ba " * 40))
        engine.loop.step()

        (piece,) = call.receive(0.0)
        assert isinstance(piece, Progress)
        assert (piece.phase, piece.done) == ("prompt", 16)
        assert piece.total == call.read_tokens > 40


def test_a_text_that_is_too_long_is_named(bert: SteppedEmbedder) -> None:
    """A text beyond the longest fails its request before anything is decoded, and no other."""
    good = bert.submit(EmbedRequest(texts="alpha"))
    bad = bert.submit(EmbedRequest(texts=["alpha", "a " * 126, "a " * 127]))
    bert.run()

    error = ended(bad)
    assert isinstance(error, ContextOverflow)
    assert (error.needed_tokens, error.limit_tokens) == (129, 128)
    assert "texts[2] has 129 tokens" in str(error)
    assert isinstance(good.receive(0.0)[-1], Finish)
    assert sum(bert.decodes) == good.usage().prompt_tokens


def test_a_document_that_is_too_long_is_named(tmp_path: Path) -> None:
    """With a reranker, query and document count together."""
    path = encoder(tmp_path / "rank.gguf", pooling=RANK, head=("cls", "cls.output"))
    with closing(SteppedEmbedder(path)) as engine:
        call = engine.submit(RerankRequest(query="a " * 60, documents=["a", "a " * 90]))
        engine.run()

        assert "documents[1] has" in str(ended(call))


def test_many_bytes_can_be_few_tokens(bert: SteppedEmbedder) -> None:
    """A vocabulary of words makes one token of a word, and none of spaces, however long."""
    long_word, spaces = "\u0416" * 100_000, " " * 140_000

    assert far(bert.embed(long_word, spaces), bert.embed("\u0416", "")) < CLOSE


def test_special_tokens_in_a_text_are_read(bert: SteppedEmbedder) -> None:
    """A text that is written like the start token has it twice, as with llama-server."""
    assert len(bert.backend.tokenize("[CLS]")) == len(bert.backend.tokenize("")) + 1


def test_a_text_of_no_tokens_is_refused(tmp_path: Path) -> None:
    """Where a model puts nothing around a text, an empty one cannot be read, and says so."""
    metadata = {"tokenizer.ggml.add_bos_token": False}
    path = pooled_llama(tmp_path / "bare.gguf", MEAN, metadata=metadata)
    with closing(SteppedEmbedder(path)) as engine:
        call = engine.submit(EmbedRequest(texts=["a", ""]))
        engine.run()

        error = ended(call)
        assert isinstance(error, BadRequest)
        assert error.field == "texts[1]"


def test_a_run_that_is_too_long_is_named(bert: SteppedEmbedder) -> None:
    """What the tokenizer cannot survive is refused under the text's own name."""
    call = bert.submit(EmbedRequest(texts=["a", "x" * 400_000]))
    bert.run()

    error = ended(call)
    assert isinstance(error, BadRequest)
    assert error.field == "texts[1]"


def test_a_request_to_write_is_refused(bert: SteppedEmbedder) -> None:
    """An engine that was given the wrong work says so, and serves on."""
    call = EngineCall(Request(prompt="x"), bert.inbox.cancel)
    bert.inbox.submit(call)
    bert.run()

    with pytest.raises(Unsupported, match="asked to write"):
        call.receive(0.0)
    assert bert.embed("alpha")


def test_there_is_no_state_to_save(bert: SteppedEmbedder) -> None:
    """What conversations are asked for is refused, not left undone."""
    job = Job(lambda loop: loop)
    bert.inbox.ask(job)
    bert.run()

    assert isinstance(job.done.exception(0), Unsupported)


def test_cancelled_requests_are_decoded_no_more(bert: SteppedEmbedder) -> None:
    """Between two decodes, what nobody wants is dropped; the others get what they asked for."""
    before = bert.embed(*TEXTS)
    calls = [bert.submit(EmbedRequest(texts=TEXTS)) for _ in range(3)]
    bert.loop.step()
    calls[0].cancel()
    calls[2].cancel()
    bert.run()

    assert far(vectors_of(calls[1].receive(0.0)), before) < CLOSE
    assert isinstance(ended(calls[0]), Cancelled)
    assert bert.inbox.counts() == (0, 0)
    total = sum(bert.decodes[1:])
    assert total < 3 * calls[1].usage().prompt_tokens


@pytest.mark.parametrize("name", ["bert", "llama", "mamba"])
def test_an_interrupted_decode_is_done_again(name: str, tmp_path: Path) -> None:
    """What a decode that was stopped had begun is read again from its beginning."""
    write, asked = MODELS[name]
    path = write(tmp_path / "model.gguf")
    small: dict[str, Any] = {} if name == "bert" else {"batch_tokens": 32, "slots": 4}
    texts = [*TEXTS, "ba " * 40]
    with closing(SteppedEmbedder(path, asked, **small)) as engine:
        expected = engine.embed(*texts)
        decode, count = engine.backend.decode, 0

        def stopped(spans: Any) -> Any:
            nonlocal count
            count += 1
            if count not in {2, 5}:
                return decode(spans)
            engine.backend.clear()
            raise Interrupted

        engine.backend.decode = stopped  # type: ignore[method-assign]
        call = engine.submit(EmbedRequest(texts=texts))
        engine.run()

        assert far(vectors_of(call.receive(0.0)), expected) < CLOSE
        assert call.usage().prompt_tokens == call.read_tokens


def test_a_real_interrupt_empties_all_slots(bert: SteppedEmbedder) -> None:
    """The flag that other threads set stops a decode, and nothing is left behind."""
    bert.backend.interrupt(on=True)
    tokens = bert.backend.tokenize("alpha")
    with pytest.raises(Interrupted):
        bert.backend.decode([Span(0, 0, tokens)])
    bert.backend.interrupt(on=False)

    assert bert.embed("alpha")


def test_closing_fails_what_waits(bert_path: Path) -> None:
    """Calls that have not ended are told why, and so are those of the thread's other jobs."""
    engine = SteppedEmbedder(bert_path)
    call = engine.submit(EmbedRequest(texts="alpha"))
    job = Job(lambda loop: loop)
    engine.inbox.ask(job)
    engine.close()

    assert isinstance(ended(call), Refused)
    assert isinstance(job.done.exception(0), Refused)


def test_an_encoder_sees_the_whole_text(tmp_path: Path) -> None:
    """The first token's vector depends on the last word, which a causal mask would hide."""
    for architecture in ("bert", "nomic-bert", "t5encoder"):
        path = encoder(tmp_path / f"{architecture}.gguf", architecture=architecture, pooling=CLS)
        with closing(SteppedEmbedder(path)) as engine:
            one, other = engine.embed("alpha beta", "alpha gamma")

            assert math.dist(one, other) > 1e-3


@attrs.frozen
class Bad:
    """A file that cannot be loaded for vectors, and the error that says so."""

    write: Write
    error: type[DispatcherError]
    told: str
    asked: str | None = None


def _bert(**fields: Any) -> Write:
    return lambda path: encoder(path, **fields)


def _nomic(key: str, value: int) -> Write:
    metadata = {f"nomic-bert.{key}": value}
    return lambda path: encoder(path, architecture="nomic-bert", metadata=metadata)


BAD = {
    "a writer": Bad(tiny_model, UnsupportedArchitecture, "pooling='mean'"),
    "silent": Bad(_bert(pooling=None), UnsupportedArchitecture, "pooling='mean'"),
    "no classifier": Bad(_bert(pooling=RANK), UnsupportedArchitecture, "no classifier"),
    "a writer asked to rank": Bad(tiny_model, UnsupportedArchitecture, "no classifier", "rank"),
    "no positions": Bad(_bert(without=("position_embd.weight",)), CorruptModel, "position_embd"),
    "odd keys": Bad(_nomic("attention.key_length", 16), CorruptModel, "key_length is 16"),
    "turned too far": Bad(_nomic("rope.dimension_count", 16), CorruptModel, "dimension_count"),
    "turned by one": Bad(_nomic("rope.dimension_count", 1), CorruptModel, "dimension_count"),
    "too wide": Bad(_nomic("embedding_length_out", 1000), CorruptModel, "embedding_length_out"),
    "dense": Bad(_nomic("dense_2_feat_in", 7), CorruptModel, "dense_2_feat_in"),
    "half types": Bad(_bert(types_as="F16"), CorruptModel, "token_types.weight is 'F16'"),
    "t5 without places": Bad(
        _bert(architecture="t5encoder", without=("enc.blk.0.attn_rel_b.weight",)),
        CorruptModel,
        "attn_rel_b",
    ),
    "cut": Bad(lambda path: _cut(encoder(path)), CorruptModel, "path"),
    "diffusion": Bad(
        lambda path: tiny_model(path, architecture="dream"), UnsupportedArchitecture, "no vectors"
    ),
}


def _cut(path: Path) -> Path:
    os.truncate(path, path.stat().st_size // 2)
    return path


@pytest.mark.parametrize("name", BAD)
def test_files_that_cannot_say_why(name: str, tmp_path: Path) -> None:
    """What cannot make vectors is refused with a typed error that names the reason."""
    case = BAD[name]
    path = case.write(tmp_path / "path.gguf")

    with pytest.raises(case.error, match=case.told):
        SteppedEmbedder(path, case.asked).close()


def test_which_files_are_embedders(tmp_path: Path) -> None:
    """A file that says so is one, and any other where the user does."""
    bert = gguf.read_header(encoder(tmp_path / "bert.gguf"))
    llama = gguf.read_header(tiny_model(tmp_path / "llama.gguf"))
    last = gguf.read_header(pooled_llama(tmp_path / "last.gguf", LAST))

    assert is_embedder(bert, None)
    assert is_embedder(last, None)
    assert not is_embedder(llama, None)
    assert is_embedder(llama, "mean")
    assert pooling_of(llama, "mean").capability is Capability.EMBED
    assert pooling_of(last, None).kind == "last"
    assert pooling_of(last, "mean").kind == "mean"


def test_the_longest_text_is_what_the_model_was_trained_for(bert_path: Path) -> None:
    """A longer one would need positions that the file does not have, and is refused."""
    header = gguf.read_header(bert_path)
    pooling = pooling_of(header, None)

    assert choose(header, pooling, Asked(), ROOMY).context_tokens == 128
    assert choose(header, pooling, Asked(context_tokens=64), ROOMY).context_tokens == 64
    with pytest.raises(BadRequest, match="at most 128"):
        choose(header, pooling, Asked(context_tokens=129), ROOMY)


def test_what_does_not_fit_is_refused_with_numbers(bert_path: Path) -> None:
    """A model that needs more memory than there is, or than is allowed, is not loaded."""
    header = gguf.read_header(bert_path)
    with pytest.raises(ModelTooLarge) as raised:
        choose(header, pooling_of(header, None), Asked(limit_bytes=MIB), ROOMY)

    assert raised.value.needed_bytes > raised.value.limit_bytes == MIB
    assert sum(raised.value.parts.values()) == raised.value.needed_bytes


@pytest.mark.parametrize("slots", [1, 3, 64])
@pytest.mark.parametrize("context", [100, 600, 1000])
def test_every_batch_can_be_planned(context: int, slots: int, tmp_path: Path) -> None:
    """llama.cpp aborts on a batch that does not divide by its slots, so none is planned."""
    path = encoder(tmp_path / "bert.gguf", context=context)
    header = gguf.read_header(path)
    plan = choose(header, pooling_of(header, None), Asked(max_parallel=slots), ROOMY)

    assert plan.batch_tokens % plan.slots == 0
    with closing(SteppedEmbedder(path)) as engine:
        assert engine.embed("a " * (context - 2))


@pytest.mark.soak
def test_a_thousand_requests_leave_nothing(bert_path: Path, tmp_path: Path) -> None:
    """Memory is flat over a thousand requests, served, too long or given up."""
    llama = pooled_llama(tmp_path / "llama.gguf", LAST)
    for path in (bert_path, llama):
        with closing(SteppedEmbedder(path)) as engine:
            _requests(engine, 100)
            limit = GROWTH_MIB * MIB

            assert growth_bytes(lambda _, e=engine: _requests(e, 100), 10, limit) < limit  # type: ignore[misc]
            assert engine.inbox.calls() == []


def _requests(engine: SteppedEmbedder, count: int) -> None:
    """Serve requests of every fate."""
    engine.decodes.clear()
    for number in range(count):
        texts = ["a " * 400] if number % 10 == 9 else TEXTS
        call = engine.submit(EmbedRequest(texts=texts))
        if number % 10 == 8:
            engine.loop.step()
            call.cancel()
        engine.run()
        if number % 10 < 8:
            assert sum(isinstance(piece, Vector) for piece in call.receive(0.0)) == len(TEXTS)
