"""The tiers of a cascade: who is asked first, and who is better than that. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from llmdispatcher.models.card import ModelCard
from llmdispatcher.models.errors import BadRequest
from llmdispatcher.models.reply import Usage
from llmdispatcher.models.request import Request
from llmdispatcher.route import expected_usage
from llmdispatcher.shelf import Target

MOST_RUNGS = 4
"""Tiers where the caller names none: whoever has ten models does not want all of them asked. Two or
three do (Chen et al. 2023, "FrugalGPT", which has three)."""


@attrs.frozen
class Ladder:
    """Whom to ask, one better than the other, and who is left for when all of these fail."""

    rungs: tuple[Target, ...]
    others: tuple[Target, ...] = ()

    @property
    def targets(self) -> tuple[Target, ...]:
        """All of them, in the order in which they are asked."""
        return self.rungs + self.others


def ladder(request: Request, targets: Sequence[Target], names: Sequence[str] | None) -> Ladder:
    """Make a ladder of those who can serve a request, or of the tiers that were named.

    Raises BadRequest where none of the names can serve.
    """
    if names is not None:
        return Ladder(_named(targets, names))
    usage = expected_usage(request)
    rungs: list[Target] = []
    for target in sorted(targets, key=lambda each: _place(each.card, usage)):
        if not rungs or is_better(target.card, rungs[-1].card, usage):
            rungs.append(target)
    if len(rungs) > MOST_RUNGS:
        step = (len(rungs) - 1) / (MOST_RUNGS - 1)
        rungs = [rungs[round(step * at)] for at in range(MOST_RUNGS)]
    taken = [id(each) for each in rungs]
    return Ladder(tuple(rungs), tuple(each for each in targets if id(each) not in taken))


def is_better(card: ModelCard, than: ModelCard, usage: Usage) -> bool:
    """Whether a model is known to be better than another.

    By quality tier where both have one, else by what they cost, else by how large they are. Where
    nothing is known that tells them apart, it is not.
    """
    measures = (
        (card.quality, than.quality),
        (_cost(card, usage), _cost(than, usage)),
        (card.parameters, than.parameters),
        (card.size_bytes, than.size_bytes),
    )
    for at, (mine, theirs) in enumerate(measures):
        if mine is not None and theirs is not None and (at == 0 or mine != theirs):
            return mine > theirs
    return False


def _cost(card: ModelCard, usage: Usage) -> int | None:
    """In pico-dollars, in which the cheapest still differ."""
    return None if card.price is None else card.price.cost_pico(usage)


def _place(card: ModelCard, usage: Usage) -> tuple[float, ...]:
    """Sort by cost, those of unknown price last, and the free ones by how good they may be."""
    cost = _cost(card, usage)
    good = card.quality or 0, card.parameters or 0, card.size_bytes or 0
    return (cost is None, cost or 0, *good)


def _named(targets: Sequence[Target], names: Sequence[str]) -> tuple[Target, ...]:
    found: list[Target] = []
    for name in names:
        for target in targets:
            card = target.card
            known = {card.vendor, card.name, card.model, *card.aliases}
            if name in known and all(target is not each for each in found):
                found.append(target)
                break
    if targets and not found:
        able = ", ".join(sorted({target.card.name for target in targets}))
        raise BadRequest("tiers", names, f"names of those that can serve this request: {able}")
    return tuple(found)
