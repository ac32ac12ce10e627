"""The breaker: what opens it, every transition, one probe at a time, and clocks that jump."""

from __future__ import annotations

import pickle

import attrs
import pytest

from llmdispatcher.breaker import (
    EVENTS,
    MAX_COOL_S,
    TRANSITIONS,
    Circuit,
    Event,
    Go,
    Hold,
    Report,
    State,
    after,
    ask,
    event,
)
from llmdispatcher.breakers import FAILED, FULL, MAX_CIRCUITS, Breakers, Change, Passage
from llmdispatcher.models import errors, race
from llmdispatcher.models.errors import BreakerOpen, DispatcherError
from llmdispatcher.models.policy import BreakerPolicy
from llmdispatcher.retry import SLOW_STATUS
from llmdispatcher.shared import Word, overlay

POLICY = BreakerPolicy(failures=3, open_s=10, factor=2, cap_s=100, jitter=0.5)

EXPECTED = {
    Event.FAULT: """
        VendorError Overloaded TimedOut Unreachable BadReply StreamInterrupted""",
    Event.TRIP: "QuotaExhausted AuthRejected ModelNotFound",
    Event.COOL: "RateLimited",
    Event.NOTHING: """NoGoodAnswer
        ConfigError RequestError BadRequest ContextOverflow Unsupported InvalidGrammar Refused
        BudgetExceeded LimitReached BreakerOpen OfflineRefused NoCandidate ContentRefused
        ExecutableNotFound ModelFileMissing CorruptModel UnsupportedArchitecture ModelTooLarge
        StateUnusable Cancelled AllVendorsFailed EngineCrashed OutOfMemory LedgerUnusable""",
}
ROWS = {name: told for told, names in EXPECTED.items() for name in names.split()}


@pytest.fixture(autouse=True)
def asked_once() -> None:
    """Retries and breakers are as a user has them."""


def tree(kind: type[DispatcherError]) -> list[type[DispatcherError]]:
    """List the classes below a class."""
    assert race.NoGoodAnswer in DispatcherError.__subclasses__()  # those of plans are told too
    return [c for sub in kind.__subclasses__() for c in (sub, *tree(sub))]


@pytest.mark.parametrize("kind", tree(DispatcherError), ids=lambda kind: kind.__name__)
def test_every_error_says_what_is_written_here(kind: type[DispatcherError]) -> None:
    """Only what is the vendor's fault counts; the caller's mistakes and wishes never do."""
    bare = (
        kind("x", [errors.Cancelled()]) if issubclass(kind, ExceptionGroup) else kind.__new__(kind)
    )

    assert kind.__name__ in ROWS, "a new error needs a decision"
    assert event(bare) is ROWS[kind.__name__]


def test_the_table_of_errors_holds_no_row_that_its_base_implies() -> None:
    """A row says something that the nearest base does not say already."""
    for kind, row in EVENTS.items():
        base = next((b for b in kind.__mro__[1:] if b in EVENTS), None)
        assert base is None or EVENTS[base] is not row


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        ("connect", Event.FAULT),
        ("first_token", Event.FAULT),
        ("idle", Event.FAULT),
        ("whole", Event.FAULT),
        ("load", Event.NOTHING),
        ("total", Event.NOTHING),
    ],
)
def test_an_impatient_caller_opens_nothing(phase: str, expected: Event) -> None:
    """Silence is the vendor's fault; a short total and a long load are not."""
    timed_out = errors.TimedOut(phase, 1.0)
    cut = errors.StreamInterrupted("cut")
    cut.__cause__ = timed_out

    assert event(timed_out) is expected
    assert event(cut) is expected


def test_a_reply_of_another_form_is_no_fault_of_the_vendor() -> None:
    """A model that writes bad JSON is no vendor that is down, also where a part was shown."""
    unfit, broken = errors.BadReply("no JSON"), errors.BadReply("no reply")
    unfit.is_unfit = True
    cut = errors.StreamInterrupted("cut")
    cut.__cause__ = unfit

    assert [event(each) for each in (unfit, cut)] == [Event.NOTHING] * 2
    assert event(broken) is Event.FAULT
    assert event(pickle.loads(pickle.dumps(unfit))) is Event.NOTHING  # noqa: S301 - our own


