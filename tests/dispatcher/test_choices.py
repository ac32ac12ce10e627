"""Several choices, log-probabilities, prefill, and the deadlines that an engine sees."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import attrs
import pytest
from worlds import WORLDS, World

from llmdispatcher import (
    BadReply,
    Capability,
    Choice,
    Deadlines,
    Delta,
    Dispatcher,
    DispatcherError,
    FinishReason,
    NoCandidate,
    RateLimited,
    Request,
    Scripted,
    StreamInterrupted,
    TimedOut,
    TokenLogprob,
    Usage,
)
from llmdispatcher.drive import run
from llmdispatcher.flow import dispatch
from llmdispatcher.models.embedding import Work
from llmdispatcher.models.event import AttemptStarted, Event
from llmdispatcher.models.reply import Finish, Piece
from llmdispatcher.release import Stopper
from llmdispatcher.route import rank
from llmdispatcher.session import Session
from llmdispatcher.shelf import Shelf, Target
from llmdispatcher.terminal import Terminal
from llmdispatcher.trial import Job
from llmdispatcher.usage import Books
from llmdispatcher.vendors.contract import Report
from llmdispatcher.vendors.mailbox import Mailbox
from llmdispatcher.vendors.scripted import ScriptedEngine

VERBS = ("send", "stream")
STOP, LENGTH, UNKNOWN = FinishReason.STOP, FinishReason.LENGTH, FinishReason.UNKNOWN
USAGE = Usage(prompt_tokens=2, completion_tokens=5)
PLAIN = (Capability.CHAT, Capability.COMPLETION)


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> World:
    """Each test runs with threads and with asyncio."""
    made: World = WORLDS[request.param]
    return made


class PiecesCall:
    """A call whose pieces are all there."""

    def __init__(self, pieces: Sequence[Piece | DispatcherError]) -> None:
        box = Mailbox()
        for piece in pieces:
            _ = box.fail(piece) if isinstance(piece, DispatcherError) else box.put(piece)
        self.receive, self.areceive = box.receive, box.areceive

    def usage(self) -> Usage:
        """Return the usage of every call here."""
        return USAGE

    def cancel(self) -> None:
        """Do nothing: nothing runs."""


@attrs.frozen
class Pieces:
    """A vendor that delivers given pieces, whatever is asked."""

    pieces: Sequence[Piece | DispatcherError]
    name: str = "pieces"

    def start(self, report: Report) -> ScriptedEngine:
        """Make the engine."""
        pieces = self.pieces

        class Engine(ScriptedEngine):
            def submit(self, work: Work, model: str) -> PiecesCall:
                return PiecesCall(pieces)

        return Engine(Scripted(name=self.name), report)


def token(text: str, logprob: float = -0.5) -> TokenLogprob:
    """Make a token with its log-probability."""
    return TokenLogprob(text, text.encode(), logprob)


@pytest.mark.parametrize("verb", VERBS)
def test_every_choice_is_in_the_reply(world: World, verb: str) -> None:
    """A request for n choices gets n, in order; the reply's own text is the first's."""
    usage = Usage(prompt_tokens=1, completion_tokens=6, estimated=True)

    heard = world((Scripted(["Hel", "lo."]),), verb, "hi", n=3)

    assert heard.reply is not None
    assert heard.reply.choices == (Choice("Hello.", STOP),) * 3
    assert heard.reply.text == "Hello."
    assert heard.reply.usage == heard.stats.total.usage == usage
    told = tuple(Delta(text, index) for index in range(3) for text in ("Hel", "lo."))
    assert heard.deltas == (told if verb == "stream" else ())


@pytest.mark.parametrize("verb", VERBS)
def test_choices_that_come_interleaved_are_told_apart(world: World, verb: str) -> None:
    """Pieces are put together by their index, with the reason and log-probabilities of each."""
    deltas = (
        Delta("b", 1),
        Delta("", 0, (token("a"),)),
        Delta("B", 1, (token("b"), token("B"))),
        Delta("aA", 0, (token("A"),)),
    )

    heard = world((Pieces([*deltas, Finish(LENGTH, USAGE, (), (STOP,))]),), verb, "hi", n=2)

    assert heard.reply is not None
    assert heard.reply.choices == (
        Choice("aA", LENGTH, (token("a"), token("A"))),
        Choice("bB", STOP, (token("b"), token("B"))),
    )
    assert heard.reply.logprobs == heard.reply.choices[0].logprobs
    assert heard.deltas == (deltas if verb == "stream" else ())


@pytest.mark.parametrize("others", [(), (STOP, LENGTH, LENGTH, LENGTH)])
def test_a_vendor_that_miscounts_its_choices_is_put_right(
    world: World, others: tuple[FinishReason, ...]
) -> None:
    """A reply has n choices also where the vendor tells too few or too many reasons."""
    heard = world((Pieces([Delta("a"), Finish(STOP, USAGE, (), others)]),), "send", "hi", n=3)

    assert heard.reply is not None
    reasons = [choice.finish_reason for choice in heard.reply.choices]
    assert reasons == ([STOP, STOP, LENGTH] if others else [STOP, UNKNOWN, UNKNOWN])


@pytest.mark.parametrize("index", [-1, 2])
def test_a_piece_of_no_choice_is_a_bad_reply(world: World, index: int) -> None:
    """What belongs to no choice that was asked for is the vendor's failure, not a lost piece."""
    vendors = (Pieces([Delta("x", index)]), Scripted("whole"))

    alone = world(vendors[:1], "stream", "hi", n=2)

    assert isinstance(alone.error, BadReply)
    assert f"choice {index} of a request for 2" in str(alone.error)
    assert world(vendors, "stream", "hi", n=2).text == "wholewhole"


