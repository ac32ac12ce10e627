"""One server that runs: its process, where it listens, and the connections to it."""

from __future__ import annotations

import json
import os
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from llmdispatcher.models.errors import BadReply, VendorError
from llmdispatcher.vendors.llamacpp.child import spawn
from llmdispatcher.vendors.llamacpp.server import environment
from llmdispatcher.vendors.llamacpp.server.address import Address
from llmdispatcher.vendors.llamacpp.server.client import Broken, Client
from llmdispatcher.vendors.llamacpp.server.report import Log
from llmdispatcher.vendors.llamacpp.server.settings import Settings

if TYPE_CHECKING:
    from llmdispatcher.vendors.llamacpp.server.program import Program

HEALTH_S = 2.0
"""How long an answer may take while it loads: it may be busy reading."""

MORE_CONNECTIONS = 2
"""Beside one for each request that is served: for asking how it is."""

MAX_STRANGE = 5
"""Answers that are no HTTP, in a row, before somebody else's program is thought to listen there."""

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
        try:
            self.client = Client(self.address, settings.parallel + MORE_CONNECTIONS)
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
            status, _ = await self.client.get("/health", HEALTH_S)
        except Broken as broken:
            self._strange += broken.spoke
            if self._strange >= MAX_STRANGE:
                told = f"what listens at {self.address.host} does not speak HTTP: {broken}"
                raise BadReply(told) from None
            return False
        self._strange = 0
        return status == HTTPStatus.OK

    async def facts(self) -> dict[str, Any]:
        """Ask what it loaded.

        Raises PortTaken where it is another server than ours, and BadReply where it is none.
        """
        try:
            status, body = await self.client.get("/props", HEALTH_S)
        except Broken as broken:
            raise BadReply(f"llama-server does not tell what it loaded: {broken}") from None
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN} and self.address.port:
            raise PortTaken
        try:
            told = json.loads(body) if status == HTTPStatus.OK else None
        except (ValueError, RecursionError):
            told = None
        if not isinstance(told, dict):
            raise BadReply(f"llama-server answers /props with {status} and no JSON object")
        return told

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
