"""The arithmetic of caps and of worst cases."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdispatcher import (
    FREE,
    BudgetExceeded,
    EmbedRequest,
    Image,
    ModelCard,
    Price,
    Request,
    RerankRequest,
    ResponseFormat,
    SpendingCap,
    ToolSpec,
    Usage,
    user,
)
from llmdispatcher.budget import (
    Balance,
    Payer,
    RequestPurse,
    Worst,
    accounts,
    alerts,
    concerning,
    day_of,
    dollars,
    exceeded,
    needed,
    refusal,
    renewal,
)
from llmdispatcher.models.budget import Period
from llmdispatcher.worst import output_bound, prompt_bound, worst_case

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
NOON_S = NOON.timestamp()
PRICE = Price.per_million(1, 10, cached_input="0.1", cache_write="1.25", per_request="0.01")


def card(**facts: object) -> ModelCard:
    """A model with a price and limits."""
    given_: dict[str, object] = {
        "vendor": "v",
        "model": "m",
        "local": False,
        "price": PRICE,
        "max_output_tokens": 100,
    }
    return ModelCard(**{**given_, **facts})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("period", "now", "expected"),
    [
        (Period.DAY, "2026-11-30T23:59:59.999999Z", "2026-12-01T00:00Z"),
        (Period.DAY, "2028-02-28T00:00Z", "2028-02-29T00:00Z"),
        (Period.MONTH, "2026-01-31T05:00Z", "2026-02-01T00:00Z"),
        (Period.MONTH, "2026-12-01T00:00Z", "2027-01-01T00:00Z"),
    ],
)
def test_periods_end_in_utc(period: Period, now: str, expected: str) -> None:
    """At midnight, and on the first of the next month."""
    found = renewal(period, datetime.fromisoformat(now).timestamp())

    assert found == datetime.fromisoformat(expected)


def test_a_cap_for_ever_never_begins_anew() -> None:
    """There is nothing to wait for."""
    assert renewal(Period.EVER, NOON_S) is None
    cap = SpendingCap("1", period="ever")
    assert exceeded(cap, "why", 5, NOON_S).retry_after_s is None


def test_waiting_helps_only_if_the_next_period_has_room() -> None:
    """A request that is dearer than the whole cap is not told to come again."""
    cap = SpendingCap("0.0001", period="day")

    assert exceeded(cap, "why", 100, NOON_S).retry_after_s == 12 * 3600
    assert exceeded(cap, "why", 101, NOON_S).retry_after_s is None


def test_an_attempt_is_in_every_account_of_its_scopes_once() -> None:
    """All, its vendor, its key and each tag, for the day, the month and ever."""
    found = accounts(Payer("v", "k", ("a", "b", "a")), day_of(NOON_S))

    assert len(found) == len(set(found)) == 5 * 3
    assert {account.start for account in found} == {"2026-11-20", "2026-11", ""}
    assert len(accounts(Payer("v"), "2026-11-20")) == 2 * 3


def test_caps_concern_whom_they_name() -> None:
    """A vendor called like a tag is not that tag."""
    everything = SpendingCap("1", period="day")
    tag = SpendingCap("1", period="day", scope="tag", name="x")
    vendor = SpendingCap("1", period="day", scope="vendor", name="x")
    caps = (everything, tag, vendor)

    assert concerning(caps, Payer("x")) == (everything, vendor)
    assert concerning(caps, Payer("v", tags=("x",))) == (everything, tag)
    assert concerning(caps, Payer("v", key="x")) == (everything,)


@given(
    limit=st.integers(0, 10**9),
    spent=st.integers(0, 10**9),
    reserved=st.integers(0, 10**9),
    worst=st.integers(0, 10**9),
)
def test_what_fits_is_what_is_left(limit: int, spent: int, reserved: int, worst: int) -> None:
    """Admitted if and only if all together stay within the limit, or it costs nothing."""
    cap = SpendingCap(Decimal(limit) / 10**6, period="day")

    refused = refusal(cap, Balance(spent, reserved), worst, NOON_S)

    assert (refused is None) == (worst == 0 or spent + reserved + worst <= limit)


def test_a_refusal_says_the_numbers_and_the_time() -> None:
    """What is needed, what is left, what is in flight, when it begins anew."""
    cap = SpendingCap("0.01", period="day", scope="vendor", name="openai")

    assert refusal(cap, Balance(4000, 3000), 5000, NOON_S) == (
        "the worst case of this request is $0.005000, and the cap of $0.01 a day for vendor"
        " 'openai' has $0.003000 left: $0.007000 is taken, $0.003000 of it for requests in flight;"
        " it begins anew at 2026-11-21 00:00 UTC"
    )


@given(limit=st.integers(1, 10**9), spent=st.integers(0, 2 * 10**9))
def test_alerts_are_the_shares_that_are_spent(limit: int, spent: int) -> None:
    """A share is reached when so much of the limit is spent, exactly; reservations do not count."""
    cap = SpendingCap(Decimal(limit) / 10**6, period="day")

    found = {alert.percent for alert in alerts(cap, Balance(spent, 10**9), "2026-11-20")}

    assert found == {share for share in (50, 80, 95) if spent * 100 >= limit * share}


def test_a_cap_of_nothing_has_no_alerts() -> None:
    """Every share of $0 is always spent."""
    assert alerts(SpendingCap(0, period="day"), Balance(5, 0), "") == ()


def test_an_unknown_worst_case_is_refused_unless_all_caps_allow_it() -> None:
    """One strict cap among lax ones is enough; the reason is told."""
    lax = SpendingCap("1", period="day", unknown_price="allow")
    strict = SpendingCap("1", period="month")
    unknown = Worst(None, "the price of v/m is not known")

    assert needed((lax,), unknown) == 0
    assert needed((strict,), Worst(7)) == 7
    with pytest.raises(BudgetExceeded, match="the price of v/m is not known"):
        needed((lax, strict), unknown)


def test_one_purse_covers_all_attempts_of_a_request() -> None:
    """``max_cost_usd`` is for retries and fallbacks together."""
    purse = RequestPurse(100)
    purse.spend(60, purse.admit(Worst(60)))
    purse.spend(0, purse.admit(Worst(40)))
    with pytest.raises(BudgetExceeded, match=r"\$0\.000041, and of its max_cost_usd \$0\.000040"):
        purse.admit(Worst(41))
    with pytest.raises(BudgetExceeded, match="nobody knows"):
        purse.admit(Worst(None, "nobody knows"))
    purse.spend(100)
    purse.admit(Worst(0))
    RequestPurse(None).admit(Worst(None))


def test_what_is_under_way_is_set_aside_in_the_purse() -> None:
    """Attempts side by side may not cost more than the limit together."""
    purse = RequestPurse(100)
    first = purse.admit(Worst(60))
    with pytest.raises(BudgetExceeded, match=r"\$0\.000040 are left"):
        purse.admit(Worst(41))
    purse.spend(10, first)
    assert purse.admit(Worst(90)) == 90


@pytest.mark.parametrize(
    ("microusd", "text"),
    [(0, "$0.00"), (1, "$0.000001"), (10_000, "$0.01"), (12_340_000, "$12.34"), (150, "$0.000150")],
)
def test_amounts_are_written_exactly(microusd: int, text: str) -> None:
    """Cents where that is exact, else all six decimals."""
    assert dollars(microusd) == text


# -- worst cases -------------------------------------------------------------------------------


@given(
    text=st.text(max_size=200),
    used=st.floats(0, 1),
    cached=st.floats(0, 1),
    written=st.floats(0, 1),
    n=st.integers(1, 3),
)
def test_no_reply_within_the_limits_costs_more_than_the_worst_case(
    text: str, used: float, cached: float, written: float, n: int
) -> None:
    """Whatever is read from a cache, written to it, or drawn: a token has at least a byte."""
    request = Request.of(text or "x", max_tokens=50, n=n)
    prompt = int(len((text or "x").encode()) * used)
    from_cache = int(prompt * cached)
    usage = Usage(
        prompt_tokens=prompt,
        cached_tokens=from_cache,
        cache_write_tokens=int((prompt - from_cache) * written),
        completion_tokens=50 * n,
    )

    worst = worst_case(card(), request).microusd

    assert worst is not None
    assert worst >= PRICE.cost_microusd(usage)


def test_the_worst_case_is_this_arithmetic() -> None:
    """Bytes and what a template adds at the dearest rate, the longest reply, the request fee."""
    worst = worst_case(card(), Request.of("12345678", max_tokens=7)).microusd
    prompt = prompt_bound(card(), Request.of("12345678", max_tokens=7))

    assert prompt is not None
    assert 8 + 16 <= prompt <= 500
    assert worst == -(-prompt * 125 // 100) + 7 * 10 + 10_000


def test_the_prompt_is_bounded_by_the_context() -> None:
    """More than fits, a model does not read."""
    assert prompt_bound(card(context_tokens=50), Request.of("x" * 10_000)) == 50


@pytest.mark.parametrize(
    "options",
    [
        {"tools": [ToolSpec("add", "Adds.", {"type": "object", "title": "x" * 400})]},
        {"response_format": ResponseFormat("schema", schema={"title": "x" * 400})},
        {"prefill": "x" * 400},
    ],
    ids=["tools", "schema", "prefill"],
)
def test_everything_that_is_sent_counts(options: dict[str, object]) -> None:
    """Tools and schemas are read, too."""
    bare = prompt_bound(card(), Request.of("hello"))
    more = prompt_bound(card(), Request.of("hello", **options))  # type: ignore[arg-type]

    assert bare is not None
    assert more is not None
    assert more >= bare + 400


def test_the_longest_reply_is_what_the_request_or_the_card_says() -> None:
    """Times the choices; unknown where neither does, which a budget refuses with the way out."""
    assert output_bound(card(), Request.of("x", max_tokens=7, n=3)) == 21
    assert output_bound(card(), Request.of("x")) == 100

    unknown = worst_case(card(max_output_tokens=None), Request.of("x"))

    assert unknown.microusd is None
    assert "state max_tokens" in unknown.why


def test_an_unknown_price_is_unknown_and_free_is_free() -> None:
    """Never $0 for what nobody knows; never a reservation for what costs nothing."""
    unknown = worst_case(card(price=None), Request.of("x", max_tokens=1))

    assert unknown.microusd is None
    assert "the price of v/m is not known" in unknown.why
    assert worst_case(card(price=FREE, max_output_tokens=None), Request.of("x")) == Worst(0)


def test_an_image_may_fill_the_context() -> None:
    """How many tokens it has is the vendor's affair; without a context nothing bounds it."""
    request = Request.of([user(["What is this?", Image(data=b"\x89PNG\r\n\x1a\n")])])

    assert prompt_bound(card(context_tokens=9000), request) == 9000
    assert "context_tokens" in worst_case(card(), request).why


def test_vectors_and_scores_have_no_output() -> None:
    """What is read alone is paid for; a query is read with each document."""
    embed = EmbedRequest.of(["abc", "de"])
    rerank = RerankRequest.of("query", ["abc", "de"])

    assert output_bound(card(), embed) == output_bound(card(), rerank) == 0
    assert prompt_bound(card(), embed) == 5 + 2 * 16
    assert prompt_bound(card(), rerank) == 15 + 2 * 16


def test_a_deep_schema_is_weighed_without_recursion() -> None:
    """JSON of strangers may be nested deeper than Python recurses."""
    deep: dict[str, object] = {}
    for _ in range(20_000):
        deep = {"a": deep}
    tool = ToolSpec("t", "", {})
    object.__setattr__(tool, "parameters", deep)  # past what makes one

    bound = prompt_bound(card(), Request.of("x", tools=[tool]))

    assert bound is not None
    assert bound > 20_000
