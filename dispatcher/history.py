"""What one dispatcher has learned of its models: how they answer, how soon, how often not.

``settle`` takes every attempt; whoever chooses reads the records. All figures are of late: older
ones fade, so that a vendor that has become better is found to be.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import attrs

from llmdispatcher.models.card import PICO_PER_MICRO, ModelCard
from llmdispatcher.models.embedding import Work
from llmdispatcher.models.quality import chances
from llmdispatcher.models.reply import Attempt, Finish, FinishReason, Outcome
from llmdispatcher.models.request import Request
from llmdispatcher.models.task import Complexity
from llmdispatcher.needs import has_images

PRIOR_OUTPUT_TOKENS = 256
"""Expected length of a choice of which nothing is known."""

PRIOR_REPLIES = 4.0
"""So many replies the expectation from elsewhere weighs against those of the model itself."""

MEMORY_REPLIES = 64.0
"""So many replies a mean remembers, about."""

BYTES_PER_TOKEN = 4.0
"""A stated estimate for text in Latin script, until a model's own usage has told better."""

PRIOR_TOKENS = 64.0
"""So many tokens of a model's own usage weigh as much as that estimate."""

LEAST_BYTES = 1024
"""Shorter prompts tell nothing of it: most of their tokens are a template's, which no byte of the
text stands for."""

HALF_LIFE_S = 300.0
"""After so long a failure counts half: outages of clouds last minutes, mostly."""

PRIOR_SERVED = 4.0
"""So many served attempts everybody is credited with, before the first failure counts."""

PRIOR_VERDICTS = 20.0
"""So many verdicts the prior of a model's quality weighs."""

PACE = 0.2
"""The weight of the last reply in the mean of latencies."""


class Record:
    """What is known of one model. Written under the lock of its ``History``, read without."""

    __slots__ = (
        "asked",
        "at_s",
        "bytes",
        "cached",
        "failed",
        "first_token_s",
        "good",
        "in_hand",
        "latency_s",
        "lost_pico",
        "lost_s",
        "output",
        "per_byte",
        "priors",
        "replies",
        "served",
        "tokens",
        "typical",
        "verdicts",
        "warm",
    )

    def __init__(self, quality: int | None) -> None:
        self.output = self.replies = 0.0
        """Tokens of replies, each choice by itself, and how many there were."""
        self.typical: int | None = None
        """Expected tokens of a choice; None where there was none yet."""
        self.bytes, self.tokens = BYTES_PER_TOKEN * PRIOR_TOKENS, PRIOR_TOKENS
        """Of prompts whose tokens the vendor told."""
        self.per_byte = 1 / BYTES_PER_TOKEN
        self.cached = self.warm = 0.0
        """Tokens billed as cached, of those that a conversation had shown the model before."""
        self.latency_s: float | None = None
        self.first_token_s: float | None = None
        self.served = self.failed = 0.0
        self.lost_pico = self.lost_s = 0.0
        """What the failed attempts cost, and how long they took."""
        self.at_s = 0.0
        """Up to when failures have faded."""
        self.in_hand = self.asked = 0
        """Attempts under way, and the number of the last one among those at all models."""
        self.priors = chances(quality)
        self.good = self.priors
        """The chance of a good answer to a simple, an ordinary and a hard request."""
        self.verdicts = [[0, 0] for _ in self.good]

    def available(self, now_s: float) -> float:
        """Return the chance that an attempt is served, above 0; 1 where nothing speaks against."""
        if not self.failed:
            return 1.0
        faded = _faded(now_s - self.at_s)
        served, failed = self.served * faded + PRIOR_SERVED, self.failed * faded
        return served / (served + failed)

    @property
    def has_told(self) -> bool:
        """Whether its own usage says how long its tokens are."""
        return self.tokens > PRIOR_TOKENS

    def lost_each(self) -> tuple[float, float]:
        """Return what a failed attempt has cost, in pico-dollars and in seconds; 0 without any."""
        failed = self.failed  # once: another thread may be letting it fade to nothing
        return (self.lost_pico / failed, self.lost_s / failed) if failed else (0.0, 0.0)

    def _fade(self, now_s: float) -> None:
        faded = _faded(now_s - self.at_s)
        self.at_s = now_s
        self.served *= faded
        self.failed *= faded
        self.lost_pico *= faded
        self.lost_s *= faded

    def settled(self, attempt: Attempt, now_s: float) -> None:
        """Take note whether an attempt was served, how soon, and what it cost if it was not."""
        if attempt.outcome is Outcome.CANCELLED:
            return
        self._fade(now_s)
        if attempt.outcome is Outcome.SERVED:
            self.served += 1
            self.latency_s = _mean(self.latency_s, attempt.latency_s)
            if attempt.first_token_s is not None:
                self.first_token_s = _mean(self.first_token_s, attempt.first_token_s)
        else:
            self.failed += 1
            self.lost_pico += (attempt.cost_microusd or 0) * PICO_PER_MICRO
            self.lost_s += attempt.latency_s

    def replied(self, work: Work, finish: Finish, warm: float, usual: float) -> None:
        """Take note of the usage of a reply to a request, of which so much was shown before.

        ``usual`` is how many tokens a choice has, whoever writes it.
        """
        usage = finish.usage
        told = not usage.estimated and usage.prompt_tokens > 0
        if told and isinstance(work, Request):
            self._counted(work, usage.prompt_tokens)
        if told and warm > 0:
            self.warm = 0.9 * self.warm + warm
            self.cached = 0.9 * self.cached + min(usage.cached_tokens, warm)
        if isinstance(work, Request) and usage.completion_tokens:
            tokens = usage.completion_tokens / work.n
            if finish.reason is FinishReason.LENGTH and self.replies:
                tokens = max(tokens, self.output / self.replies)  # it would have been longer
            faded = 1.0 - 1.0 / MEMORY_REPLIES
            self.output = self.output * faded + tokens
            self.replies = self.replies * faded + 1
            mean = (PRIOR_REPLIES * usual + self.output) / (PRIOR_REPLIES + self.replies)
            self.typical = int(mean + 0.5)

    def _counted(self, request: Request, tokens: int) -> None:
        """Take note how many tokens a prompt was, where its text is all that it was."""
        if request.tools or request.response_format.schema or has_images(request):
            return
        if (size := request.text_bytes) < LEAST_BYTES:
            return
        faded = min(1.0, 1e6 / self.tokens)
        self.bytes = self.bytes * faded + size
        self.tokens = self.tokens * faded + min(tokens, size)  # no tokenizer makes more of them
        self.per_byte = self.tokens / self.bytes

    def judged(self, complexity: Complexity, *, is_good: bool) -> None:
        """Take note of a verdict on an answer."""
        counts = self.verdicts[complexity - 1]
        counts[is_good] += 1
        bad, good = counts
        prior = self.priors[complexity - 1]
        chance = (PRIOR_VERDICTS * prior + good) / (PRIOR_VERDICTS + good + bad)
        moved = list(self.good)
        moved[complexity - 1] = chance
        self.good = (moved[0], moved[1], moved[2])


