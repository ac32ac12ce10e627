"""What an Ollama server shows: its models, those loaded, and whether it serves."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from speaking_ollama import JSON, models

from llmdispatcher.models.card import FREE, Capability, ModelCard
from llmdispatcher.models.errors import BadReply
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.ollama import shows
from llmdispatcher.vendors.ollama.wire import OllamaWire
from llmdispatcher.vendors.wire.exchange import Ask, Head, Site

HERE = Site(vendor="ollama", local=True)
WIRE = OllamaWire(HERE)
WRITES = {"chat", "completion", "json", "schema", "logprobs"}


def cards(*rows: Any, wire: OllamaWire = WIRE) -> tuple[ModelCard, ...]:
    """Return the cards of a list."""
    return wire.listed({"models": list(rows)}).cards


def test_a_list() -> None:
    """A list tells abilities, sizes and contexts, and who works elsewhere."""
    assert WIRE.listing() == Ask(path="/api/tags")
    listed = WIRE.listed(json.loads(models()))
    assert listed.more is None
    writes, embeds, away = listed.cards
    assert writes == ModelCard(
        vendor="ollama",
        model="llama3.2:3b",
        local=True,
        price=FREE,
        capabilities=WRITES | {"tools"},
        context_tokens=131072,
        parameters=3_200_000_000,
        size_bytes=2019393189,
    )
    assert embeds.capabilities == {Capability.EMBED}
    assert embeds.parameters == 23_000_000
    assert (away.local, away.price) == (False, None)
    assert away.capabilities == {"chat", "completion", "tools", "effort"}


@pytest.mark.parametrize(
    ("told", "can"),
    [
        (["completion"], WRITES),
        (["completion", "tools", "thinking"], {*WRITES, "tools", "effort"}),
        (["completion", "insert", "vision"], {*WRITES, "infill", "vision"}),
        (["embedding"], {"embed"}),
        (["image", "audio", 5, None], set()),
        ([], set()),
    ],
)
def test_abilities(told: list[Any], can: set[str]) -> None:
    """Every word of the server's is one of ours, or says nothing."""
    (card,) = cards({"model": "m", "capabilities": told})
    assert card.capabilities == can


@pytest.mark.parametrize(
    ("row", "can"),
    [
        ({"name": "mistral:7b"}, {*WRITES, "tools"}),
        ({"name": "me/Qwen3:8b"}, {*WRITES, "tools", "effort"}),
        ({"name": "qwen3-coder:30b"}, {*WRITES, "tools"}),
        ({"name": "qwen3-embedding:4b"}, {"embed"}),
        ({"name": "qwen3-vl:8b"}, {*WRITES, "tools", "effort", "vision"}),
        ({"name": "gemma3:4b"}, {*WRITES, "tools", "vision"}),
        ({"name": "gemma3:1b"}, {*WRITES, "tools"}),
        ({"name": "qwen2.5-coder:1.5b-base"}, {*WRITES, "tools", "infill"}),
        (
            {"name": "mine", "details": {"families": ["llama", "clip"]}},
            {*WRITES, "tools", "vision"},
        ),
        ({"name": "mine", "details": {"family": "nomic-bert", "families": None}}, {"embed"}),
    ],
)
def test_lists_of_older_servers(row: dict[str, Any], can: set[str]) -> None:
    """Where a list tells no abilities, the name and the family tell some; tools are tried."""
    (card,) = cards(row)
    assert card.capabilities == can


def test_a_context_that_was_set() -> None:
    """The context is the least of what the model has and what the site asks for."""
    wire = OllamaWire(Site(vendor="ollama", local=True, extra={"options": {"num_ctx": 8192}}))
    assert wire.card("m").context_tokens == 8192
    told = [{"model": "a", "details": {"context_length": size}} for size in (4096, 131072, "x")]
    sizes = [cards(row, wire=wire)[0].context_tokens for row in told]
    assert sizes == [4096, 8192, 8192]
    assert cards(told[2])[0].context_tokens is None


@pytest.mark.parametrize(
    ("told", "parameters"),
    [
        ("7.6B", 7_600_000_000),
        ("494.03M", 494_030_000),
        ("135m", 135_000_000),
        ("1T", 10**12),
        ("120000000000", 120 * 10**9),
        ("", None),
        ("0B", None),
        ("8x7B", None),
        ("٣B", None),
        ("9" * 5000 + "B", None),
        (7, None),
    ],
)
def test_parameters(told: object, parameters: int | None) -> None:
    """The number of parameters is read from how people write it."""
    (card,) = cards({"model": "m", "details": {"parameter_size": told}})
    assert card.parameters == parameters


@pytest.mark.parametrize(
    ("model", "local"),
    [
        ("gpt-oss:20b", True),
        ("gpt-oss:120b-cloud", False),
        ("kimi-k2:cloud", False),
        ("KIMI-K2:CLOUD", False),
        ("cloud", True),
        ("my-cloud", True),
        ("host:5000/my-cloud", True),
    ],
)
def test_names_of_the_cloud(model: str, local: bool) -> None:  # noqa: FBT001 - a row of a table
    """A model of Ollama's cloud is not of this machine, and its price is not known."""
    card = WIRE.card(model)
    assert (card.local, card.price) == (local, FREE if local else None)
    assert (Capability.SCHEMA in card.capabilities) == local
    assert (WIRE.loading(model) is None) == (not local)


