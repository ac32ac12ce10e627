"""llama.cpp's own programs as contenders of ``engine.py``, and environments for other packages.

``llama-batched-bench`` is the limit: C++ alone, random tokens, nothing sampled, no text.
``llama-server`` is asked by threads of this process with the standard library's HTTP client, raw
completions as events; or by threads of another process with the SDK that programs really use
(``sdk_clients.py``). Its processor time and that of its clients are added.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
from burst import Burst, Track, Turn
from crowd import LOOPBACK, Setup, Threads, free_port
from harness import Child, ChildDied

READY_S = 60.0
"""A server that is not ready after so long is given up."""
LOOK_S = 0.05
HANGS_S = 300.0

TRIES = 3
"""``llama-batched-bench`` writes in a thread, and on a busy machine ends before it has written."""

EVENT = b"data: "

Complete = Callable[[list[str], int], Burst]
"""Completes prompts, all at once, with so many tokens each."""


def flags(setup: Setup, *, unified: bool) -> list[str]:
    """Return what both programs are told."""
    counts = {
        "-c": setup.context,
        "-b": setup.batch,
        "-ub": setup.batch,
        "-t": setup.threads,
        "-tb": setup.threads,
    }
    pairs = [text for name, count in counts.items() for text in (name, str(count))]
    return ["-m", setup.model, "-fa", "on", *pairs, *(["-kvu"] if unified else [])]


def batched_bench(program: Path, setup: Setup, sizes: tuple[int, int], *, unified: bool) -> Turn:
    """Run the limit once, with prompts and replies of so many tokens. Raises ChildDied.

    The first token of a reply comes out of the step that read the prompt: it takes one step less
    than there are tokens, here as everywhere.
    """
    prompt, tokens = sizes
    counts = {"-npp": prompt, "-ntg": tokens - 1, "-npl": setup.sequences}
    pairs = [text for name, count in counts.items() for text in (name, str(count))]
    command = [str(program), *flags(setup, unified=unified), *pairs, "--output-format", "jsonl"]
    for _ in range(TRIES):
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=HANGS_S, check=True
            )
        except (subprocess.SubprocessError, OSError) as error:
            raise ChildDied(f"{program.name}: {error}") from error
        for line in done.stdout.splitlines():
            if line.startswith("{"):
                said = json.loads(line)
                return Turn(setup.sequences * tokens, said["t"], said["speed_tg"])
    raise ChildDied(f"{program.name} ended {TRIES} times without saying how fast it was")


class Server:
    """``llama-server``, ready for a caller for each sequence."""

    def __init__(self, program: Path, setup: Setup, *, unified: bool) -> None:
        self.port = free_port()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
        address = ["--host", LOOPBACK, "--port", str(self.port), "--no-webui"]
        slots = ["-np", str(setup.sequences)]
        self._process = subprocess.Popen(
            [str(program), *flags(setup, unified=unified), *slots, *address],
            stdout=subprocess.DEVNULL,
            stderr=self._log,
        )
        try:
            self._wait()
        except ChildDied:
            self.close()
            raise

    def cpu_s(self) -> float:
        """Return its processor time so far."""
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def close(self) -> None:
        """End the server."""
        self._process.terminate()
        try:
            self._process.wait(READY_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _wait(self) -> None:
        """Wait until the model is loaded."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and self._process.poll() is None:
            connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=READY_S)
            try:
                connection.request("GET", "/health")
                if connection.getresponse().status == http.HTTPStatus.OK:
                    return
            except OSError:
                pass  # it does not listen yet
            finally:
                connection.close()
            time.sleep(LOOK_S)
        self._log.seek(0)
        last = self._log.read().decode(errors="replace").strip().splitlines()[-3:]
        raise ChildDied(f"llama-server was not ready after {READY_S:.0f} s: {' | '.join(last)}")


class RawClients(Threads):
    """Callers that do as little as HTTP allows."""

    def __init__(self, port: int, callers: int) -> None:
        super().__init__(callers)
        self._port = port

    def burst(self, prompts: list[str], tokens: int) -> Burst:
        """Complete prompts. Raises ChildDied."""
        try:
            return Burst.parse(self.run(prompts, tokens))
        except (OSError, http.client.HTTPException) as error:
            raise ChildDied(f"llama-server: {type(error).__name__}: {error}") from error

    def reply(self, track: Track, prompt: str, tokens: int) -> None:
        """See ``Threads``."""
        job = {"prompt": prompt, "n_predict": tokens, "temperature": 0.0, "stream": True}
        job |= {"ignore_eos": True, "cache_prompt": False}
        made = 0
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=HANGS_S)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/completion", json.dumps(job), headers)
            for line in connection.getresponse():
                if line.startswith(EVENT):
                    event = json.loads(line[len(EVENT) :])
                    track.take(event["content"])
                    made = event["tokens_predicted"]
        finally:
            connection.close()
        track.end(made)


@contextmanager
def raw_clients(program: Path, setup: Setup, *, unified: bool) -> Iterator[Complete]:
    """Run a server and raw clients of it as long as the block lasts."""
    with (
        closing(Server(program, setup, unified=unified)) as server,
        closing(RawClients(server.port, setup.sequences)) as clients,
    ):
        yield _with_server(server, clients.burst)


@contextmanager
def sdk_clients(program: Path, setup: Setup, python: Path) -> Iterator[tuple[Complete, Child]]:
    """Run a server, and clients of it in a process of their own, as long as the block lasts."""
    script = str(Path(__file__).with_name("sdk_clients.py"))
    with closing(Server(program, setup, unified=True)) as server:
        numbers = map(str, (server.port, setup.sequences))
        with Child("sdk_clients", (str(python), script, *numbers)) as child:

            def burst(prompts: list[str], tokens: int) -> Burst:
                return Burst.parse(child.ask(prompts=prompts, tokens=tokens))

            yield _with_server(server, burst), child


def _with_server(server: Server, clients: Complete) -> Complete:
    """Count the server's processor time beside that of its clients."""

    def complete(prompts: list[str], tokens: int) -> Burst:
        before_s = server.cpu_s()
        burst = clients(prompts, tokens)
        burst.cpu_s += server.cpu_s() - before_s
        return burst

    return complete


def python_with(package: str, envs: Path) -> Path:
    """Return the interpreter of an environment with a package, made unless it is there.

    Raises ChildDied if pip cannot install it, as without a network.
    """
    folder = envs / package
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        venv.create(folder, clear=True, with_pip=True)
        command = [str(python), "-m", "pip", "install", "-qq", "--only-binary=:all:", package]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ChildDied(f"pip could not install {package}: {done.stderr.strip()[-300:]}")
        (folder / "installed").touch()
    return python
