"""Run the same call in both worlds, so that one test holds for threads and for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import attrs

from llmdispatcher import AsyncDispatcher, Delta, Dispatcher, Reply, Stats


@attrs.frozen
class Heard:
    """What a call came to: its pieces, its reply or its error, and the books afterwards."""

    deltas: tuple[Delta, ...]
    reply: Reply | None
    error: Exception | None
    stats: Stats

    @property
    def pieces(self) -> tuple[str, ...]:
        """The text of each delta."""
        return tuple(delta.text for delta in self.deltas)

    @property
    def text(self) -> str:
        """The pieces, joined."""
        return "".join(self.pieces)


class World(Protocol):
    """Makes a dispatcher, makes one call, closes it."""

    def __call__(self, vendors: tuple[Any, ...], verb: str, prompt: Any, **options: Any) -> Heard:
        """Call ``verb`` with the prompt; options of the dispatcher are among the others."""


def in_threads(vendors: tuple[Any, ...], verb: str, prompt: Any, **options: Any) -> Heard:
    """Call a ``Dispatcher``."""
    made, options = _split(options)
    with Dispatcher(*vendors, **made) as d:
        deltas: list[Delta] = []
        reply = error = None
        try:
            if verb == "send":
                reply = d.send(prompt, **options)
            else:
                with d.stream(prompt, **options) as stream:
                    deltas.extend(stream)
                    reply = stream.reply
        except Exception as raised:  # noqa: BLE001 - the test looks at it
            error = raised
        return Heard(tuple(deltas), reply, error, d.stats())


def in_asyncio(vendors: tuple[Any, ...], verb: str, prompt: Any, **options: Any) -> Heard:
    """Call an ``AsyncDispatcher``."""
    made, options = _split(options)

    async def call() -> Heard:
        async with AsyncDispatcher(*vendors, **made) as d:
            deltas: list[Delta] = []
            reply = error = None
            try:
                if verb == "send":
                    reply = await d.send(prompt, **options)
                else:
                    async with d.stream(prompt, **options) as stream:
                        async for delta in stream:
                            deltas.append(delta)  # noqa: PERF401 - kept when it raises
                        reply = stream.reply
            except Exception as raised:  # noqa: BLE001 - the test looks at it
                error = raised
            return Heard(tuple(deltas), reply, error, d.stats())

    return asyncio.run(call())


def _split(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    made: dict[str, Any] = {name: options.pop(name) for name in _OF_MAKING if name in options}
    return made, options


_OF_MAKING = ("on_event", "catalog", "retry", "breaker", "limits", "ledger", "cache")
"""Options of a dispatcher, and not of its verbs."""


WORLDS: dict[str, Callable[..., Heard]] = {"threads": in_threads, "asyncio": in_asyncio}
