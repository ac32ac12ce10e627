"""The ledger on a real file: rows, reservations, settlements, expiry, clocks."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from books import NOON_S, PATIENCE_S, ask, audit, closed, opening, read, until

from llmdispatcher import (
    AsyncDispatcher,
    BadRequest,
    BudgetAlert,
    BudgetExceeded,
    Dispatcher,
    Event,
    Price,
    Scripted,
    SpendingCap,
    Usage,
    fingerprint,
)
from llmdispatcher.budget import Worst
from llmdispatcher.ledger import Ledger
from llmdispatcher.ledger_entry import Fate
from llmdispatcher.ledger_file import default_path
from llmdispatcher.models.event import LedgerTrouble
from llmdispatcher.models.reply import MAX_COUNT, Outcome

Make = Callable[..., Ledger]


class Clock:
    """A clock that tests set."""

    def __init__(self, now_s: float = NOON_S) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        """Tell the time."""
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    """Noon of a day."""
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the ledger is, in a folder that does not exist yet."""
    return tmp_path / "data" / "ledger.sqlite3"


@pytest.fixture
def make(path: Path, clock: Clock) -> Iterator[Make]:
    """Make ledgers that are closed at the end."""
    made: list[Ledger] = []

    def one(*caps: SpendingCap, **options: object) -> Ledger:
        made.append(Ledger(path, caps=caps, **{"wall": clock, **options}))  # type: ignore[arg-type]
        return made[-1]

    yield one
    for ledger in made:
        ledger.close()


DAY = SpendingCap("0.0005", period="day")
"""Five calls of 100 micro-dollars."""


def test_every_attempt_is_a_row_with_all_its_facts(make: Make, path: Path) -> None:
    """Who, when, how it ended, every kind of token, what it cost and by which price."""
    ledger = make()
    usage = Usage(
        prompt_tokens=10,
        completion_tokens=7,
        cached_tokens=3,
        cache_write_tokens=2,
        reasoning_tokens=1,
        estimated=True,
        charged_microusd=44,
    )
    slip = ask(
        ledger,
        one=opening(
            request_id="r",
            number=2,
            key=fingerprint("sk-secret"),
            tags=("a", "b", "a"),
            price_version="2026-11",
            retry_of=1,
        ),
    )
    ledger.settle(
        slip,
        closed(
            44,
            Outcome.FAILED,
            usage=usage,
            first_token_s=0.25,
            load_s=1.5,
            error="RateLimited: words of a vendor sk-secret",
            request_id="req_1",
            served_model="m-1",
            status=429,
            unknown_outcome=True,
        ),
    )
    ledger.flush()

    names = (
        "request_id number vendor model key_fingerprint tags fate started_at day error_class status"
        " vendor_request_id served_model prompt_tokens completion_tokens cached_tokens"
        " cache_write_tokens reasoning_tokens estimated charged_microusd cost_microusd"
        " counted_microusd price_version latency_s first_token_s load_s retry_of unknown_outcome"
    )
    who = ("r", 2, "v", "m", fingerprint("sk-secret"), '["a", "b"]', "failed")
    when = ("2026-11-20T12:00:00.000000Z", "2026-11-20", "RateLimited", 429, "req_1", "m-1")
    what = (10, 7, 3, 2, 1, 1, 44, 44, 44, "2026-11", 0.5, 0.25, 1.5, 1, 1)
    select = f"SELECT {names.replace(' ', ', ')} FROM attempts"  # noqa: S608 - no user's words
    assert read(path, select) == [who + when + what]
    audit(path)


def test_no_word_of_a_prompt_a_key_or_a_vendor_is_in_the_file(make: Make, path: Path) -> None:
    """What an error says may hold anything; only its class is written."""
    ledger = make(DAY)
    slip = ask(ledger, one=opening(key=fingerprint("sk-very-secret")))
    ledger.settle(slip, closed(1, Outcome.FAILED, error="BadReply: sk-very-secret said the prompt"))
    ledger.close()

    everything = b"".join(file.read_bytes() for file in path.parent.iterdir())

    assert b"BadReply" in everything
    assert b"sk-very-secret" not in everything
    assert b"said the prompt" not in everything


