"""LoRA adapters through the public door: chosen by request, never mixed, never shared, refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from leaks import growth_bytes
from lora_gguf import Lora, lora, merged
from stepped import Stepped, ending, pieces_of, text_of
from tiny_gguf import tiny_model
from vision_gguf import picture, seeing_model, tiny_projector

from llmdispatcher import (
    AsyncDispatcher,
    CorruptModel,
    Dispatcher,
    Image,
    LlamaCpp,
    LoadProgress,
    Message,
    ModelFileMissing,
    NoCandidate,
    Reply,
    Request,
    Sampling,
    Unsupported,
    UnsupportedArchitecture,
    VendorError,
    assistant,
    user,
)
from llmdispatcher.vendors.llamacpp.engine.backend import Adapting, Chunk
from llmdispatcher.vendors.llamacpp.engine.cells import Cells, Pool
from llmdispatcher.vendors.llamacpp.engine.inbox import EngineCall
from llmdispatcher.vendors.llamacpp.files.gguf import read_header

MOST = 12
GREEDY = Sampling(temperature=0)
LONG = "ba da ga la ma na " * 6
"""Enough for a prefix that is worth finding."""
MADE = {"style": Lora(seed=1), "words": Lora(seed=2), "small": Lora(seed=3, targets=("attn_v",))}
SETS: list[dict[str, float]] = [
    {},
    {"style": 1.0},
    {"style": -0.5},
    {"words": 1.0},
    {"style": 0.5, "words": 1.5},
]
GROWTH_BYTES = 6 * 2**20
"""What hundreds of requests may leave behind: the allocator's noise."""


