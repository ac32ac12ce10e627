"""Every preset by its row: what a request may ask of the host, and under which names."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from llmdispatcher.models.card import Capability
from llmdispatcher.models.embedding import EmbedRequest, RerankRequest, Work
from llmdispatcher.models.errors import BadReply, Unsupported, VendorError
from llmdispatcher.models.form import ResponseFormat, ToolSpec
from llmdispatcher.models.message import Image, Message
from llmdispatcher.models.request import Request
from llmdispatcher.models.sampling import Sampling
from llmdispatcher.vendors.openai.listing import abilities
from llmdispatcher.vendors.openai.rows import ROWS
from llmdispatcher.vendors.openai.wire import OpenAIWire
from llmdispatcher.vendors.wire.exchange import Ask, Head, Site, Wire

SCHEMA = ResponseFormat("schema", {"type": "object"})
GRAMMAR = ResponseFormat("grammar", grammar="root ::= x")

NEEDS: dict[Capability, Work] = {
    Capability.CHAT: Request.of("x"),
    Capability.TOOLS: Request.of("x", tools=[ToolSpec("f")]),
    Capability.JSON: Request.of("x", response_format=ResponseFormat("json")),
    Capability.SCHEMA: Request.of("x", schema={"type": "object"}),
    Capability.GRAMMAR: Request.of("x", response_format=GRAMMAR),
    Capability.VISION: Request.of([Message("user", [Image(b"x")])]),
    Capability.CHOICES: Request.of("x", n=2),
    Capability.LOGPROBS: Request.of("x", logprobs=1),
    Capability.PREFILL: Request.of("x", prefill="y"),
    Capability.COMPLETION: Request(prompt="x"),
    Capability.INFILL: Request(prompt="x", suffix="y"),
    Capability.ADAPTERS: Request.of("x", adapters=["a"]),
    Capability.EFFORT: Request.of("x", effort="high"),
    Capability.EMBED: EmbedRequest.of("x"),
    Capability.RERANK: RerankRequest.of("x", ["y"]),
}
"""Work that needs one thing."""

FIELDS = {field.name for field in attrs.fields(Sampling)}


def wire(preset: str, **site: Any) -> OpenAIWire:
    """Make the dialect at a host."""
    return OpenAIWire(Site(vendor="v", **site), ROWS[preset].ways)


def body(preset: str, work: Work) -> dict[str, Any]:
    """Return what would be sent."""
    spoken: Wire = wire(preset)
    (exchange,) = spoken.exchanges(work, spoken.card("model-1"))
    return dict(exchange.ask.body or {})


@pytest.mark.parametrize("preset", ROWS)
def test_what_a_card_may_list_is_what_the_host_does(preset: str) -> None:
    """What the row says that the host can is encoded, and everything else is refused."""
    able = abilities(ROWS[preset].ways)
    for capability, work in NEEDS.items():
        if capability in able:
            assert body(preset, work)
        else:
            with pytest.raises(Unsupported):
                body(preset, work)


@pytest.mark.parametrize("preset", ROWS)
def test_sampling_goes_out_under_the_host_s_names(preset: str) -> None:
    """Each field that the host takes is sent alone under its name, and each other is refused."""
    ways = ROWS[preset].ways
    for name in FIELDS:
        drawn: dict[str, Any] = {name: 1}
        asked = Request(messages="x", sampling=Sampling(**drawn))
        if name in ways.sampling:
            assert body(preset, asked)[ways.sampling[name]] == 1
        else:
            with pytest.raises(Unsupported):
                body(preset, asked)


@pytest.mark.parametrize("preset", ROWS)
def test_all_at_once_has_everything(preset: str) -> None:
    """A request that uses all that the row takes is sent with all of it."""
    ways = ROWS[preset].ways
    able = abilities(ways)
    asked = Request(
        messages="x",
        sampling=Sampling(**dict.fromkeys(ways.sampling, 1)),
        max_tokens=7,
        stop=["a", "b"],
        n=2 if Capability.CHOICES in able else 1,
        logprobs=2 if Capability.LOGPROBS in able else None,
        tools=[ToolSpec("f")],
        tool_choice="f" if not ways.thinking.forbids_demands else "auto",
        response_format=SCHEMA if Capability.SCHEMA in able else None,
        effort="high" if Capability.EFFORT in able else None,
        prefill="y" if Capability.PREFILL in able else "",
    )
    sent = body(preset, asked)
    assert sent[ways.max_tokens] == 7
    assert sent["stop"] == ["a", "b"]
    assert {*ways.sampling.values()} <= {*sent}
    assert ("n" in sent) == (Capability.CHOICES in able)
    assert ("logprobs" in sent) == (Capability.LOGPROBS in able)
    assert ("response_format" in sent) == (Capability.SCHEMA in able)
    assert sent["tools"][0]["function"]["name"] == "f"
    if Capability.EFFORT in able:
        assert ways.thinking.effort[0] in sent
    json.dumps(sent)


NAMES = {"openai", "azure", "azure-dated", "vllm", "lmstudio", "localai", "llama-server", "groq"}
NAMES |= {"together", "mistral", "deepseek", "openrouter", "lightning", "litellm"}
NAMES |= {"openai-compatible"}


def test_the_known_hosts_are_these() -> None:
    """A row has an address unless every user has another, and a variable for the key."""
    assert {*ROWS} == NAMES
    for name, row in ROWS.items():
        assert row.name == name
        assert bool(row.base_url) == (name not in {"azure", "azure-dated", "openai-compatible"})
        assert bool(row.key_env) == (name != "openai-compatible")
        assert row.local == (name in {"vllm", "lmstudio", "localai", "llama-server"})
        assert not row.base_url.endswith("/")


# -- health ------------------------------------------------------------------------------------

PROBES = {
    "vllm": Ask(path="/health", at_root=True),
    "llama-server": Ask(path="/health", at_root=True),
    "localai": Ask(path="/readyz", at_root=True),
    "litellm": Ask(path="/health/readiness", at_root=True),
    "openai": Ask(path="/models"),
    "lmstudio": Ask(path="/models"),
}


@pytest.mark.parametrize(("preset", "meant"), PROBES.items())
def test_the_probe_is_the_cheapest_there_is(preset: str, meant: Ask) -> None:
    """Servers have a place for it; elsewhere the list of models tells."""
    assert wire(preset).probe() == meant


LOADING = b'{"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}'
ANSWERS = [
    (200, b"", True, False),
    (204, b"", True, False),
    (503, b"", False, False),
    (503, LOADING, False, True),
    (503, b'{"status": "starting"}', False, True),
    (503, b'{"status": "shutting_down"}', False, False),
    (401, b'{"error": "Unauthorized"}', False, False),
    (404, b"<html>loading", False, False),
    (500, b"\xff", False, False),
]


@pytest.mark.parametrize(("status", "answer", "ready", "loading"), ANSWERS)
def test_health_is_read(status: int, answer: bytes, ready: bool, loading: bool) -> None:  # noqa: FBT001 - parameters of the test
    """Only a server that says so is loading; the others say why they cannot serve."""
    health = wire("llama-server").probed(Head(status, {}), answer)
    assert (health.is_ready, health.is_loading) == (ready, loading)
    assert bool(health.detail) != ready


# -- loading and counting ----------------------------------------------------------------------


def test_models_are_loaded_where_that_can_be_said() -> None:
    """What loads a model answers when it is loaded; most hosts decide that themselves."""
    ask = wire("llama-server").loading("a b/c")
    assert ask == Ask(path="/props?model=a%20b%2Fc", at_root=True)
    chat = wire("lmstudio", keep_alive_s=60).loading("model-1")
    assert chat is not None
    assert chat.path == "/chat/completions"
    assert chat.body is not None
    assert (chat.body["max_tokens"], chat.body["ttl"]) == (1, 60)
    embed = wire("lmstudio").loading("nomic-embed-text")
    assert embed is not None
    assert embed.path == "/embeddings"
    assert wire("openai").loading("gpt-5") is None


def test_tokens_are_counted_where_somebody_tells() -> None:
    """The conversation is sent as it would be for a reply; raw prompts as they are."""
    talk = Request.of("x", tools=[ToolSpec("f")], temperature=1)
    server, vllm = wire("llama-server"), wire("vllm")
    ask = server.counting(talk, server.card("m"))
    assert ask is not None
    assert (ask.path, ask.at_root) == ("/chat/completions/input_tokens", False)
    assert ask.body is not None
    assert {*ask.body} == {"model", "messages", "tools", "parallel_tool_calls"}
    ask = vllm.counting(Request(prompt="x"), vllm.card("m"))
    assert ask is not None
    assert (ask.path, ask.at_root) == ("/tokenize", True)
    assert ask.body is not None
    assert ask.body["prompt"] == "x"
    assert wire("openai").counting(talk, wire("openai").card("gpt-5")) is None


def test_counts_are_read() -> None:
    """By each server's name for them."""
    spoken = wire("vllm")
    assert spoken.counted({"input_tokens": 3}) == 3
    assert spoken.counted({"count": 4, "tokens": [1]}) == 4
    assert spoken.counted({"tokens": [1, 2]}) == 2
    strange: list[Any] = [{}, [], None, "x", {"count": "3"}, {"count": True}]
    for told in strange:
        with pytest.raises(BadReply):
            spoken.counted(told)
    with pytest.raises(VendorError):
        spoken.counted({"error": {"message": "x"}})
