"""What is known of breakers in all programs that share a ledger, laid over those of this one.

Used under the lock of ``breakers.Breakers``, except for ``say``. What words mean is in ``shared``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import MutableMapping
from typing import TYPE_CHECKING

from llmdispatcher import shared
from llmdispatcher.breaker import Circuit
from llmdispatcher.ledger_entry import fit
from llmdispatcher.shared import Word

if TYPE_CHECKING:
    from llmdispatcher.ledger_shared import Sharing

UNKNOWN = Word()

MAX_KNOWN = 20_000
"""Breakers of which something is known, the oldest of which is forgotten first."""


class Hearsay:
    """Of one dispatcher."""

    def __init__(self, sharing: Sharing) -> None:
        self._sharing = sharing
        self._version = 0
        self._known: dict[str, Word] = {}
        """All that was said and heard, in one word for each breaker."""
        self._unsaid: deque[tuple[str, Word]] = deque()

    def listen(self, circuits: MutableMapping[str, Circuit], now_s: float) -> None:
        """Take in what was heard since, and have the writer look again if that is a while ago."""
        self._sharing.look()
        if self._version == self._sharing.version:
            return
        self._version, heard = self._sharing.version, self._sharing.words
        news = set()
        for name, word in heard.items():
            known = self._known.get(name, UNKNOWN)
            if (both := shared.merged(known, word)) != known:
                self._learn(name, both)
                news.add(name)
        for name in [name for name in circuits if fit(name) in news]:
            circuits[name] = self.laid(name, circuits[name], now_s)

    def laid(self, name: str, circuit: Circuit, now_s: float) -> Circuit:
        """Return a circuit as it is after all that is known."""
        word = self._known.get(fit(name))
        return circuit if word is None else shared.overlay(circuit, word, now_s, self._wall_s())

    def moved(self, name: str, before: Circuit, after: Circuit, now_s: float) -> Circuit:
        """Note what became of a circuit here, to be said; return it after all that is known."""
        key = fit(name)
        known = word = self._known.get(key, UNKNOWN)
        if _place(before) != _place(after):
            word = shared.said(known, after, now_s, self._wall_s())
        if after.cool_until_s > before.cool_until_s:
            word = shared.cooled(word, after, now_s, self._wall_s())
        if word == known:
            return after
        self._learn(key, word)
        self._unsaid.append((name, word))
        return shared.overlay(after, word, now_s, self._wall_s())

    def _learn(self, key: str, word: Word) -> None:
        self._known[key] = word
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]

    def say(self) -> None:
        """Tell the others. Without a lock: a ledger that is closed writes at once."""
        while self._unsaid:
            try:
                name, word = self._unsaid.popleft()
            except IndexError:  # another thread was quicker
                return
            self._sharing.say(name, word)

    def _wall_s(self) -> float:
        return self._sharing.wall()


def _place(circuit: Circuit) -> tuple[object, ...]:
    """Return what others are to know."""
    return circuit.state, circuit.until_s, circuit.level, circuit.probe
