"""Where a dispatcher's configuration came from, and how it is read again while it runs."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from llmdispatcher import swap
from llmdispatcher.cache import Cache
from llmdispatcher.config import found, places, settings
from llmdispatcher.config.places import Place
from llmdispatcher.config.sections import Sections
from llmdispatcher.config.settings import Settings
from llmdispatcher.config.watcher import Watcher
from llmdispatcher.ledger import Ledger
from llmdispatcher.listener import Listener, OnEvent
from llmdispatcher.models.errors import ConfigError, DispatcherError, Problem
from llmdispatcher.models.event import ConfigRefused, ConfigReloaded
from llmdispatcher.policies import Policies
from llmdispatcher.tenancy import Budget
from llmdispatcher.vendors import discovery
from llmdispatcher.vendors.contract import VendorSpec

if TYPE_CHECKING:
    from llmdispatcher.desk import Desk


@attrs.frozen
class Wish:
    """What the program says of its configuration."""

    path: str | PathLike[str] | None = None
    allow_cloud: bool | None = None
    watch: bool = False
    reads_file: bool = True
    """False takes what is found, whatever files there are."""


class Source:
    """The configuration of one dispatcher. Safe for threads."""

    def __init__(
        self,
        wish: Wish,
        on_event: OnEvent | None = None,
        *,
        otherwise: Ledger | None = None,
    ) -> None:
        """Read it. Raises ConfigError with every problem of the file.

        ``otherwise`` is the ledger where the file names none; it stays its owner's.
        """
        self._wish, self._otherwise = wish, otherwise
        self._report = Listener(on_event).report
        self._lock = threading.RLock()  # one reload after the other
        self._desk: Desk | None = None
        self._watcher: Watcher | None = None
        self.place = self._chosen()
        self.settings = self._read(self.place)
        if self.place is not None:  # or another folder might become the current one
            self.place = attrs.evolve(self.place, path=self.place.path.absolute())
        self._ledger, self._cache = _ledger(self.settings.sections), _cache(self.settings.sections)
        self.specs = self._specs(self.settings)

    @property
    def names_vendors(self) -> bool:
        """Whether the file says whom to ask, so that nobody is looked for."""
        return bool(self.settings.specs)

    def keywords(self) -> dict[str, Any]:
        """Return what a dispatcher is made with, besides its vendors."""
        sections = self.settings.sections
        return {
            **_policies(sections, self._ledger or self._otherwise, self._cache),
            "catalog": sections.catalog,
            "max_memory_mb": sections.max_memory_mb,
            "max_vram_mb": sections.max_vram_mb,
        }

    def attach(self, desk: Desk) -> None:
        """Take over a dispatcher that was made with this, before it serves anybody."""
        self._desk = desk
        eras = swap.prepare(desk)
        if not self.names_vendors:
            for spec in self.specs[1:]:  # those that are found, beside the embedded model
                desk.register(spec)
        eras.own(partial(_close, weakref.ref(self)))  # the dispatcher's own may be forgotten
        if self._wish.watch:
            self.watch()

    def watch(self) -> Watcher:
        """Look from now on whether the file changes, and reload it then."""
        if self._watcher is None:
            self._watcher = Watcher(self)
        return self._watcher

    def paths(self) -> tuple[Path, ...]:
        """Return the files whose change means something: the one that was read, or may be."""
        if self.place is not None:
            return (self.place.path,)
        return tuple(each.path for each in places.places(self._wish.path, os.environ))

    def reload(self) -> ConfigReloaded:
        """Read it again, and go by it. Raises ConfigError, and then nothing has changed."""
        with self._lock:
            place = self.place or self._chosen()
            file = "" if place is None else str(place.path)
            try:
                swapped = self._replace(self._read(place))
            except ConfigError as error:
                self._report(ConfigRefused(file=file, problems=error.problems))
                raise
            if place is not None:
                self.place = attrs.evolve(place, path=place.path.absolute())
        event = ConfigReloaded(
            file=file, started=swapped.started, kept=swapped.kept, closed=swapped.closed
        )
        self._report(event)
        return event

    def close(self) -> None:
        """Stop watching, and close ledger and cache. Called with the dispatcher's own end."""
        if self._watcher is not None:
            self._watcher.close()
        for kept in (self._ledger, self._cache):
            if kept is not None:
                kept.close()

    def _chosen(self) -> Place | None:
        return places.chosen(self._wish.path, os.environ) if self._wish.reads_file else None

    def _read(self, place: Place | None) -> Settings:
        if place is None:
            return Settings()
        return settings.load(
            place.path,
            os.environ,
            allow_cloud=self._wish.allow_cloud,
            is_strange=place.is_strange,
        )

    def _replace(self, new: Settings) -> swap.Swapped:
        """Put new settings in the place of those that hold. The lock is held."""
        assert self._desk is not None  # noqa: S101 - reload is for a dispatcher that is made
        old = self.settings
        if new.sections.offline != old.sections.offline:
            raise ConfigError([self._at("offline", "cannot change while it runs: start it anew")])
        ledger, cache = self._ledger, self._cache
        if _books(new.sections) != _books(old.sections):
            ledger = _ledger(new.sections)
        if new.sections.cache != old.sections.cache:
            cache = _cache(new.sections)
        specs, held, kept = self._specs(new), (self._ledger, self._cache), (ledger, cache)
        outfit = swap.Outfit(
            specs=specs,
            policies=Policies(**_policies(new.sections, ledger or self._otherwise, cache)),
            catalog=new.sections.catalog,
            budget=Budget(
                max_memory_mb=new.sections.max_memory_mb, max_vram_mb=new.sections.max_vram_mb
            ),
            looks_around=not new.specs,
        )
        left = [each.close for each in held if each is not None and each not in kept]
        try:
            swapped = swap.swap(self._desk, outfit, {each.name for each in self.specs}, left)
        except DispatcherError as error:
            for each in kept:
                if each is not None and each not in held:
                    each.close()
            if isinstance(error, ConfigError):
                raise new.placed(error) from error
            raise
        self.settings, self.specs, (self._ledger, self._cache) = new, specs, kept
        return swapped

    def _specs(self, new: Settings) -> tuple[VendorSpec, ...]:
        """Return whom the file names; where it names nobody, whom anybody has."""
        if new.specs:
            return new.specs
        wish, said = self._wish.allow_cloud, new.sections.allow_cloud
        is_allowed = said if wish is None else wish
        clouds = found.clouds(os.environ) if is_allowed else ()
        return (discovery.find("embedded")(), *(cloud.spec for cloud in clouds))

    def _at(self, key: str, message: str) -> Problem:
        node = self.settings.top.items.get(key)
        file = "" if self.place is None else str(self.place.path)
        if node is None:
            return Problem(message, key, file)
        return Problem(message, key, file, node.line, node.column)


def _close(source: weakref.ref[Source]) -> None:
    if (there := source()) is not None:
        there.close()


def _policies(sections: Sections, ledger: Ledger | None, cache: Cache | None) -> dict[str, Any]:
    return {
        "deadlines": sections.deadlines,
        "retry": sections.retry,
        "breaker": sections.breaker,
        "limits": sections.limits,
        "strategy": sections.strategy,
        "routing": sections.routing,
        "ledger": ledger,
        "cache": cache,
        "offline": sections.offline,
    }


def _books(sections: Sections) -> Mapping[str, Any] | None:
    """Return all that a ledger is made of; None for none."""
    if sections.ledger is None:
        return None
    return {**attrs.asdict(sections.ledger), "caps": sections.budgets}


def _ledger(sections: Sections) -> Ledger | None:
    made = _books(sections)
    return None if made is None else Ledger(**made)


def _cache(sections: Sections) -> Cache | None:
    return None if sections.cache is None else Cache(**attrs.asdict(sections.cache))
