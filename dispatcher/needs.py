"""What a request needs of a model, and why a model cannot serve it. Pure."""

from __future__ import annotations

from llmdispatcher.models.card import Capability, ModelCard
from llmdispatcher.models.embedding import EmbedRequest, RerankRequest, Work
from llmdispatcher.models.form import Shape
from llmdispatcher.models.message import Image
from llmdispatcher.models.request import Request

_SHAPES = {
    Shape.JSON: Capability.JSON,
    Shape.SCHEMA: Capability.SCHEMA,
    Shape.GRAMMAR: Capability.GRAMMAR,
}

_CHAT, _COMPLETION = frozenset({Capability.CHAT}), frozenset({Capability.COMPLETION})
_EMBED, _RERANK = frozenset({Capability.EMBED}), frozenset({Capability.RERANK})

_FORMS = frozenset({Capability.JSON, Capability.SCHEMA})

_AS_TWO = "it was registered to write text; LlamaCpp(…, name=…, pooling=…) registers a file for it"
_WAYS_OUT = {
    Capability.EMBED: _AS_TWO,
    Capability.RERANK: _AS_TWO,
    Capability.CHAT: "it was made for vectors or scores; register a model that writes",
    Capability.VISION: "LlamaCpp(…, projector_path=…) takes the file that lets it see",
    Capability.ADAPTERS: "LlamaCpp(…, adapters={…}) takes the files",
}
"""What to do where a local model cannot do what a request asks for."""


def needs(request: Work) -> frozenset[Capability]:
    """Return what a model must be able to do to serve the request."""
    if isinstance(request, EmbedRequest):
        return _EMBED
    if isinstance(request, RerankRequest):
        return _RERANK
    more = _more(request)
    plain = _CHAT if request.prompt is None else _COMPLETION
    return plain.union(more) if more else plain


def in_words(request: Work) -> frozenset[Capability]:
    """Return what a model need not be able to do, since it can be told: to reply with JSON."""
    if not isinstance(request, Request) or request.prompt is not None:
        return frozenset()
    return _FORMS if request.response_format.is_json else frozenset()


def _more(request: Request) -> list[Capability]:
    """Return what not every model that writes can do."""
    asked = [
        (request.tools, Capability.TOOLS),
        (request.n > 1, Capability.CHOICES),
        (request.logprobs is not None, Capability.LOGPROBS),
        (request.prefill, Capability.PREFILL),
        (request.suffix, Capability.INFILL),
        (request.adapters, Capability.ADAPTERS),
        (request.effort is not None, Capability.EFFORT),
    ]
    more = [capability for is_asked, capability in asked if is_asked]
    if capability := _SHAPES.get(request.response_format.shape):
        more.append(capability)
    return [*more, Capability.VISION] if has_images(request) else more


def has_images(request: Request) -> bool:
    """Whether any part of the prompt is a picture."""
    for message in request.messages:  # loops, which are quicker than any(): each request asks
        for part in message.content:
            if isinstance(part, Image):
                return True
    return False


def unfit(request: Work, needed: frozenset[Capability], card: ModelCard, only: str) -> str:
    """Return why a model cannot serve the request; empty if it can.

    ``only`` is where the strategy lets it run: ``"local"``, ``"cloud"`` or ``"anywhere"``.
    """
    return _unnamed(request, card) or _misplaced(request, card, only) or _unable(needed, card)


def _unnamed(request: Work, card: ModelCard) -> str:
    if request.vendor is not None and request.vendor != card.vendor:
        return f"the request names the vendor {request.vendor!r}"
    if request.model is not None and not is_named(request.model, card):
        return f"the request names the model {request.model!r}"
    if card.named_only and request.model is None:
        return "one of many of its vendor: name it with model=…, or register it with models=[…]"
    return ""


def _misplaced(request: Work, card: ModelCard, only: str) -> str:
    if not (request.allow_cloud or card.local):
        return "not on this machine, and the request has allow_cloud=False"
    if only != "anywhere" and card.local is not (only == "local"):
        where = "on this machine" if card.local else "not on this machine"
        return f"{where}, and the strategy takes {only} models only"
    return ""


def _unable(needed: frozenset[Capability], card: ModelCard) -> str:
    if lacking := needed - card.capabilities:
        ways = {_WAYS_OUT[each]: None for each in sorted(lacking) if each in _WAYS_OUT}
        way_out = f" ({'; '.join(ways)})" if card.local and ways else ""
        return f"cannot do {', '.join(sorted(lacking))}{way_out}"
    return ""


def is_named(model: str, card: ModelCard) -> bool:
    """Whether a name is one of a model's."""
    return model == card.model or model in card.aliases


def is_chosen(request: Work, card: ModelCard) -> bool:
    """Whether a request names this model, or its vendor."""
    named = request.model is not None and is_named(request.model, card)
    return card.vendor == request.vendor or named
