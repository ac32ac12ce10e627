"""By what local servers are known, and how written addresses are read."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ollama._client import _parse_host

from llmdispatcher.models.errors import BadRequest
from llmdispatcher.vendors.http.landmarks import (
    ASKS,
    LANDMARKS,
    MAX_ANSWER_BYTES,
    ollama_base,
    whose,
)
from llmdispatcher.vendors.wire.exchange import Head

Told = tuple[str, Head, bytes]


def told(path: str, body: object, status: int = 200, server: str = "") -> Told:
    """Return an answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return path, Head(status, {"server": server} if server else {}), data


def listed(*rows: object) -> dict[str, object]:
    """Return a list of models as the OpenAI API has it."""
    return {"object": "list", "data": [*rows]}


ROW = {"id": "m", "object": "model", "created": 1}
NOTHING = {"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}}

SERVERS: dict[str, list[Told]] = {
    "Ollama": [told("/", b"Ollama is running")],
    "LM Studio": [
        told("/api/v1/models", {"models": [{"type": "llm", "key": "m", "loaded_instances": []}]}),
        told(
            "/api/v0/models",
            listed({"id": "m", "state": "not-loaded", "compatibility_type": "gguf"}),
        ),
        told("/v1/models", listed(ROW)),
    ],
    "LM Studio 0.3": [
        told("/api/v1/models", {"error": "Unexpected endpoint or method. (GET /api/v1/models)"}),
        told("/api/v0/models", listed({"id": "m", "state": "loaded", "compatibility_type": "mlx"})),
        told("/v1/models", listed(ROW)),
    ],
    "llama-server": [
        told("/health", {"status": "ok"}, server="llama.cpp"),
        told("/props", {"default_generation_settings": {}, "total_slots": 1}, server="llama.cpp"),
        told("/v1/models/capabilities", NOTHING, 404, server="llama.cpp"),
        told("/v1/models", listed({**ROW, "owned_by": "llamacpp"}), server="llama.cpp"),
    ],
    "llama-server, loading": [
        told("/health", {"error": {"message": "Loading model"}}, 503, server="llama.cpp"),
        told("/props", {"error": {"message": "Loading model"}}, 503, server="llama.cpp"),
    ],
    "llama-server, behind a proxy": [
        told("/health", {"status": "ok"}, server="nginx"),
        told("/props", {"default_generation_settings": {}, "build_info": "b1"}, server="nginx"),
    ],
    "LocalAI": [
        told("/health", {"message": "Not Found"}, 404),
        told("/props", {"message": "Not Found"}, 404),
        told(
            "/v1/models/capabilities",
            listed({**ROW, "capabilities": ["chat"], "input_modalities": None}),
        ),
        told("/v1/models", listed({"id": "m", "object": "model"})),
    ],
    "mlx_lm.server": [
        told("/health", {"status": "ok"}, server="BaseHTTP/0.6 Python/3.12"),
        told("/props", b"Not Found", 404),
        told("/v1/models", listed(ROW)),
    ],
    "vLLM": [
        told("/v1/models", listed({**ROW, "owned_by": "vllm", "max_model_len": 4096})),
        told("/metrics", b"# HELP python_gc x\n# HELP vllm:num_requests_running x\n"),
    ],
    "vLLM, with a key": [
        told("/v1/models", {"error": "Unauthorized"}, 401),
        told("/metrics", b"# HELP python_gc x\n# HELP vllm:num_requests_running x\n"),
    ],
    "llama_cpp.server": [
        told("/v1/models", listed({"id": "m", "object": "model", "owned_by": "me"})),
        told("/metrics", {"detail": "Not Found"}, 404),
    ],
    "LitServe": [told("/v1/models", {"detail": "Not Found"}, 404)],
    "LiteLLM": [
        told("/health/liveliness", "I'm alive!"),
        told("/health/readiness", {"status": "healthy", "litellm_version": "1.109.1"}),
    ],
    "LiteLLM, shutting down": [
        told("/health/liveliness", {"status": "shutting_down"}, 503),
        told("/health/readiness", {"status": "shutting_down", "litellm_version": "1.1"}, 503),
    ],
    "KoboldCpp": [told("/api/extra/version", {"result": "KoboldCpp", "version": "1.113"})],
    "KoboldCpp, for pictures": [told("/api/extra/version", {"result": "KoboldCpp", "llm": False})],
    "text-generation-webui": [
        told("/v1/internal/model/info", {"model_name": "m", "lora_names": []})
    ],
    "Jan": [told("/v1/models", listed(ROW))],
    "AirPlay": [told("/v1/internal/model/info", b"", 403, server="AirTunes/860.7.1")],
    "a web page": [
        told(path, b"<html>Ollama is running llama.cpp KoboldCpp</html>") for _, path in ASKS
    ],
    "a list of nobody": [told("/v1/models", listed())],
    "nobody": [],
}

WHOSE = {
    "Ollama": ("ollama", "Ollama"),
    "LM Studio": ("lmstudio", "LM Studio"),
    "LM Studio 0.3": ("lmstudio", "LM Studio"),
    "llama-server": ("llama-server", "llama-server"),
    "llama-server, loading": ("llama-server", "llama-server"),
    "llama-server, behind a proxy": ("llama-server", "llama-server"),
    "LocalAI": ("localai", "LocalAI"),
    "mlx_lm.server": ("openai-compatible", "a server with the OpenAI API"),
    "vLLM": ("vllm", "vLLM"),
    "vLLM, with a key": ("vllm", "vLLM"),
    "llama_cpp.server": ("openai-compatible", "a server with the OpenAI API"),
    "LiteLLM": ("litellm", "LiteLLM"),
    "LiteLLM, shutting down": ("litellm", "LiteLLM"),
    "KoboldCpp": ("openai-compatible", "KoboldCpp"),
    "text-generation-webui": ("openai-compatible", "text-generation-webui"),
    "Jan": ("openai-compatible", "a server with the OpenAI API"),
}


@pytest.mark.parametrize("name", SERVERS)
def test_servers(name: str) -> None:
    """Every server is known by its answers, in any order, and a stranger is nobody's."""
    for answers in (SERVERS[name], SERVERS[name][::-1]):
        found = whose(answers)
        assert (found and (found.preset, found.title)) == WHOSE.get(name)


def test_no_server_is_two() -> None:
    """What one kind is known by surely, no server of another kind answers."""
    for landmark in LANDMARKS[:-1]:
        for name, answers in SERVERS.items():
            if any(landmark.recognise(*answer) for answer in answers):
                assert WHOSE[name][1] == landmark.title


def test_what_is_asked() -> None:
    """Every path of every kind is asked at each of its ports, once, and few in all."""
    assert len(ASKS) == len(set(ASKS)) <= 16
    for landmark in LANDMARKS:
        assert {(port, path) for port in landmark.ports for path in landmark.paths} <= set(ASKS)
    assert {port for port, _ in ASKS} == {11434, 1234, 8080, 8000, 4000, 5001, 5000, 1337}


def test_an_answer_without_end() -> None:
    """An answer that is longer than any list is nobody's."""
    body = b"Ollama is running" + b" " * MAX_ANSWER_BYTES
    assert whose([told("/", body)]) is None


@given(
    st.sampled_from([path for _, path in ASKS]),
    st.binary(max_size=100)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["data", "models", "object", "id", "result", "key", "owned_by"]),
                inner,
            )
        ),
        max_leaves=10,
    ).map(lambda value: json.dumps(value).encode()),
    st.sampled_from([200, 401, 404, 503]),
)
def test_what_strangers_answer(path: str, body: bytes, status: int) -> None:
    """Whatever a stranger answers, nothing is raised."""
    whose([(path, Head(status, {"server": "x"}), body)])