REPORT = Report(now_s=100.0, draw=0.5, reason="Overloaded")
FULL_REPORT = Report(now_s=100.0, draw=0.5, reason="Overloaded", told_s=0.1)
CLOSED = Circuit(generation=7, failures=2, since_s=90.0)
OPEN = Circuit(state=State.OPEN, generation=8, level=1, since_s=95.0, until_s=105.0)
PROBING = Circuit(state=State.PROBING, generation=8, level=1, since_s=95.0, until_s=300.0, probe=5)
OPENED = Circuit(state=State.OPEN, generation=8, since_s=100.0, until_s=112.5, reason="Overloaded")
EXTENDED = Circuit(
    state=State.OPEN, generation=8, level=1, since_s=100.0, until_s=125.0, reason="Overloaded"
)

WALK: dict[tuple[State, Event], tuple[Circuit, Go, Circuit]] = {
    (State.CLOSED, Event.SERVED): (CLOSED, Go(7), Circuit(generation=7, since_s=100.0)),
    (State.CLOSED, Event.FAULT): (CLOSED, Go(7), OPENED),
    (State.CLOSED, Event.TRIP): (Circuit(generation=7), Go(7), OPENED),
    (State.CLOSED, Event.COOL): (
        CLOSED,
        Go(7),
        Circuit(generation=7, failures=2, since_s=100.0, cool_until_s=112.5),
    ),
    (State.CLOSED, Event.FULL): (
        CLOSED,
        Go(7),
        Circuit(generation=7, failures=2, refusals=1, since_s=100.0, full_until_s=100.3125),
    ),
    (State.CLOSED, Event.NOTHING): (CLOSED, Go(7), CLOSED),
    (State.OPEN, Event.SERVED): (OPEN, Go(7), OPEN),
    (State.OPEN, Event.FAULT): (OPEN, Go(7), EXTENDED),
    (State.OPEN, Event.TRIP): (OPEN, Go(7), EXTENDED),
    (State.OPEN, Event.COOL): (
        OPEN,
        Go(7),
        Circuit(
            state=State.OPEN,
            generation=8,
            level=1,
            since_s=100.0,
            until_s=105.0,
            cool_until_s=112.5,
        ),
    ),
    (State.OPEN, Event.FULL): (OPEN, Go(7), OPEN),
    (State.OPEN, Event.NOTHING): (OPEN, Go(7), OPEN),
    (State.PROBING, Event.SERVED): (PROBING, Go(8, 5), Circuit(generation=9, since_s=100.0)),
    (State.PROBING, Event.FAULT): (
        PROBING,
        Go(8, 5),
        Circuit(
            state=State.OPEN,
            generation=8,
            level=2,
            since_s=100.0,
            until_s=150.0,
            probe=5,
            reason="Overloaded",
        ),
    ),
    (State.PROBING, Event.TRIP): (
        PROBING,
        Go(8, 5),
        Circuit(
            state=State.OPEN,
            generation=8,
            level=2,
            since_s=100.0,
            until_s=150.0,
            probe=5,
            reason="Overloaded",
        ),
    ),
    (State.PROBING, Event.COOL): (
        PROBING,
        Go(8, 5),
        Circuit(
            state=State.OPEN,
            generation=8,
            level=1,
            since_s=100.0,
            until_s=100.0,
            cool_until_s=112.5,
            probe=5,
        ),
    ),
    (State.PROBING, Event.FULL): (
        PROBING,
        Go(8, 5),
        Circuit(generation=9, refusals=1, since_s=100.0, full_until_s=100.3125),
    ),
    (State.PROBING, Event.NOTHING): (
        PROBING,
        Go(8, 5),
        Circuit(state=State.OPEN, generation=8, level=1, since_s=100.0, until_s=100.0, probe=5),
    ),
}


