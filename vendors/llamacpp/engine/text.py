"""From the bytes of tokens to the text of deltas: whole characters, and stop strings cut off.

Pure and incremental: the work for a token does not depend on how many came before it. A token may
end inside a character or inside a stop string; what cannot be shown yet is held back.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Turns token bytes into text that can be shown, until a stop string ends it.

    ``feed`` and ``flush`` return the text that is certain now: never a part of a character, never
    a part of a stop string. ``stopped`` is the stop string that came, if one did; the text ends in
    front of it. Bytes that are not UTF-8 become U+FFFD.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self.stopped: str | None = None
        self._stops = tuple(stops)
        self._longest = max(map(len, self._stops), default=0)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def feed(self, data: bytes) -> str:
        """Take the bytes of one token."""
        return self._release(self._decoder.decode(data))

    def flush(self) -> str:
        """Take the end of the reply: nothing is held back any more."""
        if self.stopped is not None:
            return ""
        text = self._release(self._decoder.decode(b"", final=True))
        if self.stopped is None:
            text, self._held = text + self._held, ""
        return text

    def _release(self, text: str) -> str:
        if not self._stops or self.stopped is not None:
            return text if self.stopped is None else ""
        text = self._held + text
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:  # the one that was complete first, whatever the tokens; of two, the longer
            _, at, self.stopped = min(found)
            self._held = ""
            return text[:at]
        keep = self._possible_start(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _possible_start(self, text: str) -> int:
        """Return the length of the longest end of the text with which a stop string begins."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            end = text[-length:]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
