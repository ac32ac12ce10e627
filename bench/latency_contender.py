"""Our engine in situations where somebody waits. Started by ``latency.py``.

    python bench/latency_contender.py MODEL CONTEXT THREADS SEQUENCES

Each line on standard input is a job in JSON (``situation`` and its arguments), each line on
standard output its result; all times are seconds as a caller in the event loop sees them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from burst import Track, gaps_s, prompts
from crowd import Async, Setup

STREAMS = 4
"""That run while something else happens."""
STREAM_PROMPT = 64
STREAM_TOKENS = 1_000
"""Of a reply that is cancelled before its end."""

SHARED = 1_000
"""Tokens that two prompts begin with."""
TAIL = 16
"""Tokens that follow, in which they differ."""

LONG = 3_000
"""Tokens of a prompt that takes many steps."""

BEGUN = 8
"""Pieces after which a stream runs."""
SETTLE_S = 8.0
"""How long streams may take to begin."""
BEFORE_S = 1.5
AFTER_S = 0.3
GIVE_UP_S = 45.0
"""How long a prompt beside streams may take."""
LOOK_S = 0.001


class Situations(Async):
    """What callers live through."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._known: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
            "warm": self._warm,
            "gaps": self._gaps,
            "cancel": self._cancel,
            "burst": self._burst,
        }

    def answer(self, situation: str, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Run a situation."""

        async def go() -> dict[str, Any]:
            return await self._known[situation](**arguments)

        return self.runner.run(go())

    async def _warm(self, seed: int) -> dict[str, Any]:
        """Ask for two prompts that begin alike."""
        (shared,), tails = prompts(seed, 1, SHARED), prompts(seed + 1, 2, TAIL)
        cold_s, warm_s = [await self._first_s(shared + tail) for tail in tails]
        return {"cold_s": cold_s, "warm_s": warm_s}

    async def _gaps(self, seed: int) -> dict[str, Any]:
        """Let a long prompt arrive while streams run."""
        alone_s = await self._first_s(prompts(seed + 2, 1, LONG)[0])
        async with self._streams(seed) as tracks:
            settled_s = time.perf_counter()
            running = sum(len(track.times) >= BEGUN for track in tracks)
            await asyncio.sleep(BEFORE_S)
            began_s = time.perf_counter()
            first_s: float | None = None
            try:
                async with asyncio.timeout(GIVE_UP_S):
                    first_s = await self._first_s(prompts(seed + 1, 1, LONG)[0])
            except TimeoutError:
                pass
            ended_s = time.perf_counter()
            await asyncio.sleep(AFTER_S)
            lasted = sum(not track.ended_s for track in tracks)
        return {
            "running": running,
            "lasted": lasted,
            "first_s": first_s,
            "alone_s": alone_s,
            "before_s": [
                gap
                for track in tracks
                for gap in gaps_s([at for at in track.times if at < began_s], settled_s, began_s)
            ],
            "during_s": [gap for track in tracks for gap in gaps_s(track.times, began_s, ended_s)],
        }

    async def _cancel(self, where: str, seed: int, delay_s: float) -> dict[str, Any]:
        """Cancel a request and look when the caller, the engine and the next request go on.

        ``where``: in the "prompt", in "generation", or in a prompt "beside" running streams;
        ``delay_s`` is how long a prompt is read before.
        """
        size = STREAM_PROMPT if where == "generation" else LONG
        delay = None if where == "generation" else delay_s
        async with AsyncExitStack() as stack:
            tracks: list[Track] = []
            if where == "beside":
                tracks = await stack.enter_async_context(self._streams(seed + 1))
            begun = all(len(track.times) >= BEGUN for track in tracks)
            first, again, *short = prompts(seed + 2, 2, size) + prompts(seed + 3, 2, STREAM_PROMPT)
            usual_s = await self._first_s(short[0])
            expected = self._requests()
            release_s, in_time = await self._give_up(first, delay)
            idle_s = await self._until(expected)
            release_again_s, in_time_again = await self._give_up(again, delay)
            next_s = await self._first_s(short[1])
        return {
            "in_time": begun and in_time and in_time_again,
            "release_s": max(release_s, release_again_s),
            "idle_s": idle_s,
            "next_s": next_s,
            "usual_s": usual_s,
        }

    async def _burst(self, seed: int, count: int, tokens: int) -> dict[str, Any]:
        """Let many requests arrive at once."""
        return {"burst": await self._run(prompts(seed, count, STREAM_PROMPT), tokens)}

    async def _first_s(self, prompt: str) -> float:
        """Return how long a caller waits for the first text."""
        track = Track()
        began_s = time.perf_counter()
        await self.reply(track, prompt, 1)
        return track.times[0] - began_s

    async def _give_up(self, prompt: str, delay_s: float | None) -> tuple[float, bool]:
        """Cancel a request; None waits until it generates. Returns how long that took.

        And whether it was in time: before a prompt was read, or before a reply had ended.
        """
        track = Track()
        task = asyncio.create_task(self.reply(track, prompt, STREAM_TOKENS))
        if delay_s is None:
            while len(track.times) < BEGUN and not task.done():  # noqa: ASYNC110 - as callers do
                await asyncio.sleep(LOOK_S)
        else:
            await asyncio.sleep(delay_s)
        in_time = not task.done() and (delay_s is None or not track.times)
        began_s = time.perf_counter()
        task.cancel()
        await asyncio.wait([task])
        return time.perf_counter() - began_s, in_time

    async def _until(self, expected: int) -> float | None:
        """Return how long it takes until the engine serves no more requests than these."""
        began_s = time.perf_counter()
        while self._requests() > expected:
            if time.perf_counter() - began_s > GIVE_UP_S:
                return None
            await asyncio.sleep(LOOK_S)
        return time.perf_counter() - began_s

    def _requests(self) -> int:
        """Return how many requests the engine has."""
        (vendor,) = self.dispatcher.vendors()
        return vendor.status.waiting + vendor.status.running

    @asynccontextmanager
    async def _streams(self, seed: int) -> AsyncIterator[list[Track]]:
        """Keep streams running, as many of them as the engine serves at once."""
        tracks = [Track() for _ in range(STREAMS)]
        texts = prompts(seed, STREAMS, STREAM_PROMPT)
        tasks = [
            asyncio.create_task(self.reply(track, text, STREAM_TOKENS))
            for track, text in zip(tracks, texts, strict=True)
        ]
        deadline_s = time.perf_counter() + SETTLE_S
        try:
            while time.perf_counter() < deadline_s:
                if all(len(track.times) >= BEGUN for track in tracks):
                    break
                await asyncio.sleep(LOOK_S)
            yield tracks
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):  # a cancellation is none
                raise end


def main() -> None:
    """Serve jobs until standard input ends."""
    model, *numbers = sys.argv[1:]
    setup = Setup(model, *map(int, numbers))
    situations = Situations(setup)
    situations.run(["warm"] * setup.sequences, 2)
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        print(json.dumps(situations.answer(**json.loads(line))), flush=True)
    situations.close()


if __name__ == "__main__":
    main()
