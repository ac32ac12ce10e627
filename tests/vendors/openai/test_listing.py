"""Lists of models, in the forms of all hosts, and what names alone tell."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from speaking_openai import CONTEXT_TOKENS, models

from llmdispatcher.models.card import FREE, Capability, ModelCard
from llmdispatcher.models.errors import BadReply, DispatcherError, VendorError
from llmdispatcher.vendors.openai.rows import ROWS
from llmdispatcher.vendors.openai.wire import OpenAIWire
from llmdispatcher.vendors.wire.exchange import Ask, Site

C = Capability

TELLS_SIZE = {"vllm", "lmstudio", "llama-server", "groq", "together", "mistral", "openrouter"}


def wire(preset: str, **site: Any) -> OpenAIWire:
    """Make the dialect at a host."""
    return OpenAIWire(Site(vendor="v", **site), ROWS[preset].ways)


def listed(preset: str, message: Any, **site: Any) -> list[ModelCard]:
    """Read a list."""
    return [*wire(preset, **site).listed(message).cards]


def one(preset: str, **row: Any) -> ModelCard:
    """Read a list of one model."""
    (card,) = listed(preset, {"data": [{"id": "model-1", **row}]})
    return card


@pytest.mark.parametrize("preset", ROWS)
def test_every_host_s_list_is_read(preset: str) -> None:
    """Each form of a list gives cards, with the size where it is told."""
    (card,) = listed(preset, json.loads(models(preset)))
    assert (card.vendor, card.model) == ("v", "model-1")
    assert card.context_tokens == (CONTEXT_TOKENS if preset in TELLS_SIZE else None)
    assert {C.CHAT, C.TOOLS} <= card.capabilities


def test_what_a_list_tells_is_believed() -> None:
    """Sizes, abilities and prices come from the list where it has them."""
    (card,) = listed("lmstudio", json.loads(models("lmstudio")), local=True)
    assert C.VISION in card.capabilities
    assert card.price == FREE
    (card,) = listed("llama-server", json.loads(models("llama-server")))
    assert C.VISION in card.capabilities
    assert (card.parameters, card.size_bytes) == (7, 9)
    (card,) = listed("openrouter", json.loads(models("openrouter")))
    assert {C.VISION, C.SCHEMA, C.JSON} <= card.capabilities
    assert not {C.LOGPROBS, C.EFFORT} & card.capabilities
    assert card.max_output_tokens == 100
    assert card.price is not None
    assert (card.price.input_pico, card.price.output_pico) == (150_000, 600_000)
    (card,) = listed("together", json.loads(models("together")))
    assert card.price is not None
    assert (card.price.input_pico, card.price.output_pico) == (150_000, 600_000)


def test_what_is_no_model_for_talk_says_so() -> None:
    """A type or a name tells that a model makes vectors, scores, or neither."""
    assert one("together", type="embedding").capabilities == {C.EMBED}
    assert one("together", type="rerank").capabilities == {C.RERANK}
    assert one("together", type="image").capabilities == set()
    assert one("lmstudio", type="embeddings").capabilities == {C.EMBED}
    assert C.VISION in one("lmstudio", type="vlm").capabilities
    assert one("localai", capabilities=["embeddings"]).capabilities == {C.EMBED}
    assert wire("vllm").card("BAAI/bge-m3").capabilities == {C.EMBED}
    assert wire("vllm").card("bge-reranker-v2").capabilities == {C.RERANK}
    assert wire("groq").card("nomic-embed-text").capabilities == set()
    no_chat = one("mistral", capabilities={"completion_chat": False, "completion_fim": True})
    assert no_chat.capabilities == {C.INFILL}
    no_tools = one("mistral", capabilities={"completion_chat": True, "function_calling": False})
    assert C.TOOLS not in no_tools.capabilities


def test_names_tell_what_is_known_of_them() -> None:
    """Sizes by name hold where the host serves a model as its maker does."""
    card = wire("openai").card("gpt-5.4")
    assert card.context_tokens == 1_050_000
    assert card.max_output_tokens == 128_000
    assert {C.EFFORT, C.VISION} <= card.capabilities
    assert C.LOGPROBS not in wire("openai").card("gpt-5").capabilities
    assert C.LOGPROBS in wire("openai").card("gpt-4o").capabilities
    assert wire("openai").card("text-embedding-3-small").capabilities == {C.EMBED}
    local = wire("vllm", local=True).card("openai/gpt-oss-20b")
    assert local.context_tokens is None
    assert C.EFFORT in local.capabilities
    assert C.EFFORT not in wire("lmstudio").card("openai/gpt-oss-20b").capabilities
    assert wire("openai").card("gpt-5").price is None


PRICES = [
    ({"prompt": "-1", "completion": "-1"}, None),
    ({"prompt": "0", "completion": "0"}, 0),
    ({"prompt": "1e-999999999", "completion": "0"}, None),
    ({"prompt": "0.0000000000001", "completion": "0"}, 1),
    ({"prompt": "1e999999999", "completion": "0"}, None),
    ({"prompt": "nan", "completion": "0"}, None),
    ({"prompt": "0.0000001"}, None),
    ({"prompt": True, "completion": "0"}, None),
    ("free", None),
]


@pytest.mark.parametrize(("pricing", "pico"), PRICES)
def test_a_price_that_is_none_is_not_known(pricing: Any, pico: int | None) -> None:
    """Only a price that is told whole is believed; it is rounded up."""
    price = one("openrouter", pricing=pricing).price
    assert (None if price is None else price.input_pico) == pico


def test_where_lists_are() -> None:
    """LM Studio's full list is at the root; Azure's deployments have none."""
    assert wire("lmstudio").listing() == Ask(path="/api/v1/models", at_root=True)
    assert wire("localai").listing() == Ask(path="/models/capabilities")
    assert wire("azure-dated").listing() is None
    assert wire("openai").listing() == Ask(path="/models")


def test_what_is_no_list_is_refused() -> None:
    """An empty list is one; an error is raised as what it is; rows without names are left out."""
    assert listed("vllm", {"data": []}) == []
    assert (
        listed("vllm", {"data": [{}, 3, {"id": 7}, {"id": " "}, {"id": "a"}, {"id": "a"}]})[0].model
        == "a"
    )
    strange: list[Any] = [{}, None, "x", {"data": {}}]
    for message in strange:
        with pytest.raises(BadReply):
            listed("vllm", message)
    with pytest.raises(VendorError):
        listed("vllm", {"error": {"message": "x"}})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "data",
                    "models",
                    "id",
                    "key",
                    "name",
                    "type",
                    "capabilities",
                    "vision",
                    "pricing",
                    "prompt",
                    "completion",
                    "input",
                    "output",
                    "request",
                    "context_length",
                    "max_model_len",
                    "meta",
                    "n_ctx",
                    "top_provider",
                    "loaded_instances",
                    "config",
                    "supported_parameters",
                    "architecture",
                    "input_modalities",
                    "error",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(VALUES, st.sampled_from(["openrouter", "together", "lmstudio"]))
def test_a_stranger_s_list_makes_only_our_errors(message: Any, preset: str) -> None:
    """Whatever comes for a list, for a count or for vectors is read or refused."""
    for told in (message, {"data": [message]}, {"models": [message]}):
        with contextlib.suppress(DispatcherError):
            listed(preset, told)
        with contextlib.suppress(DispatcherError):
            wire(preset).counted(told)
