"""Limits and breakers that programs share through a ledger: who waits, who hears, what breaks."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from books import NOON_S, PATIENCE_S, ask, audit, closed, read, until

from llmdispatcher import (
    FREE,
    AsyncDispatcher,
    BadRequest,
    BreakerOpen,
    BreakerPolicy,
    BudgetExceeded,
    Deadlines,
    Dispatcher,
    FinishReason,
    Ledger,
    LedgerTrouble,
    LedgerUnusable,
    LimitReached,
    Limits,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    Request,
    RetryPolicy,
    Scripted,
    SpendingCap,
    Usage,
)
from llmdispatcher.breaker import State
from llmdispatcher.breakers import Breakers, Passage
from llmdispatcher.bucket import Needs
from llmdispatcher.hearsay import MAX_KNOWN, Hearsay
from llmdispatcher.ledger_shared import MAX_WORDS, Pool
from llmdispatcher.ledger_writer import BATCH
from llmdispatcher.models.reply import Finish
from llmdispatcher.shared import Word, word_text
from llmdispatcher.vendors.scripted import Steps

Open = Callable[..., Ledger]
Meet = Callable[..., Dispatcher]

SEEN_S = 10.0
"""Within a second a breaker is seen by others; a test waits ten times as long."""

ONCE = RetryPolicy(attempts=1, same_target=0, max_wait_s=0)
TWO_A_DAY = Limits(requests_per_day=2, waits=False)


@pytest.fixture(autouse=True)
def asked_once() -> None:
    """Retries and breakers are as a user has them."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the ledger is."""
    return tmp_path / "data" / "ledger.sqlite3"


@pytest.fixture
def told() -> list[LedgerTrouble]:
    """What was reported."""
    return []


@pytest.fixture
def open_(path: Path, told: list[LedgerTrouble]) -> Iterator[Open]:
    """Open ledgers that share, as programs do, each for itself."""
    opened: list[Ledger] = []

    def one(*caps: SpendingCap, **options: object) -> Ledger:
        given = {"share": True, "report": told.append, **options}
        opened.append(Ledger(path, caps=caps, **given))  # type: ignore[arg-type]
        return opened[-1]

    yield one
    for ledger in opened:
        ledger.close()


@pytest.fixture
def meet() -> Iterator[Meet]:
    """Make dispatchers of one vendor ``v`` with a model ``m``."""
    made: list[Dispatcher] = []

    def one(ledger: Ledger, *replies: object, **options: object) -> Dispatcher:
        price = options.pop("price", FREE)
        vendor = Scripted(*replies, name="v", model="m", price=price)  # type: ignore[arg-type]
        given = {"retry": ONCE, **options}
        made.append(Dispatcher(vendor, ledger=ledger, **given))  # type: ignore[arg-type]
        return made[-1]

    yield one
    for dispatcher in made:
        dispatcher.close()


def served(dispatcher: Dispatcher, times: int) -> int:
    """Count how many of so many requests are served."""
    count = 0
    for _ in range(times):
        try:
            dispatcher.send("hi", max_tokens=10)
        except LimitReached:
            continue
        count += 1
    return count


def words(path: Path) -> list[dict[str, object]]:
    """Return what stands in the file of breakers."""
    sql = "SELECT value FROM shared_state WHERE key LIKE 'breaker:%'"
    return [json.loads(value) for (value,) in read(path, sql)]


def short(*, used: int) -> Steps:
    """A reply that says how many tokens it has."""
    return ["ok", Finish(FinishReason.STOP, Usage(prompt_tokens=1, completion_tokens=used))]


# -- limits ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ledgers", [1, 2])
def test_dispatchers_share_a_limit(open_: Open, meet: Meet, ledgers: int) -> None:
    """Those of one ledger and those of two on the same file: together they get what one would."""
    first = open_()
    second = first if ledgers == 1 else open_()
    one, other = (meet(ledger, limits={"v": TWO_A_DAY}) for ledger in (first, second))

    assert served(one, 1) == 1
    assert served(other, 3) == 1
    with pytest.raises(LimitReached, match="v/m: the limits are used up") as refused:
        one.send("hi")
    assert refused.value.retry_after_s == pytest.approx(43_200, abs=PATIENCE_S)


