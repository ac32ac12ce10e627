"""What programs share through the ledger's file beside money: limits, and words on breakers.

A ``Pool`` is the limits of one model: each request draws its share in a transaction of the writer,
before it is sent, so that no number of threads and processes together gets more than one would.
A process that is killed takes nothing with it that does not flow back. The line is fair within a
program; between them, whoever looks first gets what there is, so that many small requests of one
can keep a large one of another waiting. Words are written when a breaker moves, and looked for at
most once a second, while requests come. Rows are few and small, and need no cleaning up: buckets
refill, and breakers have times. A failure of power may undo the last of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING

from llmdispatcher import shared
from llmdispatcher.bucket import Needs
from llmdispatcher.ledger_entry import fit
from llmdispatcher.ledger_jobs import Job
from llmdispatcher.models.errors import Refused
from llmdispatcher.models.policy import Limits
from llmdispatcher.shared import Word

if TYPE_CHECKING:
    from llmdispatcher.ledger_book import Book

LOOK_S = 1.0
"""Between two looks for what others say."""

MAX_WORDS = 10_000
"""Breakers that are looked at; no program asks so many models."""

_LIMIT, _BREAKER, _AFTER = "limit:", "breaker:", "breaker;"
"""How keys begin; the last is the first that is no breaker's any more."""


def _read(book: Book, key: str) -> str | None:
    found = book.db.execute("SELECT value FROM shared_state WHERE key = ?", (key,)).fetchone()
    return None if found is None else str(found[0])


def _write(book: Book, key: str, value: str) -> None:
    book.db.execute(
        "INSERT INTO shared_state VALUES (?, ?, ?) ON CONFLICT (key)"
        " DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
        (key, value, book.now_s),
    )


class Draw(Job):
    """Take what a request needs out of a pool, or find out when to look again.

    While the file cannot be written it is let pass, with ``degrade``, by what is known here.
    """

    is_fleeting = True

    def __init__(self, key: str, limits: Limits, needs: Needs) -> None:
        self.key, self.limits, self.needs = key, limits, needs
        self.waiting: Future[None] = Future()
        self.ends = self.waiting
        """The same, also once it has been answered."""
        self.is_granted = False
        self.is_taken = False
        """It stands in the file."""
        self.levels: tuple[float, ...] | None = None
        """What is left in the pool; None where that is not known."""

    def apply(self, book: Book) -> None:
        """Take it, all or nothing."""
        row = shared.row_of(_read(book, self.key))
        result = shared.drawn(self.limits, row, self.needs, book.now_s)
        self.is_granted = self.is_taken = result.wait_s == 0
        self.levels = result.levels
        if result.is_new:
            _write(book, self.key, shared.row_text(result.row))

    def skip(self) -> None:
        """Let it pass by what is known here."""
        self.is_granted, self.is_taken, self.levels = True, False, None
        super().skip()

    def answer(self, error: Refused | None) -> None:
        """Let whoever waits go on; with an error, nothing was taken."""
        if error is not None:
            self.is_granted = self.is_taken = False
        super().answer(error)


class Give(Job):
    """Put what was used in the place of what was drawn."""

    def __init__(self, draw: Draw, used: Needs) -> None:
        self._draw, self._used = draw, used

    def apply(self, book: Book) -> None:
        """Correct the pool, if anything was taken out of it."""
        draw = self._draw
        if not draw.is_taken:
            return
        row = shared.row_of(_read(book, draw.key))
        row = shared.given(draw.limits, row, draw.needs, self._used, book.now_s)
        _write(book, draw.key, shared.row_text(row))


class Say(Job):
    """Write down what became of a breaker, beside what others say of it."""

    def __init__(self, key: str, word: Word) -> None:
        self._key, self._word = key, word

    def apply(self, book: Book) -> None:
        """Write it, unless what is there says the same or more."""
        found = shared.word_of(_read(book, self._key))
        word = shared.merged(found, self._word)
        if word != found:
            _write(book, self._key, shared.word_text(word))


class Look(Job):
    """Read what all programs say of breakers."""

    is_fleeting = True

    def __init__(self, sharing: Sharing, since_s: float) -> None:
        self._sharing, self._since_s = sharing, since_s
        self._found: list[tuple[str, str, float]] = []

    def apply(self, book: Book) -> None:
        """Read what has changed, or everything after the clock was put back on purpose."""
        since_s = self._since_s if self._since_s <= book.now_s else -math.inf
        self._found = book.db.execute(
            "SELECT key, value, updated_at FROM shared_state"
            " WHERE key >= ? AND key < ? AND updated_at >= ? LIMIT ?",
            (_BREAKER, _AFTER, since_s, MAX_WORDS),
        ).fetchall()

    def done(self) -> None:
        """Tell what was found."""
        self._sharing.hear(self._found)


class Pool:
    """The limits of one model, which all programs keep together."""

    def __init__(self, put: Callable[[Job], None], name: str, limits: Limits) -> None:
        self._put, self._key, self._limits = put, _LIMIT + fit(name), limits
        self.learned_s = -math.inf
        """When its levels were last heard of."""

    def draw(self, needs: Needs) -> Draw:
        """Ask for a share. ``Draw.ends`` ends when there is an answer, or with LedgerUnusable."""
        draw = Draw(self._key, self._limits, needs)
        self._put(draw)
        return draw

    def give(self, draw: Draw, used: Needs) -> None:
        """Correct a share by what was used; never waits."""
        if shared.changes(self._limits, draw.needs, used):
            self._put(Give(draw, used))


class Sharing:
    """What one dispatcher hears from the others that share a ledger, and tells them."""

    def __init__(self, put: Callable[[Job], None], wall: Callable[[], float]) -> None:
        self._put, self.wall = put, wall
        self.words: Mapping[str, Word] = {}
        """What was heard last of each breaker. Replaced, never changed."""
        self.version = 0
        """Changes with ``words``."""
        self._looked_s = self._since_s = -math.inf

    def pool(self, name: str, limits: Limits) -> Pool:
        """Return the limits of a model."""
        return Pool(self._put, name, limits)

    def say(self, name: str, word: Word) -> None:
        """Tell the others of a breaker. Never waits."""
        self._put(Say(_BREAKER + fit(name), word))

    def look(self) -> None:
        """Have the writer look for what others say, if that is a while ago. Never waits."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            self._put(Look(self, self._since_s))

    def hear(self, found: list[tuple[str, str, float]]) -> None:
        """Take in what was found in the file. The writer's thread does so."""
        if not found:
            return
        heard = {key.removeprefix(_BREAKER): shared.word_of(value) for key, value, _ in found}
        self._since_s = max(updated_s for _, _, updated_s in found)
        if any(self.words.get(name) != word for name, word in heard.items()):
            is_room = len(self.words) + len(heard) <= 2 * MAX_WORDS
            self.words = {**self.words, **heard} if is_room else heard
            self.version += 1
