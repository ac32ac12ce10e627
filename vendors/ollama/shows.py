"""What an Ollama server shows of its models: those it has, one in detail, and those loaded. Pure.

A model that the server only passes on to Ollama's cloud (``remote_host``) is not of this machine,
wherever the server runs: its card says so, and its price is not known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import attrs

from llmdispatcher.models.card import FREE, Capability, ModelCard
from llmdispatcher.models.errors import BadReply, BadRequest
from llmdispatcher.vendors.ollama import faults
from llmdispatcher.vendors.ollama.known import (
    NOT_IN_CLOUD,
    by_families,
    by_name,
    by_words,
    is_cloud,
)
from llmdispatcher.vendors.wire.exchange import Ask, Site
from llmdispatcher.vendors.wire.reading import fields, items, known, tally

LIST, LOADED, SHOW = "/api/tags", "/api/ps", "/api/show"

_COUNT = re.compile(r"^(\d{1,12}(?:\.\d{1,6})?) ?([KMBT]?)$", re.ASCII | re.IGNORECASE)
_LATEST = ":latest"
"""The tag that Ollama takes for names that have none."""
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


@attrs.frozen(kw_only=True)
class LoadedModel:
    """A model that a server holds in memory."""

    model: str
    context_tokens: int | None
    """What it was loaded with, which bounds a request now; by default far less than it was trained
    for: 4096 on a machine with less than 23 GiB of video memory."""
    size_bytes: int | None
    vram_bytes: int | None
    """How much of it is on a GPU."""
    expires_at: datetime | None
    """When it is unloaded, unless it is asked before."""

    @property
    def is_partly_on_cpu(self) -> bool:
        """Not all of it is on a GPU, or none: it is slower than it could be."""
        return (self.vram_bytes or 0) < (self.size_bytes or 0)


def named(model: str, site: Site, *, hosted: bool = False) -> ModelCard:
    """Return the card of a model by its name alone."""
    away = hosted or is_cloud(model)
    return _card(model, site, by_name(model), away=away)


def listed(message: Any, site: Site, *, hosted: bool = False) -> tuple[ModelCard, ...]:  # noqa: ANN401 - a stranger's JSON
    """Read the list of models; rows that cannot be read are left out. Raises BadReply."""
    rows = faults.check(message).get("models")
    if rows is not None and not isinstance(rows, list):
        raise BadReply("Ollama sent a list of models that is none")
    cards = (_listed(fields(row), site, hosted=hosted) for row in rows or ())
    return tuple({card.model: card for card in cards if card is not None}.values())


def showing(model: str) -> Ask:
    """Return what asks for a model in detail, which servers tell that list no abilities."""
    return Ask(path=SHOW, body={"model": model})


def shown(card: ModelCard, message: Any) -> ModelCard:  # noqa: ANN401 - a stranger's JSON
    """Return a card with what the server shows of the model in detail. Raises BadReply."""
    told = faults.check(message)
    facts = fields(told.get("model_info"))
    sizes = (known(value) for name, value in facts.items() if name.endswith(".context_length"))
    context = next((size for size in sizes if size is not None), None)
    can = _abilities(told.get("capabilities"))
    away = not card.local
    return attrs.evolve(
        card,
        capabilities=card.capabilities if can is None else _held(can, away=away),
        context_tokens=_least(context, card.context_tokens),
        parameters=tally(facts.get("general.parameter_count")) or card.parameters,
    )


def loaded(message: Any) -> tuple[LoadedModel, ...]:  # noqa: ANN401 - a stranger's JSON
    """Read which models are in memory. Raises BadReply."""
    rows = faults.check(message).get("models")
    if rows is not None and not isinstance(rows, list):
        raise BadReply("Ollama sent a list of loaded models that is none")
    return tuple(_loaded(name, fields(row)) for row in rows or () if (name := _name(fields(row))))


def _listed(row: Mapping[str, Any], site: Site, *, hosted: bool) -> ModelCard | None:
    model, details = _name(row), fields(row.get("details"))
    away = hosted or is_cloud(model) or bool(row.get("remote_host") or row.get("remote_model"))
    can = _abilities(row.get("capabilities"))
    if can is None:
        families = [*items(details.get("families")), details.get("family")]
        can = by_families(model, _strings(families))
    try:
        card = _card(model, site, can, away=away)
    except BadRequest:  # a name that is empty, or no text
        return None
    return attrs.evolve(
        card,
        context_tokens=_least(known(details.get("context_length")), card.context_tokens),
        parameters=_count(details.get("parameter_size")),
        size_bytes=tally(row.get("size")) or None,
    )


def _card(model: str, site: Site, can: Iterable[Capability], *, away: bool) -> ModelCard:
    here = site.local and not away
    return ModelCard(
        vendor=site.vendor,
        model=model,
        aliases=(model.removesuffix(_LATEST),) if model.endswith(_LATEST) else (),
        local=here,
        capabilities=_held(can, away=away),
        price=FREE if here else None,
        context_tokens=known(fields(site.extra.get("options")).get("num_ctx")),
    )


def _held(can: Iterable[Capability], *, away: bool) -> frozenset[Capability]:
    return frozenset(can) - (NOT_IN_CLOUD if away else frozenset())


def _loaded(model: str, row: Mapping[str, Any]) -> LoadedModel:
    return LoadedModel(
        model=model,
        context_tokens=known(row.get("context_length")),
        size_bytes=tally(row["size"]) if "size" in row else None,
        vram_bytes=tally(row["size_vram"]) if "size_vram" in row else None,
        expires_at=_time(row.get("expires_at")),
    )


def _name(row: Mapping[str, Any]) -> str:
    name = row.get("model") or row.get("name")
    return name if isinstance(name, str) and name.strip() else ""


def _strings(values: Iterable[object]) -> list[str]:
    return [value for value in values if isinstance(value, str)]


def _abilities(told: object) -> frozenset[Capability] | None:
    """Return what the server says that a model can do; None where it says nothing."""
    return by_words(_strings(told)) if isinstance(told, list) else None


def _least(*sizes: int | None) -> int | None:
    return min((size for size in sizes if size is not None), default=None)


def _count(told: object) -> int | None:
    """Return how many parameters ``"7.6B"`` are; None for what is no such number."""
    found = _COUNT.match(told.strip()) if isinstance(told, str) else None
    return int(Decimal(found[1]) * _UNITS[found[2].upper()]) or None if found else None


def _time(told: object) -> datetime | None:
    try:
        return datetime.fromisoformat(told) if isinstance(told, str) else None
    except ValueError:
        return None
