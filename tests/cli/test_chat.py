"""``llmdispatcher chat``: on a terminal, and through a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmdispatcher import suggest

if TYPE_CHECKING:
    from pathlib import Path

    from cli.conftest import Run, Start


CTRL_C, CTRL_D, UP = "\x03", "\x04", "\x1b[A"


def test_history_is_sent_with_every_turn(run: Run) -> None:
    """The model sees what was said before, after the instructions."""
    done = run("chat", "--system", "S", script="echo", stdin=b"one\n\ntwo\n")
    first = "system: S | user: one"
    assert done.returncode == 0
    expected = f"{first}\n{first} | assistant: {first} | user: two\n"
    assert done.stdout.decode() == expected


def test_embedded_model_chats(run: Run) -> None:
    """Each piped line is a turn, and the notice comes once."""
    done = run("chat", stdin=b"What is the capital of France?\nWhat is 2 + 3?\n")
    assert done.stdout == b"The capital of France is Paris.\n2 + 3 = 5\n"
    assert done.stderr.count(b"small embedded model") == 1


def test_reset_forgets_but_for_the_instructions(run: Run) -> None:
    """/reset begins anew."""
    done = run("chat", "--system", "S", script="echo", stdin=b"one\n/reset\ntwo\n")
    assert done.stdout.decode().splitlines()[1] == "system: S | user: two"


def test_exit_and_quit_leave(run: Run) -> None:
    """What follows /exit or /quit is not asked."""
    for word in (b"/exit", b"/quit"):
        done = run("chat", script="hello", stdin=b"one\n" + word + b"\ntwo\n")
        assert (done.returncode, done.stdout) == (0, b"Hello.\n")


def test_unknown_command_is_not_sent(run: Run) -> None:
    """A command that does not exist gets a hint; a leading space makes any line a question."""
    done = run("chat", script="echo", stdin=b"/frobnicate now\n /etc/passwd?\n")
    assert b"no command /frobnicate; /help lists them" in done.stderr
    assert done.stdout == b"user: /etc/passwd?\n"


def test_help_lists_the_commands(run: Run) -> None:
    """/help goes to stderr."""
    done = run("chat", script="hello", stdin=b"/help\n")
    assert done.stdout == b""
    for word in (b"/help", b"/reset", b"/exit", b"/quit", b"Ctrl-C", b"Ctrl-D"):
        assert word in done.stderr


def test_help_suggests_questions_to_the_embedded_model(run: Run) -> None:
    """/help names questions that it can answer; other models need no such advice."""
    shown = run("chat", script="demo", stdin=b"/help\n").stderr.partition(b"/exit")[2]
    assert sum(question.encode() in shown for question in suggest.QUESTIONS) == 3
    shown = run("chat", script="hello", stdin=b"/help\n").stderr
    assert not any(question.encode() in shown for question in suggest.QUESTIONS)


def test_long_conversation_forgets_its_beginning(run: Run) -> None:
    """What outgrows the context is dropped from the front, and said once for each drop."""
    done = run("chat", script="forgetful", stdin=b"one\ntwo\nthree\n")
    assert done.returncode == 0
    assert done.stdout.decode().splitlines()[-1].endswith("user: three")
    assert done.stderr.count(b"forgot the oldest turn") == 1


def test_answer_that_fills_the_context_makes_room(run: Run) -> None:
    """After an answer that the context cut, the older half of the turns is forgotten."""
    done = run("chat", script="full", stdin=b"1\n2\n3\n")
    assert done.stdout.decode().splitlines()[-1].startswith("user: 2 | ")
    assert done.stderr.count(b"forgot the oldest turn") == 2


def test_real_context_fills_without_end(run: Run) -> None:
    """The embedded model's 512 tokens hold any conversation, since its beginning is forgotten."""
    done = run("chat", stdin=b"What is the capital of France?\n" * 40)
    assert done.returncode == 0
    assert done.stdout.count(b"Paris") >= 38
    assert b"forgot" in done.stderr


