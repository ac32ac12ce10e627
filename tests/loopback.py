"""An HTTP server on 127.0.0.1 that answers what a test tells it to, in the pieces it is told.

It speaks HTTP/1.1 over plain asyncio streams, in a thread of its own, and keeps what it was asked.
What it cannot be told by an ``Answer`` (a cut in the middle of the head, say) goes through ``raw``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import attrs

MAX_HEAD_BYTES = 2**20

LATE_TURNS = 12
"""Of the loop, in which connections that were accepted just now come to be known."""

Chunk = bytes | float
"""Bytes to send, or seconds to wait before the next."""


@attrs.frozen
class Got:
    """What was asked."""

    method: str
    path: str
    """Without the query."""
    query: str
    headers: Mapping[str, str]
    """Names in lower case."""
    raw: bytes

    @property
    def body(self) -> Any:
        """The JSON that was sent; None for nothing."""
        return json.loads(self.raw) if self.raw else None


@attrs.frozen(kw_only=True)
class Answer:
    """What to answer."""

    status: int = 200
    headers: Mapping[str, str] = attrs.field(factory=dict)
    chunks: tuple[Chunk, ...] = ()
    cut: bool = False
    """Close the connection behind the last chunk, without the end of the answer."""
    raw: bool = False
    """The chunks are all there is, from the first byte of the head."""

    @classmethod
    def json(
        cls, body: object, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Answer with JSON, whole."""
        told = {"content-type": "application/json", **(headers or {})}
        return cls(status=status, headers=told, chunks=(json.dumps(body).encode(),))

    @classmethod
    def sse(cls, chunks: Iterable[Chunk], **fields: Any) -> Answer:
        """Answer with a stream of server-sent events, each chunk sent by itself."""
        headers = {"content-type": "text/event-stream", **fields.pop("headers", {})}
        return cls(headers=headers, chunks=tuple(chunks), **fields)


Handler = Callable[[Got], Answer]


def events(*messages: object, done: bool = True) -> list[bytes]:
    """Return server-sent events without names, as the OpenAI API sends them."""
    told = [b"data: " + json.dumps(message).encode() + b"\n\n" for message in messages]
    return [*told, b"data: [DONE]\n\n"] if done else told


class Loopback:
    """The server; a context manager. ``handler`` may be exchanged while it runs."""

    def __init__(self, handler: Handler, *, encryption: ssl.SSLContext | None = None) -> None:
        self.handler = handler
        self._encryption = encryption
        self.got: list[Got] = []
        self.open = 0
        """Connections that are open now."""
        self.accepted = 0
        """Connections that were ever made."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="loopback", daemon=True)
        self._started = threading.Event()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return f"http{'s' if self._encryption else ''}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._begin())
        self._started.set()
        self._loop.run_forever()

    async def _begin(self) -> None:
        self._server = await asyncio.start_server(
            self._serve,
            "127.0.0.1",
            0,
            limit=MAX_HEAD_BYTES,
            backlog=256,
            ssl=self._encryption,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        assert self._server is not None
        for listening in self._server.sockets:
            self._loop.remove_reader(listening.fileno())  # one accepted while it closes is lost
        for _ in range(LATE_TURNS):
            for task in [*self._tasks]:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.sleep(0.001)
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open += 1
        self.accepted += 1
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass  # the other side has gone, or the test has ended
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection may serve another."""
        got = await _read(reader)
        self.got.append(got)
        answer = self.handler(got)
        is_one = len(answer.chunks) == 1 and isinstance(answer.chunks[0], bytes) and not answer.cut
        if not answer.raw:
            size = (
                f"content-length: {len(answer.chunks[0])}"  # type: ignore[arg-type]
                if is_one
                else "transfer-encoding: chunked"
                if answer.chunks or answer.cut
                else "content-length: 0"
            )
            lines = [f"HTTP/1.1 {answer.status} Told", size]
            lines += [f"{name}: {value}" for name, value in answer.headers.items()]
            writer.write("\r\n".join([*lines, "", ""]).encode())
        is_framed = not (answer.raw or is_one) and bool(answer.chunks or answer.cut)
        for chunk in answer.chunks:
            if isinstance(chunk, int | float):
                await asyncio.sleep(chunk)
            elif chunk:
                writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk) if is_framed else chunk)
                await writer.drain()
                await asyncio.sleep(0)
        if is_framed and not answer.cut:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        return not (answer.cut or answer.raw)


async def _read(reader: asyncio.StreamReader) -> Got:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ", 2)
    pairs = [line.partition(":") for line in head[1:] if line]
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    raw = b""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int(await reader.readline(), 16):
            raw += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    elif size := int(headers.get("content-length", 0)):
        raw = await reader.readexactly(size)
    path, _, query = target.partition("?")
    return Got(method, path, query, headers, raw)
