"""What a template may spend on one rendering, so that it ends in bounded time and memory.

Everything that takes longer the more there is of it pays first: rounds of loops, calls of macros,
text and lists that are read or made. A step is what a machine does in a fraction of a microsecond.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

import jinja2
from jinja2.utils import Namespace

MAX_EFFORT = 5_000_000
"""Steps of one rendering: a few seconds at most. A conversation of 800 messages with tools takes
less with every template of llama.cpp's collection, though some look at all messages for each."""
MAX_LENGTH = 10_000_000
"""Of a text in characters, or of a list, beside what the messages have: more than a context."""
BYTES_PER_STEP = 64
"""Of text that is read or made; all that a rendering may make is a third of a gigabyte."""
STEP_LENGTH = 4
"""Characters of messages for which there is another step: enough to copy all several times."""
CALL_STEPS = 20
"""For calling a macro, or a filter for each item of a list."""
MAX_TOLD = 500
"""Characters of a template's own message that are passed on."""


def refuse(message: object) -> NoReturn:
    """Say why a template may not go on; templates call this ``raise_exception``."""
    raise jinja2.TemplateError(str(message)[:MAX_TOLD])


class Effort:
    """What is left to spend; whoever renders fills it up first."""

    def __init__(self) -> None:
        self.refill(0)

    def refill(self, length: int) -> None:
        """Allow another rendering, of messages with so many characters.

        Long ones may take longer and become longer: what fits no context is not ours to refuse.
        """
        self.left = MAX_EFFORT + length // STEP_LENGTH
        self._most = MAX_LENGTH + 2 * length

    def spend(self, steps: int) -> None:
        """Take ``steps`` away; raises TemplateError where they are not there."""
        self.left -= steps
        if self.left < 0:
            refuse(f"it takes more than {MAX_EFFORT:,} steps: too many rounds, or too much text")

    def weigh(self, value: object) -> int:
        """Pay for all that a value holds, as often as it holds it; return the steps.

        A list may hold another one twice, and that one a third one twice: a few objects, and
        without end as text or to compare.
        """
        before, waiting = self.left, [value]
        while waiting:
            item = waiting.pop()
            if isinstance(item, str):
                self.left -= 1 + len(item) // BYTES_PER_STEP
            elif isinstance(item, dict):
                self.left -= 1 + len(item)
                waiting.extend(item)
                waiting.extend(item.values())
            elif isinstance(item, list | tuple):
                self.left -= 1 + len(item)
                waiting.extend(item)
            else:
                self.left -= 1
                if isinstance(item, Namespace):
                    waiting.append(item._Namespace__attrs)  # noqa: SLF001 - what it holds has no other name
            if self.left < 0:
                self.spend(0)
        return before - self.left

    def rounds(self, items: Iterable[Any], steps: int) -> Iterator[Any]:
        """Pass the items of a loop on, each for so many steps."""
        for item in items:
            self.left -= steps
            if self.left < 0:
                self.spend(0)
            yield item

    def reserve(self, length: int) -> None:
        """Pay for a text or list before it is made, and refuse one that would be too long."""
        if length > self._most:
            refuse(f"it makes a text or list longer than {self._most:,}")
        self.spend(1 + length // BYTES_PER_STEP)

    def made(self, value: Any) -> Any:  # noqa: ANN401 - passed on
        """Pay for the memory of what was made in a time that was paid for."""
        self.spend(sys.getsizeof(value) // BYTES_PER_STEP)
        return value
