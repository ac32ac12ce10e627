"""By what servers on this machine are known, and where they usually listen. Pure.

``ASKS`` is what to ask, all at once; ``whose`` tells from the answers of one port who listens
there. Several kinds share a port, so each is known by something that no other kind answers; what is
known by less is left to who names it. Addresses that are written down (``OLLAMA_HOST``) are read
here too, and nothing is opened.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

import attrs

from llmdispatcher.models.errors import BadReply, BadRequest
from llmdispatcher.vendors.wire.exchange import Head
from llmdispatcher.vendors.wire.reading import fields, items, parsed

MAX_ANSWER_BYTES = 2**20
"""Read no more of an answer: a list of a thousand models is a third of that."""

MAX_ADDRESS_CHARS = 2048
"""Of an address in a variable; names of hosts have 253 at most."""

OLLAMA_PORT = 11434

Recognise = Callable[[str, Head, bytes], bool]
"""Whether a kind of server gave this answer to a GET of this path."""


@attrs.frozen(kw_only=True)
class Landmark:
    """One kind of local server."""

    preset: str
    """Which preset speaks with it."""
    title: str
    """What people call it."""
    ports: tuple[int, ...]
    """Where it listens unless told otherwise."""
    paths: tuple[str, ...]
    """What to ask there, from the server's own root; each answer may be enough."""
    recognise: Recognise
    stays: bool = True
    """What it is told stays on this machine; of some that cannot be known."""


def whose(answers: Iterable[tuple[str, Head, bytes]]) -> Landmark | None:
    """Return who gave these answers of one port, each to a path; None for a stranger.

    The kinds are tried in the order of ``LANDMARKS``: of what many have the OpenAI API alone is
    last. A path that was not answered is left out.
    """
    told = [(path, head, body) for path, head, body in answers if len(body) <= MAX_ANSWER_BYTES]
    for landmark in LANDMARKS:
        if any(landmark.recognise(path, head, body) for path, head, body in told):
            return landmark
    return None


# -- one function for each kind ----------------------------------------------------------------


def _ollama(path: str, head: Head, body: bytes) -> bool:
    """LocalAI and KoboldCpp speak its API too, and do not say this."""
    return path == "/" and head.status == 200 and body.strip() == b"Ollama is running"  # noqa: PLR2004 - HTTP's own number


def _lm_studio(path: str, head: Head, body: bytes) -> bool:
    """Version 0.4.0 lists instances, 0.3.6 its own facts of files; older ones answer anything."""
    told = _object(head, body)
    match path:
        case "/api/v1/models":
            rows, keys = items(told.get("models")), {"key", "loaded_instances"}
        case "/api/v0/models":
            rows, keys = items(told.get("data")), {"id", "state", "compatibility_type"}
        case _:
            return False
    return bool(rows) and all(keys <= set(fields(row)) for row in rows)


def _llama_server(path: str, head: Head, body: bytes) -> bool:
    """It signs every answer, also the one that its model is loading, and none needs a key."""
    if head.headers.get("server", "").strip().lower() == "llama.cpp":
        return True
    told = _object(head, body) if path == "/props" else {}
    return "default_generation_settings" in told and bool({"build_info", "total_slots"} & set(told))


def _local_ai(path: str, head: Head, body: bytes) -> bool:
    """A list at a path where others look for a model of that name."""
    told = _object(head, body) if path == "/v1/models/capabilities" else {}
    rows = items(told.get("data"))
    keys = {"id", "capabilities", "input_modalities"}
    return bool(rows) and all(keys <= set(fields(row)) for row in rows)


def _vllm(path: str, head: Head, body: bytes) -> bool:
    """Its models say whose they are; its figures, which need no key, bear its name."""
    if path == "/metrics":
        return head.status == 200 and re.search(rb"^# HELP vllm:", body, re.MULTILINE) is not None  # noqa: PLR2004 - HTTP's own number
    rows = items(_object(head, body).get("data")) if path == "/v1/models" else []
    return any(fields(row).get("owned_by") == "vllm" for row in rows)


def _litellm(path: str, head: Head, body: bytes) -> bool:
    """Its sign of life is a sentence; its readiness tells its version. Neither needs a key."""
    match path:
        case "/health/liveliness":
            return head.status == 200 and _json(body) == "I'm alive!"  # noqa: PLR2004 - HTTP's own number
        case "/health/readiness":
            return "litellm_version" in fields(_json(body))
    return False


def _kobold_cpp(path: str, head: Head, body: bytes) -> bool:
    told = _object(head, body) if path == "/api/extra/version" else {}
    return told.get("result") == "KoboldCpp" and told.get("llm") is not False


def _web_ui(path: str, head: Head, body: bytes) -> bool:
    told = _object(head, body) if path == "/v1/internal/model/info" else {}
    return {"model_name", "lora_names"} <= set(told)


def _compatible(path: str, head: Head, body: bytes) -> bool:
    """A list of models as the OpenAI API has it, with at least one."""
    told = _object(head, body) if path == "/v1/models" else {}
    rows = items(told.get("data"))
    is_list = told.get("object") == "list" and bool(rows)
    return is_list and all(isinstance(fields(row).get("id"), str) for row in rows)


