"""What a configuration comes to, value by value, each with where it was said. Shows no secret."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from llmdispatcher.config.node import Node
from llmdispatcher.config.secrecy import REFERENCE, safe
from llmdispatcher.config.settings import Settings
from llmdispatcher.config.specs import Named
from llmdispatcher.vendors.http import preset
from llmdispatcher.vendors.http.vendor import HttpVendor

DEFAULT = "default"


@attrs.frozen
class Row:
    """One value."""

    key: str
    value: str
    source: str
    """``file:line``, the preset, or "default"."""


def rows(settings: Settings, environment: Mapping[str, str]) -> tuple[Row, ...]:
    """Return all that a dispatcher would go by."""
    return tuple(_all(settings, environment))


def _all(settings: Settings, environment: Mapping[str, str]) -> Iterator[Row]:
    top, sections = settings.top, settings.sections
    for vendor in settings.vendors:
        yield from _vendor(vendor, environment)
    if not settings.vendors:
        yield Row("vendors", "what is found: the embedded model, local servers", DEFAULT)
    if sections.preset is not None:
        yield _row("preset", sections.preset, top.get("preset"))
    yield from _strategy(settings)
    for name in ("deadlines", "retry", "breaker", "routing"):
        yield from _policy(name, getattr(sections, name), top.get(name))
    for name, limits in sections.limits.items():
        told = (top.get("limits") or Node({})).get(name)
        yield from _policy(f"limits.{name}", limits, told, all_of_it=False)
    for at, cap in enumerate(sections.budgets):
        yield _row(f"budgets[{at}]", str(cap), top.get("budgets"))
    for name in ("ledger", "cache"):
        yield from _file(name, getattr(sections, name), top.get(name))
    yield from _catalog(top.get("catalog"))
    for name in ("max_memory_mb", "max_vram_mb", "allow_cloud", "offline"):
        yield _row(name, getattr(sections, name), top.get(name))


def _row(key: str, value: object, node: Node | None) -> Row:
    return Row(safe(key), safe(_told(value)), _source(node))


def _source(node: Node | None) -> str:
    if node is None:
        return DEFAULT
    return node.file if node.file.startswith("preset ") else f"{node.file}:{node.line}"


def _told(value: object) -> str:
    """Return a value in the words of the file."""
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case list() | tuple():
            return "[" + ", ".join(map(_told, value)) + "]"
        case Mapping():
            return "{" + ", ".join(f"{key}: {_told(each)}" for key, each in value.items()) + "}"
        case float():
            return f"{value:g}"
    return str(value)


def _vendor(vendor: Named, environment: Mapping[str, str]) -> Iterator[Row]:
    start, node = f"vendors.{vendor.name}", vendor.node
    yield _row(f"{start}.type", vendor.kind, node)
    if not vendor.enabled:
        yield _row(f"{start}.enabled", value=False, node=node)
    for name, said in node.items.items():
        key = f"{start}.{name}"
        if name.endswith("_env"):
            is_set = bool(environment.get(said.text, "").strip())
            yield _row(key, f"{said.text} ({'set' if is_set else 'missing'})", said)
        elif name not in vendor.arguments or vendor.arguments[name].is_secret:
            yield from _secrets(key, said)
        else:
            yield _row(key, _shown(getattr(vendor.spec, name, None), said), said)
    if isinstance(vendor.spec, HttpVendor) and "api_key_env" not in node.items:
        yield from _usual_key(start, vendor.spec, environment)


def _shown(made: object, said: Node) -> object:
    """Return a path as it was understood, and anything else as it was said."""
    return made if isinstance(made, Path) else said.bare()


def _secrets(key: str, node: Node) -> Iterator[Row]:
    """Say that something is there; what names no variable may be a secret itself."""
    for name, each in node.items.items():
        yield from _secrets(f"{key}.{name}", each)
    if not node.items:
        names = ", ".join(REFERENCE.findall(node.text))
        yield _row(key, f"set, by {names}" if names else "set", node)


def _usual_key(start: str, spec: HttpVendor, environment: Mapping[str, str]) -> Iterator[Row]:
    """Say whether the key is there that the vendor's own client would read."""
    row = preset.row(spec.preset)
    if row.needs_key and row.key_env and spec.api_key is None:
        given = [name for name in row.key_env if environment.get(name, "").strip()]
        told = f"{given[0]} (set)" if given else f"{' or '.join(row.key_env)} (missing)"
        yield Row(f"{start}.api_key_env", told, DEFAULT)


def _strategy(settings: Settings) -> Iterator[Row]:
    node = settings.top.get("strategy")
    if node is None or not node.items:
        yield _row("strategy", "cost" if node is None else node.text, node)
        return
    for key, said in node.items.items():
        yield _row(f"strategy.{key}", said.bare(), said)


def _policy(
    start: str, policy: attrs.AttrsInstance, node: Node | None, *, all_of_it: bool = True
) -> Iterator[Row]:
    for field in attrs.fields(type(policy)):
        said = None if node is None else node.get(field.name)
        if said is not None or all_of_it:
            yield _row(f"{start}.{field.name}", getattr(policy, field.name), said)


def _file(start: str, kept: attrs.AttrsInstance | None, node: Node | None) -> Iterator[Row]:
    """Show what is kept in a file, or that nothing is."""
    if kept is None:
        yield _row(start, value=False, node=node)
        return
    for field in attrs.fields(type(kept)):
        value = getattr(kept, field.name)
        said = None if node is None else node.get(field.name)
        if field.name == "path" and value is None:
            value = "in the user's folder"
        elif field.name == "path" and said is None:
            said = node
        yield _row(f"{start}.{field.name}", value, said)


def _catalog(node: Node | None) -> Iterator[Row]:
    models = None if node is None else node.get("models")
    for name, facts in (models.items if models is not None else {}).items():
        for fact, said in facts.items.items():
            yield _row(f"catalog.models.{name}.{fact}", said.bare(), said)