def test_what_is_left_of_a_broken_stream_is_the_first_choice(world: World) -> None:
    """The partial text of an error is one reply, never a mix of several."""
    pieces: list[Piece | DispatcherError]
    pieces = [Delta("a"), Delta("b", 1), Delta("A"), StreamInterrupted("cut")]

    heard = world((Pieces(pieces),), "stream", "hi", n=2)

    assert isinstance(heard.error, StreamInterrupted)
    assert heard.error.partial == "aA"
    assert heard.text == "abA"


def test_what_a_stream_holds_is_the_first_choice() -> None:
    """``partial`` is the text of one reply, whatever came of the others meanwhile."""
    pieces: list[Piece | DispatcherError]
    pieces = [Delta("b", 1), Delta("a"), Delta("B", 1), Delta("A"), Finish(STOP, USAGE)]
    with Dispatcher(Pieces(pieces)) as d, d.stream("hi", n=2) as stream:
        partials = [stream.partial for _ in stream]

    assert partials == ["", "a", "a", "aA"]


def test_log_probabilities_are_shown_while_the_text_is_held_back(world: World) -> None:
    """A piece without text is passed on for its log-probabilities, and only for those."""
    told = Delta("", 0, (token("a"),))

    heard = world((Pieces([Delta(""), told, Delta("a"), Finish(STOP, USAGE)]),), "stream", "hi")

    assert heard.deltas == (told, Delta("a"))


def test_what_was_told_of_tokens_is_not_taken_back(world: World) -> None:
    """A stream that breaks after log-probabilities were shown does not begin anew elsewhere."""
    vendors = (Pieces([Delta("", 0, (token("a"),)), RateLimited("slow")]), Scripted("whole"))

    heard = world(vendors, "stream", "hi")

    assert isinstance(heard.error, StreamInterrupted)
    assert heard.error.partial == ""


@pytest.mark.parametrize(
    ("options", "lacking"),
    [({"n": 2}, "choices"), ({"logprobs": 0}, "logprobs"), ({"prefill": "x"}, "prefill")],
)
def test_nobody_who_cannot_is_asked(world: World, options: dict[str, object], lacking: str) -> None:
    """A model without the capability is left out with the reason, and one that has it serves."""
    plain, able = Scripted("no", name="plain", capabilities=PLAIN), Scripted("yes", name="able")

    alone = world((plain,), "send", "hi", **options)
    saved = world((plain, able), "send", "hi", **options)

    assert isinstance(alone.error, NoCandidate)
    assert alone.error.reasons == {"plain/script": f"cannot do {lacking}"}
    assert saved.reply is not None
    assert (saved.reply.text, saved.reply.vendor) == ("yes", "able")


def test_a_script_tells_log_probabilities_where_asked(world: World) -> None:
    """Each piece of a script is a token that was certain; unasked, nothing is told."""
    script = (Scripted(["né", "!"]),)

    asked = world(script, "send", "hi", logprobs=3)
    unasked = world(script, "send", "hi")

    assert asked.reply is not None
    assert asked.reply.logprobs == (token("né", 0.0), token("!", 0.0))
    assert unasked.reply is not None
    assert unasked.reply.logprobs == ()


