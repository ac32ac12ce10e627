"""Reads messages of a stream that differ from the one before in nothing but their text. Pure.

Most streams say the same frame over and over, with another piece of text in it. Once a message was
parsed and found to be such a frame, what is around its text is kept; a later message that begins
and ends with the same bytes, and has between them what is sure to be one JSON string, means the
same but for that string, and need not be parsed. ``bench/transport.py`` measures what that saves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

_PROOF = "a proof"
"""Stands for any text: a frame is learned only if it is found again in its place."""

_ONE_STRING = re.compile(rb'[^"\\\x00-\x1f]*')
"""Between two quotes this is one whole JSON string, and stands for itself (RFC 8259, section 7)."""

TRIES = 4
"""So many frames are learned that are of no use before the stream is believed to have none."""

WORTH = 4
"""A frame that served so often was of use: looking for it costs about as much as it saves twice."""

Plain = Callable[[Any], "str | None"]
"""Returns the text of a parsed message that says nothing else, whatever the text is; else None.

It depends on the message alone, or on what does not change while the stream lasts.
"""


class Stencil:
    """Of one stream."""

    __slots__ = ("_before", "_behind", "_left", "_plain", "_served", "_size")

    def __init__(self, plain: Plain) -> None:
        self._plain = plain
        self._before = self._behind = b""
        self._size = 0
        self._left = TRIES
        self._served = WORTH

    def text(self, data: bytes) -> str | None:
        """Return the text of a message that fits; None if it does not, or must be parsed."""
        before, behind = self._before, self._behind
        if not before or not data.startswith(before) or not data.endswith(behind):
            return None
        inner = data[len(before) : len(data) - len(behind)]
        if len(data) <= self._size or not _ONE_STRING.fullmatch(inner):
            return None
        try:
            text = inner.decode()
        except UnicodeDecodeError:  # whoever parses it says so
            return None
        self._served += 1
        return text

    def learn(self, data: bytes, message: Any) -> None:  # noqa: ANN401 - a stranger's JSON
        """Keep the frame of a message that was parsed, if it has nothing but a text in it."""
        if not self._left or not (text := self._plain(message)):
            return
        if self._served < WORTH:
            self._left -= 1
        self._served, self._before = 0, b""
        before, quoted, behind = data.partition(b'"%b"' % text.encode(errors="replace"))
        if not quoted:
            return
        before, behind = before + b'"', b'"' + behind
        try:
            proved = self._plain(json.loads(before + _PROOF.encode() + behind)) == _PROOF
        except (ValueError, RecursionError):  # what was found is no text, but a part of others
            return
        if proved:
            self._before, self._behind = before, behind
            self._size = len(before) + len(behind)
