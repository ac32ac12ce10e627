"""``llmdispatcher ask`` over pipes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import llmdispatcher.models
from llmdispatcher import suggest

if TYPE_CHECKING:
    from cli.conftest import Run


PROGRAM = str(Path(__file__).with_name("program.py"))
NOTICE = b"small embedded model"


def test_only_the_answer_is_on_stdout(run: Run) -> None:
    """Piped, stdout holds the text alone."""
    done = run("ask", "-v", "q", script="demo")
    assert (done.returncode, done.stdout) == (0, b"Hello.\n")


@pytest.mark.parametrize("script", ["hello", "demo"])
def test_one_newline_ends_the_answer(run: Run, script: str) -> None:
    """A final newline is added exactly where the text lacks one."""
    assert run("ask", "q", script=script).stdout == b"Hello.\n"


def test_an_empty_answer_is_an_empty_line(run: Run) -> None:
    """A model that says nothing leaves a line, as all answers do."""
    assert run("ask", "q", script="empty").stdout == b"\n"


def test_embedded_model_answers_offline(run: Run) -> None:
    """Without --model the embedded model answers what it knows, and two lines say that it did."""
    done = run("ask", "What is the capital of France?")
    assert (done.returncode, done.stdout) == (0, b"The capital of France is Paris.\n")
    assert done.stderr.count(NOTICE) == 1
    assert done.stderr.count(b"\n") == 2
    assert sum(question.encode() in done.stderr for question in suggest.QUESTIONS) == 2
    assert b"--model FILE.gguf" in done.stderr


def test_other_models_answer_without_a_notice(run: Run) -> None:
    """Who brings a model is told nothing that was not asked for."""
    assert run("ask", "q", script="hello").stderr == b""


def test_embedded_model_draws_nothing_unless_told_to(run: Run) -> None:
    """The demo answers at temperature 0; other models keep their own default."""
    assert run("ask", "q", script="demo_drawn").stdout.startswith(b"{'temperature': 0.0}")
    told = run("ask", "q", "--temperature", "0.5", script="demo_drawn")
    assert told.stdout.startswith(b"{'temperature': 0.5}")
    assert run("ask", "q", script="drawn").stdout.startswith(b"{}")


def test_options_reach_the_request(run: Run) -> None:
    """Each option of the answer is sent as it was given."""
    options = "--temperature 0.5 --top-p 0.9 --top-k 7 --seed 3 --max-tokens 9 --stop a --stop b"
    done = run("ask", "q", *options.split(), script="drawn")
    drawn = {"temperature": 0.5, "top_k": 7, "top_p": 0.9, "seed": 3}
    assert done.stdout.decode() == f"{drawn} 9 ['a', 'b'] None\n"


def test_system_comes_before_the_question(run: Run) -> None:
    """--system is the first message."""
    done = run("ask", "--system", "Be brief.", "Why", "so?", script="echo")
    assert done.stdout == b"system: Be brief. | user: Why so?\n"


def test_raw_is_sent_as_it_is(run: Run) -> None:
    """--raw sends a completion without messages, its last newline included."""
    done = run("ask", "--raw", script="drawn", stdin=b"Once\n")
    assert done.stdout == b"{} None [] Once\n"


@pytest.mark.parametrize("words", [[], ["-"]])
def test_question_can_come_from_stdin(run: Run, words: list[str]) -> None:
    """Without words, or with -, stdin is the question."""
    assert run("ask", *words, script="echo", stdin=b"Why?\n").stdout == b"user: Why?\n"


def test_stdin_is_appended_to_the_question(run: Run) -> None:
    """What is piped in follows what was asked about it."""
    done = run("ask", "Sum up:", script="echo", stdin="été\n".encode())
    assert done.stdout.decode() == "user: Sum up:\n\nété\n"


def test_byte_order_mark_is_not_part_of_the_question(run: Run) -> None:
    """Files of other systems begin with a mark that nobody wrote."""
    assert run("ask", script="echo", stdin=b"\xef\xbb\xbfWhy?").stdout == b"user: Why?\n"


def test_silent_stdin_is_explained(run: Run) -> None:
    """Who waits for a stdin that nobody writes to is told so."""
    command = [sys.executable, PROGRAM, "echo", "ask"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stderr is not None
        assert b"reading stdin" in process.stderr.readline()
        assert process.communicate(b"q")[0] == b"user: q\n"


def test_verbose_says_what_it_took(run: Run) -> None:
    """-v tells tokens, time to first token, speed, cost and who answered, in one line."""
    done = run("ask", "-v", "What is the capital of France?")
    lines = done.stderr.decode().splitlines()
    line = next(line for line in lines if "loaded" not in line)  # which is told where it took long
    number = r"[0-9.]+"
    assert re.fullmatch(
        rf"llmdispatcher: {number} prompt \+ {number} tokens, {number} s to first token,"
        rf" {number} tokens/s, \$0 \(embedded/demo\)",
        line,
    )


@pytest.mark.parametrize(
    ("script", "cost"), [("hello", "$0 "), ("priced", "$0.003 "), ("unpriced", "cost not known ")]
)
def test_cost_is_exact_or_said_to_be_unknown(run: Run, script: str, cost: str) -> None:
    """An unknown price is never shown as zero."""
    assert cost in run("ask", "-v", "q", script=script).stderr.decode()


def test_verbose_shows_fallbacks(run: Run) -> None:
    """-v says which vendor failed, why, and who was asked then; without it nothing does."""
    done = run("ask", "-v", "q", script="fallback")
    assert done.stdout == b"Hello.\n"
    assert "a/script failed (RateLimited: too fast); asking b/script" in str(done.stderr)
    assert run("ask", "q", script="fallback").stderr == b""


def test_verbose_tells_of_a_long_load(run: Run) -> None:
    """-v tells in one line how long loading took, if it was long."""
    assert b"loaded scripted/script in 1.5 s" in run("ask", "-v", "q", script="slow_load").stderr
    assert run("ask", "q", script="slow_load").stderr == b""


def test_json_is_one_object(run: Run) -> None:
    """--json prints the whole account, with money as text."""
    done = run("ask", "--json", "q", script="priced")
    account = json.loads(done.stdout)
    assert done.stdout.count(b"\n") == 1
    assert account.pop("latency_s") >= account.pop("first_token_s") >= 0
    usage = account.pop("usage")
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (1, 1)
    assert account == {
        "text": "Hello.",
        "finish_reason": "stop",
        "vendor": "scripted",
        "model": "script",
        "cost_usd": "0.003",
        "warnings": [],
    }


def test_json_has_null_for_an_unknown_cost(run: Run) -> None:
    """A cost that is not known is null."""
    assert json.loads(run("ask", "--json", "q", script="unpriced").stdout)["cost_usd"] is None


def test_answer_cut_by_the_model_is_reported(run: Run) -> None:
    """Whoever set no limit is told that the answer is not whole."""
    assert b"was cut" in run("ask", "q", script="full").stderr
    assert run("ask", "q", "--max-tokens", "3", script="full").stderr == b""


def test_piped_answer_keeps_its_control_characters(run: Run) -> None:
    """A file gets what the model wrote, byte for byte."""
    text = "a\x1b[31mred\x9b0m\tb\r\n\x07é\n"
    assert run("ask", "q", script="controls").stdout == text.encode()


def test_locale_without_the_characters_loses_only_them(run: Run) -> None:
    """Where stdout cannot encode a character, a question mark stands for it."""
    done = run("ask", "q", script="controls", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert done.stdout == b"a\x1b[31mred?0m\tb\r\n\x07?\n"


def test_reader_that_leaves_ends_the_program_quietly() -> None:
    """A closed pipe stops the model; exit code 141 and not a word."""
    command = [sys.executable, PROGRAM, "endless", "ask", "q"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_full_disk_is_one_line() -> None:
    """An answer that cannot be written is an error with a reason."""
    command = [sys.executable, PROGRAM, "hello", "ask", "q"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, check=False
        )
    expected = b"llmdispatcher: error: the answer cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, expected)


@pytest.mark.parametrize(("redirect", "code"), [(">&-", 1), ("<&-", 0), ("2>&-", 0)])
def test_closed_streams_are_survived(redirect: str, code: int) -> None:
    """A standard stream that is closed costs at most the answer, never a traceback."""
    line = f'exec "$@" {redirect}'
    command = ["/bin/sh", "-c", line, "sh", sys.executable, PROGRAM, "hello", "ask", "-v", "q"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.returncode == code
    assert b"Traceback" not in done.stderr


def test_model_option_runs_that_file(run: Run) -> None:
    """--model names the file that answers, and the limits go with it."""
    demo = str(Path(llmdispatcher.models.__file__ or "").with_name("demo.gguf"))
    limits = ["--context", "128", "--threads", "1", "--gpu-layers", "0", "--memory-mb", "512"]
    done = run("ask", "-v", "-m", demo, *limits, "--max-tokens", "3", "--seed", "1", "hi")
    assert done.returncode == 0
    assert b"+ 3 tokens" in done.stderr
    assert b"(llamacpp/demo)" in done.stderr
    assert NOTICE not in done.stderr
    long = run("ask", "-m", demo, *limits, "why " * 200)
    assert b"the context holds 128" in long.stderr
