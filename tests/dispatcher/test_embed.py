"""``embed`` and ``rerank``: routed, tried, counted and stopped as replies are, in both worlds."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
from embedding_gguf import CLS, RANK, encoder
from pooled_engine import PooledVendor
from waits import SOON_S, WAIT_S, auntil, until

from llmdispatcher import (
    AllVendorsFailed,
    AsyncDispatcher,
    BadReply,
    BadRequest,
    Capability,
    ContextOverflow,
    Deadlines,
    Dispatcher,
    DispatcherError,
    FinishReason,
    NoCandidate,
    Price,
    RateLimited,
    Refused,
    Request,
    Scripted,
    Stats,
    StreamInterrupted,
    TimedOut,
    Usage,
)
from llmdispatcher.models.embedding import (
    Embeddings,
    EmbedRequest,
    Reranked,
    RerankRequest,
    Score,
    Vector,
    Work,
)
from llmdispatcher.models.event import AttemptEnded, AttemptStarted, Event, Fallback
from llmdispatcher.models.reply import Delta, Finish, Outcome, Piece, Progress
from llmdispatcher.vendors.contract import Report
from llmdispatcher.vendors.mailbox import Mailbox
from llmdispatcher.vendors.scripted import CUT, DIMENSIONS, ScriptedEngine

Verb = Literal["embed", "rerank"]
ARGUMENTS: dict[Verb, tuple[Any, ...]] = {
    "embed": (["red fox", "red", "", "red fox"],),
    "rerank": ("red fox", ["a fox", "a red fox", "", "red fox!"]),
}
USAGE = Usage(prompt_tokens=7)
DONE = Finish(FinishReason.STOP, USAGE)


@attrs.frozen
class Heard:
    """What a call came to: its result or its error, and the books afterwards."""

    result: Any
    error: Exception | None
    stats: Stats


def in_threads(vendors: tuple[Any, ...], verb: Verb, *arguments: Any, **options: Any) -> Heard:
    """Call a ``Dispatcher``."""
    with Dispatcher(*vendors, on_event=options.pop("on_event", None)) as d:
        result = error = None
        try:
            result = getattr(d, verb)(*arguments, **options)
        except Exception as raised:  # noqa: BLE001 - the test looks at it
            error = raised
        return Heard(result, error, d.stats())


def in_asyncio(vendors: tuple[Any, ...], verb: Verb, *arguments: Any, **options: Any) -> Heard:
    """Call an ``AsyncDispatcher``."""

    async def call() -> Heard:
        async with AsyncDispatcher(*vendors, on_event=options.pop("on_event", None)) as d:
            result = error = None
            try:
                result = await getattr(d, verb)(*arguments, **options)
            except Exception as raised:  # noqa: BLE001 - the test looks at it
                error = raised
            return Heard(result, error, d.stats())

    return asyncio.run(call())


WORLDS = {"threads": in_threads, "asyncio": in_asyncio}


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> Callable[..., Heard]:
    """Each test runs with threads and with asyncio."""
    return WORLDS[request.param]


@pytest.fixture(params=ARGUMENTS)
def verb(request: pytest.FixtureRequest) -> Verb:
    """Each test runs with both verbs."""
    found: Verb = request.param
    return found


class PiecesCall:
    """A call whose pieces are all there."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        box = Mailbox()
        for piece in pieces:
            box.put(piece)
        self.receive, self.areceive = box.receive, box.areceive

    def usage(self) -> Usage:
        """Return the usage of every call here."""
        return USAGE

    def cancel(self) -> None:
        """Do nothing: nothing runs."""


@attrs.frozen
class Pieces:
    """A vendor that delivers given pieces, whatever is asked."""

    pieces: Sequence[Piece]
    name: str = "pieces"

    def start(self, report: Report) -> ScriptedEngine:
        """Make the engine."""
        return PiecesEngine(self.pieces, Scripted(name=self.name), report)


