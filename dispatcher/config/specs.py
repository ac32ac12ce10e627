"""The ``vendors`` section: a table for each vendor, whose keys are what makes its spec.

vendors:
  fast:  {type: groq, api_key_env: GROQ_API_KEY, models: [llama-3.3-70b-versatile]}
  small: {type: llamacpp, model_path: ~/models/small.gguf, max_memory_mb: 2048}
  ollama:                                   # where the name says the type
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import attrs

from llmdispatcher.config import arguments
from llmdispatcher.config.arguments import Argument, Maker
from llmdispatcher.config.convert import Converter
from llmdispatcher.config.guard import NOTHING
from llmdispatcher.config.node import Node
from llmdispatcher.config.secrecy import REFERENCE, VARIABLE
from llmdispatcher.models.check import nearest
from llmdispatcher.models.errors import BadRequest, ConfigError
from llmdispatcher.vendors import discovery
from llmdispatcher.vendors.contract import VendorSpec
from llmdispatcher.vendors.http.vendor import HttpVendor

_BESIDE = ("type", "enabled")
"""Keys of a table that no spec has."""


@attrs.frozen(kw_only=True)
class Named:
    """A vendor of a file."""

    name: str
    kind: str
    """Its type: the name of an entry point."""
    node: Node
    """Its table, without what no spec has."""
    arguments: Mapping[str, Argument]
    enabled: bool = True
    spec: VendorSpec | None = None
    """None where it is not to be used, or cannot be made, which is noted."""


def named(vendors: Node | None, converter: Converter) -> tuple[Named, ...]:
    """Make the spec of each vendor that a section names."""
    if vendors is None:
        return ()
    if not isinstance(vendors.value, dict):
        converter.notes.wrong(vendors, "must be a mapping of names to what each vendor is")
        return ()
    return tuple(_all(vendors, converter))


def _all(vendors: Node, converter: Converter) -> Iterator[Named]:
    for name, table in vendors.items.items():
        if not name:
            converter.notes.wrong(table, "needs a name", at_key=True)
        elif table.value is not None and not isinstance(table.value, dict):
            message = "must be a mapping of keys, such as {type: ollama}"
            converter.notes.wrong(table, message)
        elif (made := _one(name, table, converter)) is not None:
            yield made


def _one(name: str, table: Node, converter: Converter) -> Named | None:
    said = table.get("type")
    kind = name if said is None else converter.read(said, str)
    switch = table.get("enabled")
    enabled = True if switch is None else converter.read(switch, bool)
    if kind is NOTHING or (said is None and _is_misspelt(name, table, converter)):
        converter.guard.search(table)
        return None
    maker = _maker(kind, table if said is None else said, converter)
    if maker is None:
        converter.guard.search(table)
        return None
    node = _with_variable(table.without(*_BESIDE), maker)
    known = Named(
        name=name, kind=kind, node=node, arguments=maker.arguments, enabled=enabled is True
    )
    names_itself = "name" in maker.arguments
    spec = converter.made(maker, node, {"name": name} if names_itself else None, _BESIDE)
    if spec is NOTHING or enabled is not True:
        return known
    if spec.name != name:
        message = f"a vendor of the type {kind!r} is always called {spec.name!r}: name it so"
        converter.notes.wrong(table, message, at_key=True)
        return known
    _look(spec, known, converter)
    return attrs.evolve(known, spec=spec)


def _is_misspelt(name: str, table: Node, converter: Converter) -> bool:
    """Whether a key is there that was meant to be ``type``, which is noted."""
    if name in _names():
        return False
    near = difflib.get_close_matches("type", table.items, n=1)
    if near:
        converter.unknown(table.items[near[0]], near[0], _BESIDE)
    return bool(near)


def _maker(kind: str, place: Node, converter: Converter) -> Maker | None:
    """Return what makes the vendors of a type."""
    names = _names()
    if kind not in names:
        at_key = not isinstance(place.value, str)
        way_out = ", and no type: says what it is" if at_key else ""
        message = f"{kind!r} is no type of vendor{way_out}; {nearest(kind, names)}"
        if converter.guard.is_clear(place):
            converter.notes.wrong(place, message, at_key=at_key)
        return None
    try:
        return _installed(kind)
    except ConfigError as error:
        for problem in error.problems:
            converter.notes.wrong(place, problem.message)
        return None


@cache
def _names() -> tuple[str, ...]:
    """Return the names of all types; what is installed stays so, and looking takes a while."""
    return discovery.names()


@cache
def _installed(kind: str) -> Maker:
    return arguments.maker(discovery.find(kind))


def _with_variable(table: Node, maker: Maker) -> Node:
    """Take ``api_key: ${NAME}`` as ``api_key_env: NAME``, which may be set later."""
    node = table.get("api_key")
    takes = {"api_key", "api_key_env"} <= maker.arguments.keys()
    if node is None or not takes or "api_key_env" in table.items:
        return table
    found = REFERENCE.fullmatch(node.text.strip())
    if found is None or not VARIABLE.fullmatch(found.group(1)):
        return table
    named_by = attrs.evolve(node, value=found.group(1), text=found.group(1))
    return attrs.evolve(
        table.without("api_key"), value={**table.without("api_key").items, "api_key_env": named_by}
    )


def _look(spec: VendorSpec, vendor: Named, converter: Converter) -> None:
    """Note what can never work, and what does not work yet. Nothing is loaded or connected to."""
    node, notes = vendor.node, converter.notes
    if isinstance(spec, HttpVendor):  # of which it is known that starting does nothing else
        try:
            spec.start(lambda _: None).close()
        except ConfigError as error:
            if isinstance(error.__cause__, BadRequest):
                _blame(error.__cause__, node, converter)
            else:
                for problem in error.problems:
                    notes.wrong(node, problem.message, at_key=True)
    for name, said in node.items.items():
        value = getattr(spec, name, None)
        if isinstance(value, Path) and not value.exists():
            notes.hint(said, f"there is no file {value}")
    if (variable := node.get("api_key_env")) is not None and not converter.guard.has(variable.text):
        notes.hint(variable, f"the environment variable {variable.text} is not set")


def _blame(error: BadRequest, node: Node, converter: Converter) -> None:
    """Note what a vendor refuses when it is started; it shows values as they may be shown."""
    place = node.items.get(error.field)
    if place is None:
        converter.notes.wrong(node, f"lacks {error.field}: {error.allowed}", at_key=True)
    else:
        converter.notes.wrong(place, f"is {error.value!r}; must be {error.allowed}")


def is_local(spec: VendorSpec) -> bool:
    """Whether a vendor runs on this machine, as far as its spec tells."""
    if isinstance(spec, HttpVendor):
        from llmdispatcher.vendors.http import address, preset  # noqa: PLC0415 - few ask

        row = preset.row(spec.preset)
        if spec.local is not None:
            return spec.local
        try:
            place = address.address(spec.base_url or row.base_url, row.api_path)
        except BadRequest:
            return False
        return row.local and place.is_loopback
    told = getattr(getattr(spec, "card", spec), "local", True)
    return told is not False
