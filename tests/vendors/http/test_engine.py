"""The engine of HTTP vendors: its states, what it loads, and what it learns from requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from loopback import Answer, Got, Loopback
from plain_wire import LIVE_S, WORLDS, PlainWire, ask, closing, engine, in_thread, text_of, told

from llmdispatcher.models.errors import AuthRejected, DispatcherError, Refused, Unreachable
from llmdispatcher.vendors.contract import State
from llmdispatcher.vendors.http import lookout
from llmdispatcher.vendors.http.engine import HttpEngine


def well(got: Got) -> Answer:
    """Answer as a server that is ready."""
    match got.path:
        case "/models":
            return Answer.json({"models": ["m", "n"]})
        case "/chat":
            return Answer.sse(told("a"))
    return Answer.json({})


@pytest.fixture
def server() -> Iterator[Loopback]:
    """A server that is ready."""
    with Loopback(well) as made:
        yield made


def until_state(made: HttpEngine, state: State) -> bool:
    """Look until a state is told."""
    until_s = time.monotonic() + LIVE_S
    while made.status().state is not state and time.monotonic() < until_s:
        time.sleep(0.005)
    return made.status().state is state


def test_states_are_told_from_what_was_seen(server: Loopback) -> None:
    """Not looked yet, ready, busy, closed."""
    with closing(engine(server.url)) as made:
        assert made.status().state is State.ABSENT
        assert until_state(made, State.READY)
        call = made.submit(ask(), "m")
        assert made.status().state is State.BUSY
        assert made.status().running == 1
        call.cancel()
        assert made.status().state is State.READY
        made.close()
        assert made.status().state is State.CLOSED


def test_a_server_that_is_away_has_failed_and_says_why() -> None:
    """And it is ready again when it is back, or when it served."""
    with closing(engine("http://127.0.0.1:9")) as made:
        assert until_state(made, State.FAILED)
        assert "refused" in made.status().detail


def test_a_server_that_loads_is_loading() -> None:
    """With what it says."""
    with (
        Loopback(lambda _: Answer.json({"status": "loading"}, status=503)) as server,
        closing(engine(server.url)) as made,
    ):
        assert until_state(made, State.LOADING)


def test_a_failed_list_is_told(server: Loopback) -> None:
    """Without any models the vendor has failed; with those of before it serves them."""
    server.handler = lambda got: Answer.json({}, status=401 if got.path == "/models" else 200)
    with closing(engine(server.url, cards=())) as made:
        made.found().result(LIVE_S)
        assert isinstance(made.error(), AuthRejected)
        assert made.status().state is State.FAILED
        assert "could not be listed" in made.status().detail


def test_what_a_request_meets_is_learnt(server: Loopback) -> None:
    """What served is ready without a probe; what was not reached is looked at again."""
    with closing(engine(server.url)) as made:
        in_thread(made, ask())
        assert made.status().state is State.READY
        assert [got.path for got in server.got] == ["/chat"]
        server.handler = lambda got: Answer.json({}, status=503)
        with pytest.raises(DispatcherError):
            in_thread(made, ask())
        assert made.status().state is State.ABSENT
        assert until_state(made, State.FAILED)


def test_a_missing_key_is_told_and_nothing_is_sent() -> None:
    """Requests are rejected here, and no list is asked for."""
    with closing(engine("http://127.0.0.1:9", problem="no key: set X")) as made:
        assert made.status().state is State.FAILED
        assert made.found(afresh=True).done()
        for receive in WORLDS.values():
            with pytest.raises(AuthRejected, match="set X"):
                receive(made, ask(), 1.0)


# -- loading -----------------------------------------------------------------------------------


def test_elsewhere_there_is_nothing_to_load(server: Loopback) -> None:
    """A cloud has its models ready."""
    with closing(engine(server.url)) as made:
        assert made.load("m").done()
        assert not server.got


def test_a_model_is_loaded_once_and_stays_warm(server: Loopback) -> None:
    """All who ask at once wait for one load; who asks soon after does not wait."""
    held = threading.Event()

    def handle(got: Got) -> Answer:
        if got.path == "/load":
            held.wait(LIVE_S)
        return Answer.json({})

    server.handler = handle
    with closing(engine(server.url, loads=True)) as made:
        waiting = [made.load("m") for _ in range(5)]
        assert not any(each.cancel() for each in waiting)
        held.set()
        for each in waiting:
            each.result(LIVE_S)
        assert made.load("m").done()
        assert [got.path for got in server.got].count("/load") == 1


def test_a_model_that_served_is_warm_and_one_that_failed_is_not(server: Loopback) -> None:
    """What a request met counts more than what was thought."""
    with closing(engine(server.url, loads=True)) as made:
        in_thread(made, ask())
        assert made.load("m").done()
        server.handler = lambda got: well(got) if got.path != "/chat" else Answer(status=503)
        with pytest.raises(DispatcherError):
            in_thread(made, ask())
        made.load("m").result(LIVE_S)
        assert [got.path for got in server.got][-2:] == ["/health", "/load"]


def test_a_load_that_fails_fails_for_all_and_is_tried_again(server: Loopback) -> None:
    """The error is the vendor's, and a new load begins with the next request."""
    server.handler = lambda got: Answer.json({}, status=500 if got.path == "/load" else 200)
    with closing(engine(server.url, loads=True)) as made:
        for number in (1, 2):
            with pytest.raises(DispatcherError):
                made.load("m").result(LIVE_S)
            assert [got.path for got in server.got].count("/load") == number


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_a_dialect_does_not_leave_a_load_hanging(server: Loopback) -> None:
    """Whoever waits is told that there is a bug."""

    class Buggy(PlainWire):
        def loading(self, model: str) -> Any:
            raise ZeroDivisionError

    with closing(engine(server.url, Buggy(), loads=True)) as made:
        for _ in range(2):
            with pytest.raises(DispatcherError, match="bug"):
                made.load("m").result(LIVE_S)


