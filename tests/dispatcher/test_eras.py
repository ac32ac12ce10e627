"""What was replaced is closed with the last request that began before, and not sooner."""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waits import until

from llmdispatcher.eras import Eras
from llmdispatcher.steps import Emit, Flow, Step


def flow() -> Generator[Step, Any, str]:
    """Emit twice, and return."""
    yield Emit(1)
    yield Emit(2)
    return "done"


def begun(eras: Eras) -> Flow:
    """Begin a request, and leave it in the middle."""
    made = eras.within(flow)
    next(made)
    return made


def test_what_nobody_uses_closes_at_once() -> None:
    """Nothing waits for requests that come later."""
    eras, closed = Eras(), threading.Event()

    eras.retire([closed.set])

    until(closed.is_set)
    eras.close()


@pytest.mark.parametrize("how", ["ends", "is closed", "fails", "is forgotten"])
def test_it_closes_with_the_last_request_however_that_ends(how: str) -> None:
    """Served, cancelled, failed and abandoned requests all count as ended."""
    eras, closed = Eras(), threading.Event()
    request = begun(eras)
    eras.retire([closed.set])
    later = begun(eras)
    assert not closed.is_set()

    if how == "ends":
        assert list(request) != []
    elif how == "is closed":
        request.close()
    elif how == "fails":
        with pytest.raises(ValueError, match="bad"):
            request.throw(ValueError("bad"))
    else:
        del request

    until(closed.is_set)
    later.close()
    eras.close()


def test_a_flow_that_was_not_begun_holds_nothing() -> None:
    """It counts from its first step, and of the era of that."""
    eras, first, second = Eras(), threading.Event(), threading.Event()
    request = eras.within(flow)
    eras.retire([first.set])
    until(first.is_set)
    next(request)

    eras.retire([second.set])
    assert not second.is_set()
    request.close()

    until(second.is_set)
    eras.close()


def test_the_result_of_a_flow_is_passed_on() -> None:
    """Counting changes nothing of what a flow yields and returns."""
    made = Eras().within(flow)

    assert [next(made), next(made)] == [Emit(1), Emit(2)]
    with pytest.raises(StopIteration) as end:
        next(made)
    assert end.value.value == "done"


def test_closing_closes_all_of_it_and_what_is_owned_last() -> None:
    """Also what requests still hold, once."""
    eras = Eras()
    order: list[str] = []
    request = begun(eras)
    eras.own(lambda: order.append("owned"))
    eras.retire([lambda: order.append("old")])

    eras.close()
    eras.close()
    request.close()

    assert order == ["old", "owned"]


@settings(max_examples=60)
@given(steps=st.lists(st.sampled_from(["begin", "end first", "end last", "retire"]), max_size=30))
def test_nothing_closes_early_and_nothing_is_kept(steps: list[str]) -> None:
    """Whatever the order: closed is exactly what no request of its era or before is left for."""
    eras = Eras()
    requests: list[tuple[int, Flow]] = []
    retired: list[threading.Event] = []
    for step in steps:
        match step:
            case "begin":
                requests.append((len(retired), begun(eras)))
            case "retire":
                retired.append(threading.Event())
                eras.retire([retired[-1].set])
            case _ if requests:
                requests.pop(0 if step == "end first" else -1)[1].close()
        oldest = min((era for era, _ in requests), default=len(retired))
        for era, event in enumerate(retired):
            if era < oldest:
                until(event.is_set)
            else:
                assert not event.is_set()
    for _, request in requests:
        request.close()
    eras.close()
    assert all(event.is_set() for event in retired)