def _json(body: bytes) -> Any:  # noqa: ANN401 - a stranger's JSON
    try:
        return parsed(body)
    except BadReply:
        return None


def _object(head: Head, body: bytes) -> dict[str, Any]:
    """Return the object of an answer that is one, else an empty one."""
    return dict(fields(_json(body))) if head.status == 200 else {}  # noqa: PLR2004 - HTTP's own number


LANDMARKS: tuple[Landmark, ...] = (
    Landmark(
        preset="ollama",
        title="Ollama",
        ports=(OLLAMA_PORT,),
        paths=("/",),
        recognise=_ollama,
    ),
    Landmark(
        preset="lmstudio",
        title="LM Studio",
        ports=(1234,),
        paths=("/api/v1/models", "/api/v0/models"),
        recognise=_lm_studio,
    ),
    Landmark(
        preset="llama-server",
        title="llama-server",
        ports=(8080,),
        paths=("/health", "/props"),
        recognise=_llama_server,
    ),
    Landmark(
        preset="localai",
        title="LocalAI",
        ports=(8080,),
        paths=("/v1/models/capabilities",),
        recognise=_local_ai,
    ),
    Landmark(
        preset="vllm",
        title="vLLM",
        ports=(8000,),
        paths=("/v1/models", "/metrics"),
        recognise=_vllm,
    ),
    Landmark(
        preset="litellm",
        title="LiteLLM",
        ports=(4000,),
        paths=("/health/liveliness", "/health/readiness"),
        recognise=_litellm,
        stays=False,
    ),
    Landmark(
        preset="openai-compatible",
        title="KoboldCpp",
        ports=(5001,),
        paths=("/api/extra/version",),
        recognise=_kobold_cpp,
    ),
    Landmark(
        preset="openai-compatible",
        title="text-generation-webui",
        ports=(5000,),
        paths=("/v1/internal/model/info",),
        recognise=_web_ui,
    ),
    Landmark(
        preset="openai-compatible",
        title="a server with the OpenAI API",  # Jan, LM Studio of old, llama_cpp.server, mlx_lm
        ports=(1337, 1234, 8000, 8080),
        paths=("/v1/models",),
        recognise=_compatible,
        stays=False,
    ),
)
"""The kinds, those that can be told apart surely before those that are known by less."""

ASKS: tuple[tuple[int, str], ...] = tuple(
    dict.fromkeys((port, path) for each in LANDMARKS for port in each.ports for path in each.paths)
)
"""Every port with every path to ask there, once."""


# -- addresses that are written down -----------------------------------------------------------

_DEFAULTS = {"": OLLAMA_PORT, "http": 80, "https": 443}
_CLOUD = "ollama.com"


def ollama_base(text: str) -> str:
    """Return the address of an Ollama by what ``OLLAMA_HOST`` says, as Ollama itself reads it.

    It may lack the scheme, the host, the port or all of them. An address to listen at, on all
    networks, is this machine to who asks. Raises BadRequest for what is no address.
    """
    given = text.strip().strip("\"'").strip()[: MAX_ADDRESS_CHARS + 1]
    scheme, _, rest = given.rpartition("://")
    scheme = scheme.lower()
    if scheme not in _DEFAULTS or len(given) > MAX_ADDRESS_CHARS or not _PLAIN.fullmatch(rest):
        raise _no_address()
    if not scheme and rest.rstrip("/") == _CLOUD:
        scheme, rest = "https", f"{_CLOUD}:443"
    host, port, path = _parts(rest, _DEFAULTS[scheme])
    return f"{scheme or 'http'}://{host}:{port}{path}"


_PLAIN = re.compile(r"[A-Za-z0-9._~%:/\[\]-]*", re.ASCII)
"""Neither a name and password, nor a query, nor what no address has."""


def _parts(rest: str, default_port: int) -> tuple[str, int, str]:
    place, slash, path = rest.partition("/")
    number = _number(place)
    if number is not None:  # also one of version 6 without brackets, as Ollama takes it
        return _reachable(number), default_port, _tidy(slash + path)
    try:
        parts = urlsplit(f"//{place}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _no_address() from None
    number = _number(host)
    named = host or "127.0.0.1" if number is None else _reachable(number)
    return named, port or default_port, _tidy(slash + path)


def _number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def _reachable(number: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Return where to connect to; nobody can connect to "all networks"."""
    if number.version == 4:  # noqa: PLR2004 - the protocol's own number
        return "127.0.0.1" if number.is_unspecified else str(number)
    return "[::1]" if number.is_unspecified else f"[{number}]"


def _tidy(path: str) -> str:
    inner = path.strip("/")
    return f"/{inner}" if inner else ""


def _no_address() -> BadRequest:
    """Return the refusal, which does not repeat what may hold a password."""
    return BadRequest("OLLAMA_HOST", "…", "host:port, or an address such as http://127.0.0.1:11434")
