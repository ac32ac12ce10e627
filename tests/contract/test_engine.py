"""What every engine must do, whatever is behind it. A new engine is a row in ``SPECS``."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
from waits import SOON_S, WAIT_S

from llmdispatcher import Capability, DispatcherError, Refused, Request, Sampling, Scripted
from llmdispatcher.models.errors import Cancelled, ModelNotFound, VendorError
from llmdispatcher.models.event import Event, LoadProgress
from llmdispatcher.models.reply import Delta, Finish, Piece
from llmdispatcher.vendors.contract import Call, Engine, State, VendorSpec
from llmdispatcher.vendors.llamacpp.vendor import LlamaCpp, embedded

LONG = Request(prompt="Once", max_tokens=3000, sampling=Sampling(temperature=1.0, top_k=0, seed=1))
"""A request that takes long enough to be stopped in the middle; by chance a reply may end early."""


def llama_server() -> Path:
    """Return the llama-server that was built from the binding's sources."""
    return Path(os.environ["LLMDISPATCHER_LLAMA_SERVER"])


def rows(specs: Mapping[str, object]) -> list[object]:
    """Return the names of the engines; a server is not everywhere."""
    server = pytest.mark.upstream
    return [pytest.param(name, marks=server) if name == "server" else name for name in specs]


Specs = dict[str, Callable[[Path], VendorSpec]]
"""What makes an engine of each kind; the path is that of a model whose replies take long."""

SPECS: Specs = {
    "scripted": lambda _: Scripted(["Hel", "lo", 0.05, "."], load_s=0.05),
    "resident": lambda _: Scripted(["Hel", "lo", 0.05, "."], load_s=0.05, memory_mb=10),
    "llamacpp": lambda _: embedded(),
    "thread": lambda _: attrs.evolve(embedded(), isolation="thread"),
    "server": lambda _: attrs.evolve(embedded(), executable=llama_server()),
}
LONG_SPECS: Specs = {
    "scripted": lambda _: Scripted(
        lambda request: ["word " if i % 2 else 0.005 for i in range(2 * (request.max_tokens or 1))]
    ),
    "llamacpp": lambda path: LlamaCpp(path, max_threads=1),
    "thread": lambda path: LlamaCpp(path, max_threads=1, isolation="thread"),
    "server": lambda path: LlamaCpp(path, max_threads=1, executable=llama_server()),
}
BROKEN: Specs = {
    "scripted": lambda _: Scripted(load_error=VendorError("no")),
    "llamacpp": lambda _: LlamaCpp("/nowhere/model.gguf"),
    "thread": lambda _: LlamaCpp("/nowhere/model.gguf", isolation="thread"),
    "server": lambda _: LlamaCpp("/nowhere/model.gguf", executable=llama_server()),
}


class Started:
    """An engine with what it reported."""

    def __init__(self, spec: VendorSpec) -> None:
        self.events: list[Event] = []
        self.spec = spec
        self.engine: Engine = spec.start(self.events.append)
        self.model = self.engine.cards()[0].model

    def ready(self) -> Started:
        """Load the model."""
        self.engine.load(self.model).result(WAIT_S)
        return self

    def call(self, request: Request) -> Call:
        """Submit a request."""
        return self.engine.submit(request, self.model)


@contextmanager
def closing(spec: VendorSpec) -> Iterator[Started]:
    """Start a spec and close it in the end."""
    made = Started(spec)
    try:
        yield made
    finally:
        made.engine.close()


@pytest.fixture(params=rows(SPECS))
def started(request: pytest.FixtureRequest, slow_model: Path) -> Iterator[Started]:
    """An engine of each kind, not loaded."""
    with closing(SPECS[request.param](slow_model)) as made:
        yield made


@pytest.fixture(params=rows(LONG_SPECS))
def long(request: pytest.FixtureRequest, slow_model: Path) -> Iterator[Started]:
    """An engine of each kind whose replies take long, loaded."""
    with closing(LONG_SPECS[request.param](slow_model)) as made:
        yield made.ready()


