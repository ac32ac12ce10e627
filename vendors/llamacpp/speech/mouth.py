"""Collects text, reasoning and calls as they are read, and settles what white space means.

White space around reasoning and between calls is nobody's: it is held until it is known what
follows, and dropped unless that is text.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable
from typing import NamedTuple

from llmdispatcher.models.reply import CallDelta


class Heard(NamedTuple):
    """What a piece of the model's text adds to the reply."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[CallDelta, ...] = ()


def fresh_id(length: int = 0) -> str:
    """Return an id for a call that has none: ``call_`` and 24 hexadecimal digits.

    With a length, so many letters and digits instead.
    """
    if not length:
        return f"call_{secrets.token_hex(12)}"
    letters = string.ascii_letters + string.digits
    return "".join(secrets.choice(letters) for _ in range(length))


class Mouth:
    """Collects what is delivered, until it is asked for; ``calls`` counts the calls begun."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self.calls = 0
        self.closing = False
        """Whether nothing but white space came since the last call."""
        self._new_id = new_id
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[tuple[int, str, str, list[str]]] = []
        self._between: list[str] = []
        self._spaces: list[str] = []
        self._leading = self._thinking = False

    def say(self, text: str) -> None:
        """Text."""
        if self._leading:
            text = text.lstrip()
        if not text:
            return
        self._leading = False
        if self.closing or self._between:
            if text.isspace():
                self._between.append(text)
                return
            self._settle()
        self._text.append(text)

    def hold(self, text: str) -> None:
        """Take what is text unless a call, or the end of one, comes next."""
        if text:
            self._between.append(text)

    def aside(self, text: str) -> None:
        """Text in the middle of a call, which is no part of it."""
        self._text.append(text)

    def end_calls(self) -> None:
        """Forget what was held: it stood in front of the end of a call."""
        self._between.clear()

    def _settle(self) -> None:
        """Say what was held: it was no part of a call."""
        self._text += self._between
        self._between.clear()
        self.closing = False

    def think(self, text: str) -> None:
        """Reasoning; white space around it is dropped."""
        if not self._thinking:
            text = text.lstrip()
        if not text:
            return
        self._thinking = True
        kept = text.rstrip()
        if kept:
            self._reasoning += (*self._spaces, kept)
            self._spaces.clear()
        if len(kept) < len(text):
            self._spaces.append(text[len(kept) :])

    def end_thought(self) -> None:
        """Reasoning is over for now."""
        self._spaces.clear()
        self._thinking, self._leading = False, True

    def begin(self, name: str, identity: str) -> None:
        """A call begins; "" is no id. Half a surrogate pair in its name becomes U+FFFD."""
        name = name.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        self._between.clear()
        self.closing, self._leading = True, False
        self._calls.append((self.calls, identity or self._new_id(), name, []))
        self.calls += 1

    def argue(self, text: str) -> None:
        """More of the arguments of the last call."""
        if not self._calls:
            self._calls.append((self.calls - 1, "", "", []))
        self._calls[-1][3].append(text)

    def heard(self) -> Heard:
        """Return what has come since the last time."""
        if not (self._text or self._reasoning or self._calls):
            return _NOTHING
        calls = tuple(
            CallDelta(index, identity, name, "".join(pieces))
            for index, identity, name, pieces in self._calls
        )
        found = Heard("".join(self._text), "".join(self._reasoning), calls)
        self._text, self._reasoning, self._calls = [], [], []
        return found

    def finish(self) -> None:
        """The reply is over: white space behind its last call means nothing, other text does."""
        if "".join(self._between).strip() or not self.closing:
            self._settle()


_NOTHING = Heard()
