"""What a request is for, read on an exam in other people's words, and what the reading promises."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import pytest
from scoring import macro_f1

from llmdispatcher.models.errors import BadRequest
from llmdispatcher.models.message import assistant, system, user
from llmdispatcher.models.request import Request
from llmdispatcher.models.task import TASK_RULES, Complexity, Task, TaskRule
from llmdispatcher.task_facts import WINDOW_CHARS, window
from llmdispatcher.tasks import read
from llmdispatcher.tongue import tongue

DATA = Path(__file__).parents[1] / "data"
GATE = 0.80
FROZEN = "9d2817073924a5602a95f83858066fc478a3372bf0500cfa32aba58533c6c05f"
"""Of the exam, which is older than the rules and the weights; tests/data/README.md tells how."""

EXAM, PACKAGES = "task_exam.json", "task_prompts_packages.json"
DEVELOPMENT = "task_prompts_development.json"


def prompts_of(name: str) -> list[dict[str, Any]]:
    """Return prompts, each with its label."""
    stored = json.loads((DATA / name).read_bytes())
    prompts: list[dict[str, Any]] = stored["prompts"] if isinstance(stored, dict) else stored
    return prompts


def normal(prompt: str) -> str:
    """Return the words of a prompt alone."""
    return " ".join("".join(c if c.isalnum() else " " for c in prompt.lower()).split())


def test_the_exam_is_the_one_that_was_frozen() -> None:
    """The exam stays as it was frozen: at least 300 prompts, 25 of each task."""
    assert hashlib.sha256((DATA / EXAM).read_bytes()).hexdigest() == FROZEN
    times = Counter(prompt["task"] for prompt in prompts_of(EXAM))
    assert set(times) == set(Task)
    assert sum(times.values()) >= 300
    assert min(times.values()) >= 25


@pytest.mark.parametrize("asked", [EXAM, PACKAGES])
def test_no_prompt_that_is_asked_was_learned_from(asked: str) -> None:
    """The prompts that the weights were learned from share none with those that are measured on."""
    learned = {normal(each["prompt"]) for each in prompts_of(DEVELOPMENT)}
    assert not learned & {normal(each["prompt"]) for each in prompts_of(asked)}


def test_tasks_are_read_well_in_other_peoples_words() -> None:
    """Macro-F1 on the exam reaches the gate; the commonest task alone comes nowhere near."""
    right = [prompt["task"] for prompt in prompts_of(EXAM)]
    given = [read(Request.of(prompt["prompt"])).task for prompt in prompts_of(EXAM)]
    commonest = Counter(right).most_common(1)[0][0]
    assert macro_f1(zip(right, given, strict=True), list(Task)) >= GATE
    assert macro_f1(((each, commonest) for each in right), list(Task)) < 0.05


@pytest.mark.parametrize(
    ("prompt", "task"),
    [
        ("Write a Python function that reverses a string.", Task.CODE_GENERATION),
        ("Please review this pull request for security issues.", Task.CODE_REVIEW),
        ("Fix the bug: the list is empty after the second click.", Task.DEBUGGING),
        ("KeyError: 'name' - how do I solve this error?", Task.ERROR_DIAGNOSIS),
        ("If 4 pens cost 6 dollars, how much do 10 pens cost?", Task.REASONING),
        ("Summarize the following article in two sentences.", Task.SUMMARISATION),
        ("What is the average revenue per month in sales.csv?", Task.DATA_INTERPRETATION),
        ("Every morning, fetch new orders and notify Slack.", Task.WORKFLOW_GENERATION),
        ("What is the capital of France?", Task.QUESTION_ANSWERING),
        ("Write a poem about the moon.", Task.GENERAL),
    ],
)
def test_plain_cases(prompt: str, task: Task) -> None:
    """A plain request of each task is read as such, with cues that say why."""
    reading = read(Request.of(prompt))
    assert reading.task is task
    assert reading.cues
    assert 0 < reading.sureness <= 1


@pytest.mark.parametrize("prompt", ["", " ", "xyzzy", "\x00", "🙂", "?", "\n" * 9_000])
def test_where_nothing_is_found(prompt: str) -> None:
    """A text that says nothing is general, or a question at most, and never an error."""
    reading = read(Request.of(prompt))
    assert reading.task in {Task.GENERAL, Task.QUESTION_ANSWERING}
    assert reading.complexity in Complexity


def test_the_last_turn_of_the_user_decides() -> None:
    """What was asked before does not outweigh a clear last turn."""
    turns = [
        system("You write poems."),
        user("Write a poem about the sea."),
        assistant("The sea, the sea."),
        user("Summarize the following article in two sentences: the tram is late."),
    ]
    assert read(Request.of(turns)).task is Task.SUMMARISATION


def test_a_short_turn_is_read_with_what_stands_before_it() -> None:
    """A last turn that says little takes its sense from the turn before."""
    before = user("Write a Python function that parses ISO dates.")
    turns = [before, assistant("def f(): ..."), user("and in Rust")]
    assert read(Request.of(turns)).task is Task.CODE_GENERATION


def test_only_the_two_ends_of_a_text_are_looked_at() -> None:
    """The middle of ten megabytes changes nothing but the length, and the ends are kept whole."""
    ask = "Summarize the following report.\n"
    one = ask + "The committee met and talked. " * 400_000
    middle = len(one) // 2
    other = one[:middle] + "Fix the bug! " * 100 + one[middle + 1_300 :]
    assert read(Request.of(one)) == read(Request.of(other))
    assert read(Request.of(one)).task is Task.SUMMARISATION
    assert len(window(one)) == 2 * WINDOW_CHARS + 1
    assert window(one).startswith(ask)


HOSTILE = [
    "a" * 9_000,
    "<" + "a" * 9_000,
    " " * 9_000,
    ")" * 9_000 + "x",
    "a/" * 4_500,
    "a.a" * 3_000,
    "{" * 9_000,
    "`" * 9_000,
    '"' * 9_000,
    "ABC " * 2_200,
    "1,1." * 2_200,
    "```\n" * 2_200,
    "Error" * 1_800,
    "- " * 4_500,
    "x = " * 2_200,
    "def " * 2_200,
    "\t,;|" * 2_200,
    "if, " * 2_200,
    "->a" * 3_000,
    '"' + "a" * 9_000,
    "A_" * 4_500,
    "[A" * 4_500,
    "日本 " * 3_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_come_to_an_end(text: str) -> None:
    """Text made to lead patterns astray is read like any other, alone and in ten thousand lines."""
    assert read(Request.of(text)).task in Task
    assert read(Request.of(f"{text}\n" * 100)).task in Task


@pytest.mark.parametrize(
    "more",
    [
        "\n- keep the tests\n- keep the names\n- keep the docs",
        " It must only use the standard library and never block.",
        " Then sort it, then print it, finally close it.",
        " Why? How? When? What else?",
        " Prove that it is optimal, and derive its complexity.",
        "\n```\n" + "x = f(x)\n" * 45 + "```",
        " And so on." * 300,
    ],
)
def test_complexity_never_falls_when_more_is_asked(more: str) -> None:
    """Each thing that is counted can only make a request harder."""
    ask = "Write a function that merges two lists."
    levels = [read(Request.of(ask + more * times)).complexity for times in range(4)]
    assert levels == sorted(levels)
    assert levels[0] is Complexity.SIMPLE
    assert levels[-1] > Complexity.SIMPLE


@pytest.mark.parametrize(
    ("prompt", "task"),
    [
        ("Fasse den Bericht in zwei Sätzen zusammen.", Task.SUMMARISATION),
        ("Escribe una función en Python que invierta una lista.", Task.CODE_GENERATION),
        ("次の文章を三行で要約してください。", Task.SUMMARISATION),
        ("Напиши функцию на Python, которая сортирует список.", Task.CODE_GENERATION),
    ],
)
def test_plain_cases_of_other_languages(prompt: str, task: Task) -> None:
    """A plain request is read in other languages too, with and without blanks between words."""
    assert read(Request.of(prompt)).task is task


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What is the capital of France?", "en"),
        ("Was ist der Unterschied zwischen der GmbH und einer AG?", "de"),
        ("Quelle est la capitale de la France et pourquoi ?", "fr"),
        ("¿Cuál es la capital de España y por qué?", "es"),
        ("Напиши короткое стихотворение про море", "ru"),
        ("Напиши вірш про її щедрий дім", "uk"),
        ("请写一首关于大海的诗", "zh"),
        ("海についての詩を書いてください", "ja"),
        ("바다에 대한 시를 써 주세요", "ko"),
        ("اكتب قصيدة عن البحر", "ar"),
        ("xyzzy", None),
        ("", None),
        ("x = 1", None),
    ],
)
def test_languages(text: str, language: str | None) -> None:
    """A script or small words tell the language; where neither does, none is named."""
    assert tongue(text) == language


def test_importing_the_reading_loads_no_table() -> None:
    """The tables come with the first request, not with the import."""
    code = (
        "import sys, llmdispatcher, llmdispatcher.tasks\n"
        "tables = ('task_facts', 'task_words', 'task_together', 'task_tongues', 'tongue')\n"
        "assert not [name for name in sys.modules if name.endswith(tables)]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_task_has_a_rule() -> None:
    """The defaults name a floor and a place for every task, within what a rule allows."""
    assert set(TASK_RULES) == set(Task)
    with pytest.raises(BadRequest, match="least_quality"):
        TaskRule(least_quality=6)
    with pytest.raises(BadRequest, match="prefers"):
        attrs.evolve(TASK_RULES[Task.GENERAL], prefers="nowhere")
