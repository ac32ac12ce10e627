"""A conversation's state in a file: what is said afterwards is as if nothing had happened."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from exact_gguf import exact_model
from llamacpp.test_memories import hybrid, recurrent, windowed
from stepped import Stepped, pieces_of, text_of
from tiny_gguf import tiny_model

from llmdispatcher import LlamaCpp, Request, Sampling, StateUnusable, Unsupported, user
from llmdispatcher.models.message import assistant
from llmdispatcher.models.reply import Piece
from llmdispatcher.vendors.llamacpp.serving import LlamaCppEngine

GREEDY = Sampling(temperature=0)
TALK = [
    user("What is llmdispatcher? What can it do for a program that needs a language model?"),
    assistant("It sends each prompt to the cheapest model that can answer it."),
    user("What is the capital of France? And what is 17 + 25?"),
]
ASKED = Request(messages=TALK, max_tokens=40, sampling=GREEDY)

CHILD = """
import json, sys
from pathlib import Path
from llmdispatcher import LlamaCpp, Request, Sampling, assistant, user
model, state, messages = sys.argv[1:]
turns = [(user if role == "user" else assistant)(text) for role, text in json.loads(messages)]
request = Request(messages=turns, max_tokens=40, sampling=Sampling(temperature=0))
engine = LlamaCpp(model, cache_type="f32", max_threads=1).start(lambda _: None)
engine.load(Path(model).stem).result(60)
call = engine.submit(request, Path(model).stem)
pieces = []
while not pieces or not hasattr(pieces[-1], "reason"):
    pieces += call.receive(60)
text = "".join(getattr(piece, "text", "") for piece in pieces)
saved = engine.save(request, Path(state)).result(60)
print(json.dumps([text, saved.tokens, saved.size_bytes]))
engine.close()
"""


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model in F32."""
    return exact_model(tmp_path_factory.mktemp("models") / "exact.gguf")


@pytest.fixture
def engine(exact: Path) -> Iterator[LlamaCppEngine]:
    """It, loaded, with nothing remembered."""
    made = LlamaCpp(exact, cache_type="f32", max_threads=1, isolation="thread").start(
        lambda _: None
    )
    made.load("exact").result(60)
    yield made
    made.close()


def said(engine: LlamaCppEngine, request: Request) -> tuple[str, int]:
    """Ask; returns the text, and how many tokens of the prompt were remembered."""
    call = engine.submit(request, engine.cards()[0].model)
    pieces: list[Piece] = []
    while not pieces or not hasattr(pieces[-1], "reason"):
        pieces += call.receive(60)
    return text_of(pieces), call.usage().cached_tokens


def test_another_process_goes_on_where_one_ended(
    exact: Path, engine: LlamaCppEngine, tmp_path: Path
) -> None:
    """What it says next is the same, and the conversation is not read again."""
    state = tmp_path / "talk.state"
    messages = json.dumps([[str(turn.role), turn.text] for turn in TALK])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(exact), str(state), messages],
        capture_output=True,
        text=True,
        check=True,
    )
    text, tokens, size_bytes = json.loads(done.stdout)

    restored = engine.restore(state).result(60)
    again, cached = said(engine, ASKED)

    assert (restored.tokens, restored.size_bytes) == (tokens, size_bytes)
    assert size_bytes == state.stat().st_size
    assert again == text
    assert cached == tokens - 1, "all but the last token, which is drawn from"
    longer = Request(
        messages=[*TALK, assistant(text), user("And?")], max_tokens=30, sampling=GREEDY
    )
    with_state, cached = said(engine, longer)
    assert cached >= tokens - 1
    fresh = LlamaCpp(exact, cache_type="f32", max_threads=1, isolation="thread").start(
        lambda _: None
    )
    fresh.load("exact").result(60)
    assert said(fresh, longer) == (with_state, 0)
    fresh.close()


def test_what_is_not_remembered_cannot_be_saved(engine: LlamaCppEngine, tmp_path: Path) -> None:
    """A conversation that the model has not read has no state."""
    with pytest.raises(StateUnusable, match="does not remember"):
        engine.save(ASKED, tmp_path / "x").result(60)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("cut", [0, 7, 100, -1])
