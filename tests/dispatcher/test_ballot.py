"""What of answers is compared, and who wins a vote."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdispatcher.ballot import Vote, answer, count, is_decided, last_number


@pytest.mark.parametrize(
    "same",
    [
        ("Paris", "paris.", "  PARIS \n", "**Paris**", '"Paris!"'),
        ("1,000", "1000.0", "1000", "$1,000.00", "1e3", "+1000"),
        ("0", "-0", "0.00", "0e5"),
        (".5", "0.5", "0.50"),
        ("-3", "-3.0", "\N{FULLWIDTH HYPHEN-MINUS}3"),
        ("yes  or\nno", "Yes or no"),
        ('{"a": 1, "b": [2.0, "x"]}', '```json\n{"b":[2,"x"],"a":1.0}\n```'),
        ("stra\N{LATIN SMALL LETTER SHARP S}e", "STRASSE"),
    ],
)
def test_answers_that_are_the_same(same: tuple[str, ...]) -> None:
    """Case, space, punctuation around, and the ways to write a number or JSON make no other."""
    assert len({answer(text) for text in same}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Paris", "London"),
        ("3", "-3"),
        ("1000", "1000.5"),
        ("yes", "yes or no"),
        ('{"a": 1}', '{"a": "1"}'),
        ('{"a": [1, 2]}', '{"a": [2, 1]}'),
        ("1" * 200, "1" * 199 + "2"),
        ('{"a": true}', '{"a": 1}'),
        ("[1", "[2"),
    ],
)
def test_answers_that_are_not(one: str, other: str) -> None:
    """What means something else is another answer."""
    assert answer(one) != answer(other)


def test_a_last_number() -> None:
    """The last number of a text, in one form; where there is none, the text."""
    assert last_number("2 and 2 are 4, so 4.0.") == "4"
    assert last_number("It is 1,234 in all") == "1234"
    assert last_number("No number.") == answer("no number")


@given(st.text(max_size=60))
def test_any_text_has_a_form_that_is_its_own(text: str) -> None:
    """What comes out says the same as what went in: a form of a form is the form, but for JSON."""
    form = answer(text)
    assert form.startswith(("{", "[")) or answer(form) == form


@pytest.mark.parametrize("depth", [10, 100_000])
def test_deep_json_is_compared_as_what_it_is(depth: int) -> None:
    """What a model wrote may be deep; it is an answer all the same."""
    assert answer("[" * depth + "]" * depth)


FORMS = st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=7)


def votes(forms: list[str]) -> list[Vote]:
    """A vote for each form."""
    return [Vote(f"v{at}", 3, form, form) for at, form in enumerate(forms)]


@given(FORMS.filter(bool))
def test_the_winner_has_most_votes(forms: list[str]) -> None:
    """Every vote is in one group; none has more than the first, empty answers aside."""
    counted = count(votes(forms))

    assert sorted(vote.form for group in counted.groups for vote in group) == sorted(forms)
    said = [form for form in forms if form] or forms
    assert len(counted.groups[0]) == max(said.count(form) for form in said)
    assert counted.is_tied == (
        len({form for form in said if said.count(form) == len(counted.groups[0])}) > 1
    )


@given(FORMS.filter(bool), st.integers(0, 3))
def test_a_decided_vote_stays_decided(forms: list[str], outstanding: int) -> None:
    """Whatever those say who are still to come, the same answer wins."""
    winner = count(votes(forms)).winner.form
    if is_decided(votes(forms), outstanding):
        for more in permutations(["a", "b", "c", "d"], outstanding):
            assert count(votes([*forms, *more])).winner.form == winner
        for same in "abcd":
            assert count(votes([*forms, *[same] * outstanding])).winner.form == winner


def test_nobody_votes() -> None:
    """Without a vote nothing is decided."""
    assert not is_decided([], 0)
    with pytest.raises(ValueError, match="no vote"):
        count([])
