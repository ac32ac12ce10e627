"""Guessing the next tokens from the text so far, and whether to guess at all. Pure.

Text often repeats itself: code that is edited, quotations, tables. ``Lookup`` proposes what
followed when the last tokens were there before (prompt lookup, A. Saxena 2023), and one step of the
model checks the whole proposal. ``Gate`` allows that only where it was measured to save time, and
bounds what finding out may cost. Neither changes what is drawn: a proposed token counts only if
the sampler draws it anyway.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

NGRAM_MIN, NGRAM_MAX = 2, 4
"""So many last tokens are looked up, most first. One alone is there before by chance, and more than
four do not tell more often what follows."""

WINDOW_TOKENS = 16_384
"""What lies further back is forgotten: an index of so many tokens takes up to 8 MB."""

CATCH_UP_TOKENS = 2048
"""Of a long prompt so many are learnt at a time, which takes some milliseconds."""

MAX_DRAFT = 16
"""Tokens proposed at once, at most. Each costs a row, and is wrong where any before it is."""

MAX_ROWS = 64
"""In steps with more rows nothing is proposed: they are bound by arithmetic, where rows cost most.
It also bounds what is remembered about steps."""

LOSS_PART = 0.0025
"""Of all time, at most so much may have been lost by proposing, whatever the text is like."""
START_STEPS = 4
"""Plain steps' worth of time that may be lost in addition, once, so that the first reply gains."""
CREDIT_STEPS = 16
"""Gains are saved up for later losses to at most so many plain steps' worth of time."""

PROBE_EVERY = 32
"""Steps from one probe to the next, at least: 3 % of all."""
PROBE_EVERY_MOST = 512
"""Of one sequence, after probes of which nothing was right: each of them doubles the wait."""
PROBE_TOKENS = 3
"""Proposed in a probe: enough to see whether several in a row are right."""
PLAIN_EVERY = 64
"""After so many steps with proposals two are without: the second of them tells what that takes by
now, since the first is of another width than the step before it."""

HELPS = 1.1
"""What is expected to be gained must be so many times what it is expected to cost."""
STALE_STEPS = 4096
"""What was seen longer ago is not believed: contexts grow, and threads come and go."""
NEWEST = 0.2
"""Weight of the newest step in the running mean of its width."""
OUTLIER = 2.0
"""A step that took longer than so many times the mean counts as if it took that: another process
was in the way."""
TURNS_SEEN = 7
"""What turning takes is the median of so many: one that something else held up does not count."""
KEEP_OWN, KEEP_ALL = 0.9, 0.98
"""What older proposals of one sequence, and of all, still count after one more."""
PRIOR_TRIALS = 2.0
"""All sequences together count as much as so many tokens of one's own."""


class Lookup:
    """Finds where the last tokens of one sequence were before.

    It keeps the latest place of every n-gram, which takes a constant time for each new token. The
    tokens that are given must only ever grow at their end.
    """

    def __init__(self, *, window: int = WINDOW_TOKENS) -> None:
        self._window = window
        self._latest: dict[int, dict[tuple[int, ...], int]] = {
            length: {} for length in range(NGRAM_MAX, NGRAM_MIN - 1, -1)
        }
        """By length: n-gram to the place after it."""
        self._next = NGRAM_MIN
        """The n-grams that end before this place are known; the last never is, since nothing
        follows it yet."""

    def propose(self, tokens: Sequence[int], most: int) -> list[int]:
        """Return what followed the latest earlier place of the longest run of last tokens.

        At most ``most`` tokens; none where the last NGRAM_MIN were not there before.
        """
        self._catch_up(tokens)
        for length, latest in self._latest.items():
            if most > 0 and length < len(tokens):
                place = latest.get(tuple(tokens[-length:]))
                if place is not None:
                    return list(tokens[place : place + most])
        return []

    def _catch_up(self, tokens: Sequence[int]) -> None:
        """Learn what is new, the oldest first, and forget what is too far back."""
        start = max(self._next, len(tokens) - self._window)
        if start > self._next:  # all that is known is too far back
            for latest in self._latest.values():
                latest.clear()
        end = min(len(tokens), start + CATCH_UP_TOKENS)
        for place in range(start, end):
            for length, latest in self._latest.items():
                if place >= length:
                    latest[tuple(tokens[place - length : place])] = place
                old = place - self._window
                if old >= length:
                    forgotten = tuple(tokens[old - length : old])
                    if latest.get(forgotten) == old:
                        del latest[forgotten]
        self._next = max(self._next, end)


