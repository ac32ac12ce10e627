"""Laws of limits: buckets never over-admit, permits are conserved, a line serves everybody."""

from __future__ import annotations

import heapq
import math
from itertools import accumulate
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llmdispatcher.bucket import Bucket, Needs
from llmdispatcher.gate import LOOK_S, PRIORITY_S, Gate, Pass, Stay, Turned
from llmdispatcher.models.headroom import Headroom, Quantity, Room
from llmdispatcher.models.policy import Limits

SLACK = 1e-6
"""For sums of floats, as part of the whole."""


def holds(events: list[tuple[float, float]], capacity: float, rate_per_s: float) -> bool:
    """Whether in every window from one event to another no more passed than is allowed.

    Allowed are the capacity and what flows in meanwhile. With the sums up to each event, the worst
    window ending there begins where (sum before - flow) was least: one pass finds it.
    """
    sums = [0.0, *accumulate(amount for _, amount in events)]
    least = math.inf
    for index, (at_s, _) in enumerate(events):
        least = min(least, sums[index] - rate_per_s * at_s)
        passed = sums[index + 1] - rate_per_s * at_s - least
        if passed > capacity + SLACK * (capacity + sums[-1]):
            return False
    return True


def test_the_check_of_the_law_can_fail() -> None:
    """Eleven at once are more than a bucket of ten lets pass, and ten are not."""
    assert holds([(0.0, 10.0), (5.0, 5.0)], 10, 1)
    assert not holds([(0.0, 11.0)], 10, 1)
    assert not holds([(0.0, 10.0), (5.0, 5.1)], 10, 1)
    assert not holds([(0.0, 1.0), (100.0, 10.0), (101.0, 1.5)], 10, 1)


ARRIVALS = st.lists(
    st.tuples(st.floats(0, 30), st.floats(0, 12), st.floats(0, 1)), min_size=1, max_size=60
)


@settings(deadline=None)
@given(arrivals=ARRIVALS, capacity=st.floats(1, 20), rate=st.floats(0.01, 20))
def test_a_bucket_never_over_admits(
    arrivals: list[tuple[float, float, float]], capacity: float, rate: float
) -> None:
    """In any stretch of time what passed is at most what it holds and what flowed in meanwhile."""
    bucket = Bucket(
        quantity=Quantity.TOKENS,
        window="minute",
        capacity=capacity,
        rate_per_s=rate,
        level=capacity,
    )
    now_s, passed, used = 1e5, [], []
    for after_s, amount, part in arrivals:
        now_s += after_s
        if (wait_s := bucket.wait_s(amount, now_s)) == 0:
            bucket.take(amount, now_s)
            passed.append((now_s, amount))
            bucket.give(amount * (1 - part), now_s)
            used.append((now_s, amount * part))
        elif wait_s < math.inf:
            assert bucket.wait_s(amount, now_s + wait_s * 1.000001 + 1e-9) == 0
            now_s += wait_s * 1.000001 + 1e-9
        else:
            assert amount > capacity
    assert holds(used, capacity, rate)


@settings(deadline=None)
@given(arrivals=ARRIVALS, capacity=st.floats(1, 20), rate=st.floats(0.01, 20))
def test_what_is_reserved_and_used_later_never_over_admits(
    arrivals: list[tuple[float, float, float]], capacity: float, rate: float
) -> None:
    """Refunds that come late, when much has flowed in, let no more pass than the law allows."""
    bucket = Bucket(
        quantity=Quantity.TOKENS,
        window="minute",
        capacity=capacity,
        rate_per_s=rate,
        level=capacity,
    )
    now_s, used = 1e5, []
    refunds: list[float] = []
    for after_s, amount, part in arrivals:
        now_s += after_s
        if part < 0.5 and refunds:
            bucket.give(refunds.pop(), now_s)
        if bucket.wait_s(amount, now_s) == 0:
            bucket.take(amount, now_s)
            used.append((now_s, amount * part))
            refunds.append(amount * (1 - part))
        assert bucket.level <= capacity
    assert holds(used, capacity, rate)


