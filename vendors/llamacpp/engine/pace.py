"""How many tokens of prompts to read in a step, so that running replies do not stutter. Pure."""

from __future__ import annotations

TARGET_S = 0.08
"""How long a step may take beside others: who cancels waits for its end, and text that comes every
tenth of a second still flows."""

FIRST_TOKENS = 32
"""To read before anything has been measured."""

FIRST_GUESS = 4
"""So many tokens are taken to be read in the time of a step that reads none, until it is seen."""

LEAST_TOKENS = 8
"""Fewer gain nothing: most of a step's time goes into reading the weights."""

NEWEST = 0.3
"""Weight of the newest step in the running means."""


class Pace:
    """Learns from the steps what a token of a prompt costs here."""

    def __init__(self) -> None:
        self._step_s = 0.0
        """A step that reads no prompt; 0 is not known."""
        self.token_s = 0.0
        """What each token of a prompt adds to a step; 0 is not known."""

    def note(self, drawing: int, reading: int, took_s: float) -> None:
        """Learn from a step: sequences that drew without reading, and tokens of prompts read."""
        if reading == 0:
            self._step_s = _mean(self._step_s, took_s)
        elif reading >= LEAST_TOKENS:
            base_s = self._step_s if drawing else 0.0
            self.token_s = _mean(self.token_s, max(took_s - base_s, 0.1 * took_s) / reading)

    def tokens(self, drawing: int) -> int:
        """Return how many tokens of prompts to read in a step in which so many draw.

        A step may take TARGET_S, or twice what it takes without any prompt if that is longer.
        """
        token_s = self.token_s or self._step_s / FIRST_GUESS
        if token_s == 0:
            return FIRST_TOKENS
        base_s = self._step_s if drawing else 0.0
        left_s = max(TARGET_S - base_s, base_s)
        return max(LEAST_TOKENS, int(left_s / token_s))


def _mean(mean: float, newest: float) -> float:
    return newest if mean == 0 else mean + NEWEST * (newest - mean)
