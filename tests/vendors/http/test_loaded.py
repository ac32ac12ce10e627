"""Which models a local server has in memory: told where the server tells, and only there."""

from __future__ import annotations

from typing import Any

import pytest
from http_hosts import HOSTS, Host
from loopback import Answer, Got, Loopback

from llmdispatcher import Dispatcher
from llmdispatcher.models.errors import BadReply
from llmdispatcher.vendors.contract import State
from llmdispatcher.vendors.http.preset import Preset, row, wire

LM_STUDIO = {
    "models": [
        {"key": "here", "loaded_instances": [{"id": "here"}]},
        {"key": "away", "loaded_instances": []},
    ]
}
LM_STUDIO_OLD = {"data": [{"id": "here", "state": "loaded"}, {"id": "away", "state": "not-loaded"}]}
ROUTER = {
    "data": [
        {"id": "here", "status": {"value": "loaded"}},
        {"id": "away", "status": {"value": "unloaded"}},
    ]
}
ALONE = {"data": [{"id": "here", "meta": {"n_ctx": 512}}]}
OLLAMA = {"models": [{"name": "here", "model": "here", "size": 9, "size_vram": 9}]}


def made(preset: str) -> Any:
    """Make a dialect."""
    chosen = row(preset)
    return wire(Preset(preset)(), chosen, "127.0.0.1", local=True, streaming=True)


@pytest.mark.parametrize(
    ("preset", "path", "told"),
    [
        ("lmstudio", "/api/v1/models", LM_STUDIO),
        ("lmstudio", "/api/v1/models", LM_STUDIO_OLD),
        ("llama-server", "/models", ROUTER),
        ("llama-server", "/models", ALONE),
        ("ollama", "/api/ps", OLLAMA),
    ],
)
def test_a_server_that_tells_is_read(preset: str, path: str, told: object) -> None:
    """Each in its own form; a server of one model has that one."""
    dialect = made(preset)

    assert dialect.holding().path == path
    assert dialect.held(told) == ("here",)
    with pytest.raises(BadReply):
        dialect.held({"models": 7})


@pytest.mark.parametrize("preset", ["vllm", "localai", "openai", "anthropic", "gemini"])
def test_a_server_that_does_not_tell_is_not_asked(preset: str) -> None:
    """There is nothing to ask."""
    assert made(preset).holding() is None


@pytest.mark.parametrize("status", [200, 404])
def test_it_is_in_the_status(status: int) -> None:
    """Beside the state; a server that is too old to tell serves all the same."""
    host: Host = next(host for host in HOSTS if host.preset == "ollama")
    says = host.says(text="Hello.", usage=(3, 2, 0))

    def answer(got: Got) -> Answer:
        if got.path == "/api/ps":
            return Answer.json(OLLAMA, status)
        return says(got) if "messages" in (got.body or {}) else Answer.json({"version": "0.33.0"})

    with Loopback(answer) as server, Dispatcher(host.vendor(server)) as d:
        assert d.send("Hi.", max_tokens=9).text == "Hello."
        engine = d._desk._engines["ollama"]
        engine._lookout.look()  # type: ignore[attr-defined]
        found = d.vendors()[0].status

    assert found.state is State.READY
    assert found.loaded == (("here",) if status == 200 else None)
