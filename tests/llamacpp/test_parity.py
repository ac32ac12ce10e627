"""Our engine against the binding's own high-level class: same file, same prompt, same text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peers
import pytest
from tiny_gguf import tiny_model

from llmdispatcher import Dispatcher, FinishReason, LlamaCpp, Reply, Request, Sampling
from llmdispatcher.vendors.llamacpp.vendor import embedded

QUESTIONS = [
    "What is the capital of France?",
    "What is 12 plus 7?",
    "Who are you?",
    "How do I use my own model?",
    "Is Paris the capital of Italy?",
    "Tell me about the weather on Mars",
    "naïve café — 日本語 😀",
]
GREEDY = Sampling(temperature=0, seed=0)
"""With a seed nothing that was asked before is gone on from, which would round differently."""


def reference(path: Path, context: int) -> Any:
    """Load a file with the binding's class, with the settings that our engine uses."""
    return peers.llama(
        str(path),
        n_ctx=context,
        n_batch=512,
        n_threads=1,
        n_threads_batch=1,
        flash_attn=True,
        verbose=False,
    )


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights, whose text is noise and so differs with the least error."""
    return tiny_model(tmp_path_factory.mktemp("m") / "random.gguf", vocab=600, context=1024)


@pytest.fixture(scope="module", params=["embedded", "random"])
def both(request: pytest.FixtureRequest, random_model: Path) -> Iterator[tuple[Dispatcher, Any]]:
    """A model in our engine and in the binding's class."""
    spec = (
        embedded()
        if request.param == "embedded"
        else LlamaCpp(random_model, max_threads=1, isolation="thread")
    )
    with Dispatcher(spec) as ours:
        ours.send("hi", max_tokens=1)  # so that the engine's thread is there before the first test
        theirs = reference(spec.model_path, 512 if request.param == "embedded" else 1024)
        yield ours, theirs
        theirs.close()


def readable(text: str) -> str:
    """Leave out what stands for invalid bytes: we show U+FFFD, the binding drops them silently."""
    return text.replace("\ufffd", "")


@pytest.mark.parametrize("question", QUESTIONS)
def test_greedy_text_and_counts_are_equal(both: tuple[Dispatcher, Any], question: str) -> None:
    """A raw completion at temperature 0 gives the same text, counts and finish reason."""
    ours, theirs = both

    reply = ours.send(Request(prompt=question, max_tokens=60, sampling=GREEDY))

    theirs.reset()  # or it reads only what is new in the prompt, which rounds differently
    expected = theirs.create_completion(question, max_tokens=60, temperature=0)
    (choice,) = expected["choices"]
    over = max(0, expected["usage"]["completion_tokens"] - 60)
    assert over <= 3, "the binding goes past max_tokens only to complete a character"
    assert readable(choice["text"]).startswith(readable(reply.text))
    assert over or readable(reply.text) == readable(choice["text"])
    assert str(reply.finish_reason) == choice["finish_reason"]
    assert reply.usage.prompt_tokens == expected["usage"]["prompt_tokens"]
    assert reply.usage.completion_tokens == expected["usage"]["completion_tokens"] - over


def test_a_prompt_of_several_batches_is_equal(both: tuple[Dispatcher, Any]) -> None:
    """A prompt that is decoded in several pieces gives the same text as the binding's."""
    ours, theirs = both
    prompt = "The quick brown fox jumps over the lazy dog. " * (8 if theirs.n_ctx() < 600 else 16)

    reply = ours.send(Request(prompt=prompt, max_tokens=20, sampling=GREEDY))

    theirs.reset()
    expected = theirs.create_completion(prompt, max_tokens=20, temperature=0)
    assert readable(reply.text) == readable(expected["choices"][0]["text"])
    assert reply.usage.prompt_tokens == expected["usage"]["prompt_tokens"]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("question", QUESTIONS[:5])
def test_chat_is_rendered_as_the_binding_renders_it(question: str) -> None:
    """The file's chat template gives the same prompt, and so the same answer."""
    spec = embedded()
    theirs = reference(spec.model_path, 512)
    with Dispatcher(spec) as ours:
        reply = ours.send(question, temperature=0, max_tokens=60)

    expected = theirs.create_chat_completion(
        [{"role": "user", "content": question}], temperature=0, max_tokens=60
    )
    theirs.close()
    assert reply.text == expected["choices"][0]["message"]["content"]
    assert reply.usage.prompt_tokens == expected["usage"]["prompt_tokens"]


