"""Laws of the ledger: caps hold, sums are the sums of rows, nothing counts twice or not at all."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
from books import NOON_S, audit, closed, opening
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from llmdispatcher import BudgetExceeded, SpendingCap
from llmdispatcher.budget import Worst, account_of, concerning, day_of
from llmdispatcher.ledger import Ledger
from llmdispatcher.ledger_entry import Opening, Slip
from llmdispatcher.models.reply import Outcome

CAPS = (
    SpendingCap("0.001", period="day"),
    SpendingCap("0.002", period="month", scope="vendor", name="a"),
    SpendingCap("0.0015", period="ever", scope="tag", name="t"),
    SpendingCap("0.0008", period="day", scope="key", name="k"),
)
EXPIRE_S = 600.0
AMOUNTS = st.integers(0, 600)
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it


class Books(RuleBasedStateMachine):
    """Two ledgers on one file, a clock that jumps, and a plain account of what must come of it."""

    slips = Bundle("slips")

    def __init__(self) -> None:
        super().__init__()
        in_memory = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
        self.folder = Path(tempfile.mkdtemp(dir=in_memory))
        self.path = self.folder / "ledger.sqlite3"
        self.clock_s, self.last_s = NOON_S, 0.0
        self.taken: dict[tuple[SpendingCap, str], int] = {}
        self.held: dict[int, tuple[Slip, str, int, float]] = {}
        """By entry: the slip, its day, what counts for it now, and when it expires."""
        self.expired: dict[int, tuple[Slip, str, int]] = {}
        self.ledgers = [self._ledger(), self._ledger()]
        self.admitted = 0

    def teardown(self) -> None:
        """Everything balances at the end, too."""
        for ledger in self.ledgers:
            ledger.close()
        fates = audit(self.path) if self.path.exists() else {}
        assert sum(fates.values()) == self.admitted
        shutil.rmtree(self.folder)

    def _ledger(self) -> Ledger:
        return Ledger(self.path, caps=CAPS, expire_s=EXPIRE_S, wall=lambda: self.clock_s)

    def _tick(self) -> str:
        """Return the day that the books are at."""
        self.last_s = max(self.last_s, self.clock_s)
        return day_of(self.last_s)

    def _count(self, one: Opening, day: str, amount: int) -> None:
        for cap in concerning(CAPS, one.payer):
            key = (cap, account_of(cap, day).start)
            self.taken[key] = self.taken.get(key, 0) + amount

    @rule(
        target=slips,
        which=st.integers(0, 1),
        worst=AMOUNTS,
        vendor=st.sampled_from("ab"),
        key=st.sampled_from(["", "k", "l"]),
        tags=st.sampled_from([(), ("t",), ("t", "u")]),
    )
    def reserve(
        self, which: int, worst: int, vendor: str, key: str, tags: tuple[str, ...]
    ) -> object:
        """An attempt is admitted if, and only if, its worst case fits every cap."""
        one = opening(vendor, key=key, tags=tags)
        day = self._tick()
        fits = all(
            worst == 0
            or self.taken.get((cap, account_of(cap, day).start), 0) + worst <= cap.limit_microusd
            for cap in concerning(CAPS, one.payer)
        )
        slip = self.ledgers[which].open(one, lambda: Worst(worst))
        assert slip.waiting is not None
        error = slip.waiting.exception(30)
        assert (error is None) == fits
        if error is not None:
            assert isinstance(error, BudgetExceeded)
            return multiple()
        self.admitted += 1
        self._count(one, day, worst)
        self.held[slip.entry] = slip, day, worst, self.last_s + EXPIRE_S
        return slip

    @rule(slip=slips, which=st.integers(0, 1), share=st.integers(0, 100), known=st.booleans())
    def settle(self, slip: Slip, which: int, share: int, known: bool) -> None:  # noqa: FBT001 - drawn
        """The truth takes the place of the worst case, before it expired or after, once."""
        cost = (slip.reserved or 0) * share // 100
        self._tick()
        self.ledgers[which].settle(slip, closed(cost if known else None, Outcome.FAILED))
        self.ledgers[which].flush()
        self._expire_model(slip.entry)
        counted = cost if known else slip.reserved or 0
        if slip.entry in self.held:
            _, day, before, _ = self.held.pop(slip.entry)
        elif slip.entry in self.expired:
            _, day, before = self.expired.pop(slip.entry)
        else:
            return
        self._count(slip.opening, day, counted - before)

    def _expire_model(self, but: int = -1) -> None:
        for entry, (slip, day, amount, at_s) in list(self.held.items()):
            if at_s <= self.last_s and entry != but:
                del self.held[entry]
                self.expired[entry] = slip, day, amount

    @rule(which=st.integers(0, 1))
    def expire(self, which: int) -> None:
        """What is late counts as spent, which changes no sum of what is taken."""
        self._tick()
        self.ledgers[which].expire()
        self._expire_model()

    @rule(seconds=st.sampled_from([1, 700, 40_000, 86_400, 20 * 86_400, -1, -700, -86_400]))
    def jump(self, seconds: int) -> None:
        """The clock of the machine goes on, or is put back."""
        self.clock_s += seconds

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        """A program ends and begins again; what was open stays open."""
        self.ledgers[which].close()
        self.ledgers[which] = self._ledger()

    @invariant()
    def no_cap_is_exceeded_and_every_sum_is_right(self) -> None:
        """Spent and reserved never exceed a cap, and equal the sum of the rows."""
        if not self.path.exists():
            return
        for ledger in self.ledgers:
            ledger.flush()
        audit(self.path)
        assert all(amount <= cap.limit_microusd for (cap, _), amount in self.taken.items())


TestBooks = Books.TestCase
TestBooks.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
