"""The judge of the exam, examined: clients whose marks are known get them."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest
from faults.exam import PACE, Client, Mark, Outcome, Pace, Scenario, Verdict, examine
from faults.further import FURTHER
from faults.misdeeds import ANSWER
from faults.plain_clients import Careful, Direct, Hammer, Liar
from faults.scenarios import SIXTEEN

BY_ID = {scenario.id: scenario for scenario in (*SIXTEEN, *FURTHER)}


SLOW = {"F05", "F21", "F22"}
"""Of the further faults those that a client without any cleverness hangs in, or nearly."""


def marks(
    maker: Callable[[str, str, Pace], Client], scenarios: Iterable[Scenario] = SIXTEEN
) -> dict[str, Mark]:
    """Put a client through scenarios, all of them at once."""
    with ThreadPoolExecutor(8) as pool:
        told = {
            scenario.id: pool.submit(examine, scenario, maker, PACE, stream=True)
            for scenario in scenarios
        }
    return {name: mark.result() for name, mark in told.items()}


def test_a_client_that_asks_once_gets_its_published_marks() -> None:
    """The public exam gives a client without retries 4 passes and 12 honest errors."""
    told = marks(Direct)

    assert Counter(mark.verdict for mark in told.values()) == {Verdict.PASS: 4, Verdict.SAFE: 12}
    passed = {name for name, mark in told.items() if mark.verdict is Verdict.PASS}
    assert passed == {"S07", "S10", "S11", "S13"}


def test_a_careful_client_passes_everything() -> None:
    """All sixteen can be passed, with our own rules too, by a client without any cleverness."""
    told = marks(Careful)

    wrong = [
        f"{name} {mark}"
        for name, mark in told.items()
        if mark.verdict is not Verdict.PASS or mark.beyond
    ]
    assert not wrong, "\n".join(wrong)


def test_the_further_faults_find_what_a_careful_client_lacks() -> None:
    """It reads one form of Retry-After, believes that all is said that it could read, and so on."""
    told = marks(Careful, [scenario for scenario in FURTHER if scenario.id not in SLOW])

    found = {n: mark.verdict for n, mark in told.items() if mark.verdict is not Verdict.PASS}
    assert found == {
        **dict.fromkeys(("F01", "F02", "F03", "F04", "F16"), Verdict.PARTIAL),
        **dict.fromkeys(("F17", "F18", "F19"), Verdict.FAIL),
    }


@pytest.mark.parametrize("scenario", ["S08", "S14", "F14", "F15"])
def test_a_part_as_the_whole_fails(scenario: str) -> None:
    """Whoever gives what came before a cut as the answer fails, however politely."""
    mark = examine(BY_ID[scenario], Liar, PACE, stream=True)

    assert mark.verdict is Verdict.FAIL
    assert "as the answer" in mark.reason


@pytest.mark.parametrize("scenario", ["S01", "S02", "S04", "S12", "S13", "S16"])
def test_asking_again_at_once_fails(scenario: str) -> None:
    """A vendor that refuses is not to be asked twelve times in a row, whatever comes of it."""
    mark = examine(BY_ID[scenario], Hammer, PACE, stream=True)

    expected = Verdict.PARTIAL if scenario == "S01" else Verdict.FAIL
    assert mark.verdict is expected, str(mark)


def test_who_hangs_in_a_loop_fails() -> None:
    """A task that does not end is cancelled, and that is a fail."""

    class Sleeper:
        has_fallback = True

        async def ask(self, prompt: str, *, stream: bool) -> Outcome:
            await asyncio.sleep(1e6)
            raise AssertionError

        def close(self) -> None: ...

    impatient = attrs.evolve(PACE, hang_s=0.2)

    mark = examine(BY_ID["S03"], lambda *_: Sleeper(), impatient, stream=False)

    assert (mark.verdict, mark.reason) == (Verdict.FAIL, "hung")


def test_who_hangs_in_a_thread_fails() -> None:
    """A thread cannot be ended; it is left behind, and that is a fail."""
    woken = threading.Event()

    class Sleeper:
        has_fallback = True

        def ask(self, prompt: str, *, stream: bool) -> Outcome:
            woken.wait()
            return Outcome(error="Woken: too late")

        def close(self) -> None:
            woken.set()

    impatient = attrs.evolve(PACE, hang_s=0.2)

    mark = examine(BY_ID["S03"], lambda *_: Sleeper(), impatient, stream=False)

    assert (mark.verdict, mark.reason) == (Verdict.FAIL, "hung")


def test_what_the_reader_sees_counts() -> None:
    """A right reply is worth nothing if the reader of the stream has something else before him."""
    right = Outcome(text=ANSWER, shown=ANSWER)

    assert right.is_whole
    assert not attrs.evolve(right, shown="Ships " + ANSWER).is_whole
    assert not attrs.evolve(right, text=ANSWER[:-1]).is_whole
    assert not attrs.evolve(right, error="Failed: late").is_whole
