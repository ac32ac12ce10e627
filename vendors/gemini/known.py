"""What is known of Gemini models by their names: rows of data, the first that fits is taken.

Sources, read in November 2026: the model pages, the guides to 3.5 to 3.8 Flash and to Gemini 4
Argon, and the pages on thinking and on embeddings at ai.google.dev and docs.cloud.google.com; for
what these leave out, issues of googleapis/python-genai and googleapis/js-genai. What the list of
models tells is newer than this and wins (``merged``).
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import attrs

from llmdispatcher.models import registry
from llmdispatcher.models.card import FREE, Capability, ModelCard
from llmdispatcher.models.fields import EFFORTS
from llmdispatcher.vendors.wire.exchange import Site
from llmdispatcher.vendors.wire.reading import items, known

MILLION = 2**20
"""The context of every Gemini model since 1.5, in tokens."""

MAX_NAMES = 256
"""Names whose families are remembered."""

_TALK = frozenset({Capability.CHAT, Capability.VISION})
_WORK = _TALK | {Capability.TOOLS, Capability.JSON, Capability.SCHEMA}
_THINK = _WORK | {Capability.EFFORT}

BUDGETS = {"minimal": 512, "low": 1024, "medium": 8192, "high": 24576}
"""Tokens of thought that a word stands for; those of Google's own OpenAI surface, but for
``minimal``, which is the least that a model takes that thinks at all. Words above stand for the
most that the model takes."""


@attrs.frozen(kw_only=True)
class Family:
    """What models have in common whose names have one pattern."""

    pattern: str
    abilities: frozenset[Capability] = _THINK
    context_tokens: int | None = MILLION
    max_output_tokens: int | None = 65536
    levels: tuple[str, ...] = ()
    """The words for effort that it takes, in the order of ``EFFORTS``."""
    budget: tuple[int, int] | None = None
    """The least and the most tokens of thought, where it takes a number instead of a word."""
    stoppable: bool = False
    """It can be kept from thinking."""
    samples: bool = True
    """It heeds temperature, top_p and top_k; else it takes them and does as it likes."""
    penalties: bool = False
    """It takes presence_penalty and frequency_penalty."""
    signed: bool = False
    """It refuses a call of a tool in the current turn that no signature of its thoughts is with."""
    sees_results: bool = False
    """The result of a tool may hold pictures."""
    forms_with_tools: bool = False
    """The reply may have a form in a request that has tools."""

    @property
    def thinks(self) -> bool:
        """Whether it thinks at all."""
        return bool(self.levels or self.budget)


_UP_TO_HIGH = ("low", "medium", "high")
_FROM_MINIMAL = ("minimal", *_UP_TO_HIGH)
_NEW: Mapping[str, Any] = {"signed": True, "sees_results": True, "forms_with_tools": True}
_OLD_EXTRAS = {Capability.CHOICES}

FAMILIES = (
    Family(
        pattern="gemini-embedding-2*",
        abilities=frozenset({Capability.EMBED}),
        context_tokens=8192,
        max_output_tokens=None,
    ),
    *(
        Family(
            pattern=pattern,
            abilities=frozenset({Capability.EMBED}),
            context_tokens=2048,
            max_output_tokens=None,
        )
        for pattern in ("gemini-embedding-*", "text-embedding-*", "embedding-*")
    ),
    # They speak, or are spoken to over another protocol.
    *(
        Family(pattern=pattern, abilities=frozenset(), context_tokens=None, max_output_tokens=None)
        for pattern in ("*-tts*", "*-live*", "*native-audio*", "imagen-*", "veo-*", "lyria-*")
    ),
    Family(
        pattern="gemini-*-image*", abilities=_TALK, context_tokens=65536, max_output_tokens=32768
    ),
    Family(
        pattern="gemini-2.0-*",
        abilities=_WORK | _OLD_EXTRAS | {Capability.LOGPROBS},
        max_output_tokens=8192,
        penalties=True,
    ),
    Family(
        pattern="gemini-2.5-pro*",
        abilities=_THINK | _OLD_EXTRAS,
        budget=(128, 32768),
        penalties=True,
    ),
    Family(
        pattern="gemini-2.5-flash-lite*",
        abilities=_THINK | _OLD_EXTRAS,
        budget=(512, 24576),
        stoppable=True,
        penalties=True,
    ),
    Family(
        pattern="gemini-2.5-*",
        abilities=_THINK | _OLD_EXTRAS,
        budget=(1, 24576),
        stoppable=True,
        penalties=True,
    ),
    Family(pattern="gemini-3-pro*", levels=("low", "high"), **_NEW),
    Family(pattern="gemini-3*-pro*", levels=_UP_TO_HIGH, **_NEW),
    # Google says that "minimal" is as good as not thinking for nearly every prompt.
    Family(pattern="gemini-3-flash*", levels=_FROM_MINIMAL, stoppable=True, **_NEW),
    Family(pattern="gemini-3.1-flash*", levels=_FROM_MINIMAL, stoppable=True, **_NEW),
    # gemini-3.5-flash is served by 3.6 now, and the lite one ignores sampling as that does.
    Family(
        pattern="gemini-3.5-flash*", levels=_FROM_MINIMAL, stoppable=True, samples=False, **_NEW
    ),
    Family(pattern="gemini-3.*", levels=_UP_TO_HIGH, samples=False, **_NEW),
    Family(pattern="gemini-flash*-latest", levels=_UP_TO_HIGH, samples=False, **_NEW),
    # A single request makes no more than this; the million is for those that are continued.
    Family(pattern="gemini-4*", levels=_UP_TO_HIGH, samples=False, **_NEW),
    Family(pattern="gemma-*", abilities=_TALK, context_tokens=None, max_output_tokens=None),
    Family(
        pattern="*",
        context_tokens=None,
        max_output_tokens=None,
        levels=_UP_TO_HIGH,
        penalties=True,
        **_NEW,
    ),
)


@lru_cache(maxsize=MAX_NAMES)
def family(model: str) -> Family:
    """Return what is known of a model; of a tuned one, what is known of any."""
    name = model.removeprefix("models/").lower()
    return next(each for each in FAMILIES if fnmatchcase(name, each.pattern))


def card(site: Site, model: str) -> ModelCard:
    """Return the card of a model by its name alone."""
    found = family(model)
    by_name = ModelCard(
        vendor=site.vendor,
        model=model.removeprefix("models/"),
        local=site.local,
        capabilities=found.abilities,
        price=FREE if site.local else None,
        context_tokens=found.context_tokens,
        max_output_tokens=found.max_output_tokens,
    )
    return registry.complete(by_name, site.registry)


def merged(card: ModelCard, told: Mapping[str, Any]) -> ModelCard:
    """Return a card with what the list of models tells of it."""
    abilities = set(card.capabilities)
    methods = items(told.get("supportedGenerationMethods"))
    if methods:
        if "generateContent" not in methods:
            abilities.clear()
        if "embedContent" in methods or "batchEmbedContents" in methods:
            abilities.add(Capability.EMBED)
    if told.get("thinking") is False:
        abilities.discard(Capability.EFFORT)
    return attrs.evolve(
        card,
        capabilities=abilities,
        context_tokens=known(told.get("inputTokenLimit")) or card.context_tokens,
        max_output_tokens=known(told.get("outputTokenLimit")) or card.max_output_tokens,
    )


def nearest(effort: str, levels: tuple[str, ...]) -> str:
    """Return the level that stands for a word; of two as near, the lower."""
    place = EFFORTS.index(effort)
    return min(levels, key=lambda level: abs(EFFORTS.index(level) - place))


def tokens(effort: str, budget: tuple[int, int]) -> int:
    """Return the tokens of thought that a word stands for."""
    least, most = budget
    return min(max(BUDGETS.get(effort, most), least), most)
