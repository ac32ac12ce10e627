"""Replies: choices, log-probabilities, and what a reply is made of."""

from __future__ import annotations

import pickle
from typing import Any

import attrs
import pytest

from llmdispatcher import BadRequest, Choice, Decision, Delta, FinishReason, Reply, Usage
from llmdispatcher.models.reply import Finish, TokenLogprob

STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH
PARIS = TokenLogprob(" Paris", b" Paris", -0.1, (TokenLogprob(" Lyon", b" Lyon", -3.0),))


def reply(**facts: Any) -> Reply:
    """Make a reply that says ``x``, with some facts changed."""
    plain: dict[str, Any] = {
        "text": "x",
        "finish_reason": STOP,
        "usage": Usage(),
        "vendor": "v",
        "model": "m",
        "cost_microusd": 0,
        "latency_s": 0.5,
        "first_token_s": None,
        "decision": Decision(),
    }
    return Reply(**plain | facts)


def test_a_reply_has_at_least_its_own_choice() -> None:
    """A reply made without choices has one, which says the same."""
    assert reply().choices == (Choice("x", STOP),)
    assert reply().logprobs == ()
    assert str(reply()) == "x"


def test_a_reply_speaks_for_its_first_choice() -> None:
    """Text, finish reason and log-probabilities are those of the first choice."""
    made = reply(choices=(Choice("x", STOP, (PARIS,)), Choice("y", LENGTH)))

    assert (made.text, made.finish_reason, made.logprobs) == ("x", STOP, (PARIS,))
    assert made.choices[1] == Choice("y", LENGTH, ())


@pytest.mark.parametrize("choices", [(), (Choice("y", STOP),), (Choice("x", LENGTH),)])
def test_choices_that_say_something_else_are_refused(choices: tuple[Choice, ...]) -> None:
    """A reply cannot disagree with its own first choice."""
    with pytest.raises(BadRequest, match="begun with the reply's own text and finish_reason"):
        reply(choices=choices)


@pytest.mark.parametrize(
    "value",
    [
        PARIS,
        Delta("a", 3, (PARIS,)),
        Choice("a", STOP, (PARIS,)),
        Finish(STOP, Usage(), (), (LENGTH, STOP)),
        reply(choices=(Choice("x", STOP, (PARIS,)), Choice("y", LENGTH))),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_are_equal_frozen_and_travel(value: Any) -> None:
    """What comes back is compared by its fields, cannot be changed, and survives pickling."""
    assert pickle.loads(pickle.dumps(value)) == value  # noqa: S301 - our own bytes
    assert attrs.evolve(value) == value
    assert hash(attrs.evolve(value)) == hash(value)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(value, attrs.fields(type(value))[0].name, "other")


def test_a_delta_is_of_the_first_choice_unless_it_says() -> None:
    """A piece and an end that say nothing of choices are those of a single one."""
    assert (Delta("a").index, Delta("a").logprobs) == (0, ())
    assert Finish(STOP, Usage()).others == ()


def test_usage_of_strangers_adds_up_to_no_more_than_a_count_can_be() -> None:
    """Two vendors' nonsense is still a usage, and no error of the caller's."""
    most = Usage(prompt_tokens=2**63 - 1, charged_microusd=2**63 - 1)

    assert most + most == most