@pytest.mark.parametrize(
    "step", list(TRANSITIONS), ids=lambda step: f"{step[0].value}, {step[1].name}"
)
def test_every_transition_is_the_one_written_here(step: tuple[State, Event]) -> None:
    """Each event does in each state what stands in the walk, to every field."""
    before, went, expected = WALK[step]

    assert before.state is step[0]
    report = attrs.evolve(REPORT, told_s=12.5) if step[1] is Event.COOL else REPORT
    report = FULL_REPORT if step[1] is Event.FULL else report
    assert after(before, POLICY, went, step[1], report) == expected


def test_the_table_and_its_walk_are_whole() -> None:
    """There is a row for every pair of a state and an event, and no other."""
    pairs = {(state, told) for state in State for told in Event}

    assert set(TRANSITIONS) == set(WALK) == pairs


@pytest.mark.parametrize("told", list(Event))
def test_a_probing_circuit_heeds_the_probe_alone(told: Event) -> None:
    """What others come to, let in before or as a probe that was lost, neither opens nor closes."""
    for went in (Go(7), Go(8), Go(8, 4)):
        now = after(PROBING, POLICY, went, told, REPORT)

        assert (now.state, now.probe, now.level) == (State.PROBING, 5, 1)


@pytest.mark.parametrize("told", [Event.SERVED, Event.FAULT, Event.TRIP, Event.FULL])
def test_a_closed_circuit_heeds_nobody_from_before(told: Event) -> None:
    """Requests that were let in before the last outage count neither for nor against it now."""
    assert after(CLOSED, POLICY, Go(6), told, REPORT) == CLOSED


def home(breakers: Breakers, error: DispatcherError | None, now_s: float) -> Passage:
    """Send a request to a local server, which ends at once."""
    passage = breakers.admit("own/m", now_s, is_local=True)
    assert isinstance(passage, Passage)
    breakers.report(passage, error, now_s)
    return passage


def test_a_full_server_is_left_alone_for_moments_that_grow() -> None:
    """A quarter of a second, longer by an eighth with each refusal, and never above the cap."""
    breakers, now_s, pauses = Breakers(POLICY), 0.0, []
    for _ in range(80):
        home(breakers, errors.Overloaded("full"), now_s)
        held = breakers.admit("own/m", now_s, is_local=True)
        assert isinstance(held, Hold)
        pauses.append(held.until_s - now_s)
        now_s = held.until_s

    assert pauses[:3] == pytest.approx([0.25, 0.28125, 0.31640625])
    assert pauses[:50] == sorted(pauses[:50])
    assert pauses[-1] == pytest.approx(POLICY.cap_s)


def test_whoever_is_served_by_a_full_server_leaves_a_place() -> None:
    """The pause ends with the first request that is served, also one that began before it."""
    breakers = Breakers(POLICY)
    early = breakers.admit("own/m", 0.0, is_local=True)
    home(breakers, errors.Overloaded("full"), 1.0)
    assert breakers.full_s("own/m", 1.0) == 0.25
    assert breakers.full_s("own/m", 1.25) is None
    assert isinstance(early, Passage)

    breakers.report(early, None, 1.1)

    assert breakers.full_s("own/m", 1.1) is None
    assert isinstance(breakers.admit("own/m", 1.1, is_local=True), Passage)


def test_many_who_are_refused_at_once_are_one_refusal() -> None:
    """Whoever was sent before the pause began says nothing new about it."""
    breakers = Breakers(POLICY)
    crowd = [breakers.admit("own/m", 0.0, is_local=True) for _ in range(50)]
    for passage in crowd:
        assert isinstance(passage, Passage)
        breakers.report(passage, errors.Overloaded("full"), 0.0)

    assert breakers.circuits()["own/m"].refusals == 1


