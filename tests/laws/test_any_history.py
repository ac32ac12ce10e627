"""Whatever happened to the models of a dispatcher, choosing among them comes to an end."""

from __future__ import annotations

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdispatcher import FinishReason, Price, Request, Routing, Scripted, Usage
from llmdispatcher.history import History
from llmdispatcher.models.reply import Attempt, Finish, Outcome
from llmdispatcher.models.strategy import STRATEGIES
from llmdispatcher.route import Seen, rank
from llmdispatcher.shelf import Shelf, Target

PRICE = Price.per_million(1, 1)

COUNTS = st.integers(0, 2**40)


@st.composite
def happened(draw: st.DrawFn) -> tuple[Attempt, Finish | None]:
    """Draw what became of an attempt, in any figures that a vendor may tell."""
    prompt, cached = draw(COUNTS), draw(COUNTS)
    usage = Usage(
        prompt_tokens=prompt,
        cached_tokens=min(prompt, cached),
        completion_tokens=draw(COUNTS),
        estimated=draw(st.booleans()),
    )
    outcome = draw(st.sampled_from(Outcome))
    attempt = Attempt(
        vendor="v",
        model="m",
        outcome=outcome,
        usage=usage,
        cost_microusd=draw(st.none() | COUNTS),
        latency_s=draw(st.floats(0, 1e6)),
    )
    end = Finish(draw(st.sampled_from(FinishReason)), usage)
    return attempt, end if outcome is Outcome.SERVED else None


@given(
    st.lists(st.tuples(st.sampled_from("ab"), happened(), st.floats(-1e9, 1e9)), max_size=12),
    st.sampled_from([name for name, each in STRATEGIES.items() if each.only == "anywhere"]),
    st.floats(0, 1e9),
)
@settings(deadline=None)
def test_whatever_happened_everybody_stands_in_the_ranking(
    past: list[tuple[str, tuple[Attempt, Finish | None], float]], strategy: str, now_s: float
) -> None:
    """After any attempts, at times in any order, each has one place, and its arithmetic is told."""
    vendors = Scripted(name="a", price=PRICE), Scripted(name="b", price=None)
    tiered = Price.per_million(1, 1, above={"tokens": 9, "input": 2, "output": 3})
    targets = [Target(each.card, each.start(lambda _: None)) for each in vendors]
    targets.append(
        Target(attrs.evolve(vendors[0].card, vendor="c", price=tiered), targets[0].engine)
    )
    history, request = History(), Request.of("x" * 5000, n=64, strategy=strategy)
    routing = Routing(value_of_time_usd=20)
    cards = {target.card.vendor: target.card for target in targets}
    for name, (attempt, end), at_s in past:
        history.begin(cards[name])
        history.settle(cards[name], attempt, at_s)
        if end is not None:
            history.replied(cards[name], request, end, 2000)
    shelf = Shelf(targets, (), routing, history)
    ranking = rank(
        request, shelf, Seen(now_s=now_s, warm={"a/script": 4000}, counts={"a/script": 7})
    )

    assert sorted(target.card.vendor for target in ranking.targets) == ["a", "b", "c"]
    assert [row.vendor for row in ranking.candidates] == [t.card.vendor for t in ranking.targets]
    for record in shelf.records:
        assert 0 < record.available(now_s) <= 1
        assert 0 < record.per_byte <= 1
        assert record.in_hand == 0