class PiecesEngine(ScriptedEngine):
    """Delivers given pieces."""

    def __init__(self, pieces: Sequence[Piece], spec: Scripted, report: Report) -> None:
        super().__init__(spec, report)
        self._pieces = pieces

    def submit(self, work: Work, model: str) -> PiecesCall:
        """Deliver."""
        return PiecesCall(self._pieces)


def test_vectors_come_in_the_order_of_the_texts(world: Callable[..., Heard]) -> None:
    """One vector for each text, of length 1 unless raw ones are asked for, with its account."""
    heard = world((Scripted(name="s", model="m"),), "embed", *ARGUMENTS["embed"])

    result = heard.result
    assert isinstance(result, Embeddings)
    assert len(result.vectors) == 4
    assert result.vectors[0] == result.vectors[3] != result.vectors[1]
    assert result.dimensions == DIMENSIONS
    assert [math.hypot(*vector) for vector in result.vectors] == pytest.approx([1] * 4)
    assert (result.vendor, result.model, result.cost_microusd) == ("s", "m", 0)
    assert result.usage == Usage(prompt_tokens=5, estimated=True)
    assert heard.stats.by_model["s/m"].served == heard.stats.requests == 1
    assert heard.stats.total.usage == result.usage


def test_raw_vectors_are_not_normalized(world: Callable[..., Heard]) -> None:
    """``normalize=False`` reaches the vendor."""
    heard = world((Scripted(),), "embed", "red fox", normalize=False)

    assert math.hypot(*heard.result.vectors[0]) != pytest.approx(1, abs=1e-3)


def test_scores_come_in_the_order_of_the_documents(world: Callable[..., Heard]) -> None:
    """All documents are scored, and ``order`` names the best, ``top`` of them."""
    heard = world((Scripted(),), "rerank", *ARGUMENTS["rerank"], top=2)

    result = heard.result
    assert isinstance(result, Reranked)
    assert result.scores == (0.5, 1.0, 0.0, 0.5)
    assert result.order == (1, 0)


def test_pieces_may_come_in_any_order(world: Callable[..., Heard]) -> None:
    """Vectors and scores know their places, and progress is no part of them."""
    one, other = Vector(1, array("f", [1, 0])), Vector(0, array("f", [0, 1]))
    scores = [Score(1, 0.5), Score(0, -2.0)]

    embedded = world((Pieces([one, Progress("queued", 0, 1), other, DONE]),), "embed", ["a", "b"])
    ranked = world((Pieces([*scores, DONE]),), "rerank", "q", ["a", "b"])

    assert [list(vector) for vector in embedded.result.vectors] == [[0, 1], [1, 0]]
    assert ranked.result.scores == (-2.0, 0.5)
    assert ranked.result.usage == USAGE


ONE = Vector(0, array("f", [1.0]))
BAD_PIECES: dict[str, tuple[Verb, list[Piece], str]] = {
    "text": ("embed", [Delta("x"), DONE], "a Delta in answer"),
    "score": ("embed", [Score(0, 1.0), DONE], "a Score in answer"),
    "vector": ("rerank", [ONE, DONE], "a Vector in answer"),
    "missing": ("embed", [ONE, DONE], "number 1 is missing"),
    "missing score": ("rerank", [Score(1, 1.0), DONE], "number 0 is missing"),
    "twice": ("embed", [ONE, ONE, DONE], "came twice"),
    "beyond": ("rerank", [Score(2, 1.0), DONE], "score 2 of a request for 2"),
    "before": ("rerank", [Score(-1, 1.0), DONE], "score -1 of a request for 2"),
    "empty": ("embed", [Vector(0, array("f")), DONE], "is empty"),
    "not finite": ("embed", [Vector(0, array("f", [math.nan])), DONE], "not finite"),
    "score not finite": ("rerank", [Score(0, math.inf), DONE], "must be finite"),
    "uneven": ("embed", [ONE, Vector(1, array("f", [1, 2])), DONE], "different lengths"),
}


