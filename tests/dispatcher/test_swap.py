"""What a dispatcher keeps, and what it forgets, when it goes by other vendors and policies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from waits import WAIT_S, until

from llmdispatcher import (
    BreakerPolicy,
    Dispatcher,
    LimitReached,
    Limits,
    ModelTooLarge,
    ModelUnloaded,
    Overloaded,
    RetryPolicy,
    Scripted,
)
from llmdispatcher.breaker import Hold
from llmdispatcher.breakers import Breakers
from llmdispatcher.bucket import Needs
from llmdispatcher.desk import Desk
from llmdispatcher.ledger import Ledger
from llmdispatcher.ledger_queries import Reader
from llmdispatcher.limits import Limiters, Permit
from llmdispatcher.policies import Policies
from llmdispatcher.rooms import Rooms
from llmdispatcher.swap import Outfit, prepare, swap
from llmdispatcher.tenancy import Budget

REPORT = Breakers.report
"""Before the fixture that has nobody report anything."""


def model(name: str, reply: str = "x", memory_mb: int = 100, **options: Any) -> Scripted:
    """Make a vendor whose model takes memory."""
    return Scripted(reply, name=name, model="m", memory_mb=memory_mb, **options)


def desk(*vendors: Scripted, budget_mb: int | None = None, **policies: Any) -> Desk:
    """Make what a dispatcher is about."""
    made = Policies(**policies)
    return Desk(vendors, None, made, None, Budget(max_memory_mb=budget_mb))


def outfit(*vendors: Scripted, budget_mb: int | None = None, **policies: Any) -> Outfit:
    """Make what it is to be about."""
    return Outfit(
        specs=vendors, policies=Policies(**policies), budget=Budget(max_memory_mb=budget_mb)
    )


def test_memory_of_what_is_going_counts_beside_what_comes() -> None:
    """A vendor that was started anew waits for room that its old self has, as any other would."""
    go_on = threading.Event()

    def slowly(_: object) -> Iterator[str | float]:
        yield "o"
        while not go_on.is_set():
            yield 0.005
        yield "ld"

    old = Scripted(slowly, name="a", model="m", memory_mb=100)
    with Dispatcher(old, max_memory_mb=150) as d:
        prepare(d._desk)
        with d.stream("Hi") as stream, ThreadPoolExecutor(1) as pool:
            assert next(stream).text == "o"
            swap(d._desk, outfit(model("a", "new", 120), budget_mb=150), {"a"})
            asked = pool.submit(lambda: d.send("Hi").text)
            until(lambda: d._desk.landlord.waiting("a/m") == 1)
            assert not asked.done()
            go_on.set()
            assert "".join(delta.text for delta in stream) == "ld"
            assert asked.result(WAIT_S) == "new"


def test_a_budget_changes_at_once() -> None:
    """A model that fits the old budget and not the new one is refused from then on."""
    with Dispatcher(model("a", memory_mb=100), model("b", memory_mb=10), max_memory_mb=150) as d:
        assert d.send("Hi", vendor="a").text == "x"
        d.unload("m", "a")
        same = (model("a", memory_mb=100), model("b", memory_mb=10))
        assert swap(d._desk, outfit(*same, budget_mb=50), {"a", "b"}).kept == ("a", "b")

        with pytest.raises(ModelTooLarge):
            d.send("Hi", vendor="a")
        assert d.send("Hi", vendor="b").text == "x"


def test_models_of_vendors_that_are_gone_are_forgotten() -> None:
    """However often vendors are replaced, the books of memory do not grow."""
    with Dispatcher(model("a", "0")) as d:
        for number in range(1, 30):
            assert d.send("Hi").text == str(number - 1)
            swap(d._desk, outfit(model("a", str(number))), {"a"})
        assert d.send("Hi").text == "29"
        landlord = d._desk.landlord
        until(lambda: len(landlord._rooms.names()) <= 2)


def test_rooms_of_two_engines_have_two_names() -> None:
    """Whichever of the two is asked for, and as often as it is."""
    rooms, spec = Rooms(), model("a")
    old, new = (spec.start(lambda _: None) for _ in range(2))
    card = spec.card

    first, second = rooms.of(card, old), rooms.of(card, new)

    assert (first.name, second.name) == ("a/m", "a/m#2")
    assert rooms.of(card, old) is first
    assert rooms.of(card, new) is second
    assert rooms.latest("a/m") == "a/m#2"
    rooms.forget(old, lambda _: True)
    assert rooms.names() == ["a/m#2"]
    rooms.forget(new, lambda _: False)
    assert rooms.get("a/m#2") is second
    rooms.forget(new, lambda _: True)
    assert (rooms.names(), rooms.latest("a/m")) == ([], "")


def ask(limiters: Limiters, model_name: str = "m") -> Permit:
    """Take a permit, or raise."""
    answer = limiters.of("a", model_name).ask(Needs(), 0.0)
    assert isinstance(answer, Permit)
    return answer


def test_limits_that_are_as_before_remember_and_others_begin_anew() -> None:
    """By what holds for a model, whether it is said of the model or of its vendor."""
    once = Limits(requests_per_day=1, waits=False)
    limiters = Limiters({"a": once})
    ask(limiters)

    limiters.obey({"a/m": once, "a": Limits(requests_per_day=5)})
    with pytest.raises(LimitReached):
        ask(limiters)
    limiters.obey({"a": Limits(requests_per_day=2, waits=False)})
    ask(limiters)
    limiters.obey({})
    assert limiters.wanted("a", "m") is None


def test_breakers_remember_and_go_by_the_new_policy(asked_once: None) -> None:
    """What was open stays open; how many failures open one is the new policy's to say."""
    breakers = Breakers(BreakerPolicy(failures=1, open_s=60))

    def fail(name: str) -> None:
        passage = breakers.admit(name, 0.0)
        assert not isinstance(passage, Hold)
        REPORT(breakers, passage, Overloaded("full"), 0.0)

    fail("a/m")
    assert isinstance(breakers.admit("a/m", 1.0), Hold)

    breakers.obey(BreakerPolicy(failures=3))

    assert isinstance(breakers.admit("a/m", 1.0), Hold)
    for _ in range(2):
        fail("b/m")
        assert not isinstance(breakers.admit("b/m", 1.0), Hold)
    fail("b/m")
    assert isinstance(breakers.admit("b/m", 1.0), Hold)