@attrs.frozen
class Files:
    """A model with adapters."""

    model: Path
    adapters: Mapping[str, Path]

    def spec(self, **fields: Any) -> LlamaCpp:
        """Describe it; what it says depends on nothing but the conversation, as far as F32 goes."""
        settings: dict[str, Any] = {"cache_type": "f32", "max_threads": 1, **fields}
        return LlamaCpp(self.model, **{"adapters": self.adapters, **settings}, isolation="thread")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A model with three adapters."""
    folder = tmp_path_factory.mktemp("adapters")
    model = tiny_model(folder / "base.gguf", vocab=600, context=512)
    return Files(
        model,
        {
            name: lora(folder / f"{name}.gguf", model, **attrs.asdict(made, recurse=False))
            for name, made in MADE.items()
        },
    )


def ask(d: Dispatcher, text: str | Message, adapters: Any = None, **options: Any) -> Reply:
    """Take the likeliest answer."""
    said = [user(text)] if isinstance(text, str) else [text]
    return talk(d, said, adapters=adapters, **options)


def talk(d: Dispatcher, messages: Sequence[Message], **options: Any) -> Reply:
    """Go on with a conversation, and take the likeliest answer."""
    return d.send(messages, **{"temperature": 0, "max_tokens": MOST, **options})


@pytest.mark.parametrize("wanted", SETS, ids=str)
def test_a_request_is_answered_as_by_the_merged_model(
    wanted: dict[str, float], files: Files, tmp_path: Path
) -> None:
    """Adapters of a request do what merging them into the weights would."""
    pairs = [(scale, MADE[name]) for name, scale in wanted.items()]
    whole = merged(tmp_path / "merged.gguf", files.model, *pairs)
    with Dispatcher(files.spec()) as d, Dispatcher(files.spec(adapters={}, name="other")) as no:
        found, plain = ask(d, LONG, wanted).text, ask(no, LONG).text
    with Dispatcher(LlamaCpp(whole, cache_type="f32", max_threads=1, isolation="thread")) as d:
        assert ask(d, LONG).text == found
    assert (found == plain) == (not wanted)


def test_scale_0_is_no_adapter(files: Files) -> None:
    """It says what the model says alone, shares its prefixes, and needs no such adapter."""
    with Dispatcher(files.spec()) as d:
        plain = ask(d, LONG)
        none = ask(d, LONG, {"style": 0, "words": 0.0, "unknown": 0})
    with Dispatcher(files.spec(adapters={})) as d:
        assert ask(d, LONG, {"style": 0}).text == plain.text

    assert none.text == plain.text
    assert none.usage.cached_tokens == none.usage.prompt_tokens - 1


def test_a_name_alone_is_scale_1_and_order_does_not_matter(files: Files) -> None:
    """Sets that are written otherwise and are the same share what was decoded."""
    with Dispatcher(files.spec()) as d:
        first = ask(d, LONG, {"style": 1.0, "words": 1})
        again = ask(d, LONG, ["words", "style"])

    assert first.text == again.text
    assert again.usage.cached_tokens == again.usage.prompt_tokens - 1


def test_sets_share_nothing(files: Files) -> None:
    """A prefix is found only by requests with the set that it was decoded with."""
    sets = [*SETS, {"style": -1.0}, {"style": -2.0}]  # the hashes of the last two are equal
    with Dispatcher(files.spec()) as d:
        first, again, longer = list[Reply](), list[Reply](), list[Reply]()
        for wanted in sets:
            first.append(ask(d, LONG, wanted))
            again.append(ask(d, LONG, wanted))
            longer.append(ask(d, f"{LONG} zo", wanted))

    assert [reply.usage.cached_tokens for reply in first] == [0] * len(sets)
    assert all(reply.usage.cached_tokens == reply.usage.prompt_tokens - 1 for reply in again)
    assert all(reply.usage.cached_tokens >= 36 for reply in longer)
    assert [reply.text for reply in first] == [reply.text for reply in again]
    for wanted, reply in zip(sets, longer, strict=True):
        with Dispatcher(files.spec()) as d:
            assert ask(d, f"{LONG} zo", wanted).text == reply.text


def test_keys_of_one_hash_are_told_apart() -> None:
    """Sets are compared, not their hashes: Python's of -1.0 and -2.0 are equal."""
    first, second = (("style", -1.0),), (("style", -2.0),)
    assert hash(first) == hash(second)
    cells = Cells(Nothing(), Pool(cells=500, slots=4))
    tokens = [*range(100)]
    for key in (first, second):
        slot = cells.open(tokens, cells.match(tokens, key), key=key).slot
        cells.extend(slot, 100, pristine=False)
        assert cells.match(tokens, key) == (slot, 99)
        cells.retire(slot)
    found = {cells.match(tokens, key).slot for key in (first, second)}
    assert len(found) == 2
    assert cells.match(tokens).shared == 0


class Nothing:
    """A memory that forgets at once."""

    def share(self, source: int, target: int, count: int) -> bool:
        """Pretend."""
        return True

    def drop(self, slot: int) -> None:
        """Pretend."""


def test_a_conversation_goes_on_with_its_set(files: Files) -> None:
    """A second turn with the first's set reads only what is new."""
    with Dispatcher(files.spec()) as d:
        first = ask(d, LONG, ["style"])
        turns = [user(LONG), assistant(first.text), user("more")]
        second = talk(d, turns, adapters=["style"])
        other = talk(d, turns, adapters=["words"])

    assert other.usage.cached_tokens == 0
    assert second.usage.cached_tokens >= first.usage.prompt_tokens - 1


def test_sets_at_once_get_what_they_get_alone(files: Files) -> None:
    """Thirty requests of five sets at the same time are each answered as alone."""
    jobs = [(f"{'ba da ga'[: 2 + i % 6]} {i}", SETS[i % len(SETS)]) for i in range(30)]
    with Dispatcher(files.spec()) as d:
        alone = [ask(d, text, wanted).text for text, wanted in jobs]

    async def together() -> list[str]:
        async with AsyncDispatcher(files.spec()) as d:
            sent = [
                d.send([user(text)], adapters=wanted, temperature=0, max_tokens=MOST)
                for text, wanted in jobs
            ]
            return [reply.text for reply in await asyncio.gather(*sent)]

    assert asyncio.run(together()) == alone