def test_the_cloud_itself() -> None:
    """Ollama's own site has models without any sign of it, of which none is local."""
    wire = OllamaWire(Site(vendor="ollama"), hosted=True)
    (card,) = cards({"model": "gpt-oss:120b", "capabilities": ["completion"]}, wire=wire)
    assert not card.local
    assert card.capabilities == {"chat", "completion"}
    assert wire.loading("gpt-oss:120b") is None


def test_rows_that_cannot_be_read() -> None:
    """A row without a name is left out, a name that comes twice counts once."""
    rows = [{}, {"model": ""}, {"model": "\u2028"}, {"model": 5}, "x", None, {"model": "\ud800"}]
    assert [card.model for card in cards(*rows, {"model": "a"}, {"name": "a"})] == ["a"]
    assert WIRE.listed({}).cards == WIRE.listed({"models": None}).cards == ()


@pytest.mark.parametrize("message", [None, [], "x", {"models": {}}, {"error": "no"}])
def test_lists_that_are_none(message: object) -> None:
    """What is no list is a bad reply."""
    for read in (WIRE.listed, shows.loaded):
        with pytest.raises(BadReply):
            read(message)


def test_a_model_in_detail() -> None:
    """What older servers tell only in detail goes into the card."""
    assert shows.showing("m") == Ask(path="/api/show", body={"model": "m"})
    info = {
        "general.architecture": "llama",
        "general.parameter_count": 3212749888,
        "llama.context_length": 131072,
    }
    told = {"model_info": info, "capabilities": ["completion", "vision"]}
    card = shows.shown(WIRE.card("m"), told)
    assert (card.context_tokens, card.parameters) == (131072, 3212749888)
    assert card.capabilities == WRITES | {"vision"}
    assert shows.shown(card, {"model_info": 5}) == card


def test_loaded_models() -> None:
    """Loaded models tell the context they have now, and how much of them is on a GPU."""
    rows = [
        {
            "name": "a",
            "model": "a",
            "size": 100,
            "size_vram": 60,
            "context_length": 4096,
            "expires_at": "2026-08-21T18:48:22.123456+00:00",
        },
        {"name": "b", "size": 100, "size_vram": 100, "expires_at": "soon"},
        {},
    ]
    first, second = shows.loaded({"models": rows})
    assert (first.model, first.context_tokens, first.is_partly_on_cpu) == ("a", 4096, True)
    assert first.expires_at == datetime(2026, 8, 21, 18, 48, 22, 123456, UTC)
    assert (second.context_tokens, second.is_partly_on_cpu, second.expires_at) == (
        None,
        False,
        None,
    )


def test_times_of_go() -> None:
    """Times with nanoseconds, as Go writes them, are read."""
    row = {"model": "a", "expires_at": "2318-12-01T10:00:00.123456789+01:00"}
    (model,) = shows.loaded({"models": [row]})
    assert model.expires_at is not None
    assert model.expires_at.year == 2318


def test_a_probe() -> None:
    """A server that tells its version serves; anything else says what it said."""
    assert WIRE.probe() == Ask(path="/api/version")
    assert WIRE.probed(Head(200, JSON), b'{"version": "0.33.0"}').is_ready
    for status, body in [(200, b"<html>"), (200, b"{}"), (503, b'{"version": "1"}'), (200, b"[]")]:
        health = WIRE.probed(Head(status, JSON), body)
        assert not health.is_ready
        assert str(status) in health.detail


@pytest.mark.parametrize(
    ("version", "is_old"),
    [
        ("0.33.0", False),
        ("0.12.6", False),
        ("v0.12.5-rc1", True),
        ("0.5.13", True),
        ("0.0.0", False),
        ("1.0", False),
        ("", False),
    ],
)
def test_old_servers(version: str, is_old: bool) -> None:  # noqa: FBT001 - a row of a table
    """A server that is too old to refuse a long prompt serves, and says so."""
    health = WIRE.probed(Head(200, JSON), json.dumps({"version": version}).encode())
    assert health.is_ready
    assert ("silently" in health.detail) == is_old


def test_loading() -> None:
    """A model is loaded with what requests will have: else it would be loaded anew for them."""
    extra = {"options": {"num_ctx": 8192}}
    wire = OllamaWire(Site(vendor="ollama", keep_alive_s=60, extra=extra))
    assert wire.loading("llama3.2") == Ask(
        path="/api/generate",
        body={
            "model": "llama3.2",
            "truncate": False,
            "shift": False,
            "options": {"num_ctx": 8192},
            "keep_alive": 60,
            "stream": False,
        },
    )
    assert wire.loading("all-minilm") == Ask(
        path="/api/embed", body={"model": "all-minilm", "input": [], "keep_alive": 60}
    )


@pytest.mark.parametrize("model", ["llama3.2", "all-minilm"])
def test_loading_what_is_not_kept(model: str) -> None:
    """To keep a model for no time at all would unload it: that is said with the request alone."""
    ask = OllamaWire(Site(vendor="ollama", keep_alive_s=0)).loading(model)
    assert ask is not None
    assert ask.body is not None
    assert "keep_alive" not in ask.body


def test_counting() -> None:
    """Ollama counts tokens for nobody."""
    request = Request(prompt="a")
    assert WIRE.counting(request, WIRE.card("m")) is None
    with pytest.raises(BadReply):
        WIRE.counted({"tokens": 1})
