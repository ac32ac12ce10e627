"""A crowd of callers in a process of its own, who read streams until they are told to stop.

    python crowd_caller.py URL LEDGER FILE STREAMS SEED

Says "ready" once all of them are at it, and ends when stdin does. One caller in ten loses interest
in the middle: half of those close the stream, half are cancelled. What became of each request is a
line of FILE: its name, which is its tag in the ledger and its prompt, and how it ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from pathlib import Path

from llmdispatcher import (
    AsyncDispatcher,
    BreakerPolicy,
    Ledger,
    OpenAICompatible,
    RetryPolicy,
    SpendingCap,
    VendorError,
)

PRICE = {"input": "1000", "output": "3000"}
"""A thousand micro-dollars for a token that is read, three thousand for one that is written."""

CAP = SpendingCap("100000", period="ever")
"""More than is ever spent; but it makes every request reserve, durably, before it is sent."""


class Crowd:
    """All callers of this process."""

    def __init__(self, url: str, ledger: str, path: str, seed: int) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._random, self._asked = random.Random(seed), 0  # noqa: S311 - not a secret
        self.is_over = False
        self.ledger = Ledger(Path(ledger), caps=[CAP], lock_wait_s=60)
        self.dispatcher = AsyncDispatcher(
            OpenAICompatible(base_url=url, models=["crowd"], api_key="none", name="crowd"),
            catalog={"models": {"crowd/crowd": {"price": PRICE}}},
            retry=RetryPolicy(attempts=1),
            breaker=BreakerPolicy(failures=1000, open_s=0.001, cap_s=0.001),
            ledger=self.ledger,
        )

    async def call(self) -> None:
        """Ask again and again."""
        while not self.is_over:
            self._asked += 1
            name = f"{os.getpid()}-{self._asked}"
            how = await self._ask(name)
            os.write(self._file, f"{name} {how}\n".encode())

    async def _ask(self, name: str) -> str:
        patience = self._random.choice((0, 1, 3, 7)) if self._random.random() < 0.1 else None
        if patience is None or self._random.random() < 0.5:
            return await self._read(name, patience)
        reading = asyncio.ensure_future(self._read(name, None))
        await asyncio.wait([reading], timeout=patience * 0.1)
        if reading.done():
            return reading.result()
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            return await reading
        return "left"

    async def _read(self, name: str, patience: int | None) -> str:
        read = 0
        try:
            async with self.dispatcher.stream(name, tags=(name,), max_tokens=50) as stream:
                async for _ in stream:
                    read += 1
                    if read == patience:
                        return "left"
        except VendorError as error:
            return f"failed:{type(error).__name__}"
        return f"served:{stream.reply.usage.completion_tokens}"


async def main() -> None:
    """Read streams until stdin ends."""
    url, ledger, path, streams, seed = sys.argv[1:]
    crowd = Crowd(url, ledger, path, int(seed))
    callers = [asyncio.ensure_future(crowd.call()) for _ in range(int(streams))]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    crowd.is_over = True
    await asyncio.gather(*callers)
    await crowd.dispatcher.close()
    crowd.ledger.close()


if __name__ == "__main__":
    asyncio.run(main())
