"""Where a vendor is, and whether a key may go there. Pure."""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import SplitResult, urlsplit

import attrs

from llmdispatcher.models.errors import BadRequest
from llmdispatcher.vendors.wire.redaction import cleaned

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

    Raises BadRequest, which says what is wrong, and shows no name and password.
    """
    given = text.strip().rstrip("/") if isinstance(text, str) else ""
    parts = _parts(given)
    if parts is None or (host := _host(parts)) is None:
        text = given = shown(text)  # a traceback would show it
        raise BadRequest("base_url", text, "an address such as https://host/v1")
    if not parts.scheme:  # localhost:1234 means one thing; elsewhere it must be said
        if not is_loopback(host):
            allowed = "an address that begins with https:// or http://"
            raise BadRequest("base_url", shown(text), allowed)
        parts = parts._replace(scheme="http")
    if parts.username is not None or parts.query or parts.fragment or given[-1:] in {"?", "#"}:
        allowed = "an address alone: keys go into api_key_env=… or api_key=…, and nothing behind ?"
        text = given = f"{parts.scheme}://{host}/…"  # a traceback would show it
        parts = None
        raise BadRequest("base_url", text, allowed)
    named = f"[{host}]" if ":" in host else host
    root = f"{parts.scheme}://{named}" + ("" if parts.port is None else f":{parts.port}")
    return Address(root=root, path=_path(parts.path, api_path), host=host)


def shown(text: Any) -> Any:  # noqa: ANN401 - what was given
    """Return what was given as an address, as an error may show it: without anything secret.

    Also what is no address, where people put a key, or a name and a password, by mistake.
    """
    if not isinstance(text, str):
        return text
    scheme, colon, _ = text.partition("://")
    _, at, host = text.rpartition("@")
    begun = f"{scheme}://" if colon and "@" not in scheme else ""
    return cleaned(_BEHIND.sub("?…", f"{begun}…@{host}" if at else text))


def _parts(given: str) -> SplitResult | None:
    """Take an address apart; None for what is none. Without a scheme that of the parts is empty."""
    if not given.isascii() or not given.isprintable() or " " in given or "\\" in given:
        return None
    try:
        parts = urlsplit(given if "://" in given else f"//{given}")
        is_sound = parts.scheme in {"", "http", "https"} and parts.port != 0
    except ValueError:
        return None
    return parts if is_sound else None


def _host(parts: SplitResult) -> str | None:
    """Return the host of an address; None for what cannot be one.

    Numbers that only some read as an address (``127.1``, ``0x7f000001``) are none: what is judged
    here must be what is connected to.
    """
    host = (parts.hostname or "").rstrip(".")
    if "%" not in host and _number(host) is not None:
        return host
    last = host.rpartition(".")[2]
    is_name = _NAME.fullmatch(host) and not last.isdigit() and not last.startswith("0x")
    return host if is_name else None


_NAME = re.compile(
    r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*"
)
_BEHIND = re.compile(r"[?#].*", re.DOTALL)


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
    """Return an address; of one of IPv4 in the clothes of IPv6 the one that is connected to."""
    try:
        number = ipaddress.ip_address(name)
    except ValueError:
        return None
    mapped = getattr(number, "ipv4_mapped", None)
    return number if mapped is None else mapped


def is_under(host: str, domains: tuple[str, ...]) -> bool:
    """Whether a host is one of the domains, or below one."""
    name = host.lower()
    return any(domain and (name == domain or name.endswith(f".{domain}")) for domain in domains)
