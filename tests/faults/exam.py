"""The judge of an exam of faults: sixteen that a public exam for gateways has, judged as there.

It knows nothing of the client under test but ``Client``: what it returned, and when, is held
against what the server saw. ``scenarios`` has the sixteen, ``further`` those that we add.

    pass     the ideal result (the whole answer, or the error where asking around is wrong), and
             nothing to say against how it was got
    partial  the ideal result, and something to say
    safe     not the ideal result, but an error in good time, and nobody was harmed
    fail     a hang, a part of the answer as if it were the whole, or harm done to the vendor
"""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import Any, Protocol, Self

import attrs
from faults.misdeeds import ANSWER, saying
from faults.server import Behave, FaultServer, Role, Seen

PROMPT = "Tell in sixty words why ships carry two compasses."


class Verdict(StrEnum):
    """Of one scenario, from best to worst."""

    PASS = "pass"  # noqa: S105 - no password
    PARTIAL = "partial"
    SAFE = "safe"
    FAIL = "fail"


@attrs.frozen(kw_only=True)
class Pace:
    """All times of an exam, in seconds."""

    timeout_s: float
    """What clients are told that know one timeout, of a request or of silence."""
    first_token_s: float
    idle_s: float
    """What clients are told that know these limits as well."""
    retry_after_s: int
    slow_s: float
    """How late a slow first token is."""
    slow_limit_s: float
    """A client with a limit for the first token is done by then."""
    stall_s: float
    """How long a stream that stalls is silent before it closes."""
    stall_limit_s: float
    silence_limit_s: float
    """Three requests that time out, and some pauses."""
    end_limit_s: float
    """A reply of which all has come is given by then."""
    outage_s: float
    asks: int
    """Requests across the outage."""
    every_s: float
    back_s: float
    """So soon after the outage the primary serves again."""
    word_s: float
    hang_s: float
    """What takes longer hangs."""

    def slower(self, factor: float) -> Pace:
        """Return the same with all margins wider; what vendors say to wait stays as it is."""
        fixed = {"retry_after_s", "asks", "word_s"}
        names = [field.name for field in attrs.fields(Pace) if field.name not in fixed]
        return attrs.evolve(self, **{name: getattr(self, name) * factor for name in names})


FULL = Pace(
    timeout_s=30,
    first_token_s=10,
    idle_s=10,
    retry_after_s=2,
    slow_s=20,
    slow_limit_s=15,
    stall_s=30,
    stall_limit_s=45,
    silence_limit_s=100,
    end_limit_s=8,
    outage_s=60,
    asks=20,
    every_s=4,
    back_s=30,
    word_s=0.015,
    hang_s=130,
)
"""The times of the public exam."""

SHORT = Pace(
    timeout_s=4,
    first_token_s=1,
    idle_s=1,
    retry_after_s=2,
    slow_s=3,
    slow_limit_s=2.2,
    stall_s=4,
    stall_limit_s=8,
    silence_limit_s=22,
    end_limit_s=3,
    outage_s=10,
    asks=14,
    every_s=1.2,
    back_s=8,
    word_s=0.003,
    hang_s=30,
)
"""Times of a bench: long enough for the pauses of peers, which nobody can shorten."""

QUICK = Pace(
    timeout_s=4,
    first_token_s=0.75,
    idle_s=0.75,
    retry_after_s=1,
    slow_s=3,
    slow_limit_s=2.5,
    stall_s=3.2,
    stall_limit_s=4.8,
    silence_limit_s=15,
    end_limit_s=2.5,
    outage_s=3,
    asks=31,
    every_s=0.15,
    back_s=1.5,
    word_s=0.001,
    hang_s=20,
)
"""Times of a test: with margins that a busy machine does not use up."""

PACE = QUICK.slower(float(os.environ.get("LLMDISPATCHER_EXAM_SLOWER", "1")))
"""The same where others use the machine as well: more time, so that only vendors are late."""


