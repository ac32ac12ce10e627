"""Who owns which cell: against a memory that writes every cell down."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llmdispatcher.vendors.llamacpp.engine.backend import Sharing
from llmdispatcher.vendors.llamacpp.engine.cells import BLOCK_TOKENS, NO_MATCH, Cells, Match, Pool
from llmdispatcher.vendors.llamacpp.engine.sequence import common


class Written:
    """A memory as llama.cpp's: cells, each with a position, a token and the slots that see it."""

    def __init__(self) -> None:
        self.cells: list[tuple[int, int, set[int]]] = []

    def share(self, source: int, target: int, count: int) -> bool:
        """Let a slot see another's first cells."""
        assert not self.of(target), "the target must be empty"
        for position, _, slots in self.cells:
            if source in slots and position < count:
                slots.add(target)
        return True

    def drop(self, slot: int) -> None:
        """Let a slot see nothing; cells that nobody sees are gone."""
        for _, _, slots in self.cells:
            slots.discard(slot)
        self.cells = [cell for cell in self.cells if cell[2]]

    def append(self, slot: int, tokens: list[int]) -> None:
        """Write new cells behind a slot's others."""
        start = len(self.of(slot))
        self.cells += [(start + i, token, {slot}) for i, token in enumerate(tokens)]

    def of(self, slot: int) -> list[int]:
        """Read a slot's tokens in the order of their positions."""
        seen = sorted((position, token) for position, token, slots in self.cells if slot in slots)
        assert [position for position, _ in seen] == list(range(len(seen))), "no hole, none twice"
        return [token for _, token in seen]


TREES = [[a] * 40 + [b] * 40 + [c] * 40 for a in (1, 2) for b in (1, 2) for c in (1, 2, 3)]
"""Prompts that begin alike in many ways."""


class Ownership(RuleBasedStateMachine):
    """Open, extend, retire, discard and make room in any order."""

    @initialize(
        cells=st.sampled_from([300, 600]),
        slots=st.integers(4, 8),
        keep=st.sampled_from([0, 100, 900]),
    )
    def begin(self, cells: int, slots: int, keep: int) -> None:
        """Begin with an empty pool."""
        self.memory = Written()
        self.pool = Pool(cells=cells, slots=slots, keep_cells=keep)
        self.cells = Cells(self.memory, self.pool)
        self.running: dict[int, tuple[list[int], int]] = {}

    @precondition(lambda self: len(self.running) < self.pool.slots - 1)
    @rule(prompt=st.sampled_from(TREES), tail=st.lists(st.integers(3, 5), max_size=50))
    def open(self, prompt: list[int], tail: list[int]) -> None:
        """Begin a sequence on the longest prefix there is."""
        tokens = [*prompt, *tail, 9]
        match = self.cells.match(tokens)
        longest = max(
            (common(self.memory.of(s), tokens, len(tokens) - 1) for s in range(self.pool.slots)),
            default=0,
        )

        assert match.shared == (longest if longest >= BLOCK_TOKENS else 0)
        slot, count = self.cells.open(tokens, match)
        assert slot not in self.running
        assert count in {0, match.shared}
        assert self.memory.of(slot) == tokens[:count]
        self.running[slot] = (tokens, count)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), count=st.integers(1, 90))
    def extend(self, data: st.DataObject, count: int) -> None:
        """Decode more of a sequence, if there is room for it."""
        slot = data.draw(st.sampled_from(sorted(self.running)))
        tokens, done = self.running[slot]
        tokens += [7] * max(0, done + count - len(tokens))
        available = self.cells.available
        room = self.cells.make_room(count)
        assert room == (count <= available), "kept prefixes make room, and nothing else does"
        if room:
            self.memory.append(slot, tokens[done : done + count])
            self.cells.extend(slot, count, pristine=False)
            self.running[slot] = (tokens, done + count)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), keep=st.booleans())
    def end(self, data: st.DataObject, keep: bool) -> None:  # noqa: FBT001 - drawn
        """End a sequence."""
        slot = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[slot]
        (self.cells.retire if keep else self.cells.discard)(slot)

    @rule()
    def give_up(self) -> None:
        """Drop everything that is only kept."""
        self.cells.drop_kept()
        assert {slot.number for slot in self.cells.slots()} == set(self.running)

    @invariant()
    def every_cell_has_one_owner(self) -> None:
        """What slots own adds up to the cells that are written, and running slots are whole."""
        if not hasattr(self, "cells"):
            return
        assert self.cells.free == self.pool.cells - len(self.memory.cells)
        assert sum(slot.owned for slot in self.cells.slots()) == len(self.memory.cells)
        seen = [slots for _, _, slots in self.memory.cells if slots & self.running.keys()]
        assert self.cells.available == self.pool.cells - len(seen)
        for slot, (tokens, count) in self.running.items():
            assert self.memory.of(slot) == tokens[:count]
        for held in self.cells.slots():
            assert self.memory.of(held.number) == held.tokens[: held.count]
            assert not held.runs or held.base is None or held.base.runs

    @invariant()
    def owners_that_run_are_known(self) -> None:
        """Of any match it is known which part costs nothing, since running sequences own it."""
        if not hasattr(self, "cells"):
            return
        for prompt in TREES[:3]:
            match = self.cells.match([*prompt, 9])
            shared = [
                position
                for position, _, slots in self.memory.cells
                if match.slot in slots and position < match.shared and slots & self.running.keys()
            ]
            assert self.cells.owned_by_running(match) == len(shared)