def test_only_the_owner_can_read_it(make: Make, path: Path) -> None:
    """The folder is made 0700, and the files in it 0600, whatever the umask."""
    before = os.umask(0)
    try:
        ledger = make()
        ask(ledger)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert modes == dict.fromkeys((path.name, f"{path.name}-wal", f"{path.name}-shm"), 0o600)


def test_the_default_place_is_the_users_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """As platformdirs finds it."""
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere")

    assert default_path() == Path("/somewhere/llmdispatcher/ledger.sqlite3")
    assert Ledger().path == default_path()


def test_nothing_is_opened_before_the_first_attempt(make: Make, path: Path) -> None:
    """Making a ledger touches no disk."""
    make(DAY).close()

    assert not path.parent.exists()


def test_a_budget_for_five_calls_admits_five(make: Make, path: Path) -> None:
    """The sixth is refused, with the numbers and when to come again, and leaves no row."""
    ledger = make(DAY)
    slips = [ask(ledger) for _ in range(5)]

    with pytest.raises(BudgetExceeded, match=r"\$0\.000100.*\$0\.00 left.*in flight") as refused:
        ask(ledger)

    assert refused.value.retry_after_s == 12 * 3600
    for slip in slips:
        ledger.settle(slip, closed(100))
    ledger.flush()
    assert audit(path) == {"served": 5}


def test_what_was_not_used_of_a_reservation_can_be_spent(make: Make, path: Path) -> None:
    """Settling at 80 of 100 micro-dollars frees 20; an attempt that was never sent frees all."""
    ledger = make(DAY)
    for _ in range(5):
        ledger.settle(ask(ledger), closed(80))
    unsent = ask(ledger)
    ledger.settle(unsent, closed(0, Outcome.CANCELLED))

    ask(ledger)

    assert read(path, "SELECT * FROM accounts WHERE scope = 'all' AND start = ''") == [
        ("all", "", "", 400, 100)
    ]
    assert audit(path) == {"served": 5, "cancelled": 1, "open": 1}


def test_caps_hold_across_ledgers_and_see_what_came_before_them(make: Make) -> None:
    """Spending without any cap counts for one that is set later, by whoever uses the file."""
    free = make()
    for _ in range(5):
        free.settle(ask(free), closed(100))
    free.flush()

    with pytest.raises(BudgetExceeded):
        ask(make(DAY))
    ask(make())  # a cap binds those who set it


@pytest.mark.parametrize(
    ("cap", "concerned", "other"),
    [
        ({"scope": "vendor", "name": "v"}, {}, {"vendor": "w"}),
        ({"scope": "key", "name": "k1"}, {"key": "k1"}, {"key": "k2"}),
        ({"scope": "tag", "name": "night"}, {"tags": ("day", "night")}, {"tags": ("day",)}),
    ],
)
def test_a_cap_concerns_its_scope_alone(
    make: Make, cap: dict[str, str], concerned: dict[str, object], other: dict[str, str]
) -> None:
    """A vendor, a key or a tag runs out; others go on without waiting for any reservation."""
    ledger = make(SpendingCap("0.0001", period="ever", **cap))
    ask(ledger, one=opening(**concerned))  # type: ignore[arg-type]

    with pytest.raises(BudgetExceeded) as refused:
        ask(ledger, one=opening(**concerned))  # type: ignore[arg-type]
    slip = ask(ledger, one=opening(**other))

    assert refused.value.retry_after_s is None
    assert slip.waiting is None
    assert slip.reserved is None