@pytest.mark.parametrize("name", BAD_PIECES)
def test_what_was_not_asked_for_is_a_bad_reply(name: str, world: Callable[..., Heard]) -> None:
    """A vendor that answers something else has failed, and the next one is asked."""
    asked, pieces, told = BAD_PIECES[name]
    arguments = (["a", "b"],) if asked == "embed" else ("q", ["a", "b"])

    alone = world((Pieces(pieces),), asked, *arguments)
    helped = world((Pieces(pieces), Scripted(name="next")), asked, *arguments)

    assert isinstance(alone.error, BadReply)
    assert told in str(alone.error)
    assert helped.result.vendor == "next"
    assert [a.outcome for a in helped.result.decision.attempts] == [
        Outcome.FAILED,
        Outcome.SERVED,
    ]


def test_vectors_in_answer_to_a_prompt_are_a_bad_reply() -> None:
    """The same holds the other way round."""
    with Dispatcher(Pieces([ONE, DONE])) as d, pytest.raises(BadReply, match="a Vector in answer"):
        d.send("x")


def test_failures_fall_back_with_events(world: Callable[..., Heard], verb: Verb) -> None:
    """A vendor's failure is told, counted and followed by the next vendor."""
    events: list[Event] = []
    vendors = (Scripted(RateLimited("busy"), name="a"), Scripted(name="b"))
    heard = world(vendors, verb, *ARGUMENTS[verb], on_event=events.append)

    assert heard.result.vendor == "b"
    kinds = [type(e) for e in events if isinstance(e, AttemptStarted | AttemptEnded | Fallback)]
    assert kinds == [AttemptStarted, AttemptEnded, Fallback, AttemptStarted, AttemptEnded]
    assert (heard.stats.total.failed, heard.stats.total.served) == (1, 1)


def test_all_failures_come_together(world: Callable[..., Heard], verb: Verb) -> None:
    """If none can, every error is there, and a single one is raised as it is."""
    broken = [Scripted(RateLimited("busy"), name=name) for name in "ab"]

    assert isinstance(world((broken[0],), verb, *ARGUMENTS[verb]).error, RateLimited)
    error = world(tuple(broken), verb, *ARGUMENTS[verb]).error
    assert isinstance(error, AllVendorsFailed)
    assert len(error.exceptions) == 2


def test_a_cut_answer_is_no_answer(world: Callable[..., Heard], verb: Verb) -> None:
    """Without a Finish, what has come is not handed out as if it were all."""
    heard = world((Scripted(["ok", CUT]),), verb, *ARGUMENTS[verb])

    assert isinstance(heard.error, StreamInterrupted)


def test_only_models_that_can_are_asked(world: Callable[..., Heard], verb: Verb) -> None:
    """The card decides; a local model that writes is told how to become one that embeds."""
    writer = Scripted(name="w", capabilities=(Capability.CHAT, Capability.COMPLETION))
    cloud = Scripted(name="c", capabilities=(Capability.CHAT,), local=False)
    heard = world((writer, cloud), verb, *ARGUMENTS[verb])

    assert isinstance(heard.error, NoCandidate)
    assert f"cannot do {verb} (it was registered to write" in heard.error.reasons["w/script"]
    assert heard.error.reasons["c/script"] == f"cannot do {verb}"
    assert heard.stats.requests == 0
    assert world((writer, Scripted(name="e")), verb, *ARGUMENTS[verb]).result.vendor == "e"


def test_a_model_that_embeds_is_not_asked_to_write() -> None:
    """And the other way round."""
    with Dispatcher(Scripted(capabilities=(Capability.EMBED,))) as d:
        with pytest.raises(NoCandidate, match="cannot do chat"):
            d.send("hi")
        with pytest.raises(NoCandidate, match="cannot do rerank"):
            d.rerank("q", ["d"])
        assert d.embed("hi").dimensions == DIMENSIONS


