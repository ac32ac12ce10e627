"""Paths that begin with ~: the user's own folder, another one's, and that of nobody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmdispatcher import BadRequest, Cache, ConfigError, Ledger, LlamaCpp
from llmdispatcher.cli import main
from llmdispatcher.config import places, settings
from llmdispatcher.models.check import path_of

NOBODY = "~nobody-of-this-name/x"
TOLD = "there is no user whose folder is ~nobody-of-this-name: say the whole path"


def test_a_path_is_read_as_a_shell_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ~ in front is the home of whoever runs this, and elsewhere it is a letter."""
    monkeypatch.setenv("HOME", "/h")

    assert path_of("path", "~/a/~b") == Path("/h/a/~b")
    assert path_of("path", Path("/x/~b")) == Path("/x/~b")


TAKERS: dict[str, Callable[[Any], object]] = {
    "a model": LlamaCpp,
    "a projector": lambda path: LlamaCpp("m.gguf", projector_path=path),
    "a program": lambda path: LlamaCpp("m.gguf", executable=path),
    "an adapter": lambda path: LlamaCpp("m.gguf", adapters={"a": path}),
    "a ledger": Ledger,
    "a cache": Cache,
    "a configuration": lambda path: places.places(path, {}),
}


@pytest.mark.parametrize("taker", TAKERS)
def test_the_folder_of_nobody_is_refused(taker: str) -> None:
    """With the name of what it was given for, and with the way out."""
    with pytest.raises(BadRequest) as raised:
        TAKERS[taker](NOBODY)

    assert TOLD in str(raised.value)
    with pytest.raises(BadRequest, match="must be a path"):
        TAKERS[taker](5)


@pytest.mark.parametrize(
    ("text", "key_path"),
    [
        ("vendors: {llamacpp: {model_path: PATH}}", "vendors.llamacpp.model_path"),
        ("vendors: {embedded: {adapters: {a: PATH}}}", "vendors.embedded.adapters.a"),
        ("ledger: PATH", "ledger"),
        ("ledger: {path: PATH}", "ledger.path"),
        ("cache: {path: PATH}", "cache.path"),
    ],
)
def test_a_file_is_told_where_it_names_nobodys_folder(text: str, key_path: str) -> None:
    """As of any other value that cannot be."""
    with pytest.raises(ConfigError) as raised:
        settings.parse(text.replace("PATH", f'"{NOBODY}"').encode(), {}, "file.yaml")

    (problem,) = raised.value.problems
    assert problem.key_path == key_path
    assert TOLD in problem.message


@pytest.mark.parametrize(
    "words",
    [
        ["usage", "--ledger", NOBODY],
        ["config", "init", "--path", NOBODY],
        ["config", "init", NOBODY],
        ["config", "show", NOBODY],
    ],
    ids=" ".join,
)
def test_a_command_tells_it_in_a_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """And not in the words of Python."""
    assert main(words) not in {0, None}
    assert TOLD in capsys.readouterr().err.replace("\n", " ")
