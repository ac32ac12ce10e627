"""Laws of residency, by simulation: budgets hold, everybody gets a turn, few loads are wasted."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from itertools import count

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdispatcher.residency import TURN_S, Residency
from llmdispatcher.tenancy import (
    MIB,
    MIN_RESIDENCY_S,
    Admit,
    Budget,
    Load,
    Model,
    Pause,
    Refuse,
    Stage,
    Unload,
    Weigh,
)
from llmdispatcher.vendors.contract import Footprint

BUDGET_MB = 100
UNLOAD_S = 0.01
NAMES = ["a", "b", "c", "d"]


@attrs.frozen(kw_only=True)
class Visit:
    """One request: when it comes, for whom, how long it is served, when it gives up waiting."""

    after_s: float
    model: str
    served_s: float
    patience_s: float | None = None


class World:
    """Plays what ``Residency`` decides, in a time of its own, and checks every step."""

    def __init__(
        self,
        footprints: dict[str, Footprint],
        load_s: float,
        budget: Budget | None = None,
        failing: Sequence[str] = (),
    ) -> None:
        self.budget = budget or Budget(max_memory_mb=BUDGET_MB)
        self.residency: Residency[int] = Residency(self.budget)
        self.footprints, self.load_s, self.failing = footprints, load_s, failing
        self.now_s = 0.0
        self.loads: list[str] = []
        self.waited_s: list[float] = []
        """Of those who were admitted."""
        self.ended: dict[int, str] = {}
        self._visits: dict[int, tuple[Visit, float, Callable[[], None]]] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = count()
        self._rings_s = 0.0

    def after(self, wait_s: float, what: Callable[[], None]) -> None:
        """Have something happen later."""
        heapq.heappush(self._events, (self.now_s + wait_s, next(self._serial), what))

    def visit(self, visit: Visit, then: Callable[[], None] = lambda: None) -> None:
        """Let a request come now; ``then`` is when it has ended."""
        user = next(self._serial)
        self._visits[user] = visit, self.now_s, then
        self.residency.enter(visit.model, user, self.now_s)
        if visit.patience_s is not None:
            self.after(visit.patience_s, lambda: self._give_up(user))

    def ask(self, name: str) -> None:
        """Ask to unload a model."""
        self.residency.ask(name)

    def run(self) -> None:
        """Play until nothing happens any more."""
        while self._events:
            self.now_s, _, what = heapq.heappop(self._events)
            what()
            self._act()

    def _act(self) -> None:
        while (action := self.residency.decide(self.now_s)) is not None:
            if isinstance(action, Pause):
                assert action.until_s > self.now_s
                return self._ring_at(action.until_s)
            self._do(action)
            self._check()
        return None

    def _ring_at(self, at_s: float) -> None:
        """Look again then, or before."""
        if not self.now_s < self._rings_s <= at_s:
            self._rings_s = at_s
            self.after(at_s - self.now_s, lambda: None)

    def _do(self, action: Admit | Weigh | Load | Unload | Refuse) -> None:
        name, residency = action.model, self.residency
        match action:
            case Admit():
                for user in residency.admit(name, self.now_s):
                    visit, came_s, _ = self._visits[user]
                    self.waited_s.append(self.now_s - came_s)
                    self.after(visit.served_s, lambda user=user: self._end(user, "served"))  # type: ignore[misc]
            case Weigh():
                residency.weighed(name, self.footprints[name])
            case Load():
                self.loads.append(name)
                residency.begun(name, self.now_s)
                self.after(self.load_s, lambda: self._loaded(name))
            case Unload():
                model = self.model(name)
                assert not model.users
                assert not (model.footprint.pinned and "make room" in action.reason)
                residency.unloading(name)
                self.after(UNLOAD_S, lambda: residency.gone(name))
            case Refuse():
                self._fail(name, "refused")

    def _loaded(self, name: str) -> None:
        if name in self.failing:
            self._fail(name, "failed")
        else:
            self.residency.loaded(name, self.now_s)

    def _fail(self, name: str, how: str) -> None:
        for user in self.residency.failed(name):
            self._end(user, how)

    def _end(self, user: int, how: str) -> None:
        if user not in self.ended:
            self.ended[user] = how
            visit, _, then = self._visits[user]
            self.residency.leave(visit.model, user, self.now_s)
            then()

    def _give_up(self, user: int) -> None:
        if user in self.model(self._visits[user][0].model).waiters:
            self._end(user, "gave up")

    def _check(self) -> None:
        """The sum of what is held never exceeds the budget, and one load is on its way at most."""
        held = [m for name in NAMES if (m := self.residency.model(name)) and _is_held(m)]
        limits = (
            (sum(m.footprint.memory_bytes for m in held), self.budget.memory_bytes),
            (sum(m.footprint.gpu_bytes for m in held), self.budget.gpu_bytes),
        )
        assert all(limit is None or taken <= limit for taken, limit in limits)
        assert sum(m.stage is Stage.LOADING for m in held) <= 1

    def model(self, name: str) -> Model[int]:
        """Return what is known of a model that was asked for."""
        model = self.residency.model(name)
        assert model is not None
        return model


def _is_held(model: Model[int]) -> bool:
    return model.stage is not Stage.ABSENT


def of(size_mb: int, **wishes: float | bool) -> Footprint:
    """Make a footprint."""
    return Footprint(memory_bytes=size_mb * MIB, **wishes)  # type: ignore[arg-type]


FOOTPRINTS = st.builds(
    Footprint,
    memory_bytes=st.sampled_from([10, 30, 50, 60, 100, 101]).map(lambda mb: mb * MIB),
    gpu_bytes=st.sampled_from([0, 0, 10, 40, 60]).map(lambda mb: mb * MIB),
    pinned=st.sampled_from([False, False, False, True]),
    keep_alive_s=st.sampled_from([None, None, 0.0, 1.0]),
)
BUDGETS = st.sampled_from(
    [Budget(max_memory_mb=100), Budget(max_memory_mb=100, max_vram_mb=50), Budget()]
)
VISITS = st.lists(
    st.builds(
        Visit,
        after_s=st.sampled_from([0.0, 0.0, 0.01, 0.3, 2.0]),
        model=st.sampled_from(NAMES),
        served_s=st.sampled_from([0.0, 0.05, 1.0, 20.0]),
        patience_s=st.sampled_from([None, None, None, 0.0, 0.5, 8.0]),
    ),
    max_size=40,
)


@settings(max_examples=3 * settings().max_examples, deadline=None)
@given(
    footprints=st.fixed_dictionaries(dict.fromkeys(NAMES, FOOTPRINTS)),
    budget=BUDGETS,
    visits=VISITS,
    load_s=st.sampled_from([0.0, 0.1, 3.0]),
    failing=st.lists(st.sampled_from(NAMES), max_size=1),
    asked=st.lists(st.tuples(st.floats(0, 20), st.sampled_from(NAMES)), max_size=4),
)
def test_budgets_hold_and_every_request_ends(  # noqa: PLR0913, PLR0917 - each a part of the world
    footprints: dict[str, Footprint],
    budget: Budget,
    visits: list[Visit],
    load_s: float,
    failing: list[str],
    asked: list[tuple[float, str]],
) -> None:
    """Whatever comes, no budget is exceeded, nothing in use is unloaded, and nobody waits on."""
    world = World(footprints, load_s, budget, failing)
    at_s = 0.0
    for visit in visits:
        at_s += visit.after_s
        world.after(at_s, lambda visit=visit: world.visit(visit))  # type: ignore[misc]
    for when_s, name in asked:
        world.after(when_s, lambda name=name: world.ask(name))  # type: ignore[misc]

    world.run()

    assert len(world.ended) == len(visits)
    for name in NAMES:
        model = world.residency.model(name)
        assert model is None or not (model.users or model.waiters or model.is_leaving)
        assert model is None or model.stage in {Stage.ABSENT, Stage.LOADED}


@settings(max_examples=40, deadline=None)
@given(
    clients=st.integers(1, 6),
    served_s=st.sampled_from([0.1, 0.5, 2.0]),
    load_s=st.sampled_from([0.1, 1.0, 4.0]),
    models=st.integers(2, 4),
)
def test_nobody_starves(clients: int, served_s: float, load_s: float, models: int) -> None:
    """Where every model is asked for all the time and one fits, each has its turn in bounded time.

    That is for each of the others: the turn, its residency, its last replies, and two changes.
    """
    names = NAMES[:models]
    world = World(dict.fromkeys(names, of(100)), load_s)

    def ask(name: str) -> None:
        if world.now_s < 40:
            world.visit(Visit(after_s=0, model=name, served_s=served_s), lambda: ask(name))

    for index in range(clients * models):
        # asked for a little apart, so that one of them is being served at every moment
        world.after(served_s * index / clients, lambda n=names[index % models]: ask(n))  # type: ignore[misc]
    world.run()

    turn_s = TURN_S + MIN_RESIDENCY_S + served_s + load_s + UNLOAD_S
    assert max(world.waited_s) <= models * turn_s


@pytest.mark.parametrize(("patience_s", "waits_s"), [(1.0, 5.01), (None, 8.01)])
def test_a_model_that_was_loaded_and_used_stays_a_while(
    patience_s: float | None, waits_s: float
) -> None:
    """As long as its load took; one whose callers had all given up makes room at once."""
    world = World(dict.fromkeys(NAMES, of(100)), load_s=3)
    asked = Visit(after_s=0, model="a", served_s=0.0, patience_s=patience_s)
    world.after(0, lambda: world.visit(asked))
    world.after(1, lambda: world.visit(Visit(after_s=0, model="b", served_s=0)))

    world.run()

    assert world.loads == ["a", "b"]
    assert world.waited_s[-1] == pytest.approx(waits_s)


def test_a_door_is_opened_again() -> None:
    """Who waited outside a model that was to make room is served when nobody needs that room."""
    world = World(dict.fromkeys(NAMES, of(100)), load_s=0.1)
    turn = Visit(after_s=0, model="b", served_s=0, patience_s=TURN_S + 2)
    world.after(0, lambda: world.visit(Visit(after_s=0, model="a", served_s=60)))
    world.after(1, lambda: world.visit(turn))
    world.after(TURN_S + 2, lambda: world.visit(Visit(after_s=0, model="a", served_s=1)))

    world.run()

    assert world.loads == ["a"]
    assert world.waited_s == pytest.approx([0.1, 1.0])


def test_small_models_stay_where_a_large_one_is_enough() -> None:
    """Of those that were not used longest, the ones that would not help are spared."""
    world = World({"a": of(10), "b": of(60), "c": of(30), "d": of(60)}, load_s=0.1)
    for at_s, name in enumerate("abcd"):
        world.after(at_s, lambda n=name: world.visit(Visit(after_s=0, model=n, served_s=0)))  # type: ignore[misc]

    world.run()

    stages = {name: world.model(name).stage for name in NAMES}
    assert [name for name in NAMES if stages[name] is Stage.LOADED] == ["a", "c", "d"]


def best_loads(trace: Sequence[str], room: int) -> int:
    """Count the loads of one who knows the future: unload what is needed last (Belady 1966)."""
    here: set[str] = set()
    loads = 0
    for index, name in enumerate(trace):
        if name in here:
            continue
        loads += 1
        if len(here) == room:
            rest = trace[index + 1 :]
            here.remove(max(here, key=lambda n: rest.index(n) if n in rest else len(rest)))
        here.add(name)
    return loads


def played(trace: Sequence[str], clients: int, load_s: float, served_s: Sequence[float]) -> World:
    """Have a trace asked for in order by clients that each ask again when they were served."""
    world = World(dict.fromkeys(NAMES, of(BUDGET_MB // 2)), load_s)
    left: Iterator[tuple[int, str]] = iter(enumerate(trace))

    def ask() -> None:
        if (following := next(left, None)) is not None:
            index, name = following
            length_s = served_s[index % len(served_s)]
            world.visit(Visit(after_s=0, model=name, served_s=length_s), ask)

    for _ in range(clients):
        world.after(0, ask)
    world.run()
    assert list(world.ended.values()) == ["served"] * len(trace)
    return world


@settings(max_examples=4 * settings().max_examples, deadline=None)
@given(
    trace=st.lists(st.sampled_from(NAMES[:3]), min_size=1, max_size=60),
    clients=st.integers(1, 8),
    load_s=st.sampled_from([0.02, 0.5, 5.0]),
    served_s=st.lists(st.sampled_from([0.005, 0.05, 1.0]), min_size=1, max_size=5),
)
def test_loads_are_few(
    trace: list[str], clients: int, load_s: float, served_s: list[float]
) -> None:
    """At most twice the loads of an optimal replay: three equal models, of which two fit.

    One client alone is served in its order, where least recently used is known to keep this bound;
    several are batched, so that fewer loads are needed.
    """
    world = played(trace, clients, load_s, served_s)

    assert len(world.loads) <= 2 * best_loads(trace, 2)


def test_requests_at_once_are_batched() -> None:
    """Eight clients that ask for three models in turn need far fewer loads than there are turns."""
    trace = [NAMES[index % 3] for index in range(200)]

    assert best_loads(trace, 2) == 101
    assert len(played(trace, 1, 0.5, [0.05]).loads) == 200
    assert len(played(trace, 8, 0.5, [0.05]).loads) < 60
