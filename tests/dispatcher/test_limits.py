"""Leave to send: at once, in turn, or not; given back once; and both drivers can wait for it."""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from collections.abc import Generator
from typing import Any

import pytest

from llmdispatcher import Decision, FinishReason, LimitReached, Reply, Usage
from llmdispatcher.bucket import Needs
from llmdispatcher.drive import arun, run
from llmdispatcher.gate import LOOK_S, PRIORITY_S
from llmdispatcher.limits import MAX_LIMITERS, Limiter, Limiters, Permit, Waiting
from llmdispatcher.models import errors
from llmdispatcher.models.headroom import Headroom, Quantity, Room
from llmdispatcher.models.policy import Limits
from llmdispatcher.steps import Step, Wait

ONE = Needs()


def granted(limiter: Limiter, now_s: float, needs: Needs = ONE, **options: Any) -> Permit:
    """Ask, and be let in at once."""
    answer = limiter.ask(needs, now_s, **options)
    assert isinstance(answer, Permit)
    return answer


def queued(limiter: Limiter, now_s: float, needs: Needs = ONE, **options: Any) -> Waiting:
    """Ask, and be put into the line."""
    answer = limiter.ask(needs, now_s, **options)
    assert isinstance(answer, Waiting)
    return answer


def test_without_limits_everybody_goes() -> None:
    """A limiter without limits holds nobody, and counts who is under way."""
    limiter = Limiter()
    permits = [granted(limiter, 0.0, Needs(10**9, 10**9)) for _ in range(100)]

    assert limiter.in_flight == 100
    for permit in permits:
        permit.end(1.0)
    assert limiter.in_flight == 0
    assert limiter.window is None


def test_whoever_comes_too_early_waits_until_told() -> None:
    """After a full minute's requests, the next waits for the one that flows in."""
    limiter = Limiter(Limits(requests_per_minute=60))
    for _ in range(60):
        granted(limiter, 100.0).end(100.0)

    waiting = queued(limiter, 100.0)
    second = queued(limiter, 100.0)

    assert waiting.until_s == pytest.approx(101.0)
    assert (waiting.ahead, second.ahead) == (0, 1)
    again = waiting.look(100.5)
    assert isinstance(again, Waiting)
    assert again.until_s == pytest.approx(101.0)
    assert isinstance(again.look(101.0), Permit)
    assert second.future.done(), "it is the first now, and looks when it may go"
    second_again = second.look(101.0)
    assert isinstance(second_again, Waiting)
    assert second_again.until_s == pytest.approx(102.0)
    assert isinstance(second_again.look(102.0), Permit)


def test_a_permit_given_back_lets_the_next_in() -> None:
    """With one place, the next in line is woken when it is free, and finds its permit there."""
    limiter = Limiter(Limits(concurrency=1))
    permit = granted(limiter, 0.0)
    waiting = queued(limiter, 1.0)
    assert waiting.until_s == 1.0 + LOOK_S
    assert not waiting.future.done()

    permit.end(2.0)

    assert waiting.future.done()
    assert limiter.in_flight == 1
    assert isinstance(waiting.look(2.0), Permit)
    assert limiter.waiting == 0


def test_a_permit_counts_once_however_often_it_is_given_back() -> None:
    """Ended, cancelled and ended again, it frees one place and returns its tokens once."""
    limiter = Limiter(Limits(concurrency=2, tokens_per_minute=100))
    permit, other = granted(limiter, 0.0, Needs(50, 0)), granted(limiter, 0.0, Needs(50, 0))

    permit.end(0.0, used=Needs(10, 0))
    permit.cancel(0.0)
    permit.end(0.0, used=Needs(0, 0))

    assert limiter.in_flight == 1
    granted(limiter, 0.0, Needs(40, 0)).end(0.0)
    assert isinstance(limiter.ask(Needs(1, 0), 0.0), Waiting)
    other.end(0.0)


