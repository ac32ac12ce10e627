"""What a user may set about choosing: who comes first, who gets how much, what time is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import attrs

from llmdispatcher.models.check import dollars, number
from llmdispatcher.models.errors import BadRequest
from llmdispatcher.models.task import Reading, Task, TaskRule, read_task

if TYPE_CHECKING:
    from llmdispatcher.models.request import Request

MOST = 1e9
"""Of weights, and of dollars an hour: beyond any use, and far from where floats end."""

AT_MOST = f"and at most {MOST:.0e}"


def _worth(value: Decimal | float | str | None) -> Decimal | None:
    try:
        usd = dollars(value)
    except BadRequest:
        usd = Decimal(-1)
    if usd is not None and not 0 <= usd <= MOST:
        raise BadRequest("value_of_time_usd", value, f"dollars an hour, of at least 0, {AT_MOST}")
    return usd


def _integers(value: Mapping[str, int] | None) -> dict[str, int]:
    return _by_name("priorities", value, int, "an integer, the smaller the sooner")


def _numbers(value: Mapping[str, float] | None) -> dict[str, float]:
    weights = _by_name("weights", value, (int, float), "a number of at least 0")
    for name, weight in weights.items():
        if not 0 <= weight <= MOST:
            raise BadRequest(f"weights[{name!r}]", weight, f"a number of at least 0, {AT_MOST}")
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


def _rules(value: Mapping[str, TaskRule] | None) -> dict[Task, TaskRule]:
    rules = _by_name("tasks", value, TaskRule, "a TaskRule(least_quality=4)")
    return {read_task(name): rule for name, rule in rules.items()}


@attrs.frozen(kw_only=True)
class Routing:
    """What the strategies go by. Names are of a vendor (``"openai"``) or ``"openai/gpt-5.4"``."""

    priorities: Mapping[str, int] = attrs.field(converter=_integers, factory=dict)
    """The smaller comes first; who has none has 0. For "priority", and between equals."""
    weights: Mapping[str, float] = attrs.field(converter=_numbers, factory=dict)
    """The share of requests that each gets, in any unit; who has none has 1. For "weighted"."""
    value_of_time_usd: Decimal | None = attrs.field(default=None, converter=_worth)
    """What an hour of waiting costs the caller, in dollars: expected seconds, of answering and of
    loading a model, are priced with it. None prices no time."""
    tasks: Mapping[str, TaskRule] = attrs.field(converter=_rules, factory=dict)
    """What "auto" goes by, where it is not ``TASK_RULES``: by the name of a task."""
    classifier: Callable[[Request], Reading] | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.is_callable())
    )
    """Reads a request for "auto" and ``task=``, instead of the reader that comes with this."""
    explore: float = number("explore", 0, 1, default=0.05)
    """So that who has become better is found: the share of requests in which "latency" asks
    somebody else first, and the share of its weight that "weighted" leaves to whom fails."""
