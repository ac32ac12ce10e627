"""Clients of the standard library alone, whose marks in the exam are known: they examine the judge.

``Direct`` asks once and never again. ``Careful`` does what a careful person would do and nothing
clever. ``Liar`` gives whatever came as the answer, and ``Hammer`` asks again at once, many times.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import attrs
from faults.exam import Outcome, Pace

TRIES = 3
HAMMERS = 12
PAUSE_S = 0.1
OPEN = 0.75
"""A vendor that failed to the end is left alone for so much of the time in which one is to be back;
twice as long after every probe."""

Address = tuple[str, str]
"""Name of the role, and its address."""


@attrs.define
class Failed(Exception):
    """What went wrong, as facts."""

    told: str
    status: int = 0
    code: str = ""
    wait_s: float | None = None
    text: str = ""

    @property
    def is_slow(self) -> bool:
        """Whether nothing came in time."""
        return self.told.startswith("Slow")


@attrs.define
class Got:
    """A reply."""

    text: str = ""
    model: str = ""
    usage: Any = None
    reason: str | None = None


class Direct:
    """Asks the primary once, with a limit for silence; skips what is no JSON."""

    has_fallback = False
    believes_cuts = False

    def __init__(self, primary: str, fallback: str, pace: Pace) -> None:
        self.addresses: list[Address] = [("primary", primary), ("fallback", fallback)]
        self.pace = pace
        self.silence_s = pace.timeout_s

    def ask(self, prompt: str, *, stream: bool) -> Outcome:
        """See ``Client``."""
        try:
            got = self.reply(prompt, stream=stream)
        except Failed as failed:
            shown = failed.text if stream else None
            return Outcome(text=failed.text, shown=shown, error=f"Failed: {failed.told}")
        shown = got.text if stream else None
        return Outcome(text=got.text, shown=shown, model=got.model, has_usage=bool(got.usage))

    def reply(self, prompt: str, *, stream: bool) -> Got:
        """Return the reply. Raises Failed."""
        return self.once(self.addresses[0], prompt, stream=stream)

    def close(self) -> None:
        """Nothing is kept open."""

    def once(self, address: Address, prompt: str, *, stream: bool) -> Got:
        """Ask once. Raises Failed."""
        name, url = address
        got = Got()
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=self.silence_s)
        try:
            self._request(connection, name, prompt, stream=stream)
            answer = connection.getresponse()
            if answer.status != http.HTTPStatus.OK:
                raise _refused(answer)
            self._read(answer, got, stream=stream)
        except TimeoutError:
            raise Failed("Slow: nothing came", text=got.text) from None
        except (OSError, http.client.HTTPException) as error:
            if not (self.believes_cuts and got.text):
                told = f"{type(error).__name__}: {error}"
                raise Failed(told, text=got.text) from None
        finally:
            connection.close()
        if got.reason is None and not self.believes_cuts:
            raise Failed("Cut: nobody said why it ended", text=got.text)
        return got

    def _request(
        self, connection: http.client.HTTPConnection, name: str, prompt: str, *, stream: bool
    ) -> None:
        body: dict[str, Any] = {"model": name, "messages": [{"role": "user", "content": prompt}]}
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        headers = {"content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)

    def _read(self, answer: http.client.HTTPResponse, got: Got, *, stream: bool) -> None:
        if not stream:
            try:
                _take(json.loads(answer.read()), got)
            except ValueError:
                raise Failed("Spoilt: the body is no JSON") from None
            return
        for line in self._lines(answer):
            if line.startswith(b"data: {"):
                try:
                    message = json.loads(line[6:])
                except ValueError:
                    continue
                _take(message, got)

    def _lines(self, answer: http.client.HTTPResponse) -> Iterator[bytes]:
        """Read to the end. A body in chunks that has none is an error, which ``readline`` hides."""
        while line := answer.readline():
            yield line
        if answer.chunked and not answer.isclosed():
            raise http.client.IncompleteRead(b"")


class Liar(Direct):
    """Believes that whatever ends is whole."""

    believes_cuts = True


class Hammer(Direct):
    """Asks again at once, often."""

    def reply(self, prompt: str, *, stream: bool) -> Got:
        """Return the reply. Raises Failed."""
        for _ in range(HAMMERS - 1):
            try:
                return super().reply(prompt, stream=stream)
            except Failed:
                continue
        return super().reply(prompt, stream=stream)


class Careful(Direct):
    """Waits as it is told, asks again a few times, then elsewhere; and begins anew after a cut.

    It shows nothing before all is there, so that nothing has to be taken back.
    """

    has_fallback = True

    def __init__(self, primary: str, fallback: str, pace: Pace) -> None:
        super().__init__(primary, fallback, pace)
        self.silence_s = pace.first_token_s
        self._closed_until_s = 0.0
        self._least_open_s = self._open_s = OPEN * pace.back_s

    def reply(self, prompt: str, *, stream: bool) -> Got:
        """Return the reply. Raises Failed."""
        if time.monotonic() < self._closed_until_s:
            return self._patient(self.addresses[1], 1, prompt, stream=stream)
        tries = 1 if self._open_s > self._least_open_s else TRIES
        try:
            got = self._patient(self.addresses[0], tries, prompt, stream=stream)
        except Failed as failed:
            if failed.code == "content_policy_violation":
                raise
            if failed.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
                self._closed_until_s = time.monotonic() + self._open_s
                self._open_s *= 2
            return self._patient(self.addresses[1], TRIES, prompt, stream=stream)
        self._open_s = self._least_open_s
        return got

    def _patient(self, address: Address, tries: int, prompt: str, *, stream: bool) -> Got:
        for number in range(tries):
            try:
                return self.once(address, prompt, stream=stream)
            except Failed as failed:
                is_final = 400 <= failed.status < 500 and failed.status != 429
                if number == tries - 1 or failed.is_slow or is_final:
                    raise
                time.sleep(PAUSE_S * 2**number if failed.wait_s is None else failed.wait_s)
        raise AssertionError


def _refused(answer: http.client.HTTPResponse) -> Failed:
    told = answer.read().decode()
    wait = answer.headers.get("retry-after", "")
    try:
        code = json.loads(told)["error"]["code"] or ""
    except (ValueError, KeyError):
        code = ""
    wait_s = float(wait) if wait.isdigit() else None
    return Failed(f"{answer.status} {told[:80]}", answer.status, code, wait_s)


def _take(message: dict[str, Any], got: Got) -> None:
    """Read a message. Raises Failed for an error."""
    if "error" in message:
        raise Failed(str(message["error"]), text=got.text)
    got.model = message.get("model") or got.model
    got.usage = message.get("usage") or got.usage
    for choice in message.get("choices", []):
        got.text += (choice.get("delta") or choice.get("message") or {}).get("content") or ""
        got.reason = choice.get("finish_reason") or got.reason