def test_what_was_used_corrects_what_was_reserved() -> None:
    """A reply shorter than feared gives the rest back at once, a longer one is paid off later."""
    limiter = Limiter(Limits(output_tokens_per_minute=600))
    granted(limiter, 0.0, Needs(0, 600)).end(0.0, used=Needs(0, 100))
    granted(limiter, 0.0, Needs(0, 500)).end(0.0, used=Needs(0, 560))

    assert queued(limiter, 0.0, Needs(0, 10)).until_s == pytest.approx(min(LOOK_S, 7.0))


def test_what_was_never_sent_takes_nothing() -> None:
    """A cancelled permit returns its request and its tokens."""
    limiter = Limiter(Limits(requests_per_minute=1, tokens_per_minute=100))
    granted(limiter, 0.0, Needs(100, 0)).cancel(0.0)

    granted(limiter, 0.0, Needs(100, 0)).end(0.0)


def test_a_refund_wakes_the_first_of_the_line() -> None:
    """Who waits for tokens learns at once that it need not wait so long."""
    limiter = Limiter(Limits(tokens_per_minute=60))
    permit = granted(limiter, 0.0, Needs(0, 60))
    waiting = queued(limiter, 0.0, Needs(30, 0))

    permit.end(1.0, used=Needs(0, 35))

    assert waiting.future.done()
    again = waiting.look(1.0)
    assert isinstance(again, Waiting)
    assert again.until_s == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("limits", "needs", "message", "retry_after_s"),
    [
        (Limits(input_tokens_per_minute=100), Needs(101, 0), "takes 101 input tokens", None),
        (Limits(requests_per_minute=60, burst=0.001, waits=False), ONE, "used up", 1.0),
        (Limits(requests_per_minute=60, burst=0.001, queue=0), ONE, "0 requests wait", 1.0),
    ],
)
def test_refused_is_refused_at_once_with_its_reason(
    limits: Limits, needs: Needs, message: str, retry_after_s: float | None
) -> None:
    """What can never go, may not wait or finds the line full raises LimitReached, saying when."""
    limiter = Limiter(limits, "vendor/model")
    if retry_after_s is not None:
        granted(limiter, 0.0)

    with pytest.raises(LimitReached, match=f"vendor/model: .*{message}") as refused:
        limiter.ask(needs, 0.0)

    assert refused.value.retry_after_s == retry_after_s


def test_a_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    """Behind two others, the third request a second comes in 3 s: nobody waits 2 s for that."""
    limiter = Limiter(Limits(requests_per_minute=60, burst=0.001))
    granted(limiter, 0.0)
    first, second = queued(limiter, 0.0), queued(limiter, 0.0)

    with pytest.raises(LimitReached, match="deadline") as refused:
        limiter.ask(ONE, 0.0, deadline_s=2.9)

    assert refused.value.retry_after_s == pytest.approx(3.0)
    third = queued(limiter, 0.0, deadline_s=3.1)
    for place, waiting in enumerate((first, second, third), 1):
        assert isinstance(waiting.look(float(place)), Permit)


def test_a_deadline_that_comes_while_waiting_ends_it() -> None:
    """Its place goes to the next, and it is told how long it might have taken."""
    limiter = Limiter(Limits(concurrency=1))
    held = granted(limiter, 0.0)
    granted_later = queued(limiter, 0.0, deadline_s=10.0)
    held.end(4.0)
    permit = granted_later.look(4.0)
    assert isinstance(permit, Permit)
    late = queued(limiter, 5.0, deadline_s=9.0)
    patient = queued(limiter, 5.0)

    assert late.until_s == 9.0
    with pytest.raises(LimitReached, match="its deadline came") as refused:
        late.look(9.0)

    assert refused.value.retry_after_s == pytest.approx(4.0), "as long as the last one took"
    permit.end(10.0)
    assert isinstance(patient.look(10.0), Permit)


def test_whoever_is_late_is_turned_away_though_it_never_looks() -> None:
    """A deadline that has passed makes room for the next even if nobody came to see."""
    limiter = Limiter(Limits(concurrency=1))
    held = granted(limiter, 0.0)
    late, patient = queued(limiter, 0.0, deadline_s=5.0), queued(limiter, 0.0)

    held.end(6.0)

    assert late.future.done()
    assert isinstance(patient.look(6.0), Permit)
    with pytest.raises(LimitReached, match="its deadline came"):
        late.look(7.0)
    with pytest.raises(LimitReached, match="waits no more"):
        late.look(7.0)