@pytest.fixture(params=[name for name in LONG_SPECS if name != "server"])
def exact(request: pytest.FixtureRequest, slow_model: Path) -> Iterator[Started]:
    """The same, of those that repeat themselves: llama-server rounds by what it remembers."""
    with closing(LONG_SPECS[request.param](slow_model)) as made:
        yield made.ready()


@pytest.fixture(params=rows(BROKEN))
def broken(request: pytest.FixtureRequest, slow_model: Path) -> Iterator[Started]:
    """An engine of each kind that cannot load."""
    with closing(BROKEN[request.param](slow_model)) as made:
        yield made


def drain(call: Call) -> list[Piece]:
    """Read a call to its finish."""
    pieces: list[Piece] = []
    while not pieces or not isinstance(pieces[-1], Finish):
        got = call.receive(WAIT_S)
        assert got, "receive returned nothing"
        pieces.extend(got)
    return pieces


def able(started: Started, capability: Capability) -> None:
    """Skip the test where the card says that it cannot be done."""
    if capability not in started.engine.cards()[0].capabilities:
        pytest.skip(f"its card does not list {capability}")


def words(pieces: list[Piece]) -> str:
    """Join the text."""
    return "".join(piece.text for piece in pieces if isinstance(piece, Delta))


def test_a_spec_is_a_value(started: Started) -> None:
    """Specs can be compared, printed, copied and pickled; cards name the vendor."""
    assert copy.copy(started.spec) == started.spec
    assert pickle.loads(pickle.dumps(started.spec)) == started.spec  # noqa: S301 - our own bytes
    assert repr(started.spec)
    assert [card.vendor for card in started.engine.cards()] == [started.spec.name]
    assert started.engine.status().state is State.ABSENT


def test_loading_happens_once_and_is_reported(started: Started) -> None:
    """Everyone who loads waits for the same load; its end is reported exactly once."""
    futures = [started.engine.load(started.model) for _ in range(3)]
    for future in futures:
        assert not future.cancel()
        future.result(WAIT_S)

    assert started.engine.status().state is State.READY
    ends = [e for e in started.events if isinstance(e, LoadProgress) and e.fraction == 1]
    assert len(ends) == 1
    fractions = [e.fraction for e in started.events if isinstance(e, LoadProgress)]
    assert fractions == sorted(fractions)


def test_a_call_ends_with_one_finish(started: Started) -> None:
    """Pieces come in order and end with a finish whose usage is the call's."""
    call = started.ready().call(Request.of("What is the capital of France?", temperature=0))

    pieces = drain(call)

    assert words(pieces)
    assert sum(isinstance(piece, Finish) for piece in pieces) == 1
    last = pieces[-1]
    assert isinstance(last, Finish)
    assert last.usage == call.usage()
    assert last.usage.completion_tokens > 0
    assert last.usage.prompt_tokens > 0


def test_choices_end_together(started: Started) -> None:
    """Several choices are told apart by their index, and one finish ends all of them."""
    able(started, Capability.CHOICES)
    request = Request.of("What is the capital of France?", temperature=0, n=3)

    pieces = drain(started.ready().call(request))

    texts = ["", "", ""]
    for piece in pieces:
        if isinstance(piece, Delta):
            texts[piece.index] += piece.text
    last = pieces[-1]
    assert isinstance(last, Finish)
    assert all(texts)
    assert len(last.others) == 2
    assert last.usage.completion_tokens >= 3


def test_log_probabilities_are_those_of_the_text(started: Started) -> None:
    """The tokens that are told spell the text, none is likelier than certain, the best is first."""
    able(started, Capability.LOGPROBS)
    request = Request.of("What is the capital of France?", temperature=0, logprobs=2)

    pieces = drain(started.ready().call(request))

    told = [each for piece in pieces if isinstance(piece, Delta) for each in piece.logprobs]
    assert b"".join(each.data for each in told).startswith(words(pieces).encode())
    assert all(each.token == each.data.decode(errors="replace") for each in told)
    for each in told:
        top = [other.logprob for other in each.top]
        assert top == sorted(top, reverse=True)
        assert len(top) <= 2
        assert max([each.logprob, *top]) <= 0