def test_only_those_that_share_do(open_: Open, meet: Meet, path: Path) -> None:
    """Without ``share`` everything is as it was, and nothing stands in the file."""
    plain = [open_(share=False) for _ in range(2)]
    dispatchers = [meet(ledger, limits={"v": TWO_A_DAY}) for ledger in plain]
    broken = meet(plain[0], QuotaExhausted("x"), breaker=BreakerPolicy(failures=1))

    assert [served(each, 3) for each in dispatchers] == [2, 2]
    with pytest.raises(QuotaExhausted):
        broken.send("hi")

    assert all(ledger.flush() for ledger in plain)
    assert audit(path) == {"served": 4, "failed": 1}
    assert read(path, "SELECT * FROM shared_state") == []


def test_a_model_without_limits_of_the_user_is_not_in_the_file(
    open_: Open, meet: Meet, path: Path
) -> None:
    """What is under way at once is of each program alone."""
    ledger = open_()
    meet(ledger).send("hi")
    meet(ledger, limits={"v": Limits(concurrency=2), "w": TWO_A_DAY}).send("hi")

    assert ledger.flush()
    assert read(path, "SELECT * FROM shared_state") == []


def test_what_was_not_used_comes_back_to_the_others(open_: Open, meet: Meet) -> None:
    """A reply of 10 tokens, feared to have 100, leaves 90 to whoever asks next, wherever."""
    limits = {"v": Limits(output_tokens_per_day=150, waits=False)}
    one, other = (meet(open_(), short(used=10), limits=limits) for _ in range(2))

    one.send("hi", max_tokens=100)
    until(lambda: served_within(other, 100))

    with pytest.raises(LimitReached):
        one.send("hi", max_tokens=140)


def served_within(dispatcher: Dispatcher, max_tokens: int) -> bool:
    """Whether a request for so many tokens is let pass."""
    try:
        dispatcher.send("hi", max_tokens=max_tokens)
    except LimitReached:
        return False
    return True


def test_what_was_used_beyond_is_paid_by_all(open_: Open, meet: Meet) -> None:
    """A reply longer than feared is a debt that others find in the file."""
    limits = {"v": Limits(output_tokens_per_day=100, waits=False)}
    ledger = open_()
    one, other = (meet(each, short(used=95), limits=limits) for each in (ledger, open_()))

    one.send("hi", max_tokens=5)
    assert ledger.flush()

    assert not served_within(other, 10)


def test_what_was_never_sent_takes_nothing(open_: Open, meet: Meet, path: Path) -> None:
    """A share that was drawn for a request that a cap refuses then is given back."""
    ledger = open_(SpendingCap(1, period="day"))
    unpriced = meet(ledger, price=None, limits={"v": TWO_A_DAY})
    for _ in range(5):
        with pytest.raises(BudgetExceeded):
            unpriced.send("hi")

    assert ledger.flush()
    assert taken(path) == pytest.approx(0, abs=1e-3)


def taken(path: Path) -> float:
    """Return how many of a day's requests are taken, by the file."""
    ((row,),) = read(path, "SELECT value FROM shared_state WHERE key = 'limit:v/m'")
    return float(json.loads(row)["requests/day"][0])


def test_a_deadline_that_cannot_be_met_is_refused(open_: Open, meet: Meet) -> None:
    """What others took counts: nobody waits for what comes too late."""
    limits = {"v": Limits(requests_per_day=1)}
    one, other = (meet(open_(), limits=limits) for _ in range(2))
    one.send("hi")

    with pytest.raises(LimitReached, match="its deadline comes before its turn") as refused:
        other.send("hi", deadlines=Deadlines(total_s=PATIENCE_S))
    assert refused.value.retry_after_s == pytest.approx(86_400, abs=PATIENCE_S)