def test_the_tightest_cap_counts_and_a_refusal_reserves_nowhere(make: Make, path: Path) -> None:
    """Of several caps each must have room; what one refuses is set aside under none."""
    ledger = make(DAY, SpendingCap("0.0001", period="month", scope="vendor", name="v"))
    ask(ledger)

    with pytest.raises(BudgetExceeded, match="vendor 'v'"):
        ask(ledger)

    assert audit(path) == {"open": 1}


def test_a_day_ends_at_midnight_utc(make: Make, clock: Clock) -> None:
    """The next day has a budget of its own; the month goes on."""
    ledger = make(DAY, SpendingCap("0.0006", period="month"))
    for _ in range(5):
        ledger.settle(ask(ledger), closed(100))
    clock.now_s = NOON_S + 12 * 3600 - 1
    with pytest.raises(BudgetExceeded, match="a day"):
        ask(ledger)

    clock.now_s += 1
    ask(ledger)

    with pytest.raises(BudgetExceeded, match="a month"):
        ask(ledger)
    clock.now_s += 11 * 86_400
    ask(ledger)


def test_an_attempt_counts_for_the_day_it_began(make: Make, clock: Clock, path: Path) -> None:
    """Settled after midnight, it is spent on the day of its reservation."""
    ledger = make(DAY)
    slip = ask(ledger)
    clock.now_s += 86_400
    ledger.settle(slip, closed(70))
    ledger.flush()

    assert read(path, "SELECT start, spent_microusd FROM accounts WHERE scope = 'all'") == [
        ("", 70),
        ("2026-11", 70),
        ("2026-11-20", 70),
    ]


def test_a_clock_that_goes_back_frees_no_budget(make: Make, clock: Clock) -> None:
    """Yesterday's budget does not come back; the trouble is told, and there is a way out."""
    told: list[object] = []
    ledger = make(DAY, report=told.append)
    for _ in range(5):
        ask(ledger)
    clock.now_s -= 86_400

    with pytest.raises(BudgetExceeded):
        ask(ledger)
    ledger.flush()

    until(lambda: told)  # the thread that wrote it may be about to tell of it
    assert [event.kind for event in told if isinstance(event, LedgerTrouble)] == ["clock"]
    ledger.accept_clock()
    ask(ledger)


def test_a_clock_that_goes_back_in_another_process_frees_no_budget(
    make: Make, clock: Clock
) -> None:
    """What counts is the last time in the file, not in this process."""
    ask(make(DAY), 500)
    clock.now_s -= 86_400

    with pytest.raises(BudgetExceeded):
        ask(make(DAY))


def test_an_unknown_cost_counts_as_the_worst_case(make: Make, path: Path) -> None:
    """So does an unknown outcome, whatever is known of the cost; its row says which it is."""
    ledger = make(DAY)
    ledger.settle(ask(ledger), closed(None))
    ledger.settle(ask(ledger), closed(30, Outcome.FAILED, unknown_outcome=True))
    ledger.flush()

    assert read(path, "SELECT cost_microusd, counted_microusd, unknown_outcome FROM attempts") == [
        (None, 100, 0),
        (30, 100, 1),
    ]
    audit(path)


def test_an_unknown_price_is_refused_unless_allowed(make: Make) -> None:
    """Under a cap the worst case must be known; one that allows it reserves nothing."""
    with pytest.raises(BudgetExceeded, match="nobody knows it"):
        ask(make(DAY), None)

    lax = SpendingCap("0.0005", period="day", unknown_price="allow")
    assert ask(make(lax), None).reserved == 0


def test_the_truth_may_exceed_the_worst_case(make: Make, path: Path) -> None:
    """What a vendor charges is what is written; nothing more passes then."""
    ledger = make(DAY)
    ledger.settle(ask(ledger), closed(900))
    with pytest.raises(BudgetExceeded, match=r"\$0\.00 left"):
        ask(ledger, 1)

    ask(ledger, 0)  # what costs nothing fits always
    audit(path)