def test_a_cut_file_is_refused(cut: int, engine: LlamaCppEngine, tmp_path: Path) -> None:
    """Nothing of it is believed, and the engine goes on."""
    text, _ = said(engine, ASKED)
    state = tmp_path / "talk.state"
    engine.save(ASKED, state).result(60)
    state.write_bytes(state.read_bytes()[:cut])

    with pytest.raises(StateUnusable):
        engine.restore(state).result(60)
    assert said(engine, ASKED)[0] == text


def test_another_model_refuses_it(engine: LlamaCppEngine, tmp_path: Path) -> None:
    """Its numbers would mean nothing there."""
    said(engine, ASKED)
    state = tmp_path / "talk.state"
    engine.save(ASKED, state).result(60)
    other = LlamaCpp(tiny_model(tmp_path / "other.gguf"), max_threads=1, isolation="thread").start(
        lambda _: None
    )
    other.load("other").result(60)

    with pytest.raises(StateUnusable, match="another model file") as caught:
        other.restore(state).result(60)
    assert caught.value.part == "fingerprint"
    other.close()


def test_another_kind_of_cache_refuses_it(
    exact: Path, engine: LlamaCppEngine, tmp_path: Path
) -> None:
    """F32 numbers are no F16 numbers."""
    said(engine, ASKED)
    state = tmp_path / "talk.state"
    engine.save(ASKED, state).result(60)
    other = LlamaCpp(exact, max_threads=1, isolation="thread").start(lambda _: None)
    other.load("exact").result(60)

    with pytest.raises(StateUnusable, match="other settings"):
        other.restore(state).result(60)
    other.close()


def test_a_place_that_cannot_be_written_is_named(engine: LlamaCppEngine, tmp_path: Path) -> None:
    """The path and the reason are told, and the conversation goes on."""
    said(engine, ASKED)

    with pytest.raises(StateUnusable, match="nowhere"):
        engine.save(ASKED, tmp_path / "nowhere" / "x").result(60)
    assert said(engine, ASKED)[1] > 0


def test_there_must_be_room(tmp_path: Path) -> None:
    """A state that does not fit beside what runs is refused, and what runs goes on."""
    path = tiny_model(tmp_path / "m.gguf")
    first = Stepped(path, cells=256, context_tokens=256)
    talk = Request(prompt="ab cd ef gh " * 15, max_tokens=40, sampling=GREEDY)
    first.ask(talk)
    tokens, data = first.loop.save(talk)
    assert 100 < len(tokens) < 200

    second = Stepped(path, cells=256, context_tokens=256)
    call = second.submit(Request(prompt="zz yy " * 25, max_tokens=60, sampling=GREEDY))
    for _ in range(20):
        second.loop.step()
    assert not second.loop.restore(tokens, data)
    second.run()
    assert text_of(pieces_of(call))
    assert second.loop.restore(tokens, data)
    assert second.ask(talk) == first.ask(talk)
    first.close()
    second.close()


@pytest.mark.parametrize("made", [windowed, recurrent, hybrid])
def test_other_kinds_of_memory(made: Callable[[Path], Path], tmp_path: Path) -> None:
    """States that have no cell for each token are taken out and put back to the last bit."""
    path = made(tmp_path / "m.gguf")
    first, second = Stepped(path, cells=512), Stepped(path, cells=512)
    first.ask(Request(prompt="ab cd ef gh " * 15, max_tokens=8, sampling=GREEDY))
    (slot,) = first.loop._scheduler._cells.slots()
    known = slot.tokens[: slot.count]
    tokens, data = first.loop._scheduler.save(known, first.backend.save)

    assert tokens == known
    assert second.loop.restore(tokens, data)
    assert second.loop._scheduler.save(known, second.backend.save) == (tokens, data)
    first.close()
    second.close()


def test_images_and_adapters_are_not_saved(tmp_path: Path) -> None:
    """What a state could not be found again by is refused."""
    engine = Stepped(tiny_model(tmp_path / "m.gguf"))

    with pytest.raises(Unsupported, match="without any"):
        engine.loop.save(Request(prompt="x", adapters={"a": 1}))
    engine.close()
