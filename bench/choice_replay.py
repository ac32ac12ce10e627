"""Requests of the world through a real dispatcher, on a clock that is simulated.

The flows are those of ``Dispatcher.send``: the same choice, retries, breakers, pauses and books.
What differs is who drives them: whatever a flow waits for is an event of a queue, and the clock
jumps to the next one. Requests overlap as they would, and nobody sleeps.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import attrs
from choice_world import MODELS, Ask, Meter, Model, Trouble, World
from choice_world import Usage as Bill

from llmdispatcher import (
    Dispatcher,
    DispatcherError,
    FinishReason,
    Image,
    ModelCard,
    Overloaded,
    Price,
    RateLimited,
    Reply,
    Request,
    ResponseFormat,
    StreamInterrupted,
    ToolSpec,
    Unreachable,
    Usage,
    VendorError,
    user,
)
from llmdispatcher.models.card import Capability
from llmdispatcher.models.form import Shape
from llmdispatcher.models.message import Message, Role
from llmdispatcher.models.reply import Delta, Finish, Piece
from llmdispatcher.release import Stopper
from llmdispatcher.steps import Emit, Flow, Fork, Receive, Wait
from llmdispatcher.vendors.contract import State, Status

MOST_OUTPUT = 32_000
"""What the cards say of the longest reply."""
FIRST_S, REFUSES_S = 0.5, 0.1
"""Until the first token, and until a vendor that serves nobody says so."""
PICO_PER_USD = 10**12


class Timeline:
    """Calls what is due, in the order of its time; the clock is the time of what is called."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, when_s: float, what: Callable[[], None]) -> None:
        """Have something called at a time, or now if that has passed."""
        self._count += 1
        heapq.heappush(self._queue, (max(when_s, self.now_s), self._count, what))

    def run(self) -> None:
        """Call everything."""
        while self._queue:
            self.now_s, _, what = heapq.heappop(self._queue)
            what()


class Run:
    """Drives one flow; ``drive`` does the same with threads."""

    def __init__(self, clock: Timeline, flow: Flow, ended: Callable[[Any], None]) -> None:
        self._clock, self._flow, self._ended = clock, flow, ended
        self._turn = 0
        """Which wait this is: whatever comes second for one is too late."""

    def go(self, answer: Any = None, error: Exception | None = None) -> None:  # noqa: ANN401 - of any step
        """Go on until the flow waits again."""
        while True:
            try:
                step = self._flow.send(answer) if error is None else self._flow.throw(error)
            except StopIteration as stop:
                return self._ended(stop.value)
            except DispatcherError as failed:
                return self._ended(failed)
            answer = error = None
            if isinstance(step, Emit):
                continue
            if isinstance(step, Fork):
                raise NotImplementedError("plans are not replayed")
            if isinstance(step, Wait) and step.future.done():
                error = _failure(step.future)
                continue
            return self._wait(step)

    def _wait(self, step: Wait | Receive) -> None:
        self._turn += 1
        turn, clock = self._turn, self._clock
        if isinstance(step, Receive):
            call: Any = step.call
            clock.at(call.ends_s, lambda: self._resume(turn, *call.outcome))
        else:
            step.future.add_done_callback(
                lambda done: clock.at(clock.now_s, lambda: self._resume(turn, None, _failure(done)))
            )
        if step.timeout_s is not None:
            clock.at(clock.now_s + step.timeout_s, lambda: self._resume(turn, None, TimeoutError()))

    def _resume(self, turn: int, answer: object, error: Exception | None) -> None:
        if turn == self._turn:
            self._turn += 1
            self.go(answer, error)


def _failure(done: Future[Any]) -> Exception | None:
    error = done.exception()
    if error is not None and not isinstance(error, Exception):
        raise error
    return error


@attrs.frozen
class Vendor:
    """A vendor of the world. See ``contract.VendorSpec``."""

    name: str
    models: tuple[Model, ...]
    scene: Scene

    def start(self, report: Callable[..., None]) -> Engine:
        """Make the engine."""
        del report
        return Engine(self)


class Engine:
    """Serves what the world lets it serve. See ``contract.Engine``."""

    def __init__(self, vendor: Vendor) -> None:
        self._vendor = vendor
        self._cards = tuple(map(card, vendor.models))
        self._models = {model.model: model for model in vendor.models}
        self._loaded: Future[None] = Future()
        self._loaded.set_result(None)

    def cards(self) -> Sequence[ModelCard]:
        """Return what can be asked here."""
        return self._cards

    def status(self) -> Status:
        """It is never anything but ready: whether it serves is found out by asking."""
        return Status(State.READY)

    def load(self, model: str) -> Future[None]:
        """Nothing is loaded."""
        del model
        return self._loaded

    def submit(self, work: Request, model: str) -> Call:
        """Have the world serve a request, and bill it."""
        scene = self._vendor.scene
        ask = scene.world.asks[int(work.tags[0])]
        trouble, bill = scene.meter.ask(ask, self._models[model], scene.clock.now_s)
        return Call(scene.clock.now_s, ask, self._models[model], (trouble, bill))

    def close(self) -> None:
        """Nothing is open."""


