"""Work and hangs, told apart by what a worker says of itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdispatcher.vendors.llamacpp.worker.pulse import (
    ASLEEP_S,
    LOAD_S,
    OBEY_S,
    SILENT_S,
    Beat,
    Pulse,
)

TICK_S = 0.2


def beat(steps: int = 0, cpu_s: float = 0.0, **fields: object) -> Beat:
    """Return an answer of a worker that has work and is not loading."""
    given: dict[str, object] = {"has_work": True, "faults": 0, "is_loading": False}
    return Beat(steps=steps, cpu_s=cpu_s, **(given | fields))  # type: ignore[arg-type]


def lived(
    answer: Callable[[float], Beat | None], seconds: float, *, wanted: bool = True
) -> tuple[float, tuple[str, float] | None]:
    """Let a worker answer as it does; returns when it was called hung, and why."""
    pulse, now_s = Pulse(0.0), 0.0
    while now_s < seconds:
        now_s += TICK_S
        if pulse.ask() and (said := answer(now_s)) is not None:
            pulse.heard(said)
        if wanted:
            pulse.wanted()
        else:
            pulse.unwanted()
        if (hang := pulse.look(now_s)) is not None:
            return now_s, hang
    return now_s, None


def test_a_worker_that_steps_is_at_work() -> None:
    """Whatever else it does."""
    assert lived(lambda now_s: beat(steps=int(now_s * 10)), 600)[1] is None


def test_a_long_step_is_work() -> None:
    """Processors that are busy do something, however long it takes."""
    assert lived(lambda now_s: beat(cpu_s=now_s * 0.9), 600)[1] is None


def test_waiting_for_the_disk_is_work() -> None:
    """Weights that are read from a slow disk, page by page, take hardly any processor."""
    assert lived(lambda now_s: beat(faults=int(now_s * 50)), 600)[1] is None


def test_idleness_is_no_hang() -> None:
    """A worker without work may rest."""
    assert lived(lambda _: beat(has_work=False), 600)[1] is None


def test_silence_is_a_hang() -> None:
    """A worker that does not answer is noticed within five seconds."""
    at_s, hang = lived(lambda now_s: beat(steps=int(now_s)) if now_s < 10 else None, 60)

    assert hang is not None
    assert "does not answer" in hang[0]
    assert at_s - 10 <= SILENT_S + 1


def test_doing_nothing_with_work_is_a_hang() -> None:
    """A worker whose engine sleeps answers, and is noticed all the same."""
    at_s, hang = lived(lambda now_s: beat(steps=min(50, int(now_s * 5))), 60)

    assert hang == ("it has work and does nothing", ASLEEP_S)
    assert at_s - 10 <= ASLEEP_S + 1


def test_a_load_has_more_patience() -> None:
    """Networks may keep a load waiting, and it ends all the same."""
    at_s, hang = lived(lambda _: beat(is_loading=True), 600)

    assert hang is not None
    assert LOAD_S <= at_s <= LOAD_S + 2


def test_what_does_not_obey_is_hung() -> None:
    """A step that goes on when nobody wants it will go on for ever."""
    at_s, hang = lived(lambda now_s: beat(cpu_s=now_s), 60, wanted=False)

    assert hang is not None
    assert hang[1] == OBEY_S
    assert at_s <= OBEY_S + 2


def test_a_pause_of_our_own_is_nobodys_hang() -> None:
    """A laptop that slept, or a parent that was stopped, does not blame the worker."""
    pulse = Pulse(0.0)
    assert not pulse.look(0.2)
    pulse.ask()

    assert pulse.look(3600.0) is None


@given(
    st.lists(st.tuples(st.floats(0.05, 3600), st.booleans()), min_size=1, max_size=50),
    st.integers(0, 5),
)
def test_whoever_answers_with_progress_is_never_called_hung(
    looks: list[tuple[float, bool]], faults: int
) -> None:
    """Whatever the gaps between looks are."""
    pulse, now_s = Pulse(0.0), 0.0
    for step, (gap_s, _) in enumerate(looks):
        now_s += gap_s
        if pulse.ask():
            pulse.heard(beat(steps=step + 1, faults=faults))
        assert pulse.look(now_s) is None


@pytest.mark.parametrize("cpu_s", [0.0, 1e-3])
def test_answering_is_not_work(cpu_s: float) -> None:
    """The little that answering takes does not look like progress."""
    assert lived(lambda now_s: beat(cpu_s=cpu_s * now_s), 60)[1] is not None
