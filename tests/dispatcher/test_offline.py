"""``Dispatcher(offline=True)``: no socket of the program or of a child leads off this machine."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from http_hosts import HOSTS
from llamacpp.server.served import Fake
from loopback import Answer, Got, Loopback
from plain_wire import closing, engine, in_loop, in_thread, place, told

from llmdispatcher import (
    AsyncDispatcher,
    Capability,
    ConfigError,
    Dispatcher,
    Image,
    ModelCard,
    NoCandidate,
    OfflineRefused,
    Ollama,
    OpenAI,
    OpenAICompatible,
    Request,
    Scripted,
    Text,
    Unsupported,
    user,
)
from llmdispatcher.vendors.contract import Confinable, Report, State
from llmdispatcher.vendors.http.home import addresses_here

TESTS = Path(__file__).parents[1]

ELSEWHERE = ("10.0.0.7", "192.0.2.1", "::ffff:192.0.2.1", "fe80::1", "2001:db8::1", "example.org")
"""And of names: what no resolver is asked for."""


def ollama(got: Got) -> Answer:
    """Answer as Ollama does, whatever is asked."""
    host = next(host for host in HOSTS if host.preset == "ollama")
    if got.path == "/api/chat":
        return host.says(text="Hello from here.", usage=(3, 4, 0))(got)
    if got.path == "/api/embed":
        assert host.vectors is not None
        return Answer(headers={"content-type": "application/json"}, chunks=(host.vectors(1),))
    return Answer(headers={"content-type": "application/json"}, chunks=(host.models,))


@attrs.frozen
class Audited:
    """What a program and its children did with sockets, and what it printed."""

    events: list[tuple[int, str, Any]]
    said: dict[str, Any]

    @property
    def strays(self) -> list[tuple[int, str, Any]]:
        """Whatever led, or might have led, off this machine."""
        return [each for each in self.events if each[1] != "start" and not _stays(each[2])]


def _stays(address: Any) -> bool:
    """Whether an address is this machine's: of a socket in a folder, or of loopback."""
    if isinstance(address, list):  # host and port
        address = address[0]
    elif isinstance(address, str) and address.startswith("/"):
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


@pytest.fixture
def program(tmp_path: Path) -> Iterator[list[str]]:
    """The words that start the program, whose server on this machine plays Ollama."""
    with Loopback(ollama) as server:
        fake = Fake.made(tmp_path / "fake")
        order = {"url": server.url, "executable": str(fake.executable), "strays": False}
        yield [sys.executable, "-W", "error", str(TESTS / "offline_program.py"), json.dumps(order)]


def environment(notes: Path, runtime: str) -> dict[str, str]:
    """Return that of the program: with keys of all clouds, proxies, and what watches it."""
    keys = "OPENAI ANTHROPIC GEMINI GROQ MISTRAL TOGETHER DEEPSEEK OPENROUTER LIGHTNING OLLAMA"
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    spared = ("COVERAGE", "NO_PROXY", "no_proxy")
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith(spared)},
        **{f"{name}_API_KEY": "sk-test-0123456789" for name in keys.split()},
        **dict.fromkeys(proxies, "http://192.0.2.1:3128"),
        "PYTHONPATH": str(TESTS / "audited"),
        "OFFLINE_AUDIT": str(notes),
        "LLMDISPATCHER_RUNTIME_DIR": runtime,
    }


def run(words: list[str], folder: Path) -> Audited:
    """Run the program, watched, and return what it did."""
    notes = folder / "notes"
    with tempfile.TemporaryDirectory(prefix="llmd-") as runtime:  # short, for a socket's path
        done = subprocess.run(
            words, capture_output=True, text=True, env=environment(notes, runtime), check=False
        )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in notes.read_text(encoding="utf-8").splitlines()]
    return Audited([tuple(each) for each in events], json.loads(done.stdout))


