"""The sixteen faults of the public exam for gateways, with what is required and advised in each.

The ids are its own. What ``ours`` holds in addition is what we ask of ourselves.
"""

from __future__ import annotations

from faults import misdeeds as do
from faults.exam import Pace, Scenario
from faults.misdeeds import Manner, first, saying, until
from faults.rules import (
    BOUNDED,
    OUR_TRIES,
    asked_at_least,
    asked_at_most,
    asked_once,
    came_back,
    fallback_asked_at_most,
    fallback_not_asked,
    gave_up_once,
    lives_on,
    no_prefill_error,
    no_tight_loop,
    not_hammered,
    noticed_stall,
    probes_little,
    served_in_outage,
    stays_back,
    told_fallback,
    told_usage,
    waited,
    within,
)
from faults.server import Behave


def _well(pace: Pace) -> Behave:
    return saying(Manner(word_s=pace.word_s))


def _cut(pace: Pace) -> Behave:
    return saying(Manner(word_s=pace.word_s, cut_at=do.CUT_AT))


def _limited(pace: Pace) -> Behave:
    return first(1, do.limiting(retry_after=str(pace.retry_after_s)), _well(pace))


SIXTEEN = (
    Scenario(
        id="S01",
        title="429 with Retry-After, once",
        primary=_limited,
        required=(no_tight_loop,),
        advised=(asked_at_least(2), waited),
        ours=(asked_at_most(2), fallback_not_asked),
    ),
    Scenario(
        id="S02",
        title="429 for ever",
        primary=lambda pace: do.limiting(),
        required=(not_hammered, asked_at_most(BOUNDED)),
        ours=(asked_at_most(OUR_TRIES), fallback_asked_at_most(1)),
    ),
    Scenario(
        id="S03",
        title="500 once",
        primary=lambda pace: first(1, do.broken, _well(pace)),
        advised=(asked_at_least(2),),
        ours=(asked_at_most(2), fallback_not_asked),
    ),
    Scenario(
        id="S04",
        title="503 for ever",
        primary=lambda pace: do.busy,
        required=(asked_at_most(BOUNDED),),
        ours=(asked_at_most(OUR_TRIES), fallback_asked_at_most(1)),
    ),
    Scenario(
        id="S05",
        title="reset before the answer, once",
        primary=lambda pace: first(1, do.resetting, _well(pace)),
        ours=(asked_at_most(2),),
    ),
    Scenario(
        id="S06",
        title="silence after the request",
        primary=lambda pace: do.silent,
        required=(within("silence_limit_s"),),
        advised=(asked_at_most(1),),
        ours=(gave_up_once,),
    ),
    Scenario(
        id="S07",
        title="first token too late",
        primary=lambda pace: saying(Manner(word_s=pace.word_s, late_s=pace.slow_s)),
        advised_with_fallback=(within("slow_limit_s"),),
        ours=(asked_once,),
    ),
    Scenario(
        id="S08",
        title="cut in the middle",
        primary=_cut,
        ours=(fallback_asked_at_most(1),),
    ),
    Scenario(
        id="S09",
        title="stalls in the middle",
        primary=lambda pace: saying(
            Manner(word_s=pace.word_s, stall_at=do.STALL_AT, stall_s=pace.stall_s)
        ),
        required=(noticed_stall, lives_on),
        ours=(asked_once, gave_up_once),
    ),
    Scenario(
        id="S10",
        title="a spoilt event in the middle",
        primary=lambda pace: saying(Manner(word_s=pace.word_s, spoil_at=do.SPOIL_AT)),
        required=(lives_on,),
    ),
    Scenario(
        id="S11",
        title="no [DONE] at the end",
        primary=lambda pace: saying(Manner(word_s=pace.word_s, done=False)),
        required=(within("end_limit_s"),),
        advised=(told_usage,),
        ours=(asked_once, fallback_not_asked, gave_up_once),
    ),
    Scenario(
        id="S12",
        title="context too long",
        primary=lambda pace: do.too_long,
        required=(asked_once,),
        ours=(fallback_asked_at_most(1),),
    ),
    Scenario(
        id="S13",
        title="content filter",
        primary=lambda pace: do.filtered,
        wants_error=True,
        required=(asked_once,),
        ours=(fallback_not_asked,),
    ),
    Scenario(
        id="S14",
        title="cut, and no continuation",
        primary=_cut,
        fallback=lambda pace: do.without_prefill(_well(pace)),
        required=(no_prefill_error,),
        ours=(fallback_asked_at_most(2),),
    ),
    Scenario(
        id="S15",
        title="outage and recovery",
        primary=lambda pace: until(pace.outage_s, do.busy, _well(pace)),
        required_with_fallback=(served_in_outage, came_back),
        asks=lambda pace: pace.asks,
        ours=(probes_little, stays_back),
    ),
    Scenario(
        id="S16",
        title="who answered",
        primary=lambda pace: do.busy,
        required=(asked_at_most(BOUNDED),),
        required_with_fallback=(told_fallback,),
        advised_with_fallback=(told_usage,),
        ours=(asked_at_most(OUR_TRIES),),
    ),
)
