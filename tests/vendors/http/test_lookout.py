"""Looking at a vendor: its list of models and its health, off the path of requests."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from loopback import Answer, Got, Loopback
from plain_wire import LIVE_S, PlainWire, place
from rough_server import RoughServer, answer, drip, request, until_closed

from llmdispatcher.models.errors import (
    AuthRejected,
    BadReply,
    DispatcherError,
    Overloaded,
    TimedOut,
    Unreachable,
)
from llmdispatcher.vendors.http import lookout
from llmdispatcher.vendors.http.lookout import FAILED_S, FRESH_S, LIST_S, Lookout
from llmdispatcher.vendors.http.transport import Connections
from llmdispatcher.vendors.wire.exchange import Ask


class Clock:
    """Time that a test moves on."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


class Looking:
    """A lookout over a server, with a clock."""

    def __init__(self, url: str, wire: Any = None, cards: Any = (), **reached: Any) -> None:
        self.clock = Clock()
        self.connections = Connections(place(url, **reached))
        self.wire = wire or PlainWire()
        self.lookout = Lookout(self.wire, self.connections, cards, self.clock)

    def found(self, *, afresh: bool = False) -> list[str]:
        """Look, wait, and return the names of the models."""
        self.lookout.found(afresh=afresh).result(LIVE_S)
        return self.names()

    def names(self) -> list[str]:
        """Return the names of those that are known now."""
        return [card.model for card in self.lookout.cards()]

    def close(self) -> None:
        """Close all of it."""
        self.lookout.close()
        self.connections.close()


Made = Callable[..., Looking]


@pytest.fixture
def looking() -> Iterator[Made]:
    """Makes lookouts, and closes them."""
    made: list[Looking] = []

    def make(*given: Any, **more: Any) -> Looking:
        made.append(Looking(*given, **more))
        return made[-1]

    yield make
    for each in made:
        each.close()


def listed(*pages: dict[str, Any]) -> Callable[[Got], Answer]:
    """Answer with pages, each of which names the next."""

    def handle(got: Got) -> Answer:
        number = int(got.query or 0)
        more = f"/models?{number + 1}" if number + 1 < len(pages) else ""
        return Answer.json({"more": more, **pages[number]})

    return handle


def until(condition: Callable[[], bool]) -> bool:
    """Wait until something holds."""
    until_s = time.monotonic() + LIVE_S
    while not condition() and time.monotonic() < until_s:
        time.sleep(0.005)
    return condition()


# -- models ------------------------------------------------------------------------------------


def test_a_list_is_read_page_by_page(looking: Made) -> None:
    """All pages are one list, in their order, each model once."""
    pages = [{"models": ["a", "b"]}, {"models": ["b", "c"]}, {"models": ["d"]}]
    with Loopback(listed(*pages)) as server:
        assert looking(server.url).found() == ["a", "b", "c", "d"]
        assert server.accepted == 1


def test_models_that_were_named_are_not_asked_for(looking: Made) -> None:
    """The user is believed, and nothing is sent."""
    card = PlainWire().card("mine")
    made = looking("http://127.0.0.1:9", cards=(card,))
    assert made.found(afresh=True) == ["mine"]
    assert made.lookout.error is None


def test_a_server_without_a_list_is_not_asked(looking: Made) -> None:
    """Some dialects have none."""

    class Listless(PlainWire):
        def listing(self) -> Ask | None:
            return None

    assert looking("http://127.0.0.1:9", Listless()).found(afresh=True) == []


@pytest.mark.parametrize(
    "page",
    [
        {"models": ["a"], "more": "/models"},
        {"models": [f"m{n}" for n in range(500)], "more": "/models?0"},
    ],
)
def test_pages_without_end_end(looking: Made, page: dict[str, Any]) -> None:
    """A server that knows of no pages gives the same for ever; it is asked twice."""
    with Loopback(lambda _: Answer.json(page)) as server:
        assert looking(server.url).found() == page["models"]
        assert len(server.got) == 2


