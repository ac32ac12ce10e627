"""Two vendors on loopback, of which one fails at once and the other answers at once.

    python bench/choice_switch.py

Run as a program it is both servers. It notes when it has said that it fails, and when the request
comes to the other: what is between is the time that a client takes to go on.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from harness import Child
from instant_server import Instant

from llmdispatcher import BreakerPolicy, Dispatcher, ModelCard, OpenAICompatible, Price, RetryPolicy

BODY = b'{"error":{"message":"no room","type":"overloaded"}}'
FAILURE = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(BODY), BODY)
)


class Failing(Instant):
    """Answers every request with a failure."""

    def __init__(self, failed: Callable[[], None]) -> None:
        super().__init__()
        self._failed = failed

    def data_received(self, data: bytes) -> None:
        """Fail once a request is whole, which it is when its JSON is."""
        del data
        self._failed()
        self._out.write(FAILURE)


class Serving(Instant):
    """Notes when a request begins to come."""

    def __init__(self, asked: Callable[[], None]) -> None:
        super().__init__()
        self._asked = asked

    def data_received(self, data: bytes) -> None:
        """Note it, and answer."""
        self._asked()
        super().data_received(data)


class Gaps:
    """Seconds between a failure and the next request."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._failed_s: float | None = None

    def failed(self) -> None:
        """A failure is about to be told."""
        self._failed_s = time.perf_counter()

    def asked(self) -> None:
        """A request has come to the other; only the first part of it counts."""
        if self._failed_s is not None:
            self.seconds.append(time.perf_counter() - self._failed_s)
            self._failed_s = None


async def _serve(gaps: Gaps, ready: Callable[[list[int]], None]) -> None:
    loop = asyncio.get_running_loop()
    failing = await loop.create_server(lambda: Failing(gaps.failed), "127.0.0.1", 0)
    serving = await loop.create_server(lambda: Serving(gaps.asked), "127.0.0.1", 0)
    ready([server.sockets[0].getsockname()[1] for server in (failing, serving)])
    await asyncio.Event().wait()


def main() -> None:
    """Serve, and tell the gaps whenever a line comes in."""
    gaps = Gaps()

    def ready(ports: list[int]) -> None:
        print(json.dumps({"ports": ports}), flush=True)

    threading.Thread(target=lambda: asyncio.run(_serve(gaps, ready)), daemon=True).start()
    for _ in sys.stdin:
        print(json.dumps(gaps.seconds), flush=True)


def measure(times: int) -> list[float]:
    """Have so many requests fail at the cheaper vendor; return the seconds until the next has it.

    From before the failure is written until the request is read there, on sockets that are open
    already but for the first.
    """
    with Child("switch", [sys.executable, str(Path(__file__))]) as child:
        vendors = [
            OpenAICompatible(
                base_url=f"http://127.0.0.1:{port}/v1",
                api_key="none",
                name=name,
                models=[
                    ModelCard(
                        vendor=name, model="m", local=True, price=price, capabilities=["chat"]
                    )
                ],
            )
            for name, port, price in zip(
                ("failing", "serving"),
                child.hello["ports"],
                (Price.per_million(1, 1), Price.per_million(2, 2)),
                strict=True,
            )
        ]
        policies = {"retry": RetryPolicy(same_target=0), "breaker": BreakerPolicy(failures=1000)}
        with Dispatcher(*vendors, **policies) as d:  # type: ignore[arg-type]
            for _ in range(times):
                reply = d.send("hi")
                if reply.vendor != "serving":
                    raise SystemExit(f"{reply.vendor} served: {reply.decision}")
        gaps: list[float] = child.ask()
    return gaps


if __name__ == "__main__":
    main()