@pytest.fixture
def engine(files: Files) -> Iterator[Stepped]:
    """An engine with adapters, stepped by hand."""
    made = Stepped(files.model, parallel=3)
    made.backend.take_adapters(read_header(files.model), files.adapters)
    yield made
    made.close()


def wants(text: str, adapters: Any = None, most: int = MOST, **fields: Any) -> Request:
    """Make a request with a set."""
    return Request(
        messages=[user(text)], adapters=adapters, max_tokens=most, sampling=GREEDY, **fields
    )


def test_no_decode_mixes_sets(engine: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every decode holds sequences of one set, and that is the one that is applied."""
    of_slot: dict[int, Adapting] = {}
    applied: list[Adapting] = [()]
    adapt, decode = engine.backend.adapt, engine.backend.decode

    def adapted(adapters: Adapting) -> None:
        applied.append(adapters)
        adapt(adapters)

    def decoded(chunks: Sequence[Chunk]) -> None:
        for sequence in engine.loop._scheduler.running:
            of_slot[sequence.slot] = sequence.adapters
        assert {of_slot[chunk.slot] for chunk in chunks} == {applied[-1]}
        decode(chunks)

    monkeypatch.setattr(engine.backend, "adapt", adapted)
    monkeypatch.setattr(engine.backend, "decode", decoded)
    calls = [engine.submit(wants(f"{i} ba", SETS[i % 5], 5 + i % 7)) for i in range(25)]
    engine.run()

    assert [call.completion_tokens for call in calls] == [5 + i % 7 for i in range(25)]
    assert len(set(applied)) == len(SETS)


def test_nobody_starves_beside_another_set(engine: Stepped) -> None:
    """One that waits with another set is served, though requests of the first never stop."""
    submitted: list[EngineCall] = []

    def keep_busy() -> None:
        while sum(not call.reasons for call in submitted[-9:]) < 6:
            submitted.append(engine.submit(wants(f"{len(submitted)} ba", ["style"], 3)))

    keep_busy()
    engine.loop.step()
    waits = engine.submit(wants("da", ["words"]))
    for _ in range(4000):
        if waits.completion_tokens == MOST:
            break
        keep_busy()
        engine.loop.step()

    assert waits.completion_tokens == MOST
    assert len(submitted) < 200, "so many, and no more, may be served before it"
    engine.run()


@pytest.mark.parametrize("asked", [["other"], {"style": 1, "other": 2, "else": 1}], ids=str)
def test_an_unknown_adapter_is_refused_before_anything_is_decoded(asked: Any, files: Files) -> None:
    """The error names it and what there is; the engine and those that run go on."""
    events: list[object] = []
    with Dispatcher(files.spec(), on_event=events.append) as d:
        expected = ask(d, LONG, ["style"], max_tokens=100).text
        with d.stream([user(LONG)], adapters=["style"], temperature=0, max_tokens=100) as stream:
            said = next(stream).text
            chat, raw = Request(messages=[user("x")]), Request(prompt="x")
            for request in (chat, raw):
                with pytest.raises(Unsupported, match=r"'other'.*; loaded: small, style, words"):
                    d.send(attrs.evolve(request, adapters=asked))
            said += "".join(delta.text for delta in stream)
        assert said == expected
        assert ask(d, LONG, ["style"]).usage.cached_tokens > 0, "the engine lives on"
    loads = [e for e in events if isinstance(e, LoadProgress) and e.fraction == 1]
    assert len(loads) == 1


def test_an_unknown_adapter_never_reaches_a_decode(engine: Stepped) -> None:
    """It is refused where requests are read, so that not one token is decoded for it."""
    call = engine.submit(wants("ba", ["other"]))
    engine.loop.step()
    assert isinstance(ending(call), Unsupported)
    assert engine.backend._places.lengths == [0] * engine.backend.slots
    assert engine.ask(wants("ba", ["style"]))


def test_a_model_without_adapters(files: Files) -> None:
    """It is no candidate; its engine, if asked all the same, refuses and goes on."""
    with (
        Dispatcher(files.spec(adapters={})) as d,
        pytest.raises(NoCandidate, match="cannot do adapters"),
    ):
        ask(d, "x", ["style"])
    engine = Stepped(files.model)
    call = engine.submit(wants("ba", ["style"]))
    engine.run()
    assert isinstance(ending(call), Unsupported)
    assert engine.ask(wants("ba"))
    engine.close()


def test_replies_that_are_preempted_keep_their_set(files: Files) -> None:
    """With cells for one and a half, replies of one set wait, begin again, and say the same."""
    engine = Stepped(files.model, cells=512, context_tokens=512, parallel=4)
    engine.backend.take_adapters(read_header(files.model), files.adapters)
    # of these no two tokens are so near each other that rounding would decide
    requests = [wants(f"{i} {LONG}", SETS[1 + i % 2], 370) for i in (2, 3, 7, 8)]
    alone = [engine.ask(request) for request in requests]
    calls = [engine.submit(request) for request in requests]
    engine.run()
    assert [text_of(pieces_of(call)) for call in calls] == alone
    engine.close()


def test_a_seed_gives_the_same_whatever_sets_ran_before(files: Files) -> None:
    """With a seed, what other sets left behind changes nothing."""
    options: dict[str, Any] = {"seed": 5, "temperature": 1.5}
    with Dispatcher(files.spec()) as d:
        first = ask(d, LONG * 3, ["style"], **options).text
    with Dispatcher(files.spec()) as d:
        for wanted in SETS:
            ask(d, LONG * 3, wanted)
        assert ask(d, LONG * 3, ["style"], **options).text == first
        assert ask(d, LONG * 3, ["words"], **options).text != first
        assert ask(d, LONG * 3, ["style"], **options).text == first


def test_images_and_adapters_go_together(tmp_path: Path) -> None:
    """An adapter changes what is said of an image, whose cells are those of its set alone."""
    model = seeing_model(tmp_path / "model.gguf", "mlp")
    spec = LlamaCpp(
        model,
        projector_path=tiny_projector(tmp_path / "mmproj.gguf"),
        adapters={"style": lora(tmp_path / "style.gguf", model)},
        max_threads=1,
        isolation="thread",
    )
    message = user([LONG, Image(data=picture(1)), "ga"])
    with Dispatcher(spec) as d:
        plain = ask(d, message)
        styled, again = ask(d, message, ["style"]), ask(d, message, ["style"])

    assert plain.text != styled.text == again.text
    assert styled.usage.cached_tokens == 0
    assert again.usage.cached_tokens == again.usage.prompt_tokens - 1


Maker = Callable[[Path, Path], Path]
BAD: dict[str, tuple[Maker, type[VendorError]]] = {
    "missing": (lambda path, _: path, ModelFileMissing),
    "a model": (lambda _, base: base, UnsupportedArchitecture),
    "of another": (lambda p, base: lora(p, base, architecture="qwen2"), UnsupportedArchitecture),
    "empty": (lambda p, base: lora(p, base, targets=()), CorruptModel),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_file_is_refused_at_load(name: str, files: Files, tmp_path: Path) -> None:
    """The error is typed and names the adapter, whoever asks for what; right ones do not help."""
    write, kind = BAD[name]
    wrong = write(tmp_path / "wrong.gguf", files.model)
    with Dispatcher(files.spec(adapters={**files.adapters, "mine": wrong})) as d:
        for adapters in (None, ["style"], ["mine"]):
            with pytest.raises(kind, match=r"adapter 'mine': |wrong\.gguf"):
                ask(d, "x", adapters)
        assert d.stats().in_flight == 0


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.soak)])
def test_changing_sets_leaves_nothing_behind(count: int, files: Files) -> None:
    """Requests that each want another set leave no memory behind."""
    with Dispatcher(files.spec()) as d:

        def work(index: int) -> None:
            ask(d, f"{index} ba", SETS[index % len(SETS)], max_tokens=2)

        assert growth_bytes(work, count, GROWTH_BYTES) < GROWTH_BYTES
