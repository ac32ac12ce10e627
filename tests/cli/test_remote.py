"""The command line asks vendors over HTTP: one that is named, or those of this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_hosts import HOSTS, Host
from loopback import Answer, Got, Loopback

from llmdispatcher.cli import main


@pytest.fixture(autouse=True)
def _nothing_piped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stdin is there, and empty."""
    with Path(os.devnull).open(encoding="utf-8") as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        yield


@pytest.fixture
def host() -> Host:
    """A server of one's own."""
    return next(host for host in HOSTS if host.preset == "vllm")


@pytest.fixture
def server(host: Host) -> Iterator[Loopback]:
    """It answers questions and lists its model."""
    says = host.says(text="Oslo.", usage=(3, 2, 0))

    def answer(got: Got) -> Answer:
        if got.method == "POST":
            return says(got)
        head = {"content-type": "application/json"}
        return Answer(headers=head, chunks=(host.models if "models" in got.path else b"{}",))

    with Loopback(answer) as made:
        yield made


@pytest.mark.parametrize("named", [[], ["--model", "model-1"]])
def test_a_vendor_that_is_named_answers(
    server: Loopback, capsys: pytest.CaptureFixture[str], named: list[str]
) -> None:
    """With the model that is named, or one of its own."""
    code = main(["ask", "--vendor", "vllm", "--base-url", server.url, *named, "Where?"])

    assert (code, capsys.readouterr().out) == (0, "Oslo.\n")
    asked = [got.body for got in server.got if got.method == "POST"]  # how it is, is asked too
    assert asked[-1]["model"] == "model-1"


def test_a_vendors_models_are_listed(server: Loopback, capsys: pytest.CaptureFixture[str]) -> None:
    """A line each for people, JSON for programs."""
    assert main(["models", "--vendor", "vllm", "--base-url", server.url]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["vllm/model-1", "8.19k"]

    assert main(["models", "--vendor", "vllm", "--base-url", server.url, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["model"], row["context_tokens"], row["local"]) == ("model-1", 8192, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--vendor", "nobody"], "known: anthropic"),
        (["--vendor", "llamacpp"], "HTTP"),
        (["--vendor", "embedded"], "--model FILE.gguf runs a file here"),
        (["--vendor", "vllm", "--threads", "2"], "--threads"),
        (["--vendor", "vllm", "--base-url", "ftp://x"], "base_url"),
    ],
)
def test_a_vendor_that_cannot_be_is_told(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With exit code 2 and the way out."""
    assert main(["ask", *words, "Where?"]) == 2
    assert told in capsys.readouterr().err


def test_a_server_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, with its address."""
    with Loopback(lambda _: Answer.json({})) as gone:
        url = gone.url
    assert main(["models", "--vendor", "vllm", "--base-url", url]) == 1
    (told,) = capsys.readouterr().err.splitlines()
    assert url.removeprefix("http://") in told
    assert "onnect" in told
    assert main(["ask", "--vendor", "vllm", "--base-url", url, "Where?"]) != 0


def test_a_key_that_is_missing_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name of the variable that would hold it."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    assert main(["ask", "--vendor", "openai", "--model", "gpt-5.4-mini", "Where?"]) == 1
    assert "OPENAI_API_KEY" in capsys.readouterr().err
