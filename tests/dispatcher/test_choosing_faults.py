"""What choosing must survive: foreign engines, odd figures, other threads, kept replies."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import attrs
import pytest
from waits import WAIT_S, until

from llmdispatcher import (
    BadRequest,
    BreakerPolicy,
    Dispatcher,
    DispatcherError,
    EngineCrashed,
    Event,
    FinishReason,
    Image,
    Limits,
    LoadProgress,
    Overloaded,
    Price,
    Request,
    RetryPolicy,
    Routing,
    Scripted,
    Text,
    Unreachable,
    Unsupported,
    Usage,
    user,
)
from llmdispatcher.gate import Gate
from llmdispatcher.history import LEAST_BYTES, History
from llmdispatcher.limits import Limiter
from llmdispatcher.models.reply import Finish
from llmdispatcher.vendors.contract import Report, State, Status
from llmdispatcher.vendors.scripted import ResidentScriptedEngine, ScriptedEngine

PRICE, DEAR = Price.per_million(1, 1), Price.per_million(2, 2)
LOOSE: dict[str, Any] = {
    "breaker": BreakerPolicy(failures=1000),
    "retry": RetryPolicy(same_target=0),
}


@pytest.fixture(autouse=True)
def asked_once() -> None:
    """Leave the product's own defaults: retries are part of what is tested."""


@attrs.frozen
class Made:
    """A vendor whose engine is of a class of the test's own."""

    make: Any
    script: Scripted

    @property
    def name(self) -> str:
        """The script's."""
        return self.script.name

    def start(self, report: Report) -> Any:
        """Make the engine."""
        return self.make(self.script, report)


def order(d: Dispatcher, **options: Any) -> list[str]:
    """Return the vendors in the order in which they would be asked."""
    return [each.vendor for each in d.explain("hi", **options).candidates]


# -- what is learned ----------------------------------------------------------------------------


def learned(request: Request, tokens: int) -> float:
    """Return the tokens for a byte after twenty such prompts."""
    history, card = History(), Scripted().card
    for _ in range(20):
        end = Finish(FinishReason.STOP, Usage(prompt_tokens=tokens, completion_tokens=1))
        history.replied(card, request, end, 0)
    return history.of(card).per_byte


