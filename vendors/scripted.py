"""A vendor that says what it is told, for the tests of programs that use llmdispatcher.

    Scripted("Hello.")                                  the same reply for every request
    Scripted(["Hel", 0.2, "lo."], RateLimited("slow"))  two pieces 0.2 s apart; then only errors
    Scripted(lambda request: request.messages[-1].text) an echo

A *reply* is text, an error, or a sequence of steps: text (a piece), a number (seconds to wait), an
error (the call fails here), a ``Progress``, a ``Delta``, a ``Finish``. Steps without a Finish end
with a normal one; ``CUT`` as the last step ends as a broken connection does, with nothing after it.

Of a request for several choices, the steps are played once for each, one choice after the other; an
error or a Finish ends them all. Log-probabilities are those of a vendor that is sure: 0.0 for each
piece, with nothing beside it.
"""

from __future__ import annotations

import math
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from copy import copy
from hashlib import blake2b
from itertools import tee
from typing import Final

import attrs

from llmdispatcher.models.card import FREE, Capability, ModelCard, Price
from llmdispatcher.models.check import flag, integer, number
from llmdispatcher.models.embedding import EmbedRequest, RerankRequest, Score, Vector, Work
from llmdispatcher.models.errors import (
    BadRequest,
    Cancelled,
    DispatcherError,
    ModelNotFound,
    Refused,
    StreamInterrupted,
    VendorError,
)
from llmdispatcher.models.event import LoadProgress
from llmdispatcher.models.reply import (
    Delta,
    Finish,
    FinishReason,
    Piece,
    Progress,
    TokenLogprob,
    Usage,
)
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.contract import Call, Footprint, Report, State, Status
from llmdispatcher.vendors.mailbox import Mailbox, fire

CUT: Final = StreamInterrupted("the script cut the reply here")
"""The last step of a reply that ends without a finish reason."""

Step = str | float | DispatcherError | Progress | Delta | Finish
Steps = str | DispatcherError | Iterable[Step]

ABLE = (
    Capability.CHAT,
    Capability.COMPLETION,
    Capability.CHOICES,
    Capability.LOGPROBS,
    Capability.PREFILL,
    Capability.EMBED,
    Capability.RERANK,
)
"""What a script can do unless it is told otherwise."""

DIMENSIONS = 16
"""Numbers in a scripted vector."""


@attrs.frozen(init=False)
class Scripted:
    """A vendor with one model whose replies are written down.

    ``replies`` are served in turn and the last one for ever; a single function of the request
    makes each reply anew. ``load_s`` is how long the model pretends to load, ``load_error`` how
    loading fails. ``price`` is free unless given, None for unknown.

    With ``memory_mb`` it pretends to take so much memory while it is loaded, and can be unloaded,
    as local models can; ``pinned`` and ``keep_alive_s`` are then those of ``contract.Footprint``.
    """

    name: str
    card: ModelCard
    replies: tuple[Steps, ...] | Callable[[Request], Steps]
    load_s: float
    load_error: VendorError | None
    memory_mb: int | None = integer("memory_mb", 1, 2**40)
    pinned: bool = flag(default=False)
    keep_alive_s: float | None = number("keep_alive_s", 0, math.inf)

    def __init__(  # noqa: PLR0913 - keywords of a test double, each with a default
        self,
        *replies: Steps | Callable[[Request], Steps],
        name: str = "scripted",
        model: str = "script",
        price: Price | None = FREE,
        local: bool = True,
        capabilities: Iterable[Capability] = ABLE,
        load_s: float = 0.0,
        load_error: VendorError | None = None,
        last_resort: bool = False,
        memory_mb: int | None = None,
        pinned: bool = False,
        keep_alive_s: float | None = None,
    ) -> None:
        written = tuple(reply for reply in replies if not callable(reply))
        functions = [reply for reply in replies if callable(reply)]
        if functions and len(replies) > 1:
            raise BadRequest("replies", replies, "written replies, or a single function")
        made = functions[0] if functions else written or ("ok",)
        card = ModelCard(
            vendor=name,
            model=model,
            local=local,
            capabilities=capabilities,
            price=price,
            last_resort=last_resort,
        )
        kept = (memory_mb, pinned, keep_alive_s)
        self.__attrs_init__(name, card, made, load_s, load_error, *kept)

    def confined(self) -> Scripted:
        """See ``contract.Confinable``: it connects to nothing."""
        return self

    def start(self, report: Report) -> ScriptedEngine:
        """Make the engine."""
        if self.memory_mb is None:
            return ScriptedEngine(self, report)
        return ResidentScriptedEngine(self, report)