def test_a_deadline_holds_also_while_the_file_is_waited_for(
    open_: Open, meet: Meet, path: Path
) -> None:
    """What the writer draws afterwards, for a request that is gone, it gives back."""
    ledger = open_(lock_wait_s=PATIENCE_S)
    d = meet(ledger, limits={"v": Limits(requests_per_day=5)})
    d.send("hi")
    assert ledger.flush()

    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LimitReached, match="v/m: its deadline came while it asked"):
            d.send("hi", deadlines=Deadlines(total_s=2))  # it asks long before
        other.execute("ROLLBACK")

    assert ledger.flush()
    assert taken(path) == pytest.approx(1, abs=0.01)


def test_a_process_that_was_forked_shares_too(open_: Open, path: Path) -> None:
    """It has a connection of its own, and draws on the same."""
    sharing = open_().sharing()
    assert sharing is not None
    pool = sharing.pool("v/m", Limits(requests_per_day=2))
    assert draw(pool)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        pid = os.fork()
    if pid == 0:
        end = 1
        try:
            end = 10 + draw(pool) * 2 + draw(pool)
        finally:  # whatever is raised: the child goes on with no tests
            os._exit(end)
    _, status = os.waitpid(pid, 0)

    assert os.waitstatus_to_exitcode(status) == 12, "one of two"
    assert not draw(pool)


def test_whoever_gives_up_leaves_the_line_and_takes_nothing(
    open_: Open, meet: Meet, path: Path
) -> None:
    """Cancelled at any moment, a request that waits for others has drawn nothing for good."""
    ledger = open_()
    first = meet(ledger, limits={"v": Limits(requests_per_day=3)})
    assert served(first, 3) == 3

    async def in_a_loop() -> None:
        vendor = Scripted(name="v", model="m")
        limits = {"v": Limits(requests_per_day=3)}
        async with AsyncDispatcher(vendor, ledger=open_(), limits=limits) as d:
            tasks = [asyncio.create_task(d.send("hi")) for _ in range(20)]
            for number, task in enumerate(tasks):
                await asyncio.sleep(0.003 * (number % 4))
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(end) for end in ends} == {asyncio.CancelledError}

    asyncio.run(in_a_loop())
    assert ledger.flush()
    assert taken(path) == pytest.approx(3, abs=0.01)


def test_the_first_of_the_line_goes_first_however_often_it_was_sent_back(
    open_: Open, meet: Meet
) -> None:
    """Who comes later waits behind it, though the file has nothing for any of them at first."""
    limits = {"v": Limits(requests_per_minute=120, burst=0.01)}
    emptied, order = meet(open_(), limits=limits), list[str]()

    def reply(request: Request) -> Steps:
        order.append(str(request.messages[-1].text))
        return "ok"

    waiting = meet(open_(), reply, limits=limits)
    line = waiting._desk._patience.limiters.of("v", "m")
    emptied.send("hi")
    threads = []
    for number in range(4):
        threads.append(threading.Thread(target=waiting.send, args=(str(number),)))
        threads[-1].start()
        until(lambda came=number + 1: line.waiting + len(order) == came)
    for thread in threads:
        thread.join(PATIENCE_S)

    assert order == ["0", "1", "2", "3"]


def test_a_clock_that_was_set_back_stops_the_flow_and_gives_nothing(open_: Open) -> None:
    """Time in the file never goes back, until somebody says that the clock is right."""
    clock = [NOON_S]
    ledger = open_(wall=lambda: clock[0])
    sharing = ledger.sharing()
    assert sharing is not None
    pool = sharing.pool("v/m", Limits(requests_per_minute=60, burst=0.001))

    assert draw(pool)
    clock[0] -= 3600
    assert not draw(pool)
    clock[0] += 60
    assert not draw(pool), "it is still before what was"
    ledger.accept_clock()
    assert not draw(pool)
    clock[0] += 1
    assert draw(pool)
    assert not draw(pool)


def draw(pool: Pool) -> bool:
    """Whether there is a share for one more request."""
    asked = pool.draw(Needs(0, 0))
    asked.ends.result(PATIENCE_S)
    return asked.is_granted


# -- breakers ----------------------------------------------------------------------------------

PATIENT = BreakerPolicy(failures=1, open_s=600, cap_s=600)
"""Open for longer than any test."""


def holds(dispatcher: Dispatcher) -> bool:
    """Whether a breaker refuses a request."""
    try:
        dispatcher.send("hi")
    except BreakerOpen:
        return True
    return False