TestOwnership = Ownership.TestCase
TestOwnership.settings = settings(
    max_examples=settings().max_examples * 3 // 2, stateful_step_count=40, deadline=None
)


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)), st.integers(0, 50))
def test_common_is_what_a_loop_finds(a: list[int], b: list[int], limit: int) -> None:
    """The common beginning of two lists, found by slices, is the one found token by token."""
    count = 0
    while count < min(limit, len(a), len(b)) and a[count] == b[count]:
        count += 1
    assert common(a, b, limit) == count


def kept(pool: Pool, *prompts: list[int]) -> tuple[Cells, Written]:
    """Decode prompts one after the other and keep them."""
    memory = Written()
    cells = Cells(memory, pool)
    for prompt in prompts:
        slot, count = cells.open(prompt, NO_MATCH)
        memory.append(slot, prompt[count:])
        cells.extend(slot, len(prompt) - count, pristine=True)
        cells.retire(slot)
    return cells, memory


def test_the_least_recently_used_prefix_goes_first() -> None:
    """When slots or cells run out, what was of use last stays longest."""
    old, new = [1] * 64, [2] * 64
    cells, _ = kept(Pool(cells=256, slots=3), old, new)
    cells.discard(cells.open([*old, 5], cells.match([*old, 5])).slot)  # old was of use just now

    assert cells.make_room(150)

    assert cells.match([*old, 5]).shared == 64
    assert cells.match([*new, 5]) == NO_MATCH


@pytest.mark.parametrize(("keep", "left"), [(0, 1), (64, 1), (128, 2), (1000, 3)])
def test_kept_prefixes_are_bounded(keep: int, left: int) -> None:
    """They own no more cells than they may, but the latest always stays."""
    cells, _ = kept(Pool(cells=1000, slots=8, keep_cells=keep), [1] * 64, [2] * 64, [3] * 64)

    assert len(list(cells.slots())) == left
    assert cells.match([3] * 65).shared == 64


def test_a_prefix_that_another_holds_whole_is_not_kept_twice() -> None:
    """The turns of one conversation take one slot."""
    cells, memory = kept(Pool(cells=1000, slots=8), [1] * 64)
    longer = [*[1] * 64, *[2] * 64]
    slot, count = cells.open(longer, cells.match(longer))
    memory.append(slot, longer[count:])
    cells.extend(slot, len(longer) - count, pristine=False)
    cells.retire(slot)

    assert [s.count for s in cells.slots()] == [128]


