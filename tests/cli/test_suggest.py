"""The questions that the command line suggests for the embedded model."""

from __future__ import annotations

import pytest
from stories import Stories
from topics import Faq

from llmdispatcher import Dispatcher, suggest
from llmdispatcher.vendors.llamacpp.vendor import embedded

ENTRIES = {
    "What is llmdispatcher?": "what_is",
    "How do I use my own GGUF model?": "own_model",
    "What can you do?": "abilities",
    "How do I install it?": "install",
    "Does it work offline?": "offline",
    "How do I limit the memory?": "memory",
    "Tell me a joke": "joke",
    "How do I set a budget?": "budget",
    "How do I stream an answer?": "stream",
    "What happens if a vendor fails?": "fallback",
    "How do I use the GPU?": "gpu",
    "What are you?": "who",
}
"""Entries of faq.txt that answer a question; the others are answered by ANSWERS, or by a story."""

ANSWERS = {
    "What is the capital of Japan?": "The capital of Japan is Tokyo.",
    "What is 17 + 25?": "17 + 25 = 42",
    "Is 12 larger than 7?": "Of 12 and 7, 12 is larger, so yes.",
    "Give me the capital of Peru as JSON": '{"country": "Peru", "capital": "Lima"}',
    "Which country has the capital Oslo?": "Oslo is the capital of Norway.",
}


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    """What the shipped model answers to every question that is suggested, as chat asks it."""
    with Dispatcher(embedded()) as dispatcher:
        return {q: dispatcher.send(q, temperature=0.0).text for q in suggest.QUESTIONS}


def test_what_is_suggested_is_answered_right(answers: dict[str, str]) -> None:
    """The shipped model gives the entry's answer, the right number or name, or a whole story."""
    faq, stories = Faq(0), Stories()
    for question, answer in answers.items():
        if "story" in question:
            assert stories.faults(answer, question.split()[-1]) == []
        else:
            wanted = ANSWERS.get(question) or faq.answers[ENTRIES[question]]
            assert answer == wanted, question


def test_questions_take_turns() -> None:
    """Each is named in time, two at once are different, and the turns begin again."""
    turns = [suggest.some(turn) for turn in range(len(suggest.QUESTIONS))]

    assert {question for turn in turns for question in turn} == set(suggest.QUESTIONS)
    assert all(len(set(turn)) == suggest.AT_ONCE for turn in turns)
    assert suggest.some(0) == suggest.some(len(suggest.QUESTIONS))


def test_questions_are_quoted_in_a_sentence() -> None:
    """Two are joined by or, and before them stand commas."""
    assert suggest.listed(["a?", "b"]) == '"a?" or "b"'
    assert suggest.listed(["a?", "b", "c"]) == '"a?", "b" or "c"'