class Call:
    """A reply that is decided when it is asked for, and comes in one. See ``contract.Call``."""

    is_whole = True

    def __init__(
        self, now_s: float, ask: Ask, model: Model, made: tuple[Trouble | None, Bill]
    ) -> None:
        trouble, bill = made
        self._usage = Usage(
            prompt_tokens=bill.prompt,
            cached_tokens=bill.cached,
            completion_tokens=bill.completion,
        )
        took_s = FIRST_S + bill.completion / model.pace if bill.prompt else REFUSES_S
        self.ends_s = now_s + took_s
        self.outcome: tuple[tuple[Piece, ...] | None, VendorError | None]
        if trouble is not None:
            self.outcome = None, _error(trouble)
        else:
            finish = Finish(FinishReason.STOP, self._usage)
            self.outcome = (Delta(answer(ask)), finish), None

    def usage(self) -> Usage:
        """Return what was billed."""
        return self._usage

    def cancel(self) -> None:
        """Nothing goes on behind the end."""


def _error(trouble: Trouble) -> VendorError:
    match trouble.kind:
        case "unreachable":
            return Unreachable("nobody listens there")
        case "limited":
            return RateLimited("slow down", status=429, retry_after_s=trouble.retry_after_s)
        case "cut":
            return StreamInterrupted("the connection broke")
    return Overloaded("no room", status=503)


def card(model: Model) -> ModelCard:
    """Return what is told of a model."""
    able = {Capability.CHAT, *map(Capability, model.able)}
    above = [] if model.above is None else [(model.above[0], model.above[1])]
    price = Price.per_million(
        **_usd(model.rates), above=[{"tokens": n, **_usd(rates)} for n, rates in above]
    )
    return ModelCard(
        vendor=model.vendor,
        model=model.model,
        local=model.vendor == "local",
        capabilities=able,
        price=price,
        context_tokens=model.context,
        max_output_tokens=MOST_OUTPUT,
        quality=3,
    )


def _usd(rates: Any) -> dict[str, str]:  # noqa: ANN401 - Rates
    names = {"input": rates.input, "cached_input": rates.cached, "output": rates.output}
    return {name: f"{pico / 10**6:f}" for name, pico in names.items()}


def answer(ask: Ask) -> str:
    """Return the reply to a request, as the next turn of the conversation has it."""
    return "{}".ljust(int(4 * min(ask.usual, ask.max_tokens or ask.usual)) + 1)


def messages(ask: Ask) -> list[Message]:
    """Return a conversation of the sizes that the world says, like no other from the first word."""
    made = []
    for place, size in enumerate(ask.sizes):
        if place % 2:
            made.append(Message(Role.ASSISTANT, "{}".ljust(size)))
        else:
            text = f"{ask.talk:>5}"[:size].ljust(size, "x")
            pictured = ask.need == "vision" and place == 0
            made.append(user([text, Image(data=b"x")] if pictured else text))
    return made


def request(ask: Ask) -> Request:
    """Return a request as a program makes it; its tag tells the world which one it is."""
    given: dict[str, Any] = {"max_tokens": ask.max_tokens, "tags": [str(ask.number)]}
    if ask.need == "tools":
        given["tools"] = [ToolSpec("look")]
    if ask.need == "json":
        given["response_format"] = ResponseFormat(Shape.JSON)
    return Request(messages=messages(ask), **given)


@attrs.define
class Scene:
    """A world that is being replayed."""

    world: World
    clock: Timeline = attrs.field(factory=Timeline)
    meter: Meter = attrs.field(
        default=attrs.Factory(lambda scene: Meter(scene.world), takes_self=True)
    )
    served: Counter[str] = attrs.field(factory=Counter)
    """Requests by the model that served."""
    paid: dict[int, int] = attrs.field(factory=dict)
    """Pico-dollars that each request cost, all attempts included."""
    unserved: list[int] = attrs.field(factory=list)
    attempts: int = 0
    waited_s: float = 0.0
    """From coming to having a reply, all requests together."""

    def vendors(self) -> Iterator[Vendor]:
        """Return a vendor for each name."""
        for name in dict.fromkeys(model.vendor for model in MODELS):
            yield Vendor(name, tuple(m for m in MODELS if m.vendor == name), self)


def replay(world: World, **options: Any) -> Scene:  # noqa: ANN401 - those of Dispatcher
    """Send every request of a world at its time; ``options`` are those of ``Dispatcher``."""
    scene = Scene(world)
    clock = scene.clock
    vendors: Any = scene.vendors()  # engines that a simulated driver reads, and no other
    with Dispatcher(*vendors, **options) as d:
        desk = d._desk  # noqa: SLF001 - its flows, on another clock
        desk._clock = desk.chooser._clock = lambda: clock.now_s  # noqa: SLF001 - as above
        draw = random.Random(world.seed).random  # noqa: S311 - to be drawn again
        desk._patience = attrs.evolve(desk._patience, draw=draw)  # noqa: SLF001 - as above

        def begin(ask: Ask) -> None:
            flow = desk.flow(request(ask), {}, Stopper(), streaming=False)
            Run(clock, flow, lambda result: _end(scene, ask, result)).go()

        for ask in world.asks:
            clock.at(ask.at_s, lambda ask=ask: begin(ask))  # type: ignore[misc]
        clock.run()
    return scene


def _end(scene: Scene, ask: Ask, result: Any) -> None:  # noqa: ANN401 - Reply or an error
    scene.waited_s += scene.clock.now_s - ask.at_s
    if isinstance(result, Reply):
        scene.served[f"{result.vendor}/{result.model}"] += 1
        scene.attempts += len(result.decision.attempts)
    else:
        scene.unserved.append(ask.number)


def summary(scene: Scene) -> Mapping[str, Any]:
    """Return what there is to keep of a replay."""
    return {
        "usd": scene.meter.pico / PICO_PER_USD,
        "unserved": len(scene.unserved),
        "attempts": scene.attempts,
        "mean_wait_s": scene.waited_s / len(scene.world.asks),
        "served": dict(scene.served.most_common()),
    }
