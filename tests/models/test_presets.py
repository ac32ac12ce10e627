"""Presets are rows of data that lie under what a program says itself."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import yaml

from llmdispatcher import BadRequest, BreakerPolicy, Deadlines, Dispatcher, RetryPolicy, Scripted
from llmdispatcher.models import presets
from llmdispatcher.policies import Policies

NAMES = (
    "development",
    "production",
    "critical",
    "cost_optimized",
    "quality_first",
    "speed_first",
)


def test_the_presets_are_these() -> None:
    """Each has its reason, and differs from all others and from the defaults."""
    rows = presets.presets()

    assert tuple(rows) == NAMES
    made = [attrs.evolve(row, name="", why="") for row in rows.values()]
    assert len({repr(row) for row in made}) == len(NAMES)
    for row in rows.values():
        assert row.why
        assert (row.retry, row.deadlines) != (RetryPolicy(), Deadlines())


@pytest.mark.parametrize("name", NAMES)
def test_rows_agree_with_themselves(name: str) -> None:
    """Nobody is retried for longer than the request may take, nor waited for longer than that."""
    row = presets.read_preset(name)
    total_s = row.deadlines.total_s or float("inf")

    assert row.retry.total_s is not None
    assert row.retry.max_wait_s <= row.retry.total_s <= total_s
    assert (row.deadlines.first_token_s or 0) <= total_s
    assert row.retry.same_target < row.retry.attempts


def test_what_is_given_goes_before_the_preset() -> None:
    """A policy that the program gives is the whole of it; the others are those of the row."""
    retry = RetryPolicy(attempts=3)

    policies = Policies.over("speed_first", retry=retry, breaker=None, strategy="quality")

    row = presets.read_preset("speed_first")
    assert policies.retry == retry
    assert policies.breaker == row.breaker != BreakerPolicy()
    assert policies.deadlines == row.deadlines
    assert policies.strategy.order == "quality"
    assert policies.routing == row.routing


def test_a_dispatcher_takes_a_preset() -> None:
    """Its deadlines reach the vendor with the request."""
    with Dispatcher(Scripted("x"), preset="speed_first") as d:
        engine = d.register_vendor(Scripted("y", name="second"))
        assert d.send("Hi", vendor="second").text == "y"

    (request,) = engine.requests  # type: ignore[attr-defined]
    assert request.deadlines.first_token_s == 8


@pytest.mark.parametrize(
    ("name", "told"), [("prod", "known: cost_optimized"), ("critcal", "'critical'"), (5, "known")]
)
def test_a_preset_that_is_none_is_told(name: object, told: str) -> None:
    """With the nearest one that is."""
    with pytest.raises(BadRequest, match=told):
        Dispatcher(Scripted("x"), preset=name)  # type: ignore[arg-type]


def test_the_file_has_no_fields_of_its_own() -> None:
    """Every key of a row is a field of a policy."""
    text = (Path(presets.__file__).parent / "presets.yaml").read_text(encoding="utf-8")
    fields = {"why", "strategy", "retry", "breaker", "deadlines", "routing"}

    assert all(row.keys() <= fields for row in yaml.safe_load(text).values())
