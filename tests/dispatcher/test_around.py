"""A dispatcher without vendors uses the servers of this machine, and only those that stay on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from http_hosts import HOSTS, Host
from loopback import Answer, Got, Loopback
from waits import SOON_S, WAIT_S

from llmdispatcher import ConfigError, Dispatcher, Refused, Scripted
from llmdispatcher.around import Around
from llmdispatcher.vendors.contract import Engine, VendorSpec
from llmdispatcher.vendors.http import scout as scouting
from llmdispatcher.vendors.http.scout import Scout


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give servers as long to say who they are as a slow machine takes."""
    monkeypatch.setattr(scouting, "CONNECT_S", WAIT_S)
    monkeypatch.setattr(scouting, "LOOK_S", WAIT_S)
    monkeypatch.setattr("llmdispatcher.around.LIST_S", WAIT_S)


def playing(preset: str) -> Callable[[Got], Answer]:
    """Answer as a server of a kind does, to those who look who it is, and to requests."""
    host: Host = next(host for host in HOSTS if host.preset == preset)
    says = host.says(text="Hello from here.", usage=(3, 4, 0))

    def answer(got: Got) -> Answer:
        if got.method == "POST":
            return says(got) if "messages" in (got.body or {}) else Answer.json({"done": True})
        if preset == "ollama" and got.path == "/":
            return Answer(chunks=(b"Ollama is running",))
        if preset == "llama-server":
            head = {"server": "llama.cpp", "content-type": "application/json"}
            body = host.models if got.path.endswith("/models") else b'{"status":"ok"}'
            return Answer(headers=head, chunks=(body,))
        if preset == "litellm" and got.path == "/health/liveliness":
            return Answer.json("I'm alive!")
        if got.path.endswith(("/models", "/tags")):
            return Answer(headers={"content-type": "application/json"}, chunks=(host.models,))
        return Answer.json({"version": "0.33.0", "models": []})

    return answer


class Registered:
    """Takes in what is found, as a dispatcher does."""

    def __init__(self) -> None:
        self.specs: list[Any] = []
        self.engines: list[Engine] = []

    def __call__(self, spec: VendorSpec) -> Engine:
        """Start it."""
        if spec.name in {known.name for known in self.specs}:
            raise ConfigError([])
        self.specs.append(spec)
        engine = spec.start(lambda _: None)
        self.engines.append(engine)
        return engine


@pytest.fixture
def registered() -> Iterator[Registered]:
    """Whoever registers; closed in the end."""
    made = Registered()
    yield made
    for engine in made.engines:
        engine.close()


def paths(preset: str) -> tuple[str, ...]:
    """Return what a kind of server is asked."""
    return {
        "ollama": ("/",),
        "llama-server": ("/health", "/props"),
        "litellm": ("/health/liveliness",),
        "openai-compatible": ("/v1/models",),
    }[preset]


def scout(*servers: tuple[str, Loopback]) -> Scout:
    """Look where the test's servers listen."""
    return Scout([(server.port, path) for preset, server in servers for path in paths(preset)])


@pytest.mark.usefixtures("_patient")
@pytest.mark.parametrize("preset", ["ollama", "llama-server"])
def test_a_server_is_found_and_serves(preset: str, registered: Registered) -> None:
    """It is registered under its kind's name, with its models, as a local one."""
    with Loopback(playing(preset)) as server:
        Around(registered, scout((preset, server))).found().result(WAIT_S)
        (spec,) = registered.specs
        with Dispatcher(spec) as d:
            reply = d.send("Hello?", max_tokens=9)

    assert (spec.name, spec.local) == (preset, True)
    assert registered.engines[0].cards()
    assert (reply.text, reply.vendor, reply.cost_microusd) == ("Hello from here.", preset, 0)


@pytest.mark.usefixtures("_patient")
@pytest.mark.parametrize("preset", ["litellm", "openai-compatible"])
def test_what_may_pass_text_on_is_left_out(preset: str, registered: Registered) -> None:
    """A proxy, and whatever cannot be told from one, is found and not used."""
    with Loopback(playing(preset)) as server:
        look = scout((preset, server))
        Around(registered, look).found().result(WAIT_S)
        assert [found.landmark.preset for found in look.look()] == [preset]

    assert not registered.specs


@pytest.mark.usefixtures("_patient")
def test_two_of_a_kind_have_two_names(registered: Registered) -> None:
    """The second bears its port."""
    with Loopback(playing("ollama")) as one, Loopback(playing("ollama")) as two:
        Around(registered, scout(("ollama", one), ("ollama", two))).found().result(WAIT_S)

    assert [spec.name for spec in registered.specs] == ["ollama", f"ollama-{two.port}"]


def test_a_look_is_short_whoever_listens(registered: Registered) -> None:
    """Servers that accept and say nothing, and ports that nobody has, cost a tenth of a second."""
    with Loopback(lambda _: Answer.sse([2 * SOON_S])) as silent:
        look = Scout([(silent.port, "/"), *((port, "/") for port in (1, 9, 7))])
        Scout([(silent.port, "/")]).look()  # the HTTP client is imported now
        began = time.monotonic()
        Around(registered, look).found().result(WAIT_S)
        assert time.monotonic() - began < SOON_S

    assert not registered.specs


@pytest.mark.usefixtures("_patient")
def test_what_was_found_is_kept() -> None:
    """A second look asks nobody."""
    with Loopback(playing("ollama")) as server:
        look = scout(("ollama", server))
        first, asked = look.look(), len(server.got)
        threads = [threading.Thread(target=look.look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert look.look() == first
        assert len(server.got) == asked == 1


@pytest.mark.usefixtures("_patient")
def test_a_dispatcher_that_was_closed_takes_nothing_in() -> None:
    """The look ends all the same."""

    def closed(_: VendorSpec) -> Engine:
        raise Refused("closed")

    with Loopback(playing("ollama")) as server:
        Around(closed, scout(("ollama", server))).found().result(WAIT_S)


def test_a_dispatcher_with_vendors_looks_for_none() -> None:
    """What the program named is what it uses."""
    with Dispatcher(Scripted("x")) as d:
        assert [vendor.name for vendor in d.vendors()] == ["scripted"]
        assert d.send("y").text == "x"
