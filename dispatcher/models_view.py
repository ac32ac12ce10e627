"""``llmdispatcher models``: the models of a vendor, or of the servers of this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence

from llmdispatcher.desk import Vendor
from llmdispatcher.facade import Dispatcher
from llmdispatcher.models.card import ModelCard
from llmdispatcher.vendors.contract import Finder, VendorSpec
from llmdispatcher.vendors.http import scout

LIST_S = 15.0
"""For a vendor to tell its models."""


def found() -> tuple[list[VendorSpec], list[str]]:
    """Return the servers of this machine as vendors, and lines about those that cannot be one."""
    from llmdispatcher.vendors.http.preset import Preset  # noqa: PLC0415 - few need it

    specs: list[VendorSpec] = []
    notes: list[str] = []
    for each in scout.Scout().look():
        name = each.landmark.preset
        notes.append(f"{each.landmark.title} at {each.base_url} (--vendor {name})")
        taken = {spec.name for spec in specs}
        unique = f"{name}-{each.port}" if name in taken else name
        specs.append(Preset(name)(name=unique, base_url=each.base_url))
    return specs, notes


def listed(specs: Sequence[VendorSpec]) -> tuple[Vendor, ...]:
    """Ask vendors for their models, and wait."""
    looking = []
    with Dispatcher("scripted") as d:
        for spec in specs:
            engine = d.register_vendor(spec)
            if isinstance(engine, Finder):
                looking.append(engine.found())
        for each in looking:
            each.result(LIST_S)
        return tuple(vendor for vendor in d.vendors() if vendor.name != "scripted")


def as_json(vendors: Sequence[Vendor]) -> str:
    """Write what was found as JSON."""
    rows = [
        {
            "vendor": card.vendor,
            "model": card.model,
            "local": card.local,
            "context_tokens": card.context_tokens,
            "capabilities": sorted(card.capabilities),
        }
        for vendor in vendors
        for card in vendor.cards
    ]
    return json.dumps(rows, indent=1) + "\n"


def text(vendors: Sequence[Vendor]) -> str:
    """Write what was found for people, a model a line."""
    lines: list[str] = []
    for vendor in vendors:
        why = vendor.status.detail or "it has no models"
        lines += [_line(card) for card in vendor.cards] or [f"{vendor.name}: {why}"]
    return "\n".join(lines) + "\n" if lines else ""


def _line(card: ModelCard) -> str:
    size = f"{card.context_tokens:,} tokens" if card.context_tokens else "context not told"
    return f"{card.vendor}/{card.model}  {size}  {' '.join(sorted(card.capabilities))}"
