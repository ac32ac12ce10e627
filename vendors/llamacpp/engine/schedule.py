"""What to decode next, and who is let in. Pure: nothing here decodes, waits or knows the time.

There are no phases. Each sequence has tokens that are known and a position up to which they are
decoded; a step lets positions catch up, one token for each sequence that draws, and the rest of
the step's tokens for those that read their prompts.

Cells are reserved on admission: what a sequence will need, as far as that can be told, must be
there beside what the running ones will. If they run out all the same, the youngest is preempted:
it waits again and goes on later with the tokens it has. The oldest of the highest priority is never
preempted, so there is always one that gets to its end.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator
from itertools import takewhile

from llmdispatcher.models.errors import LimitReached
from llmdispatcher.vendors.llamacpp.engine.backend import Chunk
from llmdispatcher.vendors.llamacpp.engine.cells import BLOCK_TOKENS, NO_MATCH, Cells, Match
from llmdispatcher.vendors.llamacpp.engine.sequence import Sequence, common

RESERVE_TOKENS = 256
"""Reserved for a reply that may be longer: most are not, and those that are may find room later."""

REUSE = 0.3
"""How likely a kept prefix is taken to be asked for while those run that it slows down."""

MAX_OVERTAKEN = 64
"""A request that this many later ones were served before is served before any other."""

LOOKAHEAD = 16
"""How many that wait are considered when the first of them does not fit."""

Step = list[tuple[Sequence, Chunk]]


class Waiting:
    """Sequences that wait, in the order in which they are to be let in."""

    def __init__(self) -> None:
        self._queue: list[Sequence] = []

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._queue)

    def push(self, sequence: Sequence) -> None:
        """Let a sequence wait: by priority, then by deadline, then by arrival."""
        insort(self._queue, sequence, key=_order)

    def candidates(self) -> list[Sequence]:
        """Return who may be let in now, the first choice first."""
        starved = [s for s in self._queue if s.overtaken >= MAX_OVERTAKEN]
        if starved:
            return [min(starved, key=lambda s: (s.number, s.index))]
        return self._queue[:LOOKAHEAD]

    def take(self, sequence: Sequence) -> None:
        """Let a sequence in; earlier ones that go on waiting note it."""
        self._queue.remove(sequence)
        for other in self._queue:
            if other.number < sequence.number:
                other.overtaken += 1

    def remove(self, sequence: Sequence) -> None:
        """Let a sequence go."""
        self._queue.remove(sequence)


def _order(sequence: Sequence) -> tuple[int, float, int, int]:
    return -sequence.priority, sequence.deadline_s, sequence.number, sequence.index


class Scheduler:
    """Knows who waits and who runs, and plans each step."""

    def __init__(self, cells: Cells, *, parallel: int, batch_tokens: int) -> None:
        self.waiting = Waiting()
        self.running: list[Sequence] = []
        self.is_full = False
        """Nobody is let in until a step succeeds."""
        self._looked = False
        """Whether the last step decoded a picture."""
        self._cells = cells
        self._parallel = max(1, min(parallel, batch_tokens // 2))  # some of a step is for prompts
        self._batch_tokens = batch_tokens

    @property
    def free(self) -> int:
        """Cells that nobody owns."""
        return self._cells.free

    def admit(self) -> Sequence | None:
        """Let the next sequence in, if there is room for one."""
        if self.is_full or len(self.running) >= self._parallel or not self.waiting:
            return None
        spare = self._cells.available - sum(map(_to_come, self.running))
        for sequence in self.waiting.candidates():
            if self.running and 1 + min(sequence.left, RESERVE_TOKENS) > spare:
                continue  # not even if all of its prompt were shared
            match = NO_MATCH
            if self._shares(sequence):
                match = self._cells.match(sequence.tokens, sequence.adapters)
            if self._fits(sequence, match):
                self._start(sequence, match)
                return sequence
        return None

    def _shares(self, sequence: Sequence) -> bool:
        return bool(self.running) or not sequence.exact

    def _fits(self, sequence: Sequence, match: Match) -> bool:
        """Whether a sequence can run beside those that do."""
        if not self.running:
            return True
        if self.running[0].adapters != sequence.adapters:  # a decode applies them to all
            return False
        if self._worth_waiting(sequence, match):
            return False
        to_come = sum(_to_come(other) for other in self.running)
        needed = len(sequence.tokens) + min(sequence.left, RESERVE_TOKENS)
        needed -= self._cells.owned_by_running(match)
        return needed + to_come <= self._cells.available

    def _worth_waiting(self, sequence: Sequence, match: Match) -> bool:
        """Whether somebody is reading much that this sequence would have to read as well.

        Replies to one request share all of their prompt: for them any of it is worth a step, if
        it is long enough to be shared at all.
        """
        if not self._cells.shares_prefixes:
            return False
        for other in self.running:
            known = max(other.position, match.shared)
            least = known + BLOCK_TOKENS
            if other.number == sequence.number:
                least = max(known + 1, BLOCK_TOKENS)
            if other.is_reading and (
                common(other.tokens, sequence.tokens, len(sequence.tokens) - 1) >= least
            ):
                return True
        return False

    def _start(self, sequence: Sequence, match: Match) -> None:
        self.waiting.take(sequence)
        sequence.tokens = [*sequence.tokens]  # those that wait for one request share a list
        alone = not self._shares(sequence)
        if alone:
            match = self._cells.match_pristine(
                sequence.tokens, self._batch_tokens, sequence.adapters
            )
        sequence.slot, sequence.position = self._cells.open(
            sequence.tokens, match, key=sequence.adapters, exact=alone
        )
        self.running.append(sequence)

    def plan(self, most_read: int) -> Step:
        """Plan a step: at most ``most_read`` tokens of prompts beside others."""
        while True:
            step = self._step(most_read)
            if self._cells.make_room(sum(len(chunk.tokens) for _, chunk in step)):
                return step
            self.preempt()

    def _step(self, most_read: int) -> Step:
        if len(self.running) == 1:
            return [self._alone(self.running[0])]
        drawing = [s for s in self.running if not s.is_reading]
        reading = [s for s in self.running if s.is_reading]
        looking = next((s for s in reading if s.position in s.pictures), None)
        if looking is not None:
            self._looked = not (self._looked and drawing)  # others have a step in between
            if self._looked:
                return [(looking, _chunk(looking, self._batch_tokens))]
            reading = [s for s in reading if s.position not in s.pictures]
        step = [(s, _drawing(s)) for s in drawing]
        drawn = sum(len(chunk.tokens) for _, chunk in step)
        left = min(max(most_read, len(reading)), self._batch_tokens - drawn)
        # who is nearest to the end gets half, the next half of what is left, and so on: all at the
        # same pace would mean that all wait for the last, and one after the other that a short
        # prompt waits for a long one
        reading.sort(key=lambda s: (len(s.tokens) - s.position, s.number, s.index))
        for index, sequence in enumerate(reading):
            others = len(reading) - index - 1
            share = min(-(-left // 2), left - others) if others else left
            chunk = _chunk(sequence, max(0, share))
            if chunk.tokens:
                step.append((sequence, chunk))
                left -= len(chunk.tokens)
        return step

    def _alone(self, sequence: Sequence) -> tuple[Sequence, Chunk]:
        """Read up to the next border of a batch: so a prompt is always cut at the same places."""
        if not sequence.is_reading:
            return sequence, _drawing(sequence)
        size = self._batch_tokens
        return sequence, _chunk(sequence, size - sequence.position % size)

    def done(self, step: Step) -> None:
        """Note that a step was decoded; where it held guesses, only the token before them."""
        self.is_full = False
        for sequence, chunk in step:
            count = 1 if chunk.rows > 1 else len(chunk.tokens)
            whole = count == self._batch_tokens and len(step) == 1
            self._cells.extend(chunk.slot, count, pristine=whole)
            sequence.position += count

    def guessed(self, sequence: Sequence, count: int) -> None:
        """Note that the first guesses of the last step were right, which are its tokens now."""
        self._cells.extend(sequence.slot, count, pristine=False)
        sequence.position += count

    def restore(self, tokens: list[int], fill: Callable[[int], bool]) -> bool:
        """Keep a conversation that ``fill`` puts into a slot; False if there is no room."""
        return self._cells.install(tokens, fill)

    def save(self, tokens: list[int], read: Callable[[int], bytes]) -> tuple[list[int], bytes]:
        """Return the first of these tokens that are decoded, and what ``read`` says of their slot.

        There may be none. Raises LimitReached while all slots run.
        """
        match = self._cells.match([*tokens, -1])  # the last is never looked for
        if not match.shared:
            return [], b""
        if not self._cells.has_slot:
            raise LimitReached("all slots of the model are in use; try again")
        slot, count = self._cells.open(tokens, match)
        try:
            return tokens[:count], read(slot) if count else b""
        finally:
            self._cells.discard(slot)

    def preempt(self) -> None:
        """Let the youngest of the lowest priority wait again."""
        victim = max(self.running, key=_preempted_first)
        self.end(victim)
        self.waiting.push(victim)

    def begin_again(self) -> None:
        """Note that all slots are empty: who runs waits again, and nothing is kept."""
        for sequence in [*self.running]:
            self.end(sequence, keep=False)
            self.waiting.push(sequence)
        self._cells.drop_kept()

    def keep_if(self, read_s: float, scan_s: float) -> None:
        """Keep prefixes only where that is likely to save more than it costs.

        ``read_s`` is what it takes to read a token again, ``scan_s`` what it takes to pass over
        one cell for each token that is drawn.
        """
        rows = sum(min(sequence.left, RESERVE_TOKENS) for sequence in self.running)
        self._cells.keep(much=rows * scan_s <= REUSE * read_s)

    def give_up_kept(self) -> bool:
        """Drop all kept prefixes; False if there are none."""
        return self._cells.drop_kept()

    def end(self, sequence: Sequence, *, keep: bool = True) -> None:
        """Let a sequence run no more; what it decoded is kept for others unless told otherwise."""
        if sequence.slot < 0:
            self.waiting.remove(sequence)
            return
        self.running.remove(sequence)
        if keep:
            self._cells.retire(sequence.slot)
        else:
            self._cells.discard(sequence.slot)
        sequence.slot, sequence.position = -1, 0


def _preempted_first(sequence: Sequence) -> tuple[bool, int, int, int]:
    starved = sequence.overtaken >= MAX_OVERTAKEN
    return not starved, -sequence.priority, sequence.number, sequence.index


def _to_come(sequence: Sequence) -> int:
    """Return how many cells a running sequence is expected to need still."""
    return len(sequence.tokens) - sequence.position + min(sequence.left, RESERVE_TOKENS)


def _drawing(sequence: Sequence) -> Chunk:
    """Take the last token, with guesses at what may follow: text, for no picture is drawn."""
    guesses = takewhile(_is_text, sequence.draft) if sequence.pictures else sequence.draft
    tokens = [*sequence.tokens[sequence.position :], *guesses]
    return Chunk(sequence.slot, sequence.position, tokens, len(tokens))


def _is_text(token: int) -> bool:
    return token >= 0


def _chunk(sequence: Sequence, most: int) -> Chunk:
    """Cut the next tokens off, at most so many, or the picture that comes next."""
    start = sequence.position
    if sequence.pictures:
        if picture := sequence.pictures.get(start):
            tokens = sequence.tokens[start : start + picture.count]
            return Chunk(sequence.slot, start, tokens, 0, picture)
        most = min([most, *(at - start for at in sequence.pictures if at > start)])
    tokens = sequence.tokens[start : start + most]
    return Chunk(sequence.slot, start, tokens, int(start + len(tokens) == len(sequence.tokens)))