class Recording(Gate):
    """A gate that keeps account of whom it let in, when and with what."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.entries: list[tuple[float, Needs]] = []
        self.came: dict[int, tuple[float, int]] = {}
        """When those in the line came, and their priority."""

    def _go(self, needs: Needs, now_s: float) -> Any:
        self.entries.append((now_s, needs))
        return super()._go(needs, now_s)


CONCURRENCY = 3
LIMITS = Limits(
    requests_per_minute=30,
    input_tokens_per_minute=600,
    output_tokens_per_minute=300,
    burst=0.2,
    concurrency=CONCURRENCY,
    queue=6,
)
NEEDS = st.builds(Needs, st.integers(0, 150), st.integers(0, 100))


class Crowd(RuleBasedStateMachine):
    """Requests that come, wait, leave, are served and give back, in any order.

    Law: permits out are exactly those let in and not given back, never more than there are places;
    no bucket over-admits; what is refused takes nothing; and the line is as long as who waits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate = Recording(LIMITS)
        self.now_s = 1e4
        self.waiting: set[int] = set()
        self.passed: dict[int, Needs] = {}
        self.given_back: list[int] = []

    def levels(self) -> list[float]:
        """Return what every bucket has now."""
        for bucket in self.gate.buckets:
            bucket.wait_s(0, self.now_s)
        return [bucket.level for bucket in self.gate.buckets]

    @rule(seconds=st.floats(0, 20))
    def pass_time(self, seconds: float) -> None:
        """Time passes."""
        self.now_s += seconds

    @rule(
        needs=NEEDS, priority=st.integers(-3, 3), patience_s=st.one_of(st.none(), st.floats(0, 60))
    )
    def ask(self, needs: Needs, priority: int, patience_s: float | None) -> None:
        """A request comes."""
        before, entered, line = self.levels(), len(self.gate.entries), self.gate.waiting
        deadline_s = math.inf if patience_s is None else self.now_s + patience_s
        answer = self.gate.ask(needs, self.now_s, priority=priority, deadline_s=deadline_s)
        if isinstance(answer, Pass):
            self.passed[answer.number] = needs
        elif isinstance(answer, Stay):
            self.waiting.add(answer.number)
            assert self.now_s <= answer.until_s <= self.now_s + LOOK_S
        elif len(self.gate.entries) == entered:
            assert self.levels() == before
            assert self.gate.waiting <= line
        if isinstance(answer, Turned) and answer.retry_after_s is None:
            assert needs.input_tokens > 120

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        """One that waits looks."""
        number = data.draw(st.sampled_from(sorted(self.waiting)))
        answer = self.gate.look(number, self.now_s)
        if isinstance(answer, Pass):
            self.waiting.remove(number)
            self.passed[number] = Needs(0, 0)
        elif isinstance(answer, Turned):
            self.waiting.remove(number)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """One that waits gives up."""
        number = data.draw(st.sampled_from(sorted(self.waiting)))
        self.gate.leave(number, self.now_s)
        self.waiting.remove(number)
        if self.gate.look(number, self.now_s) != Turned("it waits no more", None):
            raise AssertionError("who left is still known")

    @precondition(lambda self: self.passed)
    @rule(data=st.data(), part=st.one_of(st.none(), st.floats(0, 1)))
    def end(self, data: st.DataObject, part: float | None) -> None:
        """One that was let in gives its pass back, having used some of it."""
        number = data.draw(st.sampled_from(sorted(self.passed)))
        needs = self.passed.pop(number)
        used = None
        if part is not None:
            used = Needs(int(needs.input_tokens * part), int(needs.output_tokens * part))
        self.gate.served(number)
        self.gate.end(number, self.now_s, used)
        self.given_back.append(number)

    @precondition(lambda self: self.given_back)
    @rule(data=st.data())
    def end_again(self, data: st.DataObject) -> None:
        """One that gave its pass back does so again."""
        before, entered = self.levels(), len(self.gate.entries)
        number = data.draw(st.sampled_from(self.given_back))
        self.gate.end(number, self.now_s, Needs(0, 0))
        if len(self.gate.entries) == entered:
            assert self.levels() == before

    @precondition(lambda self: self.passed)
    @rule(data=st.data(), remaining=st.integers(0, 500), reset_s=st.floats(0, 60))
    def told(self, data: st.DataObject, remaining: int, reset_s: float) -> None:
        """An answer tells of the vendor's own limits."""
        number = data.draw(st.sampled_from(sorted(self.passed)))
        room = Room(quantity=Quantity.INPUT_TOKENS, limit=500, remaining=remaining, reset_s=reset_s)
        self.gate.told(number, Headroom([room]), self.now_s)

    @invariant()
    def permits_are_conserved(self) -> None:
        """Out are those let in and not given back; places bound them."""
        let_in = len(self.gate._let_in)
        assert self.gate.in_flight == len(self.passed) + let_in
        assert self.gate.in_flight <= CONCURRENCY
        assert self.gate.waiting + let_in + len(self.gate._turned) == len(self.waiting)
        assert self.gate.waiting <= LIMITS.queue

    @invariant()
    def no_bucket_over_admits(self) -> None:
        """Requests, of which none was taken back, pass as the law allows."""
        entries = [(at_s, 1.0) for at_s, _ in self.gate.entries]
        assert holds(entries, 6 + self.taken_back, 0.5)

    @property
    def taken_back(self) -> int:
        """How many were let in and left without going, which returned their requests."""
        return len(self.gate.entries) - len(self.given_back) - self.gate.in_flight


