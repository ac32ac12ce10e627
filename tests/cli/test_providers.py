"""``llmdispatcher providers``: who is there, who would answer, and why somebody would not."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import attrs
import pytest
from fresh import in_a_new_process
from http_hosts import HOSTS
from loopback import Answer, Got, Loopback
from model_stores import DEMO, file
from waits import WAIT_S

from llmdispatcher import LlamaCpp, Ollama, OpenAI, OpenAICompatible, Scripted
from llmdispatcher.cli import main
from llmdispatcher.providers import Provider, Standing, look
from llmdispatcher.stock import CLOUDS
from llmdispatcher.vendors.contract import Engine, Report, VendorSpec
from llmdispatcher.vendors.http import scout as scouting
from llmdispatcher.vendors.http.preset import row
from llmdispatcher.vendors.llamacpp import choice

KEYS = ["name", "status", "detail", "local", "address", "latency_s", "models", "priority"]
"""Of each object; programs rely on them."""

SCOUT = scouting.Scout


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without anything in it, no keys, and no servers."""
    names = {name for cloud in CLOUDS for name in row(cloud).key_env}
    for name in [*os.environ]:
        if name in names or name.startswith(("OLLAMA_", "HF_", "HUGGINGFACE_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(scouting, "Scout", lambda: SCOUT([]))
    monkeypatch.setattr(look, "__defaults__", ((), WAIT_S))  # PROBE_S is bound there
    monkeypatch.setattr("llmdispatcher.providers.COUNT_S", WAIT_S)
    return tmp_path


def shown(capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, dict[str, Any]]:
    """Run the command, and return what it tells by name."""
    assert main(["providers", "--json"]) == code
    return {each["name"]: each for each in json.loads(capsys.readouterr().out)}


def listing(got: Got) -> Answer:
    """Answer as a server of the OpenAI API with two models."""
    if got.path.endswith("/models"):
        return Answer.json({"object": "list", "data": [{"id": "a"}, {"id": "b"}]})
    return Answer.json({"status": "ok"})


def only(spec: VendorSpec, limit_s: float = WAIT_S) -> Provider:
    """Look at one vendor."""
    (found,) = look([spec], limit_s)
    return found


# -- everybody ---------------------------------------------------------------------------------


def test_a_fresh_machine_tells_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    """Of all vendors: which server does not run, and which variable is not set."""
    told = shown(capsys)

    assert [*told["embedded"]] == KEYS
    assert (told["embedded"]["status"], told["embedded"]["models"]) == ("ready", 1)
    assert (told["llamacpp"]["status"], told["llamacpp"]["models"]) == ("ready", 0)
    for name in ("ollama", "lmstudio", "vllm", "llama-server", "localai"):
        assert told[name]["status"] == "not running"
        assert told[name]["local"]
        assert told[name]["address"].startswith("http://127.0.0.1:")
    for name in CLOUDS:
        assert told[name]["status"] == "key missing"
        assert not told[name]["local"]
        assert told[name]["detail"] == f"set {' or '.join(row(name).key_env)}"
    assert [each["local"] for each in told.values()] == [True] * 7 + [False] * len(CLOUDS)


def test_people_see_a_table(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    """A line a vendor, with the reason; files are counted, not read."""
    file(home / "models" / "a.gguf")
    (home / "models" / "b.gguf").write_bytes(b"not read")

    assert main(["providers"]) == 0
    lines = capsys.readouterr().out.splitlines()

    assert lines[0].split() == ["provider", "status", "models"]
    assert lines[1].split() == ["embedded", "ready", "1"]
    assert lines[2].split() == ["llamacpp", "ready", "2"]
    assert any(
        line.split() == ["openai", "key", "missing", "set", "OPENAI_API_KEY"] for line in lines
    )


NOBODY = """
import json, sys
from llmdispatcher.cli import main
from llmdispatcher.vendors.http import scout

scout.Scout._open = lambda self: []
code = main(["providers"])
print(json.dumps([code, [*sys.modules]]))
"""
"""The command where no server runs, whatever may run on this machine; then what it loaded."""


def test_with_nothing_there_no_http_client_is_loaded() -> None:
    """Which is most of what the command would take."""
    *told, last = in_a_new_process(NOBODY).splitlines()
    code, loaded = json.loads(last)

    assert code == 0
    assert any(line.startswith("embedded") for line in told)
    assert "llmdispatcher.providers" in loaded
    assert [name for name in ("httpx2", "llama_cpp", "yaml", "sqlite3") if name in loaded] == []


def test_a_server_that_runs_here_answers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With how long it took, and how many models it has; and is not said to be missing."""
    host = next(host for host in HOSTS if host.preset == "ollama")

    def answer(got: Got) -> Answer:
        if got.path == "/":
            return Answer(chunks=(b"Ollama is running",))
        if got.path.endswith("/tags"):
            return Answer(headers={"content-type": "application/json"}, chunks=(host.models,))
        return Answer.json({"version": "0.33.0", "models": []})

    monkeypatch.setattr(scouting, "CONNECT_S", WAIT_S)
    monkeypatch.setattr(scouting, "LOOK_S", WAIT_S)
    with Loopback(answer) as server:
        port = int(server.url.rpartition(":")[2])
        monkeypatch.setattr(scouting, "Scout", lambda: SCOUT([(port, "/")]))
        told = shown(capsys)

    assert told["ollama"]["status"] == "answers"
    assert told["ollama"]["models"] >= 1
    assert told["ollama"]["latency_s"] > 0
    assert told["ollama"]["address"] == server.url


def test_the_address_of_ollama_may_be_set(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its own programs are told; there it is asked."""
    with Loopback(lambda _: Answer(status=500)) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        told = shown(capsys)

    assert told["ollama"]["status"] == "broken"
    assert server.got


@pytest.mark.parametrize(
    ("variable", "value", "detail"),
    [("AZURE_OPENAI_API_KEY", "k", "--base-url"), ("GROQ_API_KEY", "two\nlines", "GROQ_API_KEY")],
)
def test_a_cloud_that_cannot_be_asked_says_why(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, detail: str
) -> None:
    """Without being asked."""
    monkeypatch.setenv(variable, value)

    (told,) = [each for each in look() if each.standing is Standing.BROKEN]

    assert variable.startswith(told.name.upper())
    assert detail in told.detail


def test_a_cloud_that_has_a_key_is_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only that one."""
    with Loopback(lambda _: Answer(status=502)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("GROQ_API_KEY", "a-secret-key")
        told = shown(capsys)

    assert told["groq"]["status"] in {"broken", "not running"}
    assert told["groq"]["detail"]
    assert "a-secret-key" not in json.dumps(told)
    assert {got.path.partition(":")[0] for got in proxy.got} == {"api.groq.com"}


def test_without_an_engine_files_cannot_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is told with the commands that install one; the exit code says that nobody is left."""
    monkeypatch.setattr(choice, "look", choice.There)

    told = shown(capsys, code=1)

    assert told["embedded"]["status"] == told["llamacpp"]["status"] == "broken"
    assert "pip install" in told["llamacpp"]["detail"]


# -- one vendor --------------------------------------------------------------------------------


def test_a_vendor_whose_models_are_named_is_asked_whether_it_is_well() -> None:
    """It need not list them."""
    with Loopback(listing) as server:
        found = only(OpenAICompatible(base_url=server.url, models=["x", "y", "z"]))

    assert (found.standing, found.models) == (Standing.ANSWERS, 3)
    assert server.got


def test_a_key_that_is_refused_is_told() -> None:
    """As broken, and not as missing."""
    refused = Answer(
        status=401,
        headers={"content-type": "application/json"},
        chunks=(b'{"error":{"message":"Incorrect API key provided","type":"invalid_request"}}',),
    )
    with Loopback(lambda _: refused) as server:
        found = only(OpenAI(base_url=server.url, api_key="k"))

    assert (found.standing, found.models) == (Standing.BROKEN, None)
    assert "key" in found.detail


def test_a_key_that_is_missing_is_told() -> None:
    """Of a vendor that needs one."""
    found = only(OpenAI())

    assert found.standing is Standing.KEY_MISSING
    assert "OPENAI_API_KEY" in found.detail


def test_a_server_that_is_gone_does_not_run() -> None:
    """With its address, and without what may be a password in it."""
    with Loopback(listing) as server:
        pass
    for spec in (Ollama(base_url=server.url), Ollama(base_url=server.url, models=["x"])):
        found = only(spec)
        assert found.local
        assert found.latency_s is None
        assert found.address == server.url
    assert only(Ollama(base_url=server.url)).standing is Standing.NOT_RUNNING


def test_servers_that_hang_cost_no_more_than_the_bound() -> None:
    """However many there are: all are waited for at once, and said to be broken."""

    def hang(_: Got) -> Answer:
        return Answer(headers={"content-type": "application/json"}, chunks=(1000.0, b"{}"))

    with Loopback(hang) as stuck:
        specs = [Ollama(name=f"stuck{number}", base_url=stuck.url) for number in range(50)]
        began_s = time.monotonic()
        found = look(specs, 0.3)
        passed_s = time.monotonic() - began_s

    assert {each.standing for each in found} == {Standing.BROKEN}
    assert all("0.3 s" in each.detail or "in time" in each.detail for each in found)
    assert passed_s < WAIT_S


def test_vendors_are_asked_side_by_side() -> None:
    """Each of these answers only when the others have been asked as well."""
    together = threading.Barrier(3)

    def answer(got: Got) -> Answer:
        if got.path.endswith("/models"):
            together.wait(WAIT_S)
        return listing(got)

    with Loopback(answer) as one, Loopback(answer) as two, Loopback(answer) as three:
        specs = [
            OpenAICompatible(name=f"v{number}", base_url=server.url)
            for number, server in enumerate((one, two, three))
        ]
        found = look(specs, WAIT_S)

    assert [(each.name, each.standing) for each in found] == [
        ("v0", Standing.ANSWERS),
        ("v1", Standing.ANSWERS),
        ("v2", Standing.ANSWERS),
    ]


def test_a_vendor_that_cannot_be_started_is_broken() -> None:
    """With the words of its error."""
    found = only(OpenAI(base_url="ftp://x", api_key="k"))

    assert found.standing is Standing.BROKEN
    assert "base_url" in found.detail


@attrs.frozen
class Configured:
    """A vendor that was given a priority."""

    name: str = "mine"
    priority: int = 3

    def start(self, report: Report) -> Engine:
        """Start another."""
        return Scripted("x", name=self.name).start(report)


def test_vendors_that_are_given_are_told_in_their_order(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And nobody else, each with its priority."""
    given: list[VendorSpec] = [Configured(), Scripted("x", name="other")]
    assert main(["providers", "--json"], vendors=given) == 0
    told = json.loads(capsys.readouterr().out)

    assert [(each["name"], each["priority"]) for each in told] == [("mine", 3), ("other", None)]
    assert {each["status"] for each in told} == {"ready"}
    assert main(["providers"], vendors=given) == 0
    assert "priority" in capsys.readouterr().out.splitlines()[0]


def test_a_file_that_is_given_is_not_loaded(tmp_path: Path) -> None:
    """It is ready where its file is, and something that runs it."""
    assert only(LlamaCpp(DEMO)).standing is Standing.READY
    gone = only(LlamaCpp(tmp_path / "gone.gguf"))
    assert gone.standing is Standing.BROKEN
    assert "no file" in gone.detail