@attrs.frozen(kw_only=True)
class Outcome:
    """What a client returned for one request."""

    text: str = ""
    """The reply, or what there was of it."""
    error: str = ""
    """Class of the error and what it says; "" if there was none."""
    seconds: float = 0.0
    shown: str | None = None
    """What a reader of the stream has in front of him at the end; None if nothing was streamed."""
    restarted: bool = False
    """The reader was told to forget what had been shown."""
    model: str = ""
    """Who answered, as the client tells it."""
    has_usage: bool = False
    hung: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether all of the answer, and nothing else, arrived, where it can be seen."""
        return not self.error and all(
            " ".join(text.split()) == ANSWER for text in (self.text, self.shown or self.text)
        )

    @property
    def kind(self) -> str:
        """Class of the error."""
        return self.error.partition(":")[0]


class Client(Protocol):
    """Whoever is examined. Both methods may be coroutine functions."""

    has_fallback: bool

    def ask(self, prompt: str, *, stream: bool) -> Outcome | Awaitable[Outcome]:
        """Ask once, and never raise."""
        ...

    def close(self) -> Awaitable[None] | None:
        """End."""
        ...


Maker = Callable[[str, str, Pace], Client]
"""Makes a client of the addresses of the primary and the fallback."""


@attrs.frozen(kw_only=True)
class Record:
    """All that is known of a client in a scenario."""

    outcomes: Sequence[Outcome]
    asked_s: Sequence[float]
    """When each was asked, on the clock of the primary."""
    primary: Sequence[Seen]
    fallback: Sequence[Seen]
    pace: Pace
    streamed: bool
    after: Outcome
    """Of a request once both vendors were well again."""

    @property
    def outcome(self) -> Outcome:
        """The only one."""
        return self.outcomes[0]


Rule = Callable[[Record], str]
"""Returns what is wrong, or ""."""


@attrs.frozen(kw_only=True)
class Scenario:
    """A fault, and what is asked of a client in it."""

    id: str
    title: str
    primary: Callable[[Pace], Behave]
    fallback: Callable[[Pace], Behave] = lambda pace: saying()
    wants_error: bool = False
    """Asking around until somebody answers would be wrong."""
    required: tuple[Rule, ...] = ()
    """What does harm if it is broken."""
    advised: tuple[Rule, ...] = ()
    advised_with_fallback: tuple[Rule, ...] = ()
    """Asked only of clients that have a fallback."""
    required_with_fallback: tuple[Rule, ...] = ()
    ours: tuple[Rule, ...] = ()
    """What the public exam does not ask, and we do of ourselves."""
    asks: Callable[[Pace], int] = lambda pace: 1
    """How many requests, ``every_s`` apart."""
    absent: bool = False
    """Nobody listens where the primary should be."""


@attrs.frozen(kw_only=True)
class Mark:
    """What a client got for a scenario."""

    verdict: Verdict
    reason: str
    beyond: tuple[str, ...]
    """Which of our own rules were broken."""
    record: Record

    def __str__(self) -> str:
        """All that is worth knowing when it is not a pass."""
        record = self.record
        seen = [
            f"{role} {seen.number} at {seen.at_s:.2f} s: {seen.told}"
            for role, all_seen in (("primary", record.primary), ("fallback", record.fallback))
            for seen in all_seen
        ]
        said = [
            f"{outcome.seconds:.2f} s, {outcome.error or outcome.model}, {len(outcome.text)} chars"
            for outcome in record.outcomes
        ]
        first = f"{self.verdict}: {self.reason} {'; '.join(self.beyond)}"
        return "\n  ".join([first, *said, *seen])


def examine(scenario: Scenario, maker: Maker, pace: Pace, *, stream: bool) -> Mark:
    """Put a client through a scenario, and judge it."""
    behaviours = {"primary": scenario.primary(pace), "fallback": scenario.fallback(pace)}
    with FaultServer(**behaviours) as server, _Asking(pace.hang_s) as asking:
        primary, fallback = server["primary"], server["fallback"]
        url = asking.nowhere() if scenario.absent else primary.url
        client = maker(url, fallback.url, pace)
        try:
            server.begin(**behaviours)
            times = (scenario.asks(pace), pace.every_s)
            asked, outcomes = _asked(asking, client, primary, times, stream=stream)
            saw = (primary.seen, fallback.seen)
            server.begin(primary=saying(), fallback=saying())
            after = asking.ask(client, stream=stream)
        finally:
            asking.close(client)
    record = Record(
        outcomes=outcomes,
        asked_s=asked,
        primary=saw[0],
        fallback=saw[1],
        pace=pace,
        streamed=stream,
        after=after,
    )
    return judge(scenario, record, has_fallback=client.has_fallback)


def _asked(
    asking: _Asking, client: Client, primary: Role, times: tuple[int, float], *, stream: bool
) -> tuple[list[float], list[Outcome]]:
    """Ask so many times, every so many seconds, or as soon after that as the last is over."""
    count, every_s = times
    asked: list[float] = []
    outcomes = []
    for number in range(count):
        time.sleep(max(0.0, number * every_s - primary.now_s()))
        asked.append(primary.now_s())
        outcomes.append(asking.ask(client, stream=stream))
    return asked, outcomes


def judge(scenario: Scenario, record: Record, *, has_fallback: bool) -> Mark:
    """Judge what happened."""
    verdict, reason = _verdict(scenario, record, has_fallback=has_fallback)
    beyond = tuple(wrong for rule in scenario.ours if (wrong := rule(record)))
    return Mark(verdict=verdict, reason=reason, beyond=beyond, record=record)


def _verdict(scenario: Scenario, record: Record, *, has_fallback: bool) -> tuple[Verdict, str]:
    if harm := _harm(scenario, record, has_fallback=has_fallback):
        return Verdict.FAIL, harm
    errors = [outcome.error for outcome in record.outcomes if outcome.error]
    if scenario.wants_error and len(errors) < len(record.outcomes):
        return Verdict.PARTIAL, "somebody was found who answers"
    if not scenario.wants_error and errors:
        return Verdict.SAFE, f"an honest error: {errors[0][:120]}"
    advised = scenario.advised + (scenario.advised_with_fallback if has_fallback else ())
    wrong = "; ".join(reason for rule in advised if (reason := rule(record)))
    return (Verdict.PARTIAL, wrong) if wrong else (Verdict.PASS, "")


def _harm(scenario: Scenario, record: Record, *, has_fallback: bool) -> str:
    """Return what must not happen, and did; "" if nothing did."""
    if any(outcome.hung for outcome in record.outcomes):
        return "hung"
    if any(not outcome.error and not outcome.is_whole for outcome in record.outcomes):
        return "a part, or something else, was given as the answer"
    required = scenario.required + (scenario.required_with_fallback if has_fallback else ())
    return "; ".join(reason for rule in required if (reason := rule(record)))


class _Asking:
    """Asks clients of either world, and gives up those that hang."""

    def __init__(self, hang_s: float) -> None:
        self._hang_s = hang_s
        self._runner = asyncio.Runner()
        self._taken = socket.socket()

    def __enter__(self) -> Self:
        self._runner.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._taken.close()
        self._runner.close()

    def nowhere(self) -> str:
        """Return an address at which nobody listens, and nobody else will."""
        self._taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{self._taken.getsockname()[1]}/v1"

    def ask(self, client: Client, *, stream: bool) -> Outcome:
        """Ask once."""
        began_s = time.monotonic()
        if inspect.iscoroutinefunction(client.ask):
            outcome: Outcome = self._runner.run(self._bounded(client.ask(PROMPT, stream=stream)))
        else:
            outcome = self._in_thread(lambda: client.ask(PROMPT, stream=stream))
        return attrs.evolve(outcome, seconds=time.monotonic() - began_s)

    def close(self, client: Client) -> None:
        """End a client."""
        closing = client.close()
        if closing is not None:
            self._runner.run(self._bounded(closing))

    async def _bounded(self, asking: Awaitable[Any]) -> Any:
        try:
            return await asyncio.wait_for(asking, self._hang_s)
        except TimeoutError:
            return Outcome(error="Hung: it was given up", hung=True)

    def _in_thread(self, ask: Callable[[], Any]) -> Outcome:
        """Ask in a thread of its own, since nobody can end one that hangs."""
        told: list[Outcome] = []
        thread = threading.Thread(target=lambda: told.append(ask()), name="asking", daemon=True)
        thread.start()
        thread.join(self._hang_s)
        if told:
            return told[0]
        hung = thread.is_alive()
        return Outcome(error="Hung: it was given up" if hung else "Died: the client", hung=hung)
