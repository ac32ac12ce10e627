"""Filling in between two texts, as llama-server's /infill does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tiny_gguf import tiny_model
from upstream.llama_server import Settings

from llmdispatcher import Dispatcher, LlamaCpp, Request

if TYPE_CHECKING:
    from upstream.conftest import Serve

pytestmark = pytest.mark.upstream

CONTEXT_TOKENS = 256


@pytest.mark.parametrize(
    ("prefix", "suffix"),
    [
        ("def add(a, b):\n    ", "\n\nprint(add(1, 2))\n"),
        ("x", "y"),
        ("<s> a", "b </s>"),
        ("ä", "→"),
    ],
)
def test_llama_server_fills_in_the_same(
    prefix: str, suffix: str, serve: Serve, tmp_path: Path
) -> None:
    """The prompt has the same tokens, and the greedy reply the same text."""
    model = tiny_model(
        tmp_path / "fim.gguf",
        vocab=600,
        control={590: "<|fim_prefix|>", 591: "<|fim_suffix|>", 592: "<|fim_middle|>"},
    )
    settings = Settings(model=model, context_tokens=CONTEXT_TOKENS, cache_type="f32")
    asked = {"input_prefix": prefix, "input_suffix": suffix, "n_predict": 24, "temperature": 0}
    with serve(settings) as server:
        theirs = server.post("/infill", {**asked, "samplers": ["temperature"]})
    with Dispatcher(
        LlamaCpp(
            model,
            context_tokens=CONTEXT_TOKENS,
            max_threads=1,
            cache_type="f32",
            isolation="thread",
        )
    ) as d:
        ours = d.send(Request(prompt=prefix, suffix=suffix, max_tokens=24), temperature=0)

    assert ours.usage.prompt_tokens == theirs["tokens_evaluated"]
    assert ours.text == theirs["content"]
