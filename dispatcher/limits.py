"""Leave to send a request, within the limits of a vendor or model: at once, later, or not.

    answer = limiter.ask(needs, clock(), priority=…, deadline_s=…)    # or raises LimitReached
    while isinstance(answer, Waiting):
        try:
            …wait for answer.future, at most until answer.until_s…
        except BaseException:
            answer.leave(clock())
            raise
        answer = answer.look(clock())                                 # or raises LimitReached
    …ask the vendor; answer.told(headroom, clock()) when its answer begins…
    answer.end(clock(), used=Needs(…), error=…)      # always, in finally; the first time counts

``gate`` decides; here it does so under a lock that is held for a moment, and whoever waits is told
by a future, which threads and event loops can both wait for.

Where a ledger is shared, a limiter has a ``pool``: whoever has its permit draws a share there too,
before anything is sent; see ``turns``. How many are under way at once is counted here alone.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from llmdispatcher.bucket import NOTHING, Needs, buckets
from llmdispatcher.gate import Answer, Gate, Pass, Stay, Turned
from llmdispatcher.models.errors import DispatcherError, LimitReached
from llmdispatcher.models.headroom import Headroom
from llmdispatcher.models.policy import Limits
from llmdispatcher.window import is_congestion

if TYPE_CHECKING:
    from concurrent.futures import Future

    from llmdispatcher.ledger_shared import Pool, Sharing

MAX_LIMITERS = 10_000
"""More models than one program asks; beyond it, those that nobody uses are dropped."""


class Permit:
    """Leave to send one request. To be given back exactly once; more often does nothing."""

    _share: Callable[[Needs], None] | None = None
    """Whom to tell what was used, where the limits are shared."""

    def __init__(self, limiter: Limiter, number: int) -> None:
        self._limiter, self._number = limiter, number

    def shared(self, give: Callable[[Needs], None]) -> None:
        """Say whom to tell, beside the limiter, what was used: whoever shares the limits."""
        self._share = give

    def told(self, headroom: Headroom, now_s: float) -> None:
        """Take what the vendor's answer tells of its limits."""
        if headroom:
            self._limiter.move(lambda gate: gate.told(self._number, headroom, now_s))

    def end(
        self,
        now_s: float,
        *,
        used: Needs | None = None,
        error: DispatcherError | None = None,
        pace_s: float | None = None,
    ) -> None:
        """Give it back after the request was served, or failed with ``error``.

        ``used`` is what it took in truth; None leaves the estimate. ``pace_s``, of one that was
        served, is what a slow server is known by: see ``Window.served``.
        """

        def step(gate: Gate) -> None:
            if error is None:
                gate.served(self._number, pace_s)
            elif is_congestion(error):
                gate.congested(self._number)
            gate.end(self._number, now_s, used)

        self._limiter.move(step)
        if self._share is not None:
            self._tell(used)

    def cancel(self, now_s: float) -> None:
        """Give it back unused: nothing was sent, and nothing counts."""
        self._limiter.move(lambda gate: gate.end(self._number, now_s, NOTHING))
        if self._share is not None:
            self._tell(NOTHING)

    def refuse(self, levels: Sequence[float], now_s: float) -> None:
        """Take it back: those who share the limits have only so much left."""
        self._limiter.move(lambda gate: gate.learn(levels, now_s, self._number))

    def _tell(self, used: Needs | None) -> None:
        share, self._share = self._share, None  # the first time counts
        if share is not None and used is not None:
            share(used)


class Waiting:
    """A place in the line. Look again when ``future`` is done or ``until_s`` has come."""

    def __init__(self, limiter: Limiter, stay: Stay, future: Future[None]) -> None:
        self._limiter, self._number = limiter, stay.number
        self.until_s, self.ahead, self.future = stay.until_s, stay.ahead, future

    def look(self, now_s: float) -> Permit | Waiting:
        """Take the permit if it is there, or wait on. Raises LimitReached after the deadline."""
        return self._limiter.decide(lambda gate: gate.look(self._number, now_s), self._number)

    def leave(self, now_s: float) -> None:
        """Wait no more. Gives the permit back if it was there already; may be called twice."""
        self._limiter.move(lambda gate: gate.leave(self._number, now_s), self._number)


