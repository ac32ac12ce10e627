"""Puts new vendors and policies in the place of those of a dispatcher, all of them or none.

Requests under way keep what they began with. What a vendor has loaded stays where its spec is equal
to the one before; breakers, statistics and limits that did not change remember.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import attrs

from llmdispatcher.desk import Desk
from llmdispatcher.eras import Eras
from llmdispatcher.models.catalog import Catalog
from llmdispatcher.models.errors import ConfigError, Problem, Refused
from llmdispatcher.policies import Policies
from llmdispatcher.spec import Registered
from llmdispatcher.tenancy import Budget
from llmdispatcher.vendors.contract import Engine, VendorSpec


@attrs.frozen(kw_only=True)
class Outfit:
    """What a dispatcher is to go by."""

    specs: tuple[VendorSpec, ...]
    policies: Policies
    catalog: Mapping[str, Any] = attrs.field(factory=dict)
    budget: Budget = attrs.field(factory=Budget)
    looks_around: bool = False
    """Servers of this machine that answer join in."""


@attrs.frozen(kw_only=True)
class Swapped:
    """What became of the vendors, by name."""

    started: tuple[str, ...]
    kept: tuple[str, ...]
    closed: tuple[str, ...]


def prepare(desk: Desk) -> Eras:
    """Have a dispatcher that was not used yet count its requests, so that it can be changed."""
    desk.eras = desk.eras or Eras()
    return desk.eras


def swap(
    desk: Desk, outfit: Outfit, owned: Collection[str], left: Sequence[Callable[[], object]] = ()
) -> Swapped:
    """Change a dispatcher.

    Args:
        desk: of the dispatcher.
        outfit: what it is to go by.
        owned: the vendors that may go; others were registered apart, and stay.
        left: what is to be closed with the last request that began before.

    Raises ConfigError, and then nothing has changed.
    """
    eras, catalog, before = prepare(desk), Catalog.parse(outfit.catalog), desk.registered()
    owned = {*owned, *desk.found}
    apart = [spec.name for spec in outfit.specs if spec.name in before.keys() - owned]
    if apart:
        message = "the program has registered a vendor of this name: give one another name"
        raise ConfigError([Problem(message, f"vendor {name!r}") for name in apart])
    started = _started(desk, [spec for spec in outfit.specs if _is_new(spec, before)])
    after = {name: vendor for name, vendor in before.items() if name not in owned}
    after |= {spec.name: started.get(spec.name) or before[spec.name] for spec in outfit.specs}
    gone = {name: each for name, each in before.items() if after.get(name) is not each}
    try:
        desk.obey(outfit.policies, catalog, after)
    except Refused:  # it was closed meanwhile
        for vendor in started.values():
            vendor.engine.close()
        raise
    desk.found.clear()
    if outfit.looks_around:
        desk.look_around()
    desk.landlord.obey(outfit.budget)
    eras.retire([*(_closing(desk, each.engine) for each in gone.values()), *left])
    kept = tuple(spec.name for spec in outfit.specs if spec.name not in started)
    return Swapped(started=tuple(started), kept=kept, closed=tuple(gone))


def _is_new(spec: VendorSpec, before: Mapping[str, Registered]) -> bool:
    return spec.name not in before or before[spec.name].spec != spec


def _started(desk: Desk, specs: Sequence[VendorSpec]) -> dict[str, Registered]:
    """Start vendors. Raises ConfigError, with none of them left."""
    started: dict[str, Registered] = {}
    with contextlib.ExitStack() as stack:
        for spec in specs:
            engine = desk.start(spec)
            stack.callback(engine.close)
            started[spec.name] = Registered(spec, engine)
        stack.pop_all()
    return started


def _closing(desk: Desk, engine: Engine) -> Callable[[], None]:
    """Return what closes an engine and forgets the memory that it had."""

    def close() -> None:
        engine.close()
        desk.landlord.forget(engine)

    return close