@pytest.mark.parametrize("ledgers", [1, 2])
def test_a_breaker_that_opens_is_open_for_others(open_: Open, meet: Meet, ledgers: int) -> None:
    """Those of one ledger, and those of two, leave the vendor alone as long as it says."""
    first = open_()
    second = first if ledgers == 1 else open_()
    other = meet(second, breaker=PATIENT)
    other.send("hi")

    with pytest.raises(QuotaExhausted):
        meet(first, QuotaExhausted("x"), breaker=PATIENT).send("hi")

    within(lambda: holds(other))
    with pytest.raises(BreakerOpen, match="QuotaExhausted") as refused:
        other.send("hi")
    assert refused.value.retry_after_s == pytest.approx(600, rel=0.3)


def within(what: Callable[[], bool]) -> None:
    """Wait until something is so, which it must be soon."""
    until_s = time.monotonic() + SEEN_S
    while not what():
        assert time.monotonic() < until_s, "it was not seen in time"
        time.sleep(0.05)


NOW_S = 1000.0
"""By the monotonic clock, which these tests tell themselves."""


def breakers(ledger: Ledger) -> Breakers:
    """Make those of a program that shares."""
    sharing = ledger.sharing()
    assert sharing is not None
    return Breakers(PATIENT, sharing)


def admitted(here: Breakers, now_s: float) -> Passage:
    """Ask, and be let in."""
    passage = here.admit("v/m", now_s)
    assert isinstance(passage, Passage)
    return passage


def is_held(here: Breakers, now_s: float = NOW_S, reason: str = "") -> bool:
    """Whether nobody passes here; whoever does says nothing about the vendor."""
    answer = here.admit("v/m", now_s)
    if isinstance(answer, Passage):
        here.release(answer, now_s)
        return False
    return reason in answer.reason


def test_a_probe_is_one_for_all_and_closes_for_all(open_: Open) -> None:
    """While it is out the others hold; served, it closes; failed, it opens for longer."""
    one, other = breakers(open_()), breakers(open_())
    one.report(admitted(one, NOW_S), Overloaded("x"), NOW_S)
    within(lambda: is_held(other))

    probe = admitted(other, NOW_S + 700)
    assert probe.is_probe
    within(lambda: is_held(one, NOW_S + 1, "another request finds out"))
    assert other.report(probe, Overloaded("x"), NOW_S + 700) is not None
    within(lambda: one.circuits()["v/m"].level == 1 or not is_held(one, NOW_S + 2))
    assert is_held(one, NOW_S + 2)
    probe = admitted(other, NOW_S + 2000)
    other.alive(probe, NOW_S + 2000)

    within(lambda: not is_held(one, NOW_S + 3))
    assert one.circuits()["v/m"].state is State.CLOSED


def test_a_probe_that_found_out_nothing_leaves_the_next_to_anybody(open_: Open) -> None:
    """Given back, it is told, and nobody waits for it."""
    one, other = breakers(open_()), breakers(open_())
    one.report(admitted(one, NOW_S), Overloaded("x"), NOW_S)
    within(lambda: is_held(other))
    probe = admitted(other, NOW_S + 700)
    within(lambda: is_held(one, NOW_S + 1, "another request finds out"))

    other.release(probe, NOW_S + 700)

    within(lambda: not is_held(one, NOW_S + 1))


def test_a_probe_under_way_here_decides_what_another_opened_meanwhile(open_: Open) -> None:
    """Both asked within the same second: the later word holds."""
    one, other = breakers(open_()), breakers(open_())
    one.report(admitted(one, NOW_S), Overloaded("x"), NOW_S)
    within(lambda: is_held(other))
    probe = admitted(one, NOW_S + 700)
    late = admitted(other, NOW_S + 700)

    one.report(probe, None, NOW_S + 701)
    within(lambda: not is_held(other, NOW_S + 702))
    other.report(late, Overloaded("x"), NOW_S + 702)

    assert other.circuits()["v/m"].state is State.CLOSED, "it went in a time that is over"


