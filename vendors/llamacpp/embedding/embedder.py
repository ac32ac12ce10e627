"""The engine of a model that makes vectors or scores: many texts of many requests in one decode.

The counterpart of ``engine.EngineLoop``, with the same outside: one thread makes it and calls
``step``, others only put calls into the inbox. A request is turned into tokens as a whole before
any of it is decoded, so that a text that is too long costs nothing but its error, which names it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, cast

import attrs

from llmdispatcher.models.embedding import EmbedRequest, RerankRequest, Score, Vector
from llmdispatcher.models.errors import (
    BadRequest,
    ContextOverflow,
    DispatcherError,
    Unsupported,
)
from llmdispatcher.models.reply import Finish, FinishReason, Progress
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.llamacpp.embedding.pooling import BATCH_TOKENS, Span
from llmdispatcher.vendors.llamacpp.engine.backend import Interrupted
from llmdispatcher.vendors.llamacpp.engine.inbox import Box, EngineCall, Inbox
from llmdispatcher.vendors.llamacpp.engine.relay import Relay

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.embedding.pooled import Floats, Pooled, Whole

PREPARE_S = 0.005
"""How long a step may spend on turning texts into tokens while others wait to be decoded."""

TURN = 32
"""Texts of one request that are turned into tokens before it is another's turn."""

LOOK = 32
"""Texts of one request that are looked at to fill what is left of a decode, and requests. What is
passed over stays first in line for the next."""

PooledWork = EmbedRequest | RerankRequest


@attrs.frozen
class LoadedPooled:
    """What this engine works with."""

    backend: Pooled
    guard: Callable[[], None] = attrs.field(default=lambda: None)
    """Called before a request is let in; raises if serving it could end the process."""
    govern: Callable[[int, float], None] = attrs.field(default=lambda _tokens, _began_s: None)
    """Called after each decode with its tokens and when it began (monotonic seconds)."""


class PooledCall(EngineCall):
    """A request for vectors or scores in the engine."""

    def __init__(
        self,
        work: PooledWork,
        wake_engine: Callable[[EngineCall], None],
        box: Box | None = None,
    ) -> None:
        # the request is what only the other engine reads
        super().__init__(cast("Request", work), wake_engine, box)
        self.work = work
        named = _named(work)
        self.missing = len(named)
        """Texts that are not answered yet."""
        self.unread = enumerate(named)
        """Texts that are not turned into tokens yet, by place and name."""
        self.texts: deque[Text] = deque()
        """Texts that are not decoded yet."""
        self.read_tokens = 0
        """Tokens of all texts; ``prompt_tokens`` are those that were decoded."""

    def is_complete(self) -> bool:
        """Whether every text is answered."""
        return not self.missing


class Text:
    """One text, or a query with one document, on its way through the model."""

    __slots__ = ("call", "index", "position", "slot", "tokens", "whole")

    def __init__(self, call: PooledCall, index: int, tokens: list[int]) -> None:
        self.call, self.index, self.tokens = call, index, tokens
        self.slot = -1
        self.position = 0
        """How many of its tokens were decoded."""
        self.whole: Whole | None = None
        """What they made."""

    def begin_again(self) -> None:
        """Forget what was decoded."""
        self.call.prompt_tokens -= self.position
        self.position, self.whole = 0, None


class Line:
    """Who is next. Requests take turns, so that one of a thousand texts delays none of a single."""

    def __init__(self) -> None:
        self._calls: dict[PooledCall, None] = {}
        self._round: deque[PooledCall] = deque()
        """Who has not had a turn in this round."""
        self.half: Text | None = None
        """A text of which a part was decoded: always first."""

    def __iter__(self) -> Iterator[PooledCall]:
        return iter(self._calls)

    def add(self, call: PooledCall) -> None:
        """Let a call take turns, from the next round on."""
        self._calls[call] = None

    def drop(self, call: PooledCall) -> None:
        """Let a call go."""
        self._calls.pop(call, None)
        call.texts.clear()
        if self.half is not None and self.half.call is call:
            self.half = None

    def back(self, texts: Iterable[Text]) -> None:
        """Put texts back that were not decoded after all."""
        for text in texts:
            if text.call in self._calls:
                text.call.texts.appendleft(text)

    def fill(self, tokens: int, texts: int, *, most: int) -> list[Text]:
        """Take texts for one decode: up to ``texts`` whole ones of so many tokens together.

        A text of more, up to ``most``, goes alone.
        """
        chosen: list[Text] = []
        passed: list[PooledCall] = []
        while len(chosen) < texts and len(passed) < LOOK and (call := self._turn(passed)):
            text = _fitting(call, tokens if chosen else most)
            if text is None:
                passed.append(call)
                continue
            chosen.append(text)
            tokens -= len(text.tokens)
            if tokens <= 0:
                break
        self._round.extendleft(reversed(passed))
        return chosen

    def _turn(self, passed: list[PooledCall]) -> PooledCall | None:
        """Return whose turn it is, beginning a new round when all had theirs."""
        for _ in range(2):
            while self._round:
                call = self._round.popleft()
                if call in self._calls and call.texts:
                    return call
            waiting = [call for call in self._calls if call.texts and call not in passed]
            self._round.extend(sorted(waiting, key=lambda call: -call.work.priority))
        return None


