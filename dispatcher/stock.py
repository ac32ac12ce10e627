"""The models that could be used: those on this machine, and those of clouds that have a key.

Nothing is sent to a cloud unless that is asked for: what is known of their models by name is in the
catalogue. Local servers are asked for their lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from llmdispatcher.models.card import FREE, Capability, ModelCard
from llmdispatcher.models.errors import ConfigError, DispatcherError, ExecutableNotFound
from llmdispatcher.vendors.contract import Finder, VendorSpec
from llmdispatcher.vendors.http.preset import Preset, row
from llmdispatcher.vendors.http.vendor import HttpVendor

if TYPE_CHECKING:
    from llmdispatcher.desk import Vendor
    from llmdispatcher.vendors.llamacpp.plan.fits import Fit
    from llmdispatcher.vendors.llamacpp.stores.look import FoundModel, Weigh
    from llmdispatcher.vendors.llamacpp.vendor import LlamaCpp

LIST_S = 15.0
"""For a vendor that was named to tell its models."""

LOCAL_LIST_S = 2.0
"""The same for servers on this machine that were only found."""

EMBEDDED, FILES = "embedded", "llamacpp"
"""The vendors of what runs here without a server."""


_NOBODY = "(nobody)"
"""A dispatcher with no vendor at all would look for some itself."""


@attrs.frozen(kw_only=True)
class Item:
    """A model that could be used."""

    card: ModelCard
    architecture: str = ""
    quantisation: str = ""
    store: str = ""
    """Whose folder it lies in."""
    path: str = ""
    projector: str = ""
    fit: Fit | None = None
    """Whether it fits on this machine, of one that would run in a process of ours."""
    problem: str = ""
    """Why it cannot be used."""


@attrs.frozen(kw_only=True)
class Wish:
    """Which models to list."""

    vendor: str | None = None
    capable: frozenset[Capability] = frozenset()
    max_size_bytes: int | None = None
    free: bool = False
    fits: bool = False
    all: bool = False
    """Models of clouds without a key, too."""
    refresh: bool = False
    """Clouds that have a key are asked for their lists."""
    folders: Sequence[Path] = ()
    """Where to look for files besides."""

    def is_met(self, item: Item) -> bool:
        """Whether an item is wanted. What cannot be used meets no wish but that for a vendor."""
        card, most = item.card, self.max_size_bytes
        if self.vendor is not None and card.vendor != self.vendor:
            return False
        fits = (
            self.capable <= card.capabilities,
            most is None or (card.size_bytes is not None and card.size_bytes <= most),
            not self.free or (card.price is not None and card.price.is_free),
            not self.fits or (item.fit is not None and item.fit.fits),
        )
        is_choosy = self.capable or most is not None or self.free or self.fits
        return all(fits) and not (is_choosy and item.problem)


@attrs.frozen
class Stock:
    """What could be used, and lines about what could not be looked at."""

    items: tuple[Item, ...] = ()
    notes: tuple[str, ...] = ()


def gather(wish: Wish) -> Stock:
    """Look everywhere, and return the models that are wanted: those on this machine first."""
    items: list[Item] = []
    notes: list[str] = []
    for look in (_ours, _servers, _clouds):
        found = look(wish)
        items += found.items
        notes += found.notes
    return Stock(tuple(item for item in items if wish.is_met(item)), tuple(notes))


def asked(specs: Sequence[VendorSpec], wish: Wish | None = None) -> Stock:
    """Ask vendors for their models, and wait; why one told none is in the notes."""
    vendors = listed(specs, LIST_S)
    notes = [f"{each.name}: {each.status.detail}" for each in vendors if not each.cards]
    named = {spec.name: spec for spec in specs}
    items = (_given(named[vendor.name], card) for vendor in vendors for card in vendor.cards)
    wish = wish or Wish()
    return Stock(tuple(item for item in items if wish.is_met(item)), tuple(notes))


def _given(spec: VendorSpec, card: ModelCard) -> Item:
    """Return a model of a vendor that was given; of a file with whether it fits its limits."""
    if isinstance(spec, HttpVendor):
        return Item(card=card)
    from llmdispatcher.vendors.llamacpp.plan.fits import of_plan  # noqa: PLC0415 - on first use
    from llmdispatcher.vendors.llamacpp.vendor import LlamaCpp  # noqa: PLC0415 - as above

    if not isinstance(spec, LlamaCpp):
        return Item(card=card)
    can_weigh = _weigher()[0] is not None
    return _of_file(spec, card, (lambda header: of_plan(spec.plan, header)) if can_weigh else None)


def listed(specs: Sequence[VendorSpec], limit_s: float) -> tuple[Vendor, ...]:
    """Register vendors with a dispatcher, and wait until their models are known."""
    from concurrent.futures import wait  # noqa: PLC0415 - few commands ask anybody

    from llmdispatcher.facade import Dispatcher  # noqa: PLC0415 - as above
    from llmdispatcher.vendors.scripted import Scripted  # noqa: PLC0415 - as above

    with Dispatcher(Scripted(name=_NOBODY)) as d:
        engines = [d.register_vendor(spec) for spec in specs]
        looking = [engine.found() for engine in engines if isinstance(engine, Finder)]
        wait(looking, limit_s)
        return tuple(vendor for vendor in d.vendors() if vendor.name != _NOBODY)


# -- what runs in a process of ours ------------------------------------------------------------


def _ours(wish: Wish) -> Stock:
    """Return the embedded model, and the files that lie in the folders of this machine."""
    if wish.vendor not in (None, EMBEDDED, FILES):
        return Stock()
    from llmdispatcher.named import here  # noqa: PLC0415 - on first use
    from llmdispatcher.vendors.llamacpp.stores.look import look  # noqa: PLC0415
    from llmdispatcher.vendors.llamacpp.vendor import card_of, embedded  # noqa: PLC0415

    weigh, notes = _weigher()
    found = look(here(wish.folders), weigh)
    ours = _of_file(embedded(), card_of(embedded()), weigh)
    files = (_item(model) for model in found.models)
    return Stock((ours, *files), (*notes, *found.notes))


def _weigher() -> tuple[Weigh | None, list[str]]:
    """Return what says whether a file fits, or a line about why nothing can."""
    from llmdispatcher.vendors.llamacpp.plan.fits import weigher  # noqa: PLC0415 - on first use

    try:
        return weigher(), []
    except ExecutableNotFound as error:
        return None, [f"whether a file fits is not known: {error}"]


def _of_file(spec: LlamaCpp, card: ModelCard, weigh: Weigh | None) -> Item:
    """Return the model of a file that is known by its path."""
    from llmdispatcher.vendors.llamacpp.files.gguf import read_header  # noqa: PLC0415

    bare = Item(card=card, path=str(spec.model_path), projector=str(spec.projector_path or ""))
    try:
        header = read_header(spec.model_path)
    except DispatcherError as error:
        return attrs.evolve(bare, problem=str(error))
    return attrs.evolve(
        bare,
        architecture=header.architecture,
        quantisation=header.quantisation,
        fit=None if weigh is None else weigh(header),
    )


def _item(model: FoundModel) -> Item:
    from llmdispatcher.named import printable  # noqa: PLC0415 - on first use

    card = ModelCard(
        vendor=FILES,
        model=printable(model.name),
        local=True,
        capabilities=model.capabilities,
        price=FREE,
        context_tokens=model.context_tokens,
        parameters=model.parameters,
        size_bytes=model.size_bytes,
    )
    return Item(
        card=card,
        architecture=model.architecture,
        quantisation=model.quantisation,
        store=model.store,
        path=str(model.path),
        projector="" if model.projector is None else str(model.projector),
        fit=model.fit,
        problem=model.problem,
    )


# -- servers on this machine -------------------------------------------------------------------


def servers() -> tuple[VendorSpec, ...]:
    """Return the servers of this machine as vendors."""
    from llmdispatcher.vendors.http import scout  # noqa: PLC0415 - on first use

    specs: list[VendorSpec] = []
    for each in scout.Scout().look():
        name = each.landmark.preset
        taken = {spec.name for spec in specs}
        unique = f"{name}-{each.port}" if name in taken else name
        specs.append(Preset(name)(name=unique, base_url=each.base_url))
    return tuple(specs)


def _servers(wish: Wish) -> Stock:
    if wish.vendor in (EMBEDDED, FILES):
        return Stock()
    vendors = listed(specs, LOCAL_LIST_S) if (specs := servers()) else ()
    notes = [
        f"{each.name} told no models: {each.status.detail or 'it has none'}"
        for each in vendors
        if not each.cards
    ]
    items = (Item(card=card) for vendor in vendors for card in vendor.cards)
    return Stock(tuple(items), tuple(notes))


# -- clouds ------------------------------------------------------------------------------------

CLOUDS = (
    "openai",
    "anthropic",
    "gemini",
    "deepseek",
    "mistral",
    "groq",
    "together",
    "openrouter",
    "lightning",
    "azure",
)
"""Vendors elsewhere, each with a key that the environment may hold."""

UNPLACED = ("azure",)
"""Of these the address is the user's own: without it nobody can be asked."""


