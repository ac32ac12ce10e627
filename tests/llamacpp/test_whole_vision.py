"""Images through the public door: told, remembered, batched, cancelled, preempted and refused."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from bare_llama import Bare
from hypothesis import given, settings
from hypothesis import strategies as st
from leaks import growth_bytes
from stepped import Stepped, ending, pieces_of, text_of
from tiny_gguf import CHAT_TEMPLATE
from vision_gguf import CONTEXT, KINDS, picture, png, seeing_model, tiny_projector

from llmdispatcher import (
    AsyncDispatcher,
    BadRequest,
    Cancelled,
    ContextOverflow,
    Dispatcher,
    Image,
    LlamaCpp,
    LoadProgress,
    Message,
    NoCandidate,
    Reply,
    Request,
    Sampling,
    Unsupported,
    UnsupportedArchitecture,
    assistant,
    user,
)
from llmdispatcher.vendors.llamacpp.binding.library import lib
from llmdispatcher.vendors.llamacpp.engine import schedule
from llmdispatcher.vendors.llamacpp.engine.backend import Chunk
from llmdispatcher.vendors.llamacpp.engine.cells import Cells, Pool
from llmdispatcher.vendors.llamacpp.engine.engine import EngineLoop, Loaded
from llmdispatcher.vendors.llamacpp.engine.schedule import Scheduler
from llmdispatcher.vendors.llamacpp.engine.sequence import Sequence as Drawn
from llmdispatcher.vendors.llamacpp.sight import vision
from llmdispatcher.vendors.llamacpp.sight.pictures import MARKER, Tokens, pseudo_tokens, whole
from llmdispatcher.vendors.llamacpp.sight.pictures import Picture as Shown
from llmdispatcher.vendors.llamacpp.sight.vision import Projector
from llmdispatcher.vendors.llamacpp.templates.template import ChatTemplate
from llmdispatcher.vendors.llamacpp.templates.turns import MEDIA_MARKER

CELLS = {"mlp": 64, "qwen2vl_merger": 9, "qwen2.5vl_merger": 9, "gemma3": 16}
"""Of a picture of 24 x 20 pixels."""
GREEDY = Sampling(temperature=0)
MOST = 12
GROWTH_BYTES = 8 * 2**20
"""What hundreds of images may leave behind: below 10 kB each, and each takes 100 kB on its way."""

ONE, OTHER = Image(data=picture(1)), Image(data=picture(2))
LONG = "ba da ga la ma na " * 5
"""Enough for a prefix that is worth finding."""
LAYOUTS: dict[str, list[str | Image]] = {
    "first": [ONE, "ba da"],
    "middle": ["ba da", ONE, "ga"],
    "last": ["ba da", ONE],
    "alone": [ONE],
    "two that meet": ["ba", ONE, OTHER, "da"],
    "the same twice": [ONE, "ba", OTHER, "da", ONE, "ga"],
}


@attrs.frozen
class Files:
    """A model that can see."""

    kind: str
    model: Path
    projector: Path

    def spec(self, **fields: Any) -> LlamaCpp:
        """Describe it; what it says depends on nothing but the conversation, as far as F32 goes."""
        settings: dict[str, Any] = {"cache_type": "f32", "max_threads": 1, **fields}
        return LlamaCpp(self.model, projector_path=self.projector, **settings, isolation="thread")


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Files]:
    """Every kind of projector, beside a model that it fits."""
    folder = tmp_path_factory.mktemp("seeing")
    return {
        kind: Files(
            kind,
            seeing_model(folder / f"{kind}.gguf", kind),
            tiny_projector(folder / f"{kind}-mmproj.gguf", kind=kind),
        )
        for kind in KINDS
    }


@pytest.fixture(params=KINDS)
def files(request: pytest.FixtureRequest, kinds: Mapping[str, Files]) -> Files:
    """Each of them."""
    return kinds[request.param]


@pytest.fixture
def llava(kinds: Mapping[str, Files]) -> Files:
    """The simplest of them."""
    return kinds["mlp"]


def ask(d: Dispatcher, *content: str | Image, **options: Any) -> Reply:
    """Ask about something, and take the likeliest answer."""
    return talk(d, [user(list(content))], **options)


def talk(d: Dispatcher, messages: Sequence[Message], **options: Any) -> Reply:
    """Go on with a conversation, and take the likeliest answer."""
    return d.send(messages, **{"temperature": 0, "max_tokens": MOST, **options})


def cold(files: Files, messages: Sequence[Message], **options: Any) -> str:
    """Ask a model that has seen nothing yet."""
    with Dispatcher(files.spec()) as d:
        return talk(d, messages, **options).text


def by_hand(files: Files, content: Sequence[str | Image]) -> str:
    """Answer without the engine: one decode after the other, in an empty context."""
    text = ChatTemplate(CHAT_TEMPLATE).render([user(list(content))])
    images = [part.data for part in content if isinstance(part, Image)]
    said = b""
    with Bare(files.model) as bare:
        projector = Projector(files.projector, bare.model, threads=1, gpu=False)
        position = 0
        for piece in projector.read(text.replace(MEDIA_MARKER, MARKER), images):
            if isinstance(piece, Tokens):
                scores = bare.decode(piece.tokens, position)
                position += len(piece.tokens)
            else:
                position = projector.decode(
                    bare.context, piece, position=position, slot=0, batch_tokens=bare.batch
                )
        for index in range(MOST):
            token = int(scores.argmax())
            if token == 2:
                break
            said += projector._vocabulary.piece(token)
            scores = bare.decode([token], position + index)
        projector.close()
    return said.decode(errors="replace")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_said_of_images_is_what_the_model_says(layout: str, files: Files) -> None:
    """Wherever images stand, the answer is that of plain decoding, and again when it is known."""
    content = LAYOUTS[layout]
    expected = by_hand(files, content)
    images = sum(isinstance(part, Image) for part in content)

    with Dispatcher(files.spec()) as d:
        words = ask(d, *[part for part in content if isinstance(part, str)] or [" "])
        first, again = ask(d, *content), ask(d, *content)

    assert first.text == again.text == expected
    assert again.usage.cached_tokens in {0, again.usage.prompt_tokens - 1}
    assert first.usage.prompt_tokens >= words.usage.prompt_tokens + images * (CELLS[files.kind] - 3)


def test_another_image_is_another_question(files: Files) -> None:
    """What is known of one image is never told of another, though the words are the same."""
    with Dispatcher(files.spec()) as d:
        first = ask(d, LONG, ONE, "ga")
        other = ask(d, LONG, OTHER, "ga")
        again = ask(d, LONG, ONE, "ga")

    assert first.text == again.text != other.text
    assert 0 < other.usage.cached_tokens < first.usage.prompt_tokens - CELLS[files.kind]
    assert other.text == cold(files, [user([LONG, OTHER, "ga"])])


def test_a_second_turn_reads_only_what_is_new(files: Files) -> None:
    """The first turn with its image is remembered, and the answer is that of a cold start."""
    first_turn = user([LONG, ONE, "da"])
    with Dispatcher(files.spec()) as d:
        first = talk(d, [first_turn])
        turns = [first_turn, assistant(first.text), user(["zo", OTHER, "pe"])]
        second = talk(d, turns)
        turns += [assistant(second.text), user("ra?")]
        third = talk(d, turns)

    assert second.usage.cached_tokens >= first.usage.prompt_tokens - 1
    assert third.usage.cached_tokens >= second.usage.prompt_tokens - 1
    assert second.text == cold(files, turns[:3])
    assert third.text == cold(files, turns)


def test_what_follows_an_image_may_differ(files: Files) -> None:
    """Prompts that differ only after an image share all up to its end."""
    with Dispatcher(files.spec()) as d:
        before = ask(d, LONG).usage.prompt_tokens
        ask(d, LONG, ONE, "da")
        other = ask(d, LONG, ONE, "zo zo pe")

    ends = len("\n<|assistant|>")
    assert other.usage.cached_tokens >= before - ends + CELLS[files.kind]
    assert other.text == cold(files, [user([LONG, ONE, "zo zo pe"])])


def test_images_beside_plain_streams_change_nothing(files: Files) -> None:
    """Twelve at once, a third of them with images, get what each gets alone."""
    contents: list[list[str | Image]] = [
        [f"{'ba da ga'[: 2 + i]} {i}", *([Image(data=picture(i))] if i % 3 == 0 else [])]
        for i in range(12)
    ]
    with Dispatcher(files.spec()) as d:
        alone = [ask(d, *content).text for content in contents]

    async def together() -> list[str]:
        async with AsyncDispatcher(files.spec()) as d:

            async def one(content: list[str | Image]) -> str:
                async with d.stream([user(content)], temperature=0, max_tokens=MOST) as stream:
                    return "".join([delta.text async for delta in stream])

            return await asyncio.gather(*map(one, contents))

    assert asyncio.run(together()) == alone


def test_several_replies_share_one_image(files: Files) -> None:
    """Three answers are drawn to one prompt, which is read once; greedy ones are alike."""
    with Dispatcher(files.spec()) as d:
        reply = ask(d, LONG, ONE, "ga", n=3)

    assert len({choice.text for choice in reply.choices}) == 1
    assert reply.choices[0].text == cold(files, [user([LONG, ONE, "ga"])])


def test_a_seed_gives_the_same_whatever_was_asked_before(files: Files) -> None:
    """With a seed, prompts with images are read in the same pieces each time."""
    messages = [user([LONG * 2, ONE, "ga", OTHER, LONG])]
    drawn = {"seed": 7, "temperature": 1.5}
    first = cold(files, messages, **drawn)
    with Dispatcher(files.spec()) as d:
        ask(d, LONG * 2, OTHER, "ba")
        assert talk(d, messages, **drawn).text == first
        ask(d, LONG * 2, ONE, "ga")
        assert talk(d, messages, **drawn).text == first
        assert talk(d, messages, **{**drawn, "seed": 8}).text != first


def test_a_schema_holds_beside_an_image(llava: Files) -> None:
    """What is said of an image can be held to a schema."""
    schema = {"type": "object", "properties": {"seen": {"type": "boolean"}}, "required": ["seen"]}
    with Dispatcher(llava.spec()) as d:
        reply = ask(d, ONE, "ga", schema={**schema, "additionalProperties": False}, max_tokens=60)

    assert isinstance(json.loads(reply.text)["seen"], bool)


@pytest.mark.parametrize("kind", ["qwen2vl_merger", "qwen2.5vl_merger"])
def test_an_image_may_be_larger_than_a_batch(kind: str, tmp_path: Path) -> None:
    """An image of 900 cells is seen by a model whose batches hold 512, and so is what follows."""
    files = Files(
        kind,
        seeing_model(tmp_path / "model.gguf", kind, context=2048),
        tiny_projector(tmp_path / "mmproj.gguf", kind=kind),
    )
    large = Image(data=picture(5, (240, 240)))
    with Dispatcher(files.spec()) as d:
        first, again = ask(d, large, "ga"), ask(d, large, "ga")
        more = ask(d, large, "zo")

    assert first.usage.prompt_tokens > 900
    assert first.text == again.text == by_hand(files, [large, "ga"])
    assert more.usage.cached_tokens >= 900


def test_the_cells_of_an_image_count_against_the_context(files: Files) -> None:
    """A prompt that fits without its image and not with it is refused with both numbers."""
    with Dispatcher(files.spec()) as d:
        short = ask(d, "ba").usage.prompt_tokens
        words = "ba" + " ba" * (CONTEXT - short - 5)
        assert ask(d, words, max_tokens=1).usage.prompt_tokens < CONTEXT
        with pytest.raises(ContextOverflow, match="the context holds 512"):
            ask(d, words, ONE)
        assert ask(d, ONE).text == by_hand(files, [ONE])


def test_images_may_come_as_data_urls(llava: Files) -> None:
    """A data: URL is its data; any other is refused with the way out."""
    url = "data:image/png;base64," + base64.b64encode(ONE.data).decode()
    with Dispatcher(llava.spec()) as d:
        assert ask(d, Image(url=url), "ga").text == ask(d, ONE, "ga").text
        with pytest.raises(Unsupported, match=r"fetches nothing.*Image\(data=…\), or a data: URL"):
            ask(d, Image(url="http://localhost/a.png"), "ga")


def test_a_model_of_text_alone_is_no_candidate(llava: Files) -> None:
    """Without a projector a model is not asked about images at all."""
    with (
        Dispatcher(LlamaCpp(llava.model, max_threads=1, isolation="thread")) as d,
        pytest.raises(NoCandidate, match="cannot do vision"),
    ):
        ask(d, ONE)


def test_a_projector_of_another_model_is_refused_at_load(llava: Files, tmp_path: Path) -> None:
    """The error is typed and names the file, and words alone get it too."""
    wide = tiny_projector(tmp_path / "wide.gguf", width=64)
    with Dispatcher(attrs.evolve(llava.spec(), projector_path=wide)) as d:
        for content in ("ba", ONE):
            with pytest.raises(UnsupportedArchitecture, match=r"wide\.gguf makes cells of 64"):
                ask(d, content)


HOSTILE = {
    "junk": b"junk" * 9,
    "cut short": picture(1)[:60],
    "a bomb": png(60_000, 60_000),
    "no rows": png(64, 64),
    "a line": png(1, 4000, b"\0\0\0\0" * 4000),
    "a GGUF": b"GGUF\3\0\0\0" * 9,
}


def test_hostile_images_are_their_askers_problem(llava: Files) -> None:
    """Each is a BadRequest; the engine goes on as loaded, with others that run."""
    events: list[object] = []
    with Dispatcher(llava.spec(), on_event=events.append) as d:
        expected = ask(d, ONE, "ga").text
        with d.stream([user(["ba", OTHER])], temperature=0, max_tokens=200) as stream:
            next(stream)
            for data in HOSTILE.values():
                with pytest.raises(BadRequest, match="image"):
                    ask(d, "ba", Image(data=data), ONE)
            assert [*stream]
        assert ask(d, ONE, "ga").text == expected
    loads = [e for e in events if isinstance(e, LoadProgress) and e.fraction == 1]
    assert len(loads) == 1


def test_text_that_looks_like_an_image_moves_none(llava: Files) -> None:
    """What stands for an image cannot be written by a caller, who would move the others so.

    It is another text in each process: a worker's is not even known here.
    """
    with Dispatcher(attrs.evolve(llava.spec(), isolation="thread")) as d:
        assert ask(d, MARKER).usage.prompt_tokens < 64
        with pytest.raises(BadRequest, match="the place of a picture"):
            ask(d, MEDIA_MARKER, ONE)
        with pytest.raises(BadRequest, match="number of images"):
            ask(d, MARKER, ONE)


class Looking(Stepped):
    """A model that sees, stepped by hand."""

    def __init__(self, files: Files, **fields: Any) -> None:
        super().__init__(files.model, **fields)
        self.backend.see(files.projector)
        loaded = Loaded(
            backend=self.backend,
            template=self.template,
            parallel=fields.get("parallel", 4),
            guesses=bool(fields.get("more_rows")),
            projector=self.backend.projector,
        )
        self.loop = EngineLoop(loaded, self.inbox)

    def see(self, *content: str | Image, most: int = MOST) -> str:
        """Ask alone."""
        return self.ask(seen(*content, most=most))


def seen(*content: str | Image, most: int = MOST, **fields: Any) -> Request:
    """Make a request about something."""
    return Request(messages=[user(list(content))], max_tokens=most, sampling=GREEDY, **fields)


@pytest.fixture
def looking(files: Files) -> Iterator[Callable[..., Looking]]:
    """Make engines of each kind; they are closed afterwards."""
    made: list[Looking] = []

    def make(**fields: Any) -> Looking:
        made.append(Looking(files, **fields))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside others"])
def test_who_cancels_while_an_image_is_read_is_let_go(
    beside: bool,  # noqa: FBT001 - a parameter of the test
    looking: Callable[..., Looking],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Encoding and decoding stop, nothing is left in the slot, and others say what they would."""
    engine = looking()
    expected, words = engine.see(LONG, ONE, "ga"), engine.see("ba da", most=40)
    for image in (Image(data=picture(50)), ONE):  # one is encoded, the other is known
        other = engine.submit(seen("ba da", most=40)) if beside else None
        for _ in range(3):
            engine.loop.step()
        call = engine.submit(seen(f"{LONG} zo", image, "ga"))
        decode = engine.backend.decode

        def cancelled(chunks: Sequence[Chunk], call: Any = call, decode: Any = decode) -> None:
            if chunks[0].picture is not None:
                call.cancel()
            decode(chunks)

        monkeypatch.setattr(engine.backend, "decode", cancelled)
        engine.run()
        monkeypatch.undo()
        assert isinstance(ending(call), Cancelled)
        assert call.completion_tokens == 0
        assert other is None or text_of(pieces_of(other)) == words
    assert engine.see(LONG, ONE, "ga") == expected


