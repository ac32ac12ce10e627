"""``llmdispatcher config`` writes, checks and shows; ``ask`` and ``chat`` go by the file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from waits import WAIT_S, until

from llmdispatcher.cli import main
from llmdispatcher.config import settings
from llmdispatcher.vendors.http import landmarks, scout

Run = Callable[..., subprocess.CompletedProcess[bytes]]

KEYS = {"OPENAI_API_KEY": "sk-1234567890abcdef", "GROQ_API_KEY": "gsk_1234567890abcdef"}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty current folder and an empty stdin; no server is found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(scout, "shared", lambda: scout.Scout([]))
    with Path(os.devnull).open(encoding="utf-8") as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        yield


def write(text: str, path: str = "llmdispatcher.yaml") -> Path:
    """Write a file into the current folder."""
    Path(path).write_text(text, encoding="utf-8")
    return Path(path)


HELLO = "vendors: {{a: {{type: scripted, replies: [{}]}}}}\n"


# -- init --------------------------------------------------------------------------------------


def test_what_is_written_loads_and_holds_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], small_model: Path
) -> None:
    """Files and servers are in it, clouds stand in comments, and it names variables alone."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    kinds = {each.preset: each for each in landmarks.LANDMARKS}
    found = (
        scout.Found(kinds["ollama"], 11434),
        scout.Found(kinds["ollama"], 11435),
        scout.Found(next(each for each in landmarks.LANDMARKS if not each.stays), 4000),
    )
    monkeypatch.setattr(scout.Scout, "look", lambda _: found)

    assert main(["config", "init", str(small_model), str(small_model)]) == 0

    text = Path("llmdispatcher.yaml").read_text(encoding="utf-8")
    assert not any(value in text for value in KEYS.values())
    assert "#   api_key_env: OPENAI_API_KEY" in text
    made = settings.load(Path("llmdispatcher.yaml"), {})
    assert [spec.name for spec in made.specs] == ["small", "small-2", "ollama", "ollama-2"]
    for line in ("openai:", "  type: openai\n", "  api_key_env: OPENAI_API_KEY"):
        assert f"  # {line}" in text
        text = text.replace(f"  # {line}", f"  {line}")
    with_cloud = settings.parse(text.encode(), KEYS)
    assert "openai" in [spec.name for spec in with_cloud.specs]
    assert "wrote llmdispatcher.yaml" in capsys.readouterr().out