def test_only_a_local_server_is_full() -> None:
    """The same error of a vendor elsewhere is a fault, and opens its breaker."""
    assert event(errors.Overloaded("x"), is_local=True) is Event.FULL
    assert event(errors.Overloaded("x", status=503), is_local=True) is Event.FULL
    assert event(errors.Overloaded("x")) is Event.FAULT
    assert event(errors.Unreachable("x"), is_local=True) is Event.FAULT


@pytest.mark.parametrize("status", sorted(SLOW_STATUS))
def test_a_local_server_whose_own_deadline_passed_is_not_full(status: int) -> None:
    """It had somebody wait in vain, and opens its breaker as any other that does."""
    error, breakers = errors.Overloaded("late", status=status), Breakers(POLICY)
    for _ in range(POLICY.failures):
        home(breakers, error, 0.0)

    assert breakers.circuits()["own/m"].state is State.OPEN
    assert breakers.full_s("own/m", 0.0) is None


def test_a_local_server_that_gave_up_in_the_middle_is_not_full() -> None:
    """Whoever began to answer had room; what cut the reply counts as a failure."""
    cut = errors.StreamInterrupted("cut", partial="half")
    cut.__cause__ = errors.Overloaded("no room any more", status=503)
    breakers = Breakers(POLICY)

    home(breakers, cut, 0.0)

    assert event(cut, is_local=True) is Event.FAULT
    assert breakers.circuits()["own/m"].failures == 1
    assert breakers.full_s("own/m", 0.0) is None


def test_a_full_server_keeps_its_place_while_a_request_would_wait_for_it() -> None:
    """It is held, and so asked last, only where it is full for longer; and it says which it is."""
    breakers = Breakers(POLICY)
    home(breakers, errors.Overloaded("full"), 0.0)
    assert breakers.held(0.0, full_wait_s=5.0) == {}
    assert breakers.held(0.0, full_wait_s=0.0) == {"own/m": FULL}

    home(breakers, errors.Overloaded("full", retry_after_s=30.0), 1.0)

    assert breakers.held(1.0, full_wait_s=5.0) == {"own/m": FULL}
    assert breakers.held(1.0, full_wait_s=30.0) == {}
    assert breakers.held(26.0, full_wait_s=5.0) == {}


def test_a_later_word_of_how_long_it_is_full_is_heard() -> None:
    """Of those who were sent together the longest time counts, and all are one refusal."""
    breakers = Breakers(POLICY)
    crowd = [breakers.admit("own/m", 0.0, is_local=True) for _ in range(4)]
    for passage, told_s in zip(crowd, (None, 7.0, 3.0, None), strict=True):
        assert isinstance(passage, Passage)
        breakers.report(passage, errors.Overloaded("full", retry_after_s=told_s), 0.1)

    assert breakers.full_s("own/m", 0.1) == pytest.approx(7.0)
    assert breakers.circuits()["own/m"].refusals == 1


@pytest.mark.parametrize(
    ("error", "held"),
    [
        (errors.AuthRejected("no", status=401), FAILED),
        (errors.RateLimited("slow", retry_after_s=30.0), FAILED),
    ],
)
def test_whoever_fails_is_not_full_any_more(error: DispatcherError, held: str) -> None:
    """What a server said of its room is forgotten once it is left alone for another reason."""
    breakers = Breakers(POLICY)
    home(breakers, errors.Overloaded("full"), 0.0)

    home(breakers, error, 1.0)

    assert breakers.full_s("own/m", 1.0) is None
    assert breakers.held(1.0, full_wait_s=5.0) == {"own/m": held}
    circuit = breakers.circuits()["own/m"]
    assert (circuit.refusals, circuit.full_until_s) == (0, 0.0)


