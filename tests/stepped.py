"""The engine's loop without its thread: steps are taken when a test says so."""

from __future__ import annotations

from pathlib import Path

from llmdispatcher.models.errors import DispatcherError, Refused
from llmdispatcher.models.reply import Delta, Finish, Piece
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.llamacpp.binding.native import NativeBackend
from llmdispatcher.vendors.llamacpp.binding.opening import Setup
from llmdispatcher.vendors.llamacpp.engine.engine import EngineLoop, Loaded
from llmdispatcher.vendors.llamacpp.engine.inbox import EngineCall, Inbox
from llmdispatcher.vendors.llamacpp.engine.pace import Pace
from llmdispatcher.vendors.llamacpp.files import gguf
from llmdispatcher.vendors.llamacpp.templates.template import ChatTemplate


def backend_of(path: Path, **fields: object) -> NativeBackend:
    """Load a model; ``fields`` are those of ``opening.Setup``."""
    settings: dict[str, object] = {
        "context_tokens": 512,
        "cells": 512,
        "slots": 8,
        "batch_tokens": 64,
        "threads": 1,
        "gpu_layers": 0,
        "cache_type": "f32",
    }
    settings |= fields
    setup = Setup(path=str(path), **settings)  # type: ignore[arg-type]
    return NativeBackend(setup, lambda _: True)


class Steady(Pace):
    """Takes each step to last as long as its tokens say, so that no clock decides how it is cut."""

    def note(self, drawing: int, reading: int, took_s: float) -> None:
        """Learn from what a step takes on some machine, not from what it took on this."""
        del took_s
        super().note(drawing, reading, 0.001 + 0.0005 * reading)


class Stepped:
    """An engine on a real model, stepped by hand."""

    def __init__(
        self, path: Path, *, parallel: int = 4, keep_cells: int = 2**31, **fields: object
    ) -> None:
        """``fields`` are those of ``opening.Setup``; rows for guesses mean that it guesses."""
        self.backend = backend_of(path, **fields)
        self.template = ChatTemplate(gguf.read_header(path).chat_template)
        self.inbox = Inbox()
        self.loop = EngineLoop(
            Loaded(
                backend=self.backend,
                template=self.template,
                parallel=parallel,
                keep_cells=keep_cells,
                guesses=bool(fields.get("more_rows")),
            ),
            self.inbox,
        )
        self.loop._pace = Steady()
        self.inbox.attach(lambda on: self.backend.interrupt(on=on))

    def submit(self, request: Request) -> EngineCall:
        """Queue a request."""
        call = EngineCall(request, self.inbox.cancel)
        self.inbox.submit(call)
        return call

    def run(self, limit: int = 100_000) -> int:
        """Step until nothing is left to do; returns the number of steps."""
        for count in range(limit):
            if not self.loop.step():
                return count
        raise AssertionError(f"the engine is not done after {limit} steps")

    def ask(self, request: Request) -> str:
        """Serve one request alone."""
        call = self.submit(request)
        self.run()
        return text_of(pieces_of(call))

    def close(self) -> None:
        """Give the memory back."""
        self.inbox.close()
        self.loop.close(Refused("the test is over"))


def pieces_of(call: EngineCall) -> list[Piece]:
    """Take what a call has been given until now; raises the error that ended it."""
    pieces: list[Piece] = []
    while not any(isinstance(piece, Finish) for piece in pieces):
        try:
            pieces += call.receive(0.0)
        except TimeoutError:
            break
    return pieces


def text_of(pieces: list[Piece], index: int = 0) -> str:
    """Join the text of one of the replies to a request."""
    return "".join(p.text for p in pieces if isinstance(p, Delta) and p.index == index)


def ending(call: EngineCall) -> Finish | DispatcherError | None:
    """Return how a call ended, if it has."""
    try:
        pieces = pieces_of(call)
    except DispatcherError as error:
        return error
    return next((piece for piece in pieces if isinstance(piece, Finish)), None)
