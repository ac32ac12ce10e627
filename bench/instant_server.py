"""A server that answers at once, in its own process: what a client costs, without a model.

    python bench/instant_server.py

Prints its port. Speaks HTTP/1.1 and the chat-completions dialect, whole and in 64 chunks, to one
fixed reply, with as little Python as a request needs.
"""

from __future__ import annotations

import asyncio
import json

CHUNKS = 64
WORD = "word "

_TOKENS = {"prompt_tokens": 9, "completion_tokens": CHUNKS, "total_tokens": 9 + CHUNKS}
_COMMON = {"id": "chatcmpl-1", "created": 1, "model": "instant"}


def _event(delta: dict[str, str], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    told = {**_COMMON, "object": "chat.completion.chunk", "choices": [choice]}
    return b"data: " + json.dumps(told).encode() + b"\n\n"


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _whole() -> bytes:
    message = {"role": "assistant", "content": WORD * CHUNKS}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    told = {**_COMMON, "object": "chat.completion", "choices": [choice], "usage": _TOKENS}
    body = json.dumps(told).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


WHOLE = _whole()
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PIECE = _framed(_event({"content": WORD}))
_LAST = {**_COMMON, "object": "chat.completion.chunk", "choices": [], "usage": _TOKENS}
END = (
    _framed(_event({}, "stop"))
    + _framed(b"data: " + json.dumps(_LAST).encode() + b"\n\n")
    + _framed(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)


class Instant(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._got = b""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self._out: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Answer each request that is whole."""
        self._got += data
        head, found, rest = self._got.partition(b"\r\n\r\n")
        if not found:
            return
        size = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                size = int(line[15:])
        if len(rest) < size:
            return
        self._got = rest[size:]
        is_stream = b'"stream":true' in rest[:size].replace(b" ", b"")
        if is_stream:
            self._task = asyncio.get_running_loop().create_task(self._stream())
        else:
            self._out.write(WHOLE)

    async def _stream(self) -> None:
        """Each chunk by itself, as a model would."""
        self._out.write(HEAD)
        for _ in range(CHUNKS):
            self._out.write(PIECE)
            await asyncio.sleep(0)
        self._out.write(END)


async def main() -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Instant, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