def test_the_cheapest_is_asked_and_paid(world: Callable[..., Heard], verb: Verb) -> None:
    """The expected cost orders the vendors, and the result says what it really cost."""
    dear = Scripted(name="dear", price=Price.per_million(2, 0))
    cheap = Scripted(name="cheap", price=Price.per_million(1, 0))
    heard = world((dear, cheap), verb, *ARGUMENTS[verb])

    assert heard.result.vendor == "cheap"
    assert heard.result.cost_microusd == heard.result.usage.prompt_tokens > 0
    assert heard.stats.total.cost_microusd == heard.result.cost_microusd
    named = world((dear, cheap), verb, *ARGUMENTS[verb], vendor="dear")
    assert named.result.vendor == "dear"


def test_deadlines_hold(world: Callable[..., Heard], verb: Verb) -> None:
    """Silence and the whole are limited as for replies, and what ran is settled."""
    slow = Scripted([60, "ok"])
    for limits, phase in (
        (Deadlines(total_s=0.05), "total"),
        (Deadlines(first_token_s=0.05), "first_token"),
    ):
        heard = world((slow,), verb, *ARGUMENTS[verb], deadlines=limits)
        assert isinstance(heard.error, TimedOut)
        assert heard.error.phase == phase
        assert heard.stats.in_flight == 0


def test_options_are_checked(world: Callable[..., Heard], verb: Verb) -> None:
    """What does not exist is a TypeError, and what is out of range a BadRequest."""
    assert isinstance(world((Scripted(),), verb, *ARGUMENTS[verb], temperature=1).error, TypeError)
    assert isinstance(world((Scripted(),), verb, *ARGUMENTS[verb], priority=1000).error, BadRequest)
    assert isinstance(world((Scripted(),), "embed", []).error, BadRequest)
    assert isinstance(world((Scripted(),), "rerank", "q").error, BadRequest)


def test_requests_are_taken_as_they_are(world: Callable[..., Heard]) -> None:
    """Who has a request need not take it apart."""
    embedded = world((Scripted(),), "embed", EmbedRequest(texts="a", normalize=False))
    ranked = world((Scripted(),), "rerank", RerankRequest(query="a", documents=["b", "a"], top=1))

    assert math.hypot(*embedded.result.vectors[0]) != pytest.approx(1, abs=1e-3)
    assert ranked.result.order == (1,)


def test_a_script_sees_what_was_asked() -> None:
    """Tests can look at the requests, with the deadlines that held; replies take turns."""
    spec = Scripted(RateLimited("busy"), "ok", name="s")
    engine = spec.start(lambda _: None)
    engine.load("script").result(WAIT_S)
    for _ in range(2):
        engine.submit(EmbedRequest(texts=["a"]), "script")
    engine.submit(Request(prompt="x"), "script")

    assert [type(work) for work in engine.pooled] == [EmbedRequest] * 2
    assert len(engine.requests) == 1
    engine.close()


def test_a_function_is_not_asked_for_vectors() -> None:
    """A script made of one function answers prompts with it, and all else as scripts do."""
    with Dispatcher(Scripted(lambda request: request.messages[-1].text)) as d:
        assert d.send("hi").text == "hi"
        assert d.embed("hi").vectors == d.embed(["hi"]).vectors


def test_cancelling_the_task_stops_the_model(verb: Verb) -> None:
    """A task that is cancelled settles its attempt at once."""

    async def call() -> None:
        async with AsyncDispatcher(Scripted([60, "ok"])) as d:
            task = asyncio.create_task(getattr(d, verb)(*ARGUMENTS[verb]))
            await auntil(lambda: d.stats().in_flight)
            await asyncio.sleep(0.1)
            began = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - began < SOON_S
            stats = d.stats()
            assert (stats.in_flight, stats.total.cancelled) == (0, 1)

    asyncio.run(call())


def test_close_releases_who_waits(verb: Verb) -> None:
    """Closing the dispatcher fails what is in flight."""
    d = Dispatcher(Scripted([60, "ok"]))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(getattr(d, verb), *ARGUMENTS[verb])
        until(lambda: d.vendors()[0].status.running)
        d.close()
        assert isinstance(waiting.exception(WAIT_S), Refused)
    with pytest.raises(Refused, match="is closed"):
        getattr(d, verb)(*ARGUMENTS[verb])


