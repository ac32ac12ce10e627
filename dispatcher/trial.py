"""One attempt at a request: load, submit, relay, settle. Without I/O, as ``flow`` is.

Whatever happens, an attempt is settled exactly once, its call is stopped and its model given back.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import attrs

from llmdispatcher import turns
from llmdispatcher.account import Account, Ended, Entry
from llmdispatcher.bucket import Needs
from llmdispatcher.draft import Draft
from llmdispatcher.landlord import Landlord, Lease
from llmdispatcher.limits import Permit
from llmdispatcher.models.embedding import Work
from llmdispatcher.models.errors import (
    BadReply,
    Cancelled,
    ContextOverflow,
    DispatcherError,
    StreamInterrupted,
    TimedOut,
    Unsupported,
    VendorError,
)
from llmdispatcher.models.event import AttemptEnded, AttemptStarted
from llmdispatcher.models.reply import Attempt, Finish, Outcome, Piece, Progress, Usage
from llmdispatcher.models.request import Deadlines, Request
from llmdispatcher.patience import Patience
from llmdispatcher.release import Stopper, Watch, own
from llmdispatcher.retry import Ration
from llmdispatcher.route import Ranking, expected_usage
from llmdispatcher.shelf import Target
from llmdispatcher.steps import Emit, Receive, Sign, Step, Wait
from llmdispatcher.turns import Turn
from llmdispatcher.usage import Books
from llmdispatcher.vendors.contract import Call, Report

if TYPE_CHECKING:
    from concurrent.futures import Future

    from llmdispatcher.chooser import Chooser

PACE_S = 30.0
"""Over so long the pace of a stream is looked at where no ``idle_s`` says it."""

HELD_S = 1.0
"""A server that takes longer to say that it is full has let somebody wait in vain."""

W = TypeVar("W", bound=Work)
D = TypeVar("D", bound=Draft)


@attrs.frozen(kw_only=True)
class Job(Generic[W]):
    """A request and everything that its flow needs to know."""

    request: W
    ranking: Ranking
    deadlines: Deadlines
    streaming: bool
    """The caller sees every piece as it comes, so that what was shown cannot be taken back."""
    books: Books
    report: Report
    stopper: Stopper
    clock: Callable[[], float]
    """Seconds, monotonic."""
    account: Account = attrs.field(
        default=attrs.Factory(lambda job: Account(None, job.request), takes_self=True)
    )
    landlord: Landlord = attrs.field(factory=Landlord)
    """Who has the models loaded."""
    patience: Patience = attrs.field(factory=Patience)
    signs: bool = False
    """A ``Sign`` is emitted when the vendor was asked, and when it began to answer: pieces are
    wanted as they come, also where nobody is shown them."""
    ration: Ration | None = None
    """What is left of the allowance of a larger request, which this one is a part of: parts of one
    request are counted as one, and spend one allowance."""
    chooser: Chooser | None = None
    """Learns from what becomes of the attempts."""
    ask: Asking | None = None
    """Makes a job for another request that is made on behalf of this one, as plans do: it is
    ranked by itself, and what it costs is of the same account."""


class Asking(Protocol):
    """Makes a job of a request, as ``Job.ask`` says."""

    def __call__(self, request: Request, stopper: Stopper, /, *, streaming: bool) -> Job[Request]:
        """Rank who can serve it, now."""


class Trial(Generic[W, D]):
    """One attempt, on one target. Made by ``flow.serve``."""

    def __init__(
        self, job: Job[W], target: Target, number: int, total_s: float | None, draft: D
    ) -> None:
        self.job, self.target, self.number, self.draft = job, target, number, draft
        self.shown = False
        self.attempt: Attempt | None = None
        self._total_s = total_s
        self._started = job.clock()
        self.load_s = self._waited_s = 0.0
        self._first_token_s: float | None = None
        self._call: Call | None = None
        self._lease: Lease | None = None
        self._finish: Finish | None = None
        self._is_whole = False
        self._pace = (0.0, 0)
        """Since when how many pieces have come; see ``_watch_pace``."""
        self._entry: Entry | None = None
        self._permit: Permit | None = None
        self._error: DispatcherError | None = None
        self.continues = False
        """It goes on where another one broke off: the draft had text before."""
        self._receive: Receive | None = None
        self._bound = ("total", 0.0)
        """The phase that is waited for, and how many seconds it may take."""

    def run(self) -> Generator[Step, Any, Finish]:
        """Serve the request here. Settles exactly once, however it ends."""
        card = self.target.card
        outcome, failure, usage = Outcome.FAILED, "", None
        self.job.books.open()
        if self.job.chooser is not None:
            self.job.chooser.begin(card)
        try:
            self.job.report(
                AttemptStarted(vendor=card.vendor, model=card.model, number=self.number)
            )
            yield from self._take_turn()
            yield from self._enter()
            yield from self._load()
            finish = yield from self._serve()
            outcome, failure, usage = Outcome.SERVED, "", finish.usage
            self._finish = finish
        except (GeneratorExit, KeyboardInterrupt, Cancelled):
            outcome, failure = Outcome.CANCELLED, ""
            raise
        except DispatcherError as error:
            failure, self._error = told(error), error
            if isinstance(error, VendorError):
                error.at(card.vendor, card.model)
            elif isinstance(error, ContextOverflow | Unsupported) and not error.vendor:
                error.vendor, error.model = card.vendor, card.model
            raise
        except Exception as bug:  # foreign code: a vendor's bug is that vendor's failure
            broken = VendorError(f"a bug in the vendor: {type(bug).__name__}: {bug}")
            failure, self._error = told(broken), broken
            raise self._cut(broken.at(card.vendor, card.model)) from bug
        finally:
            try:
                self._settle(outcome, failure, usage)
            finally:
                if self._lease is not None:  # after the call was stopped: the model may go now
                    self._lease.end()
        return finish

    @property
    def had_room(self) -> bool:
        """Whether anything of a reply came, or no end at once: whoever is full says so at once."""
        is_late = self.attempt is not None and self.attempt.latency_s > HELD_S
        return is_late or self._first_token_s is not None

    @property
    def has_gap(self) -> bool:
        """Whether text may be missing in the middle of what came, so that nobody can go on."""
        return bool(getattr(self._call, "has_gap", False))  # ``Gapped``, which is slow to ask

    def total_left_s(self) -> float | None:
        """Return what is left of the total deadline, which loading a model does not use up."""
        if self._total_s is None:
            return None
        return self._total_s - (self.job.clock() - self._started - self.load_s)

    def out_of_time(self) -> bool:
        """Whether the total deadline of the request has passed."""
        left_s = self.total_left_s()
        return left_s is not None and left_s <= 0

    def _take_turn(self) -> Generator[Step, Any, None]:
        """Wait for this request's turn, where the user has set limits."""
        card, job = self.target.card, self.job
        limiter = job.patience.limiters.wanted(card.vendor, card.model)
        if limiter is None:
            return
        expected = expected_usage(job.request)
        turn = Turn(
            needs=Needs(
                input_tokens=expected.prompt_tokens, output_tokens=expected.completion_tokens
            ),
            priority=job.request.priority,
            left_s=self.total_left_s(),
            stopper=job.stopper,
            clock=job.clock,
        )
        try:
            self._permit = yield from turn.take(limiter)
        finally:
            self._waited_s = job.clock() - self._started

    def _enter(self) -> Generator[Step, Any, None]:
        """Set aside what this may cost, where money is limited, and wait until that is written."""
        card, engine = self.target.card, self.target.engine
        key = getattr(engine, "key_fingerprint", "")  # ``Keyed``, which is slow to ask
        entry = self.job.account.open(card, self.job.request, self.number, key)
        self._entry = entry
        if entry is None or entry.waiting is None:
            return
        try:
            yield from turns.written(entry.waiting, self.job.stopper)
        finally:
            self._waited_s = self.job.clock() - self._started  # the turn was before it

    def _load(self) -> Generator[Step, Any, None]:
        """Wait for the model; the load itself goes on if this times out."""
        self._lease = lease = self.job.landlord.lease(self.target.card, self.target.engine)
        for ask in (lease.claim, lease.confirm):
            loading = ask()
            if not loading.done():
                yield from self._wait(loading)
            elif error := loading.exception():
                raise own(error)

    def _wait(self, loading: Future[None]) -> Generator[Step, Any, None]:
        """Wait for a load, within its own limit, until the request is stopped."""
        limit_s = self.job.deadlines.load_s
        left_s = None if limit_s is None else max(0.0, limit_s - self.load_s)
        watch = Watch(loading)
        self.job.stopper.arm(lambda: watch.end(Cancelled()))
        try:
            yield Wait(watch.future, left_s)
        except TimeoutError:
            raise TimedOut("load", limit_s or 0.0) from None
        finally:
            watch.leave()
            self.load_s = self._asked_s()

    def _asked_s(self) -> float:
        """Return how long ago its turn had come, and the model was asked for."""
        return self.job.clock() - self._started - self._waited_s

    def _serve(self) -> Generator[Step, Any, Finish]:
        """Relay the pieces of the reply until its finish."""
        job, (card, engine) = self.job, (self.target.card, self.target.engine)
        named = getattr(engine, "names_requests", False)  # ``Naming``, which is slow to ask
        once = job.account.once(card, job.request) if named else ""
        streamed = job.streaming or job.signs
        request = job.request.within(self._deadlines(), streamed=streamed, once=once)
        call = self._call = engine.submit(request, card.model)
        self._is_whole = getattr(call, "is_whole", False)  # ``Deferred``, which is slow to ask
        self.job.stopper.arm(call.cancel)
        if job.signs:
            yield Emit(Sign.ASKED)
        while True:
            receive = self._next(call)
            try:
                pieces = yield receive
            except TimeoutError:
                raise self._late() from None
            except StreamInterrupted as error:
                error.partial = error.partial or self.draft.text
                raise
            except VendorError as error:
                raise self._cut(error)  # noqa: B904 - it is the same error, or has it as its cause
            for piece in pieces:
                if isinstance(piece, Finish):
                    self._complete(piece)
                    return piece
                if piece and not isinstance(piece, Progress):
                    told = self._take(piece)
                    if told is not None:
                        yield Emit(told)

    def _deadlines(self) -> Deadlines:
        """Return the deadlines that hold for this attempt: of the total, what is left of it."""
        left_s = self.total_left_s()
        if left_s is None:
            return self.job.deadlines
        return attrs.evolve(self.job.deadlines, total_s=max(0.0, left_s))

    def _next(self, call: Call) -> Receive:
        """Return what to wait for: the next pieces, within whichever deadline comes first."""
        if self._receive is not None and self._total_s is None:
            return self._receive  # the same as before: silence is all that is bounded
        deadlines = self.job.deadlines
        phase, limit_s = "first_token", deadlines.first_token_s
        if self._is_whole:
            phase, limit_s = "whole", deadlines.whole_s
        elif self._first_token_s is not None:
            phase, limit_s = "idle", deadlines.idle_s
        wait_s, left_s = limit_s, self.total_left_s()
        if left_s is not None and (wait_s is None or left_s < wait_s):
            phase, limit_s, wait_s = "total", deadlines.total_s, left_s
        self._bound = phase, limit_s or 0.0
        if left_s is not None and left_s <= 0:  # also while the caller takes its time
            raise self._late()
        self._receive = Receive(call, wait_s)
        return self._receive

    def _late(self) -> VendorError:
        """Return what it means that the deadline that was waited for has passed."""
        return self._cut(TimedOut(*self._bound))

    def _take(self, piece: Piece) -> Piece | Sign | None:
        """Keep a piece; returns what is to be shown of it."""
        deadlines, told = self.job.deadlines, None
        if self._first_token_s is None:
            told = Sign.BEGAN if self.job.signs else None
            self._first_token_s = self._asked_s() - self.load_s
            self._receive = None  # from now on another silence is waited for
            self._pace = self.job.clock(), 0
        elif deadlines.floor_pieces_per_s is not None:
            self._watch_pace(deadlines.floor_pieces_per_s, deadlines.idle_s or PACE_S)
        try:
            self.draft.add(piece)
        except BadReply as error:
            raise self._cut(error)  # noqa: B904 - it is the same error, or has it as its cause
        self.shown = self.job.streaming
        return piece if self.shown else told

    def _watch_pace(self, floor_per_s: float, window_s: float) -> None:
        """Give up a stream of which hardly anything comes any more, though it is never silent."""
        (since_s, pieces), now_s = self._pace, self.job.clock()
        pieces += 1
        self._pace = since_s, pieces
        if now_s - since_s >= window_s:
            if pieces < floor_per_s * (now_s - since_s):
                raise self._cut(TimedOut("idle", window_s))
            self._pace = now_s, 0

    def _complete(self, finish: Finish) -> None:
        """Make a whole of what has come. Raises BadReply if it is not what was asked for."""
        try:
            self.draft.finish(finish)
        except BadReply as error:
            raise self._cut(error)  # noqa: B904 - it is the same error, or has it as its cause

    def _cut(self, error: VendorError) -> VendorError:
        """Return the error to raise: a reply that broke after a part was shown keeps that part."""
        if not self.shown:
            return error
        cut = StreamInterrupted(f"the reply was cut: {error}", partial=self.draft.text)
        cut.__cause__ = error
        return cut

    def _settle(self, outcome: Outcome, failure: str, usage: Usage | None) -> None:
        """Stop the call if it was not served, and enter the attempt into the books."""
        card = self.target.card
        if self._call is not None and outcome is not Outcome.SERVED:
            self._call.cancel()
            usage = self._call.usage()
        usage, cost = usage or Usage(), None
        if self._call is None:
            cost = 0  # nothing was sent, whatever the price
        elif usage.charged_microusd is not None:
            cost = usage.charged_microusd  # who sends the bill knows best
        elif card.price is not None:
            cost = card.price.cost_microusd(usage)
        self.attempt = Attempt(
            vendor=card.vendor,
            model=card.model,
            outcome=outcome,
            usage=usage,
            cost_microusd=cost,
            latency_s=self._asked_s() - self.load_s,
            first_token_s=self._first_token_s,
            load_s=self.load_s,
            waited_s=self._waited_s,
            error=failure,
            request_id=self._finish.request_id if self._finish else "",
            served_model=self._finish.served_model if self._finish else "",
        )
        self.job.books.settle(self.attempt)
        if self._first_token_s is not None and not self._is_whole:
            self.job.patience.hedging.heard(card.name, self._first_token_s)
        if self.job.chooser is not None:
            end = self._finish or self._error
            self.job.chooser.settle(card, self.job.request, self.attempt, end)
        ended = Ended(
            self._error, self.job.request, was_sent=self._call is not None, was_shown=self.shown
        )
        self.job.account.settle(self._entry, card, self.attempt, ended)
        if self._permit is not None:
            turns.end(self._permit, self._call, usage, self._error, self.job.clock())
        self.job.report(AttemptEnded(attempt=self.attempt, number=self.number))


def told(error: DispatcherError) -> str:
    """Return class and message, without the name of the vendor, which stands beside it."""
    return f"{type(error).__name__}: {error.args[0] if error.args else ''}"
