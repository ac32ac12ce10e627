"""Where a vendor is, and whether a key may go there. Pure."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

import attrs

from llmdispatcher.models.errors import BadRequest

_ENDPOINTS = (
    "/chat/completions",
    "/completions",
    "/embeddings",
    "/responses",
    "/messages",
    "/models",
    "/api/chat",
    "/api/generate",
    "/api/tags",
)
"""What people copy along with an address."""

_INNER = (".local", ".internal", ".lan", ".home.arpa", ".localhost")
"""Ends of names that no public server has: RFC 6762, RFC 8375, ICANN's resolution 2024.07.29.06."""


@attrs.frozen(kw_only=True)
class Address:
    """The base of a vendor's addresses."""

    root: str
    """Scheme, host and port: ``"http://127.0.0.1:1234"``."""
    path: str
    """What every address goes on with, without a slash behind: ``"/v1"``, or nothing."""
    host: str

    @property
    def base(self) -> str:
        """Root and path."""
        return self.root + self.path

    @property
    def is_loopback(self) -> bool:
        """It is this machine."""
        return is_loopback(self.host)

    @property
    def is_inner(self) -> bool:
        """It is this machine, or one of the same network that the public does not reach."""
        return is_inner(self.host)

    @property
    def is_encrypted(self) -> bool:
        """Nobody on the way reads along."""
        return self.root.startswith("https:")


def address(text: Any, api_path: str = "") -> Address:  # noqa: ANN401 - what was given
    """Read a ``base_url``; ``api_path`` is put behind one that has no path of its own.

    Raises BadRequest, which says what is wrong.
    """
    given = text.strip().rstrip("/") if isinstance(text, str) else ""
    if "://" not in given:
        given = _with_scheme(text, given)
    try:
        parts = urlsplit(given)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        host, port = "", None
    if not host or parts.scheme not in {"http", "https"} or not given.isascii() or " " in given:
        raise BadRequest("base_url", text, "an address such as https://host/v1")
    if parts.username is not None or parts.query or parts.fragment:
        allowed = "an address alone: keys go into api_key_env=… or api_key=…, and nothing behind ?"
        raise BadRequest("base_url", f"{parts.scheme}://{host}/…", allowed)
    named = f"[{host}]" if ":" in host else host
    root = f"{parts.scheme}://{named}" + ("" if port is None else f":{port}")
    return Address(root=root, path=_path(parts.path, api_path), host=host)


def _with_scheme(text: object, given: str) -> str:
    """Take ``localhost:1234`` for what it means; elsewhere it must be said whether to encrypt."""
    host = urlsplit(f"//{given}").hostname if given else None
    if not host or not is_loopback(host):
        raise BadRequest("base_url", text, "an address that begins with https:// or http://")
    return f"http://{given}"


def _path(path: str, api_path: str) -> str:
    for endpoint in _ENDPOINTS:
        path = path.removesuffix(endpoint)
    return path.rstrip("/") or api_path


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    name = host.lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    number = _number(name)
    return number is not None and (number.is_loopback or number.is_unspecified)


def is_inner(host: str) -> bool:
    """Whether a host is of a network that the public does not reach."""
    name = host.lower()
    number = _number(name)
    if number is not None:
        return number.is_private or number.is_link_local or is_loopback(name)
    return "." not in name or name.endswith(_INNER)


def _number(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return None


def is_under(host: str, domains: tuple[str, ...]) -> bool:
    """Whether a host is one of the domains, or below one."""
    name = host.lower()
    return any(name == domain or name.endswith(f".{domain}") for domain in domains)