class Record:
    """How many proposed tokens were right of late, of one sequence or of all."""

    __slots__ = ("_keep", "hits", "next_probe", "trials", "wait")

    def __init__(self, keep: float = KEEP_OWN) -> None:
        self._keep = keep
        self.hits = self.trials = 0.0
        self.wait = PROBE_EVERY
        """Steps to the next probe after one of which nothing is right."""
        self.next_probe = 0
        """The step from which on there may be one."""

    def add(self, proposed: int, accepted: int, step: int = 0) -> None:
        """Note a proposal; what follows the first wrong token was not tried."""
        self.next_probe = step + self.wait
        self.wait = PROBE_EVERY if accepted else min(2 * self.wait, PROBE_EVERY_MOST)
        self.hits = self._keep * self.hits + accepted
        self.trials = self._keep * self.trials + min(accepted + 1, proposed)

    def rate(self, prior: float, weight: float) -> float:
        """Return the chance that a proposed token is right if all before it are."""
        return (self.hits + weight * prior) / (self.trials + weight)


class Draft(NamedTuple):
    """What was proposed for a sequence in a step, and what of it the sampler drew."""

    record: Record
    proposed: int
    accepted: int


class _Mean(NamedTuple):
    """Steps of one width behind others of that width."""

    took_s: float
    """What they take in the mean."""
    steps: int
    seen: int
    """The last of them, or of those that are in the mean for want of any."""
    is_sure: bool
    """Whether there was one; until then the mean is of steps behind those of other widths."""


