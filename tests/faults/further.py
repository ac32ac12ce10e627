"""Faults beyond the public exam: other forms of the same trouble, and what else hosts really do."""

from __future__ import annotations

from faults import misdeeds as do
from faults.exam import Pace, Record, Scenario
from faults.misdeeds import Manner, first, saying
from faults.rules import (
    BOUNDED,
    OUR_TRIES,
    asked_at_least,
    asked_at_most,
    asked_once,
    fallback_asked_at_most,
    fallback_not_asked,
    gave_up_once,
    lives_on,
    told_usage,
    waited,
    within,
)
from faults.server import Behave

FAR_S = 3600
"""Longer than anybody waits."""
CRAWL = 0.25
"""Of the limit for silence: so long between two words no silence ever is too long."""


def answered_at_once(r: Record) -> str:
    """Nobody waits for what takes an hour."""
    late = [o.seconds for o in r.outcomes if o.seconds > 4 * r.pace.first_token_s]
    return f"a request took {late[0]:.1f} s" if late else ""


def _limited(how: Behave) -> Behave:
    return first(1, how, saying())


def _waits(number: int, title: str, how: str) -> Scenario:
    """A 429 that says in another way when to come back."""
    return Scenario(
        id=f"F{number:02}",
        title=title,
        primary=lambda pace: _limited(_told(how, pace.retry_after_s)),
        advised=(asked_at_least(2), waited),
        ours=(asked_at_most(2), fallback_not_asked),
    )


def _told(how: str, wait_s: int) -> Behave:
    match how:
        case "date":
            return do.limiting(retry_after_date=str(wait_s))
        case "milliseconds":
            return do.limiting(retry_after_ms=str(wait_s * 1000))
        case "duration":
            left = {"x_ratelimit_remaining_requests": "0", "x_ratelimit_remaining_tokens": "900"}
            return do.limiting(
                x_ratelimit_reset_requests=f"{wait_s}.0s", x_ratelimit_reset_tokens="7ms", **left
            )
        case "words":
            return do.limiting_in_words(f"{wait_s}.0s")
    raise ValueError(how)


def _late(pace: Pace) -> Behave:
    return saying(Manner(late_s=pace.slow_s, greets=True))


def _crawling(pace: Pace) -> Behave:
    return saying(Manner(crawl_at=do.STALL_AT, crawl_s=CRAWL * pace.idle_s))


def _stopping(*, done: bool) -> Behave:
    return saying(Manner(stop_at=do.CUT_AT, finish=False, usage=False, done=done))


def _scenario(number: int, title: str, bad: Behave, **asked: tuple[object, ...]) -> Scenario:
    """A fault that lasts, and after which the fallback answers."""
    rules = {"required": (asked_at_most(BOUNDED), lives_on), **asked}
    return Scenario(
        id=f"F{number:02}",
        title=title,
        primary=lambda pace: bad,
        **rules,  # type: ignore[arg-type]
    )


FURTHER = (
    _waits(1, "429 with a date", "date"),
    _waits(2, "429 with milliseconds", "milliseconds"),
    _waits(3, "429 with a duration", "duration"),
    _waits(4, "429 that tells in words", "words"),
    Scenario(
        id="F05",
        title="429 for an hour",
        primary=lambda pace: do.limiting(retry_after=str(FAR_S)),
        asks=lambda pace: 3,
        required=(asked_at_most(3 * BOUNDED),),
        advised=(answered_at_once,),
        ours=(asked_once, fallback_asked_at_most(3)),
    ),
    Scenario(
        id="F06",
        title="503 with Retry-After, once",
        primary=lambda pace: _limited(
            do.refusing(
                503,
                "server_error",
                "overloaded",
                "Overloaded.",
                {"retry-after": str(pace.retry_after_s)},
            )
        ),
        advised=(asked_at_least(2), waited),
        ours=(asked_at_most(2), fallback_not_asked),
    ),
    _scenario(7, "the key is refused", do.locked, ours=(asked_once,)),
    _scenario(8, "the money is used up", do.unpaid, ours=(asked_once,)),
    _scenario(9, "there is no such model", do.missing, ours=(asked_once,)),
    Scenario(
        id="F10",
        title="both are down",
        primary=lambda pace: do.busy,
        fallback=lambda pace: do.busy,
        wants_error=True,
        required=(asked_at_most(BOUNDED), within("silence_limit_s"), lives_on),
        ours=(asked_at_most(OUR_TRIES), fallback_asked_at_most(OUR_TRIES)),
    ),
    Scenario(
        id="F11",
        title="cut, and the fallback is down",
        primary=lambda pace: saying(Manner(cut_at=do.CUT_AT)),
        fallback=lambda pace: do.busy,
        wants_error=True,
        required=(asked_at_most(BOUNDED), within("silence_limit_s")),
    ),
    _scenario(12, "an error within 200", do.failing_in_200),
    _scenario(13, "an error event in the middle", saying(Manner(fail_at=do.STALL_AT))),
    _scenario(14, "an end without a reason", _stopping(done=True)),
    _scenario(15, "an end without anything", _stopping(done=False)),
    _scenario(
        16,
        "no [DONE] and no usage",
        saying(Manner(done=False, usage=False)),
        advised=(within("end_limit_s"), told_usage),
        ours=(asked_once, fallback_not_asked),
    ),
    _scenario(17, "a word in a spoilt event", saying(Manner(spoil_at=do.SPOIL_AT, loses=True))),
    _scenario(
        18,
        "the same without usage",
        saying(Manner(spoil_at=do.SPOIL_AT, loses=True, usage=False)),
    ),
    _scenario(19, "a second reply behind the end", do.going_on_behind_done),
    _scenario(20, "a second answer behind the first", do.answering_twice, ours=(asked_once,)),
    _scenario(21, "a byte at a time", do.dripping, advised=(within("stall_limit_s"),)),
    Scenario(
        id="F22",
        title="hardly a word comes any more",
        primary=_crawling,
        advised=(within("stall_limit_s"),),
        ours=(asked_once,),
    ),
    Scenario(
        id="F23",
        title="a greeting, and then silence",
        primary=_late,
        advised_with_fallback=(within("slow_limit_s"),),
        ours=(asked_once, gave_up_once),
    ),
    _scenario(24, "a page of HTML with 502", do.page(502)),
    _scenario(25, "a page of HTML with 200", do.page(200)),
    _scenario(26, "a body without end", do.flooding),
    _scenario(27, "reset in the middle of the head", do.resetting_in_head),
    Scenario(
        id="F28",
        title="nobody listens",
        primary=lambda pace: do.busy,
        absent=True,
        ours=(answered_at_once, fallback_asked_at_most(1)),
    ),
)