def test_piped_chat_ends_with_the_first_error(run: Run) -> None:
    """Through a pipe nobody can react to an error, so it ends the conversation with its code."""
    done = run("chat", script="recover", stdin=b"one\ntwo\n")
    assert (done.returncode, done.stdout) == (1, b"")
    assert run("chat", script="hello", stdin=b"\xff\n").returncode == 2


def test_too_long_question_is_an_error(run: Run) -> None:
    """Where nothing is left to forget, the error itself is told."""
    done = run("chat", script="forgetful", stdin=b"x" * 80)
    assert done.returncode == 2
    assert b"shorten the prompt" in done.stderr


def test_chat_survives_errors_on_a_terminal(screen: Start) -> None:
    """An error is told, its question is forgotten, and the next one is served."""
    shown = screen("chat", script="recover")
    shown.wait_for("> ")
    shown.type("one\n")
    shown.wait_for("llmdispatcher: error: scripted/script: busy\n> ")
    shown.type("two\n")
    shown.wait_for("back again\n> ")
    shown.type(CTRL_D)
    assert shown.end() == 0


def test_ctrl_c_stops_the_answer_and_not_the_program(screen: Start) -> None:
    """After Ctrl-C the prompt is back, and what was said before it is part of the conversation."""
    shown = screen("chat", script="stoppable")
    shown.wait_for("> ")
    shown.type("one\n")
    shown.wait_for("one\none")
    shown.type(CTRL_C)
    shown.wait_for("stopped")
    shown.wait_for("> ")
    shown.type("two\n")
    shown.wait_for("user: one | assistant: one | user: two\n> ")
    shown.type("/exit\n")
    assert shown.end() == 0


def test_question_that_got_no_word_is_forgotten(screen: Start) -> None:
    """Ctrl-C before the first word leaves no trace in the conversation."""
    shown = screen("chat", script="mute")
    shown.wait_for("> ")
    shown.type("hush\n")
    shown.wait_for("hush\n")
    shown.type(CTRL_C)
    shown.wait_for("stopped")
    shown.wait_for("> ")
    shown.type("two\n")
    shown.wait_for("\nuser: two\n> ")
    shown.type("/exit\n")
    assert shown.end() == 0


def test_ctrl_c_twice_at_the_prompt_leaves(screen: Start) -> None:
    """The first Ctrl-C says how to leave, the second in a row does."""
    shown = screen("chat", script="hello")
    shown.wait_for("> ")
    shown.type(CTRL_C)
    shown.wait_for("Ctrl-D or /exit to leave")
    shown.wait_for("> ")
    shown.type(CTRL_C)
    assert shown.end() == 130


def test_ctrl_c_clears_a_line(screen: Start) -> None:
    """Ctrl-C on a line that was begun only clears it, and does not count."""
    shown = screen("chat", script="echo")
    shown.wait_for("> ")
    shown.type(CTRL_C)
    shown.wait_for("to leave")
    shown.wait_for("> ")
    shown.type("wrong")
    shown.wait_for("wrong")
    shown.type(CTRL_C)
    shown.wait_for("> ")
    shown.type("right\n")
    shown.wait_for("user: right\n> ")
    shown.type(CTRL_D)
    assert shown.end() == 0
    assert shown.text.count("to leave") == 1


def test_lines_can_be_edited_and_recalled(screen: Start) -> None:
    """The arrow keys bring back what was typed before."""
    shown = screen("chat", script="hello")
    shown.wait_for("> ")
    shown.type("/first\n")
    shown.wait_for("no command /first")
    shown.wait_for("> ")
    shown.type(UP + "\x7f\x7fe\n")
    shown.wait_for("no command /fire;")
    shown.wait_for("> ")
    shown.type(CTRL_D)
    assert shown.end() == 0


def test_prompt_is_on_the_terminal_and_not_in_the_pipe(screen: Start, tmp_path: Path) -> None:
    """With stdout in a file, the prompt is still seen, and the file holds answers alone."""
    path = tmp_path / "answers"
    with path.open("wb") as file:
        shown = screen("chat", script="hello", stdout=file.fileno())
        shown.wait_for("> ")
        shown.type("q\n")
        shown.wait_for("> ")
        shown.type(CTRL_D)
        assert shown.end() == 0
    assert path.read_bytes() == b"Hello.\n"
