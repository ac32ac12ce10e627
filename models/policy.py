"""What a user may set about failures and limits: how stubborn, how patient, how much at once.

Every value has a default that suits a program with a person in front of it.
"""

from __future__ import annotations

import math
from decimal import Decimal

import attrs

from llmdispatcher.models.check import dollars, flag, integer, number
from llmdispatcher.models.errors import BadRequest
from llmdispatcher.models.reply import MICRO_PER_USD

MAX_COUNT = 10**12
"""Of requests or tokens a day; nobody has a larger limit."""


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How one request may be tried again: on the same vendor, on others, and when it ends.

    All of it is one allowance: retries, fallbacks and hedges draw on the same attempts, seconds and
    dollars, so that they never multiply.
    """

    attempts: int = integer("attempts", 1, 1000, default=8)
    """How often the request may be sent in all, to whomever."""
    same_target: int = integer("same_target", 0, 100, default=2)
    """How often it may be sent again to a vendor and model that failed for no lasting reason."""
    backoff_s: float = number("backoff_s", 0, 3600, default=0.5)
    """The longest pause before the first such retry; it doubles with each."""
    backoff_cap_s: float = number("backoff_cap_s", 0, 3600, default=8.0)
    """The longest that it grows to. Both are what the clients of the OpenAI family use."""
    max_wait_s: float = number("max_wait_s", 0, 86400, default=60.0)
    """How long the request waits in all, every pause together, while nobody serves it. Limits a
    minute are whole again within one."""
    total_s: float | None = number("total_s", 0, math.inf, default=120.0)
    """No further attempt begins after so long; one that serves goes on. Loading does not count."""
    full_wait_s: float = number("full_wait_s", 0, 3600, default=5.0)
    """How long it waits in all, in ``same_target`` pauses, for local servers that are full, before
    one elsewhere is paid; 0 goes there at once. Another local server, or one that is free, is not
    waited with: it is asked if its turn is next. Only where the order is by cost, with no
    ``least_quality`` and no ``value_of_time_usd``. All models of one server are full together. Of a
    deadline, of ``total_s`` and of ``max_wait_s`` it takes a quarter at most. A server that has
    been full for long is left alone for longer than this: then nobody waits, until that time is
    nearly over. Plans that ask several side by side (parallel, hedge, ensemble) do not wait. With
    nobody else to ask, the request waits as long as ``max_wait_s`` and ``attempts`` allow; with a
    ``same_target`` of 0 it never does."""
    max_cost_usd: Decimal | None = attrs.field(default=None, converter=dollars)
    """No further attempt begins once those before have cost this much; None is no limit."""

    def __attrs_post_init__(self) -> None:
        """Only the two that say so can be None."""
        for name in ("backoff_s", "backoff_cap_s", "max_wait_s", "full_wait_s"):
            if getattr(self, name) is None:
                raise BadRequest(name, None, "a number of seconds")

    @property
    def max_cost_microusd(self) -> int | None:
        """The limit of money in micro-dollars, rounded down."""
        return None if self.max_cost_usd is None else int(self.max_cost_usd * MICRO_PER_USD)


@attrs.frozen(kw_only=True)
class BreakerPolicy:
    """When a vendor's model is left alone, and when it is asked again whether it is back.

    A local server that says that it is overloaded is not failing: it is full, and is left alone for
    a quarter of a second, which grows by an eighth with each refusal in a row, up to ``cap_s``, or
    for as long as it says. See ``RetryPolicy.full_wait_s``. One where nobody listens is left alone
    for ten seconds at most, instead of ``cap_s``, or for ``open_s`` where that is longer. All these
    times are drawn longer by ``jitter``.
    """

    failures: int = integer("failures", 1, 1000, default=3)
    """So many in a row open the breaker."""
    open_s: float = number("open_s", 0.001, 3600, default=5.0)
    """How long it is left alone before the first probe."""
    factor: float = number("factor", 1, 100, default=3.0)
    """How many times longer after each probe that failed."""
    cap_s: float = number("cap_s", 0.001, 86400, default=120.0)
    """The longest that it grows to."""
    jitter: float = number("jitter", 0, 1, default=0.25)
    """The greatest part by which an interval is drawn longer, so that programs that saw the same
    outage do not all come back at the same instant."""

    def __attrs_post_init__(self) -> None:
        """None is no number, and the cap is a cap."""
        for name in ("open_s", "factor", "cap_s", "jitter"):
            if getattr(self, name) is None:
                raise BadRequest(name, None, "a number")
        if self.cap_s < self.open_s:
            raise BadRequest("cap_s", self.cap_s, f"at least open_s, which is {self.open_s:g}")


@attrs.frozen(kw_only=True)
class Limits:
    """What one vendor or model may be asked for: by the minute, by the day, and at once.

    None is no limit of ours. Every limit of a minute or day is a bucket that refills evenly, as
    vendors' own do: in any stretch of time, no more passes than the bucket holds and what flows in
    meanwhile. ``burst`` is how much a bucket holds, as a part of the limit: with 1.0, after a quiet
    minute up to twice the limit may pass within the next; 0.1 holds a minute to 1.1 times.

    With ``Ledger(share=True)`` these buckets are those of all programs that share. How many are
    under way at once, and the line, are each program's own.
    """

    requests_per_minute: int | None = integer("requests_per_minute", 1, MAX_COUNT)
    requests_per_day: int | None = integer("requests_per_day", 1, MAX_COUNT)
    tokens_per_minute: int | None = integer("tokens_per_minute", 1, MAX_COUNT)
    """Input and output together."""
    tokens_per_day: int | None = integer("tokens_per_day", 1, MAX_COUNT)
    input_tokens_per_minute: int | None = integer("input_tokens_per_minute", 1, MAX_COUNT)
    input_tokens_per_day: int | None = integer("input_tokens_per_day", 1, MAX_COUNT)
    output_tokens_per_minute: int | None = integer("output_tokens_per_minute", 1, MAX_COUNT)
    output_tokens_per_day: int | None = integer("output_tokens_per_day", 1, MAX_COUNT)
    burst: float = number("burst", 0.001, 1, default=1.0)
    concurrency: int | None = integer("concurrency", 1, 100_000)
    """Requests under way at once; with ``adaptive``, the most that it grows to."""
    adaptive: bool = flag(default=False)
    """Find out how many at once a server bears: more while it keeps its pace, fewer when it says
    that it is overloaded or gets slow. For local servers, which tell no limits."""
    waits: bool = flag(default=True)
    """Whether a request that comes too early waits for its turn or is refused at once."""
    queue: int = integer("queue", 0, 1_000_000, default=1000)
    """How many may wait; who comes on top is refused."""

    def __attrs_post_init__(self) -> None:
        """None is no share."""
        if self.burst is None:
            raise BadRequest("burst", None, "a number from 0.001 to 1")