def test_a_program_that_is_offline_connects_to_this_machine_alone(
    program: list[str], tmp_path: Path
) -> None:
    """Neither it nor a child looks up a name, or connects, binds or sends to another.

    There is a vendor of every kind in it, and keys and proxies are set.
    """
    audited = run(program, tmp_path)

    assert not audited.strays
    connected = [event for event in audited.events if event[1] == "socket.connect"]
    started = [" ".join(words) for _, event, words in audited.events if event == "start"]
    assert len(connected) > 4
    assert any("worker.main" in words for words in started), "the worker was not watched"
    assert any("fake_llama_server" in words for words in started)
    assert audited.said["in_a_loop"] == "ok"
    left_out = audited.said["left_out"]
    assert left_out["openai/*"] == "offline, and api.openai.com is not this machine"
    assert left_out["named/*"] == left_out["openai/*"]
    assert left_out["sworn/*"] == "offline, and 192.0.2.1 is not this machine"
    assert left_out["unnamed/*"] == "offline, and gateway.invalid is not this machine"
    assert left_out["passes-on/m"] == "offline, and its server passes on what it is told"
    assert left_out["cloud/script"] == left_out["passes-on/m"]
    assert "a proxy may lead anywhere" in left_out["proxied/*"]
    assert {f"{name}/*" for name in ("anthropic", "gemini", "groq", "mistral")} <= left_out.keys()


def test_importing_opens_nothing(tmp_path: Path) -> None:
    """The package and all of its public names are there without a look at the network."""
    code = "import llmdispatcher as l; [getattr(l, name) for name in dir(l)]; print('{}')"

    assert [event for _, event, _ in run([sys.executable, "-c", code], tmp_path).events] == [
        "start"
    ]


def test_what_watches_it_notes_a_program_that_strays(program: list[str], tmp_path: Path) -> None:
    """A connection to an address elsewhere and a look-up of a name are both seen."""
    program[-1] = json.dumps({**json.loads(program[-1]), "strays": True})

    strays = run(program, tmp_path).strays

    asked = {event: json.dumps(address) for _, event, address in strays}
    assert "192.0.2.1" in asked["socket.connect"]
    assert "gateway.invalid" in asked["socket.getaddrinfo"]


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace sees what C does")
@pytest.mark.parametrize("strays", [False, True])
def test_the_system_sees_no_connection_elsewhere(
    program: list[str], tmp_path: Path, *, strays: bool
) -> None:
    """Whatever makes a system call, Python or not, names no address but this machine's."""
    program[-1] = json.dumps({**json.loads(program[-1]), "strays": strays})
    log = tmp_path / "calls"
    run(["strace", "-f", "-qq", "-e", "trace=%network", "-o", str(log), *program], tmp_path)

    calls = log.read_text(encoding="utf-8").splitlines()
    named = [line for line in calls if re.search(r"AF_INET6?\b.*(sin_addr|sin6_addr|inet_)", line)]
    here = re.compile(r'inet_addr\("127\.|inet_pton\(AF_INET6, "::1"')
    away = [line for line in named if not here.search(line)]
    assert len(named) > 2
    assert bool(away) is strays, away


def test_vendors_elsewhere_have_no_models_and_are_not_asked() -> None:
    """A cloud that was named is no candidate, and the refusal says why."""
    with Dispatcher(OpenAI(api_key="sk-0123456789", models=["gpt-5.4-mini"]), offline=True) as d:
        (vendor,) = d.vendors()
        assert (vendor.cards, vendor.status.state) == ((), State.FAILED)
        with pytest.raises(NoCandidate, match=r"openai\.com is not this machine"):
            d.send("Hello?", vendor="openai")
        with pytest.raises(NoCandidate):
            d.embed("x")
        with pytest.raises(NoCandidate):
            list(d.stream("x"))


def test_a_model_whose_server_passes_text_on_is_barred_everywhere() -> None:
    """It is in no ranking, and it can neither be loaded nor counted with."""
    cloud = Scripted("x", name="cloud", local=False)
    with Dispatcher(cloud, Scripted("y", name="here"), offline=True) as d:
        assert d.send("Hello?").vendor == "here"
        assert d.count_tokens("Hello?").vendor == "here"
        assert d.embed("Hello?").vendor == "here"
        with pytest.raises(NoCandidate, match="passes on what it is told"):
            d.send("Hello?", vendor="cloud")
        with pytest.raises(ValueError, match="cloud"):
            d.load("script", "cloud")