@pytest.mark.parametrize("told", Event)
def test_only_a_closed_breaker_is_full(told: Event) -> None:
    """Whatever opens it, or has it left alone, ends that."""
    full = Circuit(generation=7, failures=2, refusals=3, since_s=90.0, full_until_s=99.0)

    now = after(full, POLICY, Go(7), told, attrs.evolve(REPORT, told_s=12.5))

    assert bool(now.refusals) is (now.state is State.CLOSED and told in {Event.FULL, Event.NOTHING})


def test_one_that_is_left_alone_is_not_full_for_those_who_come_late() -> None:
    """A refusal of one that was sent before it asked for peace says nothing of when it has room."""
    breakers = Breakers(POLICY)
    early = breakers.admit("own/m", 0.0, is_local=True)
    assert isinstance(early, Passage)
    home(breakers, errors.RateLimited("slow", retry_after_s=30.0), 1.0)

    breakers.report(early, errors.Overloaded("full"), 2.0)

    assert breakers.full_s("own/m", 2.0) is None


@pytest.mark.parametrize(
    "word",
    [
        Word(state=State.OPEN, said_s=1000.0, until_s=1060.0, reason="Unreachable"),
        Word(cooled_s=1000.0, cool_until_s=1060.0),
    ],
)
def test_what_other_programs_say_goes_before_how_full_it_was(word: Word) -> None:
    """A breaker that opened elsewhere, or was asked to wait, is not full here."""
    full = Circuit(generation=7, refusals=3, since_s=100.0, full_until_s=102.0)

    laid = overlay(full, word, 100.0, 1000.0)

    assert (laid.refusals, laid.full_until_s) == (0, 0.0)
    assert max(laid.until_s, laid.cool_until_s) == pytest.approx(160.0)


@pytest.mark.parametrize(("is_local", "longest_s"), [(True, 10.0), (False, 100.0)])
def test_a_local_server_that_is_off_is_looked_at_often(*, is_local: bool, longest_s: float) -> None:
    """Where nobody listens on a local server, the open time does not grow beyond ten seconds."""
    policy = attrs.evolve(POLICY, open_s=2.0, jitter=0.0)
    breakers, now_s = Breakers(policy), 0.0
    for _ in range(policy.failures + 10):
        passage = breakers.admit("v/m", now_s, is_local=is_local)
        assert isinstance(passage, Passage)
        breakers.report(passage, errors.Unreachable("off"), now_s)
        held = breakers.admit("v/m", now_s, is_local=is_local)
        if isinstance(held, Hold):
            last_s, now_s = held.until_s - now_s, held.until_s
        else:
            breakers.release(held, now_s)

    assert last_s == longest_s


def test_failures_must_come_in_a_row() -> None:
    """One that is served in between begins the row anew."""
    circuit = Circuit()
    for told in (Event.FAULT, Event.FAULT, Event.SERVED, Event.FAULT, Event.FAULT):
        circuit = after(circuit, POLICY, Go(0), told, REPORT)

    assert circuit.state is State.CLOSED
    assert after(circuit, POLICY, Go(0), Event.FAULT, REPORT).state is State.OPEN


def test_the_open_time_grows_to_its_cap() -> None:
    """10, 20, 40, 80, then 100 seconds, and no number of failed probes overflows it."""
    circuit, waits = Circuit(failures=2), []
    calm = Report(now_s=0.0)
    circuit = after(circuit, POLICY, Go(0), Event.FAULT, calm)
    for number in range(1, 2001):
        waits.append(circuit.until_s - circuit.since_s)
        circuit, answer = ask(circuit, POLICY, circuit.until_s, number)
        assert isinstance(answer, Go)
        failed = Report(now_s=circuit.since_s)
        circuit = after(circuit, POLICY, answer, Event.FAULT, failed)

    assert waits[:6] == [10, 20, 40, 80, 100, 100]
    assert set(waits[6:]) == {100}


def test_what_the_vendor_says_holds_where_it_is_longer() -> None:
    """Retry-After on an overload keeps the breaker open for as long, an hour at most."""
    for told_s, open_s in ((3.0, 10.0), (50.0, 50.0), (1e6, MAX_COOL_S)):
        circuit = after(
            Circuit(failures=2), POLICY, Go(0), Event.FAULT, Report(now_s=0.0, told_s=told_s)
        )

        assert circuit.until_s == open_s


