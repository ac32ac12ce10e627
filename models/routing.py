"""What a user may set about choosing: who comes first, who gets how much, what time is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import attrs

from llmdispatcher.models.check import dollars, number
from llmdispatcher.models.errors import BadRequest


def _integers(value: Mapping[str, int] | None) -> dict[str, int]:
    return _by_name("priorities", value, int, "an integer, the smaller the sooner")


def _numbers(value: Mapping[str, float] | None) -> dict[str, float]:
    weights = _by_name("weights", value, (int, float), "a number of at least 0")
    for name, weight in weights.items():
        if not 0 <= weight < math.inf:
            raise BadRequest(f"weights[{name!r}]", weight, "a number of at least 0")
    return weights


def _by_name(field: str, value: object, kind: Any, allowed: str) -> dict[str, Any]:  # noqa: ANN401 - as isinstance takes it
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadRequest(field, value, "a mapping of names, such as {'openai': 1}")
    for name, each in value.items():
        if not isinstance(name, str):
            raise BadRequest(field, name, "named by vendor or vendor/model")
        if isinstance(each, bool) or not isinstance(each, kind):
            raise BadRequest(f"{field}[{name!r}]", each, allowed)
    return dict(value)


@attrs.frozen(kw_only=True)
class Routing:
    """What the strategies go by. Names are of a vendor (``"openai"``) or ``"openai/gpt-5.4"``."""

    priorities: Mapping[str, int] = attrs.field(converter=_integers, factory=dict)
    """The smaller comes first; who has none has 0. For "priority", and between equals."""
    weights: Mapping[str, float] = attrs.field(converter=_numbers, factory=dict)
    """The share of requests that each gets, in any unit; who has none has 1. For "weighted"."""
    value_of_time_usd: Decimal | None = attrs.field(default=None, converter=dollars)
    """What an hour of waiting costs the caller, in dollars: expected seconds, of answering and of
    loading a model, are priced with it. None prices no time."""
    explore: float = number("explore", 0, 1, default=0.05)
    """The share of requests in which "weighted" and "latency" ask somebody else than their first
    choice, so that who has become better is found."""
