"""From a host's list of models to cards, in all the forms in which hosts write it. Pure.

Lists differ in what they are called and in what they tell; one reader knows all names, since no two
hosts mean different things by one. What is not told is taken from what is known of the name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_CEILING
from typing import Any

import attrs

from llmdispatcher.models import registry
from llmdispatcher.models.card import FREE, Capability, ModelCard, Price
from llmdispatcher.models.errors import BadReply
from llmdispatcher.vendors.openai import known
from llmdispatcher.vendors.openai.figures import dollars
from llmdispatcher.vendors.openai.ways import JsonMode, Logprobs, Pictures, Prices, Ways
from llmdispatcher.vendors.wire import faults
from llmdispatcher.vendors.wire.exchange import Site
from llmdispatcher.vendors.wire.reading import fields, items, shown, words
from llmdispatcher.vendors.wire.reading import known as size

MAX_ALIASES = 32
"""Of one model; Mistral's have three at most."""

MAX_MODELS = 100_000
"""Of one list; OpenRouter's has some hundreds."""

PICO_PER_USD = 10**12

_EMBEDS = re.compile(r"embed|(^|[/_-])(bge|e5|gte|minilm)([_.-]|$)", re.IGNORECASE)
_RANKS = re.compile(r"rerank", re.IGNORECASE)
"""What names of models say that make vectors, or score: no host's chat models are called so."""

_C = Capability

_TALK = frozenset(_C) - {_C.EMBED, _C.RERANK}


def abilities(ways: Ways) -> frozenset[Capability]:
    """Return everything that can be asked of a host, by one model or another."""
    can = {
        _C.CHAT: True,
        _C.TOOLS: True,
        _C.JSON: ways.json is not JsonMode.NEVER,
        _C.SCHEMA: ways.schema,
        _C.GRAMMAR: bool(ways.grammar),
        _C.VISION: ways.pictures is not Pictures.NEVER,
        _C.CHOICES: ways.max_choices > 1,
        _C.LOGPROBS: ways.logprobs is not Logprobs.NEVER,
        _C.PREFILL: ways.prefill is not None,
        _C.COMPLETION: bool(ways.raw),
        _C.INFILL: bool(ways.infill),
        _C.EFFORT: bool(ways.thinking.effort),
        _C.EMBED: bool(ways.embeddings),
        _C.RERANK: bool(ways.rerank),
    }
    return frozenset(name for name, is_able in can.items() if is_able)


def card(model: str, site: Site, ways: Ways) -> ModelCard:
    """Return what is known of a model by its name alone."""
    row, able = known.of(model), abilities(ways)
    if _RANKS.search(model):
        has = frozenset({_C.RERANK})
    elif _EMBEDS.search(model):
        has = frozenset({_C.EMBED})
    else:
        only_some = {_C.VISION, _C.EFFORT, _C.INFILL, _C.EMBED, _C.RERANK}
        if ways.refuses_by_model:
            only_some.add(_C.LOGPROBS)
        has = row.capable(able - only_some)
    by_name = ModelCard(
        vendor=site.vendor,
        model=model,
        local=site.local,
        capabilities=has & able,
        price=FREE if site.local else None,
        context_tokens=row.context_tokens if ways.sizes_by_name else None,
        max_output_tokens=row.max_output_tokens if ways.sizes_by_name else None,
    )
    return registry.complete(by_name, site.registry)


def listed(message: object, site: Site, ways: Ways) -> tuple[ModelCard, ...]:
    """Read a list. Raises BadReply, or the error that it is."""
    told = fields(message)
    if told.get("error") or told.get("object") == "error":
        raise faults.of_message(message, ways.habits)
    rows = message if isinstance(message, list) else told.get("data", told.get("models"))
    if not isinstance(rows, list) or len(rows) > MAX_MODELS:
        raise BadReply(f"the vendor sent what is no list of models: {shown(message)}")
    beside = {_name(fields(row)): fields(row) for row in items(told.get("models"))}
    cards: dict[str, ModelCard] = {}
    for row in map(fields, rows):
        if name := _name(row):
            more = beside.get(name, {})  # llama-server tells of each model twice
            cards.setdefault(name, _told(name, {**more, **row}, site, ways))
    return tuple(cards.values())


