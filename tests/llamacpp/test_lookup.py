"""Prompt lookup: what is proposed, and that proposing pays or costs next to nothing.

The gate is tested by playing texts against a model of costs: a step takes what its rows say, and
exactly that, so that every difference from plain drawing is the gate's doing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import cycle, pairwise
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdispatcher.vendors.llamacpp.engine.backend import Chunk
from llmdispatcher.vendors.llamacpp.engine.guessing import Guesser, Memory
from llmdispatcher.vendors.llamacpp.engine.lookup import (
    CATCH_UP_TOKENS,
    LOSS_PART,
    MAX_DRAFT,
    MAX_ROWS,
    NGRAM_MAX,
    NGRAM_MIN,
    PLAIN_EVERY,
    PROBE_EVERY,
    PROBE_EVERY_MOST,
    PROBE_TOKENS,
    STALE_STEPS,
    START_STEPS,
    Draft,
    Gate,
    Lookup,
    Record,
)
from llmdispatcher.vendors.llamacpp.engine.sequence import Sequence

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.engine.inbox import EngineCall
    from llmdispatcher.vendors.llamacpp.engine.schedule import Step

FEW = st.integers(0, 3)
"""So few different tokens that they repeat themselves."""


def expected(tokens: list[int], most: int, window: int) -> list[int]:
    """Return what followed the latest earlier place of the longest run of last tokens, slowly."""
    for length in range(NGRAM_MAX, NGRAM_MIN - 1, -1):
        for place in range(len(tokens) - 1, max(length, len(tokens) - window) - 1, -1):
            if tokens[place - length : place] == tokens[-length:]:
                return tokens[place : place + most]
    return []


@given(st.lists(FEW, max_size=60), st.integers(0, 5), st.integers(1, 12))
def test_a_proposal_is_what_followed_before(tokens: list[int], most: int, window: int) -> None:
    """As a search from the end says, whenever it is asked, and for every window."""
    lookup, now_and_then = Lookup(window=window), Lookup(window=window)
    for count in range(len(tokens) + 1):
        known = tokens[:count]

        found = lookup.propose(known, most)

        assert found == expected(known, most, window)
        assert len(found) <= most
        if count % 7 == 0:
            assert now_and_then.propose(known, most) == found


@given(st.lists(FEW, min_size=2, max_size=40), st.integers(1, 8))
def test_a_proposal_is_part_of_the_text(tokens: list[int], most: int) -> None:
    """The last NGRAM_MIN tokens and what is proposed after them are there, in a row."""
    found = Lookup().propose(tokens, most)
    run = tokens[-NGRAM_MIN:] + found

    places = range(len(tokens))
    assert not found or any(tokens[at : at + len(run)] == run for at in places)


def test_the_index_is_bounded_and_forgets_what_is_far_back() -> None:
    """It holds one place for each n-gram in the window, however long the text is."""
    lookup = Lookup(window=50)
    tokens = [1, 2, 3, *range(10, 1000), 1, 2]

    assert lookup.propose(tokens, 1) == []
    tokens += range(1000, 5000)
    for count in range(len(tokens) - 4000, len(tokens), 7):
        lookup.propose(tokens[:count], 1)
        assert all(len(latest) <= 50 for latest in lookup._latest.values())


def test_a_long_prompt_is_learnt_in_pieces() -> None:
    """One call takes a bounded time; what is not learnt yet is not proposed."""
    tokens = [*range(3 * CATCH_UP_TOKENS), CATCH_UP_TOKENS + 5, CATCH_UP_TOKENS + 6]
    lookup = Lookup()

    found = [lookup.propose(tokens, 1) for _ in range(3)]

    assert found == [[], [CATCH_UP_TOKENS + 7], [CATCH_UP_TOKENS + 7]]


# -- the gate ----------------------------------------------------------------------------------

Cost = Callable[[int], float]

COSTS: dict[str, Cost] = {
    "rows are free": lambda rows: 1.0,
    "a GPU": lambda rows: 1 + 0.02 * (rows - 1),
    "a processor": lambda rows: 1 + 0.3 * (rows - 1),
    "no gain in width": float,
    "dear, then flat": lambda rows: 1.0 if rows == 1 else 3.0,
    "free up to eight": lambda rows: max(1.0, rows / 8),
}


class Played:
    """Some texts that are drawn side by side, the proposals for them, and what it took."""

    def __init__(self, texts: list[list[int]], prompt: int, cost: Cost, gate: Gate) -> None:
        self.took = self.plain = 0.0
        self.steps = self.drafting = 0
        self.worst = 0.0
        """The most that was ever lost, beyond LOSS_PART of the time until then."""
        self._texts, self._cost, self._gate = texts, cost, gate
        self._known = [prompt] * len(texts)
        self._lookups = [Lookup() for _ in texts]
        self._records = [Record() for _ in texts]
        while all(known < len(text) for known, text in zip(self._known, texts, strict=True)):
            self._step()

    @property
    def speedup(self) -> float:
        """How much faster the tokens came than without proposals."""
        return self.plain / self.took

    def _step(self) -> None:
        running, gate = len(self._texts), self._gate
        rows, drafts, gained = running, [], 0
        for index, text in enumerate(self._texts):
            known = self._known[index]
            room = len(text) - known - 1
            found = self._lookups[index].propose(text[:known], min(room, MAX_DRAFT))
            most = gate.most(self._records[index], running, rows, len(found))
            assert 0 <= most <= min(len(found), MAX_ROWS - rows)
            right = 0
            while right < most and found[right] == text[known + right]:
                right += 1
            if most:
                drafts.append(Draft(self._records[index], most, right))
            rows, gained = rows + most, gained + right
            self._known[index] += 1 + right
        took = self._cost(rows)
        gate.note(running, took, drafts)
        self.steps, self.drafting = self.steps + 1, self.drafting + bool(drafts)
        self.took += took
        self.plain += self._cost(running) * (running + gained) / running
        self.worst = max(self.worst, self.took - self.plain - LOSS_PART * self.took)


def play(texts: list[list[int]], cost: Cost, prompt: int = 80, gate: Gate | None = None) -> Played:
    """Draw texts side by side until the first is complete."""
    return Played(texts, prompt, cost, gate or Gate())


def like_code(seed: int, count: int = 1000) -> list[int]:
    """Return a text that repeats a block of 80 tokens with some changes."""
    random_ = random.Random(seed)  # noqa: S311 - a test's data
    block = [random_.randrange(500) for _ in range(80)]
    return [
        random_.randrange(500) if random_.random() < 0.06 else block[at % 80] for at in range(count)
    ]


def without_pattern(seed: int, different: int, count: int = 2000) -> list[int]:
    """Return a text of random tokens, which are there before by chance alone."""
    random_ = random.Random(seed)  # noqa: S311 - a test's data
    return [random_.randrange(different) for _ in range(count)]


@pytest.mark.parametrize(
    ("cost", "least"),
    [("rows are free", 3), ("a GPU", 2.5), ("a processor", 1.3), ("dear, then flat", 1.2)],
)
def test_repetitive_text_is_faster(cost: str, least: float) -> None:
    """Where rows cost less than they save, the gate opens within one reply."""
    assert play([like_code(1)], COSTS[cost]).speedup >= least


@pytest.mark.parametrize("different", [5, 12, 50])
@pytest.mark.parametrize("cost", COSTS)
def test_random_text_is_hardly_slower(cost: str, different: int) -> None:
    """At most 2 % are lost, whatever rows cost."""
    assert play([without_pattern(1, different)], COSTS[cost]).speedup >= 0.98


def test_where_rows_are_dear_it_stays_shut() -> None:
    """A few percent of the steps are probes, and no more than 2 % are lost."""
    played = play([like_code(1)], COSTS["no gain in width"])

    assert played.speedup >= 0.98
    assert played.drafting <= played.steps / PROBE_EVERY + 1


def test_it_shuts_where_many_run() -> None:
    """Eight rows are free here: one sequence gains, and eight at once leave nothing to gain."""
    cost = COSTS["free up to eight"]
    alone = play([like_code(1)], cost)
    eight = play([like_code(seed) for seed in range(8)], cost)

    assert alone.speedup >= 2.5
    assert 0.98 <= eight.speedup <= 1.02
    assert eight.drafting <= eight.steps / PROBE_EVERY + 1


def test_many_gain_together_where_rows_are_free() -> None:
    """Proposals for several sequences are checked in one step."""
    assert play([like_code(seed) for seed in range(4)], COSTS["a GPU"]).speedup >= 2


def test_it_opens_when_text_begins_to_repeat_itself() -> None:
    """A reply that was closed for long is probed again, if seldom."""
    text = without_pattern(1, 12, 3000) + like_code(2, 4000)

    assert play([text], COSTS["a GPU"]).speedup >= 1.2


def test_it_follows_what_steps_take_by_now() -> None:
    """Rows become dear while it is open: it shuts, and the loss is bounded as ever."""
    gate = Gate()
    play([like_code(1)], COSTS["a GPU"], gate=gate)
    later = play([like_code(2, 3000)], COSTS["no gain in width"], gate=gate)

    assert later.drafting <= later.steps / 8
    assert later.speedup >= 0.95


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 1), min_size=MAX_ROWS, max_size=MAX_ROWS),
    st.lists(st.integers(0, 4), min_size=20, max_size=60),
    st.integers(1, 60),
    st.integers(1, 3),
)
def test_the_loss_is_bounded_whatever_the_text_and_the_costs(
    rises: list[float], piece: list[int], repeats: int, running: int
) -> None:
    """No row costs more than the rows before it on average: then the bound holds at every step."""
    times = [0.0, 1.0]
    for rise in rises:
        times.append(times[-1] + rise * times[-1] / (len(times) - 1))
    text = [(token + at // 97) % 5 for at, token in enumerate(piece * repeats)]

    played = play([text] * running, times.__getitem__, prompt=2)

    assert played.worst <= START_STEPS * times[running] + 1e-6


@given(st.integers(0, 40), st.integers(1, 80), st.integers(0, 80), st.integers(-2, 30))
def test_it_never_proposes_more_than_there_is_room_for(
    right: int, running: int, more: int, room: int
) -> None:
    """Whatever was learnt, the room, MAX_DRAFT and MAX_ROWS are kept."""
    gate, record = Gate(), Record()
    for step in range(60):
        rows = running + more
        most = gate.most(record, running, rows, room)

        assert 0 <= most <= max(0, min(room, MAX_DRAFT, MAX_ROWS - rows))
        draft = Draft(record, most or 1, min(right, most or 1))
        gate.note(running, 1.0, [draft] if step > 20 and step % 2 else [])


def test_nothing_is_proposed_before_anything_was_measured() -> None:
    """The first steps say what a plain one takes."""
    assert Gate().most(Record(), 1, 1, 8) == 0


def open_gate() -> tuple[Gate, Record]:
    """Make a gate that is open: rows are free, and everything was right."""
    gate, record = Gate(), Record()
    for _ in range(PROBE_EVERY):
        gate.note(1, 1.0)
    for rows in (3, 7):
        gate.note(1, 1.0, [Draft(record, rows, rows)])
    return gate, record


def test_an_open_gate_lets_a_plain_step_through_now_and_then() -> None:
    """Else it would never learn what a plain step takes by now; the first of two has turned."""
    gate, record = open_gate()
    allowed = []
    for _ in range(3 * PLAIN_EVERY):
        most = gate.most(record, 1, 1, 4)
        allowed.append(most)
        gate.note(1, 1.0, [Draft(record, most, most)] if most else [])

    assert allowed.count(0) in {4, 6}
    assert set(allowed) == {0, 4}


def turning(gate: Gate, record: Record, rounds: int, rights: Iterator[int], turn: float) -> float:
    """Draw with steps that take longer behind one of another width; return the time that is lost.

    A row more takes a quarter of a step; one token is there to propose, and right or not.
    """
    lost, width = 0.0, 1
    for _ in range(rounds):
        most = min(1, gate.most(record, 1, 1, 1))
        right = next(rights) if most else 0
        took = 1 + 0.25 * most + turn * (1 + most != width)
        width = 1 + most
        gate.note(1, took, [Draft(record, most, right)] if most else [])
        lost += took - 1 - right
    return lost


def test_turns_from_one_width_to_another_are_a_price() -> None:
    """A guess that is right every other time pays at a quarter of a step, not with its turns."""
    free = turning(Gate(), Record(), 3000, cycle([1, 0]), 0.0)
    dear = turning(Gate(), Record(), 3000, cycle([1, 0]), 0.3)

    assert free < -150, "without turns it guesses, and gains"
    assert dear < START_STEPS + 3000 * LOSS_PART + 1, "with them it loses no more than it may"


def test_plain_steps_behind_guesses_do_not_make_plain_steps_dear() -> None:
    """Else each guess would look the better for what the guesses before it cost."""
    gate, record = Gate(), Record()
    for _ in range(3):
        gate.note(1, 1.0)
    for _ in range(200):
        gate.note(1, 1.5, [Draft(record, 1, 1)])
        gate.note(1, 1.5)

    assert gate._means[1].took_s == 1.0
    assert gate._turn_s == pytest.approx(0.5, abs=0.01)


def test_probes_of_which_nothing_is_right_become_rare() -> None:
    """Each doubles the wait of its sequence; another sequence need not wait for that."""
    gate, record = Gate(), Record()
    probes = []
    for step in range(6 * PROBE_EVERY_MOST):
        most = gate.most(record, 1, 1, 8)
        if most:
            probes.append(step)
        gate.note(1, 1.0, [Draft(record, most, 0)] if most else [])
    waits = [later - sooner for sooner, later in pairwise(probes)]

    assert waits[0] >= PROBE_EVERY
    assert all(later >= sooner for sooner, later in pairwise(waits))
    assert waits[-1] >= PROBE_EVERY_MOST
    for _ in range(PROBE_EVERY):
        gate.note(1, 1.0)
    assert gate.most(Record(), 1, 1, 8) in range(1, PROBE_TOKENS + 1)


def test_what_was_seen_long_ago_is_forgotten() -> None:
    """Widths that do not occur any more do not stay in the table."""
    gate, _ = open_gate()
    for _ in range(2 * STALE_STEPS + 1):
        gate.note(1, 1.0)

    assert gate._widths == [1]
    assert set(gate._means) == {1}


def test_one_slow_step_does_not_decide() -> None:
    """A step that something else held up counts as twice the usual."""
    gate, record = open_gate()
    gate.note(1, 1000.0)
    gate.note(1, 1000.0, [Draft(record, 3, 3)])

    assert gate._means[1].took_s < 2
    assert gate._means[4].took_s < 2


def test_a_width_behind_a_long_turn_is_not_free() -> None:
    """One slow turn is not believed of all: else narrow steps behind others would take no time."""
    gate, record = open_gate()
    gate.note(1, 1.0)
    gate.note(1, 30.0, [Draft(record, 7, 0)])
    for rows in (1, 2, 1, 3):
        gate.note(1, 1.0 + rows / 10, [Draft(record, rows, 0)])

    assert gate._turn_s < 1
    assert all(mean.took_s >= 0.5 for mean in gate._means.values())


def test_widths_that_change_all_the_time_do_not_end_guessing() -> None:
    """Where no plain step comes behind another of its width, one behind others has to do."""
    gate, record = open_gate()
    allowed = 0
    for step in range(6 * PLAIN_EVERY):
        running = 1 + step % 2
        most = gate.most(record, running, running, 4)
        allowed += most > 0
        gate.note(running, 1.0, [Draft(record, most, most)] if most else [])

    assert allowed > PLAIN_EVERY


def test_what_a_guess_leaves_behind_is_learnt_where_nobody_looks() -> None:
    """The step behind a guess is accounted for, whether or not there is time to look for more."""
    guesser = Guesser(lambda: 0.0)
    sequence = Sequence(cast("EngineCall", None), 0, [1], 100)
    sequence.memory = Memory()
    plain: Step = [(sequence, Chunk(0, 0, [1], 1))]
    for _ in range(3):
        guesser.guess([sequence], 8)
        guesser.learn(plain, 1.0)
    guesser.guess([sequence], 8)
    guesser.learn([(sequence, Chunk(0, 0, [1, 2], 2))], 1.2)
    before_s = guesser._gate._account_s
    guesser._left_s = -1.0
    guesser.guess([sequence], 8)
    guesser.learn(plain, 1.5)
    guesser.learn(plain, 1.0)

    assert guesser._gate._account_s == pytest.approx(before_s - 0.5 + 1.5 * LOSS_PART)
