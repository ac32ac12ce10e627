"""Models that are known by name: facts that hold together, and only where they hold."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdispatcher import (
    Anthropic,
    BadRequest,
    ConfigError,
    Dispatcher,
    Gemini,
    Mistral,
    ModelCard,
    OpenAI,
    OpenAICompatible,
    Price,
    Request,
    Together,
    Usage,
)
from llmdispatcher.models import registry
from llmdispatcher.models.card import FREE, Tier
from llmdispatcher.models.catalog import Catalog
from llmdispatcher.vendors.http.preset import row
from llmdispatcher.vendors.openai.rows import ROWS
from llmdispatcher.vendors.openai.wire import OpenAIWire
from llmdispatcher.vendors.wire.exchange import Site
from llmdispatcher.worst import worst_case

ALL = dict(registry._facts())
LONG = 272_000


def card_of(vendor: Any, model: str) -> ModelCard:
    """Return the card that a dispatcher has of a model."""
    with Dispatcher(vendor(models=[model], api_key="none")) as d:
        (card,) = d.vendors()[0].cards
    return card


def test_there_are_many_models_of_every_cloud_that_tells_no_prices() -> None:
    """Where a vendor's list tells them, it is believed instead."""
    vendors = {name.partition("/")[0] for name in ALL}

    assert len(ALL) >= 60
    assert vendors == {"openai", "anthropic", "gemini", "deepseek", "mistral", "groq", "together"}
    assert all(row(vendor).key_domains for vendor in vendors), "an address that is its own"


def test_the_strengths_of_a_model_reach_its_card() -> None:
    """Those that are known, unless the user says otherwise; none is "not known"."""
    name = "codestral-latest"
    user = {"models": {f"mistral/{name}": {"strengths": ["writing", "speed"]}}}
    card = card_of(Mistral, name)

    assert card.strengths == {"code"}
    assert Catalog.parse(user).apply(card).strengths == {"writing", "speed"}
    assert card_of(OpenAI, "gpt-4.1").strengths == {"vision", "long_context"}
    assert card_of(OpenAI, "gpt-17-nobody-knows").strengths == frozenset()


@pytest.mark.parametrize("strengths", ["code", ["coding"], 5, [["code"]]], ids=str)
def test_a_strength_that_is_none_is_refused(strengths: Any) -> None:
    """With the place, and the words that there are."""
    with pytest.raises(ConfigError, match=r"models\.a/b\.strengths.*code, long_context"):
        Catalog.parse({"models": {"a/b": {"strengths": strengths}}})


def test_what_is_known_of_a_vendor_is_listed() -> None:
    """By name, in the order of the file: the best first."""
    assert registry.names("openai")[0] == "gpt-6-astra"
    assert registry.names("groq")[0] == "openai/gpt-oss-120b"
    assert registry.names("nobody") == ()
    assert {name for vendor in registry.vendors() for name in registry.names(vendor)} == {
        name.partition("/")[2] for name in ALL
    }


@pytest.mark.parametrize("name", ALL)
def test_each_row_holds_together(name: str) -> None:
    """Reading costs less than writing, a cache less than reading, and long prompts more."""
    facts = ALL[name]
    price = facts["price"]

    assert price.version == "list prices, 2026-11-20"
    assert 1 <= facts["quality"] <= 5
    for rates in (price, *price.tiers):
        assert 0 < rates.input_pico < rates.output_pico
        assert rates.cached_input_pico is None or rates.cached_input_pico < rates.input_pico
        assert rates.cache_write_pico is None or rates.cache_write_pico > rates.input_pico
    for lower, upper in zip((price, *price.tiers), price.tiers, strict=False):
        assert upper.input_pico > lower.input_pico
        assert upper.output_pico > lower.output_pico
        assert (upper.cached_input_pico is None) is (lower.cached_input_pico is None)


@pytest.mark.parametrize(
    ("vendor", "model", "usd"),
    [
        (OpenAI, "gpt-5.4-mini", (0.75, 4.5)),
        (OpenAI, "gpt-5.4-mini-2026-03-17", (0.75, 4.5)),
        (Anthropic, "claude-haiku-4-5-20251001", (1, 5)),
        (Gemini, "gemini-2.5-flash", (0.3, 2.5)),
        (Together, "zai-org/GLM-5.3", (1.4, 4.4)),
    ],
)
def test_a_model_is_known_at_its_own_address(
    vendor: Any, model: str, usd: tuple[float, float]
) -> None:
    """By its name, and by that of one dated state of it."""
    card = card_of(vendor, model)

    assert card.price is not None
    assert (card.price.input_pico, card.price.output_pico) == tuple(int(each * 1e6) for each in usd)
    assert card.quality is not None


