"""Who owns the cells of the cache: sequences that run, and prefixes kept for those to come.

Slots that share a prefix form trees: each slot but a root has a *base*, and *shares* its first
cells with it; the rest is its own. So every cell has one owner, and the cells in use are the sum of
what slots own. A slot that runs never has a base that is only kept: whoever begins to run on a kept
prefix becomes its owner. So what could be given up at once is the sum of what kept slots own.

Pure: ``Memory`` is told what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, Protocol

import attrs

from llmdispatcher.vendors.llamacpp.engine.backend import Sharing
from llmdispatcher.vendors.llamacpp.engine.sequence import common

BLOCK_TOKENS = 32
"""Prefixes are found by the hashes of such blocks; shorter ones are not worth finding."""


class Memory(Protocol):
    """What carries it out; ``backend.Backend`` is one."""

    def share(self, source: int, target: int, count: int) -> bool:
        """Let an empty slot hold the first tokens of another; False if it cannot."""

    def drop(self, slot: int) -> None:
        """Empty a slot."""


class Match(NamedTuple):
    """A prefix that is there already."""

    slot: int
    shared: int
    """Tokens; 0 if there is none."""


NO_MATCH = Match(-1, 0)


@attrs.frozen(kw_only=True)
class Pool:
    """How much there is of what."""

    cells: int
    slots: int
    sharing: Sharing = Sharing.PREFIX
    keep_cells: int = 2**31
    """Kept prefixes may own so many; the latest is kept in any case."""


class Slot:
    """What one slot holds."""

    __slots__ = (
        "base",
        "blocks",
        "count",
        "key",
        "number",
        "pristine",
        "runs",
        "shared",
        "tokens",
        "used",
    )

    def __init__(self, number: int, tokens: list[int], key: Hashable, used: int) -> None:
        self.number = number
        self.key = key
        """What else was decoded with: only slots of one key can share. Keys are compared, since
        their hashes may be equal: Python's are for -1.0 and -2.0."""
        self.tokens = tokens
        """A sequence's own list, of which the first ``count`` are decoded."""
        self.count = 0
        self.base: Slot | None = None
        self.shared = 0
        """Its first cells that are its base's."""
        self.runs = True
        self.blocks: list[int] = []
        """Hashes of its whole blocks, each of all tokens up to its end."""
        self.pristine = 0
        """Its first tokens that were decoded as they would be in an empty engine."""
        self.used = used
        """When it was last of use."""

    @property
    def owned(self) -> int:
        """Cells that are freed if it is dropped."""
        return self.count - self.shared


