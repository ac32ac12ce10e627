"""The engine: one thread that owns a loaded model and serves requests on it, step by step.

``step`` does a bounded piece of work (one prompt chunk or one token of one request) and can be
called without the thread. All state of the model and of the running request belongs to whoever
calls ``step``; other threads only put calls into the inbox and set flags. Requests are served one
at a time, in order of arrival.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from copy import copy
from typing import TYPE_CHECKING

import attrs

from llmdispatcher.models.errors import (
    ContextOverflow,
    DispatcherError,
    EngineCrashed,
    Refused,
)
from llmdispatcher.models.reply import Delta, Finish, FinishReason, Piece, Progress
from llmdispatcher.models.request import MAX_SEED, Request
from llmdispatcher.vendors.llamacpp.backend import Backend, Interrupted, Sampler
from llmdispatcher.vendors.llamacpp.inbox import CLOSED, EngineCall, Inbox
from llmdispatcher.vendors.llamacpp.sampling import DEFAULTS
from llmdispatcher.vendors.llamacpp.text import TextStream
from llmdispatcher.vendors.mailbox import Waker, fire

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.template import ChatTemplate

STACK_BYTES = 64 * 1024 * 1024
"""Of the engine's thread; address space, of which only what is used becomes memory. Enough for
``native.MAX_RUN`` characters, with a quarter to spare."""

RELAY_S = 0.004
"""Consumers are woken at most this often while text flows, and at once for a first piece and an
end. Waking a thread for each token takes a good part of the time that a small model needs to make
it (``bench/single_stream.py`` shows what is left); 4 ms is not seen by a reader."""

HEARTBEAT_S = 1.0
"""How often a waiting request is told that the engine is alive."""

CLOSE_S = 10.0
"""How long ``close`` waits for the thread; a step in progress is interrupted, so it is quick."""

_log = logging.getLogger("llmdispatcher.llamacpp")


Stops = tuple[str, ...]


class Sequence:
    """The request that is being served: its tokens, its sampler, its text."""

    def __init__(self, call: EngineCall, prompt: list[int], limit: int, stops: Stops) -> None:
        self.call = call
        self.tokens = prompt
        """The prompt, and what was drawn after it."""
        self.position = 0
        """How many of the tokens are decoded."""
        self.left = limit
        """Tokens that may still be generated."""
        self.text = TextStream(stops)
        self.sampler: Sampler | None = None


@attrs.frozen
class Loaded:
    """What an engine works with."""

    backend: Backend
    template: ChatTemplate
    govern: Callable[[int, float], None] = attrs.field(default=lambda _tokens, _began_s: None)
    """Called after each decode with its tokens and when it began (monotonic seconds)."""


Loader = Callable[[Callable[[], bool]], Loaded]
"""Loads the model in the engine's thread; its argument says whether to go on."""


