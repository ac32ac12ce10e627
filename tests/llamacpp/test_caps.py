"""What a child holds itself to, by children that really try to take more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdispatcher import OutOfMemory
from llmdispatcher.vendors.llamacpp.limits.caps import (
    LEAST_ROOM_BYTES,
    NICE,
    OOM_SCORE,
    Caps,
    Measure,
    data_limit_bytes,
)

MIB = 2**20
UNLIMITED = [-1, -1]

_CHILD = Path(__file__).parent / "held_child.py"


def held(before: Sequence[str] = (), after: Sequence[str] = (), **caps: Any) -> dict[str, Any]:
    """Run a child that does some steps, holds itself to caps and does more steps."""
    told = json.dumps({"caps": caps, "before": before, "after": after})
    done = subprocess.run(
        [sys.executable, str(_CHILD), told], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("hoard", ["hoard", "hoard_in_c"])
@pytest.mark.parametrize("before", [(), ("library",)], ids=["bare", "with llama.cpp"])
def test_a_child_that_takes_without_end_gets_no_more(before: Sequence[str], hoard: str) -> None:
    """Its requests for memory fail, and it never held more than its limit and a twentieth."""
    limit = 200 * MIB

    found = held(before, [hoard], memory_bytes=limit)

    assert found["measures"]["memory"][0] is True
    assert 0.75 * limit < found["peak"] <= 1.05 * limit
    assert 50 * MIB < found["hoarded"] < limit


def test_a_child_that_serves_stays_within_its_limit() -> None:
    """A model is loaded and answers under a limit, and what is taken beside it is held to it."""
    limit = 300 * MIB

    # of two threads that compute, one is new, with a stack
    found = held(["library"], ["serve", "hoard"], memory_bytes=limit, reserved_bytes=4 * MIB)

    assert found["tokens"] > 0
    assert found["peak"] <= 1.05 * limit


def test_what_has_no_room_is_refused_with_the_numbers() -> None:
    """Weights and what the process takes already may leave nothing to run a model in."""
    found = held(memory_bytes=300 * MIB, mapped_bytes=290 * MIB)

    assert "a limit of 300 MiB leaves 0 MiB" in found["refused"]
    assert "290 MiB are its weights" in found["refused"]
    assert "max_memory_mb" in found["refused"]
    assert found["data"] == UNLIMITED, "nothing is limited that will not be used"


def test_a_limit_that_holds_already_is_never_raised() -> None:
    """Whoever started us may have limited us more; both limits, soft and hard, stay below that."""
    found = held(["lower"], memory_bytes=2**40)

    assert found["data"] == [200 * MIB, 200 * MIB]
    assert found["measures"]["memory"] == [True, "RLIMIT_DATA 200 MiB"]


@pytest.mark.parametrize(
    ("caps", "why"),
    [
        ({}, "no limit was asked for"),
        ({"memory_bytes": 2**30, "uses_gpu": True}, "watched only: RLIMIT_DATA would count"),
    ],
)
def test_what_is_not_limited_is_not_claimed(caps: dict[str, Any], why: str) -> None:
    """Without a limit, or with one that a GPU's driver would break, nothing is set or promised."""
    found = held(**caps)

    enforced, how = found["measures"]["memory"]
    assert (enforced, how[: len(why)]) == (False, why)
    assert found["data"] == UNLIMITED


def test_a_child_gives_way() -> None:
    """It and the threads it starts run after the user's program, and it goes first for memory."""
    nice, score = os.getpriority(os.PRIO_PROCESS, 0), oom_score()

    found = held(after=["thread"])

    assert found["nice"] == found["thread_nice"] == min(19, nice + NICE)
    assert found["oom_score"] == min(1000, score + OOM_SCORE)
    assert found["measures"]["priority"] == [True, f"nice {found['nice']}"]
    assert found["measures"]["first to go"] == [True, f"oom_score_adj {found['oom_score']}"]


def test_a_child_that_need_not_give_way_does_not() -> None:
    """Then it is as the program that started it."""
    found = held(gives_way=False)

    assert found["nice"] == os.getpriority(os.PRIO_PROCESS, 0)
    assert found["oom_score"] == oom_score()
    assert not {"priority", "first to go"} & set(found["measures"])


def oom_score() -> int:
    """Return the score of this process, which children inherit."""
    return int(Path("/proc/self/oom_score_adj").read_text(encoding="ascii"))


def test_a_child_leaves_no_dump() -> None:
    """A dump would hold gigabytes of weights, and what users wrote."""
    found = held()

    assert found["core"] == [0, 0]
    assert found["measures"]["core dumps"][0] is True


def test_a_measure_reads_as_a_line() -> None:
    """What, and how."""
    assert str(Measure("memory", enforced=True, how="RLIMIT_DATA 8 MiB")) == (
        "memory: RLIMIT_DATA 8 MiB"
    )


@pytest.mark.parametrize(
    ("data", "resident", "expected"),
    [
        (40, 40, 400 - 100 + 8),
        (100, 40, 400 - 100 + 60 + 8),  # 60 count and are not in memory
        (30, 50, 400 - 100 - 20 + 8),  # 20 are in memory and do not count
    ],
)
def test_the_limit_follows_from_what_is_taken_already(
    data: int, resident: int, expected: int
) -> None:
    """What counts and is not in memory is added, and what is in memory and does not count is not.

    Weights that are mapped do not count; stacks that are never touched do.
    """
    caps = Caps(memory_bytes=400 * MIB, mapped_bytes=100 * MIB, reserved_bytes=8 * MIB)

    found = data_limit_bytes(caps, data_bytes=data * MIB, resident_bytes=resident * MIB)

    assert found == expected * MIB


@given(
    memory=st.integers(0, 2**40),
    mapped=st.integers(0, 2**40),
    data=st.integers(0, 2**38),
    resident=st.integers(0, 2**38),
)
def test_a_process_at_its_limit_has_no_more_in_memory(
    memory: int, mapped: int, data: int, resident: int
) -> None:
    """Were all that may still be allocated written to, and all weights in memory: it would fit."""
    caps = Caps(memory_bytes=memory, mapped_bytes=mapped)
    try:
        limit = data_limit_bytes(caps, data_bytes=data, resident_bytes=resident)
    except OutOfMemory:
        assert memory - mapped - resident < LEAST_ROOM_BYTES
    else:
        assert resident + (limit - data) + mapped == memory
        assert limit >= data + LEAST_ROOM_BYTES
