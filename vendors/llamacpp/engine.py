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

REUSE_TOKENS = 64
"""A prompt that begins like the last one is read from where it differs, if that saves so many
tokens. Saving fewer is not worth that the text of short prompts, which is the same every time,
could depend on what was asked before: reading in other pieces rounds differently."""

RELAY_S = 0.004
"""Consumers are woken at most this often while text flows, and at once for a first piece and an
end. Waking a thread costs more than making a token of a small model: one wake-up for each token
added 26 µs to every token, one for each 4 ms adds 11, and 10 ms gained nothing more."""

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
        self._decoded: list[int] = []
        """What the backend holds when no request is being served."""
        self._wakers: list[Waker | None] = []
        self._urgent = False
        self._fired_at = 0.0
        self._heartbeat_at = 0.0

    def step(self) -> bool:
        """Do the next piece of work; False if there is none."""
        if self._sequence is None:
            call = self._inbox.next()
            if call is None:
                return False
            self._begin(call)
        else:
            self._advance(self._sequence)
        now = time.monotonic()
        self._beat(now)
        if self._urgent or now - self._fired_at >= RELAY_S:
            wakers, self._wakers = self._wakers, []
            self._urgent, self._fired_at = False, now
            fire(wakers)
        return True

    def close(self, error: DispatcherError) -> None:
        """End every call with an error and give the memory back."""
        if self._sequence is not None:
            self._end(self._sequence, error)
        fire([*self._wakers, *(call.box.fail(error) for call in self._inbox.drain())])
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
        sequence.sampler = backend.sampler(drawn, seed, tokens[-window:] if window else ())
        sequence.position = call.cached_tokens = self._reuse(tokens)
        return sequence

    def _reuse(self, tokens: list[int]) -> int:
        """Keep what the backend holds of these tokens, and return how many that is."""
        most = len(tokens) - 1  # the last one must be decoded: what follows is drawn from it
        pairs = zip(tokens[:most], self._decoded, strict=False)
        same = next((at for at, (a, b) in enumerate(pairs) if a != b), None)
        if same is None:
            same = min(most, len(self._decoded))
        self._decoded = []
        return same if same >= REUSE_TOKENS and self._backend.keep(same) else self._forget()

    def _forget(self) -> int:
        self._backend.keep(0)
        return 0

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
        # A decode that was interrupted or failed may have left a part of itself behind it.
        if self._backend.keep(sequence.position):
            self._decoded = sequence.tokens[: sequence.position]
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


class EngineThread:
    """A thread around ``EngineLoop``: load, step until closed, give the memory back."""

    def __init__(self, load: Loader, name: str) -> None:
        self.inbox = Inbox()
        self.loaded: Future[None] = Future()
        self._load = load
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.loaded.set_running_or_notify_cancel()  # from here on nobody can cancel the load
        self._thread.start()

    def submit(self, request: Request) -> EngineCall:
        """Queue a request."""
        if os.getpid() != self._pid:
            raise EngineCrashed(
                "this process was forked after the model was loaded, and llama.cpp does not"
                " survive that: make a new Dispatcher in the child"
            )
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

    def _run(self) -> None:
        error: DispatcherError = Refused(CLOSED)
        loop: EngineLoop | None = None
        try:
            made = self._load(lambda: not self.inbox.closing)
            loop = EngineLoop(made, self.inbox)
            self.inbox.attach(lambda on: made.backend.interrupt(on=on))
            self.loaded.set_result(None)
            while self.inbox.wait():
                while loop.step() and not self.inbox.closing:
                    pass
        except DispatcherError as raised:
            error = error if self.inbox.closing else raised
        except Exception as bug:  # noqa: BLE001 - whatever it is, no caller may wait for ever
            _log.exception("the engine's thread died")
            error = EngineCrashed(f"a bug in the engine: {type(bug).__name__}: {bug}")
        finally:
            self.inbox.close()
            self.inbox.attach(None)
            if loop is not None:
                loop.close(error)
            if not self.loaded.done():
                self.loaded.set_exception(error)
