"""The models of one dispatcher and their engines, by the names under which memory is counted."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from llmdispatcher.models.card import ModelCard
from llmdispatcher.vendors.contract import Engine, Resident

if TYPE_CHECKING:
    from concurrent.futures import Future


@attrs.frozen(eq=False)
class Room:
    """A model and its engine."""

    engine: Engine
    resident: Resident | None
    """The same engine, if it can give the model's memory back."""
    card: ModelCard
    name: str
    """Of the card; that of a model whose vendor was started anew has a number behind it."""

    def load(self) -> Future[None]:
        """Begin to load the model, or join the load."""
        return self.engine.load(self.card.model)


class Rooms:
    """One for each model that was asked for. Safe for threads.

    Of a vendor that was started anew, the models before and those after are counted each by itself.
    """

    def __init__(self) -> None:
        self._rooms: dict[str, Room] = {}
        self._latest: dict[str, Room] = {}
        """By the names of the cards."""
        self.begin()

    def begin(self) -> None:
        """Begin in this process; in one that was forked, again: another thread may have had it."""
        self._lock = threading.RLock()  # a signal handler may ask while this thread does

    def of(self, card: ModelCard, engine: Engine) -> Room:
        """Return the room of a model, and make it where there is none."""
        room = self._latest.get(card.name)
        return room if room is not None and room.engine is engine else self._another(card, engine)

    def __getitem__(self, name: str) -> Room:
        return self._rooms[name]

    def get(self, name: str) -> Room | None:
        """Return the room of a name; None where it was forgotten."""
        return self._rooms.get(name)

    def latest(self, card_name: str) -> str:
        """Return the name under which the model of a card is counted now; "" for none."""
        room = self._latest.get(card_name)
        return "" if room is None else room.name

    def names(self) -> list[str]:
        """Return all names."""
        return list(self._rooms)  # others add to it

    def forget(self, engine: Engine, may_go: Callable[[str], bool]) -> None:
        """Forget the models of an engine, those that ``may_go``."""
        with self._lock:
            for name, room in list(self._rooms.items()):
                if room.engine is engine and may_go(name):
                    del self._rooms[name]
                    if self._latest.get(room.card.name) is room:
                        del self._latest[room.card.name]

    def _another(self, card: ModelCard, engine: Engine) -> Room:
        """Return the room of one that another took the name of, or make it."""
        with self._lock:
            for room in self._rooms.values():
                if room.engine is engine and room.card.name == card.name:
                    return room
            numbered = (f"{card.name}#{number}" for number in itertools.count(2))
            names = itertools.chain((card.name,), numbered)
            name = next(each for each in names if each not in self._rooms)
            # asking for a Protocol takes longer than looking it up
            resident = engine if isinstance(engine, Resident) else None
            room = Room(engine, resident, card, name)
            self._rooms[name] = self._latest[card.name] = room
            return room