class EngineLoop:
    """Serves an inbox of calls with a backend. Made and stepped by one thread."""

    def __init__(self, loaded: Loaded, inbox: Inbox) -> None:
        self._backend = loaded.backend
        self._template = loaded.template
        self._govern = loaded.govern
        self._inbox = inbox
        self._sequence: Sequence | None = None
        self._read: list[int] = []
        """What the backend holds of the last prompt while no request is being served."""
        self._wakers: list[Waker | None] = []
        self._urgent = False
        self._fired_at = 0.0
        self._heartbeat_at = 0.0

    def step(self) -> bool:
        """Do the next piece of work; False if there is none.

        Raises EngineCrashed for a bug; one that a single request's preparation ran into, such as
        its template, is that request's error alone.
        """
        call: EngineCall | None = None
        try:
            if self._sequence is not None:
                self._advance(self._sequence)
            elif call := self._inbox.next():
                self._begin(call)
            else:
                return False
            self._tell()
        except Exception as bug:  # a template of a stranger, or a bug: no caller may wait for ever
            _log.exception("a bug in the engine")
            error = EngineCrashed(f"a bug in the engine: {type(bug).__name__}: {bug}")
            if call is None or self._sequence is not None:
                raise error from bug
            self._fail(call, error)
            self._inbox.done(call)
            self._tell()
        return True

    def _tell(self) -> None:
        """Wake those for whom there is something, if it is time."""
        now = time.monotonic()
        self._beat(now)
        if self._urgent or now - self._fired_at >= RELAY_S:
            wakers, self._wakers = self._wakers, []
            self._urgent, self._fired_at = False, now
            fire(wakers)

    def close(self, error: DispatcherError) -> None:
        """End every call with an error and give the memory back."""
        if self._sequence is not None:
            self._end(self._sequence, error)
        fire([*self._wakers, *(call.box.fail(copy(error)) for call in self._inbox.drain())])
        self._backend.close()

    def _begin(self, call: EngineCall) -> None:
        """Turn a request into tokens and a sampler; errors are the caller's, not the engine's."""
        try:
            self._sequence = self._prepared(call)
        except DispatcherError as error:
            self._fail(call, error)
            self._inbox.done(call)

    def _prepared(self, call: EngineCall) -> Sequence:
        request, backend = call.request, self._backend
        chat = request.prompt is None
        text = request.prompt or ""
        if chat:
            text = self._template.render(
                request.messages, request.tools, bos=backend.bos, eos=backend.eos
            )
        tokens = backend.tokenize(text)
        if not tokens:
            tokens = backend.tokenize(" ")  # llama.cpp needs a token to begin with
        room = backend.context_tokens - len(tokens)
        if room < 1:
            raise ContextOverflow(len(tokens) + 1, backend.context_tokens)
        call.prompt_tokens = len(tokens)
        stops = (*request.stop, *self._template.stops) if chat else request.stop
        sequence = Sequence(call, tokens, min(request.max_tokens or room, room), stops)
        drawn = request.sampling
        seed = secrets.randbelow(MAX_SEED + 1) if drawn.seed is None else drawn.seed
        window = DEFAULTS.repeat_last_n if drawn.repeat_last_n is None else drawn.repeat_last_n
        window = min(window or 0, backend.context_tokens)  # llama.cpp allocates all that is asked
        drawn = attrs.evolve(drawn, repeat_last_n=window)
        sequence.sampler = backend.sampler(drawn, seed, tokens[-window:] if window else ())
        sequence.position = call.cached_tokens = self._reuse(tokens)
        return sequence

    def _reuse(self, tokens: list[int]) -> int:
        """Keep whole batches that the backend has read of this prompt, and return their tokens.

        Only whole ones: then the rest is read in the very pieces in which it would be read from
        the start, every sum is rounded alike, and no answer depends on what was asked before.
        """
        size, same = self._backend.batch_tokens, 0
        most = min(len(tokens) - 1, len(self._read))  # the last one must be decoded, to draw from
        while same + size <= most and tokens[same : same + size] == self._read[same : same + size]:
            same += size
        self._read = []
        return same if self._backend.keep(same) else 0

    def _advance(self, sequence: Sequence) -> None:
        """Decode what is known and not decoded, a batch at most; draw when all of it is."""
        call = sequence.call
        if call.is_cancelled():
            self._end(sequence, None)
            return
        at = sequence.position
        tokens = sequence.tokens[at : at + self._backend.batch_tokens]
        began_s = time.monotonic()
        try:
            self._backend.decode(tokens, at)
        except Interrupted:
            self._end(sequence, None if call.is_cancelled() else Refused(CLOSED))
            return
        except DispatcherError as error:
            self._end(sequence, error)
            return
        self._govern(len(tokens), began_s)
        sequence.position += len(tokens)
        if sequence.position < call.prompt_tokens:
            self._put(call, Progress("prompt", sequence.position, call.prompt_tokens))
        else:
            self._draw(sequence)

    def _draw(self, sequence: Sequence) -> None:
        """Draw a token and hand over what text it completes."""
        assert sequence.sampler is not None  # noqa: S101 - for the type checker; set in _prepared
        token = sequence.sampler.sample()
        call = sequence.call
        if self._backend.ends(token):
            self._finish(sequence, FinishReason.STOP)
            return
        call.completion_tokens += 1
        sequence.left -= 1
        self._put_text(call, sequence.text.feed(self._backend.piece(token)))
        sequence.tokens.append(token)
        if sequence.text.stopped is not None:
            self._finish(sequence, FinishReason.STOP)
        elif sequence.left == 0:
            self._finish(sequence, FinishReason.LENGTH)

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        call = sequence.call
        self._put_text(call, sequence.text.flush())
        chat = call.request.prompt is None
        warnings = (self._template.warning,) if chat and self._template.warning else ()
        self._put(call, Finish(reason, call.usage(), warnings))
        self._end(sequence, None)

    def _end(self, sequence: Sequence, error: DispatcherError | None) -> None:
        """Forget the sequence; what follows finds the backend idle, and nobody asleep."""
        self._sequence = None
        self._urgent = True
        size = self._backend.batch_tokens
        whole = min(sequence.position, sequence.call.prompt_tokens) // size * size
        if self._backend.keep(whole):
            self._read = sequence.tokens[:whole]
        if sequence.sampler is not None:
            sequence.sampler.close()
        if error is not None:
            self._fail(sequence.call, error)
        self._inbox.done(sequence.call)

    def _put_text(self, call: EngineCall, text: str) -> None:
        if text:
            self._urgent |= not call.has_text
            call.has_text = True
            self._put(call, Delta(text))

    def _put(self, call: EngineCall, piece: Piece) -> None:
        self._urgent |= isinstance(piece, Finish)
        self._wakers.append(call.box.put(piece))

    def _fail(self, call: EngineCall, error: DispatcherError) -> None:
        self._urgent = True
        self._wakers.append(call.box.fail(error))

    def _beat(self, now: float) -> None:
        """Tell those who wait that the engine is alive, now and then."""
        if now - self._heartbeat_at < HEARTBEAT_S:
            return
        self._heartbeat_at = now
        for ahead, call in enumerate(self._inbox.waiting(), 1):
            self._put(call, Progress("queued", 0, ahead))


