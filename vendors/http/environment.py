"""What HTTP vendors take from the environment: keys by name, and proxies. Nothing else is read."""

from __future__ import annotations

import ipaddress
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
        if os.environ.get(name, "").strip():
            try:
                return Secret(os.environ[name])
            except BadRequest as error:
                raise BadRequest(f"the environment's {name}", error.value, error.allowed) from None
    return None


def ollama_host() -> str:
    """Return what OLLAMA_HOST says, by which Ollama's own programs find its server."""
    return os.environ.get("OLLAMA_HOST", "").strip()


def proxy(place: Address) -> str | None:
    """Return the proxy that the system wants used for an address (HTTPS_PROXY, NO_PROXY…).

    Never one for this machine: a proxy elsewhere cannot reach what listens here.
    """
    if place.is_loopback or _is_spared(place):
        return None
    found = urllib.request.getproxies()
    scheme, _, named = place.root.partition("://")
    if urllib.request.proxy_bypass(named) or urllib.request.proxy_bypass(place.host):
        return None
    given = found.get(scheme) or found.get("all")
    return f"http://{given}" if given and "://" not in given else given


def _is_spared(place: Address) -> bool:
    """Whether NO_PROXY names a network that the address is in, which the standard library skips."""
    try:
        number = ipaddress.ip_address(place.host)
    except ValueError:
        return False
    for name in urllib.request.getproxies().get("no", "").split(","):
        try:
            if "/" in name and number in ipaddress.ip_network(name.strip(), strict=False):
                return True
        except ValueError:
            continue
    return False
