"""Which models can serve a request, and in which order: by expected cost, cheapest first.

Pure: cards and a request in, a ranking out. Every model stands in the ranking, as a candidate
with its arithmetic or as excluded with its reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from llmdispatcher.models.card import Capability, ModelCard
from llmdispatcher.models.embedding import EmbedRequest, RerankRequest, Work
from llmdispatcher.models.form import Shape
from llmdispatcher.models.message import Image
from llmdispatcher.models.reply import Candidate, Usage
from llmdispatcher.models.request import Request

if TYPE_CHECKING:
    from llmdispatcher.vendors.contract import Engine

BYTES_PER_TOKEN = 4
"""A stated estimate for text in Latin script, used where no tokenizer has counted."""

EXPECTED_OUTPUT_TOKENS = 256
"""Expected length of a choice of a request that does not limit it; the same for all candidates."""

_SHAPES = {
    Shape.JSON: Capability.JSON,
    Shape.SCHEMA: Capability.SCHEMA,
    Shape.GRAMMAR: Capability.GRAMMAR,
}

_FORMS = frozenset({Capability.JSON, Capability.SCHEMA})
_WRITERS = frozenset({Capability.CHAT, Capability.COMPLETION})
_POOLED = frozenset({Capability.EMBED, Capability.RERANK})
_AS_TWO = "it was registered to write text; LlamaCpp(…, name=…, pooling=…) registers a file for it"
_WAYS_OUT = {
    Capability.EMBED: _AS_TWO,
    Capability.RERANK: _AS_TWO,
    Capability.CHAT: "it was made for vectors or scores; register a model that writes",
    Capability.VISION: "LlamaCpp(…, projector_path=…) takes the file that lets it see",
    Capability.ADAPTERS: "LlamaCpp(…, adapters={…}) takes the files",
}
"""What to do where a local model cannot do what a request asks for."""


@attrs.frozen
class Target:
    """A model and the engine that serves it."""

    card: ModelCard
    engine: Engine
    barred: str = ""
    """Why it is not asked, whatever the request; empty if it may be."""


@attrs.frozen
class Ranking:
    """Targets in the order in which to ask them, and an account of all that were considered."""

    targets: tuple[Target, ...]
    candidates: tuple[Candidate, ...]
    excluded: tuple[Candidate, ...]


def rank(
    request: Work, targets: Sequence[Target], absent: Sequence[tuple[str, str]] = ()
) -> Ranking:
    """Order the targets that can serve the request by expected cost.

    Equal costs keep the order of registration; unknown costs come last, since unknown is not
    zero. A target of last resort stays only if nothing else does, or if it was named. ``absent``
    are vendors without any model, each with the reason. Where nobody can be held to JSON, or to a
    schema, whoever can chat stays, and is told the form in words.
    """
    reasons, words = _reasons(request, needs(request), targets), in_words(request)
    if words and all(reason for _, reason in reasons):  # nobody's vendor holds it to the form
        reasons = _reasons(request, needs(request) - words, targets)
    fit = [target for target, reason in reasons if not reason]
    excluded = [_candidate(target, None, reason) for target, reason in reasons if reason]
    excluded += [
        Candidate(vendor=vendor, model="*", expected_cost_microusd=None, note=reason)
        for vendor, reason in absent
    ]
    regular = [t for t in fit if not t.card.last_resort or _named(request, t.card)]
    if regular:
        spared = [t for t in fit if t not in regular]
        excluded += [_candidate(t, None, "last resort, and others can serve") for t in spared]
    usage = expected_usage(request)
    priced = [(expected_microusd(t.card, usage), t) for t in regular or fit]
    priced.sort(key=lambda pair: (pair[0] is None, pair[0] or 0))
    return Ranking(
        tuple(target for _, target in priced),
        tuple(_candidate(target, cost, _arithmetic(target, usage)) for cost, target in priced),
        tuple(excluded),
    )


def _reasons(
    request: Work, needed: frozenset[Capability], targets: Sequence[Target]
) -> list[tuple[Target, str]]:
    """Return each target with the reason why it is left out; empty if it is not."""
    return [(each, each.barred or unfit(request, needed, each.card)) for each in targets]


def in_words(request: Work) -> frozenset[Capability]:
    """Return what a model need not be able to do, since it can be told: to reply with JSON."""
    if not isinstance(request, Request) or request.prompt is not None:
        return frozenset()
    return _FORMS if request.response_format.is_json else frozenset()


def needs(request: Work) -> frozenset[Capability]:
    """Return what a model must be able to do to serve the request."""
    if isinstance(request, EmbedRequest):
        return frozenset({Capability.EMBED})
    if isinstance(request, RerankRequest):
        return frozenset({Capability.RERANK})
    return _writing(request)


def _writing(request: Request) -> frozenset[Capability]:
    needed = {Capability.COMPLETION if request.prompt is not None else Capability.CHAT}
    if request.tools:
        needed.add(Capability.TOOLS)
    if capability := _SHAPES.get(request.response_format.shape):
        needed.add(capability)
    if any(isinstance(part, Image) for message in request.messages for part in message.content):
        needed.add(Capability.VISION)
    if request.n > 1:
        needed.add(Capability.CHOICES)
    if request.logprobs is not None:
        needed.add(Capability.LOGPROBS)
    if request.prefill:
        needed.add(Capability.PREFILL)
    if request.suffix:
        needed.add(Capability.INFILL)
    if request.adapters:
        needed.add(Capability.ADAPTERS)
    if request.effort is not None:
        needed.add(Capability.EFFORT)
    return frozenset(needed)


def unfit(request: Work, needed: frozenset[Capability], card: ModelCard) -> str:
    """Return why a model cannot serve the request; empty if it can."""
    if request.vendor is not None and request.vendor != card.vendor:
        return f"the request names the vendor {request.vendor!r}"
    if request.model is not None and not is_named(request.model, card):
        return f"the request names the model {request.model!r}"
    if card.named_only and request.model is None:
        return "one of many of its vendor: name it with model=…, or register it with models=[…]"
    if not (request.allow_cloud or card.local):
        return "not on this machine, and the request has allow_cloud=False"
    if lacking := needed - card.capabilities:
        ways = {_WAYS_OUT[each]: None for each in sorted(lacking) if each in _WAYS_OUT}
        way_out = f" ({'; '.join(ways)})" if card.local and ways else ""
        return f"cannot do {', '.join(sorted(lacking))}{way_out}"
    return ""


def expected_usage(request: Work) -> Usage:
    """Estimate what serving the request will use."""
    prompt = -(-request.text_bytes // BYTES_PER_TOKEN)
    if not isinstance(request, Request):
        return Usage(prompt_tokens=prompt, estimated=True)
    output = min(request.max_tokens or EXPECTED_OUTPUT_TOKENS, EXPECTED_OUTPUT_TOKENS)
    return Usage(prompt_tokens=prompt, completion_tokens=output * request.n, estimated=True)


def expected_microusd(card: ModelCard, usage: Usage) -> int | None:
    """Return the expected cost of serving the request; None if the price is not known."""
    return None if card.price is None else card.price.cost_microusd(usage)


def is_named(model: str, card: ModelCard) -> bool:
    """Whether a name is one of a model's."""
    return model == card.model or model in card.aliases


def _named(request: Work, card: ModelCard) -> bool:
    named = request.model is not None and is_named(request.model, card)
    return card.vendor == request.vendor or named


def _candidate(target: Target, cost_microusd: int | None, note: str) -> Candidate:
    return Candidate(
        vendor=target.card.vendor,
        model=target.card.model,
        expected_cost_microusd=cost_microusd,
        note=note,
    )


def _arithmetic(target: Target, usage: Usage) -> str:
    price = target.card.price
    if price is None:
        return "price not known: after all whose price is known"
    kind = "free" if price.is_free else f"{price.cost_microusd(usage)} µ$"
    last = ", last resort" if target.card.last_resort else ""
    return f"~{usage.prompt_tokens} tokens in + {usage.completion_tokens} out = {kind}{last}"