@pytest.mark.parametrize(
    ("end", "outcome"), [(Finish(LENGTH, USAGE), None), (RateLimited("slow"), RateLimited)]
)
def test_an_end_in_a_script_ends_all_choices(
    world: World, end: Finish | DispatcherError, outcome: type | None
) -> None:
    """A Finish or an error in the steps of one choice leaves nothing to play for the next."""
    heard = world((Scripted(["a", end]),), "send", "hi", n=2)

    if outcome is None:
        assert heard.reply is not None
        assert heard.reply.choices == (Choice("a", LENGTH), Choice("", UNKNOWN))
    else:
        assert isinstance(heard.error, outcome)


def test_a_script_that_is_made_on_the_way_is_played_for_each_choice(world: World) -> None:
    """Steps that come from a generator are the same for every choice."""
    heard = world((Scripted(lambda _: (step for step in ("a", "b"))),), "send", "hi", n=2)

    assert heard.reply is not None
    assert [choice.text for choice in heard.reply.choices] == ["ab", "ab"]


def test_the_command_line_shows_the_first_choice(capsys: pytest.CaptureFixture[str]) -> None:
    """What other choices say is not written into the middle of the answer."""
    pieces = [Delta("b", 1), Delta("a"), Delta("", 0, (token("A"),)), Delta("B", 1), Delta("A")]
    vendor = Pieces([*pieces, Finish(STOP, USAGE, (), (STOP,))])
    with Session(Terminal(), (vendor,), {"n": 2}) as session:
        session.show("hi")

        assert session.partial == "aA"
    assert capsys.readouterr().out == "aA\n"


class Clocked:
    """Runs a request over scripted vendors at a time of its own."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.seen: list[Deadlines | None] = []
        self.report: Report = lambda _: None

    def after(self, took_s: float, reply: str | DispatcherError) -> Callable[[Request], object]:
        """Make a script that keeps the deadlines it sees, and takes its time over them."""

        def script(request: Request) -> str | DispatcherError:
            self.seen.append(request.deadlines)
            self.now_s += took_s
            return reply

        return script

    def ask(self, deadlines: Deadlines, *scripts: Callable[[Request], object]) -> Request:
        """Send a request to a vendor for each script, and return it."""
        request = Request.of("hi")
        specs = [Scripted(each, name=f"v{i}") for i, each in enumerate(scripts)]  # type: ignore[arg-type]
        engines = [spec.start(lambda _: None) for spec in specs]
        for engine in engines:
            engine.load("script").result(60)
        targets = [Target(engine.cards()[0], engine) for engine in engines]
        job = Job(
            request=request,
            ranking=rank(request, Shelf(targets)),
            deadlines=deadlines,
            streaming=False,
            books=Books(),
            report=self.report,
            stopper=Stopper(),
            clock=lambda: self.now_s,
        )
        for _ in run(dispatch(job)):
            pass
        return request


def test_an_engine_sees_what_is_left_of_the_total() -> None:
    """The deadlines that hold reach every engine; time that others took is gone from the total."""
    clocked, limits = Clocked(), Deadlines(total_s=8, idle_s=3)
    slow, fast = clocked.after(5, TimedOut("idle", 1.0)), clocked.after(0, "ok")

    request = clocked.ask(limits, slow, fast)

    assert clocked.seen == [limits, attrs.evolve(limits, total_s=3)]
    assert request.deadlines is None


def test_no_limit_of_the_total_stays_none() -> None:
    """Without a total deadline the engine sees the dispatcher's deadlines as they are."""
    clocked, limits = Clocked(), Deadlines(first_token_s=7)

    clocked.ask(limits, clocked.after(1, TimedOut("idle", 1.0)), clocked.after(0, "ok"))

    assert clocked.seen == [limits, limits]


def test_a_total_that_has_passed_is_zero() -> None:
    """An engine is never shown a deadline below zero, and the request times out."""
    clocked = Clocked()

    def pause(event: Event) -> None:
        if isinstance(event, AttemptStarted):
            clocked.now_s += 10

    clocked.report = pause
    with pytest.raises(TimedOut) as caught:
        clocked.ask(Deadlines(total_s=8), clocked.after(0, "ok"))

    assert (caught.value.phase, caught.value.limit_s) == ("total", 8)
    assert clocked.seen == [Deadlines(total_s=0)]


def test_the_requests_own_deadlines_win_over_the_dispatchers() -> None:
    """An engine sees the deadlines of the request, or else those of the dispatcher."""
    seen: list[Deadlines | None] = []
    lock = threading.Lock()

    def script(request: Request) -> str:
        with lock:
            seen.append(request.deadlines)
        return "ok"

    own, general = Deadlines(idle_s=1), Deadlines(idle_s=2)
    with Dispatcher(Scripted(script), deadlines=general) as d:
        d.send("hi")
        d.send("hi", deadlines=own)

    assert seen == [general, own]
