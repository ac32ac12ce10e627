"""How hard a question is, and how far an answer is to be trusted: bounds, directions, the file."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from importlib import resources
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdispatcher import answer_marks, difficulty, question_marks
from llmdispatcher.difficulty import MOST_CUES, RARE, Weights, doubt, parsed
from llmdispatcher.models.errors import BadRequest

QUESTION = (
    "Mia buys 4 boxes of 12 pencils for $3 each. She gives 6 pencils to her brother. How many"
    " pencils does she have left?"
)
ANSWER = "Mia has 4 * 12 = 48 pencils.\nShe gives 6 away, so 48 - 6 = 42 are left.\n#### 42"
ALL = {**question_marks.MARKS, **answer_marks.MARKS}
TALL = "She sold 3 of 4.5 m² for 12 % each; if x = 2 + 2 = 5, then maybe not. \ud800\0 "


def told() -> Mapping[str, Any]:
    """Return the file as it is shipped."""
    text = resources.files("llmdispatcher.models").joinpath(difficulty.FILE).read_text("utf-8")
    read: Mapping[str, Any] = json.loads(text)
    return read


@pytest.fixture(params=["difficulty", "doubt"])
def weights(request: pytest.FixtureRequest) -> Weights:
    """Either part of the file."""
    return parsed(told()[request.param])


@settings(max_examples=40)
@given(st.text(max_size=400), st.text(max_size=400))
def test_chances_are_chances(question: str, answer: str) -> None:
    """Any text has a chance strictly between 0 and 1, the same each time, and few cues."""
    first, second = difficulty.difficulty(question), doubt(question, answer)

    for chance in (first.chance_weak, second.chance_right):
        assert difficulty.LEAST_CHANCE <= chance <= 1 - difficulty.LEAST_CHANCE
    assert max(len(first.cues), len(second.cues)) <= MOST_CUES
    assert (first, second) == (difficulty.difficulty(question), doubt(question, answer))


@pytest.mark.parametrize("unit", ["1+", "( ", "\n", TALL])
def test_long_texts_are_read_at_both_ends(unit: str) -> None:
    """Of ten megabytes no more than both ends are read, of question and answer alike."""
    text = unit * (10_000_000 // len(unit))
    ends = question_marks.window(text)

    assert len(ends) <= 2 * question_marks.WINDOW + 1
    of_whole, of_ends = (answer_marks.answer_marks(each, each) for each in (text, ends))
    assert of_whole.pop("length") == of_whole.pop("answer_length") == len(text)
    assert of_ends.pop("length") == of_ends.pop("answer_length") == len(ends)
    assert of_whole == of_ends
    assert not doubt(text, text).familiar


@pytest.mark.parametrize("value", [b"text", None, 3, ["text"]])
def test_what_is_no_text_is_refused(value: Any) -> None:
    """Anything but text is a BadRequest that names the argument."""
    with pytest.raises(BadRequest, match="text is"):
        difficulty.difficulty(value)
    with pytest.raises(BadRequest, match="question is"):
        doubt(value, "")
    with pytest.raises(BadRequest, match="answer is"):
        doubt("", value)


def test_weights_keep_their_signs(weights: Weights) -> None:
    """What may only speak against an answer never raises its chance, by whatever the data says."""
    for name, weight in weights.by_mark.items():
        assert weight.per_log * ALL[name].sign >= 0, name


@settings(max_examples=40)
@given(st.data())
def test_more_of_what_is_hard_is_never_easier(data: st.DataObject) -> None:
    """Raising one count that speaks against an answer never raises the chance, at any others."""
    part = parsed(told()[data.draw(st.sampled_from(["difficulty", "doubt"]))])
    counts = st.floats(0, 1e9, allow_nan=False)
    marks = {name: data.draw(counts) for name in part.by_mark}
    against = sorted(name for name in part.by_mark if ALL[name].sign < 0)
    name = data.draw(st.sampled_from(against))

    more = {**marks, name: marks[name] + data.draw(counts)}

    assert part.chance(more) <= part.chance(marks)


@pytest.mark.parametrize(
    ("worse", "cue"),
    [
        (ANSWER.replace("= 48", "= 58"), "sums that do not hold: 1 (against)"),
        (ANSWER.replace("#### 42", "#### 41"), "its result is none that it worked out (against)"),
        (ANSWER.replace("#### 42", "#### 42.5"), "ends in a decimal fraction (against)"),
        ("It depends on the day, I'm not sure.", "does not end in a number (against)"),
        ("42", "no sum that can be checked (against)"),
        (f"{ANSWER}\n#### 42\n#### 42\n#### 42", "lines that repeat: 3 (against)"),
        (ANSWER.removesuffix("\n#### 42") + " So then she,", "breaks off (against)"),
        ("", "is empty (against)"),
        (" \n\t ", "is empty (against)"),
        ("Mia has 4 * 12 = 48 pencils.\n#### 48", "numbers of the question that are not used: 2"),
    ],
)
def test_bad_signs_lower_the_chance_and_are_named(worse: str, cue: str) -> None:
    """What is wrong with an answer lowers its chance below that of the good one, and is a cue."""
    good, bad = doubt(QUESTION, ANSWER), doubt(QUESTION, worse)

    assert bad.chance_right < good.chance_right
    assert any(each.startswith(cue) for each in bad.cues), bad.cues


def test_a_good_answer_is_trusted_more_than_its_question_was() -> None:
    """An answer whose sums hold, and that uses what it was given, raises the chance."""
    assert doubt(QUESTION, ANSWER).chance_right > difficulty.difficulty(QUESTION).chance_weak > 0.5


def test_a_harder_question_is_harder() -> None:
    """A question with more numbers, steps and conditions has less of a chance, and says why."""
    hard = (
        f"{QUESTION} If she then sold a third of them for 15% more than twice what she had paid,"
        " and spent 1,250 cents of her profit on average each week, how many weeks remained until"
        " the difference was gone?"
    )

    judged = difficulty.difficulty(hard)

    assert judged.chance_weak < difficulty.difficulty(QUESTION).chance_weak
    assert f"characters: {len(hard)} (harder)" in judged.cues


def test_strange_texts_are_said_to_be_strange() -> None:
    """A question unlike those of the training data is not familiar, whatever its chance."""
    assert difficulty.difficulty(QUESTION).familiar
    assert doubt(QUESTION, ANSWER).familiar
    assert not difficulty.difficulty("Hello").familiar
    assert not difficulty.difficulty(QUESTION * 20).familiar
    assert not doubt(QUESTION, "").familiar


def test_counts_beyond_the_data_weigh_no_more() -> None:
    """A count beyond what the training data had moves the chance as far as the last one there."""
    weight = difficulty.Weight(per_log=-1.0, centre=0.5, low=2.0, high=9.0)
    rare = attrs.evolve(weight, low=0.0, high=0.0)

    assert weight.logits(9.0) == weight.logits(1e300) == pytest.approx(0.5 - math.log(10))
    assert weight.logits(2.0) == weight.logits(0.0) == pytest.approx(0.5 - math.log(3))
    assert rare.logits(RARE) == rare.logits(1e300) < rare.logits(1.0)


def test_the_file_is_small_whole_and_readable() -> None:
    """The file has a line for each thing that is counted, in the names of the code, under 20 KB."""
    text = resources.files("llmdispatcher.models").joinpath(difficulty.FILE).read_text("utf-8")
    data = told()

    assert len(text.encode()) < 20_000
    assert list(data["difficulty"]["marks"]) == list(question_marks.MARKS)
    assert list(data["doubt"]["marks"]) == list(ALL)
    assert data["about"]["questions"] == 1319
    for name in ALL:
        assert any(line.strip().startswith(f'"{name}": {{') for line in text.splitlines())
    for part in ("difficulty", "doubt"):
        for row in data[part]["marks"].values():
            assert all(math.isfinite(value) for value in row.values())


def test_nothing_is_read_before_it_is_asked_for() -> None:
    """The package does not import it, its import reads no file, and it never needs numpy."""
    code = (
        "import sys, llmdispatcher; before = 'llmdispatcher.difficulty' in sys.modules;"
        "from llmdispatcher import difficulty as d; idle = d._read.cache_info().currsize;"
        "d.doubt('1 + 1?', '2'); d.difficulty('3?');"
        "print(before, idle, d._read.cache_info().misses, 'numpy' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "0", "1", "False"]
