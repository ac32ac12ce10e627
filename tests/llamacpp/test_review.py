"""What one request runs into stays its own: nobody waits for ever, and the others go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from embedding_gguf import encoder
from families import FAMILIES
from spoken import STYLES, TOOLS, hear
from stepped import Stepped, ending, pieces_of, text_of
from tiny_gguf import tiny_model

from llmdispatcher import Dispatcher, EngineCrashed, LlamaCpp, Request, Sampling, ToolSpec, user
from llmdispatcher.draft import ChoiceDraft
from llmdispatcher.models.reply import Delta
from llmdispatcher.vendors.llamacpp.engine.guessing import MORE_ROWS, Guesser, Memory
from llmdispatcher.vendors.llamacpp.engine.inbox import Job
from llmdispatcher.vendors.llamacpp.engine.sequence import Sequence
from llmdispatcher.vendors.llamacpp.engine.voice import Voice
from llmdispatcher.vendors.llamacpp.speech.reader import Reader

ASKED = Request(prompt="ba da ga", max_tokens=8, sampling=Sampling(temperature=0))
UNCHECKED: list[Any] = [
    {"type": "object", "properties": {"a": {"type": 5}}},
    {"type": "object", "properties": {"a": {"type": [{}]}}},
    {"type": "object", "properties": {"a": {"anyOf": 5, "oneOf": 5}}},
    {"type": "object", "properties": {"a": {"enum": 5}}, "required": [{}]},
    {"type": "object", "properties": 5, "required": 5},
]
"""Parameters that are no JSON schema."""


class Broken(Voice):
    """A voice with a bug."""

    def say(self, *_: Any) -> Delta | None:
        """Run into it."""
        raise ZeroDivisionError


class Flood(Guesser):
    """Guesses as much as there is room for, right or wrong."""

    def _guesses(self, sequence: Sequence, _: int, room: int) -> list[int]:
        sequence.memory = sequence.memory or Memory()
        return [7] * room


def test_a_bug_in_a_job_is_the_askers(tmp_path: Path) -> None:
    """Whoever asked the engine for something hears of any error; replies go on."""
    engine = Stepped(tiny_model(tmp_path / "m.gguf"))
    call, job = engine.submit(ASKED), Job(lambda _: 1 // 0)
    engine.inbox.ask(job)
    engine.run()

    with pytest.raises(EngineCrashed, match="ZeroDivisionError"):
        job.done.result(0)
    assert text_of(pieces_of(call))
    engine.close()


def test_a_bug_in_reading_a_reply_ends_that_reply_alone(tmp_path: Path) -> None:
    """What a model says to one caller cannot end the replies of others."""
    engine = Stepped(tiny_model(tmp_path / "m.gguf"))
    calls = [engine.submit(ASKED), engine.submit(ASKED)]
    engine.loop._arrive()
    engine.loop._sequences[calls[0]][0].voice = Broken(0)
    engine.run()

    assert isinstance(ending(calls[0]), EngineCrashed)
    assert text_of(pieces_of(calls[1]))
    engine.close()


def test_guesses_never_overfill_a_batch(tmp_path: Path) -> None:
    """A step with guesses takes no more tokens than a batch, however small that is."""
    engine = Stepped(
        tiny_model(tmp_path / "m.gguf"), batch_tokens=16, cells=1024, more_rows=MORE_ROWS
    )
    engine.loop._guesser = Flood()
    calls = [engine.submit(ASKED) for _ in range(4)]
    engine.run()

    assert len({text_of(pieces_of(call)) for call in calls}) == 1
    engine.close()


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.family)
def test_half_a_surrogate_pair_is_no_reason_to_refuse_a_reply(style: Any) -> None:
    """What a model escapes badly becomes U+FFFD, so that its call can be delivered."""
    for name, arguments in (("now", {"city": "a\\ud83db"}), ("no\\ud83dw", {})):
        raw = style.call(0, name, arguments).replace("\\\\ud", "\\ud")
        reader, draft = Reader(style.speech, TOOLS), ChoiceDraft()
        for heard in reader.feed(style.around[0] + raw + style.around[2]), reader.flush():
            draft.add(Delta(heard.text, 0, (), heard.reasoning, heard.calls))

        assert len(draft.calls) == reader.calls


@pytest.mark.parametrize("parameters", UNCHECKED)
def test_parameters_that_are_no_schema_are_any(parameters: Any, tmp_path: Path) -> None:
    """A tool is often somebody else's: it is offered in every family, its values unchecked."""
    tools = [ToolSpec("now", "", parameters)]
    for style in STYLES:
        raw = style.around[0] + style.call(0, "now", {"a": "Rome"}) + style.around[2]
        assert hear(style.speech, [raw], tools=tools).calls
    for family in FAMILIES:
        path = family.model(tmp_path / f"{family.name}.gguf")
        with Dispatcher(LlamaCpp(path, max_threads=1, isolation="thread")) as d:
            assert d.send("Hi.", tools=tools, max_tokens=5, seed=1).usage.completion_tokens


def test_a_model_for_vectors_is_not_asked_for_conversations(tmp_path: Path) -> None:
    """Beside an embedder, the one model that writes need not be named to take a file back."""
    writes = tiny_model(tmp_path / "m.gguf", context=512)
    talk, path = [user("ba da ga la " * 20)], tmp_path / "talk.state"
    specs = (
        LlamaCpp(writes, max_threads=1, isolation="thread"),
        LlamaCpp(encoder(tmp_path / "e.gguf"), name="e", isolation="thread"),
    )
    with Dispatcher(*specs) as d:
        saved = d.save_state(path, talk)

        assert d.restore_state(path) == saved


def test_words_that_begin_as_a_header_are_text() -> None:
    """A harmony model that leaves its header out is heard all the same."""
    speech = next(style.speech for style in STYLES if style.speech.harmony)
    for raw in ("assistant is a noun", "assistant: yes<|end|>", " to= you"):
        assert hear(speech, [raw]).text == raw.removesuffix("<|end|>")
    for header in ("assistant", "assistant<|channel|>final", " to=functions.no"):
        assert not hear(speech, [header]).text
