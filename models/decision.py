"""How a request was routed: who was considered, who was left out, what was tried."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from llmdispatcher.models.reply import Attempt


@attrs.frozen(kw_only=True)
class Candidate:
    """One model that was considered, and why it stands where it does."""

    vendor: str
    model: str
    expected_cost_microusd: int | None
    """Of a good answer, rounded up; None where the price is not known, or did not matter."""
    note: str
    """The arithmetic behind the place, or the reason for being left out."""


Rows = tuple[Candidate, ...]


class Considered:
    """The models that were considered. Their rows are made when somebody reads them."""

    def __init__(self, candidates: Callable[[], Rows], excluded: Callable[[], Rows]) -> None:
        self._candidates, self._excluded = candidates, excluded

    @cached_property
    def candidates(self) -> Rows:
        """Those who can serve, in the order in which they are asked."""
        return self._candidates()

    @cached_property
    def excluded(self) -> Rows:
        """All others, each with the reason."""
        return self._excluded()

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the rows, and not what they are made from."""
        return _listed, (self.candidates, self.excluded)


def _listed(candidates: Rows = (), excluded: Rows = ()) -> Considered:
    return Considered(lambda: candidates, lambda: excluded)


@attrs.frozen(init=False, eq=False, repr=False)
class Decision:
    """How a request was routed: who was considered, who was left out, what was tried."""

    considered: Considered
    attempts: tuple[Attempt, ...]
    notes: tuple[str, ...]
    """What a plan did, in words: who won, who was given up, how they voted."""
    cached_s: float | None
    """When the reply was kept, in seconds since 1970, if it came from the cache and from nobody."""

    def __init__(  # noqa: PLR0913 - a keyword for each of its parts
        self,
        *,
        candidates: Rows = (),
        excluded: Rows = (),
        attempts: tuple[Attempt, ...] = (),
        notes: tuple[str, ...] = (),
        considered: Considered | None = None,
        cached_s: float | None = None,
    ) -> None:
        """``considered`` stands for ``candidates`` and ``excluded`` where they are not made yet."""
        listed = considered or _listed(tuple(candidates), tuple(excluded))
        self.__attrs_init__(listed, tuple(attempts), tuple(notes), cached_s)

    @property
    def candidates(self) -> Rows:
        """Those who can serve, in the order in which they are asked."""
        return self.considered.candidates

    @property
    def excluded(self) -> Rows:
        """All others, each with the reason."""
        return self.considered.excluded

    def _told(self) -> tuple[Any, ...]:
        return self.candidates, self.excluded, self.attempts, self.notes, self.cached_s

    def __eq__(self, other: object) -> bool:
        """Compare what is told."""
        return self._told() == other._told() if isinstance(other, Decision) else NotImplemented

    def __hash__(self) -> int:
        """Of what is told."""
        return hash(self._told())

    def __repr__(self) -> str:
        """Show what is told."""
        names = ("candidates", "excluded", "attempts", "notes", "cached_s")
        told = zip(names, self._told(), strict=True)
        return f"Decision({', '.join(f'{name}={value!r}' for name, value in told)})"

    def __str__(self) -> str:
        """Tell it to people: a line for each model, those that are left out at the end."""
        rows = [(str(place), each) for place, each in enumerate(self.candidates, 1)]
        rows += [("-", each) for each in self.excluded]
        width = max((len(f"{each.vendor}/{each.model}") for _, each in rows), default=0)
        lines = [f"{at:>2} {f'{c.vendor}/{c.model}':{width}}  {c.note}" for at, c in rows]
        lines += [f"asked {a.vendor}/{a.model}: {a.error or a.outcome}" for a in self.attempts]
        lines += self.notes
        return "\n".join(lines) or "there are no models"