def _faded(age_s: float) -> float:
    return 1.0 if age_s <= 0 else 0.5 ** (age_s / HALF_LIFE_S)


def _mean(before: float | None, value: float) -> float:
    return value if before is None else before + PACE * (value - before)


@attrs.define
class History:
    """The records of all models of one dispatcher. Safe for threads."""

    output: float = PRIOR_OUTPUT_TOKENS * PRIOR_REPLIES
    replies: float = PRIOR_REPLIES
    """Of all models together: what one is expected to write of which nothing is known."""
    _asked: int = 0
    """Attempts that were begun, at all models together."""
    _records: dict[str, Record] = attrs.field(factory=dict)
    _lock: threading.RLock = attrs.field(factory=threading.RLock)
    """The thread that has it may take it again: a garbage collection settles forgotten streams."""

    def of(self, card: ModelCard) -> Record:
        """Return the record of a model."""
        with self._lock:
            record = self._records.get(card.name)
            if record is None:
                record = self._records[card.name] = Record(card.quality)
            elif record.priors is not chances(card.quality):
                fresh = Record(card.quality)
                record.priors, record.good = fresh.priors, fresh.good
                record.verdicts = fresh.verdicts
            return record

    def begin(self, card: ModelCard) -> None:
        """Count a request that a model is asked for."""
        record = self.of(card)
        with self._lock:
            record.in_hand += 1
            self._asked += 1
            record.asked = self._asked

    def settle(
        self, card: ModelCard, attempt: Attempt, now_s: float, *, tells: bool = True
    ) -> None:
        """Take note of how an attempt ended, of a request that ``begin`` counted.

        ``tells`` is whether it says anything about whether the model serves: a request that was
        wrong, or that our own limits held back, does not.
        """
        record = self.of(card)
        with self._lock:
            record.in_hand -= 1
            if tells:
                record.settled(attempt, now_s)

    def replied(self, card: ModelCard, work: Work, finish: Finish, warm: float) -> None:
        """Take note of a reply."""
        record = self.of(card)
        with self._lock:
            record.replied(work, finish, warm, self.output / self.replies)
            if isinstance(work, Request) and finish.usage.completion_tokens:
                faded = 1.0 - 1.0 / MEMORY_REPLIES
                self.output = self.output * faded + finish.usage.completion_tokens / work.n
                self.replies = self.replies * faded + 1

    def judge(self, card: ModelCard, complexity: Complexity, *, is_good: bool) -> None:
        """Take note of a verdict on an answer."""
        record = self.of(card)
        with self._lock:
            record.judged(complexity, is_good=is_good)

    def records(self, cards: Sequence[ModelCard]) -> list[Record]:
        """Return the records of several models."""
        return [self.of(card) for card in cards]
