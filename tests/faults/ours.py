"""llmdispatcher as the client of an exam of faults, for threads and for asyncio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from faults.exam import Client, Outcome, Pace
from faults.further import CRAWL

from llmdispatcher import (
    AsyncDispatcher,
    AsyncStream,
    BreakerPolicy,
    Deadlines,
    Dispatcher,
    DispatcherError,
    OpenAICompatible,
    Reply,
    Restarted,
    Stream,
)

RESUME = "restart"
"""What a request says about a stream that breaks in the middle: "restart" continues it on another
vendor where that can be done, and else begins anew, and says so."""

WISHES: dict[str, Any] = {"resume": RESUME}
"""Options of every request, beside the deadlines."""


def settings(pace: Pace) -> dict[str, Any]:
    """Return what else a dispatcher is told: how soon a vendor that is down is probed."""
    return {"breaker": BreakerPolicy(open_s=0.7 * pace.back_s, factor=1, jitter=0)}


def begins_anew(event: object) -> bool:
    """Whether this is the event that says so."""
    return isinstance(event, Restarted)


def deadlines(pace: Pace) -> Deadlines:
    """Return the limits that a client is to keep.

    A reply in one is as short here as a first token, and gets as long. Words are to come twice as
    fast as those of a vendor that crawls.
    """
    return Deadlines(
        connect_s=pace.first_token_s,
        first_token_s=pace.first_token_s,
        idle_s=pace.idle_s,
        whole_s=pace.first_token_s,
        floor_pieces_per_s=2 / (CRAWL * pace.idle_s),
    )


def vendors(primary: str, fallback: str) -> list[Any]:
    """Return both roles as vendors."""
    return [
        OpenAICompatible(name=name, base_url=url, models=[name], api_key="none")
        for name, url in (("primary", primary), ("fallback", fallback))
    ]


class _Screen:
    """What a reader of a stream has in front of him: all since it began anew, if it did."""

    def __init__(self) -> None:
        self.shown: list[str] | None = None
        self.restarted = False

    def heard(self, event: object) -> None:
        """Take an event; the one that says that a stream begins anew clears the screen."""
        if begins_anew(event) and self.shown is not None:
            self.shown, self.restarted = [], True

    def begin(self, *, stream: bool) -> None:
        """Begin a request."""
        self.shown, self.restarted = [] if stream else None, False

    def add(self, text: str) -> None:
        """Show more."""
        if self.shown is not None:
            self.shown.append(text)

    def outcome(self, done: Reply | DispatcherError) -> Outcome:
        """Return what became of it."""
        shown = None if self.shown is None else "".join(self.shown)
        if isinstance(done, DispatcherError):
            error = f"{type(done).__name__}: {done}"
            return Outcome(text=shown or "", error=error, shown=shown, restarted=self.restarted)
        return Outcome(
            text=done.text,
            shown=shown,
            restarted=self.restarted,
            model=done.vendor,
            has_usage=done.usage.completion_tokens > 0,
        )


class Threads:
    """``Dispatcher``."""

    has_fallback = True

    def __init__(self, primary: str, fallback: str, pace: Pace) -> None:
        self._screen = _Screen()
        self._dispatcher = Dispatcher(
            *vendors(primary, fallback),
            deadlines=deadlines(pace),
            on_event=self._screen.heard,
            **settings(pace),
        )
        self._options = WISHES

    def ask(self, prompt: str, *, stream: bool) -> Outcome:
        """See ``Client``."""
        self._screen.begin(stream=stream)
        try:
            if not stream:
                return self._screen.outcome(self._dispatcher.send(prompt, **self._options))
            with self._dispatcher.stream(prompt, **self._options) as told:
                return self._screen.outcome(self._read(told))
        except DispatcherError as error:
            return self._screen.outcome(error)

    def _read(self, told: Stream) -> Reply:
        for delta in told:
            self._screen.add(delta.text)
        return told.reply

    def close(self) -> None:
        """See ``Client``."""
        self._dispatcher.close()


class Loop:
    """``AsyncDispatcher``."""

    has_fallback = True

    def __init__(self, primary: str, fallback: str, pace: Pace) -> None:
        self._screen = _Screen()
        self._dispatcher = AsyncDispatcher(
            *vendors(primary, fallback),
            deadlines=deadlines(pace),
            on_event=self._screen.heard,
            **settings(pace),
        )
        self._options = WISHES

    async def ask(self, prompt: str, *, stream: bool) -> Outcome:
        """See ``Client``."""
        self._screen.begin(stream=stream)
        try:
            if not stream:
                return self._screen.outcome(await self._dispatcher.send(prompt, **self._options))
            async with self._dispatcher.stream(prompt, **self._options) as told:
                return self._screen.outcome(await self._read(told))
        except DispatcherError as error:
            return self._screen.outcome(error)

    async def _read(self, told: AsyncStream) -> Reply:
        async for delta in told:
            self._screen.add(delta.text)
        return told.reply

    async def close(self) -> None:
        """See ``Client``."""
        await self._dispatcher.close()


WORLDS: dict[str, Callable[[str, str, Pace], Client]] = {"sync": Threads, "async": Loop}
