"""What is measured of the embedded model: gates, the exam, and what the card says of both."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from card import Facts, card
from exam import (
    KINDS,
    Overlap,
    Question,
    read_exam,
    recorded,
    result,
    section,
    sha256,
    with_section,
)
from scores import (
    GATES,
    Score,
    logit_row,
    missed,
    parity_row,
    row_of,
    size_row,
    table,
    unmeasured,
    wilson,
)
from topics import REFUSAL

FACTS = Facts(
    name="tiny",
    command="run.py",
    parameters=1000,
    vocabulary=300,
    steps=10,
    seed=0,
    threads=1,
    trained_tokens=1_000_000,
    training_seconds=60.0,
    entries=80,
    countries=150,
    subjects=60,
    versions="torch 2",
)
RIGHT = Question("use", "How do I install it?", (re.compile("pip install", re.IGNORECASE),))
OFF = Question("off", "Who was Napoleon?", ())


def test_a_gate_is_met_from_its_share_on() -> None:
    """Exactly the share is enough, and one answer less is not."""
    name = "Sums of unseen pairs"
    assert GATES[name] == 0.95
    assert Score(name, 285, 300).is_met is True
    assert Score(name, 284, 300).is_met is False
    assert Score(name, 0, 0).is_met is False
    assert Score("Country of a capital", 1, 300).is_met is None


def test_missed_gates_are_shown_and_counted() -> None:
    """The table says which gates are missed, and nothing else counts as missed."""
    rows = [
        row_of(Score("Yes or no", 290, 300)),
        row_of(Score("JSON, correct", 299, 300)),
        row_of(Score("Country of a capital", 0, 300)),
        logit_row(2e-3),
        size_row(4_000_000),
        parity_row(Score("Tokenizer parity with llama.cpp", 9_999, 9_999)),
    ]
    assert [row.name for row in missed(rows)] == [rows[0].name, rows[3].name, rows[5].name]
    assert "| Yes or no | 96.7 % | 290/300 | at least 97 % | **no** |" in table(rows)
    assert "| File size | 4.00 MB (Q8_0) |  | at most 4 MB | yes |" in table(rows)
    assert "Stories, well formed" in unmeasured(rows)
    assert "Yes or no" not in unmeasured(rows)


@pytest.mark.parametrize(
    ("right", "asked", "low", "high"),
    [(8, 10, 0.490, 0.943), (0, 10, 0.0, 0.278), (10, 10, 0.722, 1.0), (0, 0, 0.0, 1.0)],
)
def test_intervals_are_wilsons(right: int, asked: int, low: float, high: float) -> None:
    """Published values of the interval are met to three digits."""
    assert wilson(right, asked) == pytest.approx((low, high), abs=6e-4)


def test_an_answer_is_right_by_what_it_holds() -> None:
    """Any expression is enough, in any case; what is off topic must be refused."""
    assert RIGHT.is_right("Run: PIP INSTALL llmdispatcher")
    assert not RIGHT.is_right(REFUSAL)
    assert OFF.is_right(REFUSAL)
    assert not OFF.is_right("An emperor.")


def test_overlap_counts_trigrams_that_were_read() -> None:
    """Case and marks do not matter; a question that was read whole is named."""
    overlap = Overlap(["How do I install it?", "How do I eat soup?", "Hi"])
    overlap.read("so, how do I install this", "You do I install it")
    assert overlap.share("How do I install it?") == 1.0
    assert overlap.share("How do I eat soup?") == pytest.approx(1 / 3)
    assert overlap.share("Hi") is None
    assert overlap.mean() == pytest.approx(2 / 3)
    assert overlap.verbatim == set()
    overlap.read("HOW DO I INSTALL IT", "")
    assert overlap.verbatim == {"How do I install it?"}


def test_the_exam_is_recorded_by_kind_and_by_what_was_read() -> None:
    """Questions that the training text holds are counted apart, and not hidden."""
    overlap = Overlap([RIGHT.question, OFF.question])
    overlap.read(RIGHT.question, "")
    told = result([RIGHT, OFF], ["pip install it", "An emperor."], overlap)

    assert (told["all"]["right"], told["all"]["asked"]) == (1, 2)
    assert (told["in_training_text"]["right"], told["in_training_text"]["asked"]) == (1, 1)
    assert (told["not_in_training_text"]["right"], told["not_in_training_text"]["asked"]) == (0, 1)
    assert set(told["kinds"]) == {"use", "off"}
    assert "| about using llmdispatcher | 100.0 % | 1/1 |" in section(told)


def test_a_result_counts_for_its_own_file_alone(tmp_path: Path) -> None:
    """Another model, or other questions, have not been examined."""
    model, questions, path = (tmp_path / name for name in ("m.gguf", "q.jsonl", "r.json"))
    model.write_bytes(b"weights")
    questions.write_text("{}")
    assert recorded(model, questions, path) is None
    hashes = {"model_sha256": sha256(model), "exam_sha256": sha256(questions)}
    path.write_text(json.dumps(hashes | {"all": 1}))
    assert recorded(model, questions, path) == hashes | {"all": 1}
    questions.write_text("{ }")
    assert recorded(model, questions, path) is None
    questions.write_text("{}")
    model.write_bytes(b"other weights")
    assert recorded(model, questions, path) is None


def test_a_question_without_an_answer_is_refused(tmp_path: Path) -> None:
    """A line that nothing could answer, or of an unknown kind, is named."""
    path = tmp_path / "exam.jsonl"
    for line in (
        '{"kind": "use", "question": "?"}',
        '{"kind": "x", "question": "?", "accept": [""]}',
    ):
        path.write_text(line)
        with pytest.raises(ValueError, match=r"exam.jsonl:1"):
            read_exam(path)
    path.write_text('{"kind": "off", "question": "?"}')
    assert [question.kind for question in read_exam(path)] == ["off"]


def test_the_card_tells_of_the_exam_or_that_there_was_none() -> None:
    """The section can be replaced in a card that is written, and nothing around it changes."""
    rows = [row_of(Score("Yes or no", 300, 300))]
    overlap = Overlap([RIGHT.question])
    told = result([RIGHT], ["pip install"], overlap)
    before, after = card(rows, FACTS, None), card(rows, FACTS, told)

    assert "has not been asked them" in before
    assert "has not been asked them" not in after
    assert with_section(before, told) == after
    assert with_section(after, None) == before
    with pytest.raises(ValueError, match="no heading"):
        with_section("# A card", told)
    assert set(told["kinds"]) <= set(KINDS)
