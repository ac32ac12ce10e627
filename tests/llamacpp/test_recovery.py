"""What follows a crash: pauses that grow, a rest, and plans that take less."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_gguf import tiny_model

from llmdispatcher.models.errors import (
    CorruptModel,
    DispatcherError,
    EngineCrashed,
    OutOfMemory,
    Refused,
    TimedOut,
)
from llmdispatcher.vendors.llamacpp.files.gguf import read_header
from llmdispatcher.vendors.llamacpp.plan.fit import Asked, Machine, choose
from llmdispatcher.vendors.llamacpp.plan.squeeze import RUNGS, squeezed
from llmdispatcher.vendors.llamacpp.recovery import (
    FIRST_WAIT_S,
    MOST_CRASHES,
    MOST_REST_S,
    MOST_WAIT_S,
    REST_S,
    Recovery,
)

CRASH = EngineCrashed("it died")


def died(times: int, *, at_s: float = 0.0) -> Recovery:
    """Return what is remembered of so many crashes in a row."""
    recovery = Recovery()
    for _ in range(times):
        recovery.ended(CRASH, served=False, now_s=at_s)
    return recovery


def test_the_first_restart_is_at_once() -> None:
    """One crash costs nobody a pause."""
    assert died(1).wait_s(0.0, 0.0) == 0


@pytest.mark.parametrize(("crashes", "wait_s"), [(2, 0.5), (3, 1.0), (4, 2.0), (30, MOST_WAIT_S)])
def test_pauses_double(crashes: int, wait_s: float) -> None:
    """Each further crash doubles the pause, up to a bound."""
    assert died(crashes).wait_s(0.0, 0.0) == wait_s
    assert died(crashes).wait_s(wait_s, 0.0) == 0


@given(crashes=st.integers(2, 50), spread=st.floats(0, 1))
def test_chance_shortens_a_pause_by_half_at_most(crashes: int, spread: float) -> None:
    """Programs that died together do not start together."""
    whole = died(crashes).wait_s(0.0, 0.0)

    assert whole / 2 <= died(crashes).wait_s(0.0, spread) <= whole


def test_it_is_left_alone_after_many_crashes_in_a_row() -> None:
    """The refusal says when to come back and what happened; then one try is let through."""
    recovery = died(MOST_CRASHES, at_s=100.0)

    refusal = recovery.refusal(101.0)

    assert refusal is not None
    assert refusal.retry_after_s == REST_S - 1
    assert "5 times in a row" in str(refusal)
    assert "it died" in str(refusal)
    assert died(MOST_CRASHES - 1).refusal(0.0) is None
    assert recovery.refusal(100.0 + REST_S) is None
    recovery.ended(CRASH, served=False, now_s=200.0)
    again = recovery.refusal(200.0)
    assert again is not None
    assert again.retry_after_s == 2 * REST_S
    assert (died(60).refusal(0.0) or again).retry_after_s == MOST_REST_S


def test_what_was_served_between_makes_crashes_single() -> None:
    """Only crashes with no successful request between them count."""
    recovery = Recovery()
    for _ in range(100):
        recovery.ended(CRASH, served=True, now_s=0.0)

    assert recovery.crashes == 1
    assert recovery.refusal(0.0) is None
    assert recovery.wait_s(0.0, 0.0) == 0


@pytest.mark.parametrize("error", [CorruptModel("no"), Refused("closed")])
def test_what_is_no_crash_does_not_count(error: DispatcherError) -> None:
    """A file that is no model, and a close, are nobody's crash."""
    recovery = died(3)

    recovery.ended(error, served=False, now_s=0.0)

    assert recovery.crashes == 0
    assert recovery.rung == 0


def test_a_hang_is_a_crash() -> None:
    """What was killed because it hung may hang again."""
    recovery = Recovery()

    recovery.ended(TimedOut("idle", 4.0), served=False, now_s=0.0)

    assert recovery.crashes == 1


def test_running_out_of_memory_climbs_down() -> None:
    """Each time the next life takes less; where nothing is left to give up, it is a crash."""
    recovery = Recovery()
    for rung in range(RUNGS):
        assert recovery.rung == rung
        recovery.ended(OutOfMemory("no"), served=False, now_s=0.0)
        assert recovery.crashes == 0

    recovery.ended(OutOfMemory("no"), served=False, now_s=0.0)

    assert recovery.rung == RUNGS
    assert recovery.crashes == 1


@pytest.mark.parametrize("asked", [Asked(), Asked(max_parallel=3), Asked(limit_bytes=200 * 2**20)])
def test_each_rung_takes_less_or_the_same(asked: Asked, tmp_path: Path) -> None:
    """Plans shrink from rung to rung: batch and caches, replies at once, then the context."""
    header = read_header(tiny_model(tmp_path / "m.gguf", vocab=600, context=8192))
    machine = Machine(available_bytes=2**32, processors=2)

    plans = [choose(header, squeezed(asked, header, rung), machine) for rung in range(RUNGS + 1)]

    sizes = [plan.need.total_bytes for plan in plans]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1] < sizes[0]
    assert plans[1].batch_tokens < plans[0].batch_tokens
    assert plans[2].parallel < plans[1].parallel or plans[1].parallel == 1
    assert plans[3].context_tokens < plans[2].context_tokens


def test_a_context_that_was_asked_for_is_never_squeezed(tmp_path: Path) -> None:
    """Callers count on it: taken or refused."""
    header = read_header(tiny_model(tmp_path / "m.gguf", vocab=600, context=8192))
    asked = Asked(context_tokens=4096)

    assert {squeezed(asked, header, rung).context_tokens for rung in range(RUNGS + 1)} == {4096}


def test_layers_leave_the_gpus_last(tmp_path: Path) -> None:
    """Half of them on the third rung, all on the fourth."""
    header = read_header(tiny_model(tmp_path / "m.gguf", vocab=600, layers=7))

    layers = [squeezed(Asked(), header, rung).max_gpu_layers for rung in range(RUNGS + 1)]

    assert layers == [None, None, None, 4, 0]
    assert FIRST_WAIT_S > 0