def test_threads_and_event_loops_read_the_same(started: Started) -> None:
    """Receive and areceive deliver the same text."""
    request = Request.of("What is the capital of France?", temperature=0)
    engine = started.ready()

    async def adrain(call: Call) -> list[Piece]:
        pieces: list[Piece] = []
        while not pieces or not isinstance(pieces[-1], Finish):
            pieces.extend(await call.areceive(WAIT_S))
        return pieces

    assert words(asyncio.run(adrain(engine.call(request)))) == words(drain(engine.call(request)))


def test_many_calls_at_once_all_end(started: Started) -> None:
    """Calls that are submitted together are all served, each with its own finish."""
    engine = started.ready()
    calls = [engine.call(Request.of("Who are you?", temperature=0)) for _ in range(20)]

    texts = {words(drain(call)) for call in calls}

    assert len(texts) == 1


def test_cancel_releases_the_reader(long: Started) -> None:
    """Whoever waits for a piece of a cancelled call is released at once, with Cancelled."""
    call = long.call(LONG)
    call.receive(WAIT_S)
    cancelled_at: list[float] = []

    def cancel() -> None:
        cancelled_at.append(time.monotonic())
        call.cancel()

    threading.Timer(0.02, cancel).start()
    with pytest.raises(Cancelled):
        while True:
            call.receive(WAIT_S)

    assert time.monotonic() - cancelled_at[0] < SOON_S
    call.cancel()
    _wait_until(lambda: long.engine.status().running == 0)


def test_a_cancelled_call_does_not_disturb_the_next(exact: Started) -> None:
    """After a cancel in the middle, the same request gives the same text as before."""
    request = Request(prompt="Once", max_tokens=40, sampling=Sampling(seed=1))
    before = words(drain(exact.call(request)))
    for _ in range(5):
        call = exact.call(LONG)
        call.receive(WAIT_S)
        call.cancel()

    assert words(drain(exact.call(request))) == before


def test_silence_is_a_timeout(long: Started) -> None:
    """Receive raises TimeoutError when nothing comes in time, and the call goes on."""
    calls = [long.call(LONG) for _ in range(3)]
    try:
        with pytest.raises(TimeoutError):
            while True:
                calls[-1].receive(0.0)
        assert calls[-1].receive(WAIT_S)
    finally:
        for call in calls:
            call.cancel()


def test_close_ends_calls_in_flight(long: Started) -> None:
    """Closing the engine fails its calls, also those that still wait, and is idempotent."""
    calls = [long.call(LONG) for _ in range(5)]
    calls[0].receive(WAIT_S)

    began = time.monotonic()
    long.engine.close()
    long.engine.close()

    assert time.monotonic() - began < SOON_S
    for call in calls:
        with pytest.raises(Refused, match="closed"):
            while True:
                call.receive(WAIT_S)
    assert long.engine.status().state is State.CLOSED


def test_a_load_that_fails_says_why_and_can_be_tried_again(broken: Started) -> None:
    """The future holds the error, status shows it, and the next load is a new one."""
    first = broken.engine.load(broken.model)
    assert isinstance(first.exception(WAIT_S), DispatcherError)
    assert broken.engine.status().state is State.FAILED
    assert broken.engine.status().detail

    second = broken.engine.load(broken.model)

    assert second is not first
    assert isinstance(second.exception(WAIT_S), VendorError)


def test_a_closed_engine_loads_no_more(started: Started) -> None:
    """Loading after close fails at once instead of starting a thread."""
    started.engine.close()

    assert started.engine.load(started.model).exception(WAIT_S) is not None


def test_a_closed_engine_serves_no_more(started: Started) -> None:
    """Whoever comes just after close is refused, or finds no model, and waits for no reply."""
    started.engine.close()

    with pytest.raises((Refused, ModelNotFound), match=r"closed|not loaded"):
        call = started.call(LONG)
        while True:
            call.receive(WAIT_S)


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