def test_priority_goes_first_but_not_for_ever() -> None:
    """A higher priority passes those who came lately, and nobody who has waited long enough."""
    limiter = Limiter(Limits(concurrency=1))
    held = granted(limiter, 0.0)
    plain = queued(limiter, 0.0)
    urgent = queued(limiter, 1.0, priority=100)
    late_urgent = queued(limiter, 1.0 + 100 * PRIORITY_S, priority=100)

    held.end(200.0)
    order, line = [], {"late_urgent": late_urgent, "plain": plain, "urgent": urgent}
    for _ in range(3):
        for name, waiting in list(line.items()):
            answer = waiting.look(200.0)
            if isinstance(answer, Permit):
                order.append(name)
                answer.end(200.0)
                del line[name]
                break
            line[name] = answer

    assert order == ["urgent", "plain", "late_urgent"]


def test_who_comes_with_priority_and_room_goes_at_once() -> None:
    """First of the line by priority, and small enough, one need not wait for a large one."""
    limiter = Limiter(Limits(tokens_per_minute=600))
    granted(limiter, 0.0, Needs(590, 0)).end(0.0)
    large = queued(limiter, 0.0, Needs(600, 0))

    granted(limiter, 0.0, Needs(5, 0), priority=1).end(0.0)
    assert isinstance(limiter.ask(Needs(1, 0), 0.0), Waiting), "not without"
    assert isinstance(large.look(60.0), Permit)


def test_leaving_makes_room_and_may_be_told_twice() -> None:
    """One that leaves the line, or leaves with its permit untaken, keeps nobody waiting."""
    limiter = Limiter(Limits(concurrency=1, requests_per_minute=100))
    held = granted(limiter, 0.0)
    first, second, third = queued(limiter, 0.0), queued(limiter, 0.0), queued(limiter, 0.0)

    first.leave(1.0)
    held.end(2.0)
    assert second.future.done()
    second.leave(3.0)
    second.leave(3.0)

    assert third.future.done()
    permit = third.look(3.0)
    assert isinstance(permit, Permit)
    permit.end(4.0)
    assert (limiter.in_flight, limiter.waiting) == (0, 0)


def test_a_permit_left_untaken_returns_what_it_had_reserved() -> None:
    """Let in and gone before it looked, a request has sent nothing, and its tokens are there."""
    limiter = Limiter(Limits(concurrency=1, tokens_per_minute=100))
    held = granted(limiter, 0.0, Needs(0, 0))
    held.told(tokens(100, 1e6), 0.0)
    waiting = queued(limiter, 0.0, Needs(100, 0))
    held.end(0.0)
    assert limiter.in_flight == 1

    waiting.leave(0.0)

    granted(limiter, 0.0, Needs(100, 0)).end(0.0)


def test_no_future_is_kept_of_those_who_are_gone() -> None:
    """However waiting ends, nothing of it stays behind."""
    limiter = Limiter(Limits(concurrency=1))
    held = granted(limiter, 0.0)
    ends = [queued(limiter, 0.0, deadline_s=5.0), queued(limiter, 0.0), queued(limiter, 0.0)]
    for _ in range(10):
        answer = ends[1].look(1.0)
        assert isinstance(answer, Waiting)
        ends[1] = answer
    last = queued(limiter, 1.0, deadline_s=6.0)
    for late in (ends[0], last):
        with pytest.raises(LimitReached):
            late.look(6.0)
    ends[1].leave(6.0)
    held.end(7.0)
    permit = ends[2].look(7.0)
    assert isinstance(permit, Permit)
    permit.end(8.0)

    assert not limiter._futures
    gate = limiter._gate
    for kept in (gate._line, gate._waiters, gate._let_in, gate._under_way, gate._turned):
        assert not kept
    assert not gate.woken()


