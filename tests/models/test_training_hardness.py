"""What a trained model got wrong is drawn more often when the next one is trained."""

from __future__ import annotations

import pytest
from grammar import seeded
from hardness import hardness
from topics import DRILL, Faq, load_grammar, read_hard
from wording import Mistakes, Writer, normalise


def test_a_pattern_that_is_hard_is_drawn_more_often() -> None:
    """A pattern that was always answered wrongly five times as often as another of its entry."""
    name = "licence"
    hard, *easy = Faq(0).patterns[name]
    faq, random = Faq(0, {hard: 1.0}), seeded(3)
    writer = Writer(load_grammar(), Mistakes(0, 0, 1, 0, 0, 0, 0, 0))  # as it is in the pattern
    others = {normalise(said) for pattern in easy for said in writer.grammar.every(pattern)}
    drawn = [normalise(faq.draw_entry(name, random, writer).question) for _ in range(2000)]
    share = sum(each not in others for each in drawn) / len(drawn)

    assert share == pytest.approx((1 + DRILL) / (1 + DRILL + len(easy)), abs=0.05)


def test_an_entry_of_hard_patterns_is_drawn_more_often() -> None:
    """By as much as its patterns are on the mean, and all others as before."""
    plain = Faq(0)
    name, answer = plain.names[0], plain.answers[plain.names[0]]
    faq, random = Faq(0, dict.fromkeys(plain.patterns[name], 1.0)), seeded(3)
    writer = Writer(load_grammar())
    drawn = [faq.draw(random, writer).answer for _ in range(3000)]

    assert drawn.count(answer) / len(drawn) == pytest.approx(
        (1 + DRILL) / (DRILL + len(plain.names)), abs=0.02
    )
    assert set(drawn) == set(plain.answers.values())


def test_what_is_hard_is_found_by_asking() -> None:
    """The share of wrong answers to each pattern, and none of what is always known."""
    faq = Faq(0)
    name = "licence"
    faq.patterns = {name: faq.patterns[name]}
    found = hardness(lambda _: faq.answers[name], faq)
    missed = hardness(lambda _: "42", faq)

    assert found == {}
    assert missed == dict.fromkeys(faq.patterns[name], 1.0)


def test_what_was_hard_is_still_asked() -> None:
    """The file of hard patterns names patterns that are there, with shares of wrong answers."""
    patterns = {pattern for each in Faq(0).patterns.values() for pattern in each}
    hard = read_hard()

    assert hard
    assert set(hard) <= patterns
    assert all(0 < share <= 1 for share in hard.values())
