"""What ``Dispatcher(offline=True)`` lets in: vendors that keep to this machine, and their models.

Owns who may be registered and which models are barred. That a connection leads nowhere else is seen
to where it is made: ``vendors.http.sockets``.
"""

from __future__ import annotations

from llmdispatcher.models.card import ModelCard
from llmdispatcher.models.errors import ConfigError, Problem
from llmdispatcher.vendors.contract import Confinable, VendorSpec


def confined(spec: VendorSpec) -> VendorSpec:
    """Return the spec that stays on this machine. Raises ConfigError for one that cannot say so."""
    if isinstance(spec, Confinable):
        return spec.confined()
    message = (
        "the dispatcher is offline, and this vendor does not say that it stays on this machine:"
        " leave it out, or give it confined(), see vendors.contract.Confinable"
    )
    raise ConfigError([Problem(message, f"vendor {spec.name!r}")])


def barred(card: ModelCard) -> str:
    """Return why a model may not be asked; empty if it may.

    A server of this machine may pass on to a cloud what it is told: its model is not local then.
    """
    return "" if card.local else "offline, and its server passes on what it is told"
