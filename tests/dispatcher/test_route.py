"""Who may serve, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from llmdispatcher import (
    FREE,
    Capability,
    Image,
    ModelCard,
    Price,
    Request,
    ResponseFormat,
    ToolSpec,
    Usage,
    user,
)
from llmdispatcher.models.form import Shape
from llmdispatcher.route import Ranking, expected_usage
from llmdispatcher.route import rank as ranked
from llmdispatcher.shelf import Shelf, Target
from llmdispatcher.vendors.scripted import Scripted, ScriptedEngine

ENGINE = ScriptedEngine(Scripted(), lambda _: None)
BOTH = (Capability.CHAT, Capability.COMPLETION)


def target(
    name: str, price: Price | None = FREE, *, local: bool = True, last: bool = False
) -> Target:
    """Make a target called ``name``, model ``m``."""
    card = ModelCard(
        vendor=name, model="m", local=local, price=price, capabilities=BOTH, last_resort=last
    )
    return Target(card, ENGINE)


def rank(request: Request, targets: Sequence[Target]) -> Ranking:
    """Rank targets of which nothing is known but their cards."""
    return ranked(request, Shelf(targets))


def names(request: Request, *targets: Target) -> list[str]:
    """Return the vendors in the order in which they would be asked."""
    return [t.card.vendor for t in rank(request, targets).targets]


def test_cheapest_first_and_free_is_cheapest() -> None:
    """The expected cost orders the candidates; zero means free and wins."""
    cheap, dear = Price.per_million(0.15, 0.6), Price.per_million(2.5, 10)

    order = names(Request.of("hi"), target("dear", dear), target("cheap", cheap), target("free"))

    assert order == ["free", "cheap", "dear"]


def test_unknown_price_comes_last() -> None:
    """A price that is not known is not zero: it ranks behind every known one."""
    assert names(
        Request.of("hi"), target("unknown", None), target("dear", Price.per_million(999, 999))
    ) == ["dear", "unknown"]


def test_long_prompts_weigh_the_input_price() -> None:
    """With a long prompt and a short reply, the cheaper input wins in spite of dearer output."""
    reader, writer = Price.per_million(0.1, 10), Price.per_million(1, 1)
    targets = target("writer", writer), target("reader", reader)

    assert names(Request.of("x" * 80_000, max_tokens=100), *targets) == ["reader", "writer"]
    assert names(Request.of("x"), *targets) == ["writer", "reader"]


def test_equal_costs_keep_the_order_of_registration() -> None:
    """Ties go to whoever was registered first."""
    assert names(Request.of("hi"), target("b"), target("a"), target("c")) == ["b", "a", "c"]


def test_last_resort_serves_only_alone_or_named() -> None:
    """A model of last resort never wins on price; naming it makes it a candidate like others."""
    paid, toy = target("paid", Price.per_million(1, 1)), target("toy", last=True)

    assert names(Request.of("hi"), toy, paid) == ["paid"]
    assert names(Request.of("hi"), toy) == ["toy"]
    assert names(Request.of("hi", vendor="toy"), toy, paid) == ["toy"]
    assert names(Request.of("hi", model="m"), toy, paid) == ["toy", "paid"]


def test_a_cloud_that_may_not_see_the_text_is_left_out() -> None:
    """allow_cloud=False leaves only models on this machine, whatever they cost."""
    cloud, local = target("cloud", local=False), target("local", None)

    ranking = rank(Request.of("hi", allow_cloud=False), [cloud, local])

    assert [t.card.vendor for t in ranking.targets] == ["local"]
    assert "allow_cloud=False" in ranking.excluded[0].note


@pytest.mark.parametrize(
    ("request_", "lacking"),
    [
        (Request.of("hi", tools=[ToolSpec("f")]), "tools"),
        (Request(prompt="hi", response_format=ResponseFormat(Shape.JSON)), "json"),
        (Request(prompt="x", response_format=ResponseFormat(Shape.SCHEMA, {"a": 1})), "schema"),
        (Request.of("x", response_format=ResponseFormat(Shape.GRAMMAR, grammar="r")), "grammar"),
        (Request.of([user([Image(data=b"x")])]), "vision"),
        (Request.of("x", n=2), "choices"),
        (Request.of("x", logprobs=0), "logprobs"),
        (Request.of("x", prefill="y"), "prefill"),
        (Request.of("x", n=2, logprobs=1, prefill="y"), "choices, logprobs, prefill"),
    ],
)
def test_a_model_that_cannot_is_left_out_with_the_reason(request_: Request, lacking: str) -> None:
    """What the request needs and the card lacks is named in the reason."""
    ranking = rank(request_, [target("plain")])

    assert not ranking.targets
    assert ranking.excluded[0].note.startswith(f"cannot do {lacking}")


def test_what_everyone_can_needs_no_capability() -> None:
    """One choice, no log-probabilities, no prefill and any priority are asked of any model."""
    plain = Request.of("x", n=1, logprobs=None, prefill="", priority=100)

    assert names(plain, target("plain")) == ["plain"]


def test_every_model_is_accounted_for() -> None:
    """Each target stands once in the ranking, as candidate or excluded, with a note."""
    targets = [target("a"), target("b", None), target("c", last=True), target("d", local=False)]

    ranking = rank(Request.of("hi", allow_cloud=False), targets)

    rows = [*ranking.candidates, *ranking.excluded]
    assert sorted(row.vendor for row in rows) == ["a", "b", "c", "d"]
    assert all(row.note for row in rows)
    assert [c.vendor for c in ranking.candidates] == [t.card.vendor for t in ranking.targets]


def test_expected_usage_is_stated_arithmetic() -> None:
    """Four bytes a token in; 256 tokens out for each choice, or fewer if the request says so."""
    long = Usage(prompt_tokens=3, completion_tokens=256, estimated=True)

    assert expected_usage(Request.of("123456789")) == long
    assert expected_usage(Request.of("1", max_tokens=7)).completion_tokens == 7
    assert expected_usage(Request.of("1", max_tokens=7, n=3)).completion_tokens == 21
    assert expected_usage(Request.of("1", max_tokens=7000)).completion_tokens == 256
