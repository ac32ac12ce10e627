"""From what a program names to the vendor that it stands for."""

from __future__ import annotations

from llmdispatcher.models.errors import ConfigError, Problem
from llmdispatcher.vendors.contract import VendorSpec


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
