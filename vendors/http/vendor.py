"""``HttpVendor``: how to reach a vendor over HTTP, as a value.

Keys are looked up when the vendor is registered: in ``api_key``, in the variable that
``api_key_env`` names, or, where the address is the vendor's own, in the variable that its own
client reads. A key that is missing makes the vendor unavailable, with the reason in its status. A
key is never sent to a host that it was not given for, nor unencrypted over a public network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from llmdispatcher.models.budget import fingerprint
from llmdispatcher.models.card import FREE, ModelCard
from llmdispatcher.models.check import as_tuple, at_most, flag, instance, mapping, number, title
from llmdispatcher.models.errors import BadRequest, ConfigError, OfflineRefused, Problem
from llmdispatcher.vendors.http.address import shown
from llmdispatcher.vendors.http.secret import Secret, is_sensitive, secret, secrets_of

if TYPE_CHECKING:
    import httpx2

    from llmdispatcher.vendors.contract import Report
    from llmdispatcher.vendors.http.address import Address
    from llmdispatcher.vendors.http.engine import HttpEngine
    from llmdispatcher.vendors.http.preset import Row
    from llmdispatcher.vendors.http.transport import Place
    from llmdispatcher.vendors.wire.exchange import Wire

MAX_MODELS = 1000
"""Named models of one vendor; each is considered for every request."""

MAX_KEEP_S = 30 * 24 * 3600
"""A month; longer is for ever."""


def _models(values: Iterable[str | ModelCard] | str | None) -> tuple[str | ModelCard, ...]:
    if isinstance(values, str | ModelCard):
        return _models((values,))
    given: tuple[Any, ...] = as_tuple("models", values or ())
    for index, value in enumerate(given):
        if not isinstance(value, ModelCard) and (not isinstance(value, str) or not value.strip()):
            raise BadRequest(f"models[{index}]", value, "the name of a model, or a ModelCard")
    return given


def _frozen(values: Any) -> Any:  # noqa: ANN401 - what was given
    if values is None:
        return {}
    return dict(values) if isinstance(values, Mapping) else values


def _named(_: object, __: object, headers: Mapping[Any, Any]) -> None:
    """Check headers, and show no value: it may be a key."""
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER.fullmatch(name):
            raise BadRequest("headers", name, "names of headers: letters, digits and -")
        if name.lower() in _FRAMING:
            raise BadRequest(f"headers[{name!r}]", "there", "left out: it is the transport's own")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            allowed = "printable ASCII text without blanks around it"
            raise BadRequest(f"headers[{name!r}]", "something else", allowed)


def _path(value: Any) -> Any:  # noqa: ANN401 - what was given
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _text(_: object, field: attrs.Attribute[Any], value: object) -> None:
    """Accept text and None, and show nothing else: there may be a password in it."""
    if value is not None and not isinstance(value, str):
        raise BadRequest(field.name, type(value).__name__, "text (str)")


def _header(_: object, __: object, name: Any) -> None:  # noqa: ANN401 - what was given
    """Check the name of a header of our own; empty is none."""
    if name is None or name == "":
        return
    if not isinstance(name, str) or not _HEADER.fullmatch(name) or name.lower() in _FRAMING:
        raise BadRequest("idempotency_header", name, "the name of a header: letters, digits and -")


_switch = instance(bool, "True or False")
"""Accepts None as well, as all of ``instance`` do."""

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_VALUE = re.compile(r"|[!-~]([ -~]{0,16382}[!-~])?")
_FRAMING = frozenset({"connection", "content-length", "expect", "host", "te", "trailer"}) | {
    "transfer-encoding",
    "upgrade",
}
"""What says where a request goes, where it ends, and what becomes of its connection."""


@attrs.frozen(kw_only=True)
class HttpVendor:
    """A vendor that is reached over HTTP. Made by a preset: ``OpenAI(models=["gpt-5.4-mini"])``."""

    preset: str = attrs.field(validator=title)
    """Which of the rows of ``preset`` says how it differs from the others."""
    name: str = attrs.field(validator=title)
    """The vendor's name in replies, statistics and errors."""
    base_url: str | None = attrs.field(
        default=None, validator=_text, repr=lambda given: repr(shown(given))
    )
    """Where it is, if not at the preset's own address."""
    models: tuple[str | ModelCard, ...] = attrs.field(
        converter=_models, default=(), validator=at_most(MAX_MODELS, "models")
    )
    """Those to use. Without any the vendor is asked which it has: all of a server of one's own are
    used then, and those of a cloud only where a request names one."""
    api_key: Secret | None = attrs.field(default=None, converter=secret, repr=False)
    api_key_env: str | None = attrs.field(default=None, validator=_text)
    """Name of the environment variable that holds the key."""
    headers: Mapping[str, str] = attrs.field(
        converter=_frozen, factory=dict, validator=[mapping, _named], repr=False, hash=False
    )
    """Sent with every request, instead of those of the same names that would be."""
    extra: Mapping[str, Any] = attrs.field(
        converter=_frozen, factory=dict, validator=mapping, hash=False
    )
    """Fields of the vendor's own that go into every request for a reply, as they are."""
    streaming: bool | None = attrs.field(default=None, validator=_switch)
    """Whether replies are asked for in pieces. None: where the caller wants pieces. Always: a reply
    that is slow is told from one that hangs, also by ``send``. Never: ``whole_s`` bounds all."""
    keep_alive_s: float | None = number("keep_alive_s", 0, MAX_KEEP_S)
    """How long a local server keeps a model loaded after a request; None is its own default."""
    api_version: str | None = attrs.field(default=None, validator=_text)
    """Of vendors that date their APIs (Azure, Anthropic)."""
    idempotency_header: str | None = attrs.field(default=None, validator=_header)
    """In which a request is named, so that a gateway of yours which reads such a header does it
    once: ``"Idempotency-Key"``. The name is random, and the same for all attempts at one request on
    one model. None: as the preset says, which knows of no vendor that reads one for replies."""
    local: bool | None = attrs.field(default=None, validator=_switch)
    """Its models run on this machine, so that no text leaves it and nothing is charged. None: as
    the preset says, where the address is this machine."""
    proxy: str | None = attrs.field(default=None, validator=_text, repr=False)
    """Address of a proxy to go through, instead of what the environment says; ``""`` is none."""
    ca_file: str | None = attrs.field(default=None, converter=_path, validator=_text)
    """File of the certificates (PEM) to trust, instead of the system's."""
    client: httpx2.Client | None = attrs.field(default=None, eq=False)
    """The caller's own client for threads. Its operations are bounded one by one, not together."""
    async_client: httpx2.AsyncClient | None = attrs.field(default=None, eq=False)
    """The caller's own client for event loops, to be used in one of them."""
    loopback_only: bool = flag(default=False)
    """No connection is made but to this machine, and no name looked up. A vendor that is elsewhere,
    goes through a proxy or has a client of the caller's own then has no models, and says why."""

    def confined(self) -> HttpVendor:
        """See ``contract.Confinable``."""
        return attrs.evolve(self, loopback_only=True)

    def start(self, report: Report) -> HttpEngine:  # noqa: ARG002 - there is nothing to report
        """Make the engine. Opens no connection. Raises ConfigError for what can never work."""
        try:
            return self._start()
        except BadRequest as error:
            problem = Problem(str(error), f"vendor {self.name!r}: {error.field}")
            raise ConfigError([problem]) from error

    def _start(self) -> HttpEngine:
        from llmdispatcher.vendors.http import preset  # noqa: PLC0415 - on first use
        from llmdispatcher.vendors.http.address import address  # noqa: PLC0415
        from llmdispatcher.vendors.http.engine import HttpEngine, Outfit  # noqa: PLC0415

        row = preset.row(self.preset)
        if not self._address(row):
            raise BadRequest("base_url", self.base_url, "the address of the server")
        place = address(self._address(row), row.api_path)  # in no variable: it may hold a password
        if self.loopback_only and (away := self._leads_away(place)):
            return self._shut(row, place, away)
        key = self._key(row, place)
        has_key = key is not None or self.client is not None or self.async_client is not None
        has_key = has_key or any(is_sensitive(name) for name in self.headers)
        local = row.local and place.is_loopback if self.local is None else self.local
        host = place.host
        wire = preset.wire(self, row, host, local=local, streaming=self.streaming is not False)
        whole = preset.wire(self, row, host, local=local, streaming=self._streams(row))
        return HttpEngine(
            Outfit(
                wire=wire,
                whole=whole,
                place=self._place(row, place, key),
                cards=self._cards(wire, local=local),
                named_only=row.needs_key and not place.is_inner,
                loads=row.local,
                problem=self._missing(row, place) if row.needs_key and not has_key else "",
                key_fingerprint=self._fingerprint(row, key),
                once_header=self._once_header(row),
                identity=self._identity(place),
            )
        )

    def _leads_away(self, place: Address) -> str:
        """Return why connections might not end on this machine; empty if they do."""
        if not place.is_loopback:
            return f"offline, and {place.host} is not this machine"
        if self.proxy:
            return "offline, and a proxy may lead anywhere: leave out proxy=…"
        if self.client is not None or self.async_client is not None:
            return "offline, and a client of your own may connect anywhere: leave it out"
        return ""

    def _shut(self, row: Row, place: Address, away: str) -> HttpEngine:
        """Make an engine that has no models and asks nobody, and says why."""
        from llmdispatcher.vendors.http import preset  # noqa: PLC0415 - on first use
        from llmdispatcher.vendors.http.clients import Place  # noqa: PLC0415
        from llmdispatcher.vendors.http.engine import HttpEngine, Outfit  # noqa: PLC0415

        wire = preset.wire(self, row, place.host, local=False, streaming=True)
        where = Place(root=place.root, base=place.base, loopback_only=True)
        return HttpEngine(
            Outfit(wire=wire, whole=wire, place=where, problem=away, problem_kind=OfflineRefused)
        )

    def _address(self, row: Row) -> str | None:
        return self.base_url or _from_environment(row) or row.base_url

    def _streams(self, row: Row) -> bool:
        """Whether to ask for pieces also where only the whole is wanted."""
        return row.streams_always if self.streaming is None else self.streaming

    def _key(self, row: Row, place: Address) -> Secret | None:
        from llmdispatcher.vendors.http import environment  # noqa: PLC0415 - on first use

        key = self.api_key
        if key is None and self.api_key_env is not None:
            key = environment.key((self.api_key_env,))
        elif key is None and _is_own(row, place):
            key = environment.key(row.key_env)
        has_key = key is not None or any(is_sensitive(name) for name in self.headers)
        if has_key and not (place.is_encrypted or place.is_inner):
            allowed = "https:// for a host that is not of this network: the key could be read"
            raise BadRequest("base_url", place.root, allowed)
        return key

    def _fingerprint(self, row: Row, key: Secret | None) -> str:
        """Return the fingerprint of the key that is sent, be it in a header of the user's."""
        headers = self._headers(row, key).items()
        sent = next((value for name, value in headers if name.lower() == row.key_header), "")
        scheme, _, rest = sent.partition(" ")
        if rest and scheme.lower() == row.key_prefix.strip().lower():
            sent = rest.strip()
        return fingerprint(sent) if sent else ""

    def _identity(self, place: Address) -> str:
        """Return what stands behind its models: where they are, and what is sent with everything.

        Headers may choose among models of a gateway, and may hold keys.
        """
        told = fingerprint(repr(sorted(self.headers.items()))) if self.headers else ""
        return repr((self.preset, place.base, self.api_version, dict(self.extra), told))

    def _once_header(self, row: Row) -> str:
        given = self.idempotency_header
        return row.idempotency_header if given is None else given

    def _missing(self, row: Row, place: Address) -> str:
        wanted = self.api_key_env or " or ".join(row.key_env)
        if self.api_key_env is None and not _is_own(row, place):
            return (
                f"no key: {wanted} is for {self.preset}'s own address, and not sent to"
                f" {place.host}; give api_key_env=… or api_key=…"
            )
        return (
            f"no key: the environment variable {wanted} is not set; set it, or give api_key_env=…"
            " or api_key=…"
        )

    def _place(self, row: Row, place: Address, key: Secret | None) -> Place:
        from llmdispatcher.vendors.http.clients import KEPT_S, Place, check  # noqa: PLC0415

        made = Place(
            root=place.root,
            base=place.base,
            headers=self._headers(row, key),
            secrets=secrets_of(self._headers(row, key), self._proxy(place)),
            proxy=self._proxy(place),
            ca_file=self.ca_file,
            kept_s=KEPT_S if place.is_inner else KEPT_CLOUD_S,
            client=self.client,
            async_client=self.async_client,
            loopback_only=self.loopback_only,
        )
        check(made)
        return made

    def _proxy(self, place: Address) -> str | None:
        from llmdispatcher.vendors.http import environment  # noqa: PLC0415 - on first use

        return environment.proxy(place) if self.proxy is None else self.proxy or None

    def _headers(self, row: Row, key: Secret | None) -> dict[str, str]:
        """Return those of every request; what the user gives goes before the key."""
        headers = dict(self.headers)
        if key is not None and row.key_header not in {name.lower() for name in headers}:
            headers[row.key_header] = row.key_prefix + key.reveal()
        return headers

    def _cards(self, wire: Wire, *, local: bool) -> tuple[ModelCard, ...]:
        made = [
            wire.card(model) if isinstance(model, str) else attrs.evolve(model, vendor=self.name)
            for model in self.models
        ]
        return tuple(attrs.evolve(card, price=FREE) if local else card for card in made)


KEPT_CLOUD_S = 30.0
"""So long an idle connection to a cloud is kept: their front ends keep theirs for a minute."""


def _from_environment(row: Row) -> str | None:
    """Return the address that users of Ollama set for its own programs."""
    if row.name != "ollama":
        return None
    from llmdispatcher.vendors.http import environment, landmarks  # noqa: PLC0415 - on first use

    given = environment.ollama_host()
    return landmarks.ollama_base(given) if given else None


def _is_own(row: Row, place: Address) -> bool:
    """Whether the key that a preset's own client would read may go there.

    Ollama's is its cloud's, and no business of a server on this network; those of other local
    servers are their own.
    """
    from llmdispatcher.vendors.http.address import is_under  # noqa: PLC0415 - on first use

    if row.key_domains:
        return is_under(place.host, row.key_domains)
    return row.local and place.is_inner