def _name(row: Mapping[str, Any]) -> str:
    names = (row.get(field) for field in ("id", "key", "model", "name"))
    return next((words(name) for name in names if isinstance(name, str) and name.strip()), "")


def _told(name: str, row: Mapping[str, Any], site: Site, ways: Ways) -> ModelCard:
    base = card(name, site, ways)
    return attrs.evolve(
        base,
        capabilities=_capabilities(base.capabilities, row, abilities(ways)),
        price=(None if site.local else _price(row, ways)) or base.price,
        aliases=_aliases(name, row),
        context_tokens=_context(row) or base.context_tokens,
        max_output_tokens=_output(row) or base.max_output_tokens,
        parameters=size(fields(row.get("meta")).get("n_params")),
        size_bytes=size(row.get("size_bytes")) or size(fields(row.get("meta")).get("size")),
    )


def _aliases(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return other names: those that are told, and that of a file without its folders."""
    told = [words(each) for each in items(row.get("aliases")) if isinstance(each, str)]
    file = [name.rpartition("/")[2]] if name.endswith(".gguf") and "/" in name else []
    return tuple([*file, *told][:MAX_ALIASES])


def held(message: object) -> tuple[str, ...]:
    """Return the models of a list that are in memory. Raises BadReply."""
    told = fields(message)
    rows = told.get("data", told.get("models"))
    if not isinstance(rows, list):
        raise BadReply(f"the vendor sent what is no list of models: {shown(message)}")
    return tuple(name for row in map(fields, rows) if _is_held(row) and (name := _name(row)))


def _is_held(row: Mapping[str, Any]) -> bool:
    """LM Studio lists instances, or a state; llama-server a status, or its only model."""
    if "loaded_instances" in row:
        return bool(items(row["loaded_instances"]))
    state = row.get("state", fields(row.get("status")).get("value", "loaded"))
    return bool(state == "loaded")


# -- sizes -------------------------------------------------------------------------------------


def _context(row: Mapping[str, Any]) -> int | None:
    """Return the context: of a model that is loaded, as it was loaded."""
    loaded = [
        size(fields(fields(each).get("config")).get("context_length"))
        for each in items(row.get("loaded_instances"))
    ]
    told = [
        max((tokens for tokens in loaded if tokens), default=None),
        size(fields(row.get("meta")).get("n_ctx")),
        size(fields(row.get("top_provider")).get("context_length")),
    ]
    names = (
        "loaded_context_length",
        "max_model_len",
        "context_length",
        "max_context_length",
        "context_window",
        "max_input_tokens",
    )
    told += [size(row.get(name)) for name in names]
    return next((tokens for tokens in told if tokens), None)


def _output(row: Mapping[str, Any]) -> int | None:
    names = ("max_completion_tokens", "max_output_tokens")
    told = [size(fields(row.get("top_provider")).get(names[0])), *(size(row.get(n)) for n in names)]
    return next((tokens for tokens in told if tokens), None)


# -- abilities ---------------------------------------------------------------------------------

_SAYS: Mapping[str, Capability] = {
    # Mistral, LM Studio
    "function_calling": _C.TOOLS,
    "trained_for_tool_use": _C.TOOLS,
    "tool_use": _C.TOOLS,
    "vision": _C.VISION,
    "reasoning": _C.EFFORT,
    "completion_fim": _C.INFILL,
    "completion_chat": _C.CHAT,
    # LocalAI, llama-server
    "chat": _C.CHAT,
    "completion": _C.COMPLETION,
    "multimodal": _C.VISION,
    "embeddings": _C.EMBED,
    "rerank": _C.RERANK,
    # OpenRouter
    "tools": _C.TOOLS,
    "response_format": _C.JSON,
    "structured_outputs": _C.SCHEMA,
    "logprobs": _C.LOGPROBS,
}
"""What hosts call the abilities of a model."""

_KINDS: Mapping[str, frozenset[Capability]] = {
    "embedding": frozenset({_C.EMBED}),
    "embeddings": frozenset({_C.EMBED}),
    "rerank": frozenset({_C.RERANK}),
    "image": frozenset(),
    "audio": frozenset(),
    "video": frozenset(),
    "moderation": frozenset(),
    "transcribe": frozenset(),
    "tts": frozenset(),
    "stt": frozenset(),
    "transcription": frozenset(),
}
"""What a ``type`` says that is no language model."""


def _capabilities(
    base: frozenset[Capability], row: Mapping[str, Any], able: frozenset[Capability]
) -> frozenset[Capability]:
    """Return what a model can do: what is told decides of what is told of, and the rest stays."""
    kind = row.get("type")
    if isinstance(kind, str) and kind.lower() in _KINDS:
        return _KINDS[kind.lower()] & able
    yes, no = _said(row)
    if (yes & {_C.EMBED, _C.RERANK}) and not yes & {_C.CHAT, _C.COMPLETION}:
        return yes & able
    if kind == "vlm":
        yes |= {_C.VISION}
    modalities = items(fields(row.get("architecture")).get("input_modalities"))
    if "image" in modalities:
        yes |= {_C.VISION}
    found = ((base | yes) - no) & able
    return found if _C.CHAT not in no else found & {_C.EMBED, _C.RERANK, _C.INFILL}


def _said(row: Mapping[str, Any]) -> tuple[frozenset[Capability], frozenset[Capability]]:
    """Return what a row says that its model can do, and what it says that it cannot."""
    told = row.get("capabilities")
    yes: set[Capability] = set()
    no: set[Capability] = set()
    for name, value in fields(told).items():
        if name in _SAYS and value is not None:
            (yes if value else no).add(_SAYS[name])
    yes.update(_SAYS[name] for name in items(told) if isinstance(name, str) and name in _SAYS)
    if isinstance(parameters := row.get("supported_parameters"), list):
        names = {name for name in parameters if isinstance(name, str)}
        for name in ("tools", "response_format", "structured_outputs", "logprobs", "reasoning"):
            (yes if name in names else no).add(_SAYS[name])
    return frozenset(yes), frozenset(no)


# -- prices ------------------------------------------------------------------------------------


def _price(row: Mapping[str, Any], ways: Ways) -> Price | None:
    """Return what a list tells of the price; None where it does not tell all of it."""
    told = fields(row.get("pricing"))
    if ways.prices is Prices.NONE or not told:
        return None
    per_million = ways.prices is Prices.PER_MILLION
    names = ("input", "output") if per_million else ("prompt", "completion")
    scale = PICO_PER_USD // 10**6 if per_million else PICO_PER_USD
    input_pico, output_pico = (_pico(told.get(name), scale) for name in names)
    if input_pico is None or output_pico is None:
        return None
    if per_million and not input_pico and not output_pico:
        return None  # Together's way of not telling
    request = dollars(told.get("request", 0))
    if request is None:
        return None
    return Price(
        input_pico=input_pico,
        output_pico=output_pico,
        cached_input_pico=_pico(told.get("cached_input", told.get("input_cache_read")), scale),
        cache_write_pico=_pico(told.get("input_cache_write"), scale),
        request_microusd=int((request * 10**6).to_integral_value(ROUND_CEILING)),
        version=f"{ways.prices.value}, as listed",
    )


def _pico(value: object, scale: int) -> int | None:
    """Return pico-dollars per token, rounded up; None for what is no price."""
    usd = dollars(value)
    return None if usd is None else int((usd * scale).to_integral_value(ROUND_CEILING))