def test_a_list_is_bounded(looking: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pages, in models and in bytes."""
    monkeypatch.setattr(lookout, "MAX_PAGES", 3)
    monkeypatch.setattr(lookout, "MAX_CARDS", 25)

    def endless(got: Got) -> Answer:
        number = int(got.query or 0)
        names = [f"m{number}-{n}" for n in range(10)]
        return Answer.json({"models": names, "more": f"/models?{number + 1}"})

    with Loopback(endless) as server:
        made = looking(server.url)
        assert len(made.found()) == 25
        assert len(server.got) == 3
        monkeypatch.setattr(lookout, "MAX_BODY_BYTES", 10)
        made.found(afresh=True)
        made.clock.now_s += FRESH_S + 0.1
        assert len(made.found(afresh=True)) == 25
        assert isinstance(made.lookout.error, BadReply)


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        (Answer.json({"error": "no"}, status=401), AuthRejected),
        (Answer.json({}, status=503), Overloaded),
        (Answer(chunks=(b"<html>",), headers={"content-type": "text/html"}), BadReply),
        (Answer(), BadReply),
        (Answer(status=204), BadReply),
        (Answer(chunks=(b"{",), cut=True), Unreachable),
        (Answer(chunks=(b"no",), raw=True), Unreachable),
        (Answer(status=302, headers={"location": "http://127.0.0.1:9/"}), Unreachable),
    ],
)
def test_a_list_that_cannot_be_read_is_an_error_that_is_kept(
    answers: Answer, kind: type[DispatcherError], looking: Made
) -> None:
    """What was known stays known, and the error says why there is no more."""
    with Loopback(listed({"models": ["a"]})) as server:
        made = looking(server.url)
        assert made.found() == ["a"]
        server.handler = lambda _: answers
        made.clock.now_s += LIST_S + 1
        assert made.found(afresh=True) == ["a"]
        assert isinstance(made.lookout.error, kind)
        server.handler = listed({"models": ["b"]})
        made.clock.now_s += FAILED_S + 1
        assert made.found(afresh=True) == ["b"]
        assert made.lookout.error is None


@pytest.mark.parametrize(
    ("age_s", "afresh", "fails", "asks"),
    [
        (LIST_S - 1, False, False, False),
        (LIST_S + 1, False, False, True),
        (FRESH_S - 0.1, True, False, False),
        (FRESH_S + 0.1, True, False, True),
        (FAILED_S - 0.1, False, True, False),
        (FAILED_S + 0.1, False, True, True),
        (FRESH_S + 0.1, True, True, True),
        (FRESH_S - 0.1, True, True, False),
    ],
)
def test_a_list_is_asked_for_again_when_it_is_old(
    age_s: float, looking: Made, *, afresh: bool, fails: bool, asks: bool
) -> None:
    """How old it may be depends on whether it was read, and on who asks."""
    with Loopback(listed({"models": ["a"]})) as server:
        if fails:
            server.handler = lambda _: Answer.json({}, status=500)
        made = looking(server.url)
        made.found()
        made.clock.now_s += age_s
        waits = made.lookout.found(afresh=afresh)
        if asks:
            assert until(lambda: len(server.got) == 2)
        waits.result(LIVE_S)
        assert until(lambda: made.lookout._looking is None)
        assert len(server.got) == 1 + asks


def test_who_asks_for_an_old_list_gets_it_at_once(looking: Made) -> None:
    """It is looked at again meanwhile; only who wants it afresh waits."""
    held = threading.Event()

    def handle(got: Got) -> Answer:
        if server.got[1:]:
            held.wait(LIVE_S)
        return Answer.json({"models": [f"m{len(server.got)}"]})

    with Loopback(handle) as server:
        made = looking(server.url)
        assert made.found() == ["m1"]
        made.clock.now_s += LIST_S + 1
        assert made.lookout.found().done()
        assert made.names() == ["m1"]
        again = made.lookout.found(afresh=True)
        assert not again.done()
        held.set()
        again.result(LIVE_S)
        assert made.names() == ["m2"]


def test_one_look_serves_all_who_wait(looking: Made) -> None:
    """However many ask at once, the server is asked once; one who gives up stops nobody."""
    held = threading.Event()

    def handle(_: Got) -> Answer:
        held.wait(LIVE_S)
        return Answer.json({"models": ["a"]})

    with Loopback(handle) as server:
        made = looking(server.url)
        waiting: list[Future[None]] = [made.lookout.found(afresh=n % 2 == 0) for n in range(20)]
        assert not waiting[0].cancel()
        held.set()
        for each in waiting:
            each.result(LIVE_S)
        assert made.names() == ["a"]
        assert len(server.got) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_a_dialect_leaves_nobody_waiting(looking: Made) -> None:
    """It is told as a bug, and the next look tries again."""

    class Buggy(PlainWire):
        def listed(self, message: Any) -> Any:
            raise ZeroDivisionError

    with Loopback(listed({"models": ["a"]})) as server:
        made = looking(server.url, Buggy())
        assert made.found() == []
        assert "bug" in str(made.lookout.error)
        made.clock.now_s += FAILED_S + 1
        made.found(afresh=True)
        assert len(server.got) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_reading_health_is_not_the_last_look(looking: Made) -> None:
    """A probe that failed in whatever way is followed by others."""

    class Buggy(PlainWire):
        def probed(self, *_: Any) -> Any:
            raise ZeroDivisionError

    with Loopback(lambda _: Answer.json({})) as server:
        made = looking(server.url, Buggy())
        for number in range(1, 4):
            assert made.lookout.health() is None
            assert until(lambda: not made.lookout._probing)
            assert len(server.got) == number


def test_where_no_thread_can_be_started_nobody_waits(
    looking: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while the interpreter ends: it is told, and tried again later."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    made = looking("http://127.0.0.1:9")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        assert made.found() == []
        assert made.lookout.health() is None
    assert "thread" in str(made.lookout.error)
    assert not made.lookout._probing


@pytest.mark.parametrize("closes", ["while looking", "before"])
def test_closing_ends_a_look(closes: str, looking: Made) -> None:
    """At once, and nobody is left waiting; afterwards nothing is looked at."""
    with RoughServer(until_closed) as server:
        made = looking(server.url)
        if closes == "before":
            made.close()
        began_s = time.monotonic()
        waiting = made.lookout.found()
        made.lookout.health()
        if closes != "before":
            assert until(lambda: server.accepted == 2)
            made.close()
        waiting.result(LIVE_S)
        assert time.monotonic() - began_s < LIVE_S
        assert until(lambda: server.open == 0)
        made.clock.now_s += LIST_S + 1
        before = server.accepted
        assert made.lookout.found(afresh=True).done()
        made.lookout.health()
        assert server.accepted == before


def test_a_look_has_a_limit(looking: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drip is late here, too."""
    monkeypatch.setattr(lookout, "LOOK_S", 0.1)

    def script(connection: socket.socket) -> None:
        request(connection)
        connection.sendall(answer(b"", "content-length: 9000", sized=False))
        drip(connection, b" " * 9000)

    with RoughServer(script) as server:
        made = looking(server.url)
        began_s = time.monotonic()
        made.found()
        assert time.monotonic() - began_s < LIVE_S
        assert isinstance(made.lookout.error, TimedOut)


def test_keys_are_not_in_what_is_remembered(looking: Made) -> None:
    """A server that repeats what it was sent is told without it."""
    key = "geheim-0123456789-geheim"

    def echo(got: Got) -> Answer:
        told = {"error": {"message": f"bad {got.headers['x-api-key']}"}}
        return Answer.json(told, status=400)

    with Loopback(echo) as server:
        made = looking(server.url, headers={"x-api-key": key}, secrets=(key,))
        made.found()
        assert made.lookout.error is not None
        assert key not in str(made.lookout.error)
        assert key not in made.lookout.look().detail
        assert "bad" in made.lookout.look().detail


# -- health ------------------------------------------------------------------------------------


def test_health_is_probed_when_it_is_old(looking: Made) -> None:
    """The first time nothing is known; what serves well needs no probe."""
    with Loopback(lambda _: Answer.json({})) as server:
        made = looking(server.url)
        assert made.lookout.health() is None
        assert until(lambda: made.lookout.health() is not None)
        assert until(lambda: not made.lookout._probing)
        health = made.lookout.health()
        assert health is not None
        assert health.is_ready
        assert len(server.got) == 1
        made.clock.now_s += FAILED_S + 1
        made.lookout.served()
        made.lookout.health()
        assert len(server.got) == 1
        made.clock.now_s += FAILED_S + 1
        assert made.lookout.health() == health
        assert until(lambda: len(server.got) == 2)
        assert until(lambda: not made.lookout._probing)
        made.lookout.failed()
        made.lookout.health()
        assert until(lambda: len(server.got) == 3)
        assert until(lambda: not made.lookout._probing)


def test_a_server_that_is_not_there_is_not_healthy(looking: Made) -> None:
    """With the reason."""
    health = looking("http://127.0.0.1:9").lookout.look()
    assert not health.is_ready
    assert not health.is_loading
    assert "refused" in health.detail


def test_a_server_that_loads_is_waited_for(looking: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked until it is ready, and then told to load the model."""
    monkeypatch.setattr(lookout, "POLL_S", 0.01)
    left = iter([Answer.json({"status": "loading"}, status=503)] * 3)

    def handle(got: Got) -> Answer:
        return next(left, Answer.json({})) if got.path == "/health" else Answer.json({})

    with Loopback(handle) as server:
        made = looking(server.url)
        made.lookout.wait_ready(made.wire.loading("m"))
        assert [got.path for got in server.got] == ["/health"] * 4 + ["/load"]


def test_a_load_that_fails_is_its_error(looking: Made) -> None:
    """As the dialect reads it; a server that is not there is left to the request."""

    def handle(got: Got) -> Answer:
        return Answer.json({}, status=200 if got.path == "/health" else 429)

    with Loopback(handle) as server:
        made = looking(server.url)
        with pytest.raises(DispatcherError):
            made.lookout.wait_ready(made.wire.loading("m"))
        made.lookout.wait_ready(None)
    looking("http://127.0.0.1:9").lookout.wait_ready(Ask(path="/load"))


def test_waiting_for_a_load_ends_with_the_vendor(looking: Made) -> None:
    """Whether it is asked whether it is ready, or loads."""
    for ready in (False, True):
        waited_for = threading.Event()

        def script(
            connection: socket.socket, *, ready: bool = ready, asked: threading.Event = waited_for
        ) -> None:
            while True:
                got = request(connection)
                if b"/health" not in got:
                    asked.set()
                    until_closed(connection)
                    return
                body = b"{}" if ready else b"loading"
                status = "200 OK" if ready else "503 Wait"
                connection.sendall(answer(body, status=status))
                if not ready:
                    asked.set()

        with RoughServer(script) as server:
            made = looking(server.url)
            closing = threading.Thread(target=_close, args=(made, waited_for))
            closing.start()
            began_s = time.monotonic()
            if ready:
                with pytest.raises(Unreachable, match="closed"):
                    made.lookout.wait_ready(Ask(path="/load"))
            else:
                made.lookout.wait_ready(Ask(path="/load"))
            assert time.monotonic() - began_s < LIVE_S
            closing.join()


def _close(made: Looking, asked: threading.Event) -> None:
    """Close, once the server is asked for what is waited for."""
    asked.wait(LIVE_S)
    made.close()