def test_a_name_says_nothing_of_the_price_elsewhere() -> None:
    """Another host may take what it likes for a model of that name."""
    elsewhere = {"base_url": "https://models.example/v1", "models": ["gpt-5.4"], "api_key": "none"}
    for vendor in (OpenAI(**elsewhere), OpenAICompatible(**elsewhere)):  # type: ignore[arg-type]
        with Dispatcher(vendor) as d:
            assert d.vendors()[0].cards[0].price is None
    assert card_of(OpenAI, "gpt-17-nobody-knows").price is None


def test_the_user_goes_before_the_list_and_the_list_before_what_is_known() -> None:
    """What was read some time ago gives way to what is told now."""
    name, told = "zai-org/GLM-5.3", {"input": 9, "output": 90}
    wire = OpenAIWire(Site(vendor="together", registry="together"), ROWS["together"].ways)
    (listed,) = wire.listed({"data": [{"id": name, "pricing": told}]}).cards
    bare = wire.card(name)
    user = {"models": {f"together/{name}": {"price": {"input": 1, "output": 2}}}}

    assert bare.price is not None
    assert bare.price.input_pico == 1_400_000
    assert listed.price is not None
    assert listed.price.input_pico == 9_000_000
    assert Catalog.parse(user).apply(listed).price == Price.per_million(1, 2)


def test_what_runs_here_stays_free() -> None:
    """A local model may have the name of one in a cloud."""
    card = ModelCard(vendor="x", model="gpt-4o", local=True, price=FREE)

    assert registry.complete(card, "openai").price == FREE
    assert registry.complete(card, "") is card


# -- long prompts ------------------------------------------------------------------------------


def test_all_of_a_long_prompt_costs_more() -> None:
    """Up to the limit the lower rates hold for all tokens, above it the higher ones do."""
    price = ALL["openai/gpt-6.1-sol"]["price"]
    short = Usage(prompt_tokens=LONG, cached_tokens=1000, completion_tokens=10)
    long = Usage(prompt_tokens=LONG + 1, cached_tokens=1000, completion_tokens=10)

    assert price.cost_microusd(short) == (LONG - 1000) * 2 + 100 + 10 * 10
    assert price.cost_microusd(long) == (LONG + 1 - 1000) * 4 + 200 + 10 * 15


def test_tiers_are_taken_as_the_catalog_writes_them() -> None:
    """One or several, in any order; what is missing in one costs as its input does."""
    rows = [{"tokens": 200, "input": 8, "output": 9}, {"tokens": 100, "input": 4, "output": 5}]
    several = Price.per_million(2, 3, above=rows)
    one = Price.per_million(2, 3, above=rows[0])

    assert [tier.above_tokens for tier in several.tiers] == [100, 200]
    assert one.tiers == (Tier(above_tokens=200, input_pico=8_000_000, output_pico=9_000_000),)
    assert several.rates(100) is several
    assert several.rates(101) is several.tiers[0]
    assert several.rates(10**9) is several.tiers[1]
    assert not Price.per_million(0, 0, above=rows).is_free


@pytest.mark.parametrize(
    "above",
    [
        5,
        [5],
        {"tokens": 1, "input": 1},
        {"tokens": 0, "input": 1, "output": 1},
        {"tokens": 9, "input": 1, "output": 1, "price": 1},
        {"tokens": 9, "input": -1, "output": 1},
    ],
    ids=str,
)
def test_a_tier_that_is_none_is_refused(above: Any) -> None:
    """With what was given, and what may be."""
    with pytest.raises(BadRequest):
        Price.per_million(1, 2, above=above)


@given(
    prompt=st.integers(0, 400),
    cached=st.floats(0, 1),
    written=st.floats(0, 1),
    at=st.integers(1, 500),
)
def test_the_worst_case_covers_every_tier(
    prompt: int, cached: float, written: float, at: int
) -> None:
    """However long the prompt turns out to be, no more is charged than was set aside."""
    above = {"tokens": at, "input": 7, "cached_input": 1, "cache_write": 9, "output": 30}
    price = Price.per_million(2, 10, cached_input=1, cache_write=3, above=above)
    card = ModelCard(vendor="v", model="m", local=False, price=price)
    request = Request.of("x" * max(1, prompt), max_tokens=5)
    from_cache = int(prompt * cached)
    usage = Usage(
        prompt_tokens=prompt,
        cached_tokens=from_cache,
        cache_write_tokens=int((prompt - from_cache) * written),
        completion_tokens=5,
    )

    worst = worst_case(card, request).microusd

    assert worst is not None
    assert worst >= price.cost_microusd(usage)


def test_a_program_without_clouds_reads_no_catalogue() -> None:
    """It takes milliseconds, and so does the library that reads it."""
    code = (
        "import sys; from llmdispatcher import Dispatcher, Ollama, Scripted\n"
        "with Dispatcher(Scripted('x'), Ollama(models=['a'])) as d:\n"
        "    d.send('x', vendor='scripted')\n"
        "assert 'yaml' not in sys.modules, 'it was read'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
