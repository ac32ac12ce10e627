"""What a course needs to know of a candidate."""

from __future__ import annotations

from collections.abc import Hashable

import attrs

from llmdispatcher.models.card import ModelCard, Price


@attrs.frozen
class Place:
    """A candidate, as far as the failures of others concern it, and how it may be asked."""

    key: Hashable
    """Equal for all that are asked with the same key: those of one engine."""
    context_tokens: int | None = None
    """None where it is not known."""
    is_local: bool = True
    price: Price | None = None
    """None where it is not known."""
    is_last_resort: bool = False

    @property
    def is_dear(self) -> bool:
        """Whether a wait is better than asking it: it charges, or is the last resort."""
        is_paid = not self.is_local and (self.price is None or not self.price.is_free)
        return is_paid or self.is_last_resort


def place(card: ModelCard, key: Hashable) -> Place:
    """Return the place of a model."""
    return Place(key, card.context_tokens, card.local, card.price, card.last_resort)