TestCrowd = Crowd.TestCase


@attrs.frozen(kw_only=True)
class Visit:
    """One request: when it comes, what it needs, how long it is served, when it gives up."""

    after_s: float
    needs: Needs
    served_s: float
    priority: int
    patience_s: float | None


VISITS = st.lists(
    st.builds(
        Visit,
        after_s=st.floats(0, 3),
        needs=st.builds(Needs, st.integers(0, 100), st.integers(0, 60)),
        served_s=st.floats(0, 10),
        priority=st.integers(-100, 100),
        patience_s=st.one_of(st.none(), st.none(), st.floats(0.1, 30)),
    ),
    min_size=1,
    max_size=40,
)


class World:
    """Plays requests against a gate in virtual time, each as a flow would."""

    def __init__(self, limits: Limits) -> None:
        self.gate = Recording(limits)
        self.agenda: list[tuple[float, int, str, int]] = []
        """When, a number to keep the order, what, and whose."""
        self.now_s = 0.0
        self.steps = 0
        self.visits: dict[int, Visit] = {}
        self.came_s: dict[int, float] = {}
        self.order: list[int] = []
        self.left: set[int] = set()

    def at(self, at_s: float, what: str, number: int) -> None:
        """Put something on the agenda."""
        self.steps += 1
        heapq.heappush(self.agenda, (at_s, self.steps, what, number))

    def run(self, visits: list[Visit]) -> None:
        """Let all come, and play until nothing is left to do."""
        come_s = 0.0
        for index, visit in enumerate(visits):
            come_s += visit.after_s
            self.at(come_s, "come", index)
        while self.agenda:
            self.now_s, _, what, number = heapq.heappop(self.agenda)
            assert self.steps < 200 * len(visits) + 10_000, "nobody gets on"
            if what == "come":
                self.come(visits[number])
            elif what == "look" and number in self.visits and number not in self.order:
                self.take(number, self.gate.look(number, self.now_s))
            elif what == "end":
                used = self.visits[number].needs
                self.gate.end(number, self.now_s, attrs.evolve(used, output_tokens=1))
            for woken in self.gate.woken():
                self.at(self.now_s, "look", woken)

    def come(self, visit: Visit) -> None:
        """A request asks."""
        deadline_s = math.inf if visit.patience_s is None else self.now_s + visit.patience_s
        answer = self.gate.ask(
            visit.needs, self.now_s, priority=visit.priority, deadline_s=deadline_s
        )
        if isinstance(answer, Turned):
            assert visit.patience_s is not None, answer
            return
        self.visits[answer.number] = visit
        self.came_s[answer.number] = self.now_s
        self.take(answer.number, answer)

    def take(self, number: int, answer: Pass | Stay | Turned) -> None:
        """Go, look again, or give up."""
        if isinstance(answer, Stay):
            assert answer.until_s >= self.now_s
            self.at(math.nextafter(answer.until_s, math.inf), "look", number)
        elif isinstance(answer, Pass):
            self.order.append(number)
            self.at(self.now_s + self.visits[number].served_s, "end", number)
        else:
            assert self.visits[number].patience_s is not None, answer
            self.left.add(number)


@settings(deadline=None)
@given(
    visits=VISITS,
    concurrency=st.one_of(st.none(), st.integers(1, 4)),
    adaptive=st.booleans(),
)
def test_a_line_serves_everybody_who_has_not_left(
    visits: list[Visit],
    concurrency: int | None,
    adaptive: bool,  # noqa: FBT001 - drawn
) -> None:
    """Whatever comes when, all who do not give up are served, and nothing is left over."""
    limits = Limits(
        requests_per_minute=60,
        tokens_per_minute=1200,
        burst=0.2,
        concurrency=concurrency,
        adaptive=adaptive,
    )
    world = World(limits)

    world.run(visits)

    assert sorted([*world.order, *world.left]) == sorted(world.visits)
    assert len(set(world.order)) == len(world.order)
    assert (world.gate.waiting, world.gate.in_flight) == (0, 0)


@settings(deadline=None)
@given(visits=VISITS)
def test_nobody_is_overtaken_for_ever(visits: list[Visit]) -> None:
    """One is passed only by those who came at most as much later as their priority is worth."""
    world = World(Limits(concurrency=1, tokens_per_minute=1200, burst=0.2))
    patient = [attrs.evolve(visit, patience_s=None) for visit in visits]

    world.run(patient)

    for place, number in enumerate(world.order):
        for passed in world.order[place + 1 :]:
            worth_s = (world.visits[number].priority - world.visits[passed].priority) * PRIORITY_S
            assert world.came_s[number] <= world.came_s[passed] + max(0.0, worth_s) + 1e-9
