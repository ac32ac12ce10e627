"""Presets: what a whole dispatcher is set to by one word, as rows of ``presets.yaml``.

They set how patient and choosy it is, and no vendors. What a program says itself goes before them.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import attrs

from llmdispatcher.models.check import nearest
from llmdispatcher.models.errors import BadRequest
from llmdispatcher.models.policy import BreakerPolicy, RetryPolicy
from llmdispatcher.models.request import Deadlines
from llmdispatcher.models.routing import Routing
from llmdispatcher.models.strategy import Strategy, read_strategy

FILE = "presets.yaml"


@attrs.frozen(kw_only=True)
class Preset:
    """A row of the file."""

    name: str
    why: str
    """For whom it is, in a line."""
    strategy: Strategy
    retry: RetryPolicy
    breaker: BreakerPolicy
    deadlines: Deadlines
    routing: Routing


def read_preset(name: object) -> Preset:
    """Return the preset of a name. Raises BadRequest for one that is not known."""
    known = presets()
    if not isinstance(name, str) or name not in known:
        hint = nearest(name, known) if isinstance(name, str) else f"known: {', '.join(known)}"
        raise BadRequest("preset", name, f"a preset's name; {hint}")
    return known[name]


@cache
def presets() -> dict[str, Preset]:
    """Read all of them, once: it takes some milliseconds, and few programs need it."""
    import yaml  # noqa: PLC0415 - as above

    return {name: _preset(name, row) for name, row in yaml.safe_load(text()).items()}


def text() -> str:
    """Return the file as it is."""
    return resources.files("llmdispatcher.models").joinpath(FILE).read_text(encoding="utf-8")


def _preset(name: str, row: dict[str, Any]) -> Preset:
    strategy = row["strategy"]
    made = Strategy(**strategy) if isinstance(strategy, dict) else read_strategy(strategy)
    assert made is not None  # noqa: S101 - every row has one
    return Preset(
        name=name,
        why=str(row["why"]),
        strategy=made,
        retry=RetryPolicy(**row.get("retry", {})),
        breaker=BreakerPolicy(**row.get("breaker", {})),
        deadlines=Deadlines(**row.get("deadlines", {})),
        routing=Routing(**row.get("routing", {})),
    )