def test_whole_states_are_shared_whole_or_not() -> None:
    """Of a recurrent model's state nothing but all of it can be taken over."""
    pool = Pool(cells=1000, slots=8, sharing=Sharing.WHOLE)
    cells, _ = kept(pool, [1] * 64)

    assert cells.match([1] * 65) == Match(0, 64)
    assert cells.match([1] * 64) == NO_MATCH
    assert cells.match([*[1] * 50, *[2] * 50]) == NO_MATCH


def test_nothing_is_kept_where_nothing_can_be_shared() -> None:
    """Windows that have slid forget."""
    cells, memory = kept(Pool(cells=1000, slots=8, sharing=Sharing.NONE), [1] * 64)

    assert not memory.cells
    assert cells.match([1] * 65) == NO_MATCH


def test_a_memory_that_cannot_share_after_all_is_believed() -> None:
    """Then the sequence begins anew, and what was of no use is dropped."""
    cells, memory = kept(Pool(cells=1000, slots=8), [1] * 64)

    def refuse(source: int, target: int, count: int) -> bool:
        return False

    memory.share = refuse  # type: ignore[method-assign]

    slot, count = cells.open([1] * 80, cells.match([1] * 80))

    assert count == 0
    assert [s.number for s in cells.slots()] == [slot]


def test_pristine_prefixes_are_whole_batches_in_an_empty_pool() -> None:
    """Only what an empty engine would have decoded just so is found, and all else is dropped."""
    memory = Written()
    cells = Cells(memory, Pool(cells=1000, slots=8))
    first = [1] * 150
    slot, _ = cells.open(first, NO_MATCH)
    for _ in range(2):
        cells.extend(slot, 64, pristine=True)
    cells.extend(slot, 22, pristine=False)
    memory.append(slot, first)
    cells.retire(slot)
    other, _ = cells.open([2] * 100, NO_MATCH)  # not in an empty pool
    memory.append(other, [2] * 100)
    cells.extend(other, 64, pristine=True)
    cells.extend(other, 36, pristine=False)
    cells.retire(other)

    assert cells.match_pristine([2] * 101, 64) == NO_MATCH
    assert not list(cells.slots()), "what cannot be used is out of the way"


def test_the_same_prompt_again_takes_over_its_whole_batches() -> None:
    """And nothing of the first is left behind them, where it would move what comes."""
    memory = Written()
    cells = Cells(memory, Pool(cells=1000, slots=8))
    slot, _ = cells.open([1] * 150, NO_MATCH)
    for count in (64, 64, 22):
        memory.append(slot, [1] * count)
        cells.extend(slot, count, pristine=count == 64)
    cells.retire(slot)

    match = cells.match_pristine([1] * 150, 64)
    again, count = cells.open([1] * 150, match, exact=True)

    assert (match.shared, count) == (128, 128)
    assert [s.number for s in cells.slots()] == [again]
    assert len(memory.cells) == 128


def test_who_shares_most_inherits() -> None:
    """When the owner of a prefix goes, the cells that others still see have one owner again."""
    memory = Written()
    cells = Cells(memory, Pool(cells=1000, slots=8))

    def run(tokens: list[int]) -> int:
        slot, count = cells.open(tokens, cells.match(tokens))
        memory.append(slot, tokens[count:])
        cells.extend(slot, len(tokens) - count, pristine=False)
        return slot

    cells.retire(run([1] * 120))
    owner = run([*[1] * 80, *[2] * 40])
    for end in (40, 60):
        cells.retire(run([*[1] * end, *[3] * 40]))
    assert {slot.shared for slot in cells.slots()} == {0, 40, 60, 80}

    cells.discard(owner)

    assert cells.free == 1000 - len(memory.cells)
    assert sum(slot.owned for slot in cells.slots()) == len(memory.cells) == 120 + 2 * 40