def test_who_cancels_while_an_image_is_decoded_leaves_no_cell(
    files: Files, looking: Callable[..., Looking], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last batch of an image is interrupted, and those before it are taken back."""
    cells = CELLS[files.kind]
    most = cells if files.kind == "gemma3" else 8
    engine = looking(batch_tokens=most)
    expected = engine.see(LONG, ONE, "ga")
    call = engine.submit(seen(f"{LONG} zo", ONE, "ga"))
    decode, left = vision._decode, [-(-cells // most)]

    def cancelled(*given: Any) -> int:
        left[0] -= 1
        if not left[0]:
            call.cancel()
        return decode(*given)

    monkeypatch.setattr(vision, "_decode", cancelled)
    engine.run()
    monkeypatch.undo()

    assert left == [0]
    assert isinstance(ending(call), Cancelled)
    places, memory = engine.backend._places, engine.backend._memory
    for slot in range(engine.backend.slots):
        last = lib.llama_memory_seq_pos_max(memory, slot)
        assert last < places.lengths[slot] + places.shifts[slot]
    assert engine.see(LONG, ONE, "ga") == expected


def test_streams_go_on_between_images(
    looking: Callable[..., Looking], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever draws waits for one image at a time, however many others have sent."""
    engine = looking(cells=2048)
    draws = engine.submit(seen("ba", most=100))
    engine.loop.step()
    engine.loop.step()
    decode, said = engine.backend.decode, list[int]()

    def watched(chunks: Sequence[Chunk]) -> None:
        if chunks[0].picture is not None:
            said.append(draws.completion_tokens)
        decode(chunks)

    monkeypatch.setattr(engine.backend, "decode", watched)
    for seed in (1, 2):
        images = [Image(data=picture(10 * seed + more)) for more in range(4)]
        engine.submit(seen(f"{seed}", *images, "ga"))
    engine.run()

    assert len(said) == 8
    assert all(second > first for first, second in itertools.pairwise(said))


def test_who_cancels_before_an_image_is_read_is_let_go(looking: Callable[..., Looking]) -> None:
    """One that waits, and one that has read only the words before its image."""
    engine = looking(parallel=1)
    expected = engine.see(LONG, ONE, "ga")
    runs = engine.submit(seen("zo " * 40, OTHER, "ga"))
    waits = engine.submit(seen("zo " * 40, OTHER, "pe"))
    engine.loop.step()
    waits.cancel()
    runs.cancel()
    engine.run()

    assert isinstance(ending(runs), Cancelled)
    assert isinstance(ending(waits), Cancelled)
    assert engine.see(LONG, ONE, "ga") == expected


def test_streams_with_images_can_be_closed_at_any_moment(files: Files) -> None:
    """Closed at once, after a while or after a word, beside one that goes on: nothing changes."""
    with Dispatcher(files.spec()) as d:
        expected, words = ask(d, LONG, ONE, "ga").text, ask(d, "ba", max_tokens=200).text
        with d.stream([user("ba")], temperature=0, max_tokens=200) as goes_on:
            said = next(goes_on).text
            for seed in range(20):
                content: list[str | Image] = [LONG, Image(data=picture(300 + seed)), OTHER]
                with d.stream([user(content)], temperature=0, max_tokens=200) as stream:
                    time.sleep(seed % 4 / 1000)
                    if seed % 2:
                        next(stream)
            said += "".join(delta.text for delta in goes_on)
        assert said == words
        assert ask(d, LONG, ONE, "ga").text == expected
        assert d.stats().in_flight == 0


@pytest.mark.parametrize("batch_tokens", [16, 24, 64, 200])
def test_any_batch_tells_the_same(batch_tokens: int, looking: Callable[..., Looking]) -> None:
    """However prompts are cut into batches, images are whole or, where they may be, in parts."""
    content = LONG, ONE, "ga", OTHER, "zo"
    assert looking(batch_tokens=batch_tokens).see(*content) == looking().see(*content)


def test_an_image_that_must_go_at_once_and_cannot_is_refused(kinds: Mapping[str, Files]) -> None:
    """The error names the cells and the room; words are answered as before."""
    engine = Looking(kinds["gemma3"], batch_tokens=8)
    words = engine.see("ba")
    call = engine.submit(seen(ONE))
    engine.run()
    error = ending(call)

    assert isinstance(error, Unsupported)
    assert "decodes the 16 cells of an image at once" in str(error)
    assert engine.see("ba") == words
    engine.close()


def test_who_is_preempted_sees_again(
    looking: Callable[..., Looking], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With too few cells for all, replies with images wait, begin again and say the same."""
    monkeypatch.setattr(schedule, "RESERVE_TOKENS", 4)
    contents = [(f"{'ba da ga '[: 3 * i]} {i}", Image(data=picture(i)), "ga") for i in range(1, 4)]
    engine = looking(cells=256, context_tokens=256)
    alone = [engine.see(*content, most=100) for content in contents]
    preempted: list[None] = []
    preempt = Scheduler.preempt

    def counted(self: Scheduler) -> None:
        preempted.append(None)
        preempt(self)

    monkeypatch.setattr(Scheduler, "preempt", counted)
    calls = [engine.submit(seen(*content, most=100)) for content in contents]
    engine.run()

    assert [text_of(pieces_of(call)) for call in calls] == alone
    assert preempted


def test_guesses_are_words(kinds: Mapping[str, Files]) -> None:
    """What is guessed after words that once stood before an image stops where it began."""
    guessing, plain = (kinds["mlp"].spec(speculate=speculate) for speculate in (True, False))
    with Dispatcher(guessing) as d, Dispatcher(plain) as no:
        for seed in range(12):
            images = [Image(data=picture(seed + more)) for more in (0, 1)]
            content = ("ga", images[0], "ga", images[1], "ga")
            assert ask(d, *content, max_tokens=40).text == ask(no, *content, max_tokens=40).text

    scheduler = Scheduler(Cells(Remembered(), Pool(cells=99, slots=2)), parallel=2, batch_tokens=16)
    drawing = Drawn(None, 0, [5, *PICTURES[0].tokens, 6, 5], 9)  # type: ignore[arg-type]
    drawing.pictures = {1: PICTURES[0]}
    drawing.draft = [7, *PICTURES[0].tokens, 8]
    drawing.position, drawing.slot = len(drawing.tokens) - 1, 0
    scheduler.running.append(drawing)
    ((_, chunk),) = scheduler.plan(16)
    assert (chunk.tokens, chunk.rows) == ([5, 7], 2)


PICTURES = [
    Shown(count, count, bytes([count]), 0, b"", None)  # type: ignore[arg-type]
    for count in (3, 8, 20, 32, 45)
]
PROMPTS = st.lists(
    st.one_of(st.sampled_from([20, 35, 70]), st.sampled_from(PICTURES)), min_size=1, max_size=5
)
"""Runs of words, and pictures."""


class Remembered:
    """A memory that knows what slots hold, and lets none be cut inside a picture."""

    def __init__(self) -> None:
        self.slots: dict[int, list[int]] = {}

    def share(self, source: int, target: int, count: int) -> bool:
        """Copy what is shared."""
        held = self.slots[source]
        assert whole(held, count) == count, "a picture is shared whole"
        self.slots[target] = held[:count]
        return True

    def drop(self, slot: int) -> None:
        """Forget."""
        self.slots.pop(slot, None)


@settings(max_examples=settings().max_examples * 3 // 2, deadline=None)
@given(st.lists(st.tuples(PROMPTS, st.booleans(), st.booleans()), min_size=2, max_size=8))
def test_no_picture_is_ever_cut(jobs: list[tuple[list[Any], bool, bool]]) -> None:
    """Neither by a batch nor by a prefix: with seeds or not, alone or beside others, preempted."""
    memory = Remembered()
    cells = Cells(memory, Pool(cells=700, slots=6))
    scheduler = Scheduler(cells, parallel=3, batch_tokens=32)
    for number, (parts, exact, rushes) in enumerate(jobs):
        scheduler.waiting.push(_drawn(number, parts, exact=exact))
        if rushes:
            _step(scheduler, memory)
    for _ in range(3000):
        if not _step(scheduler, memory):
            break
    assert not scheduler.running
    assert not len(scheduler.waiting)


def _drawn(number: int, parts: list[Any], *, exact: bool) -> Drawn:
    tokens, pictures = [1], {}
    for part in parts:
        if isinstance(part, Shown):
            pictures[len(tokens)] = part
            tokens += pseudo_tokens(part.digest, part.count)
        else:
            tokens += range(100, 100 + part)
    made = Drawn(None, 0, [*tokens, 9], 12)  # type: ignore[arg-type]
    made.pictures, made.number, made.exact = pictures, number, exact
    return made


def _step(scheduler: Scheduler, memory: Remembered) -> bool:
    """Admit, plan, pretend to decode, draw; False if there was nothing to do."""
    while scheduler.admit() is not None:
        pass
    step = scheduler.plan(20)
    for _, chunk in step:
        held = memory.slots.setdefault(chunk.slot, [])
        assert len(held) == chunk.position
        held += chunk.tokens
        if chunk.picture is not None:
            assert [*chunk.tokens] == chunk.picture.tokens  # type: ignore[attr-defined]
            assert len(step) == 1
        else:
            assert min(chunk.tokens) >= 0
    scheduler.done(step)
    for sequence, chunk in step:
        if chunk.rows:
            sequence.tokens.append(7)
            sequence.left -= 1
            if not sequence.left:
                scheduler.end(sequence)
    return bool(step)


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.soak)])
def test_images_leave_nothing_behind(
    count: int, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many requests with images, each another: no memory beyond what is kept on purpose."""
    monkeypatch.setattr(vision, "CACHE_BYTES", 2**17)
    with Dispatcher(files.spec()) as d:

        def work(index: int) -> None:
            ask(d, f"{index}", Image(data=picture(1000 + index)), "ga", max_tokens=2)

        assert growth_bytes(work, count, GROWTH_BYTES) < GROWTH_BYTES


def test_what_is_kept_of_images_is_bounded(
    kinds: Mapping[str, Files], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Embeddings beyond the bound are forgotten; the images are seen as before."""
    monkeypatch.setattr(vision, "CACHE_BYTES", 3 * 64 * 32 * 4)
    engine = Looking(kinds["mlp"])
    first = [engine.see(Image(data=picture(seed))) for seed in range(6)]
    assert [engine.see(Image(data=picture(seed))) for seed in range(6)] == first
    kept = engine.backend.projector._embeddings  # type: ignore[union-attr]
    assert kept._bytes == 3 * 64 * 32 * 4
    engine.close()
