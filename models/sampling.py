"""How the next token is drawn. A value, frozen and validated once; see ``request.py``."""

from __future__ import annotations

import attrs

from llmdispatcher.models.check import integer, number

MAX_SEED = 2**32 - 2
"""llama.cpp keeps seeds in 32 bits and reserves the highest value for "choose one"."""


@attrs.frozen(kw_only=True)
class Sampling:
    """How the next token is drawn. None leaves the choice to the vendor.

    The names are those of llama.cpp and of the OpenAI API where the two agree.
    """

    temperature: float | None = number("temperature", 0, 100)
    top_k: int | None = integer("top_k", 0, 2**31 - 1)
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float | None = number("top_p", 0, 1)
    """Keep the likeliest tokens whose probabilities reach p (Holtzman et al. 2019)."""
    min_p: float | None = number("min_p", 0, 1)
    """Drop tokens less likely than p times the likeliest (Nguyen et al. 2024)."""
    typical_p: float | None = number("typical_p", 0, 1)
    """Locally typical sampling (Meister et al. 2022); 1 is off."""
    repeat_penalty: float | None = number("repeat_penalty", 0.01, 100)
    """Divide the logits of recent tokens by this; 1 is off."""
    repeat_last_n: int | None = integer("repeat_last_n", 0, 2**31 - 1)
    """How many recent tokens the three penalties look at."""
    presence_penalty: float | None = number("presence_penalty", -2, 2)
    frequency_penalty: float | None = number("frequency_penalty", -2, 2)
    dry_multiplier: float | None = number("dry_multiplier", 0, 100)
    """Strength of the "don't repeat yourself" sampler of llama.cpp; 0 is off."""
    dry_base: float | None = number("dry_base", 1, 100)
    dry_allowed_length: int | None = integer("dry_allowed_length", 0, 2**31 - 1)
    xtc_probability: float | None = number("xtc_probability", 0, 1)
    """Chance of excluding the top choices at a token; 0 is off."""
    xtc_threshold: float | None = number("xtc_threshold", 0, 1)
    seed: int | None = integer("seed", 0, MAX_SEED)
    """None draws a fresh seed for every request. A local model that serves nothing else meanwhile
    repeats itself exactly for the same seed, prompt and number of threads
    (``LlamaCpp(max_threads=1)`` keeps that the same). Beside other requests, or other replies to
    the same one, sums are rounded differently, which can decide between two tokens that are almost
    equally likely."""

    def given(self) -> dict[str, float | int]:
        """Return only the fields that are set."""
        if self is UNSET:
            return {}
        return {n: v for n in FIELDS if (v := getattr(self, n)) is not None}


UNSET = Sampling()
"""Of almost all requests: one for all."""

FIELDS = tuple(field.name for field in attrs.fields(Sampling))
