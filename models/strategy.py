"""Strategies: by what the models that can serve a request are put in order, as rows of data.

A strategy is named (``strategy="latency"``), or made (``Strategy(order="cost", least_quality=4)``),
or a plan (``strategy=Hedge()``), for a dispatcher or for one request.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

import attrs

from llmdispatcher.models.check import flag, integer, nearest, one_of
from llmdispatcher.models.errors import BadRequest
from llmdispatcher.models.plan import Plan

ORDERS = ("cost", "priority", "round_robin", "weighted", "latency", "least_busy", "quality")

PLACES = ("anywhere", "local", "cloud")


@attrs.frozen(kw_only=True)
class Strategy:
    """How to choose among the models that can serve a request. Equal ones go by cost."""

    order: str = attrs.field(default="cost", validator=one_of(*ORDERS))
    """"cost": the expected cost of a good answer, least first. "priority": by
    ``Routing.priorities``. "round_robin": who was asked the longest ago. "weighted": drawn by
    ``Routing.weights``. "latency": who answered soonest of late. "least_busy": who has the fewest
    requests in hand. "quality": the best tier first."""
    only: str = attrs.field(default="anywhere", validator=one_of(*PLACES))
    """"local" leaves out what is not on this machine, "cloud" what is."""
    first: str = attrs.field(default="anywhere", validator=one_of(*PLACES))
    """"local" puts what is on this machine before all else, "cloud" behind it."""
    least_quality: int | None = integer("least_quality", 1, 5)
    """Models of a lower tier come after all others; those of unknown tier count as 3."""
    reads_task: bool = flag(default=False)
    """The request is read for its task, whose rule sets the least quality and the place."""
    plan: Plan | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.instance_of(Plan))
    )
    """What is done with the order: None asks one after the other until one serves."""


STRATEGIES: Mapping[str, Strategy] = {
    "auto": Strategy(reads_task=True),
    "cost": Strategy(),
    "priority": Strategy(order="priority"),
    "round_robin": Strategy(order="round_robin"),
    "weighted": Strategy(order="weighted"),
    "latency": Strategy(order="latency"),
    "least_busy": Strategy(order="least_busy"),
    "quality": Strategy(order="quality"),
    "local_only": Strategy(only="local"),
    "cloud_only": Strategy(only="cloud"),
    "local_first": Strategy(first="local"),
    "cloud_first": Strategy(first="cloud"),
    # The modes of the dispatcher that this one grew from.
    "fast": Strategy(order="latency"),
    "sophisticated": Strategy(order="quality"),
    "cost_saving": Strategy(first="local"),
}
"""By name. Those that are plans are in ``PLANS``."""

PLANS: Mapping[str, str] = {
    "parallel": "llmdispatcher.models.race:Parallel",
    "hedge": "llmdispatcher.models.race:Hedge",
    "ensemble": "llmdispatcher.models.race:Ensemble",
    "cascade": "llmdispatcher.models.stages:Cascade",
    "chain": "llmdispatcher.models.stages:Chain",
}
"""Plans by name, and where each is: few programs need them, so none is imported before."""


def read_strategy(value: Strategy | Plan | str | None) -> Strategy | None:
    """Take a strategy, a plan, or the name of one. Raises BadRequest."""
    if value is None or isinstance(value, Strategy):
        return value
    if isinstance(value, Plan):
        return Strategy(plan=value)
    if isinstance(value, str):
        if value in STRATEGIES:
            return STRATEGIES[value]
        if value in PLANS:
            module, _, name = PLANS[value].partition(":")
            return Strategy(plan=getattr(import_module(module), name)())
        hint = nearest(value, (*STRATEGIES, *PLANS))
        raise BadRequest("strategy", value, f"a strategy's name; {hint}")
    raise BadRequest("strategy", value, "a name such as 'cost', a Strategy(…) or a plan")
