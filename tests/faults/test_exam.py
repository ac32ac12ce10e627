"""Our own marks in the exam of faults: a pass in every fault, and our own rules kept as well."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from _pytest.mark import ParameterSet
from faults.exam import PACE, Scenario, Verdict, examine
from faults.further import FURTHER
from faults.ours import WORLDS
from faults.scenarios import SIXTEEN


def _title(scenario: Scenario) -> str:
    return f"{scenario.id} {scenario.title}"


USUAL = (("sync", "whole"), ("async", "streamed"))


def one_form_each(scenarios: Iterable[Scenario]) -> list[ParameterSet]:
    """Put each in the one form or the other by turns; in all four with the marker ``soak``."""
    return [
        pytest.param(
            scenario,
            world,
            form,
            id=f"{_title(scenario)}-{world}-{form}",
            marks=() if (world, form) == USUAL[index % 2] else pytest.mark.soak,
        )
        for index, scenario in enumerate(scenarios)
        for world in ("sync", "async")
        for form in ("whole", "streamed")
    ]


@pytest.mark.parametrize(("scenario", "world", "form"), one_form_each(SIXTEEN))
def test_every_fault_of_the_public_exam_is_passed(
    scenario: Scenario, world: str, form: str
) -> None:
    """A caller gets the whole answer, or the right error, and no vendor is asked too often."""
    mark = examine(scenario, WORLDS[world], PACE, stream=form == "streamed")

    assert mark.verdict is Verdict.PASS, str(mark)
    assert not mark.beyond, str(mark)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("scenario", "world", "form"), one_form_each(FURTHER))
def test_every_further_fault_is_passed(scenario: Scenario, world: str, form: str) -> None:
    """What hosts do beyond the public exam costs the caller nothing either."""
    mark = examine(scenario, WORLDS[world], PACE, stream=form == "streamed")

    assert mark.verdict is Verdict.PASS, str(mark)
    assert not mark.beyond, str(mark)