# -- addresses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        *("", "1.2.3.4", ":56789", "1.2.3.4:56789", "http://1.2.3.4", "https://1.2.3.4"),
        *("https://1.2.3.4:56789", "example.com", "example.com:56789", "http://example.com"),
        *("example.com/", "example.com/path", "https://example.com:56789/path/", "EXAMPLE.com"),
        *("[1:2::1]", "[1:2::1]:56789/path/", "https://[1:2::1]", "http:///a", "x:", "localhost"),
    ],
)
def test_addresses_as_the_official_client_reads_them(text: str) -> None:
    """An address is read as the official client reads it."""
    assert ollama_base(text) == _parse_host(text)


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("0.0.0.0", "http://127.0.0.1:11434"),  # noqa: S104 - nothing is bound
        ("0.0.0.0:1234", "http://127.0.0.1:1234"),
        ("http://0.0.0.0:80", "http://127.0.0.1:80"),
        ("::", "http://[::1]:11434"),
        ("[::]:1234", "http://[::1]:1234"),
        ("::1", "http://[::1]:11434"),
        ("ollama.com", "https://ollama.com:443"),
        (" \"'0.0.0.0'\" ", "http://127.0.0.1:11434"),
    ],
)
def test_addresses_as_the_server_reads_them(text: str, base: str) -> None:
    """An address to listen at is this machine to who asks, and quotes are taken off."""
    assert ollama_base(text) == base


@pytest.mark.parametrize(
    "text",
    [
        *(
            "user:secret@host:1",
            "ftp://host",
            "a b",
            "host:99999",
            "host:x",
            "[::1]x:y",
            "host?x=1",
        ),
        *("host#x", "http://a://b", "ho\u0000st", "höst", "x" * 3000),
    ],
)
def test_what_is_no_address(text: str) -> None:
    """What is no address is refused, without being repeated: it may hold a password."""
    with pytest.raises(BadRequest) as caught:
        ollama_base(text)
    assert caught.value.field == "OLLAMA_HOST"
    assert "secret" not in str(caught.value)


@given(st.text(max_size=40) | st.text(alphabet=string.hexdigits + ":.[]/%@", max_size=20))
def test_any_text_is_an_address_or_none(text: str) -> None:
    """Any text is an address with a scheme, a host and a port, or is refused."""
    try:
        base = ollama_base(text)
    except BadRequest:
        return
    assert base.startswith(("http://", "https://"))
    assert base.split("://", 1)[1].partition("/")[0].rpartition(":")[2].isdecimal()
