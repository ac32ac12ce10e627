"""A host of the OpenAI dialect on 127.0.0.1 that fails exactly as it is told, and keeps the books.

Each role (a primary, a fallback, ...) has a port of its own, and a behaviour: what it does about a
request, as a function of an ``Exchange``. Behaviours are in ``misdeeds``. What came, when, and what
was done about it is in ``Role.seen``. It is plain asyncio and nothing else, since what frameworks
refuse to do (half a head, a reset, a body without end) is what it is for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Self

import attrs

MAX_HEAD_BYTES = 2**20
START_S = 60.0
LATE_TURNS = 12
"""Of the loop, in which connections that were accepted just now come to be known."""

REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
}


@attrs.define
class Seen:
    """A request for a reply, as the role that got it saw it."""

    number: int
    """Of the requests that this role got, counted from 1."""
    at_s: float
    """When it came, in seconds since the role was told what to do."""
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    told: str = ""
    """What was done about it, in a few words."""
    gone_s: float | None = None
    """When the client hung up on it, if it did while it was watched."""

    @property
    def messages(self) -> list[Mapping[str, Any]]:
        """The conversation."""
        return list(self.body.get("messages") or [])

    @property
    def is_streamed(self) -> bool:
        """Whether pieces are wanted."""
        return bool(self.body.get("stream"))

    @property
    def wants_usage(self) -> bool:
        """Whether a stream is to tell its usage."""
        return bool((self.body.get("stream_options") or {}).get("include_usage"))

    @property
    def prefix(self) -> str:
        """The text of an assistant's turn at the end, which is to be continued; "" if none is."""
        last = self.messages[-1] if self.messages else {}
        return str(last.get("content") or "") if last.get("role") == "assistant" else ""


class Over(Exception):
    """The connection is not to be used again."""


Behave = Callable[["Exchange"], Coroutine[Any, Any, None]]
"""What a role does about a request. It raises Over once the connection is done for."""


class Exchange:
    """One request and what can be done about it."""

    def __init__(
        self, seen: Seen, role: Role, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.seen, self.role = seen, role
        self.behind = b""
        """What is sent along with the end of a whole answer, though it is no part of it."""
        self._reader, self._writer = reader, writer

    async def head(
        self, status: int, headers: Mapping[str, str] | None = None, *, size: int | None = None
    ) -> None:
        """Send a head; without a size the body comes in chunks."""
        framing = "transfer-encoding: chunked" if size is None else f"content-length: {size}"
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Told')}", framing]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        await self.send("\r\n".join([*lines, "", ""]).encode())

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    async def chunk(self, data: bytes) -> None:
        """Send a chunk of the body."""
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self) -> None:
        """Send the end of a body in chunks."""
        await self.send(b"0\r\n\r\n" + self.behind)

    async def json(
        self, body: object, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer with JSON, whole."""
        data = json.dumps(body).encode()
        told = {"content-type": "application/json", **(headers or {})}
        await self.head(status, told, size=len(data))
        await self.send(data + self.behind)

    async def silence(self, seconds: float) -> None:
        """Say nothing for so long. Raises Over as soon as the client hangs up."""
        heard = asyncio.ensure_future(self._reader.read(1))
        done, _ = await asyncio.wait({heard}, timeout=seconds)
        if done:
            self.seen.gone_s = self.role.now_s()
            raise Over
        heard.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await heard

    def reset(self) -> None:
        """Reset the connection: no end, an error on the other side. Raises Over."""
        raw = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        raise Over

    def hang_up(self) -> None:
        """Close the connection in an orderly way, wherever the answer is. Raises Over."""
        raise Over


class Role:
    """One port and what is done there."""

    def __init__(self, name: str, behave: Behave) -> None:
        self.name, self.behave = name, behave
        self.seen: list[Seen] = []
        self.open = 0
        """Connections that are open now."""
        self.port = 0
        self._since_s = time.monotonic()

    @property
    def url(self) -> str:
        """Its address, as SDKs want it."""
        return f"http://127.0.0.1:{self.port}/v1"

    def now_s(self) -> float:
        """Return the seconds since it was told what to do."""
        return time.monotonic() - self._since_s

    def begin(self, behave: Behave) -> None:
        """Do something else from now on, and begin the books anew."""
        self.behave, self.seen, self._since_s = behave, [], time.monotonic()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection to its end."""
        self.open += 1
        try:
            while True:
                await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, OSError, Over, asyncio.CancelledError):
            pass  # one of the two sides is done
        finally:
            self.open -= 1
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path, headers, body = await _request(reader)
        seen = Seen(len(self.seen) + 1, self.now_s(), body, headers)
        exchange = Exchange(seen, self, reader, writer)
        if path.endswith("/chat/completions"):
            self.seen.append(seen)
            await self.behave(exchange)
        elif path.endswith("/models"):
            model = {"id": self.name, "object": "model", "created": 1, "owned_by": "faults"}
            await exchange.json({"object": "list", "data": [model]})
        else:
            await exchange.json({"error": {"message": f"no such path: {path}"}}, 404)


async def _request(
    reader: asyncio.StreamReader,
) -> tuple[str, dict[str, str], dict[str, Any]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    path = head[0].split(" ")[1].partition("?")[0]
    pairs = [line.partition(":") for line in head[1:] if line]
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    raw = b""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int(await reader.readline(), 16):
            raw += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    elif size := int(headers.get("content-length", 0)):
        raw = await reader.readexactly(size)
    return path, headers, json.loads(raw) if raw else {}


class FaultServer:
    """All roles, in one thread with one event loop; a context manager."""

    def __init__(self, **behaviours: Behave) -> None:
        self.roles = {name: Role(name, behave) for name, behave in behaviours.items()}
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="faults", daemon=True)
        self._started = threading.Event()

    def __getitem__(self, name: str) -> Role:
        return self.roles[name]

    def begin(self, **behaviours: Behave) -> None:
        """Let roles do something else from now on, and begin their books anew."""
        done = threading.Event()

        def change() -> None:
            for name, behave in behaviours.items():
                self.roles[name].begin(behave)
            done.set()

        self._loop.call_soon_threadsafe(change)
        if not done.wait(START_S):
            raise TimeoutError("the server of faults does not answer")

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._started.wait(START_S):
            raise TimeoutError("the server of faults did not start")
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(START_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_S)
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._begin())
        self._started.set()
        self._loop.run_forever()

    async def _begin(self) -> None:
        for role in self.roles.values():
            server = await asyncio.start_server(
                self._serving(role), "127.0.0.1", 0, limit=MAX_HEAD_BYTES, backlog=2048
            )
            role.port = server.sockets[0].getsockname()[1]
            role.begin(role.behave)
            self._servers.append(server)

    def _serving(
        self, role: Role
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            try:
                await role.serve(reader, writer)
            finally:
                self._tasks.discard(task)

        return serve

    async def _end(self) -> None:
        for server in self._servers:
            for listening in server.sockets:
                self._loop.remove_reader(listening.fileno())  # one accepted meanwhile is lost
        for _ in range(LATE_TURNS):
            for task in [*self._tasks]:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.sleep(0.001)
        for server in self._servers:
            server.close()
