"""The calls of a worker, seen from its parent: who waits for which number."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

from llmdispatcher.models.embedding import EmbedRequest, RerankRequest, Vector, Work
from llmdispatcher.models.errors import Cancelled, DispatcherError
from llmdispatcher.models.reply import Delta, Finish, Piece, Progress, TokenLogprob, Usage
from llmdispatcher.vendors.llamacpp.worker import codec
from llmdispatcher.vendors.mailbox import Mailbox, Waker, fire

if TYPE_CHECKING:
    from concurrent.futures import Future

    from llmdispatcher.models.reply import Saved


TOKEN_CHARS = 1024
"""What a token may weigh in a reply: the longest in any vocabulary have some hundred bytes. So may
each of those whose log-probabilities are told beside it."""

MOST_TOKENS = 2**20
"""Of a reply whose length nobody limits: about the longest contexts that there are."""

VECTOR_CHARS = 2**18
"""What a text's vector may weigh: four times 16,384 numbers."""

SLACK_CHARS = 2**20
"""For what is told once, such as warnings."""

PIECE_CHARS = 64
"""What a piece weighs beside its text."""


def _most_chars(work: Work, context_tokens: int | None) -> int:
    """Return how much a reply can weigh: what is more, a worker that went wild made up."""
    match work:
        case EmbedRequest():
            return SLACK_CHARS + len(work.texts) * VECTOR_CHARS
        case RerankRequest():
            return SLACK_CHARS + len(work.documents) * PIECE_CHARS
    most = context_tokens or MOST_TOKENS
    tokens = work.n * min(most, work.max_tokens or most)
    return SLACK_CHARS + tokens * TOKEN_CHARS * (1 + (work.logprobs or 0))


def _weight(piece: Piece) -> int:
    """Return about how much memory a piece takes, in characters."""
    match piece:
        case Delta():
            told = len(piece.text) + len(piece.reasoning)
            if piece.tool_calls or piece.logprobs:
                told += sum(len(each.arguments) + PIECE_CHARS for each in piece.tool_calls)
                told += sum(_weight_of(each) for each in piece.logprobs)
            return PIECE_CHARS + told
        case Vector():
            return PIECE_CHARS + 4 * len(piece.values)
        case Progress():
            return 0  # the mailbox drops what nobody waits for
    return PIECE_CHARS


def _weight_of(token: TokenLogprob) -> int:
    return PIECE_CHARS + len(token.token) + len(token.data) + sum(map(_weight_of, token.top))


class WorkerCall:
    """A request in a worker. See ``contract.Call``."""

    def __init__(
        self, number: int, most_chars: int, cancelled: Callable[[WorkerCall], None]
    ) -> None:
        self.number = number
        self._left_chars = most_chars
        self.box = Mailbox()
        self.receive = self.box.receive
        self.areceive = self.box.areceive
        self.is_cancelled = False
        self._usage = Usage()
        self._cancelled = cancelled

    def usage(self) -> Usage:
        """Return the tokens until now; while text flows, as of the last time any arrived."""
        return self._usage

    def cancel(self) -> None:
        """Release the consumer and tell the worker to drop the request."""
        if self.is_cancelled:
            return
        self.is_cancelled = True
        try:
            self._cancelled(self)
        finally:  # also if a Ctrl-C comes in between
            fire([self.box.fail(Cancelled())])

    def take(
        self, pieces: list[Any], usage: object, error: object
    ) -> tuple[list[Waker | None], bool]:
        """Put in what has come. Returns who is to be woken, and whether that was the end.

        Raises Garbled.
        """
        if usage is not None:
            self._usage = codec.usage_in(usage)
        wakers: list[Waker | None] = []
        ends = False
        for each in pieces:
            piece = codec.piece_in(each)
            self._left_chars -= _weight(piece)
            if self._left_chars < 0 or ends:
                raise codec.Garbled("more of a reply than was asked for")
            ends = isinstance(piece, Finish)
            wakers.append(self.box.put(piece))
        if error is not None:
            wakers.append(self.box.fail(codec.error_in(error)))
            return wakers, True
        return wakers, ends


class Calls:
    """All that was asked of a worker and has not ended: calls, and states to be kept."""

    def __init__(self, context_tokens: int | None = None) -> None:
        self._context_tokens = context_tokens
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._calls: dict[int, WorkerCall] = {}
        self._keeping: dict[int, Future[Saved]] = {}
        self.has_served = False
        self.drawn_tokens = 0
        """Tokens drawn for all calls that have ended or told of them."""

    def __len__(self) -> int:
        return len(self._calls)

    def open(self, work: Work, cancelled: Callable[[WorkerCall], None]) -> WorkerCall:
        """Make a call with a number of its own."""
        most_chars = _most_chars(work, self._context_tokens)
        with self._lock:
            call = WorkerCall(next(self._numbers), most_chars, cancelled)
            self._calls[call.number] = call
        return call

    def keep(self, future: Future[Saved]) -> int:
        """Number a state that is to be saved or restored."""
        with self._lock:
            number = next(self._numbers)
            self._keeping[number] = future
        return number

    def drop(self, call: WorkerCall) -> None:
        """Forget a call."""
        with self._lock:
            self._calls.pop(call.number, None)

    def take(self, letters: list[Any]) -> list[Waker | None]:
        """Hand out what the worker wrote for its calls; returns who is to be woken."""
        wakers: list[Waker | None] = []
        for letter in letters:
            match letter:
                case [int(number), list(pieces), usage, error]:
                    wakers += self._hand_out(number, pieces, usage, error)
                case _:
                    raise codec.Garbled("not a letter to a call")
        return wakers

    def _hand_out(
        self, number: int, pieces: list[Any], usage: object, error: object
    ) -> list[Waker | None]:
        call = self._calls.get(number)
        if call is None:
            return []  # it was cancelled, and this was under way
        before = call.usage().completion_tokens
        wakers, ends = call.take(pieces, usage, error)
        self.drawn_tokens += max(0, call.usage().completion_tokens - before)
        if ends:
            self.has_served = self.has_served or error is None
            self.drop(call)
        return wakers

    def kept(self, number: int) -> Future[Saved]:
        """Return who waits for a state. Raises Garbled if nobody does."""
        future = self._take_kept(number)
        if future is None:
            raise codec.Garbled(f"nobody asked for state {number}")
        return future

    def refuse_kept(self, number: int, error: DispatcherError) -> None:
        """Tell who waits for a state, if anybody still does, that there will be none."""
        if future := self._take_kept(number):
            future.set_exception(error)

    def _take_kept(self, number: int) -> Future[Saved] | None:
        with self._lock:
            return self._keeping.pop(number, None)

    def any_wanted(self) -> bool:
        """Whether anybody waits for anything."""
        with self._lock:
            calls = [*self._calls.values()]
            return bool(self._keeping) or not all(call.is_cancelled for call in calls)

    def drain(self) -> tuple[list[WorkerCall], list[Future[Saved]]]:
        """Take all that has not ended."""
        with self._lock:
            calls, self._calls = [*self._calls.values()], {}
            keeping, self._keeping = [*self._keeping.values()], {}
        return calls, keeping

    def fail(self, error: Callable[[], DispatcherError]) -> None:
        """End all of them, each with an error of its own."""
        calls, keeping = self.drain()
        fire([call.box.fail(error()) for call in calls])
        for future in keeping:
            future.set_exception(error())
