"""Our engine against llama-server and the binding's own class: same file, same prompt, same reply.

All three run the same release of llama.cpp with the same settings. Where they differ is known: an
empty prompt (llama-server generates nothing, our engine continues a space), the token that ends a
text (counted by llama-server alone), and a character that max_tokens cuts (the binding goes on for
up to three tokens to complete it).
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from upstream.llama_server import Settings
from upstream.prompts import ALL, LONG, Prompt
from upstream.trio import GREEDY, MAX_TOKENS, Answer, Trio, completed, loaded, request, seen
from upstream.variants import MODEL, STRETCHED_TOKENS, TRAINED_TOKENS, in_f32, stretched

from llmdispatcher import Request, Sampling

if TYPE_CHECKING:
    from upstream.conftest import Serve

pytestmark = pytest.mark.upstream

SHORT = [prompt for prompt in ALL if prompt not in LONG]

CLOSE = 5e-4
"""Between the log-probabilities of the likeliest two tokens: what rounding may turn around, with
room."""

PLAIN: dict[str, float] = {"temperature": 1.4, "top_k": 0, "top_p": 1, "min_p": 0}
CHANGES: list[dict[str, float]] = [
    {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05},
    {"temperature": 2},
    {"top_k": 5},
    {"top_p": 0.7},
    {"min_p": 0.2},
    {"typical_p": 0.5},
    {"repeat_penalty": 1.5, "repeat_last_n": 16},
    {"presence_penalty": 1.5, "frequency_penalty": 0.5},
    {"dry_multiplier": 4, "dry_base": 2, "dry_allowed_length": 1},
    {"xtc_probability": 0.8, "xtc_threshold": 0.05},
]
"""Sampling from all tokens, and each sampler of the chain beside it; the first are the defaults."""


@pytest.fixture(scope="module")
def trio(serve: Serve) -> Iterator[Trio]:
    """The embedded model, three times."""
    with loaded(Settings(model=MODEL, context_tokens=TRAINED_TOKENS), serve) as three:
        yield three


@pytest.fixture(scope="module")
def long_trio(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    """The embedded model with a longer context, three times."""
    path = stretched(tmp_path_factory.mktemp("stretched"))
    with loaded(Settings(model=path, context_tokens=STRETCHED_TOKENS), serve) as three:
        yield three


def test_there_are_fifty_prompts() -> None:
    """Fifty different prompts are compared."""
    assert len({str(prompt) for prompt in ALL}) == len(ALL) == 50


@pytest.mark.parametrize("prompt", SHORT, ids=lambda prompt: ascii(prompt)[:40])
def test_a_reply_is_equal(trio: Trio, prompt: Prompt) -> None:
    """At temperature 0 the three give the same text, counts and finish reason."""
    ours = trio.ask_us(prompt)

    assert ours == trio.ask_the_server(prompt)
    assert ours == trio.ask_the_binding(prompt)


@pytest.mark.parametrize("prompt", LONG, ids=lambda prompt: ascii(prompt)[:40])
def test_a_reply_to_several_batches_is_equal(long_trio: Trio, prompt: Prompt) -> None:
    """So they do where the prompt is read in several batches."""
    ours = long_trio.ask_us(prompt)

    assert ours.prompt_tokens > TRAINED_TOKENS
    assert ours == long_trio.ask_the_server(prompt)
    assert ours == long_trio.ask_the_binding(prompt)


def test_replies_at_once_are_equal(serve: Serve, tmp_path: Path) -> None:
    """All fifty, asked by 16 threads at once, are answered as llama-server does one by one.

    How a batch is made up decides how sums are rounded, so this is asked where little is rounded:
    with weights, keys and values in 32 bits it moves log-probabilities by 2e-5. Replies in which
    the likeliest two tokens are hardly further apart somewhere may be either; few are.
    """
    path = in_f32(tmp_path)
    settings = Settings(model=path, context_tokens=STRETCHED_TOKENS, cache_type="f32")
    with loaded(settings, serve) as three:

        def ask(prompt: Prompt) -> tuple[Answer, bool]:
            reply = three.ours.send(request(prompt), seed=None, logprobs=2)
            apart = (each.top[0].logprob - each.top[1].logprob for each in reply.logprobs)
            return seen(reply), all(gap > CLOSE for gap in apart)

        with ThreadPoolExecutor(16) as threads:
            ours = list(threads.map(ask, ALL))
        theirs = [three.ask_the_server(prompt) for prompt in ALL]

    decided = [place for place, (_, is_clear) in enumerate(ours) if is_clear]
    assert [ours[place][0] for place in decided] == [theirs[place] for place in decided]
    assert len(decided) >= 45


def test_a_full_context_ends_a_reply_alike(trio: Trio) -> None:
    """Where the context ends before the text does, both end at the same token.

    After which letter a model goes on for long enough, depends on the model.
    """

    def fills(letter: str) -> bool:
        prompt = letter * (TRAINED_TOKENS - 20)
        ours = seen(trio.ours.send(Request(prompt=prompt, sampling=GREEDY)))
        theirs = completed(trio.server.post("/completion", {"prompt": prompt, "temperature": 0}))
        assert ours == theirs
        return ours.prompt_tokens + ours.completion_tokens == TRAINED_TOKENS

    assert any(map(fills, string.ascii_lowercase)), "no text was as long as the context"


@pytest.mark.parametrize("stop", ["capital", " is", "e", "France is P", "never said", "."])
def test_a_stop_string_ends_a_reply_alike(trio: Trio, stop: str) -> None:
    """A stop string cuts the text at the same place, and after as many tokens."""
    prompt = "<|begin|><|user|>What is the capital of France?<|end|><|assistant|>"
    ours = trio.ours.send(Request.of(request(prompt), stop=stop))
    theirs = trio.server.post(
        "/completion",
        {"prompt": prompt, "temperature": 0, "n_predict": MAX_TOKENS, "stop": [stop]},
    )

    assert seen(ours) == completed(theirs)


SEEDS = range(7, 17)
"""Tried until what is changed matters: what a seed draws depends on the model."""


@pytest.mark.parametrize("change", CHANGES, ids=" ".join)
def test_a_drawn_reply_is_equal(trio: Trio, change: dict[str, float]) -> None:
    """With one seed, both draw the same: the samplers and their order are llama-server's."""
    prompt = "The " * 20  # foreign to the model, so that every sampler has something to change

    def draw(**sampling: Any) -> Answer:
        asked = Request(prompt=prompt, max_tokens=MAX_TOKENS, sampling=Sampling(**sampling))
        return seen(trio.ours.send(asked))

    def matters(seed: int) -> bool:
        options: dict[str, Any] = {**PLAIN, **change, "seed": seed}
        ours = draw(**options)
        asked = {"prompt": prompt, "n_predict": MAX_TOKENS, **options}
        assert ours == completed(trio.server.post("/completion", asked))
        others = draw(**PLAIN, seed=seed), draw(**{**options, "seed": seed + 100})
        return ours not in others

    assert any(map(matters, SEEDS)), "what is changed must matter here, and the seed"