def test_what_was_learned_stays() -> None:
    """Histories of models, statistics and places of turns survive."""
    inner = desk(Scripted("x", name="a"))
    try:
        history, warmth, books = inner.chooser.history, inner.chooser.warmth, inner.books
        swap(inner, outfit(Scripted("y", name="a"), strategy="latency"), {"a"})
        assert inner.chooser.history is history
        assert inner.chooser.warmth is warmth
        assert inner.books is books
    finally:
        inner.close()


def test_a_ledger_can_come_and_go(tmp_path: Path) -> None:
    """Attempts are written into the one that holds when they begin."""
    ledger = Ledger(tmp_path / "books.db", share=True)
    with Dispatcher(Scripted("x", name="a")) as d:
        d.send("Hi")
        swap(d._desk, outfit(Scripted("x", name="a"), ledger=ledger), {"a"})
        d.send("Hi")
        swap(d._desk, outfit(Scripted("x", name="a")), {"a"}, [ledger.close])
        d.send("Hi")

    assert [tally.attempts for tally in Reader(tmp_path / "books.db").tallies()] == [1]


def test_retries_go_by_the_new_policy() -> None:
    """The next request is tried as often as the new policy says."""
    failing = Scripted(Overloaded("full"), name="a")
    with Dispatcher(failing, retry=RetryPolicy(attempts=1)) as d:
        engine = d._desk.registered()["a"].engine
        with pytest.raises(Overloaded):
            d.send("Hi")
        retry = RetryPolicy(attempts=3, same_target=2, backoff_s=0)
        swap(d._desk, outfit(failing, retry=retry), {"a"})
        with pytest.raises(Overloaded):
            d.send("Hi")

    assert len(engine.requests) == 1 + 3  # type: ignore[attr-defined]


def test_nothing_is_changed_of_one_that_is_closed() -> None:
    """What was started for it is closed again."""
    inner = desk(Scripted("x", name="a"))
    inner.close()

    with pytest.raises(Exception, match="closed"):
        swap(inner, outfit(Scripted("y", name="a")), {"a"})


def test_unloading_is_told_for_both() -> None:
    """The event names the model by its card, whatever it is counted as."""
    events: list[Any] = []
    with Dispatcher(model("a", "old"), on_event=events.append) as d:
        d.send("Hi")
        swap(d._desk, outfit(model("a", "new")), {"a"})
        d.send("Hi")
        d.unload("m", "a")
        until(lambda: any(isinstance(event, ModelUnloaded) for event in events))
        (event,) = [event for event in events if isinstance(event, ModelUnloaded)]
        assert (event.vendor, event.model) == ("a", "m")