_starting = threading.Lock()
"""The size of a new thread's stack is a setting of the process: one at a time."""


def _start(thread: threading.Thread) -> None:
    """Start a thread with a stack of STACK_BYTES."""
    with _starting:
        before = threading.stack_size(STACK_BYTES)
        try:
            thread.start()
        finally:
            threading.stack_size(before)


class EngineThread:
    """A thread around ``EngineLoop``: load, step until closed, give the memory back."""

    def __init__(self, load: Loader, name: str) -> None:
        self.inbox = Inbox()
        self.loaded: Future[None] = Future()
        self._load: Loader | None = load
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.loaded.set_running_or_notify_cancel()  # from here on nobody can cancel the load
        _start(self._thread)

    def has_ended(self) -> bool:
        """Whether it serves no more: closed, failed to load, or ended by a bug."""
        return self.inbox.closing and os.getpid() == self._pid

    def misused(self) -> DispatcherError | None:
        """Return why the caller must not wait for this thread, if so."""
        if os.getpid() != self._pid:
            return EngineCrashed(
                "this process was forked after the model began to load, and llama.cpp does not"
                " survive that: make a new Dispatcher in the child"
            )
        if threading.current_thread() is self._thread:
            return Refused("on_event must not ask the model that reports to it: it would wait")
        return None

    def submit(self, request: Request) -> EngineCall:
        """Queue a request."""
        if error := self.misused():
            raise error
        call = EngineCall(request, self.inbox.cancel)
        self.inbox.submit(call)
        return call

    def stop(self) -> None:
        """Tell the thread to end, without waiting for it."""
        if os.getpid() == self._pid:  # a forked child has a copy of the locks, but not the thread
            self.inbox.close()

    def join(self) -> None:
        """Wait for the thread to end, unless it is the caller."""
        if os.getpid() == self._pid and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_S)

    def _loaded(self) -> Loaded:
        """Load, and forget how: what was needed for it may lead back to a dropped dispatcher."""
        load, self._load = self._load, None
        if load is None:
            raise EngineCrashed("a model is loaded once by each thread")
        return load(lambda: not self.inbox.closing)

    def _run(self) -> None:
        error: DispatcherError = EngineCrashed("a bug in the engine while it loaded the model")
        loop: EngineLoop | None = None
        try:
            made = self._loaded()
            loop = EngineLoop(made, self.inbox)
            self.inbox.attach(lambda on: made.backend.interrupt(on=on))
            self.loaded.set_result(None)
            while self.inbox.wait():
                while loop.step() and not self.inbox.closing:
                    pass
            error = Refused(CLOSED)
        except DispatcherError as raised:
            error = Refused(CLOSED) if self.inbox.closing else raised
        finally:
            self.inbox.error = error
            self.inbox.close()
            self.inbox.attach(None)
            if loop is not None:
                loop.close(error)
            if not self.loaded.done():
                self.loaded.set_exception(error)