class ScriptedEngine:
    """Plays the script; each call has a thread of its own, which ends with the call."""

    def __init__(self, spec: Scripted, report: Report) -> None:
        self._spec, self._cards = spec, (spec.card,)
        self._report = report
        self._lock = threading.Lock()
        self._loaded: Future[None] | None = None
        self._closing = threading.Event()
        self._calls: set[_ScriptedCall] = set()
        self._turn = 0
        self.requests: list[Request] = []
        """Every request for a reply that was submitted, in order, with the deadlines that held for
        it: what a test looks at."""
        self.pooled: list[EmbedRequest | RerankRequest] = []
        """The same of requests for vectors and scores."""

    def cards(self) -> Sequence[ModelCard]:
        """Return the one card."""
        return self._cards

    def identity(self, model: str) -> str:
        """See ``contract.Identified``: the script."""
        return f"{model} {self._spec.replies!r}"

    def status(self) -> Status:
        """Report the state and how many calls play now."""
        with self._lock:
            running = len(self._calls)
            loaded = self._loaded
        if self._closing.is_set():
            return Status(State.CLOSED)
        if loaded is None:
            return Status(State.ABSENT)
        if not loaded.done():
            return Status(State.LOADING)
        error = loaded.exception()
        if error:
            return Status(State.FAILED, str(error))
        return Status(State.BUSY if running else State.READY, running=running)

    def load(self, model: str) -> Future[None]:
        """Pretend to load, once; a failed load can be tried again."""
        with self._lock:
            failed = self._loaded and self._loaded.done() and self._loaded.exception()
            if self._loaded is None or failed:
                self._loaded = Future()
                threading.Thread(target=self._load, args=(self._loaded, model), daemon=True).start()
            return self._loaded

    def _load(self, loaded: Future[None], model: str) -> None:
        loaded.set_running_or_notify_cancel()
        if self._closing.wait(self._spec.load_s):
            loaded.set_exception(Refused("closed while loading"))
        elif self._spec.load_error is not None:
            loaded.set_exception(copy(self._spec.load_error))
        else:
            self._report(
                LoadProgress(
                    vendor=self._spec.name, model=model, fraction=1.0, elapsed_s=self._spec.load_s
                )
            )
            loaded.set_result(None)

    def submit(self, work: Work, model: str) -> Call:
        """Begin to play the next reply; once it is closed, refuse it: nobody would stop it."""
        with self._lock:
            call = _ScriptedCall(work, _steps(self._next(work)), self._ended)
            self._calls.add(call)
            is_closed = self._closing.is_set()
        if is_closed:
            call.stop(Refused("the dispatcher was closed"))
        threading.Thread(target=call.play, name=f"scripted-{model}", daemon=True).start()
        return call

    def _next(self, work: Work) -> Steps:
        """Note what was asked for, and return the reply to it."""
        turn, self._turn = self._turn, self._turn + 1
        replies = self._spec.replies
        if isinstance(work, Request):
            self.requests.append(work)
            if callable(replies):
                return replies(work)
        else:
            self.pooled.append(work)
        return "ok" if callable(replies) else replies[min(turn, len(replies) - 1)]

    def _ended(self, call: _ScriptedCall) -> None:
        with self._lock:
            self._calls.discard(call)

    def close(self) -> None:
        """Stop all calls."""
        self._closing.set()
        with self._lock:
            calls = list(self._calls)
        for call in calls:
            call.stop(Refused("the dispatcher was closed"))


