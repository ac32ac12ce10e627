"""Vendors as a program names them, and as they are once they are started."""

from __future__ import annotations

import attrs

from llmdispatcher.models.errors import ConfigError, Problem
from llmdispatcher.vendors.contract import Engine, VendorSpec


@attrs.frozen
class Registered:
    """A vendor that was started."""

    spec: VendorSpec
    engine: Engine


def spec_of(vendor: object) -> VendorSpec:
    """Find the vendor that a name stands for. Raises ConfigError."""
    if isinstance(vendor, str):
        from llmdispatcher.vendors import discovery  # noqa: PLC0415 - importlib.metadata is slow

        try:
            vendor = discovery.find(vendor)()
        except TypeError as error:
            message = f"cannot be made without arguments: {error}"
            raise ConfigError([Problem(message, f"vendor {vendor!r}")]) from error
    if isinstance(vendor, VendorSpec):
        return vendor
    message = f"must be a vendor such as LlamaCpp(…) or a vendor's name, not {vendor!r}"
    raise ConfigError([Problem(message, "vendors")])
