"""Which addresses are this machine's own, for connections that may lead nowhere else. Pure."""

from __future__ import annotations

import ipaddress

from llmdispatcher.models.errors import OfflineRefused
from llmdispatcher.vendors.http.address import is_loopback

_NAMED = ("127.0.0.1", "::1")
"""What localhost and the names below it are (RFC 6761, section 6.3), whatever a resolver says."""


def addresses_here(host: str) -> tuple[str, ...]:
    """Return the addresses to connect to, of a host that is this machine.

    Nothing is looked up: to ask for a name is to use the network, and what it stands for may be
    anywhere. Raises OfflineRefused, which names the host.
    """
    name = host.strip("[]").lower()
    if not is_loopback(name):
        raise OfflineRefused(
            f"{host} is not this machine, and only this machine may be connected to: leave out"
            " offline=True and loopback_only=True for what is elsewhere"
        )
    try:
        number = ipaddress.ip_address(name)
    except ValueError:
        return _NAMED
    if number.is_unspecified:  # listens everywhere, and is no address to connect to
        return (_NAMED[number.version == 6],)  # noqa: PLR2004 - the version of IP
    return (name,)
