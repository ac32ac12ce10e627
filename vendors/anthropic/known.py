"""What is known of models by their names: a row for each family, and how names are read.

The facts are those of Anthropic's model pages and of its SDK 2.12, read in November 2026. A Claude
newer than the rows is taken for the strictest of them: what it would reject is refused here, with
the way out, and never tried. What is no Claude is served by somebody else's server, which speaks
the dialect more loosely and has fewer of its fields.
"""

from __future__ import annotations

import re
from enum import Enum

import attrs

from llmdispatcher.models.card import Capability
from llmdispatcher.models.fields import EFFORTS

DEFAULT_TOKENS = 4096
"""Of a reply whose length nobody tells: the field is required. What llama-server takes then."""

WHOLE_TOKENS = 21_333
"""Of a reply that comes in one, where the request leaves its length open: the SDK reckons with an
hour for 128,000 tokens, and refuses what would take more than ten minutes in silence."""

MIN_BUDGET_TOKENS = 1024
"""The least that a model can be given to think."""

BUDGETS = {
    "minimal": MIN_BUDGET_TOKENS,
    "low": 2048,
    "medium": 8192,
    "high": 16_384,
    "xhigh": 24_576,
    "max": 32_000,
}
"""Tokens to think with, for models that take a number and no word. Beyond 32,000 the vendor
recommends batches."""

SAMPLING_VERSION = "2023-06-01"
"""The last version of the API that takes sampling parameters."""

TAKEN = frozenset({"temperature", "top_p", "top_k"})
"""What can be said of sampling in this dialect at all."""


class Thinking(Enum):
    """How a model is told to think."""

    BUDGET = "budget"
    """With so many tokens, or not at all."""
    ADAPTIVE = "adaptive"
    """As much as it finds right, or not at all."""
    ALWAYS = "always"
    """As much as it finds right; it cannot be told not to."""


@attrs.frozen(kw_only=True)
class Family:
    """What models of one name have in common."""

    thinking: Thinking
    efforts: tuple[str, ...] = ()
    """The words for effort that it knows."""
    takes_sampling: bool = False
    """In the older version of the API."""
    takes_prefill: bool = False
    takes_schema: bool = True
    takes_force: bool = True
    """A call of a tool can be demanded."""
    takes_late_system: bool = False
    """A turn of the system may follow one of the user."""
    is_claude: bool = True
    """Served by Anthropic, or by those who host its models."""
    context_tokens: int | None = 1_000_000
    max_output_tokens: int | None = 128_000

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What its card lists."""
        told = {Capability.CHAT, Capability.TOOLS}
        if self.is_claude:
            told |= {Capability.VISION, Capability.EFFORT}
        if self.takes_schema:
            told.add(Capability.SCHEMA)
        if self.takes_prefill:
            told.add(Capability.PREFILL)
        return frozenset(told)

    def effort(self, word: str) -> str:
        """Return the nearest word that it knows; of two, the lower."""
        wanted = EFFORTS.index(word)
        places = {known: EFFORTS.index(known) for known in self.efforts}
        return min(places, key=lambda known: (abs(places[known] - wanted), places[known]))


_THREE = ("low", "medium", "high")
_FOUR = (*_THREE, "max")
_FIVE = (*_THREE, "xhigh", "max")

OTHER = Family(
    thinking=Thinking.BUDGET,
    takes_sampling=True,
    takes_schema=False,
    takes_late_system=True,
    is_claude=False,
    context_tokens=None,
    max_output_tokens=None,
)
"""What is no Claude."""

OLD = Family(
    thinking=Thinking.BUDGET,
    takes_sampling=True,
    takes_prefill=True,
    takes_schema=False,
    context_tokens=200_000,
    max_output_tokens=8192,
)
"""Before 4.5: retired by Anthropic, still with some who host them."""

_BUDGETED = attrs.evolve(OLD, takes_schema=True, max_output_tokens=64_000)
_LOOSE = Family(thinking=Thinking.ADAPTIVE, efforts=_FOUR, takes_sampling=True)
_STRICT = Family(thinking=Thinking.ADAPTIVE, efforts=_FIVE)
_FIFTH = attrs.evolve(_STRICT, takes_late_system=True)
_THOUGHTFUL = attrs.evolve(_FIFTH, thinking=Thinking.ALWAYS)

NEWEST = attrs.evolve(_THOUGHTFUL, takes_force=False)
"""The strictest row, also for what is newer than all."""

FAMILIES = {
    "sonnet-4-5": _BUDGETED,
    "haiku-4-5": _BUDGETED,
    "opus-4-5": attrs.evolve(_BUDGETED, efforts=_THREE),
    "sonnet-4-6": _LOOSE,
    "opus-4-6": _LOOSE,
    "opus-4-7": _STRICT,
    "opus-4-8": _FIFTH,
    "opus-5": _FIFTH,
    "sonnet-5": _FIFTH,
    "haiku-5-5": _FIFTH,
    "mythos-preview": attrs.evolve(_THOUGHTFUL, takes_late_system=False),
    "fable-5": _THOUGHTFUL,
    "mythos-5": _THOUGHTFUL,
}
"""Those that differ from the newest."""

_NAME = re.compile(r"claude-(?:([a-z]+)-)?(?:(preview)|(\d{1,2})(?:-(\d{1,2}))?(?!\d))")
"""With the line before the version, or behind it, as until 3.7; the date is no part of either."""

_OLD_BELOW = (4, 5)


def family(model: str, *, local: bool = False) -> Family:
    """Return what is known of a model, whoever hosts it. On this machine nothing is a Claude."""
    name = re.sub("[._@]", "-", model.lower())
    if local or "claude-" not in name:
        return OTHER
    found = _NAME.search(name)
    if found is None:
        return NEWEST
    told = FAMILIES.get("-".join(filter(None, found.groups())))
    if told is not None:
        return told
    major, minor = int(found[3] or 0), int(found[4] or 0)
    return OLD if found[3] and (major, minor) < _OLD_BELOW else NEWEST