def test_where_no_thread_can_be_started_a_load_fails(
    server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, and the next try is a new one."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with closing(engine(server.url, loads=True)) as made:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail)
            with pytest.raises(Unreachable, match="thread"):
                made.load("m").result(LIVE_S)
        made.load("m").result(LIVE_S)


def test_closing_ends_a_load(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits is released, and what is asked afterwards is refused."""
    monkeypatch.setattr(lookout, "POLL_S", 0.01)
    server.handler = lambda _: Answer.json({"status": "loading"}, status=503)
    with closing(engine(server.url, loads=True)) as made:
        loading = made.load("m")
        time.sleep(0.03)
        assert not loading.done()
        made.close()
        loading.result(LIVE_S)
        with pytest.raises(Refused):
            made.load("m").result(LIVE_S)


# -- models ------------------------------------------------------------------------------------


def test_what_is_known_of_a_model_is_what_the_list_told(server: Loopback) -> None:
    """A model that is not on it is known by its name alone."""
    seen: list[Any] = []

    class Watching(PlainWire):
        def exchanges(self, work: Any, card: Any) -> Any:
            seen.append(card)
            return super().exchanges(work, card)

    with closing(engine(server.url, Watching(), cards=())) as made:
        assert not made.cards()
        made.found().result(LIVE_S)
        assert [card.model for card in made.cards()] == ["m", "n"]
        assert text_of(in_thread(made, ask())) == "a"
        assert seen[0] is made.cards()[0]


def test_many_threads_may_use_one_engine(server: Loopback) -> None:
    """Submitting, ending and closing at once breaks no set of ours."""
    errors: list[Exception] = []

    def work(made: HttpEngine) -> None:
        for _ in range(30):
            try:
                call = made.submit(ask(), "m")
                made.status()
                call.cancel()
                in_thread(made, ask())
            except DispatcherError:
                return
            except Exception as error:  # noqa: BLE001 - the test looks at it
                errors.append(error)

    with closing(engine(server.url)) as made:
        threads = [threading.Thread(target=work, args=(made,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        made.close()
        for thread in threads:
            thread.join(LIVE_S)
    assert not errors