class Limiter:
    """Keeps the limits of one vendor or model. Safe for threads."""

    def __init__(
        self, limits: Limits | None = None, name: str = "", pool: Pool | None = None
    ) -> None:
        self.name, self.pool = name, pool
        self._gate = Gate(limits or Limits())
        self._lock = threading.RLock()
        self._is_moving = False
        self._left: list[tuple[Callable[[Gate], None], int]] = []
        """Steps that came in the middle of another, of the same thread: garbage may be collected
        anywhere, and so a flow closed whose permit ends."""
        self._futures: dict[int, Future[None]] = {}

    def ask(
        self, needs: Needs, now_s: float, *, priority: float = 0, deadline_s: float = math.inf
    ) -> Permit | Waiting:
        """Ask for leave to send. ``deadline_s`` is the time by which waiting must have ended.

        Raises LimitReached where the request can never go, may not wait, or would wait too long.
        """
        return self.decide(
            lambda gate: gate.ask(needs, now_s, priority=priority, deadline_s=deadline_s)
        )

    def learn(self, levels: Sequence[float], now_s: float) -> None:
        """Go by what those who share the limits have left."""
        self.move(lambda gate: gate.learn(levels, now_s))

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return self._gate.waiting

    @property
    def in_flight(self) -> int:
        """How many permits are out."""
        return self._gate.in_flight

    @property
    def window(self) -> int | None:
        """How many may be under way at once, as it stands now; None is no bound."""
        window = self._gate.window
        return None if window is None else int(window.size)

    def decide(self, step: Callable[[Gate], Answer], number: int = 0) -> Permit | Waiting:
        """Ask the gate, and wake whom that concerns; ``number`` is whose future has done its work.

        Raises LimitReached.
        """
        with self._lock:
            self._is_moving = True
            try:
                self._futures.pop(number, None)
                answer = step(self._gate)
                made = self._made(answer)
            finally:
                self._make_up()
            woken = self._woken(answer)
        for future in woken:
            future.set_result(None)
        if isinstance(made, LimitReached):
            raise made
        return made

    def move(self, step: Callable[[Gate], None], number: int = 0) -> None:
        """Tell the gate, and wake whom that concerns; ``number`` as for ``decide``."""
        with self._lock:
            self._left.append((step, number))
            if self._is_moving:
                return
            self._is_moving = True
            self._make_up()
            woken = self._woken(None)
        for future in woken:
            future.set_result(None)

    def _make_up(self) -> None:
        """Take the steps that are left. The lock is held."""
        try:
            while self._left:
                step, number = self._left.pop(0)
                self._futures.pop(number, None)
                step(self._gate)
        finally:
            self._is_moving = False

    def _made(self, answer: Answer) -> Permit | Waiting | LimitReached:
        """Return what the caller gets. The lock is held."""
        if isinstance(answer, Pass):
            return Permit(self, answer.number)
        if isinstance(answer, Turned):
            where = f"{self.name}: " if self.name else ""
            return LimitReached(f"{where}{answer.reason}", retry_after_s=answer.retry_after_s)
        from concurrent.futures import Future  # noqa: PLC0415 - 10 ms at import

        future: Future[None] = Future()
        self._futures[answer.number] = future
        return Waiting(self, answer, future)

    def _woken(self, answer: Answer | None) -> list[Future[None]]:
        """Take out the futures of those who should look, but not of the one who just did."""
        looked = answer.number if isinstance(answer, Stay) else None
        numbers = [number for number in self._gate.woken() if number != looked]
        found = (self._futures.pop(number, None) for number in numbers)
        return [future for future in found if future is not None]


class Limiters:
    """The limiters of one dispatcher, by vendor and model. Safe for threads.

    ``limits`` are those of a user: by ``vendor/model`` for one model, by ``vendor`` for each model
    of a vendor by itself, as vendors count. Where there are none, what vendors tell still holds.
    With ``sharing`` those of a user hold for all programs that share together.
    """

    def __init__(
        self, limits: dict[str, Limits] | None = None, sharing: Sharing | None = None
    ) -> None:
        self._limits, self._sharing = dict(limits or {}), sharing
        self._lock = threading.Lock()
        self._limiters: dict[str, Limiter] = {}

    def share(self, sharing: Sharing | None) -> None:
        """Share with these from now on, instead of those before; None is with nobody."""
        with self._lock:
            if sharing is not None or self._sharing is not None:
                self._limiters.clear()
            self._sharing = sharing

    def obey(self, limits: Mapping[str, Limits]) -> None:
        """Go by other limits from now on; where they are as before, what was used counts on.

        Who waits for its turn, or has it, keeps to those that it asked.
        """
        with self._lock:
            before, self._limits = self._limits, dict(limits)
            for name in list(self._limiters):
                vendor = name.partition("/")[0]
                was = before.get(name, before.get(vendor))
                if was != self._limits.get(name, self._limits.get(vendor)):
                    del self._limiters[name]

    def of(self, vendor: str, model: str) -> Limiter:
        """Return the limiter of a model."""
        name = f"{vendor}/{model}"
        with self._lock:
            limiter = self._limiters.get(name)
            if limiter is None:
                self._make_room()
                limits = self._limits.get(name, self._limits.get(vendor))
                limiter = self._limiters[name] = Limiter(limits, name, self._pool(name, limits))
            return limiter

    def wanted(self, vendor: str, model: str) -> Limiter | None:
        """Return the limiter of a model that has limits; None where the user set none."""
        has_limits = f"{vendor}/{model}" in self._limits or vendor in self._limits
        return self.of(vendor, model) if has_limits else None

    def _pool(self, name: str, limits: Limits | None) -> Pool | None:
        """Return what others share of a model's limits, if they have any by the time."""
        if self._sharing is None or limits is None or not buckets(limits):
            return None
        return self._sharing.pool(name, limits)

    def _make_room(self) -> None:
        """Drop one that nobody uses, the oldest of them, if there are too many."""
        if len(self._limiters) < MAX_LIMITERS:
            return
        idle = (n for n, each in self._limiters.items() if not each.in_flight + each.waiting)
        if (oldest := next(idle, None)) is not None:
            del self._limiters[oldest]