def test_a_vendor_that_wants_to_be_left_alone_is_left_alone_by_all(open_: Open, meet: Meet) -> None:
    """A rate limit opens nothing: the others wait as long as it said."""
    other = meet(open_())
    other.send("hi")

    with pytest.raises(RateLimited):
        meet(open_(), RateLimited("slow", retry_after_s=60)).send("hi")

    within(lambda: holds(other))
    with pytest.raises(BreakerOpen, match="left alone for a while"):
        other.send("hi")


def test_whoever_comes_later_hears_what_was_said_before(open_: Open, meet: Meet) -> None:
    """Its first request may go before it has; what is over by then opens nothing."""
    with pytest.raises(QuotaExhausted):
        meet(open_(), QuotaExhausted("x"), breaker=PATIENT).send("hi")
    late = meet(open_())
    within(lambda: holds(late))


def test_a_word_is_written_once_and_little_is_looked_for(
    open_: Open, meet: Meet, path: Path
) -> None:
    """Many requests, or none, cost no transaction each: one look a second at most."""
    one, other = open_(), open_()
    with pytest.raises(QuotaExhausted):
        meet(one, QuotaExhausted("x"), breaker=PATIENT).send("hi")
    asking = meet(other)
    within(lambda: holds(asking))
    for _ in range(200):
        assert holds(asking)

    assert [word["state"] for word in words(path)] == ["open"]
    assert other.kept <= 1


def test_memory_is_bounded_however_many_breakers_others_speak_of(open_: Open) -> None:
    """The latest are known; older ones are forgotten, which only means to find out again."""
    sharing = open_().sharing()
    assert sharing is not None
    text = word_text(Word(state=State.OPEN, said_s=NOON_S, until_s=NOON_S + 60))
    hearsay = Hearsay(sharing)
    for piece in range(4):
        sharing.hear([(f"breaker:v/{piece}-{n}", text, NOON_S) for n in range(MAX_WORDS)])
        hearsay.listen({}, NOW_S)

    assert len(sharing.words) <= 2 * MAX_WORDS
    assert len(hearsay._known) == MAX_KNOWN
    assert "v/3-0" in hearsay._known


PROGRAM = """
    import sys, time
    from llmdispatcher import *
    replies = [QuotaExhausted("x")]
    vendor = Scripted(lambda request: replies[0], name="v", model="m")
    policy = BreakerPolicy(failures=1, open_s=600, cap_s=600)
    ledger = Ledger(sys.argv[1], share=True)
    dispatcher = Dispatcher(vendor, ledger=ledger, breaker=policy, retry=RetryPolicy(attempts=1))
    try:
        dispatcher.send("hi")
    except QuotaExhausted:
        print("opened", flush=True)
    sys.stdin.readline()
    replies[0] = "ok"
    until_s = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < until_s:
        try:
            print(dispatcher.send("hi").text, flush=True)
            break
        except BreakerOpen:
            time.sleep(0.05)
    dispatcher.close()
    ledger.close()
"""


def test_a_breaker_is_seen_by_another_process(open_: Open, path: Path) -> None:
    """Opened there, it is open here; closed here, it is closed there."""
    here = breakers(open_())
    here.release(admitted(here, NOW_S), NOW_S)
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(path), str(SEEN_S)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stdin is not None
        assert program.stdout.readline() == "opened\n"
        within(lambda: is_held(here))

        here.report(admitted(here, NOW_S + 1000), None, NOW_S + 1000)
        program.stdin.write("closed\n")
        program.stdin.flush()

        assert program.stdout.readline() == "ok\n"
        program.communicate(timeout=PATIENCE_S)


# -- trouble -----------------------------------------------------------------------------------


def _in_the_way(path: Path) -> None:
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    path.parent.write_text("in the way")


def _rotten(path: Path) -> None:
    for file in path.parent.iterdir():
        file.unlink()
    path.write_bytes(b"This is no database, and never was one. " * 500)


