"""Laws of the breaker: by a machine of many requests, and by vendors that flap in virtual time."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llmdispatcher.breaker import Hold, State
from llmdispatcher.breakers import Breakers, Passage
from llmdispatcher.models.errors import (
    BadRequest,
    DispatcherError,
    Overloaded,
    RateLimited,
    TimedOut,
)
from llmdispatcher.models.policy import BreakerPolicy

NAME = "vendor/model"
POLICY = BreakerPolicy(failures=3, open_s=4, factor=3, cap_s=60, jitter=0.25)
DRAWS = st.floats(0, 1, exclude_max=True)


@pytest.fixture(autouse=True)
def asked_once() -> None:
    """Retries and breakers are as a user has them."""


class Requests(RuleBasedStateMachine):
    """Many requests at once, against a vendor of whom nothing is known.

    Law: while a breaker is not closed at most one live probe is out, only the probe's own end
    closes it, and the time of the next probe never comes nearer while it stays open.
    """

    def __init__(self) -> None:
        super().__init__()
        self.breakers = Breakers(POLICY)
        self.now_s = 1000.0
        self.out: list[Passage] = []
        self.probe: Passage | None = None
        self.until_s = -math.inf

    def state(self) -> State:
        """Return where the breaker stands."""
        circuit = self.breakers.circuits().get(NAME)
        return State.CLOSED if circuit is None else circuit.state

    @rule()
    def admit(self) -> None:
        """A request comes."""
        before = self.state()
        circuit = self.breakers.circuits().get(NAME)
        answer = self.breakers.admit(NAME, self.now_s)
        if isinstance(answer, Hold):
            assert answer.until_s > self.now_s
            assert answer.until_s <= self.now_s + POLICY.cap_s * (1 + POLICY.jitter) + 500
            return
        self.out.append(answer)
        if before is State.CLOSED:
            assert not answer.is_probe
            return
        assert circuit is not None
        assert answer.is_probe
        assert self.now_s >= circuit.until_s
        self.probe = answer

    @rule(seconds=st.floats(0, 200))
    def pass_time(self, seconds: float) -> None:
        """Time passes."""
        self.now_s += seconds

    @precondition(lambda self: self.out)
    @rule(data=st.data(), draw=DRAWS, told_s=st.one_of(st.none(), st.floats(0, 500)))
    def end(self, data: st.DataObject, draw: float, told_s: float | None) -> None:
        """One of the requests under way ends, in whatever way."""
        passage = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        error: DispatcherError | None = data.draw(
            st.sampled_from(
                [
                    None,
                    Overloaded("x", retry_after_s=told_s),
                    RateLimited("x", retry_after_s=told_s),
                    TimedOut("idle", 1.0),
                    BadRequest("n", 0, "more"),
                ]
            )
        )
        before = self.state()
        change = self.breakers.report(passage, error, self.now_s, draw=draw)
        if before is not State.CLOSED and self.state() is State.CLOSED:
            assert error is None
            assert passage is self.probe
            assert change is not None
        if passage is self.probe:
            self.probe = None

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """One of the requests under way is given up."""
        passage = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        before = self.state()
        self.breakers.release(passage, self.now_s)
        if passage is self.probe:
            self.probe = None
            assert self.state() is not State.PROBING
        else:
            assert self.state() is before

    @invariant()
    def one_probe(self) -> None:
        """A breaker that probes has a probe out, the last one that was let go."""
        circuit = self.breakers.circuits().get(NAME)
        if circuit is not None and circuit.state is State.PROBING:
            assert self.probe is not None
            assert self.probe.went.number == circuit.probe

    @invariant()
    def never_shortened(self) -> None:
        """Open, the next probe's time only moves away, unless a probe gave its place back."""
        circuit = self.breakers.circuits().get(NAME)
        if circuit is None or circuit.state is not State.OPEN:
            self.until_s = -math.inf
            return
        assert circuit.until_s >= self.until_s
        self.until_s = circuit.until_s


TestRequests = Requests.TestCase