def test_a_later_failure_extends_and_never_shortens() -> None:
    """A second failure that tells a shorter wait leaves the longer one."""
    first = after(Circuit(failures=2), POLICY, Go(0), Event.FAULT, Report(now_s=0.0, told_s=80))
    second = after(first, POLICY, Go(0), Event.FAULT, Report(now_s=5.0, told_s=1))
    third = after(second, POLICY, Go(0), Event.FAULT, Report(now_s=79.0))

    assert (first.until_s, second.until_s, third.until_s) == (80, 80, 89)


def test_cooling_down_holds_all_and_is_no_fault() -> None:
    """After a rate limit nobody goes until it is over, and then everybody, without a probe."""
    circuit = after(Circuit(), POLICY, Go(0), Event.COOL, Report(now_s=0.0, told_s=20))
    shorter = after(circuit, POLICY, Go(0), Event.COOL, Report(now_s=1.0, told_s=2))

    assert shorter.cool_until_s == 20
    assert ask(shorter, POLICY, 19.9, 1)[1] == Hold(20, "it asked to be left alone for a while")
    assert ask(shorter, POLICY, 20.0, 1)[1] == Go(0)
    assert ask(shorter, POLICY, 20.0, 2)[1] == Go(0)


@pytest.mark.parametrize("jump_s", [-1e9, -3600.0, -1.0])
def test_a_clock_set_back_adds_no_waiting(jump_s: float) -> None:
    """Whatever the jump back, what was left to wait is at most the whole interval."""
    opened = after(Circuit(failures=2), POLICY, Go(0), Event.FAULT, Report(now_s=1e6))
    cooling = after(Circuit(), POLICY, Go(0), Event.COOL, Report(now_s=1e6, told_s=30))

    for circuit, wait_s in ((opened, 10.0), (cooling, 30.0)):
        back, held = ask(circuit, POLICY, 1e6 + jump_s, 1)
        assert isinstance(held, Hold)
        assert held.until_s == pytest.approx(1e6 + jump_s + wait_s, abs=1e-6)
        assert isinstance(ask(back, POLICY, held.until_s, 2)[1], Go)


def test_a_clock_hours_ahead_lets_one_probe_go() -> None:
    """A jump ahead ends the waiting, and nothing else: one goes, the others wait for it."""
    opened = after(Circuit(failures=2), POLICY, Go(0), Event.FAULT, Report(now_s=0.0))

    probing, first = ask(opened, POLICY, 1e6, 1)
    _, second = ask(probing, POLICY, 1e6, 2)

    assert first == Go(1, 1)
    assert isinstance(second, Hold)


def fail(breakers: Breakers, name: str, times: int, now_s: float = 0.0) -> Change | None:
    """Let requests fail one after the other; returns what the last one changed."""
    change = None
    for _ in range(times):
        passage = breakers.admit(name, now_s)
        assert isinstance(passage, Passage)
        change = breakers.report(passage, errors.Overloaded("x"), now_s)
    return change


def test_each_name_has_a_breaker_of_its_own_that_remembers() -> None:
    """What one model's vendor failed with holds the next request for it, and for it alone."""
    breakers = Breakers(POLICY)

    change = fail(breakers, "a/x", 3)
    held = breakers.admit("a/x", 4.0)

    assert change == Change(
        name="a/x", before=State.CLOSED, after=State.OPEN, until_s=10.0, reason="Overloaded"
    )
    assert isinstance(held, Hold)
    assert isinstance(breakers.admit("a/y", 4.0), Passage)
    error = held.error("a/x", 4.0)
    assert isinstance(error, BreakerOpen)
    assert error.retry_after_s == 6.0
    assert str(error) == (
        "a/x is left alone for another 6.0 s: it failed too often lately (Overloaded)"
    )