def test_only_text_teaches_how_long_a_token_is() -> None:
    """Pictures, forms and templates are tokens that no byte of the text stands for.

    A model that was asked such would seem too small for every long text.
    """
    text = "x" * LEAST_BYTES
    assert learned(Request.of(text), LEAST_BYTES // 2) > 0.4
    assert learned(Request.of("hi"), 40) == 0.25
    picture = user([Text(text), Image(url="https://example.org/a.png")])
    assert learned(Request.of([picture]), 3000) == 0.25
    schema = {"type": "object", "properties": {"x" * 50: {"type": "string"}}}
    assert learned(Request.of(text, schema=schema), 900) == 0.25


def test_no_byte_is_more_than_a_token() -> None:
    """A vendor that counts what it adds by itself does not make texts look longer than they are."""
    assert learned(Request.of("x" * LEAST_BYTES), 50_000) <= 1.0


def test_requests_that_are_wrong_say_nothing_about_a_vendor() -> None:
    """Who refuses what nobody should have asked is as good as before; who is full is not."""
    for error, is_to_blame in ((Unsupported("n", "no"), False), (Overloaded("full"), True)):
        script = Scripted(error, name="a", price=PRICE, local=False)
        with Dispatcher(script, **LOOSE) as d:
            for _ in range(3):
                with pytest.raises(DispatcherError):
                    d.send("hi")
            record = d._desk.chooser.history.of(script.card)
            assert bool(record.failed) is is_to_blame
            assert record.in_hand == 0


def test_failures_of_whose_price_is_not_known_count_too() -> None:
    """Drawn by weights, one that fails gets less than its share, priced or not."""
    failing = Scripted(Overloaded("full"), name="a", price=None, local=False)
    with Dispatcher(failing, Scripted(name="b", price=None, local=False), **LOOSE) as d:
        for _ in range(8):
            with pytest.raises(DispatcherError):
                d.send("hi", vendor="a")
        firsts = Counter(order(d, strategy="weighted")[0] for _ in range(500))

    assert firsts["a"] < firsts["b"]


def test_who_fails_quickly_is_not_quick() -> None:
    """By latency, one that only ever failed stands behind those that serve, and is found again."""
    failing = Scripted(Unreachable("gone"), "back", name="a", price=PRICE)
    once: dict[str, Any] = {"routing": Routing(explore=0), "retry": RetryPolicy(same_target=0)}
    with Dispatcher(failing, Scripted([0.05, "b"], name="b"), strategy="latency", **once) as d:
        d.send("hi", vendor="b")
        assert order(d) == ["a", "b"]  # nobody knows
        assert d.send("hi").vendor == "b"
        assert order(d) == ["b", "a"]
        record = d._desk.chooser.history.of(failing.card)
        record.at_s -= 3600
        assert order(d) == ["a", "b"]
        assert d.send("hi").vendor == "a"


# -- turns --------------------------------------------------------------------------------------


def test_looking_takes_no_turn() -> None:
    """Who explains each request before it sends it gives everybody a turn all the same."""
    vendors = [Scripted(name=name, price=PRICE) for name in "abc"]
    with Dispatcher(*vendors, strategy="round_robin") as d:
        served = []
        for _ in range(6):
            told = d.explain("hi")
            reply = d.send("hi")
            assert told.candidates == reply.decision.candidates
            served.append(reply.vendor)

    assert served == ["a", "b", "c"] * 2


def test_streams_that_are_opened_first_and_read_later_are_spread() -> None:
    """A turn is taken when a stream is opened, not when somebody begins to read it."""
    with Dispatcher(*[Scripted(name, name=name) for name in "abc"], strategy="round_robin") as d:
        streams = [d.stream("hi") for _ in range(6)]
        texts = ["".join(delta.text for delta in stream) for stream in streams]

    assert texts == ["a", "b", "c"] * 2


def test_requests_of_two_kinds_do_not_take_each_others_turns() -> None:
    """Texts to embed and chats in turn still reach everybody with both."""
    with Dispatcher(*[Scripted(name=n) for n in "ab"], strategy="round_robin") as d:
        chats: Counter[str] = Counter()
        for _ in range(6):
            chats[d.send("hi").vendor] += 1
            d.embed("hi", vendor="a")

    assert chats["b"] >= 3


# -- foreign engines and odd figures ------------------------------------------------------------


class Refusing(ScriptedEngine):
    """Cannot even be asked for a count, as a worker that has just died."""

    def count(self, _: Request, __: str) -> Future[int | None]:
        """Raise at once."""
        raise EngineCrashed("gone")


def test_a_count_that_cannot_be_asked_for_costs_nobody_the_reply() -> None:
    """The tokens are estimated then, and whoever is cheapest serves."""
    counter = Made(Refusing, Scripted("a", name="a", price=PRICE))
    with Dispatcher(counter, Scripted("b", name="b", price=DEAR)) as d:
        assert d.send("hi").vendor == "a"


class CountingWhileLoaded(ResidentScriptedEngine):
    """Counts with its own tokenizer, which comes with the model, and adds a template."""

    def count(self, _: Request, __: str) -> Future[int | None]:
        """Tell forty tokens while the model is loaded."""
        told: Future[int | None] = Future()
        told.set_result(40 if self.status().state in {State.READY, State.BUSY} else None)
        return told


def test_who_can_count_does_not_look_dearer_than_who_cannot() -> None:
    """Of two equal local models one stays in memory: a count is not held against an estimate."""
    loads: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, LoadProgress):
            loads.append(event.vendor)

    twins = [
        Made(CountingWhileLoaded, Scripted(name=name, memory_mb=800, price=PRICE)) for name in "ab"
    ]
    with Dispatcher(*twins, max_memory_mb=1000, on_event=note) as d:
        served = [d.send("hi", max_tokens=1).vendor for _ in range(6)]

    assert (served, loads) == (["a"] * 6, ["a"])


@attrs.frozen
class Odd:
    """Makes engines that tell a wait that is no number of seconds."""

    wait_s: float

    def __call__(self, script: Scripted, report: Report) -> ScriptedEngine:
        """Make one."""
        status = Status(State.READY, expected_wait_s=self.wait_s)

        class Waiting(ScriptedEngine):
            def status(self) -> Status:
                return status

        return Waiting(script, report)


