"""Our log-probabilities against those of llama-server: same tokens, same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import pytest
from upstream.llama_server import Settings
from upstream.prompts import CHATS, LONG, RAW, Prompt
from upstream.trio import MAX_TOKENS, Trio, loaded
from upstream.variants import MODEL, STRETCHED_TOKENS, stretched

from llmdispatcher import Request, Sampling
from llmdispatcher.models.reply import TokenLogprob
from llmdispatcher.vendors.llamacpp.binding.vocabulary import Vocabulary, vocabulary_of

if TYPE_CHECKING:
    from upstream.conftest import Serve

pytestmark = pytest.mark.upstream

TOP = 5
TOLERANCE = 1e-4
"""In natural logarithms. Both have the same logits; they sum the exponentials in another order."""

SAMPLINGS = [Sampling(temperature=0, seed=0), Sampling(temperature=1.5, top_k=10, seed=3)]
"""What is told does not depend on how tokens are drawn."""

PROMPTS: list[Prompt] = [RAW[0], RAW[3], RAW[16], LONG[0], LONG[2], CHATS[3], CHATS[5]]
"""Raw and in a conversation, short and longer than a batch."""

LEADS = ((0xE0, 0xC0, 2), (0xF0, 0xE0, 3), (0xF8, 0xF0, 4))
"""Bits of a byte that begins a character, and of how many bytes that is."""


@pytest.fixture(scope="module")
def trio(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    """The embedded model with a longer context, three times."""
    path = stretched(tmp_path_factory.mktemp("stretched"))
    with loaded(Settings(model=path, context_tokens=STRETCHED_TOKENS), serve) as three:
        yield three


def told_by_the_server(trio: Trio, prompt: Prompt, sampling: Sampling) -> list[dict[str, Any]]:
    """Return what llama-server tells of each token that it drew."""
    body: dict[str, Any] = {"cache_prompt": False, "max_tokens": MAX_TOKENS, **sampling.given()}
    if isinstance(prompt, str):
        found = trio.server.post("/completion", {"prompt": prompt, "n_probs": TOP, **body})
        completed: list[dict[str, Any]] = found["completion_probabilities"]
        return completed
    body |= {"messages": prompt, "logprobs": True, "top_logprobs": TOP}
    (choice,) = trio.server.post("/v1/chat/completions", body)["choices"]
    replied: list[dict[str, Any]] = choice["logprobs"]["content"]
    return replied


@pytest.fixture(scope="module")
def vocabulary() -> Iterator[Vocabulary]:
    """What the embedded model knows of text."""
    with vocabulary_of(MODEL) as opened:
        yield opened


def is_cut(data: bytes) -> bool:
    """Whether a text ends within a character, as llama-server looks at it (validate_utf8)."""
    return any(
        data[-back] & mask == lead and back < length
        for back in range(1, min(4, len(data)) + 1)
        for mask, lead, length in LEADS
    )


def told_of(logprobs: tuple[TokenLogprob, ...]) -> tuple[TokenLogprob, ...]:
    """Leave out what llama-server tells nothing of: tokens that end within a character."""
    texts = accumulate(token.data for token in logprobs)
    return tuple(token for token, text in zip(logprobs, texts, strict=True) if not is_cut(text))


def compare(
    vocabulary: Vocabulary, ours: tuple[TokenLogprob, ...], theirs: list[dict[str, Any]]
) -> None:
    """Compare tokens exactly, and numbers within TOLERANCE.

    Theirs go by their ids: llama-server gives no bytes for a control token, and we do.
    """
    named = [vocabulary.piece(token["id"], special=True) for token in theirs]
    assert [token.data for token in ours] == named
    expected = [token["logprob"] for token in theirs]
    assert [token.logprob for token in ours] == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["likeliest", "drawn"])
def test_logprobs_are_equal(trio: Trio, vocabulary: Vocabulary, sampling: Sampling) -> None:
    """Each token has the same log-probability, and the same likeliest tokens beside it.

    How long a reply is, is the model's affair: one may be empty, and all together are not.
    """
    compared = 0
    for prompt in PROMPTS:
        asked: dict[str, Any]
        asked = {"prompt": prompt} if isinstance(prompt, str) else {"messages": prompt}
        reply = trio.ours.send(
            Request(**asked, max_tokens=MAX_TOKENS, sampling=sampling, logprobs=TOP)
        )
        assert len(reply.logprobs) == reply.usage.completion_tokens
        mine = told_of(reply.logprobs)
        theirs = told_by_the_server(trio, prompt, sampling)[: len(mine)]
        compare(vocabulary, mine, theirs)
        for ours, other in zip(mine, theirs, strict=True):
            assert len(ours.top) == TOP
            compare(vocabulary, ours.top, other["top_logprobs"])
        compared += len(mine)

    assert compared > 2 * len(PROMPTS)