def test_what_was_refused_has_no_row_even_if_it_is_settled(make: Make, path: Path) -> None:
    """A flow settles whatever it opened; what may not be sent costs nothing and is no attempt."""
    ledger = make(DAY)
    slips = [ledger.open(opening(), lambda: Worst(300)) for _ in range(2)]
    for slip in slips:
        ledger.settle(slip, closed(200, Outcome.CANCELLED))
    ledger.flush()

    assert isinstance(slips[1].waiting.exception() if slips[1].waiting else None, BudgetExceeded)
    assert audit(path) == {"cancelled": 1}


def test_an_event_loop_waits_for_reservations_without_standing_still(make: Make) -> None:
    """64 tasks at once on a budget for five: five pass, and other tasks run meanwhile."""
    ledger, turns = make(DAY), 0

    async def one() -> bool:
        slip = ledger.open(opening(), lambda: Worst(100))
        assert slip.waiting is not None
        try:
            await asyncio.wait_for(asyncio.wrap_future(slip.waiting), PATIENCE_S)
        except BudgetExceeded:
            return False
        return True

    async def all_of_them() -> list[bool]:
        nonlocal turns
        asking = asyncio.gather(*(one() for _ in range(64)))
        while not asking.done():
            turns += 1
            await asyncio.sleep(0)
        return await asking

    assert sum(asyncio.run(all_of_them())) == 5
    assert turns > 1


def test_settling_twice_changes_nothing(make: Make, path: Path) -> None:
    """Not by the same slip, nor by one that stands for the same row."""
    ledger = make(DAY)
    slip = ask(ledger)
    ledger.settle(slip, closed(50))
    ledger.settle(slip, closed(60))
    slip.is_settled = False
    ledger.settle(slip, closed(70))
    ledger.flush()

    assert read(path, "SELECT counted_microusd FROM attempts") == [(50,)]
    audit(path)


def test_one_that_settles_while_its_reservation_waits_is_in_order(make: Make, path: Path) -> None:
    """A caller who gives up before he is admitted leaves nothing reserved."""
    ledger = make(DAY)
    for _ in range(20):
        slip = ledger.open(opening(), lambda: Worst(100))
        ledger.settle(slip, closed(0, Outcome.CANCELLED))
    ledger.flush()

    fates = audit(path)
    assert set(fates) == {"cancelled"}
    assert read(path, "SELECT sum(reserved_microusd) FROM accounts") == [(0,)]


def test_failures_are_absorbed_once_another_attempt_serves(make: Make, path: Path) -> None:
    """Only what failed: a partial reply that somebody saw stays one."""
    ledger = make()
    failed, partial, served = ask(ledger), ask(ledger), ask(ledger)
    ledger.settle(failed, closed(1, Outcome.FAILED))
    ledger.settle(partial, closed(1, Outcome.FAILED, fate=Fate.PARTIAL))
    ledger.settle(served, closed(1))
    ledger.absorb([failed, partial, served])
    ledger.flush()

    assert audit(path) == {"absorbed": 1, "partial": 1, "served": 1}


def test_a_reservation_expires_as_spent_and_the_truth_replaces_it(
    make: Make, clock: Clock, path: Path
) -> None:
    """After its time the worst case counts; a settlement that comes later puts that right."""
    ledger = make(DAY, expire_s=60.0)
    slip = ask(ledger)
    clock.now_s += 60
    ledger.expire()

    assert read(path, "SELECT fate, cost_microusd, counted_microusd FROM attempts") == [
        ("expired", None, 100)
    ]
    assert audit(path) == {"expired": 1}
    ledger.settle(slip, closed(40))
    ledger.flush()
    assert read(path, "SELECT fate, counted_microusd, expired_at FROM attempts") == [
        ("served", 40, "2026-11-20T12:01:00.000000Z")
    ]
    assert audit(path) == {"served": 1}