# -- a real model, with its thread -------------------------------------------------------------


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An embedder and a reranker, whose texts have at most 128 tokens."""
    folder = tmp_path_factory.mktemp("pooled")
    reranker = encoder(folder / "rank.gguf", pooling=RANK, head=("cls", "cls.output"))
    return encoder(folder / "bert.gguf", pooling=CLS), reranker


@pytest.fixture
def vendors(paths: tuple[Path, Path]) -> tuple[PooledVendor, ...]:
    """Both as vendors."""
    embedder, reranker = paths
    return PooledVendor(embedder, name="embedder"), PooledVendor(reranker, name="reranker")


def test_real_models_serve_both_worlds_alike(vendors: tuple[PooledVendor, ...], verb: Verb) -> None:
    """Threads and asyncio get the same numbers, from the model whose card lists the verb.

    But for the last bits: which texts share a decode depends on the time that it took to read them.
    """
    one, other = (world(vendors, verb, *ARGUMENTS[verb]) for world in WORLDS.values())

    assert one.error is other.error is None
    if verb == "embed":
        pairs = zip(one.result.vectors, other.result.vectors, strict=True)
        assert max(math.dist(mine, theirs) for mine, theirs in pairs) < 1e-4
    else:
        assert one.result.scores == pytest.approx(other.result.scores, abs=1e-4)
    name = "embedder" if verb == "embed" else "reranker"
    assert one.result.vendor == other.result.vendor == name
    assert one.result.usage.prompt_tokens > 0
    assert not one.result.usage.estimated


def test_the_name_of_a_long_text_reaches_the_caller(
    world: Callable[..., Heard], vendors: tuple[PooledVendor, ...]
) -> None:
    """A text that is too long for one model may be served by another; else its error says which."""
    texts = ["a", "b " * 200]
    alone = world(vendors, "embed", texts)
    helped = world((*vendors, Scripted(name="large", price=None)), "embed", texts)

    assert isinstance(alone.error, ContextOverflow)
    assert "texts[1]" in str(alone.error)
    assert helped.result.vendor == "large"


def test_many_threads_share_a_model(vendors: tuple[PooledVendor, ...]) -> None:
    """Each of many callers gets the vectors of its own texts."""
    texts = [f"text {chr(97 + n)}" for n in range(16)]
    with Dispatcher(*vendors) as d, ThreadPoolExecutor(16) as pool:
        expected = d.embed(texts).vectors
        found = list(pool.map(lambda text: d.embed([text]).vectors[0], texts * 4))

        for mine, other in zip(found, expected * 4, strict=True):
            assert math.dist(mine, other) < 1e-4
        assert d.stats().total.served == 65


@pytest.fixture
def stuck(paths: tuple[Path, Path]) -> Iterator[tuple[Dispatcher, threading.Event]]:
    """A dispatcher whose model rests after each decode until it is told to go on."""
    go_on = threading.Event()
    with Dispatcher(PooledVendor(paths[0], govern=lambda _n, _s: _rest(go_on))) as d:
        yield d, go_on
        go_on.set()


def _rest(go_on: threading.Event) -> None:
    go_on.wait(WAIT_S)


def test_a_deadline_ends_the_wait_between_decodes(
    stuck: tuple[Dispatcher, threading.Event],
) -> None:
    """A caller whose time is up is released while the model is at work for others."""
    d, go_on = stuck
    with pytest.raises(TimedOut):
        d.embed(["a"] * 2000, deadlines=Deadlines(total_s=0.1))
    go_on.set()

    assert d.embed("a").usage.prompt_tokens == 3


def test_a_bug_in_the_engine_is_told(paths: tuple[Path, Path]) -> None:
    """No caller waits for ever: what went wrong is raised, and the books balance."""

    def broken(_tokens: int, _began_s: float) -> None:
        raise ZeroDivisionError("on purpose")

    with Dispatcher(PooledVendor(paths[0], govern=broken)) as d:
        with pytest.raises(DispatcherError, match="a bug in the engine: ZeroDivisionError"):
            d.embed("a")
        assert d.stats().in_flight == 0
