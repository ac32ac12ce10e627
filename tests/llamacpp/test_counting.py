"""How many tokens a prompt is, by a local model's own tokenizer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from waits import WAIT_S

from llmdispatcher import (
    AsyncDispatcher,
    BadRequest,
    Dispatcher,
    LlamaCpp,
    Price,
    Scripted,
    system,
    user,
)
from llmdispatcher.models.count import TokenCount
from llmdispatcher.vendors.llamacpp.vendor import embedded

PROMPTS: list[Any] = [
    "What is the capital of France?",
    [system("Be brief."), user("2 + 3? äöü 漢字 🦙")],
    "x" * 300,
]


@pytest.fixture(params=["thread", "process"])
def spec(request: pytest.FixtureRequest) -> LlamaCpp:
    """Return the embedded model by its file, in a thread or in a worker."""
    return LlamaCpp(embedded().model_path, name="here", max_threads=1, isolation=request.param)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_count_is_what_the_reply_is_charged_for(spec: LlamaCpp, prompt: Any) -> None:
    """What is counted beforehand is what usage tells; the model is loaded for it."""
    with Dispatcher(spec) as d:
        count = d.count_tokens(prompt)
        reply = d.send(prompt, max_tokens=1)

    assert not count.estimated
    assert count.tokens == reply.usage.prompt_tokens
    assert (count.vendor, count.model) == (reply.vendor, reply.model)


def test_in_an_event_loop_too(spec: LlamaCpp) -> None:
    """The async dispatcher counts the same."""

    async def main() -> TokenCount:
        async with AsyncDispatcher(spec) as d:
            return await d.count_tokens(PROMPTS[0])

    with Dispatcher(spec) as d:
        assert asyncio.run(main()) == d.count_tokens(PROMPTS[0])


def test_what_cannot_be_read_is_an_error(spec: LlamaCpp) -> None:
    """A request that is wrong is told as for a reply, and the model goes on."""
    with Dispatcher(spec) as d:
        with pytest.raises(BadRequest):
            d.count_tokens("x", max_tokens=0)
        assert d.count_tokens("x").tokens > 0


def test_a_model_that_costs_is_ranked_by_its_own_tokens(
    spec: LlamaCpp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is loaded, the arithmetic has the exact number; before that, an estimate."""
    import attrs  # noqa: PLC0415 - for this alone

    # a worker that is slow to answer is not waited for, and its tokens would be estimated
    monkeypatch.setattr("llmdispatcher.weigh.PATIENCE_S", WAIT_S)
    priced = attrs.evolve(spec, price=Price.per_million(100, 100))
    prompt = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18"
    dearer = Scripted("x", name="dearer", price=Price.per_million(900, 900))
    with Dispatcher(priced, dearer) as d:
        before = d.explain(prompt).candidates[0].note
        exact = d.count_tokens(prompt).tokens
        after = d.explain(prompt).candidates[0].note

    assert before.startswith(f"~{-(-len(prompt) // 4)} tokens in")
    assert after.startswith(f"~{exact} tokens in")