def test_what_is_local_is_used_in_both_worlds() -> None:
    """Servers of this machine serve as ever, by address and by name."""
    with Loopback(ollama) as server:
        spec = Ollama(base_url=server.url.replace("127.0.0.1", "localhost"), models=["m"])
        with Dispatcher(spec, offline=True) as d:
            assert d.send("Hello?").text == "Hello from here."

        async def main() -> str:
            async with AsyncDispatcher(spec, offline=True) as d:
                return (await d.send("Hello?")).text

        assert asyncio.run(main()) == "Hello from here."


def test_a_vendor_that_promises_nothing_is_refused() -> None:
    """Of a plug-in that does not say that it stays here, nothing is known."""

    @attrs.frozen
    class Plugin:
        name: str = "plugin"

        def start(self, report: Report) -> Any:
            raise AssertionError("it was started")

    with pytest.raises(ConfigError, match=r"vendor 'plugin'.*confined\(\)"):
        Dispatcher(Plugin(), offline=True)
    assert isinstance(Scripted("x"), Confinable)


@pytest.mark.parametrize("host", ELSEWHERE)
def test_an_address_elsewhere_is_refused_before_it_is_looked_up(host: str) -> None:
    """Any host that is not this machine raises, whoever asks."""
    with pytest.raises(OfflineRefused, match=re.escape(host)):
        addresses_here(host)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", ("127.0.0.1", "::1")),
        ("api.localhost", ("127.0.0.1", "::1")),
        ("127.0.0.9", ("127.0.0.9",)),
        ("[::1]", ("::1",)),
        ("0.0.0.0", ("127.0.0.1",)),  # noqa: S104 - where servers say that they listen
        ("::", ("::1",)),
    ],
)
def test_this_machine_is_connected_to_by_number(host: str, expected: tuple[str, ...]) -> None:
    """No resolver has a say in what localhost is."""
    assert addresses_here(host) == expected


@pytest.mark.parametrize("receive", [in_thread, in_loop])
@pytest.mark.parametrize("host", ["192.0.2.1", "gateway.invalid"])
def test_the_transport_itself_refuses(host: str, receive: Any) -> None:
    """Even an engine that was made for elsewhere opens no socket, in threads or in event loops."""
    away = place(f"http://{host}:9", loopback_only=True)
    with closing(engine("", place=away)) as made, pytest.raises(OfflineRefused, match=host):
        receive(made, Request.of("Hello?"))


@pytest.mark.parametrize("receive", [in_thread, in_loop])
def test_the_transport_finds_a_server_behind_a_name_of_this_machine(receive: Any) -> None:
    """Of the two numbers that localhost stands for, the one that answers is used."""
    with Loopback(lambda _: Answer.sse(told("Hi."))) as server:
        here = place(server.url.replace("127.0.0.1", "localhost"), loopback_only=True)
        with closing(engine("", place=here)) as made:
            assert receive(made, Request.of("Hello?"))


def test_a_server_is_given_no_address_to_fetch() -> None:
    """A picture that the server would have to fetch is refused; its bytes are not."""
    with Loopback(lambda _: Answer.json({})) as server:
        able = {Capability.CHAT, Capability.VISION}
        card = ModelCard(vendor="here", model="m", local=True, capabilities=able)
        spec = OpenAICompatible(base_url=server.url, models=[card], local=True)
        with Dispatcher(spec, offline=True) as d, pytest.raises(Unsupported, match="fetches"):
            d.send([user([Text("What is this?"), Image(url="http://192.0.2.1/x.png")])])
        assert not [got for got in server.got if got.method == "POST"]


def test_a_client_of_the_callers_own_is_not_trusted() -> None:
    """Its sockets are not ours to guard."""
    import httpx2  # noqa: PLC0415 - the only test that needs it

    with httpx2.Client() as client:
        spec = Ollama(models=["m"], client=client)
        with Dispatcher(spec, offline=True) as d:
            assert "a client of your own" in d.vendors()[0].status.detail
