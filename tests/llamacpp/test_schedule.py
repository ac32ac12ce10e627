"""What is decoded next, and who is let in: without a model, for any mixture of requests."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdispatcher.vendors.llamacpp.engine.backend import Sharing
from llmdispatcher.vendors.llamacpp.engine.cells import Cells, Pool
from llmdispatcher.vendors.llamacpp.engine.pace import FIRST_TOKENS, LEAST_TOKENS, TARGET_S, Pace
from llmdispatcher.vendors.llamacpp.engine.schedule import MAX_OVERTAKEN, Scheduler
from llmdispatcher.vendors.llamacpp.engine.sequence import Sequence


class Nothing:
    """A memory that forgets at once: the books of the cells are all there is."""

    def share(self, source: int, target: int, count: int) -> bool:
        """Pretend."""
        return True

    def drop(self, slot: int) -> None:
        """Pretend."""


class World:
    """A scheduler, and decodes that are pretended: every sequence draws until its limit."""

    def __init__(
        self,
        *,
        cells: int = 1000,
        parallel: int = 4,
        batch_tokens: int = 64,
        sharing: Sharing = Sharing.PREFIX,
    ) -> None:
        self.cells = Cells(Nothing(), Pool(cells=cells, slots=parallel + 4, sharing=sharing))
        self.scheduler = Scheduler(self.cells, parallel=parallel, batch_tokens=batch_tokens)
        self.batch_tokens = batch_tokens
        self.ended: list[Sequence] = []
        self.numbers = 0

    def add(self, prompt: int | list[int], limit: int = 10, **fields: Any) -> Sequence:
        """Let a request wait; its prompt is unlike any other's unless it is given."""
        self.numbers += 1
        tokens = (
            [self.numbers * 1000 + i for i in range(prompt)]
            if isinstance(prompt, int)
            else [*prompt]
        )
        made = Sequence(None, 0, tokens, limit)  # type: ignore[arg-type]
        made.number = self.numbers
        for name, value in fields.items():
            setattr(made, name, value)
        self.scheduler.waiting.push(made)
        return made

    def step(self, most_read: int = 32) -> dict[Sequence, int]:
        """Admit, plan, pretend to decode, draw; returns what was decoded of whom."""
        while self.scheduler.admit() is not None:
            pass
        step = self.scheduler.plan(most_read)
        done = {sequence: len(chunk.tokens) for sequence, chunk in step}
        assert sum(done.values()) <= self.batch_tokens
        assert len(done) == len(step), "nobody is in a step twice"
        for sequence, chunk in step:
            assert chunk.position == sequence.position
            assert list(chunk.tokens) == sequence.tokens[chunk.position :][: len(chunk.tokens)]
        self.scheduler.done(step)
        for sequence, chunk in step:
            if chunk.rows:
                sequence.tokens.append(7)
                sequence.left -= 1
                if sequence.left == 0:
                    self.scheduler.end(sequence)
                    self.ended.append(sequence)
        return done

    def run(self) -> list[Sequence]:
        """Step to the end; returns who ended, first come first."""
        for _ in range(100_000):
            if not self.step():
                return self.ended
        raise AssertionError("no end")