class ResidentScriptedEngine(ScriptedEngine):
    """Pretends to take memory, and to give it back. See ``contract.Resident``."""

    def footprint(self, model: str) -> Footprint:
        """Return what the spec says. Raises ModelNotFound for another model."""
        self._check(model)
        return Footprint(
            memory_bytes=(self._spec.memory_mb or 0) * 2**20,
            pinned=self._spec.pinned,
            keep_alive_s=self._spec.keep_alive_s,
        )

    def unload(self, model: str) -> Future[None]:
        """Forget that it was loaded; calls that play fail with Refused."""
        self._check(model)
        with self._lock:
            self._loaded, calls = None, list(self._calls)
        for call in calls:
            call.stop(Refused("the model was unloaded"))
        gone: Future[None] = Future()
        gone.set_result(None)
        return gone

    def submit(self, work: Work, model: str) -> Call:
        """Begin to play the next reply. Raises ModelNotFound where the model is not loaded."""
        loaded = self._loaded
        if loaded is None or not loaded.done():
            raise ModelNotFound(f"the model {model!r} is not loaded")
        return super().submit(work, model)

    def _check(self, model: str) -> None:
        if model != self._spec.card.model:
            raise ModelNotFound(f"there is only {self._spec.card.model!r} here")


class _ScriptedCall:
    """One reply being played."""

    def __init__(
        self, work: Work, steps: Iterator[Step], ended: Callable[[_ScriptedCall], None]
    ) -> None:
        self._work = work
        self._steps = steps
        self._ended = ended
        self._box = Mailbox()
        self._stop = threading.Event()
        self._pieces = 0
        self.receive = self._box.receive
        self.areceive = self._box.areceive

    def usage(self) -> Usage:
        """Count a token for each piece of text, and for each word that is read."""
        words = sum(len(text.split()) for text in _read(self._work))
        written = self._pieces if isinstance(self._work, Request) else 0
        return Usage(prompt_tokens=words, completion_tokens=written, estimated=True)

    def cancel(self) -> None:
        """Stop at the step being played."""
        self.stop(Cancelled())

    def stop(self, error: DispatcherError) -> None:
        """Stop, and tell the consumer why."""
        self._stop.set()
        fire([self._box.fail(error)])

    def play(self) -> None:
        """Run the steps, once for each choice, in a thread of their own."""
        n = self._work.n if isinstance(self._work, Request) else 1
        copies = enumerate(tee(self._steps, n))
        if all(self._do(step, index) for index, steps in copies for step in steps):
            stop = FinishReason.STOP
            fire([self._box.put(Finish(stop, self.usage(), others=(stop,) * (n - 1)))])
        self._ended(self)

    def _do(self, step: Step, index: int) -> bool:
        """Run one step of a choice; False if it is the last."""
        if self._stop.is_set():
            return False
        if isinstance(step, int | float):
            return not self._stop.wait(step)
        if isinstance(step, DispatcherError):
            fire([self._box.fail(copy(step))])  # raising an error changes it
            return False
        if isinstance(step, str):
            self._pieces += 1
            fire([self._box.put(piece) for piece in self._told(step, index)])
            return True
        fire([self._box.put(step)])
        return not isinstance(step, Finish)

    def _told(self, text: str, index: int) -> list[Piece]:
        """Return what a text of the script stands for."""
        work = self._work
        if isinstance(work, Request):
            logprobs = (TokenLogprob(text, text.encode(errors="surrogatepass"), 0.0),)
            return [Delta(text, index, () if work.logprobs is None else logprobs)]
        if self._pieces > 1:
            return []
        if isinstance(work, EmbedRequest):
            vectors = (_vector(each, normalize=work.normalize) for each in work.texts)
            return [Vector(place, values) for place, values in enumerate(vectors)]
        scores = (_score(work.query, each) for each in work.documents)
        return [Score(place, value) for place, value in enumerate(scores)]


def _read(work: Work) -> list[str]:
    """Return every text that a model would read."""
    if isinstance(work, EmbedRequest):
        return list(work.texts)
    if isinstance(work, RerankRequest):
        return [text for document in work.documents for text in (work.query, document)]
    return [work.prompt or "", *(message.text for message in work.messages)]


def _vector(text: str, *, normalize: bool) -> array[float]:
    """Return numbers from -1 to 1 that any change of the text changes."""
    digest = blake2b(text.encode(), digest_size=DIMENSIONS).digest()
    values = [byte / 127.5 - 1 for byte in digest]
    length = math.hypot(*values) if normalize else 1.0
    return array("f", [value / length for value in values])


def _score(query: str, document: str) -> float:
    """Return the part of the query's words that a document has."""
    wanted = set(query.lower().split())
    return len(wanted & set(document.lower().split())) / len(wanted) if wanted else 0.0


def _steps(reply: Steps) -> Iterator[Step]:
    return iter([reply] if isinstance(reply, str | DispatcherError) else reply)