def tokens(remaining: int, reset_s: float, limit: int = 1000) -> Headroom:
    """Tell of what is left of a vendor's tokens."""
    room = Room(quantity=Quantity.TOKENS, limit=limit, remaining=remaining, reset_s=reset_s)
    return Headroom([room])


def test_the_vendors_own_count_holds_without_any_limits_of_ours() -> None:
    """What an answer tells keeps the next request back until the vendor has room for it."""
    limiter = Limiter()
    permit = granted(limiter, 0.0, Needs(100, 0))
    permit.told(Headroom(), 0.5)
    permit.told(tokens(50, 9.5), 0.5)
    permit.end(1.0)
    permit.told(tokens(1000, 1.0), 1.0)

    waiting = queued(limiter, 1.0, Needs(150, 0))

    assert waiting.until_s == pytest.approx(1.5)
    assert isinstance(waiting.look(1.5), Permit)


def test_what_went_later_is_taken_off_what_an_answer_tells() -> None:
    """The order in which requests went counts, and not that in which they came."""
    limiter = Limiter(Limits(concurrency=2))
    first, second = granted(limiter, 0.0, Needs(1, 0)), granted(limiter, 0.0, Needs(1, 0))
    waiting = queued(limiter, 0.0, Needs(300, 0))
    first.end(1.0)
    third = waiting.look(1.0)
    assert isinstance(third, Permit)

    second.told(tokens(400, 60.0), 2.0)

    assert limiter._gate.gauges[Quantity.TOKENS, ""].level == 100
    third.told(tokens(400, 60.0), 2.0)
    assert limiter._gate.gauges[Quantity.TOKENS, ""].level == 400
    third.cancel(2.0)


def test_a_local_server_is_found_out() -> None:
    """Served in full use, more go at once; overloaded, fewer; what is the caller's says nothing."""
    limiter = Limiter(Limits(adaptive=True))
    assert limiter.window == 4
    for _ in range(3):
        for permit in [granted(limiter, 0.0) for _ in range(4)]:
            permit.end(1.0, pace_s=0.1)
    grown = limiter.window
    assert grown is not None
    assert grown >= 4

    round_of = [granted(limiter, 2.0) for _ in range(4)]
    for permit in round_of:
        permit.end(3.0, error=errors.Overloaded("x"))
    assert limiter.window == 2
    permit = granted(limiter, 4.0)
    permit.end(5.0, error=errors.BadRequest("n", 0, "more"))
    assert limiter.window == 2


def test_a_clock_that_jumps_keeps_nobody() -> None:
    """Set back by a day, nobody waits longer than before, and nothing more is let in."""
    limiter = Limiter(Limits(requests_per_minute=60, burst=0.001))
    granted(limiter, 1e6)
    waiting = queued(limiter, 1e6, deadline_s=1e6 + 3)

    back_s = 1e6 - 86400
    again = waiting.look(back_s)

    assert isinstance(again, Waiting)
    assert again.until_s == pytest.approx(back_s + 1)
    assert isinstance(again.look(back_s + 1), Permit)
    later = queued(limiter, back_s + 1, deadline_s=back_s + 2.5)
    with pytest.raises(LimitReached):
        limiter.ask(ONE, back_s + 1, deadline_s=back_s + 2.5)
    assert isinstance(later.look(back_s + 2), Permit)


def test_clocks_of_threads_that_differ_a_little_are_no_jump() -> None:
    """A time read a moment earlier and told a moment later moves nothing back."""
    limiter = Limiter(Limits(requests_per_minute=60, burst=0.001))
    granted(limiter, 100.0)
    waiting = queued(limiter, 99.5)

    assert waiting.until_s == pytest.approx(101.0)


def test_limits_are_found_by_model_then_by_vendor() -> None:
    """A model has its own limits, else those of its vendor, else none; always the same limiter."""
    limiters = Limiters({"v/m": Limits(concurrency=1), "v": Limits(concurrency=2)})

    assert limiters.of("v", "m").window == 1
    assert limiters.of("v", "n").window == 2
    assert limiters.of("w", "m").window is None
    assert limiters.of("v", "n") is limiters.of("v", "n")
    assert limiters.of("v", "n") is not limiters.of("v", "o")


