"""What is asked of a client in an exam of faults: rules that say what is wrong, or ""."""

from __future__ import annotations

from faults.exam import Record, Rule

HAMMER_S, HAMMER = 3.0, 4
"""Within so many seconds a vendor that says 429 is asked at most so often."""
BOUNDED = 6
"""A vendor that goes on failing is asked at most so often for one request."""
OUR_TRIES = 3
"""... and by us."""
EARLY = 0.9
"""Of a wait that is asked for: clocks and roundings differ."""
OPENS_BY = 3
"""From this request on, counted from 0, the breaker is open."""
PROBES = 2
"""Of a vendor that is down, in one outage."""


def asked_at_most(count: int) -> Rule:
    """The primary gets at most so many requests."""
    return lambda r: f"{len(r.primary)} requests to the primary" if len(r.primary) > count else ""


def asked_at_least(count: int) -> Rule:
    """The primary gets at least so many requests."""
    return lambda r: f"{len(r.primary)} requests to the primary" if len(r.primary) < count else ""


def asked_once(r: Record) -> str:
    """The primary gets exactly one request."""
    return "" if len(r.primary) == 1 else f"{len(r.primary)} requests to the primary"


def fallback_not_asked(r: Record) -> str:
    """Nobody else is asked."""
    return f"{len(r.fallback)} requests to the fallback" if r.fallback else ""


def fallback_asked_at_most(count: int) -> Rule:
    """The fallback gets at most so many requests."""
    return lambda r: (
        f"{len(r.fallback)} requests to the fallback" if len(r.fallback) > count else ""
    )


def not_hammered(r: Record) -> str:
    """A vendor that limits is left in peace."""
    early = [seen for seen in r.primary if seen.at_s < r.primary[0].at_s + HAMMER_S]
    return f"{len(early)} requests within {HAMMER_S:g} s" if len(early) > HAMMER else ""


def no_tight_loop(r: Record) -> str:
    """While the vendor wants to be left alone it is asked at most once too often."""
    until_s = r.primary[0].at_s + 0.75 * r.pace.retry_after_s
    early = [seen for seen in r.primary if seen.at_s < until_s]
    return f"{len(early)} requests while it wanted none" if len(early) > 2 else ""


def waited(r: Record) -> str:
    """The primary is asked again after the time that it named, and not before."""
    if len(r.primary) < 2:
        return "the primary was not asked again"
    gap_s = r.primary[1].at_s - r.primary[0].at_s
    return "" if gap_s >= EARLY * r.pace.retry_after_s else f"asked again after {gap_s:.2f} s"


def within(field: str) -> Rule:
    """All is over within a time of the pace."""

    def rule(r: Record) -> str:
        limit_s = float(getattr(r.pace, field))
        seconds = r.outcome.seconds
        return (
            f"it took {seconds:.1f} s, and {limit_s:g} s are allowed" if seconds > limit_s else ""
        )

    return rule


def noticed_stall(r: Record) -> str:
    """A stall does not last as long for the caller as for the vendor; a silent body may, thrice."""
    return within("stall_limit_s" if r.streamed else "silence_limit_s")(r)


def gave_up_once(r: Record) -> str:
    """A silent vendor costs one limit, whatever comes then."""
    limit_s = 4 * r.pace.first_token_s
    return f"it took {r.outcome.seconds:.1f} s" if r.outcome.seconds > limit_s else ""


def lives_on(r: Record) -> str:
    """The client serves the next request well."""
    return "" if r.after.is_whole else f"the next request failed: {r.after.error or 'not whole'}"


def told_usage(r: Record) -> str:
    """The reply tells its usage."""
    return "" if r.outcome.error or r.outcome.has_usage else "no usage was told"


def told_fallback(r: Record) -> str:
    """The reply names who really answered."""
    if not r.fallback or r.outcome.error:
        return ""
    return "" if "fallback" in r.outcome.model else f"the reply names {r.outcome.model!r}"


def no_prefill_error(r: Record) -> str:
    """A refused continuation never is what the caller gets to see."""
    refused = any("invalid_prefill" in seen.told for seen in r.fallback)
    return "the refused continuation ended it" if r.outcome.error and refused else ""


def served_in_outage(r: Record) -> str:
    """Every request in the outage is answered."""
    inside = [o for o, at_s in zip(r.outcomes, r.asked_s, strict=True) if at_s < r.pace.outage_s]
    lost = sum(1 for outcome in inside if outcome.error)
    return f"{lost} of {len(inside)} requests in the outage were lost" if lost else ""


def came_back(r: Record) -> str:
    """The primary serves again soon after it is well."""
    well = [seen.at_s for seen in r.primary if seen.at_s >= r.pace.outage_s]
    if not well:
        return "the primary was not asked again"
    late_s = well[0] - r.pace.outage_s
    return f"back after {late_s:.1f} s" if late_s > r.pace.back_s else ""


def probes_little(r: Record) -> str:
    """Once the breaker is open a vendor that is down is probed twice at most."""
    since_s = r.asked_s[OPENS_BY]
    probes = [seen for seen in r.primary if since_s <= seen.at_s < r.pace.outage_s]
    return f"{len(probes)} probes in one outage" if len(probes) > PROBES else ""


def stays_back(r: Record) -> str:
    """Once the primary serves again nobody else is asked."""
    well = [seen.at_s for seen in r.primary if seen.at_s >= r.pace.outage_s]
    late = [seen for seen in r.fallback if well and seen.at_s > well[0]]
    return f"{len(late)} requests to the fallback after the primary was back" if late else ""