def has_key(vendor: str) -> bool:
    """Whether the environment holds a key for a cloud. Raises ConfigError for what can be none."""
    from llmdispatcher.models.errors import BadRequest, Problem  # noqa: PLC0415 - a mistake
    from llmdispatcher.vendors.http import environment  # noqa: PLC0415 - on first use

    try:
        return environment.key(row(vendor).key_env) is not None
    except BadRequest as error:
        raise ConfigError([Problem(str(error), f"vendor {vendor!r}")]) from None


def _clouds(wish: Wish) -> Stock:
    """Return what is known of the clouds that have a key, or what they tell."""
    items: list[Item] = []
    notes: list[str] = []
    asking: list[VendorSpec] = []
    for vendor in CLOUDS if wish.vendor is None else {wish.vendor} & {*CLOUDS}:
        try:
            keyed = has_key(vendor)
        except ConfigError as error:
            notes.append(str(error))
            continue
        if keyed and wish.refresh and vendor not in UNPLACED:
            asking.append(Preset(vendor)())
        elif keyed or wish.all or wish.vendor is not None:
            items += (Item(card=card) for card in _known(vendor))
        if wish.vendor is not None and not keyed:
            notes.append(
                f"{vendor} cannot be asked: no key; set {' or '.join(row(vendor).key_env)}"
            )
    for answer in listed(asking, LIST_S) if asking else ():
        items += (Item(card=card) for card in answer.cards or _known(answer.name))
        if not answer.cards:
            notes.append(f"{answer.name} told no models: {answer.status.detail}")
    return Stock(tuple(items), tuple(notes))


def _known(vendor: str) -> Iterator[ModelCard]:
    """Yield what is known of a cloud's models without asking it."""
    from llmdispatcher.models import registry  # noqa: PLC0415 - reads a file, once

    names = registry.names(vendor)
    if not names:
        return
    try:
        engine = Preset(vendor)(models=names).start(lambda _: None)
    except DispatcherError:
        return
    try:
        yield from engine.cards()
    finally:
        engine.close()
