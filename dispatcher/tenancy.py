"""The values of residency: a budget, what is known of a model, and what is to be done next."""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum, auto
from typing import Generic, TypeVar

import attrs

from llmdispatcher.models.check import integer
from llmdispatcher.models.errors import ModelTooLarge
from llmdispatcher.vendors.contract import Footprint

MIB = 2**20

QUIET_S = 0.1
"""A model that nobody uses is unloaded for another one after this, or after as long as it took to
load, where that is less: who asks in a loop has asked again by then."""

MIN_RESIDENCY_S = 5.0
"""A model that was used stays this long after it was loaded, or as long as the load took, where
that is less: so no more than half of the time goes into loading."""

T = TypeVar("T", bound=Hashable)


@attrs.frozen(kw_only=True)
class Budget:
    """What all models together may take; None is no limit."""

    max_memory_mb: int | None = integer("max_memory_mb", 1, 2**40)
    max_vram_mb: int | None = integer("max_vram_mb", 1, 2**40)

    @property
    def memory_bytes(self) -> int | None:
        """Of main memory."""
        return None if self.max_memory_mb is None else self.max_memory_mb * MIB

    @property
    def gpu_bytes(self) -> int | None:
        """Of the memory of GPUs."""
        return None if self.max_vram_mb is None else self.max_vram_mb * MIB


@attrs.frozen
class Admit:
    """Whoever waits for the model can use it."""

    model: str


@attrs.frozen
class Weigh:
    """Find out what the model would take now."""

    model: str


@attrs.frozen
class Load:
    """Load the model; there is room."""

    model: str


@attrs.frozen
class Unload:
    """Unload the model; nobody uses it."""

    model: str
    reason: str


@attrs.frozen
class Refuse:
    """The model can never be loaded."""

    model: str
    error: ModelTooLarge


@attrs.frozen
class Pause:
    """Nothing to do before then, unless something happens."""

    until_s: float


Action = Admit | Weigh | Load | Unload | Refuse | Pause


class Stage(Enum):
    """Where a model is."""

    ABSENT = auto()
    LOADING = auto()
    LOADED = auto()
    UNLOADING = auto()


@attrs.define(eq=False)
class Model(Generic[T]):
    """What is known of one model."""

    name: str
    stage: Stage = Stage.ABSENT
    footprint: Footprint = attrs.field(factory=lambda: Footprint(memory_bytes=0))
    is_weighed: bool = False
    """Whether the footprint was taken since others were last unloaded."""
    is_being_weighed: bool = False
    users: dict[T, None] = attrs.field(factory=dict)
    waiters: dict[T, None] = attrs.field(factory=dict)
    waits_since_s: float = 0.0
    """When the first of the waiters came."""
    used_s: float = 0.0
    began_s: float = 0.0
    loaded_s: float = 0.0
    load_s: float | None = None
    """How long the last load took."""
    was_used: bool = False
    """Since it was loaded."""
    is_shut: bool = False
    """It makes room for another one when its users are gone; nobody else gets in."""
    is_leaving: bool = False
    """Somebody asked to unload it."""

    def is_busy(self) -> bool:
        """Whether it is used, or will be at once."""
        return bool(self.users or (self.waiters and not self.is_shut))

    def settled_s(self) -> float:
        """Return from when on it may be unloaded for a model that has waited long."""
        return self.loaded_s + (min(MIN_RESIDENCY_S, self.load_s or 0.0) if self.was_used else 0.0)

    def quiet_s(self) -> float:
        """Return from when on it may be unloaded for any model."""
        if not self.was_used:
            return self.loaded_s
        return max(self.settled_s(), self.used_s + min(QUIET_S, self.load_s or 0.0))
