"""The thread governor: as many threads as processors are free, and never a stall for long."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waits import WAIT_S, until

from llmdispatcher import Dispatcher, LlamaCpp, Request
from llmdispatcher.vendors.llamacpp.binding.native import NativeBackend
from llmdispatcher.vendors.llamacpp.limits.governor import LOOK_S, SOONEST_S, Governor, Times
from llmdispatcher.vendors.llamacpp.limits.probe import busy_s, threads


def at(now_s: float, busy: float, own: float) -> Times:
    """Make the times at a moment, when so many processors were busy all the time until then."""
    return Times(now_s=now_s, busy_s=busy, own_s=own)


def run(governor: Governor, others: float, processors: int, seconds: float, start: Times) -> Times:
    """Let an engine spin beside others who want ``others`` processors, all with fair shares."""
    now = start
    while now.now_s < start.now_s + seconds:
        wanted = governor.threads + others
        share = min(1.0, processors / wanted)
        step_s = LOOK_S
        now = Times(
            now_s=now.now_s + step_s,
            busy_s=now.busy_s + wanted * share * step_s,
            own_s=now.own_s + share * step_s,
        )
        governor.look(now)
    return now


@pytest.mark.parametrize(
    ("processors", "others", "expected"),
    [
        *[(2, 0.0, 2), (2, 0.2, 2), (2, 1.0, 1), (2, 2.0, 1), (2, 8.0, 1)],
        *[(8, 0.0, 8), (8, 1.0, 7), (8, 3.5, 4), (8, 7.0, 1), (8, 30.0, 1)],
    ],
)
def test_threads_follow_the_free_processors(processors: int, others: float, expected: int) -> None:
    """Beside neighbours, an engine settles at the processors that they leave, and at least one."""
    governor = Governor(ceiling=processors, processors=processors, times=at(0, 0, 0))

    now = run(governor, others, processors, 3, at(0, 0, 0))
    assert governor.threads == expected

    run(governor, 0.0, processors, 3, now)
    assert governor.threads == processors, "and takes them back when it is calm again"


@given(
    st.integers(1, 64),
    st.integers(1, 64),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 100), st.floats(0, 2)), max_size=30),
)
def test_threads_stay_between_one_and_the_ceiling(
    ceiling: int, processors: int, times: list[tuple[float, float, float]]
) -> None:
    """Whatever the clocks say, also if they stand still, the number stays within bounds."""
    governor = Governor(ceiling=ceiling, processors=processors, times=at(0, 0, 0))
    now = at(0, 0, 0)
    for passed_s, busy, own in times:
        now = at(now.now_s + passed_s, now.busy_s + busy, now.own_s + own)
        assert 1 <= governor.look(now) <= min(ceiling, processors)


def test_two_engines_share_without_knowing_of_each_other() -> None:
    """Each sees the other as a neighbour: together they use the processors once, not twice."""
    now = at(0, 0, 0)
    both = [Governor(ceiling=4, processors=4, times=now) for _ in range(2)]
    for step in range(1, 20):
        wanted = sum(governor.threads for governor in both)
        share = min(1.0, 4 / wanted)
        now = at(step * LOOK_S, now.busy_s + wanted * share * LOOK_S, now.own_s + share * LOOK_S)
        for governor in both:
            governor.look(now)
        assert step < 3 or sum(governor.threads for governor in both) <= 4


def test_a_stalled_step_is_looked_into_at_once() -> None:
    """A step three times as long as its like is a reason to look; a longer prompt is not."""
    governor = Governor(ceiling=2, processors=2, times=at(0, 0, 0))
    for _ in range(50):
        assert not governor.is_due(SOONEST_S, 1, 0.001)
    assert not governor.is_due(SOONEST_S, 512, 0.1)
    assert governor.is_due(SOONEST_S, 1, 0.02)
    assert not governor.is_due(SOONEST_S / 2, 1, 0.02)
    assert governor.is_due(LOOK_S, 1, 0.001)


def test_with_one_thread_there_is_nothing_to_govern() -> None:
    """A ceiling of one costs nothing: it is never time to look."""
    governor = Governor(ceiling=1, processors=8, times=at(0, 0, 0))

    assert not governor.is_due(1000, 1, 100)


@pytest.fixture
def neighbours() -> Iterator[None]:
    """Keep every processor busy with processes of other people's."""
    code = "print(flush=True)\nwhile True: pass"
    # where two share the arithmetic of one, half of them would leave the other half free
    allowed = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    busy = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in allowed]
    try:
        for process in busy:
            assert process.stdout is not None
            assert process.stdout.readline()  # one that only begins may wait for a disk
        yield
    finally:
        for process in busy:
            process.kill()
            process.communicate()


@pytest.mark.usefixtures("neighbours")
def test_work_goes_on_beside_busy_neighbours(
    slow_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every processor taken, a model still writes: without a governor it all but stops."""
    asked: list[int] = []
    real = NativeBackend.set_threads

    def set_threads(backend: NativeBackend, count: int) -> None:
        asked.append(count)
        real(backend, count)

    monkeypatch.setattr(NativeBackend, "set_threads", set_threads)
    request = Request(prompt="Once", max_tokens=300)
    before, began_s = busy_s(), time.monotonic()
    with Dispatcher(LlamaCpp(slow_model, isolation="thread")) as d:

        def gives_way() -> bool:
            """Whether threads were taken from it; one that is fast has more to write until then."""
            if threads() == 1 or min(asked, default=threads()) < threads():
                return True
            d.send(request, temperature=0)
            return False

        reply = d.send(request, temperature=0)
        passed_s = time.monotonic() - began_s
        worked_s = busy_s() - before
        until(gives_way)

    assert reply.usage.completion_tokens == 300
    assert passed_s < WAIT_S, "about one second on half a processor"
    assert worked_s > 0.5 * passed_s, "the machine was busy, and it was counted"


def test_an_idle_stretch_is_not_judged() -> None:
    """What others did while the engine had nothing to do says nothing about the processors now."""
    judged, resumed = (Governor(ceiling=4, processors=4, times=at(0, 0, 0)) for _ in range(2))
    after_idling = at(10, 40, 0)

    resumed.resume(after_idling)
    quiet = at(10 + LOOK_S, 40 + 4 * LOOK_S, LOOK_S)
    resumed.look(quiet)
    judged.look(after_idling)

    assert resumed.threads == 4
    assert judged.threads == 1
