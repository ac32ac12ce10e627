"""What HTTP vendors take from the environment: keys by name, and proxies. Nothing else is read."""

from __future__ import annotations

import os
import urllib.request

from llmdispatcher.models.errors import BadRequest
from llmdispatcher.vendors.http.address import Address
from llmdispatcher.vendors.http.secret import Secret


def key(names: tuple[str, ...]) -> Secret | None:
    """Return the first of the variables that is set; None if none is.

    Raises BadRequest, with the variable's name, for one that holds what cannot be a key.
    """
    for name in names:
        if text := os.environ.get(name, "").strip():
            try:
                return Secret(text)
            except BadRequest as error:
                raise BadRequest(f"the environment's {name}", error.value, error.allowed) from None
    return None


def proxy(place: Address) -> str | None:
    """Return the proxy that the system wants used for an address (HTTPS_PROXY, NO_PROXY…).

    Never one for this machine: a proxy elsewhere cannot reach what listens here.
    """
    if place.is_loopback or urllib.request.proxy_bypass(place.host):
        return None
    found = urllib.request.getproxies()
    scheme = place.root.partition(":")[0]
    given = found.get(scheme) or found.get("all")
    return f"http://{given}" if given and "://" not in given else given
