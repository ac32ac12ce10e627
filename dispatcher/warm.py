"""Loading and unloading by name: the flows of ``Dispatcher.load`` and ``Dispatcher.unload``."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from llmdispatcher.landlord import Landlord, Lease
from llmdispatcher.models.errors import BadRequest, TimedOut, Unsupported, VendorError
from llmdispatcher.needs import is_named
from llmdispatcher.release import Watch
from llmdispatcher.shelf import Target
from llmdispatcher.steps import Emit, Step, Wait


def choose(targets: Sequence[Target], model: str, vendor: str | None) -> Target:
    """Find the one model of this name. Raises BadRequest where there is none, or several."""
    named = [t for t in targets if is_named(model, t.card)]
    if not named:
        known = sorted({t.card.model for t in targets})
        raise BadRequest("model", model, f"one of those registered: {', '.join(known)}")
    chosen = [t for t in named if vendor in {None, t.card.vendor}]
    if len(chosen) != 1:
        names = sorted(t.card.vendor for t in named)
        raise BadRequest("vendor", vendor, f"one that has {model}: {', '.join(names)}")
    return chosen[0]


def load(landlord: Landlord, target: Target, load_s: float | None) -> Generator[Step, Any, None]:
    """Wait until a model is loaded, and emit None. Raises as ``arrive``."""
    lease = landlord.lease(target.card, target.engine)
    try:
        yield from arrive(lease, target, load_s)
    finally:
        lease.end()
    yield Emit(None)


def arrive(lease: Lease, target: Target, load_s: float | None) -> Generator[Step, Any, None]:
    """Wait until the model of a lease is loaded. Raises what loading it raises, and TimedOut."""
    try:
        for ask in (lease.claim, lease.confirm):
            watch = Watch(ask())
            try:
                yield Wait(watch.future, load_s)
            finally:
                watch.leave()
    except TimeoutError:
        raise TimedOut("load", load_s or 0.0).at(target.card.vendor, target.card.model) from None
    except VendorError as error:
        error.at(target.card.vendor, target.card.model)
        raise


def unload(landlord: Landlord, target: Target) -> Generator[Step, Any, None]:
    """Wait until a model's memory is given back, and emit None. Raises Unsupported."""
    gone = landlord.unload(target.card, target.engine)
    if gone is None:
        message = f"{target.card.name} holds no memory here that could be given back"
        raise Unsupported("unload", message, vendor=target.card.vendor, model=target.card.model)
    yield Wait(gone, None)
    yield Emit(None)