class Flapping:
    """A vendor that is down in some stretches of time, asked once every so often."""

    def __init__(
        self,
        policy: BreakerPolicy,
        outages: list[tuple[float, float]],
        step_s: float,
        *,
        is_local: bool = False,
    ) -> None:
        self.breakers, self.is_local = Breakers(policy), is_local
        self.outages, self.step_s = outages, step_s
        self.sent: list[tuple[float, bool, bool]] = []
        """When the vendor was asked, whether as a probe, and whether it was up."""

    def is_up(self, now_s: float) -> bool:
        """Whether the vendor serves now."""
        return not any(start <= now_s < end for start, end in self.outages)

    def run(self, until_s: float, draw: Callable[[], float]) -> None:
        """Send a request every step."""
        for number in range(int(until_s / self.step_s)):
            now_s = number * self.step_s
            passage = self.breakers.admit(NAME, now_s, is_local=self.is_local)
            if isinstance(passage, Hold):
                continue
            is_up = self.is_up(now_s)
            self.sent.append((now_s, passage.is_probe, is_up))
            self.breakers.report(passage, None if is_up else Overloaded("x"), now_s, draw=draw())

    def probes(self, start_s: float, end_s: float) -> int:
        """Count the probes that met an outage."""
        return sum(is_probe for now_s, is_probe, _ in self.sent if start_s <= now_s < end_s)

    def back_s(self, end_s: float) -> float:
        """Return how long after an outage the vendor served again."""
        return min(now_s for now_s, _, is_up in self.sent if is_up and now_s >= end_s) - end_s


@settings(deadline=None)
@given(
    outages=st.lists(st.tuples(st.floats(70, 300), st.floats(1.0, 52.0)), min_size=1, max_size=4),
    step_s=st.sampled_from([0.1, 0.25, 0.5]),
    draw=DRAWS,
)
def test_few_probes_meet_an_outage_and_the_vendor_is_back_soon(
    outages: list[tuple[float, float]], step_s: float, draw: float
) -> None:
    """2 probes at most meet an outage below open_s (1 + factor + factor²); back in one interval."""
    stretches, now_s = [], 0.0
    for calm_s, down_s in outages:
        stretches.append((now_s + calm_s, now_s + calm_s + down_s))
        now_s += calm_s + down_s
    vendor = Flapping(POLICY, stretches, step_s)

    vendor.run(now_s + 70, lambda: draw)

    longest_s = POLICY.open_s * POLICY.factor**2 * (1 + POLICY.jitter) + step_s
    for start_s, end_s in stretches:
        assert vendor.probes(start_s, end_s) <= 2
        met = sum(start_s <= sent_s < end_s for sent_s, _, _ in vendor.sent)
        assert met <= POLICY.failures + 2
        assert vendor.back_s(end_s) <= longest_s
        probes = [s for s, is_probe, _ in vendor.sent if is_probe and start_s <= s < end_s]
        last_s = probes[-1] if probes else start_s
        level = len(probes)
        interval_s = POLICY.open_s * POLICY.factor**level * (1 + POLICY.jitter)
        slack_s = (POLICY.failures + 1) * step_s
        assert vendor.back_s(end_s) <= last_s + interval_s + slack_s - end_s


@pytest.mark.parametrize("hours", [1, 6])
def test_a_long_outage_meets_one_probe_an_interval(hours: int) -> None:
    """Probes come no more often than the cap says, and recovery is seen within it."""
    end_s = 100.0 + hours * 3600
    vendor = Flapping(BreakerPolicy(), [(100.0, end_s)], 0.5)

    vendor.run(end_s + 200, lambda: 0.5)

    assert vendor.probes(100.0, end_s) <= 3 + hours * 3600 / 120
    assert vendor.back_s(end_s) <= 120 * 1.25 + 1


def test_with_the_defaults_an_outage_of_a_minute_meets_two_probes() -> None:
    """Five failures in all reach a vendor that is down for 64 seconds: three, and two probes."""
    vendor = Flapping(BreakerPolicy(), [(100.0, 164.0)], 0.25)

    vendor.run(300.0, lambda: 0.0)

    met = [is_probe for now_s, is_probe, is_up in vendor.sent if not is_up]
    assert met == [False, False, False, True, True]
    assert vendor.back_s(164.0) <= 45


@settings(deadline=None)
@given(full_s=st.floats(0.5, 300), step_s=st.sampled_from([0.01, 0.1, 2.2, 4.0]), draw=DRAWS)
def test_a_full_server_is_asked_ever_more_rarely_and_is_back_soon(
    full_s: float, step_s: float, draw: float
) -> None:
    """At most 2 + log(1 + t / 2) / log(9 / 8) requests meet t seconds of it; back within t / 6."""
    end_s = 10.0 + full_s
    vendor = Flapping(BreakerPolicy(), [(10.0, end_s)], step_s, is_local=True)

    vendor.run(end_s + full_s / 4 + 20, lambda: draw)

    asked = sum(10.0 <= sent_s < end_s for sent_s, _, _ in vendor.sent)
    assert asked <= 2 + math.log(1 + full_s / 2) / math.log(9 / 8)
    assert vendor.back_s(end_s) <= 1.25 * (full_s / 8 + 0.25) + step_s
    assert not any(is_probe for _, is_probe, _ in vendor.sent)
