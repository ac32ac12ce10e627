"""llama.cpp's own server as a child process, on a port of this machine that the system chooses."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import attrs
import peers

from llmdispatcher.vendors.llamacpp.plan.fit import BATCH_TOKENS

START_S = 60.0
"""How long it may take to load a small model and listen."""
ANSWER_S = 60.0
POLL_S = 0.01

TETHER = (sys.executable, "-S", str(Path(__file__).with_name("tether.py")))
"""Without site packages: coverage, which measures children too, would take half a second."""


@attrs.frozen(kw_only=True)
class Settings:
    """How to run a model: what our engine decides for itself, the server must be told."""

    model: Path
    context_tokens: int
    batch_tokens: int = BATCH_TOKENS
    """Both the logical and the physical batch."""
    cache_type: str = "f16"
    """How keys and values are stored; ``f32`` goes without flash attention, which rounds them."""

    @property
    def flash_attention(self) -> bool:
        """Whether to use it."""
        return self.cache_type != "f32"


class LlamaServer:
    """A running llama-server; leaving its block ends it."""

    def __init__(self, binary: Path, settings: Settings, log: Path) -> None:
        """Start it. What it prints goes to the file ``log``."""
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*TETHER, *_command(binary, settings)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C is for the tests, which then end it
            )
        self._port = 0

    def __enter__(self) -> Self:
        """Wait until it serves."""
        deadline = time.monotonic() + START_S
        try:
            while not self._serves():
                assert self._process.poll() is None, f"llama-server ended: {self._told()}"
                assert time.monotonic() < deadline, f"llama-server does not serve: {self._told()}"
                time.sleep(POLL_S)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.close()

    def close(self) -> None:
        """End it, and wait until it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(START_S)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask; an answer that is an error fails the test."""
        status, answer = self._ask("POST", path, json.dumps(body))
        assert status == http.HTTPStatus.OK, f"{path} answers {status}: {answer!r}"
        found: dict[str, Any] = json.loads(answer)
        return found

    def _serves(self) -> bool:
        # something stands behind the number: else it may not all be written yet
        found = re.search(r"listening on http://127\.0\.0\.1:(\d+)\D", self._told())
        if not found:
            return False
        self._port = int(found[1])
        return self._ask("GET", "/health")[0] == http.HTTPStatus.OK

    def _ask(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_S)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _told(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")[-5000:]


def _command(binary: Path, settings: Settings) -> list[str]:
    """One request at a time on one thread, and nothing kept from one to the next."""
    batch = str(settings.batch_tokens)
    return [
        str(binary),
        *("--model", str(settings.model)),
        *("--host", "127.0.0.1", "--port", "0", "--no-ui"),
        *("--ctx-size", str(settings.context_tokens), "--fit", "off"),
        *("--batch-size", batch, "--ubatch-size", batch),
        *("--flash-attn", "on" if settings.flash_attention else "off"),
        *("--cache-type-k", settings.cache_type, "--cache-type-v", settings.cache_type),
        *("--threads", "1", "--threads-batch", "1", "--gpu-layers", "0"),
        *("--parallel", "1", "--no-cache-prompt", "--cache-ram", "0"),
        *peers.server_flags(),
    ]
