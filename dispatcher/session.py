"""A dispatcher at work on a terminal: answers, load progress, and what else happens on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Self

from llmdispatcher.facade import Dispatcher, Stream
from llmdispatcher.loadbar import PATIENCE_S, LoadBar
from llmdispatcher.models.event import Event, Fallback, LoadProgress
from llmdispatcher.models.reply import FinishReason, Reply
from llmdispatcher.vendors.contract import State, VendorSpec

if TYPE_CHECKING:
    from llmdispatcher.ledger import Ledger
    from llmdispatcher.listener import OnEvent
    from llmdispatcher.models.request import Options, Prompt
    from llmdispatcher.terminal import Terminal


class Session:
    """Asks a dispatcher and shows on a terminal what comes of it."""

    def __init__(  # noqa: PLR0913 - what is beside the words, each by its name
        self,
        terminal: Terminal,
        vendors: Sequence[VendorSpec],
        options: Options,
        *,
        ledger: Ledger | None = None,
        verbose: bool = False,
        opener: Callable[[OnEvent], Dispatcher] | None = None,
    ) -> None:
        """``ledger`` is closed with the session. ``opener`` makes the dispatcher instead."""
        self.terminal = terminal
        self._options = options
        self._verbose = verbose
        self._bar: LoadBar | None = None
        self._stream: Stream | None = None
        self._ledger = ledger
        if opener is None:
            self._dispatcher = Dispatcher(*vendors, on_event=self._hear, ledger=ledger)
        else:
            self._dispatcher = opener(self._hear)
        if self.is_demo and options.get("temperature") is None:
            # The demo model is sure of what it knows and guesses the rest: drawing anything but
            # the likeliest token can only make its answers worse.
            self._options = {**options, "temperature": 0.0}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._dispatcher.close()
        finally:
            if self._ledger is not None:
                self._ledger.close()

    @property
    def is_demo(self) -> bool:
        """Whether nothing but models of last resort, such as the embedded one, can answer."""
        cards = [card for vendor in self._dispatcher.vendors() for card in vendor.cards]
        return bool(cards) and all(card.last_resort for card in cards)

    @property
    def partial(self) -> str:
        """What was shown of the last answer."""
        return "" if self._stream is None else self._stream.partial

    def show(self, prompt: Prompt) -> Reply:
        """Write the answer to stdout while it comes, and what there is to tell about it after it.

        Raises DispatcherError, OutputFailed, and BrokenPipeError where nobody reads on.
        """
        self._stream = None
        with self._dispatcher.stream(prompt, **self._options) as stream, self._progress():
            self._stream = stream
            for delta in stream:
                if self._bar is not None:
                    self._bar.stop()
                if delta.index == 0:
                    self.terminal.write(delta.text)
        reply = stream.reply
        if not reply.text:
            self.terminal.write("\n")
        self.terminal.end_line()
        self._comment(reply)
        return reply

    def fetch(self, prompt: Prompt) -> Reply:
        """Return the whole answer without showing it. Raises DispatcherError."""
        with self._progress():
            reply = self._dispatcher.send(prompt, **self._options)
        self._comment(reply)
        return reply

    def is_full(self, reply: Reply) -> bool:
        """Whether the answer was cut by the model's limit, not by the one asked for."""
        asked = self._options.get("max_tokens")
        cut = reply.finish_reason is FinishReason.LENGTH
        return cut and (asked is None or reply.usage.completion_tokens < asked)

    def _progress(self) -> LoadBar | nullcontext[None]:
        """Show the loading of models, if there is somebody to see it."""
        self._bar = LoadBar(self._loading) if self.terminal.notes_tty else None
        return self._bar or nullcontext()

    def _loading(self) -> str | None:
        """Name the model that is being loaded now, if one is."""
        for vendor in self._dispatcher.vendors():
            if vendor.status.state in {State.LOADING, State.RESTARTING}:
                return vendor.cards[0].model if vendor.cards else vendor.name
        return None

    def _hear(self, event: Event) -> None:
        """Take an event, from whichever thread."""
        match event:
            case LoadProgress():
                if self._bar is not None:
                    self._bar.hear(event)
                if self._verbose and event.fraction == 1 and event.elapsed_s > PATIENCE_S:
                    name = f"{event.vendor}/{event.model}"
                    self.terminal.note(f"loaded {name} in {event.elapsed_s:.1f} s")
            case Fallback() if self._verbose:
                self.terminal.note(f"{event.failed} failed ({event.reason}); asking {event.next}")

    def _comment(self, reply: Reply) -> None:
        for warning in reply.warnings:
            self.terminal.note(f"warning: {warning}")
        if self.is_full(reply):
            self.terminal.note("the answer was cut at the model's limit; --context N may raise it")
        if self._verbose:
            self.terminal.note(figures(reply))


LEAST_WRITING_S = 0.05
"""Tokens that follow the first one sooner than this show how threads take turns, not a speed."""

SLOW = 10
"""Tokens per second below which the tenths are told."""


def _speed(reply: Reply, first_s: float) -> float:
    """Return tokens per second of writing; of an answer too short to tell, of the whole answer."""
    tokens, whole_s = reply.usage.completion_tokens, reply.decision.attempts[-1].latency_s
    if whole_s - first_s >= LEAST_WRITING_S:
        return (tokens - 1) / (whole_s - first_s)
    return tokens / max(whole_s, 1e-9)


def figures(reply: Reply) -> str:
    """Say in one line what an answer used, how fast it came and what it cost."""
    usage, first_s = reply.usage, reply.first_token_s
    about = "about " if usage.estimated else ""
    parts = [f"{about}{usage.prompt_tokens} prompt + {usage.completion_tokens} tokens"]
    if first_s is not None:
        parts.append(f"{first_s:.2f} s to first token")
        speed = _speed(reply, first_s)
        parts.append(f"{speed:.{0 if speed >= SLOW else 1}f} tokens/s")
    cost = reply.cost_usd
    parts.append("cost not known" if cost is None else f"${cost:f}")
    return f"{', '.join(parts)} ({reply.vendor}/{reply.model})"