class Gate:
    """Decides how many tokens to propose, from what steps take and what was right so far.

    One for each engine. It is told of every step in which sequences draw and nobody reads, and
    asked for each sequence before the next such step.

    When it pays: say that each proposed token is right with chance a if all before it are. Of k
    tokens then A(k) = a + a² + … + aᵏ are right on average, and as many are saved: Leviathan,
    Kalman and Matias (2023, arXiv 2211.17192) have 1 + A(k) as the tokens that one check yields.
    With t(w) for the time of a step with w rows, a sequence alone gains if

        (1 + A(k)) / t(1 + k) > 1 / t(1),   that is   A(k) · t(1) > t(1 + k) - t(1).

    Their formula takes the checks of all tokens at once as free, so that t(1 + k) = t(1), and
    counts what guessing costs, which here is nothing. Where b sequences draw, a token is worth
    t(b) / b, so that the gain is A(k) · t(b) / b and the price t(b + k) - t(b). While reading the
    weights takes longer than computing with them, t hardly rises and the gate opens; with many
    sequences t rises with every row, the right side is k · t(b) / b, more than A(k) can reach,
    and it closes.

    A step of another width than the one before it takes longer: llama.cpp must build its graph
    anew. What that takes is learnt apart from what the widths themselves take, or plain steps
    between proposals would make plain steps look dear. A proposal behind a plain step pays for two
    such turns, there and back, and one of the same width as the last for none.

    What finding out may cost: the gate keeps an account in seconds. LOSS_PART of every step's time
    is paid in, and so is what proposals gain; what they lose is paid out, and so is what the
    plain step after them takes longer than it would. Nothing is proposed that could cost more
    than the account holds if all of it were wrong, every new row cost as much as those known so
    far, and so did the turns. So no more is lost than LOSS_PART of the time, START_STEPS, and
    what a single step takes beyond that worst case.
    """

    def __init__(self) -> None:
        self._means: dict[int, _Mean] = {}
        self._widths: list[int] = []
        """Of the steps that were seen of late, narrowest first: the keys of the means."""
        self._all = Record(KEEP_ALL)
        self._account_s = 0.0
        self._step = 0
        self._probed = -PROBE_EVERY
        """The step that last had proposals."""
        self._plain = 0
        """The step that last had none, behind another that had none."""
        self._width = 0
        """Of the last step, in tokens."""
        self._running = 0
        """How many drew in the last step, if it had proposals; else 0."""
        self._turn_s = 0.0
        """What a step of another width than the one before it takes longer: the median of these."""
        self._turned: deque[float] = deque(maxlen=TURNS_SEEN)

    @property
    def has_guessed(self) -> bool:
        """Whether the last step had proposals, so that the next one tells what they left behind."""
        return self._running > 0

    def passed(self, width: int) -> None:
        """Take note of a step that there is nothing to learn from: its width, in tokens."""
        self._width, self._running = width, 0

    def note(self, running: int, took_s: float, drafts: Iterable[Draft] = ()) -> None:
        """Learn from a step: how many sequences drew, how long it took, what was proposed."""
        self._step += 1
        rows = gained = 0
        for record, proposed, accepted in drafts:
            rows, gained = rows + proposed, gained + accepted
            record.add(proposed, accepted, self._step)
            self._all.add(proposed, accepted)
        width = running + rows
        has_turned = width != self._width
        self._account_s += LOSS_PART * took_s
        plain_s = self._expected(running) or took_s
        if rows:
            self._probed = self._step
            self._account_s += plain_s + gained * plain_s / running - took_s
        else:
            if self._running == running:  # what the proposals before it left behind
                self._account_s -= min(took_s, OUTLIER * plain_s) - plain_s
            if not has_turned or self._step - self._plain >= 2 * PLAIN_EVERY:
                self._plain = self._step  # widths may change so often that none comes twice
            if self._step == 2:  # noqa: PLR2004 - the first may have had to read the weights from disk
                self._account_s += START_STEPS * took_s
            self._account_s = min(self._account_s, CREDIT_STEPS * took_s)
        self._learn(width, took_s, has_turned=has_turned)
        self._width, self._running = width, running if rows else 0

    def _learn(self, width: int, took_s: float, *, has_turned: bool) -> None:
        if self._step % STALE_STEPS == 0:
            old = self._step - STALE_STEPS
            self._means = {width: mean for width, mean in self._means.items() if mean.seen > old}
            self._widths = sorted(self._means)
        if width > MAX_ROWS:
            return
        known = self._means.get(width)
        if known is not None and known.is_sure and has_turned:
            self._turned.append(max(0.0, took_s - known.took_s))
            self._turn_s = sorted(self._turned)[len(self._turned) // 2]
            return
        if has_turned:  # which cannot have been most of it, or one bad turn would be believed
            took_s = max(took_s - self._turn_s, took_s / OUTLIER)
        steps = 0
        if known is None:
            insort(self._widths, width)
        elif known.is_sure or has_turned:
            off_s = min(took_s, OUTLIER * known.took_s) - known.took_s
            steps = known.steps
            took_s = known.took_s + max(NEWEST, 1 / (steps + 1)) * off_s
        self._means[width] = _Mean(took_s, steps + 1, self._step, not has_turned)

    def most(self, record: Record, running: int, rows: int, room: int) -> int:
        """Return how many tokens to propose for a sequence, at most; 0 is often.

        ``running`` sequences draw in the step, which has ``rows`` rows by now: one for each of
        them, and what is proposed for others. ``room`` is what the batch, the context, the cells
        and the sequence's own limit leave.
        """
        room = min(room, MAX_DRAFT, MAX_ROWS - rows)
        if room < 1 or self._step - self._plain >= PLAIN_EVERY:
            return 0
        plain_s = self._expected(running)
        if plain_s is None:
            return 0
        room = self._affordable(rows, room, plain_s - 2 * self._turn_s)
        widest = self._widths[-1]
        # where no wider step was seen, what a row more costs is not known
        found = self._best(record, running, rows, min(room, 2 * widest - rows))
        if found and rows < widest:
            return found
        due = max(self._probed + PROBE_EVERY, record.next_probe)
        return min(room, PROBE_TOKENS) if rows == running and self._step >= due else 0

    def _affordable(self, rows: int, room: int, plain_s: float) -> int:
        """Return the most that the account can bear if all of it is wrong."""
        while room > 0 and self._worst(rows + room) - plain_s > self._account_s:
            room -= 1
        return room

    def _best(self, record: Record, running: int, rows: int, room: int) -> int:
        """Return how many to propose to get on fastest, 0 if none helps."""
        chance = record.rate(self._all.rate(0.0, 1.0), PRIOR_TRIALS)
        price_s = (self._expected(running) or 0.0) / running
        before_s = self._expected(rows) or 0.0
        best, best_rate = 0, 0.0
        right, power = 0.0, 1.0
        for count in range(1, room + 1):
            power *= chance
            right += power
            cost_s = max(0.0, (self._expected(rows + count) or 0.0) - before_s)
            cost_s += self._turn_s * self._turns(running, rows, count)
            rate = (1 + right) / (price_s + cost_s)
            if right * price_s > HELPS * cost_s and rate > best_rate:
                best, best_rate = count, rate
        return best

    def _turns(self, running: int, rows: int, count: int) -> int:
        """Return how many more steps behind one of another width a proposal would make.

        As if nobody else proposed: with several who do, the first pays for a turn now and then that
        does not happen, and the others for none.
        """
        if rows > running or rows + count == self._width:
            return 0
        return 2 if self._width == running else 1

    def _expected(self, rows: int) -> float | None:
        """Return what a step of a width will take: as seen, or in a line with its neighbours."""
        known = self._means.get(rows)
        if known is not None:
            return known.took_s
        if len(self._widths) < 2:  # noqa: PLR2004 - a line has two ends
            return None
        low = min(max(bisect_left(self._widths, rows) - 1, 0), len(self._widths) - 2)
        narrow, wide = self._widths[low : low + 2]
        first_s, second_s = self._means[narrow].took_s, self._means[wide].took_s
        rise_s = max(0.0, second_s - first_s) / (wide - narrow)
        least_s = first_s * min(1.0, rows / narrow)  # the line may fall below 0 before no rows
        return max(first_s + rise_s * (rows - narrow), least_s)

    def _worst(self, rows: int) -> float:
        """Return what a step takes at worst: as one at least as wide, or in proportion."""
        at = bisect_left(self._widths, rows)
        if at < len(self._widths):
            return self._means[self._widths[at]].took_s
        widest = self._widths[-1]
        return self._means[widest].took_s * rows / widest