@pytest.mark.parametrize("wait_s", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("strategy", ["cost", "latency", "quality", "priority"])
def test_a_wait_that_is_no_number_is_the_longest(wait_s: float, strategy: str) -> None:
    """A vendor that tells nonsense is asked, after others where waiting matters."""
    routing = Routing(explore=0)
    odd, other = Made(Odd(wait_s), Scripted(name="a")), Scripted(name="b")
    with Dispatcher(odd, other, routing=routing) as d:
        told = order(d, strategy=strategy)
    assert told == (["a", "b"] if strategy == "priority" else ["b", "a"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("value_of_time_usd", 10**400),
        ("value_of_time_usd", "1e400"),
        ("value_of_time_usd", "NaN"),
        ("value_of_time_usd", -1),
        ("weights", {"a": 10**400}),
        ("weights", {"a": float("nan")}),
        ("weights", {"a": -1}),
        ("explore", 1.5),
    ],
)
def test_figures_that_nothing_can_be_made_of_are_refused(field: str, value: object) -> None:
    """What is beyond any use is refused where it is given, by its own name, before a request."""
    with pytest.raises(BadRequest, match=field):
        Routing(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", ["cost", "latency", "weighted", "least_busy", "round_robin"])
def test_the_ends_of_every_range_choose(strategy: str) -> None:
    """Weights of nothing, all exploring, time worth most, the dearest price, a text of no bytes."""
    routing = Routing(weights={"a": 0, "b": 0}, explore=1, value_of_time_usd="1e9")
    most = Price(input_pico=10**18, output_pico=10**18, request_microusd=10**18)
    tiered = Price.per_million(1, 1, above={"tokens": 1, "input": 2, "output": 2})
    vendors = Scripted(name="a", price=most), Scripted(name="b", price=tiered)
    with Dispatcher(*vendors, routing=routing, strategy=strategy) as d:
        for text in ("", "x" * 10_000_000):
            told = d.explain(text, n=64)
            assert len(told.candidates) == 2
            assert str(told)


# -- threads ------------------------------------------------------------------------------------


@contextmanager
def hasty() -> Iterator[None]:
    """Have threads take turns as often as can be.

    Those that are to do so must run by then: on Python 3.11 a thread that begins beside another
    one, both of which are measured, can fail at that (``sys.settrace`` is not for two at once).
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def test_vendors_may_come_while_others_choose() -> None:
    """A vendor that is registered meanwhile is one more; no request falls between two shelves."""
    failures: list[BaseException] = []
    with Dispatcher(Scripted(name="first")) as d:
        all_run, go = threading.Barrier(5), threading.Event()

        def choose() -> None:
            try:
                all_run.wait(WAIT_S)
                assert go.wait(WAIT_S)
                for _ in range(300):
                    assert len(d.explain("hi").candidates) >= 1
            except BaseException as error:  # noqa: BLE001 - whatever it is, the test tells it
                failures.append(error)

        threads = [threading.Thread(target=choose) for _ in range(4)]
        for thread in threads:
            thread.start()
        all_run.wait(WAIT_S)
        with hasty():
            go.set()
            for number in range(40):
                d.register_vendor(Scripted(name=f"v{number}"))
            for thread in threads:
                thread.join()
        assert len(d.explain("hi").candidates) == 41

    assert failures == []


def test_garbage_may_be_collected_while_breakers_are_asked() -> None:
    """A stream that was forgotten is settled in whichever thread collects it, locks or not."""
    with Dispatcher(Scripted(["a", 60.0, "b"])) as d:
        stream: Any = d.stream("hi")
        next(stream)
        stream.itself = stream
        del stream

        def collect() -> None:
            with d._desk._patience.breakers._lock:
                gc.collect()

        collecting = threading.Thread(target=collect, daemon=True)
        collecting.start()
        collecting.join(10)
        assert not collecting.is_alive()
        assert not d._desk.chooser.history.of(Scripted().card).in_hand


# -- replies that are kept ----------------------------------------------------------------------


def test_a_kept_reply_keeps_neither_engines_nor_prompts() -> None:
    """Its decision is made of values: a model is let go though its replies are kept."""
    d = Dispatcher(Scripted("a", name="a"), Scripted(name="b", capabilities=()))
    engine: Any = weakref.ref(d._desk._engines["a"])
    request = Request.of("a text")
    asked = weakref.ref(request)
    reply = d.send(request)
    d.close()
    del d, request

    def are_gone() -> bool:
        gc.collect()
        return engine() is None and asked() is None

    until(are_gone)  # the thread that played the reply may be on its last line
    assert [each.vendor for each in reply.decision.candidates] == ["a"]
    assert [each.vendor for each in reply.decision.excluded] == ["b"]


def test_replies_travel() -> None:
    """Pickled and copied, a reply is equal to what it was, read before or not."""
    with Dispatcher(Scripted("a"), Scripted(name="b", price=None)) as d:
        reply = d.send("hi")
    for made in (pickle.loads(pickle.dumps(reply)), copy.copy(reply), copy.deepcopy(reply)):  # noqa: S301 - our own
        assert made == reply
        assert str(made.decision) == str(reply.decision)


def test_a_permit_may_end_in_the_middle_of_a_step_of_the_same_thread() -> None:
    """A collection may close a flow while its thread is in the gate: its step comes after."""
    limiter, steps = Limiter(Limits(concurrency=1)), []

    def outer(_: Gate) -> None:
        limiter.move(lambda _: steps.append("inner"))
        steps.append("outer")

    moving = threading.Thread(target=limiter.move, args=(outer,), daemon=True)
    moving.start()
    moving.join(10)

    assert steps == ["outer", "inner"]
    assert not moving.is_alive()