def test_the_same_seed_gives_the_same_text_everywhere(random_model: Path) -> None:
    """A seed decides the text: send and stream agree, and another seed differs.

    Of a model of random weights: one that was trained may be too sure of how a text goes on.
    """
    with Dispatcher(LlamaCpp(random_model, max_threads=1, isolation="thread")) as d:

        def draw(seed: int | None) -> Reply:
            return d.send(
                Request(prompt="The", max_tokens=40, sampling=Sampling(seed=seed, temperature=1.5))
            )

        texts = [draw(7).text for _ in range(3)]
        assert len(set(texts)) == 1
        assert len({draw(seed).text for seed in range(8)}) > 1
        assert len({draw(None).text for _ in range(8)}) > 1, "no seed means a fresh one"


def test_sampling_that_changes_nothing_is_greedy(random_model: Path) -> None:
    """top_k=1 at any temperature is greedy: the whole chain runs and picks the likeliest."""
    with Dispatcher(LlamaCpp(random_model, max_threads=1, isolation="thread")) as d:

        def text(**sampling: float) -> str:
            made = Sampling(**{"seed": 0, **sampling})  # type: ignore[arg-type]
            return d.send(Request(prompt="ab", max_tokens=30, sampling=made)).text

        greedy = text(temperature=0)
        assert text(temperature=2, top_k=1) == greedy
        assert text(temperature=2, top_p=0, min_p=0) == greedy
        assert text(temperature=0.7, min_p=1) == greedy
        assert text(temperature=1, typical_p=1, top_k=1, seed=9) == greedy


def test_penalties_and_the_rest_of_the_chain_act(random_model: Path) -> None:
    """Each sampler that is switched on changes what is drawn, for the same seed."""
    base: dict[str, float] = {"temperature": 1.2, "seed": 11, "top_k": 0, "top_p": 1, "min_p": 0}
    changes: list[dict[str, float]] = [
        {"repeat_penalty": 3.0},
        {"presence_penalty": 2.0, "repeat_last_n": 512},
        {"frequency_penalty": 2.0, "repeat_last_n": 512},
        {"dry_multiplier": 50.0, "dry_allowed_length": 1, "dry_base": 4.0},
        {"typical_p": 0.2},
        {"top_k": 2},
        {"top_p": 0.2},
        {"min_p": 0.8},
        {"xtc_probability": 1.0, "xtc_threshold": 0.001},
        {"temperature": 0.2},
    ]
    with Dispatcher(LlamaCpp(random_model, max_threads=1, isolation="thread")) as d:

        def text(**sampling: float) -> str:
            made = Sampling(**sampling)  # type: ignore[arg-type]
            prompt = "na na na na na na na na na na na na "
            return d.send(Request(prompt=prompt, max_tokens=120, sampling=made)).text

        plain = text(**base)
        same = [change for change in changes if text(**{**base, **change}) == plain]
    assert same == []


def test_max_tokens_and_the_context_end_a_reply_with_length(random_model: Path) -> None:
    """A reply that was not over ends with LENGTH: at max_tokens, or where the context ends."""
    with Dispatcher(LlamaCpp(random_model, context_tokens=512, isolation="thread")) as d:
        short = d.send(Request(prompt="a", max_tokens=5, sampling=GREEDY))
        full = d.send(Request(prompt="a", sampling=GREEDY))

    assert (short.finish_reason, short.usage.completion_tokens) == (FinishReason.LENGTH, 5)
    assert full.finish_reason is FinishReason.LENGTH
    assert full.usage.total_tokens == 512


def test_stop_strings_end_a_reply_in_front_of_them(random_model: Path) -> None:
    """The text ends before the stop string, wherever the tokens' borders are."""
    with Dispatcher(LlamaCpp(random_model, isolation="thread")) as d:
        whole = d.send(Request(prompt="a", max_tokens=60, sampling=GREEDY)).text
        for at in range(5, len(whole) - 5, 7):
            stop = whole[at : at + 4]
            reply = d.send(Request(prompt="a", max_tokens=60, sampling=GREEDY, stop=[stop]))
            assert reply.text == whole[: whole.index(stop)]
            assert reply.finish_reason is FinishReason.STOP
