"""Which models are in memory, and which is next. Pure: no clock, no lock, no engine.

Models are loaded when somebody asks for them, one at a time, in the order in which they were first
asked for. Where the budget is full, those that were not used for the longest time make room. A
model in use is never among them; but when another one has waited for its turn, the door is shut:
who is inside is served to the end, and who comes later waits until the model is loaded again.

With equal models this is least recently used, which loads at most as many times more often than
one that knew the future as there are models that fit (Sleator and Tarjan 1985, "Amortized
efficiency of list update and paging rules"), and less often the more requests come at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic

import attrs

from llmdispatcher.models.errors import ModelTooLarge
from llmdispatcher.tenancy import (
    MIB,
    Action,
    Admit,
    Budget,
    Load,
    Model,
    Pause,
    Refuse,
    Stage,
    T,
    Unload,
    Weigh,
)
from llmdispatcher.vendors.contract import Footprint

TURN_S = 5.0
"""After this, a model that waits for room has its turn, however busy the others are: a person
notices a pause of this length and does not give up yet."""

ASKED = "asked to"


class Residency(Generic[T]):
    """Decides over the models of one dispatcher. Not safe for threads.

    Tell it what happens, and do what ``decide`` says, again and again until it says ``Pause`` or
    nothing. Each thing may be told twice. A user is whatever stands for one request.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._models: dict[str, Model[T]] = {}

    # -- what happens --------------------------------------------------------------------------

    def enter(self, name: str, user: T, now_s: float) -> None:
        """Note that somebody wants to use a model."""
        model = self._models.setdefault(name, Model(name))
        if not model.waiters:
            model.waits_since_s = now_s
            model.is_weighed = False
        model.waiters[user] = None

    def leave(self, name: str, user: T, now_s: float) -> None:
        """Note that somebody is done with a model, or waits no more."""
        model = self._models.get(name)
        if model is None:
            return
        model.waiters.pop(user, None)
        if user in model.users:
            del model.users[user]
            model.used_s = now_s

    def admit(self, name: str, now_s: float) -> list[T]:
        """Turn those who wait for a model into its users, and return them."""
        model = self._models[name]
        entered = list(model.waiters)
        model.users |= model.waiters
        model.waiters.clear()
        model.used_s, model.was_used = now_s, True
        return entered

    def weighing(self, name: str) -> None:
        """Note that a model is being weighed."""
        self._models[name].is_being_weighed = True

    def weighed(self, name: str, footprint: Footprint) -> None:
        """Note what a model takes, or would take."""
        model = self._models[name]
        model.footprint, model.is_weighed, model.is_being_weighed = footprint, True, False

    def grown(self, name: str, footprint: Footprint) -> None:
        """Note what a loaded model was found to take, where that is more than was thought."""
        model = self._models.get(name)
        if model is not None and model.stage is Stage.LOADED:
            model.footprint = attrs.evolve(
                footprint,
                memory_bytes=max(footprint.memory_bytes, model.footprint.memory_bytes),
                gpu_bytes=max(footprint.gpu_bytes, model.footprint.gpu_bytes),
            )

    def begun(self, name: str, now_s: float) -> None:
        """Note that a load began."""
        model = self._models[name]
        model.stage, model.began_s = Stage.LOADING, now_s

    def loaded(self, name: str, now_s: float) -> None:
        """Note that a load succeeded."""
        model = self._models[name]
        model.stage, model.load_s = Stage.LOADED, now_s - model.began_s
        model.loaded_s = model.used_s = now_s
        model.was_used = model.is_shut = False

    def failed(self, name: str) -> list[T]:
        """Note that a model cannot be loaded; return those who waited for it."""
        model = self._models[name]
        model.stage, model.is_being_weighed = Stage.ABSENT, False
        model.is_shut = model.is_leaving = False
        waited = list(model.waiters)
        model.waiters.clear()
        return waited

    def unloading(self, name: str) -> None:
        """Note that a model is being unloaded."""
        self._models[name].stage = Stage.UNLOADING

    def gone(self, name: str) -> None:
        """Note that a model is no longer in memory: it was unloaded, or died."""
        model = self._models[name]
        model.stage, model.is_shut, model.is_leaving = Stage.ABSENT, False, False
        for each in self._models.values():
            each.is_weighed = False

    def forget(self, name: str) -> bool:
        """Forget a model that has no engine any more. False while something is going on."""
        model = self._models.get(name)
        if model is None:
            return True
        is_moving = model.stage in {Stage.LOADING, Stage.UNLOADING} or model.is_being_weighed
        if is_moving or model.users or model.waiters:
            return False
        self.gone(name)
        del self._models[name]
        return True

    def obey(self, budget: Budget) -> None:
        """Note that another budget holds from now on."""
        self._budget = budget
        for each in self._models.values():
            each.is_weighed = False

    def ask(self, name: str) -> bool:
        """Ask to unload a model once its users are gone. False if it is not in memory."""
        model = self._models.get(name)
        if model is None or model.stage is Stage.ABSENT:
            return False
        model.is_leaving = True
        return True

    # -- what is known -------------------------------------------------------------------------

    def model(self, name: str) -> Model[T] | None:
        """Return what is known of a model, to look at; None if nobody ever asked for it."""
        return self._models.get(name)

    def is_loading(self) -> bool:
        """Whether a model is being loaded."""
        return any(model.stage is Stage.LOADING for model in self._models.values())

    def crowded(self, name: str, needed_bytes: int) -> Footprint | None:
        """Say what to try for a model that does not fit beside the others: to be alone.

        None if it is alone, but for those that stay, or too large for the budget.
        """
        limit = self._budget.memory_bytes
        movable = [m for m in self._held() if m.name != name and not _stays(m)]
        if limit is None or not movable:
            return None
        room = limit - _total(m for m in self._held() if _stays(m))[0]
        return Footprint(memory_bytes=room) if needed_bytes <= room else None

    # -- what to do ----------------------------------------------------------------------------

    def decide(self, now_s: float) -> Action | None:
        """Return what to do now; None is nothing until something happens."""
        steps: tuple[Callable[[float], Action | None], ...] = (
            self._let_in,
            self._let_go,
            self._expire,
            self._make_next,
            self._let_in,  # a door may have been opened again
        )
        pauses: list[float] = []
        for step in steps:
            match step(now_s):
                case None:
                    continue
                case Pause(until_s):
                    pauses.append(until_s)
                case action:
                    return action
        return Pause(min(pauses)) if pauses else None

    def _let_in(self, _: float) -> Action | None:
        """Admit whoever waits before an open door."""
        for model in self._loaded():
            if model.waiters and not model.is_shut and not model.is_leaving:
                return Admit(model.name)
        return None

    def _let_go(self, _: float) -> Action | None:
        """Unload what somebody asked to unload."""
        for model in self._loaded():
            if model.is_leaving and not model.users:
                return Unload(model.name, ASKED)
        return None

    def _expire(self, now_s: float) -> Action | None:
        """Unload what was not used for as long as it is to be kept."""
        first_s: float | None = None
        for model in self._loaded():
            keep_alive_s = model.footprint.keep_alive_s
            if keep_alive_s is None or model.users or model.waiters:
                continue
            ends_s = model.used_s + keep_alive_s
            if now_s >= ends_s:
                return Unload(model.name, f"not used for {keep_alive_s:g} s")
            first_s = ends_s if first_s is None else min(first_s, ends_s)
        return None if first_s is None else Pause(first_s)

    def _make_next(self, now_s: float) -> Action | None:
        """Bring the model that has waited longest nearer to its load."""
        absent = (m for m in self._models.values() if m.stage is Stage.ABSENT and m.waiters)
        head = min(absent, key=lambda model: model.waits_since_s, default=None)
        if head is None:
            self._open_all()
            return None
        if self.is_loading() or head.is_being_weighed:
            return None
        return self._place(head, now_s) if head.is_weighed else Weigh(head.name)

    def _place(self, head: Model[T], now_s: float) -> Action | None:
        """Load a model where there is room, or make some."""
        if error := self._refusal(head):
            return Refuse(head.name, error)
        lack = self._lack(head, self._held())
        if _covered(lack):
            self._open_all()
            return Load(head.name)
        staying = [m for m in self._held() if not (m.is_leaving or m.stage is Stage.UNLOADING)]
        if _covered(lack := self._lack(head, staying)):
            return None  # it has only to wait for those that go
        return self._clear(head, lack, now_s)

    def _clear(self, head: Model[T], lack: tuple[int, int], now_s: float) -> Action | None:
        """Make room: for a model whose turn it is from busy ones too, else from quiet ones."""
        turn_s = head.waits_since_s + TURN_S
        is_due = now_s >= turn_s
        victims = self._victims(lack, now_s, is_due=is_due)
        for model in self._loaded():
            model.is_shut = is_due and model in victims and now_s >= model.settled_s()
        reason = f"to make room for {head.name}"
        if is_due:
            empty = [m for m in victims if m.is_shut and not m.users]
            if empty:
                return Unload(empty[0].name, reason)
            later_s = [m.settled_s() for m in victims if not m.is_shut]
            return Pause(min(later_s)) if later_s else None
        if any(model.is_busy() for model in victims):
            return Pause(turn_s)
        quiet_s = max(model.quiet_s() for model in victims)
        return Unload(victims[0].name, reason) if now_s >= quiet_s else Pause(min(quiet_s, turn_s))

    def _victims(self, lack: tuple[int, int], now_s: float, *, is_due: bool) -> list[Model[T]]:
        """Choose who makes room: those that can go now, then those used least recently."""

        def preference(model: Model[T]) -> tuple[bool, bool, bool, int, float]:
            from_s = model.settled_s() if is_due else model.quiet_s()
            return (
                model.is_busy() or now_s < from_s,
                not model.is_shut,
                now_s < model.settled_s(),
                len(model.users),
                model.used_s,
            )

        movable = [m for m in self._loaded() if not (m.footprint.pinned or m.is_leaving)]
        chosen: list[Model[T]] = []
        for model in sorted(movable, key=preference):
            if _covered(_minus(lack, chosen)):
                break
            chosen.append(model)
        for model in reversed(chosen.copy()):  # small ones, before a large one that is enough
            others = [m for m in chosen if m is not model]
            if _covered(_minus(lack, others)):
                chosen = others
        return chosen

    def _refusal(self, head: Model[T]) -> ModelTooLarge | None:
        """Return why a model can never be loaded, if so."""
        pinned = [m for m in self._held() if _stays(m)]
        asked = (head.footprint.memory_bytes, head.footprint.gpu_bytes)
        limits = (self._budget.memory_bytes, self._budget.gpu_bytes)
        kinds = (("memory", "max_memory_mb"), ("GPU memory", "max_vram_mb"))
        rows = zip(kinds, asked, limits, _total(pinned), strict=True)
        for (what, option), needed, limit, held in rows:
            if limit is None or needed <= limit - held:
                continue
            names = ", ".join(model.name for model in pinned)
            beside = f", of which pinned models ({names}) hold {_mib(held)}" if held else ""
            return ModelTooLarge(
                f"it takes {_mib(needed)} of {what} and all models together may take"
                f" {limit // MIB} MiB{beside}: raise the dispatcher's {option}, or give the model"
                " less context or a smaller file",
                needed_bytes=needed,
                limit_bytes=limit - held,
            )
        return None

    def _lack(self, head: Model[T], held: Iterable[Model[T]]) -> tuple[int, int]:
        """Return the bytes over the budget, were a model loaded beside these."""
        memory, gpu = _total([head, *held])
        limits = self._budget
        return (
            0 if limits.memory_bytes is None else memory - limits.memory_bytes,
            0 if limits.gpu_bytes is None else gpu - limits.gpu_bytes,
        )

    def _open_all(self) -> None:
        """Nobody has to make room any more."""
        for model in self._models.values():
            model.is_shut = False

    def _held(self) -> list[Model[T]]:
        """List the models that take memory."""
        return [m for m in self._models.values() if m.stage is not Stage.ABSENT]

    def _loaded(self) -> list[Model[T]]:
        return [m for m in self._models.values() if m.stage is Stage.LOADED]


def _stays(model: Model[T]) -> bool:
    """Whether a model is never unloaded to make room, nor because somebody asked."""
    leaves = model.is_leaving or model.stage is Stage.UNLOADING
    return model.footprint.pinned and not leaves


def _total(models: Iterable[Model[T]]) -> tuple[int, int]:
    prints = [model.footprint for model in models]
    return sum(each.memory_bytes for each in prints), sum(each.gpu_bytes for each in prints)


def _minus(lack: tuple[int, int], models: Iterable[Model[T]]) -> tuple[int, int]:
    memory, gpu = _total(models)
    return lack[0] - memory, lack[1] - gpu


def _covered(lack: tuple[int, int]) -> bool:
    return lack[0] <= 0 and lack[1] <= 0


def _mib(size_bytes: int) -> str:
    return f"{-(-size_bytes // MIB)} MiB"
