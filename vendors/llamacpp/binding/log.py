"""llama.cpp's log: into ``logging``, and to whoever is listening for the reason of a failure.

llama.cpp has one log callback for the whole process and calls it from whichever thread is in it,
with lines in fragments. Lines go to the logger ``llmdispatcher.llamacpp``, errors as INFO and the
rest as DEBUG: what matters is raised as an exception that holds the line, and llama.cpp also logs
as an error what we asked for, such as an interrupted decode. Nothing is written to the process's
standard streams.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

_ERROR = 4
_CONTINUES = 5
"""ggml_log_level, from ggml.h; 1 to 3 are debug, info and warn."""
_MOST_LINES = 200
"""How many of the last lines a listener keeps."""

_log = logging.getLogger("llmdispatcher.llamacpp")
_log.addHandler(logging.NullHandler())  # without one, Python prints warnings on stderr


class _Line(threading.local):
    """The line that a thread has begun, and who listens in it: threads interleave fragments."""

    def __init__(self) -> None:
        self.text = ""
        self.is_error = False
        self.heard: deque[tuple[bool, str]] | None = None


_line = _Line()


def take(level: int, fragment: bytes) -> None:
    """Take a fragment from llama.cpp; complete lines are logged."""
    if level != _CONTINUES:
        _line.is_error = level == _ERROR
    _line.text += fragment.decode(errors="replace")
    while "\n" in _line.text:
        line, _line.text = _line.text.split("\n", 1)
        if not line.strip(" ."):
            continue  # the dots that llama.cpp draws while loading
        if _line.heard is not None:
            _line.heard.append((_line.is_error, line))
        _log.log(logging.INFO if _line.is_error else logging.DEBUG, "%s", line)


def last_words(message: bytes | None) -> None:
    """Take what llama.cpp says when one of its assertions fails; it ends the process next.

    The logger hears it, and standard error too: whoever has not set up logging must not be left
    with a process that is gone without a word.
    """
    told = (message or b"no reason was given").decode(errors="replace").strip()
    _log.critical("llama.cpp aborts the process: %s", told)
    for handler in logging.getLogger().handlers:
        handler.flush()
    os.write(2, f"llama.cpp aborts the process: {told}\n".encode(errors="replace"))


@contextmanager
def listening() -> Iterator[deque[tuple[bool, str]]]:
    """Hear the last lines that llama.cpp logs in this thread, and which of them are errors."""
    before, _line.heard = _line.heard, deque(maxlen=_MOST_LINES)
    try:
        yield _line.heard
    finally:
        _line.heard = before
