"""A vendor of a crowd, in a process of its own, that keeps count of what it sent to whom.

    python crowd_server.py FILE SEED SLOW_S

Prints its port. Each request is a stream of random length, a chunk every now and then, of which one
in ten is cut, one in thirty ends without an end, and one in fifty is refused. What became of each
is a line of FILE: what the request said, how it ended and how many tokens were sent.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import sys
from collections.abc import Iterator
from functools import partial

PROMPT_TOKENS = 7

_COMMON = {"id": "chatcmpl-1", "created": 1, "model": "crowd", "object": "chat.completion.chunk"}
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_REFUSAL = json.dumps({"error": {"message": "a fault of the crowd", "code": 500}}).encode()
_REFUSED = b"HTTP/1.1 500 No\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


def _event(**facts: object) -> bytes:
    data = b"data: " + json.dumps({**_COMMON, **facts}).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


def _piece(delta: dict[str, str], reason: str | None = None) -> bytes:
    return _event(choices=[{"index": 0, "delta": delta, "finish_reason": reason}])


_WORD = _piece({"content": "word "})


class Vendor:
    """What all connections share."""

    def __init__(self, path: str, seed: int, slow_s: float) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.random, self.slow_s = random.Random(seed), slow_s  # noqa: S311 - not a secret

    def note(self, said: str, how: str, tokens: int) -> None:
        """Write what became of a request."""
        os.write(self.file, f"{said} {how} {tokens}\n".encode())

    def fate(self) -> str:
        """Draw what is to become of a request."""
        drawn = self.random.random()
        if drawn < 0.02:
            return "refused"
        if drawn < 0.02 + 0.1:
            return "cut"
        return "unended" if drawn < 0.02 + 0.1 + 0.03 else "whole"


class Connection(asyncio.Protocol):
    """One caller, who may ask again when it has its answer."""

    def __init__(self, vendor: Vendor) -> None:
        self._vendor, self._got = vendor, b""
        self._said, self._tokens = "", 0
        self._is_open = False
        """An answer is on its way."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        assert isinstance(transport, asyncio.Transport)
        self._out = transport

    def connection_lost(self, _: Exception | None) -> None:
        """Take note of a caller that left before the end."""
        self._end("left")

    def data_received(self, data: bytes) -> None:
        """Answer a request that is whole."""
        self._got += data
        head, found, rest = self._got.partition(b"\r\n\r\n")
        sizes = [
            line[15:] for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"
        ]
        if not found or not sizes or len(rest) < int(sizes[0]):
            return
        self._got = b""
        body = json.loads(rest)
        self._said, self._tokens, self._is_open = body["messages"][0]["content"], 0, True
        self._go_on(self._answer(self._vendor.fate()))

    def _answer(self, fate: str) -> Iterator[None]:
        """Send an answer, step by step."""
        if fate == "refused":
            self._end("refused")
            self._out.write(_REFUSED % len(_REFUSAL) + _REFUSAL)
            return
        self._out.write(_HEAD)
        for _ in range(self._vendor.random.randint(1, 24)):
            yield
            self._tokens += 1
            self._out.write(_WORD)
        yield
        tokens, self._is_open = self._tokens, fate != "whole"
        if fate == "cut":
            self._end("cut")
            self._out.abort()
        elif fate == "unended":
            self._end("unended")
            self._out.write(b"0\r\n\r\n")
        else:
            self._vendor.note(self._said, "whole", tokens)
            usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens}
            last = _event(choices=[], usage={**usage, "total_tokens": PROMPT_TOKENS + tokens})
            self._out.write(_piece({}, "stop") + last + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    def _go_on(self, steps: Iterator[None]) -> None:
        """Do the next step, unless the caller has left, and come back for the one behind it."""
        if self._is_open and next(steps, "over") is None:
            vendor = self._vendor
            pause_s = vendor.random.uniform(0, 2 * vendor.slow_s)
            asyncio.get_running_loop().call_later(pause_s, partial(self._go_on, steps))

    def _end(self, how: str) -> None:
        if self._is_open:
            self._is_open = False
            self._vendor.note(self._said, how, self._tokens)


async def main() -> None:
    """Serve until the process is ended."""
    path, seed, slow_s = sys.argv[1:]
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a thousand callers, and more to come
    vendor = Vendor(path, int(seed), float(slow_s))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(vendor), "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
