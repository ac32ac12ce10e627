"""Errors of the command line: one clear line with a way out, and a documented exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import llmdispatcher.models
from llmdispatcher import cli
from llmdispatcher.models import errors

if TYPE_CHECKING:
    from subprocess import CompletedProcess

    from cli.conftest import Run


PREFIX = "llmdispatcher: error: "


def line_of(done: CompletedProcess[bytes]) -> str:
    """Return the one line of an error."""
    text = done.stderr.decode()
    assert text.startswith(PREFIX)
    assert text.count("\n") == 1
    assert done.stdout == b""
    return text.removeprefix(PREFIX)


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ("failing", 1, "too fast"),
        ("all_failing", 1, "attempts failed"),
        ("no_engine", 1, "run: pip install engine"),
        ("unsupported", 2, "it has no tools"),
        ("incapable", 3, "no registered model can serve this request"),
    ],
)
def test_each_kind_of_failure_has_its_exit_code(
    run: Run, script: str, code: int, words: str
) -> None:
    """Expected errors end in one line, whatever their messages look like, and without a trace."""
    done = run("ask", "q", script=script)
    assert done.returncode == code
    assert words in line_of(done)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "there is no question"),
        (("--max-tokens", "0", "q"), "max_tokens must be"),
        (("--max-tokens", "many", "q"), "ask --help"),
        (("--temperature", "-1", "q"), "temperature must be"),
        (("--raw", "--system", "s", "q"), "leave out --system"),
        (("--wrong", "q"), "--wrong"),
        (("--stop", "", "q"), "non-empty"),
    ],
)
def test_usage_errors_are_2(run: Run, args: tuple[str, ...], words: str) -> None:
    """A mistake on the command line is one line that names it."""
    done = run("ask", *args, script="hello")
    assert done.returncode == 2
    assert words in line_of(done)


def test_unknown_command_is_2(run: Run) -> None:
    """A command that does not exist is answered with those that do."""
    done = run("sing")
    assert done.returncode == 2
    assert "'ask', 'chat'" in line_of(done)


def test_no_command_shows_the_help(run: Run) -> None:
    """Without a command the help goes to stderr, and the exit code says that nothing was done."""
    done = run()
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"exit codes:" in done.stderr


@pytest.mark.parametrize("command", [(), ("ask",), ("chat",)])
def test_exit_codes_are_documented(run: Run, command: tuple[str, ...]) -> None:
    """Every help lists all exit codes."""
    done = run(*command, "--help")
    assert done.returncode == 0
    for code in (0, cli.FAILED, cli.WRONG, cli.REFUSED, cli.INTERRUPTED, cli.BROKEN_PIPE):
        assert f"\n  {code:<5}" in done.stdout.decode()


def test_stdin_that_is_not_text_is_2(run: Run) -> None:
    """Bytes that are not UTF-8 are named with their place."""
    done = run("ask", script="hello", stdin=b"ab\xff")
    assert done.returncode == 2
    assert "not UTF-8 text (byte 0xff at offset 2)" in line_of(done)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "there is no file"),
        ("folder", "folder"),
        ("text", "not a GGUF file"),
        ("cut", "cut short"),
        ("empty", "empty"),
    ],
)
def test_model_files_that_cannot_be_read_are_explained(
    run: Run, tmp_path: Path, kind: str, words: str
) -> None:
    """What is wrong with a file is said in the words of the typed error."""
    path = tmp_path / "model.gguf"
    demo = Path(llmdispatcher.models.__file__ or "").with_name("demo.gguf")
    contents = {"text": b"hello\n", "cut": demo.read_bytes()[:500_000], "empty": b""}
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(contents[kind])
    done = run("ask", "--model", str(path), "q")
    assert done.returncode == 1
    assert words in line_of(done)


def test_what_was_written_stays_when_the_rest_fails(run: Run) -> None:
    """A reply that is cut leaves its beginning on stdout, and is not reported as a success."""
    done = run("ask", "q", script="cut")
    assert (done.returncode, done.stdout) == (1, b"half a ")
    assert b"the reply was cut" in done.stderr


def test_bugs_keep_their_traceback(run: Run) -> None:
    """An error that nobody expected is not dressed up as one that somebody did."""
    done = run("ask", "q", script="broken")
    assert done.returncode == 1
    assert b"ZeroDivisionError" in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.BadRequest("a", 1, "2"), 2),
        (errors.ContextOverflow(2, 1), 2),
        (errors.ConfigError([]), 2),
        (errors.NoCandidate({}), 3),
        (errors.LimitReached("full"), 3),
        (errors.RateLimited("slow"), 1),
        (errors.AllVendorsFailed.after([errors.RateLimited("slow")]), 1),
    ],
)
def test_exit_code_goes_by_the_class(error: errors.DispatcherError, code: int) -> None:
    """The tree of errors decides, and nothing in the text."""
    assert cli.exit_code(error) == code


def test_help_loads_nothing_heavy(run: Run) -> None:
    """Neither the engine nor what draws the progress bar is imported before it is needed."""
    done = run("--help", env={"PYTHONPROFILEIMPORTTIME": "1"})
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()}
    assert "argparse" in imported
    assert not imported & {"rich", "llama_cpp", "numpy", "jinja2", "psutil", "asyncio", "readline"}


def test_help_that_nobody_reads_is_quiet() -> None:
    """A reader that has left is no reason for a message, whatever was to be written."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "llmdispatcher", "--help"]
    env = {**os.environ, "PYTHONUNBUFFERED": ""}  # without a buffer, argparse sees it and exits 0
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False, env=env)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_version_is_told(run: Run) -> None:
    """--version prints name and version."""
    assert run("--version").stdout.startswith(b"llmdispatcher 0.")
