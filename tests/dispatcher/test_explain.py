"""How a request would be routed, told without asking anybody."""

from __future__ import annotations

import asyncio

import pytest

from llmdispatcher import (
    AsyncDispatcher,
    BadRequest,
    Decision,
    Dispatcher,
    Event,
    ModelCard,
    OpenAI,
    Price,
    RateLimited,
    Scripted,
)

VENDORS = (
    Scripted("dear", name="dear", price=Price.per_million(2, 10)),
    Scripted("cheap", name="cheap", price=Price.per_million(1, 4)),
    Scripted("unable", name="unable", capabilities=()),
)


def test_it_is_the_decision_of_the_reply() -> None:
    """What is told beforehand is what is then done, in both worlds, and costs nothing."""
    events: list[Event] = []
    with Dispatcher(*VENDORS, on_event=events.append) as d:
        told = d.explain("hi", max_tokens=5)
        assert (d.stats().requests, events) == (0, [])
        reply = d.send("hi", max_tokens=5)

    async def main() -> Decision:
        async with AsyncDispatcher(*VENDORS) as d:
            return await d.explain("hi", max_tokens=5)

    assert asyncio.run(main()) == told
    assert told.candidates == reply.decision.candidates
    assert told.excluded == reply.decision.excluded
    assert [each.vendor for each in told.candidates] == ["cheap", "dear"]
    assert reply.vendor == "cheap"
    assert told.attempts == ()


def test_printed_it_is_a_table() -> None:
    """A line for each model with its place and its arithmetic, and those that are left out."""
    with Dispatcher(*VENDORS) as d:
        lines = str(d.explain("hi", max_tokens=5)).splitlines()

    why = "it was made for vectors or scores; register a model that writes"
    assert lines == [
        " 1 cheap/script   ~1 tokens in + 5 out = 21 µ$; / 0.80 good = 27 µ$",
        " 2 dear/script    ~1 tokens in + 5 out = 52 µ$; / 0.80 good = 65 µ$",
        f" - unable/script  cannot do chat ({why})",
    ]


def test_where_nobody_could_serve_that_is_told_and_not_raised() -> None:
    """Every model has its reason; a request that cannot be is an error all the same."""
    with Dispatcher(*VENDORS) as d:
        told = d.explain("hi", vendor="nobody")
        with pytest.raises(BadRequest):
            d.explain("hi", max_tokens=-1)

    assert told.candidates == ()
    assert {each.vendor for each in told.excluded} == {"dear", "cheap", "unable"}
    assert all("names the vendor 'nobody'" in each.note for each in told.excluded)
    assert str(Decision()) == "there are no models"


def test_what_was_tried_is_told_too() -> None:
    """Printed, the decision of a reply says whom it was asked of."""
    failing = Scripted(RateLimited("too fast"), name="cheap", price=Price.per_million(1, 4))
    with Dispatcher(VENDORS[0], failing) as d:
        lines = str(d.send("hi").decision).splitlines()

    assert lines[-2:] == [
        "asked cheap/script: RateLimited: too fast",
        "asked dear/script: served",
    ]


def test_clouds_are_compared_by_their_list_prices() -> None:
    """The cheapest of several models is found without asking any of them."""
    models: list[str | ModelCard] = ["gpt-5.4", "gpt-6-luna", "gpt-5.4-mini"]
    with Dispatcher(OpenAI(models=models, api_key="none")) as d:
        told = d.explain("Name three uses of a paperclip.")

    assert [each.model for each in told.candidates] == ["gpt-6-luna", "gpt-5.4-mini", "gpt-5.4"]