class Cells:
    """The only one to decide which slot holds what."""

    def __init__(self, memory: Memory, pool: Pool) -> None:
        self._memory = memory
        self._pool = pool
        self._slots: dict[int, Slot] = {}
        self._index: dict[int, list[Slot]] = {}
        """Slots by the hashes of their blocks."""
        self._clock = 0
        self._keeps_much = True
        self._free = pool.cells

    @property
    def free(self) -> int:
        """Cells that nobody owns."""
        return self._free

    @property
    def available(self) -> int:
        """Cells that are free, or would be without kept prefixes."""
        return self._pool.cells - sum(slot.owned for slot in self._slots.values() if slot.runs)

    @property
    def has_slot(self) -> bool:
        """Whether there is a slot to take."""
        running = sum(slot.runs for slot in self._slots.values())
        return running < self._pool.slots

    @property
    def shares_prefixes(self) -> bool:
        """Whether a slot can take over the first tokens of one that goes on otherwise."""
        return self._pool.sharing is Sharing.PREFIX

    def slots(self) -> Iterable[Slot]:
        """Return the slots that hold anything, for tests and figures."""
        return self._slots.values()

    def match(self, tokens: list[int], key: Hashable = ()) -> Match:
        """Find the longest prefix of these tokens that is decoded somewhere, under the same key.

        It leaves out the last token, which must be decoded for something to be drawn after it.
        """
        most = len(tokens) - 1
        if self._pool.sharing is Sharing.PREFIX:
            return self._match_blocks(tokens, key, most)
        best = NO_MATCH
        if self._pool.sharing is Sharing.WHOLE:
            for slot in self._slots.values():
                count = slot.count
                if (
                    slot.key == key
                    and best.shared < count <= most
                    and common(slot.tokens, tokens, count) == count
                ):
                    best = Match(slot.number, count)
        return best

    def _match_blocks(self, tokens: list[int], key: Hashable, most: int) -> Match:
        found: list[Slot] = []
        end, hashed = 0, hash(key)
        while end + BLOCK_TOKENS <= most:
            hashed = hash((hashed, *tokens[end : end + BLOCK_TOKENS]))
            slots = [slot for slot in self._index.get(hashed, ()) if slot.key == key]
            if not slots:
                break
            found, end = slots, end + BLOCK_TOKENS
        if not found:
            return NO_MATCH
        rest = tokens[end : min(most, end + BLOCK_TOKENS)]
        stop = end + BLOCK_TOKENS

        def also(slot: Slot) -> int:
            return common(slot.tokens[end : min(slot.count, stop)], rest, len(rest))

        best = max(found, key=also)
        count = common(best.tokens, tokens, min(most, best.count))
        return Match(best.number, count) if count >= BLOCK_TOKENS else NO_MATCH

    def match_pristine(self, tokens: list[int], size: int, key: Hashable = ()) -> Match:
        """Find a prefix that is as an empty engine would have made it, in whole batches.

        All other kept prefixes are dropped, since even where cells lie decides how sums are
        rounded. Only for a sequence that runs alone.
        """
        best = NO_MATCH
        for slot in self._slots.values():
            count = common(slot.tokens, tokens, min(slot.pristine, len(tokens) - 1)) // size * size
            if count > best.shared and not slot.runs and slot.key == key:
                best = Match(slot.number, count)
        for slot in [*self._slots.values()]:
            if not slot.runs and slot.number != best.slot:
                self._evict(slot)
        return best

    def owned_by_running(self, match: Match) -> int:
        """Return how many cells of a match belong to sequences that run."""
        slot, count = self._slots.get(match.slot), match.shared
        while slot is not None and not slot.runs:
            count = min(count, slot.shared)
            slot = slot.base
        return count if slot is not None else 0

    def open(
        self, tokens: list[int], match: Match, *, key: Hashable = (), exact: bool = False
    ) -> Match:
        """Take a slot for a sequence, with what it can share; returns the slot and that count.

        ``exact`` follows ``match_pristine``: of the slot that it shares with, the rest is dropped.
        """
        lonely = all(number == match.slot for number in self._slots)
        source = self._slots.get(match.slot)
        if source is not None:
            source.used = self._tick()
        number = self._claim()
        source = self._slots.get(match.slot)  # it may have been the one that had to go
        slot = Slot(number, tokens, key, self._tick())
        count = match.shared
        if source is None or not self._memory.share(source.number, number, count):
            if source is not None and not source.runs:
                self._evict(source)
            source, count = None, 0
        slot.pristine = -1
        if lonely and (source is None or source.pristine >= count):
            slot.pristine = count
        self._slots[number] = slot
        slot.count = count
        if source is not None:
            _attach(slot, source, count)
            if exact:
                self._evict(source)
        self._hash(slot)
        self._count()
        return Match(number, count)

    def extend(self, number: int, count: int, *, pristine: bool) -> None:
        """Note that so many more of a slot's tokens are decoded.

        ``pristine`` says that they were so in a whole batch of their own.
        """
        slot = self._slots[number]
        if pristine and slot.pristine == slot.count:
            slot.pristine += count
        slot.count += count
        self._free -= count
        if slot.count >= (len(slot.blocks) + 1) * BLOCK_TOKENS:
            self._hash(slot)

    def install(self, tokens: list[int], fill: Callable[[int], bool]) -> bool:
        """Keep tokens that ``fill`` puts into the slot it is told; False if there is no room."""
        if not self.has_slot or len(tokens) > self.available:
            return False
        number = self._claim()
        if not self.make_room(len(tokens)) or not fill(number):
            return False
        slot = self._slots[number] = Slot(number, tokens, (), self._tick())
        slot.count, slot.runs = len(tokens), False
        self._hash(slot)
        self._count()
        return True

    def make_room(self, count: int) -> bool:
        """Free so many cells by dropping kept prefixes, the least recently used first."""
        while self._free < count:
            kept = self._kept()
            if not kept:
                return False
            self._evict(kept[0])
        return True

    def drop_kept(self) -> bool:
        """Drop all kept prefixes; False if there are none."""
        kept = self._kept()
        for slot in kept:
            self._evict(slot)
        return bool(kept)

    def retire(self, number: int) -> None:
        """Keep what a sequence decoded, which runs no more."""
        slot = self._slots[number]
        if self._pool.sharing is Sharing.NONE or slot.count < BLOCK_TOKENS:
            self.discard(number)
            return
        self._stop(slot)
        for child in self._children(slot):
            if child.shared == child.count and child.pristine <= slot.pristine:
                self._evict(child)  # all of it is in this one
        self._trim()

    def keep(self, *, much: bool) -> None:
        """Keep what the pool allows from now on, or nothing but the latest."""
        if much != self._keeps_much:
            self._keeps_much = much
            self._trim()

    def _trim(self) -> None:
        """Drop kept prefixes that are too many, the least recently used first."""
        kept, most = self._kept(), self._pool.keep_cells if self._keeps_much else 0
        while len(kept) > 1 and sum(slot.owned for slot in kept) > most:
            self._evict(kept.pop(0))

    def discard(self, number: int) -> None:
        """Drop what a sequence decoded."""
        slot = self._slots[number]
        self._stop(slot)
        self._evict(slot)

    def _stop(self, slot: Slot) -> None:
        """Let a slot run no more; one that runs and shares the most becomes the owner of that."""
        slot.runs = False
        slot.used = self._tick()
        self._succeed(slot, [child for child in self._children(slot) if child.runs])

    def _succeed(self, slot: Slot, children: list[Slot]) -> None:
        """Put the child that shares most into a slot's place; the slot and the others follow it."""
        if not children:
            return
        heir = max(children, key=lambda child: child.shared)
        for child in children:
            child.base = heir
        shared, heir.base = heir.shared, slot.base
        heir.shared = min(shared, slot.shared)
        if slot.shared < shared:
            slot.base, slot.shared = heir, shared

    def _evict(self, slot: Slot) -> None:
        """Drop a kept slot; the one that shares most with it becomes the owner of that."""
        self._succeed(slot, self._children(slot))
        for hashed in slot.blocks:
            holders = self._index[hashed]
            holders.remove(slot)
            if not holders:
                del self._index[hashed]
        del self._slots[slot.number]
        self._memory.drop(slot.number)
        self._count()

    def _claim(self) -> int:
        """Return the lowest slot that is empty, after dropping a kept prefix if all are in use."""
        if len(self._slots) >= self._pool.slots:
            self._evict(self._kept()[0])
        return next(n for n in range(self._pool.slots) if n not in self._slots)

    def _kept(self) -> list[Slot]:
        """Return the kept slots, the least recently used first."""
        return sorted((s for s in self._slots.values() if not s.runs), key=lambda slot: slot.used)

    def _children(self, slot: Slot) -> list[Slot]:
        return [other for other in self._slots.values() if other.base is slot]

    def _hash(self, slot: Slot) -> None:
        """Enter the blocks that a slot has and the index does not know."""
        if self._pool.sharing is not Sharing.PREFIX:
            return
        blocks, tokens = slot.blocks, slot.tokens
        hashed = blocks[-1] if blocks else hash(slot.key)
        for end in range((len(blocks) + 1) * BLOCK_TOKENS, slot.count + 1, BLOCK_TOKENS):
            hashed = hash((hashed, *tokens[end - BLOCK_TOKENS : end]))
            blocks.append(hashed)
            self._index.setdefault(hashed, []).append(slot)

    def _count(self) -> None:
        self._free = self._pool.cells - sum(slot.owned for slot in self._slots.values())

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


def _attach(slot: Slot, source: Slot | None, count: int) -> None:
    """Let a slot that runs share cells; those of kept slots become its own."""
    while source is not None and source.shared >= count:
        source = source.base  # so far down the cells are an ancestor's
    if source is None or source.runs:
        slot.base, slot.shared = source, count if source is not None else 0
        return
    parent, shared = source.base, source.shared
    source.base, source.shared = slot, count
    _attach(slot, parent, shared)