def test_nothing_is_written_over(capsys: pytest.CaptureFixture[str]) -> None:
    """A second init is refused, and the file stays; --path names another."""
    write("strategy: cost")

    assert main(["config", "init"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert Path("llmdispatcher.yaml").read_text() == "strategy: cost"

    assert main(["config", "init", "--path", "deep/er/x.yaml"]) == 0
    made = settings.load(Path("deep/er/x.yaml"), {})
    assert [spec.name for spec in made.specs] == ["embedded"]


def test_a_model_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is written."""
    assert main(["config", "init", "nowhere.gguf"]) == 2
    assert "there is no file nowhere.gguf" in capsys.readouterr().err
    assert not Path("llmdispatcher.yaml").exists()


# -- check -------------------------------------------------------------------------------------


def test_a_file_that_is_right_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """With what does not work yet beside it, on stderr."""
    write("vendors: {a: {type: llamacpp, model_path: nowhere.gguf}, ollama: {}}")

    assert main(["config", "check"]) == 0

    told = capsys.readouterr()
    assert told.out == "llmdispatcher.yaml: ok; asks a, ollama\n"
    assert "llmdispatcher.yaml:1:43: vendors.a.model_path: there is no file" in told.err


def test_every_problem_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A line each, exit code 2, and as JSON for programs."""
    path = write("vendors: {ollama: {modles: [a]}}\nretry: {attempts: 0}\n", "mine.yaml")

    assert main(["config", "check", str(path)]) == 2
    assert capsys.readouterr().out == (
        "mine.yaml:1:20: vendors.ollama.modles: unknown key 'modles'; did you mean 'models'?\n"
        "mine.yaml:2:19: retry.attempts: is 0; must be an integer from 1 to 1000\n"
        "2 problems\n"
    )

    assert main(["config", "check", str(path), "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["file"]) == (False, "mine.yaml")
    assert told["problems"][1] == {
        "message": "is 0; must be an integer from 1 to 1000",
        "key_path": "retry.attempts",
        "file": "mine.yaml",
        "line": 2,
        "column": 19,
    }


def test_no_file_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """With the command that writes one."""
    assert main(["config", "check"]) == 2
    assert "config init" in capsys.readouterr().err


# -- show --------------------------------------------------------------------------------------


def test_every_value_is_shown_with_its_source(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """File and line, the preset, or the default; of secrets only whether they are there."""
    monkeypatch.setenv("OPENAI_API_KEY", KEYS["OPENAI_API_KEY"])
    write(
        "preset: speed_first\nretry: {attempts: 9}\nvendors:\n"
        "  openai: {headers: {X-Token: '${OPENAI_API_KEY}'}}\n"
        "  groq: {api_key_env: NOBODY_SET_THIS, enabled: false}\n"
        "budgets: [{usd: 5, period: day}]\nlimits: {openai: {concurrency: 2}}\n"
    )

    assert main(["config", "show", "--json"]) == 0

    out = capsys.readouterr().out
    told = json.loads(out)
    rows = {row["key"]: (row["value"], row["source"]) for row in told["values"]}
    assert (told["file"], told["why"]) == ("llmdispatcher.yaml", "in the current folder")
    assert rows["retry.attempts"] == ("9", "llmdispatcher.yaml:2")
    assert rows["retry.total_s"] == ("30", "preset speed_first")
    assert rows["retry.backoff_cap_s"] == ("8", "default")
    assert rows["vendors.openai.api_key_env"] == ("OPENAI_API_KEY (set)", "default")
    assert rows["vendors.groq.api_key_env"][0] == "NOBODY_SET_THIS (missing)"
    assert rows["vendors.openai.headers.X-Token"][0] == "set, by OPENAI_API_KEY"
    assert rows["budgets[0]"][0] == "$5 a day"
    assert rows["limits.openai.concurrency"] == ("2", "llmdispatcher.yaml:7")
    assert KEYS["OPENAI_API_KEY"] not in out

    assert main(["config", "show"]) == 0
    out = capsys.readouterr().out
    assert "# llmdispatcher.yaml (in the current folder): this one counts\n" in out
    assert "retry.attempts: 9 " in out
    assert KEYS["OPENAI_API_KEY"] not in out


def test_without_a_file_the_defaults_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """And where a file was looked for."""
    assert main(["config", "show"]) == 0
    out = capsys.readouterr().out
    assert out.count(": there is none\n") == 2
    assert "strategy: cost" in out


# -- ask and chat ------------------------------------------------------------------------------


def test_ask_goes_by_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    """By the one that is found, which is told where it may be a stranger's; or the one named."""
    write(HELLO.format("here"))
    write(HELLO.format("named"), "named.yaml")

    assert main(["ask", "Who?"]) == 0
    told = capsys.readouterr()
    assert (told.out, told.err.count("llmdispatcher.yaml names; --no-config")) == ("here\n", 1)
    assert main(["ask", "--config", "named.yaml", "Who?"]) == 0
    assert capsys.readouterr() == ("named\n", "")


def test_options_that_say_whom_to_ask_go_before_the_file(
    capsys: pytest.CaptureFixture[str], small_model: Path
) -> None:
    """A file of the user's own is run, say."""
    write(HELLO.format("here"))

    assert main(["ask", "--model", str(small_model), "--max-tokens", "1", "Who?"]) == 0
    assert capsys.readouterr().out != "here\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--config", "x.yaml", "--model", "y.gguf"], "--config names a file, and --model"),
        (["--config", "x.yaml", "--no-config"], "--no-config goes without"),
        (["--config", "x.yaml"], "there is no such file"),
        (["--allow-cloud", "--vendor", "openai"], "--allow-cloud asks all there are"),
        (["--config", "broken.yaml"], "retry.attempts: is 0"),
    ],
)
def test_options_that_contradict_each_other_are_told(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With exit code 2."""
    write("retry: {attempts: 0}\nbreaker: {failures: 0}", "broken.yaml")

    assert main(["ask", *words, "Who?"]) == 2
    assert told in capsys.readouterr().err


def test_where_clouds_are_allowed_a_model_is_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a cloud or of whoever is there; nobody else answers in its place."""
    assert main(["ask", "--allow-cloud", "--model", "nonesuch", "Who?"]) == 3
    assert "the request names the model 'nonesuch'" in capsys.readouterr().err
    write("vendors: {a: {type: scripted, model: mine, replies: [here]}}")
    assert main(["ask", "--allow-cloud", "--model", "mine", "Who?"]) == 0
    assert capsys.readouterr().out == "here\n"


def test_every_problem_of_a_file_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Also where it is met on the way to an answer."""
    write("retry: {attempts: 0}\nbreaker: {failures: 0}")

    assert main(["ask", "Who?"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("llmdispatcher: error: llmdispatcher.yaml:") for line in lines] == [
        True,
        True,
    ]


def test_keys_that_nobody_may_use_are_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the option that allows it, where --no-config left nobody but the embedded model."""
    write(HELLO.format("here"))
    monkeypatch.setenv("OPENAI_API_KEY", KEYS["OPENAI_API_KEY"])

    assert main(["ask", "--no-config", "What is the capital of France?"]) == 0

    err = capsys.readouterr().err
    assert (
        "OPENAI_API_KEY is set, and no cloud is asked unless you say so: --allow-cloud --model NAME"
        in err
    )
    assert KEYS["OPENAI_API_KEY"] not in err


def test_providers_are_those_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    """In its order, with their priorities; --no-config tells of all that are known."""
    write(
        "vendors: {b: {type: scripted}, a: {type: scripted}, c: {enabled: false, type: vllm}}\n"
        "routing: {priorities: {a: 3}}\n"
    )

    assert main(["providers", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["priority"]) for row in rows] == [("b", None), ("a", 3)]
    main(["providers", "--json", "--no-config"])
    assert "embedded" in [row["name"] for row in json.loads(capsys.readouterr().out)]


# -- as programs -------------------------------------------------------------------------------


def test_the_commands_are_programs(run: Run) -> None:
    """One that writes, and one that finds a mistake."""
    assert run("config", "init").returncode == 0
    write(HELLO.format("0").replace("type", "tpye"))
    refused = run("config", "check")
    assert refused.returncode == 2
    assert b"unknown key 'tpye'; did you mean 'type'?" in refused.stdout
    assert not refused.stderr


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="the system has no SIGHUP")
def test_a_chat_through_a_pipe_reads_its_file_again_at_sighup() -> None:
    """The next answer is the new file's, in the same process."""
    path = write(HELLO.format("before"))
    program = subprocess.Popen(
        [sys.executable, "-m", "llmdispatcher", "chat", "--config", str(path), "--no-ledger"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdin is not None
    assert program.stdout is not None
    try:
        program.stdin.write("Hi\n")
        program.stdin.flush()
        assert program.stdout.readline() == "before\n"
        write(HELLO.format("after"))
        program.send_signal(signal.SIGHUP)
        said: list[str] = []

        def answered() -> bool:
            program.stdin.write("Hi\n")  # type: ignore[union-attr]
            program.stdin.flush()  # type: ignore[union-attr]
            said.append(program.stdout.readline())  # type: ignore[union-attr]
            return said[-1] == "after\n"

        until(answered)
        program.stdin.close()
        assert program.wait(WAIT_S) == 0
    finally:
        program.kill()
        program.wait()
        program.stdout.close()
