"""Real servers that speak HTTP, as child processes on ports of this machine.

llama-server, the proxy of LiteLLM and llama_cpp.server, each made of what an environment variable
names; without it a test fails. Each wants a key, needs no network, and ends with its block, or with
the tests, however those end.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import attrs
import peers
import pytest

from llmdispatcher.vendors.llamacpp.vendor import embedded

LLAMA_SERVER = "LLMDISPATCHER_LLAMA_SERVER"
LITELLM = "LLMDISPATCHER_LITELLM"
LLAMA_CPP_SERVER = "LLMDISPATCHER_LLAMA_CPP_SERVER"

KEY = "sk-local-0123456789abcdef"
"""What each of them wants."""

MODEL = embedded().model_path
ALIAS = "demo"
"""What the servers that are told a name for it call the model."""

START_S = 150.0
"""For what takes ten seconds at most: LiteLLM imports for long."""

WAIT_S = 60.0
POLL_S = 0.01

TETHER = (sys.executable, "-S", str(Path(__file__).parent / "upstream" / "tether.py"))
"""Without site packages: coverage, which measures children too, would take half a second."""


def program(variable: str, content: str) -> str:
    """Return the path that an environment variable holds; without one, the test fails."""
    path = os.environ.get(variable, "")
    if not Path(path).is_file():
        pytest.fail(
            f"{variable} must name {content}, and is {path!r}; .ci/run shows how it is made, or"
            " leave these tests out with -m 'not upstream'",
            pytrace=False,
        )
    return path


def until(done: Callable[[], bool], wait_s: float = WAIT_S) -> None:
    """Wait until something is so."""
    deadline_s = time.monotonic() + wait_s
    while not done():
        assert time.monotonic() < deadline_s, "it never came to be"
        time.sleep(POLL_S)


@attrs.frozen(kw_only=True)
class Recipe:
    """How a server is run."""

    command: Callable[[int], list[str]]
    """Of a port."""
    probe: str
    """Answers 200 once it serves."""
    environment: Mapping[str, str] = attrs.field(factory=dict)


class RealServer:
    """One of them; a context manager, within which it serves. It may be ended and started again."""

    def __init__(self, recipe: Recipe, log: Path) -> None:
        """``log`` is the file that it writes what it prints to."""
        self._recipe, self._log = recipe, log
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        try:
            return self.ready()
        except BaseException:
            self.kill()
            raise

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, at the port that it has had; do not wait."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [*TETHER, *self._recipe.command(self.port)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._recipe.environment},
                start_new_session=True,  # a Ctrl-C is for the tests, which then end it
            )

    def ready(self) -> Self:
        """Wait until it serves."""
        until(lambda: self.asked(self._recipe.probe) == http.HTTPStatus.OK, START_S)
        return self

    def kill(self) -> None:
        """End it at once, and all that it started; the port is free then.

        The tether may be gone before what it started, which listens as long as it is there.
        """
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdin.close()
        process.wait(WAIT_S)
        until(lambda: not self._is_listened_at())

    def _is_listened_at(self) -> bool:
        with socket.socket() as caller:
            caller.settimeout(WAIT_S)
            return caller.connect_ex(("127.0.0.1", self.port)) == 0

    def asked(self, path: str) -> int | None:
        """Return the status of an answer; None for none yet. What has ended fails the test."""
        assert self._process is not None
        assert self._process.poll() is None, f"it ended: {self.told()}"
        try:
            return self.ask(path)[0]
        except (OSError, http.client.HTTPException):
            return None

    def ask(self, path: str, body: object = None) -> tuple[int, Any]:
        """Return status and JSON, or text, of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        try:
            method, sent = ("GET", None) if body is None else ("POST", json.dumps(body))
            connection.request(method, path, sent, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        with contextlib.suppress(ValueError):
            return answer.status, json.loads(text)
        return answer.status, text

    def told(self) -> str:
        """Return the end of what it printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-5000:]


def free_port() -> int:
    """Return a port that nobody listens at now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def llama_server(folder: Path, model: Path = MODEL, *flags: str) -> RealServer:
    """Make llama-server with a model, of four slots of 512 tokens on one thread."""
    binary = program(LLAMA_SERVER, "the program llama-server, which .ci/upstream builds")

    def command(port: int) -> list[str]:
        return [
            *(binary, "--model", str(model), "--host", "127.0.0.1", "--port", str(port)),
            *("--threads", "1", "--threads-batch", "1", "--gpu-layers", "0", "--parallel", "4"),
            *("--api-key", KEY, "--slots", "--no-ui", "--offline", "--fit", "off"),
            *("--ctx-size", "2048", *peers.server_flags(), *flags),
        ]

    return RealServer(Recipe(command=command, probe="/health"), folder / "llama-server.log")


def slots(server: RealServer) -> int:
    """Return how many of llama-server's slots are busy."""
    return sum(slot["is_processing"] for slot in server.ask("/slots")[1])


def litellm(folder: Path, served: RealServer) -> RealServer:
    """Make the proxy of LiteLLM in front of a server, with a price and without a database."""
    python = program(LITELLM, "a Python that has litellm[proxy]")
    parameters = {
        "model": f"openai/{ALIAS}",
        "api_base": f"{served.url}/v1",
        "api_key": KEY,
        "input_cost_per_token": 0.000001,
        "output_cost_per_token": 0.000002,
    }
    config = folder / "litellm.yaml"  # JSON is YAML
    config.write_text(
        json.dumps(
            {
                "model_list": [{"model_name": ALIAS, "litellm_params": parameters}],
                "general_settings": {"master_key": KEY},
                "litellm_settings": {"telemetry": False, "num_retries": 0},
            }
        ),
        encoding="utf-8",
    )

    def command(port: int) -> list[str]:
        return [
            *(python, "-m", "litellm.proxy.proxy_cli", "--config", str(config)),
            *("--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"),
        ]

    quiet = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches its prices
        "LITELLM_TELEMETRY": "False",
        "LITELLM_LOG": "ERROR",
        "DISABLE_ADMIN_UI": "True",
        "NO_PROXY": "127.0.0.1",
    }
    recipe = Recipe(command=command, probe="/health/readiness", environment=quiet)
    return RealServer(recipe, folder / "litellm.log")


def llama_cpp_server(folder: Path, model: Path = MODEL, *flags: str) -> RealServer:
    """Make the server of llama-cpp-python with a model."""
    python = program(LLAMA_CPP_SERVER, "a Python that has llama-cpp-python[server]")

    def command(port: int) -> list[str]:
        return [
            *(python, *peers.binding_server(), "--model", str(model), "--model_alias", ALIAS),
            *("--host", "127.0.0.1", "--port", str(port), "--api_key", KEY),
            *("--n_threads", "1", "--n_ctx", "512", *flags),
            # else whoever asks for the list of models cuts the stream that is on its way
            *("--interrupt_requests", "False"),
        ]

    recipe = Recipe(command=command, probe="/v1/models")
    return RealServer(recipe, folder / "llama_cpp_server.log")
