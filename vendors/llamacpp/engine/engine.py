"""The engine: owns a loaded model and serves many requests on it at once, step by step.

``step`` does a bounded piece of work and can be called without a thread: it takes what has
arrived, lets in what fits, decodes one batch that holds a token of every running reply and pieces
of the prompts being read, and hands out what was drawn. All state of the model and of the sequences
belongs to whoever calls ``step``; other threads only put calls into the inbox and set flags.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

import attrs

from llmdispatcher.models.errors import (
    ContextOverflow,
    DispatcherError,
    EngineCrashed,
    Unsupported,
)
from llmdispatcher.models.reply import Delta, Finish, FinishReason, Progress, TokenLogprob
from llmdispatcher.vendors.llamacpp.engine.backend import (
    Backend,
    Chunk,
    Interrupted,
    NoRoom,
    Sharing,
)
from llmdispatcher.vendors.llamacpp.engine.cells import Cells, Pool
from llmdispatcher.vendors.llamacpp.engine.drawing import draw, logprob_of, sampler_of
from llmdispatcher.vendors.llamacpp.engine.guessing import Guesser
from llmdispatcher.vendors.llamacpp.engine.inbox import EngineCall, Inbox, crashed
from llmdispatcher.vendors.llamacpp.engine.pace import Pace
from llmdispatcher.vendors.llamacpp.engine.prompts import Prompt, Prompts
from llmdispatcher.vendors.llamacpp.engine.relay import Relay
from llmdispatcher.vendors.llamacpp.engine.schedule import Scheduler, Step
from llmdispatcher.vendors.llamacpp.engine.sequence import Sequence

if TYPE_CHECKING:
    from llmdispatcher.models.request import Request
    from llmdispatcher.vendors.llamacpp.sight.vision import Projector
    from llmdispatcher.vendors.llamacpp.templates.template import ChatTemplate

PREPARE_S = 0.005
"""How long a step may spend on reading requests that have arrived, beyond the first of them."""


@attrs.frozen(kw_only=True)
class Loaded:
    """What an engine works with."""

    backend: Backend
    template: ChatTemplate
    parallel: int = 1
    """Sequences that may run at once."""
    guesses: bool = False
    """Whether to try guesses at the next tokens; the backend must have rows for them, and let
    slots be trimmed."""
    projector: Projector | None = None
    """What lets the model see images."""
    keep_cells: int = 2**31
    """See ``cells.Pool``."""
    scan_s: float = 0.0
    """Seconds that a kept cell takes of each token that is drawn; see ``Scheduler.keep_if``."""
    guard: Callable[[], None] = attrs.field(default=lambda: None)
    """Called before a request is let in; raises if serving it could end the process."""
    govern: Callable[[int, float], None] = attrs.field(default=lambda _tokens, _began_s: None)
    """Called after each decode with its tokens and when it began (monotonic seconds)."""


class EngineLoop:
    """Serves an inbox of calls with a backend. Made and stepped by one thread."""

    def __init__(self, loaded: Loaded, inbox: Inbox) -> None:
        backend = self._backend = loaded.backend
        self._prompts = Prompts(backend, loaded.template, loaded.projector)
        self._guard = loaded.guard
        self._govern = loaded.govern
        self._scan_s = loaded.scan_s
        self._inbox = inbox
        room = {"cells": backend.cells, "slots": backend.slots}
        pool = Pool(**room, sharing=backend.sharing, keep_cells=loaded.keep_cells)
        self._scheduler = Scheduler(
            Cells(backend, pool), parallel=loaded.parallel, batch_tokens=backend.batch_tokens
        )
        self._pace = Pace()
        self._guesser = Guesser() if loaded.guesses else None
        self._can_go_back = backend.sharing is Sharing.PREFIX
        """Whether what an interrupted step left in a slot can be taken back."""
        self._is_whole = self._was_interrupted = False
        self._unread: deque[EngineCall] = deque()
        """Calls that have arrived and are not turned into tokens yet."""
        self._sequences: dict[EngineCall, list[Sequence]] = {}
        self._number = 0
        self._relay = Relay()

    def step(self) -> bool:
        """Do the next piece of work; False if there is none.

        Raises EngineCrashed for a bug; one that a single request's preparation ran into, such as
        its template, is that request's error alone.
        """
        try:
            for job in self._inbox.jobs():
                job.do(self)
            self._arrive()
            self._drop_cancelled()
            self._admit()
            if self._guesser is not None:
                room = min(self._scheduler.free, self._backend.batch_tokens)
                self._guesser.guess(self._scheduler.running, room)
            step = self._scheduler.plan(self._most_read())
            if any(chunk.rows < len(chunk.tokens) for _, chunk in step):
                self._relay.fire()  # a step that reads may be long
            if step:
                self._decode(step)
            self._relay.tell(self._waiting, idle=not step)
        except Exception as bug:  # no caller may wait for ever
            if isinstance(bug, DispatcherError):
                raise
            raise crashed(bug) from bug
        return bool(step or self._unread)

    def trim(self) -> None:
        """Forget finished conversations."""
        while self._scheduler.give_up_kept():
            pass

    def close(self, error: DispatcherError) -> None:
        """Fail every call that has not ended and give the memory back."""
        for sequences in self._sequences.values():
            for sequence in sequences:
                _close(sequence)
        for call in self._inbox.drain():
            self._relay.fail(call, error)
        self._relay.fire()
        self._backend.close()

    def save(self, request: Request) -> tuple[list[int], bytes]:
        """Return the part of a conversation that is decoded: its tokens, and what they became.

        Raises Unsupported for what cannot be saved, and LimitReached while all slots run.
        """
        prompt = self._prompts.read(request)
        if prompt.pictures or request.adapters:
            raise Unsupported("state", "a conversation with images or adapters cannot be saved")
        return self._scheduler.save(prompt.tokens, self._backend.save)

    def restore(self, tokens: list[int], data: bytes) -> bool:
        """Keep a conversation that ``save`` returned, in another life; False if it has no room."""
        if len(tokens) >= self._backend.context_tokens:
            raise ContextOverflow(len(tokens) + 1, self._backend.context_tokens)
        back, count = self._backend, len(tokens)
        return self._scheduler.restore(tokens, lambda slot: back.restore(slot, data, count))

    def count(self, request: Request) -> int:
        """Return how many tokens its prompt is. Raises a RequestError for one that is wrong."""
        return len(self._prompts.read(request).tokens)

    def _arrive(self) -> None:
        """Turn what has arrived into tokens; much of it over several steps."""
        self._unread.extend(self._inbox.take())
        until = time.monotonic() + PREPARE_S
        while self._unread:
            call = self._unread.popleft()
            if call.is_cancelled():
                self._inbox.done(call)
            else:
                self._prepare(call)
            if time.monotonic() >= until:
                break

    def _prepare(self, call: EngineCall) -> None:
        """Queue a request's sequences; errors are the caller's, not the engine's."""
        try:
            self._guard()
            prompt = self._prompts.read(call.request)
        except DispatcherError as error:
            self._fail(call, error)
        except Exception as bug:  # noqa: BLE001 - a stranger's template, or a bug: this caller's
            self._fail(call, crashed(bug))
        else:
            call.prompt_tokens = len(prompt.tokens)
            made = [self._sequence(call, index, prompt) for index in range(call.request.n)]
            if prompt.constraint is not None:
                prompt.constraint.close()
            self._sequences[call] = made
            for sequence in made:
                self._scheduler.waiting.push(sequence)

    def _sequence(self, call: EngineCall, index: int, prompt: Prompt) -> Sequence:
        """Make one of the replies that a request asks for."""
        request = call.request
        room = self._backend.context_tokens - len(prompt.tokens)
        sequence = Sequence(call, index, prompt.tokens, min(request.max_tokens or room, room))
        sequence.voice = prompt.voice(index)
        sequence.pictures = prompt.pictures
        sequence.constraint = prompt.constraint.copy() if prompt.constraint is not None else None
        sequence.adapters = request.adapters
        sequence.priority = request.priority
        sequence.exact = request.sampling.seed is not None and request.n == 1
        limit_s = request.deadlines.total_s if request.deadlines else None
        sequence.deadline_s = math.inf if limit_s is None else time.monotonic() + limit_s
        self._number += index == 0
        sequence.number = self._number
        return sequence

    def _admit(self) -> None:
        """Let in all that fit."""
        while (sequence := self._scheduler.admit()) is not None:
            call = sequence.call
            if not call.runs:
                call.runs, call.cached_tokens = True, sequence.position
            if sequence.sampler is None:  # it was not preempted, but begins
                sequence.sampler = sampler_of(self._backend, sequence)
            self._weigh_kept()

    def _weigh_kept(self) -> None:
        """Decide whether prefixes are kept, as often as somebody begins or ends."""
        if self._pace.token_s:
            self._scheduler.keep_if(self._pace.token_s, self._scan_s)

    def _most_read(self) -> int:
        """Return how many tokens of prompts the next step may read beside others.

        Where nobody draws, and so nobody stutters, a whole batch, which is read fastest. Such a
        step is interrupted as soon as anybody in it is cancelled, and read again without that one;
        the next is short, so that many who cancel cannot keep the others from getting on.
        """
        drawing = sum(not sequence.is_reading for sequence in self._scheduler.running)
        self._is_whole = not drawing and self._can_go_back and not self._was_interrupted
        self._was_interrupted = False
        return self._backend.batch_tokens if self._is_whole else self._pace.tokens(drawing)

    def _decode(self, step: Step) -> None:
        """Decode a step, and draw where the last known token was decoded."""
        calls = {sequence.call: None for sequence, _ in step}
        self._inbox.decoding(calls, stops_for_any=self._is_whole)
        began_s = time.monotonic()
        try:
            self._backend.adapt(step[0][0].adapters)
            self._backend.decode([chunk for _, chunk in step])
        except Interrupted:
            self._was_interrupted = True
            self._interrupted(step)
            return
        except NoRoom:
            self._make_room(step)
            return
        finally:
            self._inbox.decoding(())
        took_s = time.monotonic() - began_s
        self._learn(step, began_s, took_s)
        self._scheduler.done(step)
        row = 0
        for sequence, chunk in step:
            if not chunk.rows:
                call = sequence.call
                done = min(sequence.position, call.prompt_tokens)
                self._relay.put(call, Progress("prompt", done, call.prompt_tokens))
            elif sequence.slot >= 0:  # or another reply to the same request failed just now
                self._draw(sequence, chunk, row)
            row += chunk.rows
        if self._guesser is not None:
            self._guesser.learn(step, time.monotonic() - began_s)

    def _interrupted(self, step: Step) -> None:
        """Let those go that nobody wants, and the others begin again where that is needed."""
        for sequence, _ in step:
            if sequence.call.is_cancelled():
                self._end(sequence, keep=self._can_go_back)
        if self._backend.sharing is Sharing.WHOLE:
            self._scheduler.begin_again()

    def _learn(self, step: Step, began_s: float, took_s: float) -> None:
        """Let the pace and the number of threads follow what the step took."""
        drawing = sum(chunk.rows == len(chunk.tokens) for _, chunk in step)
        count = sum(len(chunk.tokens) for _, chunk in step)
        if step[0][1].picture is None and all(chunk.rows <= 1 for _, chunk in step):
            self._pace.note(drawing, count - drawing, took_s)
        self._govern(count, began_s)

    def _make_room(self, step: Step) -> None:
        """Do what can be done if llama.cpp finds no cells though by our count there are."""
        if self._scheduler.give_up_kept():
            return
        if len(self._scheduler.running) > 1:
            self._scheduler.is_full = True
            self._scheduler.preempt()
            return
        raise EngineCrashed(f"no cells for {len(step[0][1].tokens)} tokens in an empty cache")

    def _draw(self, sequence: Sequence, chunk: Chunk, row: int) -> None:
        """Draw the next token, or several where guesses were right, and hand over what they say."""
        try:
            tokens = draw(self._backend, sequence, chunk, row)
        except DispatcherError as error:
            if chunk.rows > 1:
                sequence.accepted = 0
                self._backend.trim(sequence.slot, sequence.position)
            self._fail(sequence.call, error)
            return
        is_over = self._backend.ends(tokens[-1])
        said = tokens[:-1] if is_over else tokens
        sequence.tokens += said
        if chunk.rows > 1:
            sequence.accepted = len(tokens) - 1
            self._scheduler.guessed(sequence, sequence.accepted)
            self._backend.trim(sequence.slot, sequence.position)
        for at, token in enumerate(said, row):
            self._say(sequence, token, at)
            if sequence.slot < 0:
                return
        if is_over:
            self._finish(sequence, FinishReason.STOP)

    def _say(self, sequence: Sequence, token: int, row: int) -> None:
        """Hand over what a token says, and see whether it is the last."""
        call, backend, voice = sequence.call, self._backend, sequence.voice
        call.completion_tokens += 1
        sequence.left -= 1
        told: tuple[TokenLogprob, ...] = ()
        if call.request.logprobs is not None:
            told = (logprob_of(backend, row, token, call.request.logprobs),)
        data = backend.piece(token, special=token in voice.shown)
        if not self._hear(call, lambda: voice.say(data, told)):
            return
        if voice.has_stopped:
            self._finish(sequence, FinishReason.STOP)
        elif sequence.left == 0:
            self._finish(sequence, FinishReason.LENGTH)

    def _hear(self, call: EngineCall, read: Callable[[], Delta | None]) -> bool:
        """Hand over what is read of a reply. A bug in that fails the call alone: then False."""
        try:
            delta = read()
        except Exception as bug:  # noqa: BLE001 - what one model's reply says ends no other
            self._fail(call, crashed(bug))
            return False
        if delta is not None:
            self._relay.put(call, delta)
        return True

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        """End one reply, and with the last one the call."""
        call = sequence.call
        if not self._hear(call, sequence.voice.end):
            return
        call.reasons[sequence.index] = sequence.voice.reason(reason)
        call.reasoning_tokens += sequence.voice.reasoning_tokens
        self._end(sequence)
        if len(call.reasons) < call.request.n:
            return
        warnings = self._prompts.warnings(call.request)
        first, *others = (call.reasons[index] for index in range(call.request.n))
        self._relay.put(call, Finish(first, call.usage(), warnings, tuple(others)))
        self._forget(call)

    def _end(self, sequence: Sequence, *, keep: bool = True) -> None:
        """Let a sequence go."""
        self._sequences[sequence.call].remove(sequence)
        self._weigh_kept()
        self._scheduler.end(sequence, keep=keep)
        _close(sequence)

    def _forget(self, call: EngineCall) -> None:
        """Let a call go, with what is left of it."""
        for sequence in list(self._sequences.get(call, ())):
            self._end(sequence)
        self._sequences.pop(call, None)
        self._inbox.done(call)

    def _fail(self, call: EngineCall, error: DispatcherError) -> None:
        self._relay.fail(call, error)
        self._forget(call)

    def _drop_cancelled(self) -> None:
        for call in self._inbox.cancelled():
            self._forget(call)

    def _waiting(self) -> Iterator[EngineCall]:
        """Go through the calls that wait, the next first."""
        queued = dict.fromkeys(sequence.call for sequence in self._scheduler.waiting)
        return chain(queued, self._unread)


def _close(sequence: Sequence) -> None:
    """Give back what a sequence holds of llama.cpp's."""
    for held in (sequence.sampler, sequence.constraint):
        if held is not None:
            held.close()
    sequence.sampler = sequence.constraint = None