JOBS = st.lists(
    st.tuples(
        st.integers(1, 120),  # prompt
        st.integers(1, 90),  # limit
        st.sampled_from([0, 0, 5]),  # priority
        st.integers(0, 40),  # arrives before this step
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=settings().max_examples * 3 // 2, deadline=None)
@given(JOBS, st.sampled_from([210, 400, 2000]), st.integers(1, 8), st.sampled_from([16, 64]))
def test_every_request_ends(
    jobs: list[tuple[int, int, int, int]], cells: int, parallel: int, batch_tokens: int
) -> None:
    """Whatever comes in which order: all end, and all cells are free again."""
    world = World(cells=cells, parallel=parallel, batch_tokens=batch_tokens)
    for number in range(41):
        for prompt, limit, priority, arrives in jobs:
            if arrives == number:
                world.add(prompt, limit, priority=priority)
        world.step()

    world.run()

    assert len(world.ended) == len(jobs)
    assert not world.scheduler.running
    assert world.cells.available == cells


def test_running_replies_come_first_and_prompts_share_the_rest() -> None:
    """Each running reply gets its token; of the rest of a step, the shortest prompt gets half."""
    world = World(cells=3000, parallel=5, batch_tokens=64)
    first, second = world.add(5, 100), world.add(5, 100)
    world.step()
    longest, long, longer = world.add(500), world.add(300), world.add(400)

    steps = [world.step(most_read=20) for _ in range(10)]

    assert all(step[first] == step[second] == 1 for step in steps)
    assert all((step[long], step[longer], step[longest]) == (10, 5, 5) for step in steps)


def test_a_short_prompt_does_not_wait_for_a_long_one() -> None:
    """What a short prompt leaves of its share goes to the long one."""
    world = World(parallel=4, batch_tokens=64)
    world.add(5, 100)
    world.step()
    long = world.add(500)
    world.step()
    short = world.add(4)

    step = world.step(most_read=20)

    assert (step[short], step[long]) == (4, 16)


def test_every_prompt_gets_on_in_every_step() -> None:
    """However many are read at once, the longest gets a token at least."""
    world = World(cells=9000, parallel=8, batch_tokens=64)
    made = [world.add(100 * (1 + index)) for index in range(8)]
    for most_read in (1, 8, 20, 64):
        step = world.step(most_read)
        assert set(step) == set(made)
        assert sum(step.values()) <= max(8, most_read)


def test_a_prompt_alone_is_cut_at_whole_batches() -> None:
    """However it was begun beside others, so that what is kept of it is cut as a cold one is."""
    world = World(batch_tokens=64)
    other = world.add(5, 2)
    long = world.add(300)
    world.step(most_read=32)
    world.step(most_read=32)
    assert other in world.ended
    at = long.position
    assert at % 64

    step = world.step()
    assert long.position == 64
    assert step[long] == 64 - at
    assert world.step()[long] == 64


def test_who_comes_first_is_served_first_unless_priority_or_deadline_say_otherwise() -> None:
    """Priority before deadline, deadline before arrival."""
    world = World(parallel=1)
    names = {
        world.add(5): "third",
        world.add(5): "fourth",
        world.add(5, priority=1): "first",
        world.add(5, deadline_s=5.0): "second",
        world.add(5, priority=-1): "last",
    }

    assert [names[s] for s in world.run()] == ["first", "second", "third", "fourth", "last"]


def test_nobody_is_overtaken_for_ever() -> None:
    """A stream of more important requests lets a lesser one through in the end."""
    world = World(parallel=2)
    lesser = world.add(5, 1, priority=-100)
    for _ in range(300):
        while len(world.scheduler.waiting) < 5:
            world.add(5, 1, priority=100)
        world.step()

    assert lesser in world.ended
    assert world.ended.index(lesser) <= MAX_OVERTAKEN + 2


def test_a_large_request_is_not_starved_by_small_ones() -> None:
    """Small ones pass it while it does not fit, but only so often."""
    world = World(cells=400, parallel=4)
    world.add(100, 30)
    world.step()
    large = world.add(350, 10)
    for _ in range(400):
        while len(world.scheduler.waiting) < 5:
            world.add(40, 20)
        world.step()

    assert large in world.ended
    assert world.ended.index(large) <= MAX_OVERTAKEN + 6


def test_cells_are_reserved_before_anybody_is_let_in() -> None:
    """What running replies will need is not given away."""
    world = World(cells=300, parallel=4)
    first = world.add(50, 150)
    second = world.add(50, 100)
    world.step()
    assert world.scheduler.running == [first], "200 + 150 are more than there are"

    world.run()

    assert world.ended == [first, second]


def test_the_youngest_is_preempted_and_the_oldest_never() -> None:
    """When cells run out, who came last waits; who came first is not touched."""
    world = World(cells=1000, parallel=3, batch_tokens=64)
    old, middle, young = (world.add(50, 600) for _ in range(3))
    preempted: list[Sequence] = []
    push = world.scheduler.waiting.push

    def noted(sequence: Sequence) -> None:
        preempted.append(sequence)
        push(sequence)

    world.scheduler.waiting.push = noted  # type: ignore[method-assign]

    world.run()

    assert young in preempted
    assert old not in preempted
    assert world.ended[0] is old
    assert set(world.ended) == {old, middle, young}


def test_one_reads_what_many_share() -> None:
    """Requests with one long prompt read it once: the others wait until it is there."""
    world = World(cells=3000, parallel=8, batch_tokens=64)
    prompt = [*range(500)]
    made = [world.add([*prompt, 1000 + i], 5) for i in range(6)]
    read = dict.fromkeys(made, 0)

    while step := world.step():
        for sequence, count in step.items():
            read[sequence] += count

    assert sum(read.values()) < 501 + 6 * 40


def test_nobody_waits_for_a_reader_that_has_gone() -> None:
    """If the one that reads for all is cancelled, the next reads on from there."""
    world = World(cells=3000, parallel=8, batch_tokens=64)
    first, second = (world.add([*range(500), end], 5) for end in (1000, 2000))
    world.step()
    world.scheduler.end(first)

    step = world.step()

    assert second.position > 64
    assert list(step) == [second]


@pytest.mark.parametrize("token_s", [1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("step_s", [1e-3, 0.03, 0.3])
def test_the_pace_keeps_steps_short(token_s: float, step_s: float) -> None:
    """A step with prompts takes about TARGET_S, or twice what it takes without them."""
    pace = Pace()
    assert pace.tokens(3) == FIRST_TOKENS
    for _ in range(20):
        pace.note(3, 0, step_s)
        count = pace.tokens(3)
        pace.note(3, count, step_s + count * token_s)

    expected_s = max(TARGET_S, 2 * step_s)
    count = pace.tokens(3)
    assert count == LEAST_TOKENS or step_s + count * token_s == pytest.approx(expected_s, rel=0.2)


def test_the_deadline_of_one_that_has_none_is_never() -> None:
    """Sequences start with what leaves the order of arrival alone."""
    made = World().add(3)

    assert (made.priority, made.deadline_s, made.overtaken) == (0, math.inf, 0)


@pytest.mark.parametrize("prompt", [33, 64, 70, 100])
def test_replies_to_one_request_wait_for_the_end_of_their_prompt(prompt: int) -> None:
    """However little of it is left to be read: it is read once, and the rest are drawn from it."""
    world, text, read = World(), [*range(prompt)], 0
    for index in range(4):
        world.add(text, 2, number=1, index=index)
    while len(world.ended) < 4:
        read += sum(world.step().values())

    assert read <= prompt + 4 * 2


@pytest.mark.parametrize("sharing", [Sharing.WHOLE, Sharing.NONE])
def test_nobody_waits_for_what_cannot_be_shared(sharing: Sharing) -> None:
    """All that fit are let in at once, of one request or of several that begin alike."""
    for one in (True, False):
        world = World(sharing=sharing)
        for index in range(4):
            fields = {"number": 1, "index": index} if one else {}
            world.add([*range(100)], 2, **fields)
        world.step()

        assert len(world.scheduler.running) == 4
