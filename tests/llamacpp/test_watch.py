"""What to do about a child that takes too much: when it is told to give back, when it is ended."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdispatcher.vendors.llamacpp.limits.probe import Sample
from llmdispatcher.vendors.llamacpp.limits.watch import (
    CALM,
    GPU_LOOK_S,
    LOOK_S,
    SOFT,
    Action,
    Breach,
    Watch,
)

MIB = 2**20
LIMIT = 100 * MIB
NONE, TRIM, KILL = Action.NONE, Action.TRIM, Action.KILL


def sample(resident_mib: float) -> Sample:
    """Make a look at a child that has so much in memory."""
    size = int(resident_mib * MIB)
    return Sample(resident_bytes=size, own_bytes=size, cpu_s=1.0, threads=2, read_bytes=0)


def judged(watch: Watch, *resident_mib: float) -> list[Action]:
    """Look once after the other."""
    return [
        watch.look(sample(each), None, (index + 1) * LOOK_S)
        for index, each in enumerate(resident_mib)
    ]


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ([50, 90, 90], [NONE, NONE, NONE]),
        ([91, 92, 99, 100], [TRIM, NONE, NONE, NONE]),
        ([91, 86, 91], [TRIM, NONE, NONE]),
        ([91, 84, 91], [TRIM, NONE, TRIM]),
        ([101], [TRIM]),
        ([50, 101, 101], [NONE, TRIM, KILL]),
        ([91, 101, 101], [TRIM, NONE, KILL]),
        ([101, 99, 101, 99], [TRIM, NONE, NONE, NONE]),
        ([101, 50, 101, 101], [TRIM, NONE, TRIM, KILL]),
        ([200, 200, 200], [TRIM, KILL, KILL]),
        ([100, 100, 100], [TRIM, NONE, NONE]),
    ],
)
def test_marks(looks: list[float], expected: list[Action]) -> None:
    """Above 90 of 100: once, until it fell under 85. Above 100: by the second look in a row."""
    assert judged(Watch(LIMIT), *looks) == expected


def test_without_a_limit_nothing_is_too_much() -> None:
    """None is no limit, for either memory."""
    watch = Watch(None)

    assert watch.look(sample(2**30), 2**50, 1.0) is NONE
    assert watch.look(sample(2**30), 2**50, 9.0) is NONE
    assert watch.reason is None


def test_the_gpu_has_its_own_limit_and_pace() -> None:
    """One answer of the driver counts once, however often it is handed in."""
    watch = Watch(None, LIMIT)
    over = 101 * MIB

    assert watch.look(sample(5), over, 10.0) is TRIM
    assert watch.look(sample(5), over, 10.0 + LOOK_S) is NONE
    assert watch.look(sample(5), over, 10.0 + 2 * LOOK_S) is NONE
    assert watch.look(sample(5), over, 10.0 + GPU_LOOK_S) is KILL
    assert watch.breach == Breach("vram", over, LIMIT)


def test_a_gpu_that_does_not_answer_is_not_judged() -> None:
    """None is not known, which is neither over a limit nor under it."""
    watch = Watch(LIMIT, LIMIT)

    found = [
        watch.look(sample(5), used, float(second))
        for second, used in enumerate([101 * MIB, None, None, 101 * MIB], start=1)
    ]

    assert found == [TRIM, NONE, NONE, KILL]


def test_the_worse_of_both_is_told() -> None:
    """Ending it goes before giving back, and the reason is that of what is told."""
    watch = Watch(LIMIT, LIMIT)
    watch.look(sample(5), 101 * MIB, 1.0)

    assert watch.look(sample(95), 101 * MIB, 3.0) is KILL
    assert watch.reason == "vram: 101 MiB of at most 100 MiB"


def test_the_reason_has_the_numbers() -> None:
    """Which limit, how much was taken, and how much was allowed."""
    watch = Watch(LIMIT)

    assert judged(watch, 95) == [TRIM]
    assert watch.reason == "memory: 95 MiB of at most 100 MiB"
    assert watch.is_tight

    judged(watch, 80)
    assert watch.is_tight, "a look at a time that has passed says nothing"
    watch.look(sample(80), None, 60.0)
    assert not watch.is_tight


def test_two_looks_at_one_moment_are_one() -> None:
    """They see the same peak."""
    watch = Watch(LIMIT)

    assert [watch.look(sample(200), None, 1.0) for _ in range(3)] == [TRIM, NONE, NONE]


@given(st.lists(st.floats(0, 300), max_size=60))
def test_never_by_one_look_and_never_twice(looks: list[float]) -> None:
    """Ended exactly by two looks in a row above the limit; told again only after it was calm."""
    found = judged(Watch(LIMIT), *looks)

    calm = True
    for index, (used, action) in enumerate(zip(looks, found, strict=True)):
        size = int(used * MIB)
        before = int(looks[index - 1] * MIB) if index else 0
        assert (action is KILL) == (size > LIMIT < before)
        if action is TRIM:
            assert calm
            assert size > SOFT * LIMIT
            calm = False
        calm = calm or size < CALM * LIMIT
