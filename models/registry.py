"""Models that are known by name: what they cost at their vendor's own address, and their tier.

``catalog.yaml`` beside this has the facts. They fill in what a vendor does not tell; what it tells,
and what the user says (``Dispatcher(catalog=…)``), goes before them. A model that is not known here
can be used all the same, at a price that is not known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import attrs

from llmdispatcher.models.card import ModelCard
from llmdispatcher.models.catalog import Catalog

FILE = "catalog.yaml"

_DATED = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8})$")
"""How OpenAI and Anthropic name one state of a model: it costs what the model costs."""

_UNTOLD: tuple[Any, ...] = (None, frozenset())
"""What a field of a card holds that was not told."""


def names(vendor: str) -> tuple[str, ...]:
    """Return the models of a vendor that are known by name, in the order of the file."""
    start = f"{vendor}/"
    return tuple(name.removeprefix(start) for name in _facts() if name.startswith(start))


def vendors() -> tuple[str, ...]:
    """Return the vendors of which models are known by name."""
    return tuple(dict.fromkeys(name.partition("/")[0] for name in _facts()))


def complete(card: ModelCard, vendor: str) -> ModelCard:
    """Return a card with what is known of the model at a vendor, where the card does not say it.

    ``vendor`` is one of those that ``catalog.yaml`` knows; at any other nothing is known.
    """
    facts = known(vendor, card.model)
    missing = {name: value for name, value in facts.items() if getattr(card, name) in _UNTOLD}
    return attrs.evolve(card, **missing) if missing else card


def known(vendor: str, model: str) -> Mapping[str, Any]:
    """Return the facts of a model, as fields of its card; empty where nothing is known of it."""
    if not vendor:
        return {}
    facts = _facts()
    name = f"{vendor}/{model}"
    return facts.get(name) or facts.get(_DATED.sub("", name)) or {}


@cache
def _facts() -> Mapping[str, Mapping[str, Any]]:
    """Read the file, once: it takes some milliseconds, and a program without clouds never does."""
    import yaml  # noqa: PLC0415 - as above

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = resources.files("llmdispatcher.models").joinpath(FILE).read_text(encoding="utf-8")
    told = yaml.load(text, loader)  # noqa: S506 - both are safe
    version = told.pop("version")
    facts = Catalog.parse(told, FILE).facts
    return {name: {**row, **_stamped(row, version)} for name, row in facts.items()}


def _stamped(row: Mapping[str, Any], version: str) -> dict[str, Any]:
    """Return a row's price with where it was read."""
    price = row.get("price")
    return {} if price is None else {"price": attrs.evolve(price, version=version)}
