"""Guesses at the next tokens never change what is said."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from exact_gguf import exact_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stepped import Stepped, pieces_of, text_of

from llmdispatcher.models.message import user
from llmdispatcher.models.reply import Finish
from llmdispatcher.models.request import Request
from llmdispatcher.models.sampling import Sampling
from llmdispatcher.vendors.llamacpp.engine.guessing import MORE_ROWS, Guesser
from llmdispatcher.vendors.llamacpp.engine.sequence import Sequence

QUESTIONS = (
    "What is llmdispatcher?",
    "What is the capital of France?",
    "Tell me a story.",
    "Say it as JSON: 2 + 3",
    "What is 17 + 25? What is 17 + 25? What is 17 + 25?",
)


class Oracle(Guesser):
    """Guesses what is known to come, with mistakes; or nothing."""

    def __init__(self, known: dict[str, list[int]], seed: int) -> None:
        super().__init__(lambda: 0.0)  # looking takes no time, whatever the machine does meanwhile
        self.known = known
        self.random = random.Random(seed)  # noqa: S311 - a test's
        self.right = self.made = 0

    def _guesses(self, sequence: Sequence, rows: int, room: int) -> list[int]:
        del rows
        tokens = self.known.get(sequence.call.request.messages[0].text, [])
        start = len(sequence.tokens)
        count = self.random.randint(0, room)
        guesses = tokens[start : start + count]
        for place in range(len(guesses)):
            if self.random.random() < 0.2:
                guesses[place] = self.random.choice(tokens)
        self.made += len(guesses)
        self.right += sum(a == b for a, b in zip(guesses, tokens[start:], strict=False))
        return guesses


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model in F32: with an F32 cache, sums do not depend on how steps are cut."""
    return exact_model(tmp_path_factory.mktemp("models") / "exact.gguf")


def asked(text: str, **changes: object) -> Request:
    """Ask greedily."""
    base = Request(messages=(user(text),), sampling=Sampling(temperature=0), max_tokens=60)
    return Request.of(base, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def plain(exact: Path) -> Iterator[tuple[dict[str, list[int]], dict[str, list[object]]]]:
    """What is said without guesses: all tokens with the prompt's, and the pieces."""
    engine = Stepped(exact, slots=8)
    tokens: dict[str, list[int]] = {}
    pieces: dict[str, list[object]] = {}
    for text in QUESTIONS:
        call = engine.submit(asked(text, logprobs=2))
        while engine.loop.step():
            for sequence in engine.loop._scheduler.running:
                tokens[text] = [*sequence.tokens]
        pieces[text] = [*pieces_of(call)]
    yield tokens, pieces
    engine.close()


@given(
    jobs=st.lists(
        st.tuples(st.sampled_from(QUESTIONS), st.integers(1, 60)), min_size=1, max_size=4
    ),
    seed=st.integers(0, 2**16),
)
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_said_stays_the_same(
    exact: Path,
    plain: tuple[dict[str, list[int]], dict[str, list[object]]],
    jobs: list[tuple[str, int]],
    seed: int,
) -> None:
    """Right or wrong, guesses change neither text nor counts, and no cell is lost."""
    known, _ = plain
    engine = Stepped(exact, slots=8, cells=768, more_rows=MORE_ROWS)
    bare = Stepped(exact, slots=8, cells=768)
    engine.loop._guesser = Oracle(known, seed)
    calls = [engine.submit(asked(text, max_tokens=most)) for text, most in jobs]
    engine.run()

    for (text, most), call in zip(jobs, calls, strict=True):
        pieces = pieces_of(call)
        expected = bare.submit(asked(text, max_tokens=most))
        bare.run()
        theirs = pieces_of(expected)
        assert text_of(pieces) == text_of(theirs)
        assert _finish(pieces).reason == _finish(theirs).reason
        assert call.usage().completion_tokens == expected.usage().completion_tokens
    cells = engine.loop._scheduler._cells
    assert cells.free == 768 - sum(slot.owned for slot in cells.slots())
    for slot in cells.slots():
        assert engine.backend._places.lengths[slot.number] == slot.count
    engine.close()
    bare.close()


def test_guesses_are_taken(
    exact: Path, plain: tuple[dict[str, list[int]], dict[str, list[object]]]
) -> None:
    """With guesses that are right, a reply takes fewer steps, and log-probabilities stay."""
    known, pieces = plain
    text = max(QUESTIONS, key=lambda each: len(pieces[each]))  # whatever it says most about
    engine = Stepped(exact, more_rows=MORE_ROWS)
    oracle = engine.loop._guesser = Oracle(known, 1)
    call = engine.submit(asked(text, logprobs=2))
    steps = engine.run()

    assert oracle.right
    assert steps < call.usage().completion_tokens / 2
    ours = [token for piece in pieces_of(call) for token in getattr(piece, "logprobs", ())]
    theirs = [token for piece in pieces[text] for token in getattr(piece, "logprobs", ())]
    assert [t.token for t in ours] == [t.token for t in theirs]
    assert [t.logprob for t in ours] == pytest.approx([t.logprob for t in theirs], abs=1e-4)
    engine.close()


def test_a_stall_while_looking_is_not_what_looking_costs() -> None:
    """Where another process had the processor meanwhile, guesses are looked for again soon."""

    class Counting(Guesser):
        looks = 0

        def _draft(self, drawing: list[Sequence], free: int) -> None:
            self.looks += 1

    now_s = iter([0.0, 10.0])  # ten seconds pass while it looks for the first time
    guesser = Counting(lambda: next(now_s, 10.0))
    for _ in range(100):
        guesser.guess([], 64)
        guesser.learn([], 0.01)

    assert 50 < guesser.looks < 100


def _finish(pieces: Iterable[object]) -> Finish:
    return next(piece for piece in pieces if isinstance(piece, Finish))
