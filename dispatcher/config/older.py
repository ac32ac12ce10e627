"""The older form of a file, put into the words of ours. Every value keeps its place in the file.

providers: {cloud: {claude: {…}}, local: {ollama: {…}}}
fallback: {strategy: priority, max_retries: 3, timeout_seconds: 30, retry_delay_seconds: 1}
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import attrs

from llmdispatcher.config import arguments
from llmdispatcher.config.convert import Converter
from llmdispatcher.config.guard import NOTHING
from llmdispatcher.config.node import Node, Notes
from llmdispatcher.config.sections import Fallback
from llmdispatcher.models.policy import RetryPolicy

NAMES = {"claude": "anthropic"}
"""What vendors were called."""

PLACES = ("cloud", "local")

_COSTS = {"cost_per_1k_input": "input", "cost_per_1k_output": "output"}
_OWN = ("priority", *_COSTS)


def translated(top: Node, converter: Converter) -> Node:
    """Return a file in which what the older form says stands where ours says it."""
    made = dict(top.without("providers", "fallback").items)
    if (providers := top.get("providers")) is not None:
        _providers(providers, made, converter)
    if (fallback := top.get("fallback")) is not None:
        _fallback(fallback, made, converter)
    return attrs.evolve(top, value=made)


# -- providers ---------------------------------------------------------------------------------


def _providers(providers: Node, made: dict[str, Node], converter: Converter) -> None:
    notes = converter.notes
    vendors = dict(made["vendors"].items) if "vendors" in made else {}
    for name, table in _tables(providers, converter):
        if name in vendors:
            notes.wrong(table, f"the vendor {name!r} is there twice", at_key=True)
            continue
        if not isinstance(table.value, dict):
            notes.wrong(table, "must be a mapping of keys")
            continue
        vendors[name] = _typed(table, NAMES.get(name, name))
        _priority(name, table, made, converter)
        _price(name, table, made, converter)
    made["vendors"] = attrs.evolve(providers, value=vendors)


def _tables(providers: Node, converter: Converter) -> Iterator[tuple[str, Node]]:
    for place, group in providers.items.items():
        if place not in PLACES:
            converter.unknown(group, place, PLACES)
        elif isinstance(group.value, dict):
            yield from group.value.items()
        elif group.value is not None:
            converter.notes.wrong(group, "must be a mapping of vendors")
    if not isinstance(providers.value, dict):
        converter.notes.wrong(providers, "must be a mapping with cloud and local")


def _typed(table: Node, kind: str) -> Node:
    """Say what kind of vendor it is; what the vendor does not take goes elsewhere."""
    left = table.without(*_OWN)
    line, column = table.key_place or (table.line, table.column)
    said = attrs.evolve(table, value=kind, text=kind, line=line, column=column)
    return attrs.evolve(left, value={"type": said, **left.items})


def _priority(name: str, table: Node, made: dict[str, Node], converter: Converter) -> None:
    if (node := table.get("priority")) is not None:
        _put(made, f"routing.priorities.{name}", node, converter.notes)


def _price(name: str, table: Node, made: dict[str, Node], converter: Converter) -> None:
    """Set the price of all models of a vendor: a million tokens cost a thousand times as much."""
    rates = {_COSTS[key]: node for key in _COSTS if (node := table.get(key)) is not None}
    if not rates:
        return
    if len(rates) < len(_COSTS):
        message = (
            "give both cost_per_1k_input and cost_per_1k_output: what was forgotten is not free"
        )
        converter.notes.wrong(next(iter(rates.values())), message, at_key=True)
        return
    price: dict[str, Node] = {}
    for key, node in rates.items():
        usd = converter.read(node, Decimal)
        if usd is NOTHING:
            return
        if not usd.is_finite() or usd < 0 or usd * 10**9 != int(usd * 10**9):
            allowed = "must be dollars of at least 0, with at most 9 decimals"
            converter.notes.wrong(node, f"is {node.text}; {allowed}")
            return
        price[key] = attrs.evolve(node, value=f"{usd * 1000:f}", text=f"{usd * 1000:f}")
    whole = attrs.evolve(table, value=price)
    _put(made, f"catalog.models.{name}/*.price", whole, converter.notes, parts=4)


def _put(
    made: dict[str, Node], path: str, node: Node, notes: Notes, parts: int | None = None
) -> None:
    """Lay a value where ours has it, unless the file says it there as well."""
    *above, last = _split(path, parts)
    inner = made
    for key in above:
        table = inner.get(key)
        if table is None or table.value is None:
            table = attrs.evolve(node, value={}, path=path)
        if not isinstance(table.value, dict):
            return  # which is told of that section itself
        inner[key] = table = attrs.evolve(table, value=dict(table.value))
        inner = table.value
    if last in inner:
        notes.wrong(inner[last], f"is said by {node.path} too: leave one of the two out")
        return
    inner[last] = node


def _split(path: str, parts: int | None) -> list[str]:
    """Split a path; names of models have dots in them, and stand last but one."""
    if parts is None:
        return path.split(".")
    first, second, rest = path.split(".", 2)
    name, _, last = rest.rpartition(".")
    return [first, second, name, last]


# -- fallback ----------------------------------------------------------------------------------


def _fallback(fallback: Node, made: dict[str, Node], converter: Converter) -> None:
    found: Any = converter.made(arguments.maker(Fallback), fallback)
    if (node := fallback.get("strategy")) is not None:
        _put(made, "strategy", node, converter.notes)
    if found is NOTHING:
        return
    if (node := fallback.get("max_retries")) is not None:
        _rule(made, "retry.attempts", node, found.max_retries + 1, converter.notes)
    if (node := fallback.get("timeout_seconds")) is not None:
        _rule(made, "deadlines.total_s", node, found.timeout_seconds, converter.notes)
        _rule(made, "retry.total_s", node, found.timeout_seconds, converter.notes)
    if (node := fallback.get("retry_delay_seconds")) is not None:
        delay_s = found.retry_delay_seconds
        _rule(made, "retry.backoff_s", node, delay_s, converter.notes)
        if delay_s > RetryPolicy().backoff_cap_s:
            _rule(made, "retry.backoff_cap_s", node, delay_s, converter.notes)


def _rule(made: dict[str, Node], path: str, node: Node, value: float, notes: Notes) -> None:
    _put(made, path, attrs.evolve(node, value=value, text=str(value)), notes)
