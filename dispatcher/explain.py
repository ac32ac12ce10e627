"""The flow of ``Dispatcher.explain``: how a request would be routed; nobody is asked. No I/O."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from llmdispatcher.models.decision import Decision
from llmdispatcher.models.request import Request
from llmdispatcher.steps import Emit, Step
from llmdispatcher.trial import Job


def explain(job: Job[Request]) -> Generator[Step, Any, None]:
    """Emit who would be asked, in which order, and who would not. Raises nothing."""
    yield Emit(Decision(considered=job.ranking.considered, notes=job.ranking.notes))
