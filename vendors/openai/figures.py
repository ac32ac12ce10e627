"""What a reply used, from the figures of all hosts to one meaning.

Figures are cumulative: the last that came hold. Where none came, the reply is estimated by its
pieces, and its prompt by its size.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Any

import attrs

from llmdispatcher.models.reply import MICRO_PER_USD, Usage
from llmdispatcher.vendors.wire.reading import MAX_COUNT, fields, tally

CHARS_PER_TOKEN = 4
"""Of English prose, about; what is guessed is marked as guessed."""

MAX_USD = 10**6
"""Of one reply; more is no price."""

MIN_POWER = -18
"""Of ten, of an amount in dollars; what is less is no price either, and must not count as free."""


class Figures:
    """The usage of one reply while it comes; each of several ``choices`` has its own."""

    def __init__(
        self,
        prompt_bytes: int,
        *,
        choices: int = 1,
        charges: bool = False,
        piece_is_token: bool = False,
    ) -> None:
        self._prompt_bytes, self._choices, self._charges = prompt_bytes, choices, charges
        self._piece_is_token = piece_is_token
        self._told: list[Usage] = []
        self._has_begun = False
        self._prompt_tokens = self._pieces = self._chars = 0

    def begin(self, prompt_tokens: int = 0) -> None:
        """Take note that the host answers, so that the prompt was read.

        ``prompt_tokens`` is how many it has, where the host tells that before the end.
        """
        self._has_begun = True
        self._prompt_tokens = prompt_tokens or self._prompt_tokens

    def count(self, text: str, tokens: int) -> None:
        """Take note of a piece; ``tokens`` is how many it has, where that was told."""
        self._pieces += tokens or 1
        self._chars += len(text)

    def take(self, told: object, *, whole: bool = False) -> None:
        """Read figures; what is none is ignored.

        ``whole`` figures are of all choices, or, where each has its own, of the first alone.
        """
        usage = _usage(told, charges=self._charges)
        if usage is None:
            return
        if whole and self._choices > 1:
            written = min(MAX_COUNT, usage.completion_tokens * self._choices)
            usage = attrs.evolve(usage, completion_tokens=written, estimated=True)
        if whole or self._choices == 1:
            self._choices = 1
            self._told = [usage]
        elif len(self._told) < self._choices:
            self._told.append(usage)

    def is_counted(self) -> bool:
        """Whether as many tokens were told as pieces came, of one choice."""
        told = self._told[0] if len(self._told) == self._choices == 1 else None
        return told is not None and 0 < told.completion_tokens == self._pieces

    def usage(self) -> Usage:
        """Return the tokens until now."""
        if len(self._told) < self._choices:
            return self._guess()
        if len(self._told) == 1:
            return self._told[0]
        return Usage(
            prompt_tokens=max(each.prompt_tokens for each in self._told),
            completion_tokens=min(MAX_COUNT, sum(each.completion_tokens for each in self._told)),
            cached_tokens=min(each.cached_tokens for each in self._told),
            reasoning_tokens=min(MAX_COUNT, sum(each.reasoning_tokens for each in self._told)),
        )

    def _guess(self) -> Usage:
        """Estimate; a host that sends large pieces is counted by their size."""
        prompt = -(-self._prompt_bytes // CHARS_PER_TOKEN) if self._has_begun else 0
        prompt = max([self._prompt_tokens or prompt, *(each.prompt_tokens for each in self._told)])
        size = 0 if self._piece_is_token else -(-self._chars // CHARS_PER_TOKEN)
        completion = max(self._pieces, size)
        return Usage(prompt_tokens=prompt, completion_tokens=completion, estimated=True)


def _usage(told: object, *, charges: bool) -> Usage | None:
    figures = fields(told)
    if figures.keys() == _PLAIN:
        prompt, completion = tally(figures["prompt_tokens"]), tally(figures["completion_tokens"])
        if prompt and completion:  # as most local servers have it
            return Usage(prompt_tokens=prompt, completion_tokens=completion)
    prompt, completion = (
        tally(figures.get("prompt_tokens")),
        tally(figures.get("completion_tokens")),
    )
    inside, thoughts = (
        fields(figures.get(f"{name}_tokens_details")) for name in ("prompt", "completion")
    )
    hit, missed = (tally(figures.get(f"prompt_cache_{name}_tokens")) for name in ("hit", "miss"))
    prompt = prompt or min(MAX_COUNT, hit + missed)
    completion = completion or max(0, tally(figures.get("total_tokens")) - prompt)
    if not prompt and not completion:
        return None
    reasoning = tally(thoughts.get("reasoning_tokens"))
    if reasoning and tally(figures.get("total_tokens")) == prompt + completion + reasoning:
        completion += reasoning  # a host that counts thoughts beside the reply
    cached = min(prompt, tally(inside.get("cached_tokens")) or hit)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        cache_write_tokens=min(prompt - cached, _written(inside)),
        reasoning_tokens=min(completion, reasoning),
        charged_microusd=_microusd(figures.get("cost")) if charges else None,
    )


class Heard:
    """``Figures`` that keep the text of all pieces, from a place in the middle of a reply."""

    def __init__(self, figures: Figures, start: int) -> None:
        """``start`` is how many characters of the reply came before."""
        self._figures, self._start = figures, start
        self._texts: list[str] = []
        self.begin, self.usage = figures.begin, figures.usage

    def count(self, text: str, tokens: int) -> None:
        """See ``Figures.count``."""
        self._texts.append(text)
        self._figures.count(text, tokens)

    def is_rest_of(self, text: str) -> bool:
        """Whether a text goes on with what came from that place on, and with nothing else."""
        return text[self._start :] == "".join(self._texts) and len(text) >= self._start


_PLAIN = {"prompt_tokens", "completion_tokens", "total_tokens"}


def _written(inside: Mapping[str, Any]) -> int:
    """Return the tokens written to a cache: OpenAI's and OpenRouter's name, vLLM's, LiteLLM's."""
    names = ("cache_write_tokens", "created_cache_tokens", "cache_creation_tokens")
    return next((count for name in names if (count := tally(inside.get(name)))), 0)


def _microusd(cost: object) -> int | None:
    """Return dollars as micro-dollars, rounded up; None for what is no price."""
    usd = dollars(cost)
    return None if usd is None else int((usd * MICRO_PER_USD).to_integral_value(ROUND_CEILING))


def dollars(value: object) -> Decimal | None:
    """Read an amount, as a number or as text; None for what is none, or beyond any price."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        usd = Decimal(str(value))
    except (InvalidOperation, ValueError):  # an int of thousands of digits has no text
        return None
    if not usd.is_finite() or not 0 <= usd <= MAX_USD:
        return None
    return None if usd and usd.adjusted() < MIN_POWER else usd
