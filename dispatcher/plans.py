"""Which flow carries out which plan. The flows themselves are loaded when a plan is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from llmdispatcher.models.plan import Plan
from llmdispatcher.models.request import Request
from llmdispatcher.steps import Flow
from llmdispatcher.trial import Job

FLOWS: Mapping[str, str] = {
    "Parallel": "llmdispatcher.race:parallel",
    "Hedge": "llmdispatcher.race:hedge",
    "Ensemble": "llmdispatcher.ensemble:ensemble",
    "Cascade": "llmdispatcher.cascade:cascade",
    "Chain": "llmdispatcher.chain:chain",
}
"""By the name of a plan's class: the function ``(job, plan) -> flow`` that carries it out."""


def flow_of(plan: Plan) -> Callable[[Job[Request]], Flow]:
    """Return what serves a request by a plan. Raises KeyError for a plan of an unknown class."""
    module, _, name = FLOWS[type(plan).__name__].partition(":")
    serve: Callable[[Job[Request], Any], Flow] = getattr(import_module(module), name)
    return lambda job: serve(job, plan)
