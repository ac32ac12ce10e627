"""Where the command line's words go: the answer to stdout, everything else to stderr.

A model may write anything, so nothing that a terminal would obey reaches one. A reader that stops
early raises BrokenPipeError, as everywhere in Python; ``abandon`` is what to do about it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import sys
from typing import TextIO

from llmdispatcher.models.errors import RequestError

MAX_STDIN_BYTES = 64 * 1024 * 1024
"""More than fits any model's context; a pipe that never ends must not fill the memory."""

STDIN_PATIENCE_S = 1.0
"""How long stdin may stay silent before somebody is told that it is being waited for."""

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LINE_ENDS = re.compile(r"\s*[\n\r\v\f\x85\u2028\u2029]\s*")
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


class OutputFailed(Exception):
    """Stdout cannot be written to, for a reason other than a reader that has seen enough."""


def clean(text: str) -> str:
    """Return text without the control characters, C0 and C1, but with newlines and tabs."""
    return _CONTROLS.sub("", text)


def one_line(text: str) -> str:
    """Fold text into one line that a terminal can show."""
    return clean(_LINE_ENDS.sub(" ", text.strip()))


def _is_tty(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


class Terminal:
    """The three standard streams of the program, each of which may or may not be a terminal."""

    def __init__(self) -> None:
        self.reads_tty = _is_tty(sys.stdin)
        self.writes_tty = _is_tty(sys.stdout)
        self.notes_tty = _is_tty(sys.stderr)
        self._line_open = False
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A locale without the answer's characters must not cost the rest of the answer.
            sys.stdout.reconfigure(errors="replace")

    def write(self, text: str) -> None:
        """Write a piece of the answer to stdout, at once."""
        if self.writes_tty:
            text = clean(text)
        if not text:
            return
        out: TextIO | None = sys.stdout
        if out is None:
            raise OutputFailed("the answer cannot be written: stdout is closed")
        try:
            out.write(text)
            out.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputFailed(f"the answer cannot be written: {error.strerror}") from error
        self._line_open = not text.endswith("\n")

    def end_line(self) -> None:
        """Write a newline, unless the answer ends with one."""
        if self._line_open:
            self.write("\n")

    def note(self, message: str) -> None:
        """Tell something that is not the answer, without drawing attention."""
        line = f"llmdispatcher: {one_line(message)}"
        self.tell(f"{_DIM}{line}{_PLAIN}\n" if self.notes_tty else f"{line}\n")

    def error(self, error: BaseException) -> None:
        """Tell what went wrong, in one line of its own."""
        if self.writes_tty and self._line_open:
            self.write("\n")
        self.tell(f"llmdispatcher: error: {one_line(str(error))}\n")

    def tell(self, text: str) -> None:
        """Write to stderr as it is; that nobody can read it there is no reason to stop."""
        err: TextIO | None = sys.stderr
        if err is None:
            return
        try:
            err.write(text)
            err.flush()
        except OSError:
            abandon(err)

    def read_line(self) -> str | None:
        """Read a line without its end; None at the end of stdin. Raises RequestError."""
        data = sys.stdin.buffer.readline(MAX_STDIN_BYTES + 1)
        return _decode(data).rstrip("\r\n") if data else None

    def read_all(self) -> str:
        """Read stdin to its end. Raises RequestError."""
        stdin: TextIO | None = sys.stdin
        if stdin is None:
            return ""
        # Windows can select sockets only
        if os.name == "posix" and not select.select([stdin], [], [], STDIN_PATIENCE_S)[0]:
            way_out = "Ctrl-D ends it" if self.reads_tty else "with </dev/null nothing is read"
            self.note(f"reading stdin to its end; {way_out}")
        return _decode(stdin.buffer.read(MAX_STDIN_BYTES + 1))


def _decode(data: bytes) -> str:
    if len(data) > MAX_STDIN_BYTES:
        raise RequestError(f"stdin holds more than {MAX_STDIN_BYTES >> 20} MiB; send less of it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(
            f"stdin is not UTF-8 text (byte 0x{data[error.start]:02x} at offset {error.start});"
            " convert it first, such as with iconv"
        ) from error


def abandon(*streams: TextIO | None) -> None:
    """Point streams that failed to nowhere, so that Python's flush at exit does not fail again."""
    for stream in streams:
        if stream is None:
            continue
        with contextlib.suppress(OSError, ValueError):  # not a real file: nothing to mend
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
