"""Which samplers a request needs, and in which order: a plan that ``native`` carries out. Pure.

The order is that of llama-server (``common_params_sampling::samplers``): penalties, DRY, top-k,
typical, top-p, min-p, XTC, temperature, draw. A sampler that would change nothing is left out,
since several of them walk the whole vocabulary.
"""

from __future__ import annotations

from typing import Any

import attrs

from llmdispatcher.models.sampling import Sampling

DEFAULTS = Sampling(
    temperature=0.8,
    top_k=40,
    top_p=0.95,
    min_p=0.05,
    typical_p=1.0,
    repeat_penalty=1.0,
    repeat_last_n=64,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    dry_multiplier=0.0,
    dry_base=1.75,
    dry_allowed_length=2,
    xtc_probability=0.0,
    xtc_threshold=0.1,
)
"""llama.cpp's own defaults (``common_params_sampling`` in common/common.h)."""

XTC_OFF_ABOVE = 0.5
"""XTC removes all tokens above the threshold but one: two cannot both be above one half."""


@attrs.frozen
class Link:
    """One sampler of the chain: its name in llama.cpp, and what it takes from the request."""

    name: str
    args: tuple[float | int, ...] = ()


def chain(sampling: Sampling, seed: int) -> tuple[Link, ...]:
    """Plan the chain for a request."""
    given: dict[str, Any] = sampling.given()
    s: Any = attrs.evolve(DEFAULTS, **given)
    links = [
        *_penalties(s),
        *_when(s.dry_multiplier > 0, "dry", s.dry_multiplier, s.dry_base, s.dry_allowed_length),
    ]
    if s.temperature <= 0:
        return (*links, Link("greedy"))
    return (
        *links,
        *_when(s.top_k > 0, "top_k", s.top_k),
        *_when(s.typical_p < 1, "typical", s.typical_p),
        *_when(s.top_p < 1, "top_p", s.top_p),
        *_when(s.min_p > 0, "min_p", s.min_p),
        *_when(
            s.xtc_probability > 0 and s.xtc_threshold <= XTC_OFF_ABOVE,
            "xtc",
            s.xtc_probability,
            s.xtc_threshold,
            seed,
        ),
        *_when(s.temperature != 1, "temp", s.temperature),
        Link("dist", (seed,)),
    )


def _penalties(s: Any) -> tuple[Link, ...]:  # noqa: ANN401 - a Sampling without None
    changes = s.repeat_penalty != 1 or s.presence_penalty != 0 or s.frequency_penalty != 0
    args = (s.repeat_last_n, s.repeat_penalty, s.frequency_penalty, s.presence_penalty)
    return _when(changes and s.repeat_last_n > 0, "penalties", *args)


def _when(needed: bool, name: str, *args: float) -> tuple[Link, ...]:  # noqa: FBT001 - reads as a sentence
    return (Link(name, args),) if needed else ()
