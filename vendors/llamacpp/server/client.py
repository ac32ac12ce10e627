"""Talks HTTP to one server: the only module that imports httpx2.

No proxy, no redirect, no address but the server's own. Nothing is retried: what breaks is told as
``Broken``, and who asked knows what it means.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from llmdispatcher.models.errors import BadReply, ExecutableNotFound
from llmdispatcher.vendors.llamacpp.server.address import LOOPBACK, Address

try:
    import httpx2
except ModuleNotFoundError as missing:
    raise ExecutableNotFound(
        f"a llama-server is talked to with httpx2, and there is no {missing.name}: pip install"
        " httpx2, or 'llmdispatcher[llamacpp]'"
    ) from missing

CONNECT_S = 5.0
"""To this machine, which answers at once or not at all."""

MAX_BODY_BYTES = 256 * 2**20
"""Of an answer that is read whole: 64 vectors of the widest models take 2 MiB."""

_UNSOUND = (httpx2.TransportError, httpx2.StreamError, httpx2.DecodingError, httpx2.InvalidURL)


class Broken(Exception):
    """The connection could not be made, or broke."""

    def __init__(self, message: str, *, spoke: bool = False) -> None:
        super().__init__(message)
        self.spoke = spoke
        """Whether the other side said something that is no HTTP."""


class Answer:
    """The beginning of an answer."""

    def __init__(self, response: httpx2.Response) -> None:
        self.status = response.status_code
        self._response = response

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield what comes, as it comes. Raises Broken."""
        try:
            async for chunk in self._response.aiter_raw():
                yield chunk
        except _UNSOUND as error:
            raise _broken(error) from None

    async def body(self) -> bytes:
        """Read all of it. Raises Broken, and BadReply where it does not end."""
        parts, size = [], 0
        async for chunk in self.chunks():
            parts.append(chunk)
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                raise BadReply(f"the server's answer is longer than {MAX_BODY_BYTES} bytes")
        return b"".join(parts)


class Client:
    """Connections to one server. To be used in one event loop."""

    def __init__(self, address: Address, connections: int) -> None:
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        path = None if address.socket is None else str(address.socket)
        self._client = httpx2.AsyncClient(
            base_url=f"http://{LOOPBACK}" + (f":{address.port}" if path is None else ""),
            headers={"Authorization": f"Bearer {address.key}", "Accept-Encoding": "identity"},
            transport=httpx2.AsyncHTTPTransport(
                uds=path,
                limits=limits,
                verify=False,
                trust_env=False,
            ),
            timeout=httpx2.Timeout(None, connect=CONNECT_S),
            trust_env=False,
        )

    async def get(self, path: str, timeout_s: float) -> tuple[int, bytes]:
        """Ask for what is short. Raises Broken, also where it takes too long."""
        try:
            answer = await self._client.get(path, timeout=timeout_s)
        except _UNSOUND as error:
            raise _broken(error) from None
        return answer.status_code, answer.content

    @asynccontextmanager
    async def post(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[Answer]:
        """Ask, and give the beginning of the answer; leaving the block closes the connection.

        Raises Broken.
        """
        try:
            async with self._client.stream("POST", path, json=body) as response:
                yield Answer(response)
        except _UNSOUND as error:
            raise _broken(error) from None

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()


def _broken(error: Exception) -> Broken:
    told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return Broken(told, spoke=isinstance(error, httpx2.RemoteProtocolError))