@pytest.mark.parametrize("harm", [_in_the_way, _rotten])
def test_degrade_goes_on_alone_and_says_so_once(
    open_: Open, meet: Meet, path: Path, told: list[LedgerTrouble], harm: Callable[[Path], None]
) -> None:
    """Limits and breakers hold as this program knows them; nobody waits for a file."""
    ledger = open_(on_trouble="degrade", lock_wait_s=0.05)
    limits = {"v": Limits(requests_per_day=5, waits=False)}
    d = meet(ledger, limits=limits)
    broken = meet(ledger, QuotaExhausted("x"), breaker=PATIENT)
    assert served(d, 2) == 2
    assert ledger.flush()

    harm(path)

    passed = served(d, 10)
    assert passed == 3 or (harm is _rotten and 3 < passed <= 8), "a new file begins anew"
    with pytest.raises(QuotaExhausted):
        broken.send("hi")
    assert holds(broken)
    kind = "read-only" if harm is _in_the_way else "corrupt"
    until(lambda: kind in [event.kind for event in told])  # whoever found out may be about to tell
    assert [event.kind for event in told].count(kind) == 1


def test_degrade_comes_back_to_the_others(
    open_: Open, meet: Meet, path: Path, told: list[LedgerTrouble]
) -> None:
    """Once the file can be written again, limits are shared as before."""
    ledger = open_(on_trouble="degrade")
    limits = {"v": Limits(requests_per_day=20, waits=False)}
    d = meet(ledger, limits=limits)
    assert served(d, 1) == 1
    assert ledger.flush()
    _in_the_way(path)
    assert served(d, 5) == 5

    path.parent.unlink()
    until(lambda: [event.kind for event in told][-1:] == ["over"])

    assert served(d, 1) == 1
    assert taken(path) == pytest.approx(1, abs=0.1)
    assert served(meet(open_(), limits=limits), 20) == 19


def test_the_end_of_the_trouble_is_found_though_nothing_is_kept(
    open_: Open, meet: Meet, path: Path, told: list[LedgerTrouble]
) -> None:
    """Requests that a breaker refuses write nothing, and yet have the writer look again."""
    ledger = open_(on_trouble="degrade", lock_wait_s=0.05)
    broken = meet(ledger, QuotaExhausted("x"), breaker=PATIENT)
    with pytest.raises(QuotaExhausted):
        broken.send("hi")
    assert ledger.flush()
    _in_the_way(path)

    until(lambda: holds(broken) and bool(told))
    assert ledger.kept == 0
    path.parent.unlink()

    until(lambda: holds(broken) and not ledger.trouble)
    assert [event.kind for event in told][:1] == ["read-only"]


def test_strict_refuses_what_it_cannot_share(
    open_: Open, meet: Meet, path: Path, told: list[LedgerTrouble]
) -> None:
    """Nothing is sent while nobody knows what others took; afterwards the limit is as it was."""
    ledger = open_(lock_wait_s=0.05)
    d = meet(ledger, limits={"v": Limits(requests_per_day=5, waits=False)})
    assert served(d, 2) == 2
    assert ledger.flush()
    kept = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    _in_the_way(path)

    for _ in range(10):
        with pytest.raises(LedgerUnusable):
            d.send("hi")

    path.parent.unlink()
    path.parent.mkdir()
    for name, data in kept.items():
        path.with_name(name).write_bytes(data)
    assert served(d, 10) == 3
    assert [event.kind for event in told if event.kind == "read-only"] == ["read-only"]


def test_strict_refuses_at_once_behind_much_that_is_kept(
    open_: Open, meet: Meet, path: Path
) -> None:
    """What waits to be written is tried in pieces; nobody waits for a piece far behind."""
    ledger = open_(lock_wait_s=0.05)
    d = meet(ledger, limits={"v": Limits(requests_per_day=5)})
    slips = [ask(ledger) for _ in range(BATCH + 10)]
    assert ledger.flush()
    _in_the_way(path)
    for slip in slips:
        ledger.settle(slip, closed(1))
    assert not ledger.flush()

    with pytest.raises(LedgerUnusable):
        d.send("hi")

    path.parent.unlink()
    until(ledger.flush)


def test_share_is_a_flag(tmp_path: Path) -> None:
    """Nothing is taken for true that only looks like it."""
    with pytest.raises(BadRequest, match="share"):
        Ledger(tmp_path / "l", share="yes")  # type: ignore[arg-type]
    assert Ledger(tmp_path / "l").sharing() is None
