"""Reads what a request is for: the kind of task, how hard it is, in which language it is asked.

A small linear model over facts that have names (``task_facts.py``): each fact that is seen adds its
weights (``models/tasks.json``) to the tasks that it speaks for, and the task with the highest sum
wins. The weights were learned from prompts of our own (``models/training/tasks.py``). What is read
is the last turn of the user, with a glance at what stands before it where the turn alone says
little; of a long text, its two ends.

Tables are loaded when first asked, not when this module is imported.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from llmdispatcher.models.message import Role
from llmdispatcher.models.task import Complexity, Reading, Task

if TYPE_CHECKING:
    from llmdispatcher.models.message import Message
    from llmdispatcher.models.request import Request
    from llmdispatcher.task_facts import Phrases, Sight

MAX_CUES = 5
"""Shown of a reading."""

LEAST_CUE = 0.15
"""A fact that adds less has decided nothing."""

SURE = 0.6
"""Above this, what was said before the last turn is not looked at."""

EARLIER = 0.4
"""What a fact of an earlier turn, or of the system's words, counts."""

EARLIER_CHARS = 1_000

ORDINARY_POINTS, HARD_POINTS = 2, 5
"""From which on a request is no longer simple, and from which on it is hard."""

BINDING = (
    "must should only without exactly ensure never always unless except least most between within "
    "including limit constraint constraints requirement requirements not don't cannot avoid"
)
ORDERING = "then finally afterwards next first second third lastly after before"
WEIGHING = (
    "prove proof derive why step reasoning justify optimize optimise optimal tradeoff tradeoffs "
    "design architecture concurrent concurrency distributed algorithm complexity root cause "
    "analyze analyse evaluate compare strategy migrate refactor invariant theorem probability"
)

CONSTRAINTS = frozenset(BINDING.split())
STEPS = frozenset(ORDERING.split())
THOUGHT = frozenset(WEIGHING.split())

Classifier = Callable[["Request"], Reading]
"""What may be put in the place of ``read``."""

Scores = dict[Task, float]


class _Table(NamedTuple):
    weights: Mapping[str, Mapping[str, float]]
    """By fact and task; a task is as good as its name."""
    always: Mapping[Task, float]
    groups: Phrases
    openers: Phrases


def read(request: Request) -> Reading:
    """Say what a request is for. Pure; nothing in a request makes it fail."""
    from llmdispatcher.tongue import tongue  # noqa: PLC0415 - its tables

    last, before = _turns(request)
    sight = _see(last)
    given = dict.fromkeys(sight.facts, 1.0)
    scores = _scores(given)
    if before and _share(scores) < SURE:
        for text in before:
            for fact in _see(text).facts:
                given.setdefault(fact, EARLIER)
        scores = _scores(given)
    task = _winner(scores)
    return Reading(
        task=task,
        complexity=complexity(sight, sum(map(len, _texts(request)))),
        language=tongue(sight.prose),
        cues=tuple(_cues(task, given)),
        sureness=round(_share(scores), 3),
    )


def complexity(sight: Sight, chars: int) -> Complexity:
    """Estimate how much is asked for, by counting; more of what is counted never makes it less.

    Of a text longer than the window, what stands in the middle counts by its length alone.
    """
    points = sum(_points(sight, chars))
    if points >= HARD_POINTS:
        return Complexity.HARD
    return Complexity.ORDINARY if points >= ORDINARY_POINTS else Complexity.SIMPLE


def _points(sight: Sight, chars: int) -> Iterator[int]:
    """Count points: each row is what is counted, and from how many on it earns one more."""
    counted = (
        (chars, (400, 2_000, 12_000)),
        (sight.items, (3, 8)),
        (sum(map(CONSTRAINTS.__contains__, sight.words)), (2, 5)),
        (sum(map(STEPS.__contains__, sight.words)), (2, 5)),
        (sum(map(THOUGHT.__contains__, sight.words)), (1, 2, 4)),
        (sight.prose.count("?"), (3, 6)),
        (sight.code_lines, (10, 40, 100)),
    )
    for number, marks in counted:
        yield sum(number >= mark for mark in marks)


def _turns(request: Request) -> tuple[str, tuple[str, ...]]:
    """Return what the user said last, and a little of what stands before it."""
    if request.prompt is not None:
        return _ends(request.prompt), ()
    users = [message for message in request.messages if message.role is Role.USER]
    systems = [message for message in request.messages if message.role is Role.SYSTEM]
    earlier = [*systems[:1], *users[-2:-1]]
    last = _ends(_text(users[-1])) if users else ""
    return last, tuple(_text(message)[:EARLIER_CHARS] for message in earlier)


def _texts(request: Request) -> Iterator[str]:
    """Return the parts of what the user said last, without joining them."""
    if request.prompt is not None:
        yield request.prompt
        return
    for message in reversed(request.messages):
        if message.role is Role.USER:
            yield from (part.text for part in message.content if hasattr(part, "text"))
            return


def _text(message: Message) -> str:
    """Join the text of a turn; where it is long, no more than its two ends."""
    return "\n".join(_ends(part.text) for part in message.content if hasattr(part, "text"))


def _ends(text: str) -> str:
    from llmdispatcher.task_facts import window  # noqa: PLC0415 - its tables

    return window(text)


def _see(text: str) -> Sight:
    from llmdispatcher.task_facts import see  # noqa: PLC0415 - its tables

    table = _table()
    return see(text, table.groups, table.openers)


@cache
def _table() -> _Table:
    from llmdispatcher.models import task_tongues, task_words  # noqa: PLC0415 - tables
    from llmdispatcher.task_facts import phrases  # noqa: PLC0415 - its tables

    path = Path(task_words.__file__).with_name("tasks.json")
    stored = json.loads(path.read_text(encoding="utf-8"))
    always = {task: stored["always"].get(task, 0.0) for task in Task}
    return _Table(
        stored["weights"],
        always,
        phrases(task_words.GROUPS, task_tongues.GROUPS),
        phrases(task_words.OPENERS, task_tongues.OPENERS),
    )


def _scores(given: Mapping[str, float]) -> Scores:
    table = _table()
    scores = dict(table.always)
    for fact, strength in given.items():
        for task, weight in table.weights.get(fact, {}).items():
            scores[Task(task)] += strength * weight
    return scores


def _winner(scores: Scores) -> Task:
    """Return the task with the highest score; of equals the later, which is the more general."""
    return max(reversed(Task), key=scores.__getitem__)


def _share(scores: Scores) -> float:
    """Return the share of the highest score, as a softmax has it."""
    highest = max(scores.values())
    return 1 / sum(math.exp(score - highest) for score in scores.values())


def _cues(task: Task, given: Mapping[str, float]) -> Iterator[str]:
    """Name the facts that spoke loudest for a task."""
    weights = _table().weights
    spoke = {fact: given[fact] * weights.get(fact, {}).get(task, 0.0) for fact in given}
    loudest = sorted(spoke, key=lambda fact: (-spoke[fact], fact))
    yield from (fact for fact in loudest[:MAX_CUES] if spoke[fact] >= LEAST_CUE)
