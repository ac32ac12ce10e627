"""The command line on a terminal: what is shown there and nowhere else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llmdispatcher.terminal import clean, one_line

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from cli.conftest import Start


CTRL_C = "\x03"
HIDE_CURSOR = "\x1b[?25l"


def test_answer_cannot_command_the_terminal(screen: Start) -> None:
    """Control characters of a model's text, but for newlines and tabs, never reach a terminal."""
    shown = screen("ask", "q", script="controls")
    assert shown.end() == 0
    assert shown.text == "a[31mred0m\tb\né\n"


def test_notice_is_dim_and_after_the_answer(screen: Start) -> None:
    """Notices stand back on a terminal."""
    shown = screen("ask", "q", script="demo")
    assert shown.end() == 0
    assert shown.text.startswith("Hello.\n\x1b[2mllmdispatcher: answered by the small embedded")
    assert shown.text.endswith("\x1b[0m\n")


def test_notice_goes_to_the_terminal_when_the_answer_is_piped(screen: Start) -> None:
    """With stdout piped, the terminal shows the notice and the pipe gets the text."""
    reader, writer = os.pipe()
    shown = screen("ask", "q", script="demo", stdout=writer)
    os.close(writer)
    assert shown.end() == 0
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"Hello.\n"
    assert "small embedded model" in shown.text


def test_long_load_shows_a_bar_and_erases_it(
    screen: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load of over half a second is shown while it lasts, and leaves no trace."""
    loaded = tmp_path / "loaded"  # once the bar is there, however long it takes to come
    monkeypatch.setenv("LOADED_WHEN", str(loaded))
    shown = screen("ask", "q", script="held_load")
    shown.wait_for("loading script")
    loaded.touch()
    shown.wait_for("\x1b[?25h")  # the cursor is shown again
    shown.wait_for("\x1b[2K")  # the line is erased
    assert shown.end() == 0
    assert shown.text.endswith("\x1b[2KHello.\n")


def test_bar_shows_how_much_is_loaded(screen: Start) -> None:
    """Where the engine knows how far it is, the bar says so."""
    shown = screen("ask", "q", script="halfway")
    shown.wait_for(" 50%")
    shown.type(CTRL_C)
    assert shown.end() == 130


def test_quick_load_shows_no_bar(screen: Start) -> None:
    """A model that is there at once is not announced."""
    shown = screen("ask", "q", script="hello")
    assert shown.end() == 0
    assert shown.text == "Hello.\n"


def test_question_is_asked_for_on_a_terminal(screen: Start) -> None:
    """Without a question, a terminal is not read from in silence: the way out is shown."""
    shown = screen("ask", script="hello")
    assert shown.end() == 2
    assert 'llmdispatcher ask "your question"' in shown.text


def test_dash_reads_the_terminal(screen: Start) -> None:
    """With -, the question can be typed, and Ctrl-D ends it."""
    shown = screen("ask", "-", script="echo")
    shown.wait_for("Ctrl-D ends it")
    shown.type("Why?\n")
    shown.type("\x04")
    assert shown.end() == 0
    assert "user: Why?\n" in shown.text


def test_ctrl_c_ends_ask(screen: Start) -> None:
    """Ctrl-C in the middle of an answer ends the program with 130 and not a word."""
    shown = screen("ask", "q", script="silent")
    shown.wait_for("some words")
    shown.type(CTRL_C)
    assert shown.end() == 130
    assert shown.text == "some words^C\n"


def test_ctrl_c_ends_ask_while_the_model_loads(screen: Start) -> None:
    """Ctrl-C need not wait for a load, and the terminal gets its cursor back."""
    shown = screen("ask", "q", script="never_loads")
    shown.wait_for(HIDE_CURSOR)
    shown.type(CTRL_C)
    assert shown.end() == 130
    assert "\x1b[?25h" in shown.text
    assert "Traceback" not in shown.text


def test_error_has_a_line_of_its_own(screen: Start) -> None:
    """An error that comes in the middle of a line does not continue it."""
    shown = screen("ask", "q", script="cut")
    assert shown.end() == 1
    assert shown.text.startswith("half a \nllmdispatcher: error: ")


def test_clean_keeps_text() -> None:
    """Only C0 and C1 control characters go, DEL with them."""
    assert clean("a\x00\x1b\x7f\x80\x9f\tb\n\xa0é") == "a\tb\n\xa0é"


def test_one_line_is_one_line() -> None:
    """Whatever ends a line anywhere is folded into a space."""
    assert one_line(" a\r\n b\x85c\u2028d\x1b\n") == "a b c d"
