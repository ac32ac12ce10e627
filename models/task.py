"""What a request is for: kinds of task, how hard one is, and what each kind asks of a model.

``dispatcher/tasks.py`` reads a request; what stands here are the values that it speaks in, and the
rows that say which models do for which task.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from types import MappingProxyType

import attrs

from llmdispatcher.models.check import integer, nearest, one_of
from llmdispatcher.models.errors import BadRequest

PLACES = ("any", "local", "cloud")
"""Where a task is best run: no matter, on this machine, or at a vendor."""


class Task(StrEnum):
    """What whoever asks wants to have in the end."""

    CODE_GENERATION = "code_generation"
    """Code, a command, a query, a formula or a configuration file, written or changed."""
    CODE_REVIEW = "code_review"
    """A judgement of code, of a change or of a repository."""
    DEBUGGING = "debugging"
    """A fault found or mended, with no error message to go by."""
    ERROR_DIAGNOSIS = "error_diagnosis"
    """The cause of an error message, a crash or a failing service."""
    REASONING = "reasoning"
    """An answer worked out from facts that are given."""
    SUMMARISATION = "summarisation"
    """A text made shorter."""
    DATA_INTERPRETATION = "data_interpretation"
    """A figure or a finding read out of data."""
    WORKFLOW_GENERATION = "workflow_generation"
    """Several steps across tools, set up or carried out."""
    QUESTION_ANSWERING = "question_answering"
    """A fact, an explanation or advice."""
    GENERAL = "general"
    """Anything else: writing, translating, playing a part, talk."""


def read_task(value: str | None) -> Task:
    """Take a task or its name. Raises BadRequest with the nearest known name."""
    try:
        return Task(str(value))
    except ValueError:
        known = nearest(str(value), [task.value for task in Task])
        raise BadRequest("task", value, f"the name of a task; {known}") from None


class Complexity(IntEnum):
    """How much a request asks for, by what can be counted in it."""

    SIMPLE = 1
    ORDINARY = 2
    HARD = 3


@attrs.frozen
class Reading:
    """What a request was understood to be, and why."""

    task: Task
    complexity: Complexity
    language: str | None = None
    """ISO 639-1, as its script or its small words say; None where they do not."""
    cues: tuple[str, ...] = ()
    """What decided, the weightiest first, in words."""
    sureness: float = 0.0
    """From 0 to 1, the share of the first task among all, by their scores; no probability."""


@attrs.frozen(kw_only=True)
class TaskRule:
    """What a task asks of a model: the least quality tier, and where it is best run."""

    least_quality: int | None = integer("least_quality", 1, 5)
    """A tier as on the cards, 1 to 5; None asks for none."""
    prefers: str = attrs.field(default="any", validator=one_of(*PLACES))


TASK_RULES: Mapping[Task, TaskRule] = MappingProxyType(
    {
        # Code that is nearly right costs more time than it saves, and small models write such code.
        Task.CODE_GENERATION: TaskRule(least_quality=4),
        # A review that misses the fault is worse than none, as it is believed.
        Task.CODE_REVIEW: TaskRule(least_quality=4),
        # The fault is seldom where it shows; small models mend the symptom.
        Task.DEBUGGING: TaskRule(least_quality=4),
        # Most messages are well known. Logs hold addresses and names, so stay here where possible.
        Task.ERROR_DIAGNOSIS: TaskRule(least_quality=3, prefers="local"),
        # Where each step must be right, the gap between tiers is widest.
        Task.REASONING: TaskRule(least_quality=4),
        # All that is needed stands in the text; long ones cost most where tokens are paid for.
        Task.SUMMARISATION: TaskRule(least_quality=2, prefers="local"),
        # Figures must be right, and the data is often private.
        Task.DATA_INTERPRETATION: TaskRule(least_quality=3, prefers="local"),
        # A plan with tools has many steps, each with a form that must be kept.
        Task.WORKFLOW_GENERATION: TaskRule(least_quality=4),
        # What a model knows grows with its size; many questions are easy all the same.
        Task.QUESTION_ANSWERING: TaskRule(least_quality=3),
        # Taste has no floor that a rule could know.
        Task.GENERAL: TaskRule(least_quality=None),
    }
)
"""The defaults; the reason for each stands above it."""