class EmbedLoop:
    """Serves an inbox of calls with a model. Made and stepped by one thread."""

    def __init__(self, loaded: LoadedPooled, inbox: Inbox) -> None:
        self._backend = loaded.backend
        self._pooling = loaded.backend.pooling
        self._guard = loaded.guard
        self._govern = loaded.govern
        self._inbox = inbox
        self._fresh: deque[PooledCall] = deque()
        """Calls that have arrived and had no turn at being turned into tokens yet."""
        self._unread: deque[PooledCall] = deque()
        """Calls that had one, and are not all tokens yet."""
        self._line = Line()
        self._relay = Relay()

    def step(self) -> bool:
        """Do the next piece of work; False if there is none."""
        for job in self._inbox.jobs():
            job.refuse(Unsupported("state", "a model for vectors keeps no conversations"))
        self._arrive()
        for call in self._inbox.cancelled():
            self._forget(call)
        texts = self._chosen()
        if texts:
            self._decode(texts)
        self._relay.tell(self._waiting, idle=not texts)
        return bool(texts or self._fresh or self._unread)

    def close(self, error: DispatcherError) -> None:
        """Fail every call that has not ended and give the memory back."""
        for call in self._inbox.drain():
            self._relay.fail(call, error)
        self._relay.fire()
        for job in self._inbox.jobs():
            job.refuse(error)
        self._backend.close()

    def _arrive(self) -> None:
        """Turn what has arrived into tokens; much of it over several steps."""
        for call in self._inbox.take():
            if isinstance(call, PooledCall):
                self._fresh.append(call)
            else:
                told = "this model makes vectors or scores, and was asked to write"
                self._fail(call, Unsupported("chat", told))
        until = time.monotonic() + PREPARE_S
        # whatever the time, who has just come and who has waited get a turn in every step
        self._turn(self._fresh, until)
        self._turn(self._unread, until)
        while (self._fresh or self._unread) and time.monotonic() < until:
            self._turn(self._fresh or self._unread, until)

    def _turn(self, calls: deque[PooledCall], until: float) -> None:
        """Turn some texts of the next of these calls into tokens; if it has more, it goes on later.

        So a request of a thousand texts delays none of a single one.
        """
        if not calls:
            return
        call = calls.popleft()
        if not (call.is_cancelled() or self._prepare(call, until)):
            self._unread.append(call)

    def _prepare(self, call: PooledCall, until: float) -> bool:
        """Turn some texts of a call into tokens, at least one; False if there are more."""
        try:
            self._guard()
            for index, (name, text) in islice(call.unread, TURN):
                tokens = self._tokens(call.work, name, text)
                call.texts.append(Text(call, index, tokens))
                call.read_tokens += len(tokens)
                if time.monotonic() >= until:
                    break
        except DispatcherError as error:
            self._fail(call, error)
            return True
        if len(call.texts) < call.missing:
            return False
        self._line.add(call)
        return True

    def _tokens(self, work: PooledWork, name: str, text: str) -> list[int]:
        """Turn one text into tokens. Raises an error that names it."""
        backend = self._backend
        try:
            if isinstance(work, EmbedRequest):
                tokens = backend.tokenize(text)
            else:
                tokens = backend.pair(work.query, text)
        except ContextOverflow as error:
            raise _too_long(name, (error.needed_tokens or 1) - 1, backend.text_tokens) from None
        except BadRequest as error:
            raise BadRequest(name, error.value, error.allowed) from None
        if len(tokens) > backend.text_tokens:
            raise _too_long(name, len(tokens), backend.text_tokens)
        if not tokens:
            raise BadRequest(name, text, "text of at least one token: this model adds none")
        return tokens

    def _chosen(self) -> list[tuple[Text, Span]]:
        """Choose what to decode next: what was begun, then whole texts, then a part of one."""
        backend, line = self._backend, self._line
        room = min(BATCH_TOKENS, backend.batch_tokens)
        half, line.half = line.half, None
        if half is not None:
            span = self._span(half, half.slot, room)
            rest = room - len(span.tokens)
            texts = line.fill(rest, backend.slots - 1, most=rest) if rest else []
            slots = (slot for slot in range(backend.slots) if slot != half.slot)
            return [(half, span), *self._placed(texts, slots)]
        most = backend.text_tokens if self._pooling.splits else backend.batch_tokens
        texts = line.fill(room, backend.slots, most=most)
        return self._placed(texts, iter(range(backend.slots)))

    def _placed(self, texts: list[Text], slots: Iterator[int]) -> list[tuple[Text, Span]]:
        """Give each text a slot, and of one that is longer than a decode as much as fits."""
        most = self._backend.batch_tokens
        return [
            (text, self._span(text, slot, most)) for text, slot in zip(texts, slots, strict=False)
        ]

    def _span(self, text: Text, slot: int, most: int) -> Span:
        text.slot = slot
        return Span(slot, text.position, text.tokens[text.position : text.position + most])

    def _decode(self, chosen: list[tuple[Text, Span]]) -> None:
        """Decode, and hand over what is whole."""
        calls = dict.fromkeys(text.call for text, _ in chosen)
        for call in calls:
            call.runs = True
        self._inbox.decoding(calls)
        began_s = time.monotonic()
        try:
            made = self._backend.decode([span for _, span in chosen])
        except Interrupted:
            for text, _ in chosen:
                text.begin_again()
            self._line.back(text for text, _ in reversed(chosen))
            return
        finally:
            self._inbox.decoding(())
        self._govern(sum(len(span.tokens) for _, span in chosen), began_s)
        done = []
        for (text, span), values in zip(chosen, made, strict=True):
            whole = self._added(text, len(span.tokens), values)
            if text.position == len(text.tokens):
                done.append(text.slot)
                self._hand_over(text, whole)
            else:
                self._line.half = text
        self._backend.drop(done)
        for call in calls:
            self._tell(call)

    def _added(self, text: Text, tokens: int, made: Floats) -> Whole:
        """Note what a decode made of the next tokens of a text."""
        whole = text.whole = text.whole or self._backend.whole()
        whole.add(made, tokens)
        text.position += tokens
        text.call.prompt_tokens += tokens
        return whole

    def _hand_over(self, text: Text, whole: Whole) -> None:
        """Give a text's vector, or its score, to who asked for it."""
        call = text.call
        call.missing -= 1
        if isinstance(call.work, EmbedRequest):
            vector = whole.vector(normalize=call.work.normalize)
            self._relay.put(call, Vector(text.index, vector))
        else:
            self._relay.put(call, Score(text.index, whole.score()))

    def _tell(self, call: PooledCall) -> None:
        """End a call of which nothing is missing; tell another how far it is."""
        if call.missing:
            self._relay.put(call, Progress("prompt", call.prompt_tokens, call.read_tokens))
        else:
            self._relay.put(call, Finish(FinishReason.STOP, call.usage()))
            self._forget(call)

    def _waiting(self) -> list[EngineCall]:
        """Return all calls: what one waits for between two decodes may be long as well."""
        return [*self._line, *self._fresh, *self._unread]

    def _forget(self, call: EngineCall) -> None:
        """Let a call go, with what is left of it."""
        if isinstance(call, PooledCall):
            half = self._line.half
            if half is not None and half.call is call:
                self._backend.drop([half.slot])
            self._line.drop(call)
        self._inbox.done(call)

    def _fail(self, call: EngineCall, error: DispatcherError) -> None:
        self._relay.fail(call, error)
        self._forget(call)


def _named(work: PooledWork) -> list[tuple[str, str]]:
    """List every text with the name that errors call it by."""
    if isinstance(work, EmbedRequest):
        return [(f"texts[{index}]", text) for index, text in enumerate(work.texts)]
    return [(f"documents[{index}]", text) for index, text in enumerate(work.documents)]


def _fitting(call: PooledCall, tokens: int) -> Text | None:
    """Take the first of a call's next texts that has at most so many tokens."""
    for place, text in enumerate(islice(call.texts, LOOK)):
        if len(text.tokens) <= tokens:
            del call.texts[place]
            return text
    return None


def _too_long(name: str, needed_tokens: int, limit_tokens: int) -> ContextOverflow:
    """Make the error for a text that is too long, which says which it is."""
    error = ContextOverflow(needed_tokens, limit_tokens)
    told = (
        f"{name} has {needed_tokens} tokens, with all that goes with it, and the longest text that"
        f" this model reads has {limit_tokens}: shorten it, or divide it into several"
    )
    error.args = (told,)
    return error
