"""One server that runs: its process, where it listens, and the connections to it."""

from __future__ import annotations

import asyncio
import json
import os
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from llmdispatcher.models.errors import BadReply, VendorError
from llmdispatcher.vendors.http.transport import Broken, Connections, Place
from llmdispatcher.vendors.llamacpp.child import spawn
from llmdispatcher.vendors.llamacpp.server import environment
from llmdispatcher.vendors.llamacpp.server.address import LOOPBACK, Address
from llmdispatcher.vendors.llamacpp.server.answering import CONNECT_S
from llmdispatcher.vendors.llamacpp.server.report import Log
from llmdispatcher.vendors.llamacpp.server.settings import Settings
from llmdispatcher.vendors.wire.exchange import Ask

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.server.program import Program

HEALTH_S = 2.0
"""How long an answer may take while it loads: it may be busy reading."""

MAX_FACTS_BYTES = 16 * 2**20
"""Of what a server says of itself, its template among it."""

MAX_STRANGE = 5
"""Connections, in a row, that end without an answer, before somebody else's program is thought to
listen there."""

KILL_S = 10.0
"""How long the system may take to end a process that was killed, and to take its memory back."""


class PortTaken(Exception):
    """Somebody else listens where the server was to."""


class Running:
    """To be used in one thread, with an event loop."""

    def __init__(self, program: Program, settings: Settings) -> None:
        """Start it. Raises a VendorError."""
        self.settings = settings
        self.log = Log()
        self._strange = 0
        self.address = Address.open(sockets=program.has_sockets())
        self.connections = Connections(_place(self.address))
        try:
            self.child = spawn.start(
                spawn.Order(
                    command=program.command(settings, self.address),
                    environment=environment.environment(os.environ),
                    kind="server",
                )
            )
        except VendorError:
            self.address.close()
            raise
        self.child.tail.listen(self.log.take)

    async def is_ready(self) -> bool:
        """Whether it has loaded. Raises BadReply where what listens there is no such server."""
        try:
            status, _ = await self._get("/health", HEALTH_S)
        except TimeoutError:
            return False
        except Broken as broken:
            self._strange += broken.connected
            if self._strange >= MAX_STRANGE:
                told = f"what listens at {self.address.host} does not speak HTTP: {broken}"
                raise BadReply(told) from None
            return False
        self._strange = 0
        return status == HTTPStatus.OK

    async def is_healthy(self, timeout_s: float) -> bool:
        """Whether one that has loaded answers, within a time."""
        try:
            status, _ = await self._get("/health", timeout_s)
        except (Broken, TimeoutError):
            return False
        return status == HTTPStatus.OK

    async def facts(self) -> dict[str, Any]:
        """Ask what it loaded.

        Raises PortTaken where it is another server than ours, and BadReply where it is none.
        """
        try:
            status, body = await self._get("/props", HEALTH_S)
        except (Broken, TimeoutError) as broken:
            told = str(broken) or "no answer in time"
            raise BadReply(f"llama-server does not tell what it loaded: {told}") from None
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN} and self.address.port:
            raise PortTaken
        try:
            props = json.loads(body) if status == HTTPStatus.OK else None
        except (ValueError, RecursionError):
            props = None
        if not isinstance(props, dict):
            raise BadReply(f"llama-server answers /props with {status} and no JSON object")
        return props

    async def _get(self, path: str, timeout_s: float) -> tuple[int, bytes]:
        """Ask for what is short. Raises Broken, and TimeoutError where it takes too long."""
        async with asyncio.timeout(timeout_s):
            line = await self.connections.aopen(Ask(path=path, at_root=True), CONNECT_S)
            body = b""
            try:
                while len(body) < MAX_FACTS_BYTES and (chunk := await line.read()):
                    body += chunk
            finally:
                await line.close()
        return line.head.status, body

    async def hang_up(self) -> None:
        """Close all connections."""
        self.connections.close()
        await self.connections.aclose()

    def end(self, stop_s: float, *, asks: bool) -> int | None:
        """End it, and give everything back; returns its exit status.

        ``asks`` lets it end by itself within ``stop_s`` before it is killed.
        """
        if asks and self.child.poll() is None:
            self.child.terminate()
            self.child.wait(stop_s)
        if self.child.poll() is None:
            self.child.kill()
        status = self.child.wait(KILL_S)
        self.child.forget()
        self.address.close()
        return status


def _place(address: Address) -> Place:
    """Return where a server is to be found, with its key."""
    root = f"http://{LOOPBACK}" + (f":{address.port}" if address.socket is None else "")
    return Place(
        root=root,
        base=f"{root}/v1",
        headers={"Authorization": f"Bearer {address.key}"},
        secrets=(address.key,),
        socket=None if address.socket is None else str(address.socket),
        loopback_only=True,
    )
