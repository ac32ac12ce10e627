"""What the user says of models: a mapping of facts that win over what vendors report.

    {"models": {"llamacpp/tiny": {"quality": 2, "price": {"input": "0.10", "output": "0.40"}}}}

Keys are ``vendor/model``, or ``vendor/*`` for all models of a vendor, where nothing is said of one
by its name. Reading a file into the mapping is not done here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from llmdispatcher.models.card import ModelCard, Price
from llmdispatcher.models.check import nearest
from llmdispatcher.models.errors import BadRequest, ConfigError, Problem

_PATCHABLE = (
    "price",
    "context_tokens",
    "max_output_tokens",
    "quality",
    "strengths",
    "last_resort",
    "parameters",
)
_PRICE_KEYS = ("input", "output", "cached_input", "cache_write", "per_request", "version", "above")


@attrs.frozen
class Catalog:
    """Facts by ``vendor/model``; ``apply`` lays them over a card."""

    facts: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)

    @classmethod
    def parse(cls, data: Mapping[str, Any], file: str = "") -> Catalog:
        """Check a mapping whole and keep it. Raises ConfigError with every problem in it."""
        facts: dict[str, Mapping[str, Any]] = {}
        problems = [
            Problem(_unknown(str(key), ("models",)), str(key), file)
            for key in data
            if key != "models"
        ]
        models = data.get("models", {})
        if not isinstance(models, Mapping):
            problems.append(Problem("must be a mapping of vendor/model to facts", "models", file))
            models = {}
        for name, row in models.items():
            facts[str(name)], found = _row(str(name), row)
            problems += [attrs.evolve(problem, file=file) for problem in found]
        if problems:
            raise ConfigError(problems)
        return cls(facts)

    def apply(self, card: ModelCard) -> ModelCard:
        """Return the card with the user's facts over the vendor's."""
        facts = {**self.facts.get(f"{card.vendor}/*", {}), **self.facts.get(card.name, {})}
        return attrs.evolve(card, **facts) if facts else card


def _row(name: str, row: object) -> tuple[dict[str, Any], list[Problem]]:
    """Turn one model's facts into card fields, and list what is wrong with them."""
    path = f"models.{name}"
    if "/" not in name:
        return {}, [Problem(f"must be written vendor/model, not {name!r}", path)]
    if not isinstance(row, Mapping):
        return {}, [Problem("must be a mapping of facts", path)]
    fields: dict[str, Any] = {}
    problems: list[Problem] = []
    probe = ModelCard(vendor="catalog", model="check", local=True)
    for key, value in row.items():
        if key not in _PATCHABLE:
            problems.append(Problem(_unknown(str(key), _PATCHABLE), f"{path}.{key}"))
            continue
        try:
            fields[key] = _price(value) if key == "price" else value
            attrs.evolve(probe, **{key: fields[key]})
        except BadRequest as error:
            problems.append(Problem(str(error), f"{path}.{key}"))
    return fields, problems


def _price(value: object) -> Price | None:
    """Read dollars per million tokens; null is "not known"."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise BadRequest("price", value, "a mapping of dollars per million tokens, or null")
    if unknown := set(value) - set(_PRICE_KEYS):
        raise BadRequest("price", sorted(map(str, unknown)), f"made of {', '.join(_PRICE_KEYS)}")
    if missing := [key for key in ("input", "output") if key not in value]:
        raise BadRequest("price", dict(value), f"given with {' and '.join(missing)}; 0 is free")
    return Price.per_million(**value)


def _unknown(key: str, known: tuple[str, ...]) -> str:
    return f"unknown key {key!r}; {nearest(key, known)}"
