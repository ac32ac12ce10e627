"""What a dispatcher learns of its models."""

from __future__ import annotations

import pytest

from llmdispatcher import (
    FREE,
    Capability,
    FinishReason,
    Image,
    ModelCard,
    Price,
    Request,
    ToolSpec,
    Usage,
    user,
)
from llmdispatcher.history import (
    HALF_LIFE_S,
    PRIOR_OUTPUT_TOKENS,
    PRIOR_REPLIES,
    PRIOR_SERVED,
    PRIOR_VERDICTS,
    History,
)
from llmdispatcher.models.quality import GOOD
from llmdispatcher.models.reply import Attempt, Finish, Outcome
from llmdispatcher.models.task import Complexity

CARD = ModelCard(
    vendor="v", model="m", local=False, price=FREE, capabilities=(Capability.CHAT,), quality=4
)


def attempt(outcome: Outcome, *, cost: int | None = 0, latency_s: float = 1.0) -> Attempt:
    """Return how an attempt ended."""
    return Attempt(
        vendor="v",
        model="m",
        outcome=outcome,
        usage=Usage(),
        cost_microusd=cost,
        latency_s=latency_s,
    )


def finish(
    reason: FinishReason = FinishReason.STOP,
    *,
    prompt_tokens: int = 0,
    completion_tokens: int = 0,
    cached_tokens: int = 0,
) -> Finish:
    """Return the end of a reply."""
    usage = Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        cached_tokens=cached_tokens,
    )
    return Finish(reason, usage)


def test_a_model_of_which_nothing_is_known_is_taken_to_serve() -> None:
    """Nothing speaks against it: it serves for sure, and nobody knows how long its replies are."""
    record = History().of(CARD)

    assert record.available(1e6) == 1.0
    assert record.typical is None
    assert record.per_byte == 0.25
    assert record.good == GOOD[4]


def test_failures_count_and_fade() -> None:
    """The chance to be served falls with failures, and half of each is forgotten in minutes."""
    history = History()
    history.begin(CARD)
    history.settle(CARD, attempt(Outcome.FAILED, cost=7, latency_s=2.0), 0.0)
    record = history.of(CARD)

    assert record.available(0.0) == pytest.approx(PRIOR_SERVED / (PRIOR_SERVED + 1))
    assert record.available(HALF_LIFE_S) == pytest.approx(PRIOR_SERVED / (PRIOR_SERVED + 0.5))
    assert record.available(100 * HALF_LIFE_S) == pytest.approx(1.0)
    assert record.lost_pico / record.failed == 7e6
    assert record.lost_s / record.failed == 2.0


def test_what_the_caller_gave_up_says_nothing() -> None:
    """A cancelled attempt moves nothing but the number in hand."""
    history = History()
    history.begin(CARD)
    assert history.of(CARD).in_hand == 1
    history.settle(CARD, attempt(Outcome.CANCELLED, cost=9), 0.0)
    record = history.of(CARD)

    assert (record.in_hand, record.served, record.failed, record.latency_s) == (0, 0, 0, None)


def test_the_length_of_replies_is_drawn_to_that_of_all() -> None:
    """After one reply the expectation lies between the prior and the reply; after many, there."""
    history = History()
    history.replied(CARD, Request.of("x"), finish(completion_tokens=10), 0)
    weight = PRIOR_REPLIES
    expected = (weight * PRIOR_OUTPUT_TOKENS + 10) / (weight + 1)
    assert history.of(CARD).typical == round(expected)

    for _ in range(300):
        history.replied(CARD, Request.of("x"), finish(completion_tokens=10), 0)
    assert history.of(CARD).typical == 10


def test_choices_are_counted_one_by_one() -> None:
    """Of a request for several choices the length is that of one."""
    history = History()
    for _ in range(300):
        history.replied(CARD, Request.of("x", n=4), finish(completion_tokens=40), 0)

    assert history.of(CARD).typical == 10


def test_a_reply_that_was_cut_does_not_make_replies_look_short() -> None:
    """One that ended at max_tokens would have been longer: it counts as the mean at least."""
    history = History()
    for _ in range(100):
        history.replied(CARD, Request.of("x"), finish(completion_tokens=500), 0)
    before = history.of(CARD).typical
    for _ in range(100):
        cut = finish(FinishReason.LENGTH, completion_tokens=5)
        history.replied(CARD, Request.of("x", max_tokens=5), cut, 0)

    assert before is not None
    assert history.of(CARD).typical == pytest.approx(before, rel=0.05)


def test_a_models_own_tokens_are_learned_from_its_usage() -> None:
    """Bytes for a token come from prompts that were counted; estimates teach nothing."""
    history = History()
    text = Request.of("x" * 8000)
    history.replied(
        CARD, text, Finish(FinishReason.STOP, Usage(prompt_tokens=1, estimated=True)), 0
    )
    assert history.of(CARD).per_byte == 0.25

    for _ in range(20):
        history.replied(CARD, text, finish(prompt_tokens=4000), 0)
    assert history.of(CARD).per_byte == pytest.approx(0.5, rel=0.01)


def test_the_cached_share_is_of_what_was_shown_before() -> None:
    """What a vendor bills as cached is held against what it had been shown, and is no more."""
    history = History()
    request = Request.of("x")
    history.replied(CARD, request, finish(prompt_tokens=2000, cached_tokens=1500), 1000)
    history.replied(CARD, request, finish(prompt_tokens=2000, cached_tokens=0), 1000)
    record = history.of(CARD)

    assert record.cached / record.warm == pytest.approx(0.9 / 1.9)


@pytest.mark.parametrize("complexity", list(Complexity))
def test_verdicts_move_the_chance_of_a_good_answer(complexity: Complexity) -> None:
    """As many as the prior weighs move it half of the way; other levels stay."""
    history = History()
    prior = GOOD[4][complexity - 1]
    for _ in range(int(PRIOR_VERDICTS)):
        history.judge(CARD, complexity, is_good=False)
    good = history.of(CARD).good

    assert good[complexity - 1] == pytest.approx(prior / 2)
    assert [g for i, g in enumerate(good, 1) if i != complexity] == [
        g for i, g in enumerate(GOOD[4], 1) if i != complexity
    ]


def test_a_card_of_another_quality_begins_with_its_own_prior() -> None:
    """Where the catalog is told better, verdicts on what was thought before count no more."""
    history = History()
    history.judge(CARD, Complexity.HARD, is_good=False)
    better = ModelCard(vendor="v", model="m", local=False, price=Price.per_million(1, 1), quality=5)

    assert history.of(better).good == GOOD[5]


def test_pictures_and_tools_teach_nothing_of_text() -> None:
    """Their tokens are in the usage, and no bytes of text stand for them."""
    history = History()
    pictured = Request(messages=[user(["what is this?", Image(data=b"x")])])
    tooled = Request.of("x" * 40, tools=[ToolSpec("f")])
    for work in (pictured, tooled):
        history.replied(CARD, work, finish(prompt_tokens=900, completion_tokens=1), 0)

    assert history.of(CARD).per_byte == 0.25

    history.replied(CARD, Request.of("x" * 4000), finish(prompt_tokens=2000), 0)
    assert history.of(CARD).per_byte == pytest.approx(0.5, abs=0.02)