def test_a_hostile_charge_does_not_overflow_the_books(make: Make, path: Path) -> None:
    """A vendor may say that it charged 2^63 - 1; sums stay integers, and caps hold."""
    ledger = make()
    for _ in range(3):
        huge = Usage(prompt_tokens=MAX_COUNT, charged_microusd=MAX_COUNT)
        ledger.settle(ask(ledger), closed(MAX_COUNT, usage=huge))
    ledger.flush()

    types = (
        "SELECT typeof(sum(cost_microusd)), typeof(sum(prompt_tokens)),"
        " typeof(sum(charged_microusd)) FROM attempts"
    )
    assert read(path, types) == [("integer",) * 3]
    audit(path)


def test_names_are_stored_as_text_that_nothing_obeys(make: Make, path: Path) -> None:
    """Control characters, lone surrogates and endless names are not for a ledger."""
    ledger = make()
    bad = "a\x1b[31m\ud800\n\0" + "x" * 1000
    ledger.settle(ask(ledger, one=opening(bad, model=bad, tags=(bad,))), closed(1, request_id=bad))
    ledger.flush()

    ((vendor, model, told),) = read(path, "SELECT vendor, model, vendor_request_id FROM attempts")
    assert vendor == model == told
    assert len(vendor) == 256
    assert vendor.isprintable()
    audit(path)


def test_an_alert_is_reported_once_a_period_by_whoever_crosses_it(make: Make, clock: Clock) -> None:
    """At 50, 80 and 95 percent of what is spent; not for what is only reserved."""
    told: list[object] = []
    cap = SpendingCap("0.001", period="day")
    one, two = make(cap, report=told.append), make(cap, report=told.append)

    def percents(count: int) -> list[int]:
        one.flush()
        two.flush()
        until(lambda: len(told) >= count)  # the thread that wrote it may be about to tell of it
        return [event.percent for event in told if isinstance(event, BudgetAlert)]

    first, second = ask(one, 600), ask(two, 390)
    assert percents(0) == []
    one.settle(first, closed(500))
    assert percents(1) == [50]
    two.settle(second, closed(310))
    assert percents(2) == [50, 80]
    one.settle(ask(one), closed(150))
    assert percents(3) == [50, 80, 95]
    two.settle(ask(two, 1), closed(1))
    assert percents(3) == [50, 80, 95]
    clock.now_s += 86_400
    one.settle(ask(one, 960), closed(960))
    assert percents(6) == [50, 80, 95] * 2


def test_rows_without_a_cap_need_no_waiting(make: Make, path: Path) -> None:
    """They are gathered, written in order behind the callers' backs, and whole after a flush."""
    ledger = make()
    ask(ledger)

    def work() -> None:
        for _ in range(100):
            ledger.settle(ask(ledger), closed(1))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert ledger.open(opening(), lambda: Worst(1)).waiting is None
    assert ledger.flush()
    assert audit(path) == {"served": 800}
    assert ledger.kept == ledger.lost == 0


def test_rows_come_to_the_file_without_a_flush(make: Make, path: Path) -> None:
    """The writer does not wait for more than it gathers."""
    ledger = make()
    ledger.settle(ask(ledger), closed(1))

    until(lambda: read(path, "SELECT count(*) FROM attempts") == [(1,)])


def test_closing_writes_all_that_is_left_and_late_rows_too(make: Make, path: Path) -> None:
    """A clean end loses nothing, not even what is settled after it."""
    ledger = make(DAY)
    late = ask(ledger)
    for _ in range(50):
        ledger.settle(ask(ledger, 0), closed(0))
    ledger.close()
    ledger.close()
    assert audit(path) == {"served": 50, "open": 1}

    ledger.settle(late, closed(30))

    assert audit(path) == {"served": 51}


def test_a_program_that_just_ends_loses_nothing(path: Path) -> None:
    """Neither close nor flush is needed before a clean exit of Python."""
    code = f"""
        from books import ask, closed
        from llmdispatcher.ledger import Ledger
        ledger = Ledger({str(path)!r})
        for _ in range(1000):
            ledger.settle(ask(ledger), closed(1))
    """
    _run(code)

    assert audit(path) == {"served": 1000}


