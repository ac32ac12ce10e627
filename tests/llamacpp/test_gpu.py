"""What NVIDIA's driver says, as numbers; and that nothing fails where there is no driver."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from llmdispatcher.vendors.llamacpp.limits.gpu import (
    Device,
    Listed,
    devices,
    grown_bytes,
    in_use_bytes,
    of_process,
    reason,
)

ME, OTHER = 4711, 815
NOT_AVAILABLE = 2**64 - 1


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ([], None),
        ([{"compute": [], "graphics": []}], None),
        ([{"compute": [(OTHER, 5)]}], None),
        ([{"compute": [(ME, 5), (OTHER, 9)]}], 5),
        ([{"compute": [(ME, 0)]}], 0),
        ([{"compute": [(ME, 5)], "graphics": [(ME, 5)]}], 5),
        ([{"graphics": [(ME, 5)]}], 5),
        ([{"compute": [(ME, 5)]}, {"compute": [(OTHER, 1)]}, {"compute": [(ME, 7)]}], 12),
        ([{"compute": [(ME, None)]}], None),
        ([{"compute": [(ME, NOT_AVAILABLE)]}], None),
        ([{"compute": [(ME, 5)]}, {"compute": [(ME, None)]}], None),
        ([{"compute": [(OTHER, None), (ME, 5)]}], 5),
    ],
)
def test_what_a_process_takes(listed: list[Listed], expected: int | None) -> None:
    """The sum over devices, each once; not known where it is not listed or a part is not told."""
    assert in_use_bytes(listed, ME) == expected


def device(uuid: str, used: int) -> Device:
    """Make a device of which so much is used."""
    return Device(uuid=uuid, name="GPU", total_bytes=100, used_bytes=used, driver="1")


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({}, {}, 0),
        ({"a": 10}, {"a": 30}, 20),
        ({"a": 30}, {"a": 10}, 0),
        ({"a": 30, "b": 0}, {"a": 10, "b": 7}, 7),
        ({"a": 10, "b": 20}, {"b": 25, "a": 10}, 5),
        ({"a": 10}, {"b": 7}, 7),
    ],
)
def test_what_was_taken_since(before: dict[str, int], now: dict[str, int], expected: int) -> None:
    """Devices are told apart by name, not by place, and one that gave back does not pay for all."""
    then, there = ([device(*each) for each in state.items()] for state in (before, now))

    assert grown_bytes(then, there) == expected


def test_without_a_driver_nothing_is_known_and_nothing_fails() -> None:
    """There are no devices then, no process takes any, and the reason names the way out."""
    why = reason()

    assert (why is None) == bool(devices())
    if why is not None:
        assert of_process(os.getpid()) is None
        assert "NVIDIA" in why


@pytest.mark.parametrize(
    ("hide", "expected"),
    [("sys.modules['pynvml'] = None", "pip install nvidia-ml-py"), ("", "")],
)
def test_the_library_is_loaded_when_it_is_asked_and_may_be_missing(
    hide: str, expected: str
) -> None:
    """Importing ours loads nothing; a missing library is a reason and no error."""
    code = (
        f"import sys\n{hide}\n"
        "from llmdispatcher.vendors.llamacpp.limits import gpu\n"
        "assert sys.modules.get('pynvml') is None\n"
        "assert isinstance(gpu.devices(), tuple)\n"
        "assert gpu.of_process(1) is None or not sys.modules['pynvml'] is None\n"
        "print(gpu.reason() or '')"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert expected in done.stdout