def test_a_probe_that_is_released_gives_its_place_to_the_next() -> None:
    """Cancelled before it found out anything, a probe neither closes nor prolongs."""
    breakers = Breakers(POLICY)
    fail(breakers, "a", 3)
    probe = breakers.admit("a", 10.0)
    assert isinstance(probe, Passage)
    assert probe.is_probe
    assert isinstance(breakers.admit("a", 10.5), Hold)

    breakers.release(probe, 11.0)
    breakers.release(probe, 11.0)
    following = breakers.admit("a", 11.0)

    assert isinstance(following, Passage)
    assert following.is_probe
    assert breakers.report(probe, None, 11.0) is None, "its place is no longer its own"
    change = breakers.report(following, None, 12.0)
    assert change is not None
    assert change.after is State.CLOSED


def test_a_probe_that_never_comes_back_is_replaced() -> None:
    """After as long as the breaker may be open at most, another probe goes."""
    breakers = Breakers(POLICY)
    fail(breakers, "a", 3)
    lost = breakers.admit("a", 10.0)

    assert isinstance(breakers.admit("a", 109.9), Hold)
    second = breakers.admit("a", 110.0)

    assert isinstance(lost, Passage)
    assert isinstance(second, Passage)
    assert second.is_probe
    assert breakers.report(lost, None, 111.0) is None
    assert breakers.circuits()["a"].state is State.PROBING


def test_a_probe_that_is_answered_lets_the_others_go_before_it_ends() -> None:
    """A long reply of the probe holds nobody; its cut in the end counts as one failure."""
    breakers = Breakers(POLICY)
    fail(breakers, "a", 3)
    probe = breakers.admit("a", 10.0)
    assert isinstance(probe, Passage)

    change = breakers.alive(probe, 10.5)

    assert change is not None
    assert change.after is State.CLOSED
    assert isinstance(breakers.admit("a", 10.6), Passage)
    assert breakers.alive(probe, 11.0) is None
    assert breakers.report(probe, errors.StreamInterrupted("cut"), 60.0) is None
    assert breakers.circuits()["a"].failures == 1


def test_a_report_counts_once() -> None:
    """Who reports the same failure again has failed once."""
    breakers = Breakers(POLICY)
    passage = breakers.admit("a", 0.0)
    assert isinstance(passage, Passage)

    for _ in range(5):
        breakers.report(passage, errors.Overloaded("x"), 0.0)

    assert breakers.circuits()["a"].failures == 1


def test_what_cut_a_reply_is_what_counts() -> None:
    """A limit that ends a stream half-way is a limit, with the wait that it tells."""
    breakers = Breakers(POLICY)
    passage = breakers.admit("a", 0.0)
    assert isinstance(passage, Passage)
    cut = errors.StreamInterrupted("cut")
    cut.__cause__ = errors.RateLimited("x", retry_after_s=40)

    breakers.report(passage, cut, 0.0)

    assert breakers.circuits()["a"].failures == 0
    assert breakers.circuits()["a"].cool_until_s == 40


def test_circuits_are_bounded_and_the_open_ones_are_kept() -> None:
    """However many names are asked, memory is bounded, and no outage is forgotten."""
    breakers = Breakers(POLICY)
    fail(breakers, "down", 3)
    early = breakers.admit("early", 0.0)
    assert isinstance(early, Passage)

    for number in range(MAX_CIRCUITS + 10):
        breakers.admit(f"m{number}", 1.0 + number * 1e-6)

    assert len(breakers.circuits()) == MAX_CIRCUITS
    assert "early" not in breakers.circuits()
    assert breakers.circuits()["down"].state is State.OPEN
    assert breakers.report(early, errors.Overloaded("x"), 2.0) is None
    breakers.admit("early", 2.0)
    breakers.report(Passage("early", early.went), errors.Overloaded("x"), 2.0)
    assert breakers.circuits()["early"].failures == 0, "it went under one that was dropped"