def test_limiters_are_bounded_and_those_in_use_are_kept() -> None:
    """However many models are asked, memory is bounded, and no permit loses its limiter."""
    limiters = Limiters()
    used = limiters.of("v", "used")
    granted(used, 0.0)
    idle = limiters.of("v", "idle")

    for number in range(MAX_LIMITERS):
        limiters.of("v", str(number))

    assert limiters.of("v", "used") is used
    assert limiters.of("v", "idle") is not idle
    assert len(limiters._limiters) == MAX_LIMITERS


def served() -> Reply:
    """Make what a flow returns."""
    return Reply(
        text="ok",
        finish_reason=FinishReason.STOP,
        usage=Usage(),
        vendor="v",
        model="m",
        cost_microusd=0,
        latency_s=0.0,
        first_token_s=None,
        decision=Decision(candidates=(), excluded=(), attempts=()),
    )


class Counter:
    """Counts how many are in, and how many were at most."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = self.most = self.served = 0

    def enter(self) -> None:
        """One more is in."""
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)

    def leave(self) -> None:
        """One has been served."""
        with self.lock:
            self.inside -= 1
            self.served += 1


def admitted(limiter: Limiter, counter: Counter, hold_s: float) -> Generator[Step, Any, Reply]:
    """Wait for leave, as a flow does, and hold it for a while."""
    from concurrent.futures import Future  # noqa: PLC0415 - as the package does

    answer = limiter.ask(ONE, time.monotonic())
    while isinstance(answer, Waiting):
        try:
            yield Wait(answer.future, max(0.0, answer.until_s - time.monotonic()))
        except TimeoutError:
            pass
        except GeneratorExit:
            answer.leave(time.monotonic())
            raise
        answer = answer.look(time.monotonic())
    counter.enter()
    try:
        pause: Future[None] = Future()
        with pytest.raises(TimeoutError):
            yield Wait(pause, hold_s)
    finally:
        counter.leave()
        answer.end(time.monotonic())
    return served()


def test_threads_and_tasks_share_a_limit() -> None:
    """Sixteen threads and forty tasks all get their turn, never more than five at once."""
    limiter, counter = Limiter(Limits(concurrency=5)), Counter()

    def in_a_thread() -> None:
        for _ in range(3):
            assert list(run(admitted(limiter, counter, 0.002))) == [served()]

    async def in_a_task() -> None:
        assert [r async for r in arun(admitted(limiter, counter, 0.002))] == [served()]

    async def in_a_loop() -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(40):
                tasks.create_task(in_a_task())

    threads = [threading.Thread(target=in_a_thread) for _ in range(16)]
    threads.append(threading.Thread(target=lambda: asyncio.run(in_a_loop())))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert (counter.served, counter.inside) == (16 * 3 + 40, 0)
    assert counter.most <= 5
    assert (limiter.in_flight, limiter.waiting) == (0, 0)
    assert not limiter._futures


def test_tasks_that_are_cancelled_while_they_wait_leave_the_line() -> None:
    """Cancelled at any moment, a task keeps no place and no permit."""
    limiter, counter = Limiter(Limits(concurrency=2)), Counter()

    async def in_a_task() -> None:
        async for _ in arun(admitted(limiter, counter, 0.003)):
            pass

    async def in_a_loop() -> None:
        draw = random.Random(7)  # noqa: S311 - a test's choice
        tasks = [asyncio.create_task(in_a_task()) for _ in range(60)]
        for task in tasks:
            await asyncio.sleep(0.001)
            if draw.random() < 0.5:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(in_a_loop())

    assert counter.inside == 0
    assert (limiter.in_flight, limiter.waiting) == (0, 0)
    assert not limiter._futures


def test_a_waiting_of_ages_costs_no_more_than_its_deadline() -> None:
    """Without a deadline one waits without end, looking now and then; infinity is no time."""
    limiter = Limiter(Limits(concurrency=1))
    granted(limiter, 0.0)

    assert queued(limiter, 0.0, deadline_s=math.inf).until_s == LOOK_S
