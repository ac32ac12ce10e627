"""The command line over scripted vendors: ``python program.py SCRIPT ask …``. Started by tests."""

from __future__ import annotations

import os
import sys
from concurrent.futures import Future
from pathlib import Path

from llmdispatcher import (
    ContentRefused,
    ContextOverflow,
    ExecutableNotFound,
    Price,
    RateLimited,
    Request,
    Scripted,
    Unsupported,
)
from llmdispatcher.cli import main
from llmdispatcher.models.event import LoadProgress
from llmdispatcher.models.reply import Finish, FinishReason, Usage
from llmdispatcher.vendors.contract import Report, VendorSpec
from llmdispatcher.vendors.scripted import ScriptedEngine

FEW_BYTES = 60
"""Context of the forgetful vendor."""


def told(request: Request) -> str:
    """Repeat a conversation."""
    return " | ".join(f"{message.role}: {message.text}" for message in request.messages)


def forgetful(request: Request) -> str | ContextOverflow:
    """Repeat a conversation, if it is short."""
    if request.text_bytes > FEW_BYTES:
        return ContextOverflow(request.text_bytes, FEW_BYTES)
    return told(request)


def stoppable(request: Request) -> str | list[str | float]:
    """Fall silent after the words that were asked for first, and repeat the conversation then."""
    return once(request.messages[0].text) if len(request.messages) == 1 else told(request)


def mute(request: Request) -> str | list[str | float]:
    """Fall silent when asked to, and repeat the conversation otherwise."""
    return once("") if request.messages[-1].text == "hush" else told(request)


def drawn(request: Request) -> str:
    """Say what was asked for besides the text."""
    return f"{request.sampling.given()} {request.max_tokens} {list(request.stop)} {request.prompt}"


def full(request: Request) -> list[str | Finish]:
    """Repeat a conversation, as if it had filled the context."""
    return [told(request), Finish(FinishReason.LENGTH, Usage(completion_tokens=3))]


def broken(_: Request) -> str:
    """Be wrong."""
    raise ZeroDivisionError("a bug")


class HalfwayEngine(ScriptedEngine):
    """Says that half of the model is loaded as soon as loading begins."""

    def load(self, model: str) -> Future[None]:
        """Load as scripted."""
        half = LoadProgress(vendor="scripted", model=model, fraction=0.5, elapsed_s=0.0)
        self._report(half)
        return super().load(model)


class Halfway:
    """A vendor whose model is never more than half there."""

    name = "scripted"

    def start(self, report: Report) -> HalfwayEngine:
        """Make the engine."""
        return HalfwayEngine(Scripted("Hello.", load_s=100), report)


class HeldEngine(ScriptedEngine):
    """Its model is loaded as soon as there is a file, which a test makes."""

    def _load(self, loaded: Future[None], model: str) -> None:
        file = Path(os.environ["LOADED_WHEN"])
        while not (file.exists() or self._closing.wait(0.01)):
            pass
        super()._load(loaded, model)


class Held:
    """A vendor whose model is loaded when a test says so."""

    name = "scripted"

    def start(self, report: Report) -> HeldEngine:
        """Make the engine."""
        return HeldEngine(Scripted("Hello."), report)


def once(text: str) -> list[str | float]:
    """Say something, then fall silent for longer than any test runs."""
    return [text, 100.0]


VENDORS: dict[str, tuple[VendorSpec, ...]] = {
    "hello": (Scripted("Hello."),),
    "demo": (Scripted("Hello.\n", name="embedded", last_resort=True),),
    "empty": (Scripted(""),),
    "controls": (Scripted("a\x1b[31mred\x9b0m\tb\r\n\x07é"),),
    "endless": (Scripted(["line\n"] * 1_000_000),),
    "silent": (Scripted(once("some words")),),
    "stoppable": (Scripted(stoppable),),
    "mute": (Scripted(mute),),
    "slow_load": (Scripted("Hello.", load_s=1.5),),
    "halfway": (Halfway(),),
    "held_load": (Held(),),
    "never_loads": (Scripted("Hello.", load_s=100),),
    "fallback": (Scripted(RateLimited("too\nfast"), name="a"), Scripted("Hello.", name="b")),
    "failing": (Scripted(RateLimited("too\nfast"), name="a"),),
    "all_failing": (Scripted(RateLimited("no"), name="a"), Scripted(RateLimited("no"), name="b")),
    "unsupported": (Scripted(Unsupported("tools", "it has no tools")),),
    "no_engine": (Scripted("", load_error=ExecutableNotFound("run: pip install engine")),),
    "incapable": (Scripted("", capabilities=()),),
    "cut": (Scripted(["half a ", RateLimited("gone")]),),
    "echo": (Scripted(told),),
    "recover": (Scripted(ContentRefused("busy"), "back again"),),
    "forgetful": (Scripted(forgetful),),
    "full": (Scripted(full),),
    "drawn": (Scripted(drawn),),
    "demo_drawn": (Scripted(drawn, name="embedded", last_resort=True),),
    "broken": (Scripted(broken),),
    "priced": (Scripted("Hello.", price=Price.per_million(1000, 2000)),),
    "unpriced": (Scripted("Hello.", price=None),),
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:], vendors=VENDORS[sys.argv[1]]))