def test_a_ledger_that_is_forgotten_is_closed(path: Path) -> None:
    """Its thread ends with it, and its rows are written."""
    ledger = Ledger(path)
    ledger.settle(ask(ledger), closed(1))
    del ledger

    assert audit(path) == {"served": 1}


def test_a_forked_child_has_books_of_its_own(path: Path) -> None:
    """What the parent had not written yet the parent writes; nothing is written twice."""
    code = f"""
        import os
        from llmdispatcher import SpendingCap
        from books import ask, closed
        from llmdispatcher.ledger import Ledger
        ledger = Ledger({str(path)!r}, caps=[SpendingCap("1", period="day", scope="tag", name="t")])
        ask(ledger)
        from books import opening
        for round in range(5):
            for _ in range(20):
                ledger.settle(ask(ledger), closed(1))
            child = os.fork()
            for _ in range(20):
                ledger.settle(ask(ledger, one=opening(tags=("t",))), closed(2))
            if not child:
                ledger.close()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    """
    _run(code)

    assert audit(path) == {"served": 5 * 20 + 5 * 20 * 2}


def _run(code: str) -> None:
    tests = Path(__file__).parents[1]
    found = f"import sys; sys.path.append({str(tests)!r})\n"
    subprocess.run(
        [sys.executable, "-c", found + textwrap.dedent(code)],
        check=True,
        timeout=8 * PATIENCE_S,  # some write hundreds of times, each of which may take its time
    )


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    """A word for trouble that is none, and caps that are none."""
    with pytest.raises(BadRequest, match="on_trouble"):
        Ledger(tmp_path / "l", on_trouble="ignore")
    with pytest.raises(BadRequest, match="caps"):
        Ledger(tmp_path / "l", caps=["5 dollars"])  # type: ignore[list-item]
    with pytest.raises(BadRequest, match="tags"):
        opening(tags=tuple(map(str, range(33))))


# -- who is told -------------------------------------------------------------------------------


def spending(path: Path) -> Ledger:
    """A ledger with a cap of four replies of ``WORDY``."""
    return Ledger(path, caps=[SpendingCap("0.002", period="day")])


WORDY = Scripted(["a "] * 5, price=Price.per_million(0, 100))
"""Five tokens, 500 micro-dollars, as its worst case is with ``max_tokens=5``."""


def test_alerts_come_to_the_listener_of_the_dispatcher(path: Path) -> None:
    """In both worlds, also of what was spent last, and by each listener once."""
    events: list[Event] = []
    others: list[Event] = []
    ledger = spending(path)

    async def main() -> None:
        async with AsyncDispatcher(WORDY, ledger=ledger, on_event=others.append) as d:
            await d.send("x", max_tokens=5)

    with Dispatcher(WORDY, ledger=ledger, on_event=events.append) as d:
        asyncio.run(main())
        for _ in range(3):
            d.send("x", max_tokens=5)
        with pytest.raises(BudgetExceeded):
            d.send("x", max_tokens=5)
    ledger.close()

    for told in (events, others):  # the second was closed before any of it was spent
        assert [each.percent for each in told if isinstance(each, BudgetAlert)] == [50, 80, 95]


def test_trouble_comes_to_the_listener_of_the_dispatcher(path: Path) -> None:
    """A file that is none is told there as well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("no ledger")
    events: list[Event] = []
    ledger = Ledger(path, on_trouble="degrade")
    with Dispatcher(WORDY, ledger=ledger, on_event=events.append) as d:
        d.send("x", max_tokens=5)
        until(lambda: any(isinstance(each, LedgerTrouble) for each in events))
    ledger.close()


def test_a_ledger_forgets_dispatchers_that_are_closed(path: Path) -> None:
    """However many there were; the last few are told of what they spent last."""
    ledger = spending(path)
    for _ in range(5):
        Dispatcher(WORDY, ledger=ledger, on_event=lambda _: None).close()
    assert len(ledger._ears._dispatchers) <= 2
    ledger.close()
