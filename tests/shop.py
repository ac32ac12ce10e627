"""A dispatcher over vendors that are as the enumerator's offers say, and have lived what they say.

States and history are made by living them: whoever is dead has failed, whoever writes much has
written much.
"""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
from enumerator import Asked, Offer

from llmdispatcher import (
    BreakerPolicy,
    Dispatcher,
    DispatcherError,
    FinishReason,
    Image,
    ModelCard,
    Price,
    RateLimited,
    Request,
    ResponseFormat,
    RetryPolicy,
    Routing,
    Scripted,
    ToolSpec,
    Unreachable,
    Usage,
    user,
)
from llmdispatcher.models.embedding import Work
from llmdispatcher.models.form import Shape
from llmdispatcher.models.message import Message, Role
from llmdispatcher.models.reply import Finish
from llmdispatcher.vendors.contract import Call, Report
from llmdispatcher.vendors.scripted import CUT, ScriptedEngine, Steps

FOR_EVER_S = 3600.0
TIMES = 40
"""How often a history is repeated: enough to outweigh what is thought of those without one."""

DEATHS = 3
"""As many failures as open a breaker."""

FAILED, LATER, HELD, BROKEN = "fail", "later", "hold", "break off"
"""First words of a request that a vendor of the shop obeys."""

SEEN_BYTES = 4_000
"""Of a prompt of a history: long enough to tell how long its tokens are."""

TURN_BYTES = 20_000
"""Of the beginning of a conversation that is kept."""


def price(offer: Offer) -> Price | None:
    """Return the price that an offer states."""
    if offer.input is None:
        return None
    return Price.per_million(
        offer.input,
        offer.output,
        cached_input=offer.cached,
        per_request=offer.per_request,
        above=[{"tokens": n, "input": i, "output": o} for n, i, o in offer.above],
    )


def card(offer: Offer) -> ModelCard:
    """Return what a vendor tells of an offer."""
    return ModelCard(
        vendor=offer.vendor,
        model=offer.model,
        local=offer.local,
        capabilities=offer.able,
        price=price(offer),
        context_tokens=offer.context,
        max_output_tokens=offer.most,
        quality=offer.quality,
        aliases=offer.aliases,
        last_resort=offer.last,
        named_only=offer.named_only,
    )


@attrs.frozen
class Shop:
    """A vendor with several models."""

    name: str
    offers: tuple[Offer, ...]

    def start(self, report: Report) -> ShopEngine:
        """Make the engine."""
        return ShopEngine(self, report)


class ShopEngine(ScriptedEngine):
    """Does as it is told by the request, and bills as the offers say."""

    def __init__(self, shop: Shop, report: Report) -> None:
        loads = any(offer.state == "loading" for offer in shop.offers)
        super().__init__(
            Scripted(self._reply, name=shop.name, load_s=FOR_EVER_S if loads else 0.0), report
        )
        self._stock = tuple(map(card, shop.offers))
        self._offers = {offer.model: offer for offer in shop.offers}
        self._offer = shop.offers[0]
        """Of the model that was asked last."""
        self.passed_s = 0.0
        """What its replies have taken, on the clock of the shop: nobody sleeps."""

    def cards(self) -> Sequence[ModelCard]:
        """Return all of them."""
        return self._stock

    def submit(self, work: Work, model: str) -> Call:
        """Begin to reply, as the model."""
        self._offer = self._offers[model]
        return super().submit(work, model)

    def _reply(self, request: Request) -> Steps:
        words = request.messages[0].text if request.messages else request.prompt or ""
        offer = self._offer
        if words.startswith(FAILED):
            return [Unreachable("down")]
        if words.startswith(LATER):
            return [RateLimited("later", retry_after_s=FOR_EVER_S)]
        if words.startswith(HELD):
            return [FOR_EVER_S]
        if words.startswith(BROKEN):
            return [*["w"] * int(offer.lost * 10**6), CUT]
        tokens = math.ceil(request.text_bytes / offer.token_bytes)
        cached = int(tokens * offer.warm) if len(request.messages) > 1 else 0
        written = offer.writes or 1
        usage = Usage(
            prompt_tokens=tokens,
            cached_tokens=cached,
            completion_tokens=min(written, request.max_tokens or written),
        )
        self.passed_s += float(offer.seconds)
        return ["{}", Finish(FinishReason.STOP, usage)]


@contextlib.contextmanager
def shop(asked: Asked, offers: Sequence[Offer]) -> Iterator[Dispatcher]:
    """Open a dispatcher over the offers, after everything that they have lived."""
    by_vendor: dict[str, list[Offer]] = defaultdict(list)
    for offer in offers:
        by_vendor[offer.vendor].append(offer)
    value = None if asked.hour_usd == "0" else asked.hour_usd
    routing = Routing(
        priorities={offer.name: offer.priority for offer in offers if offer.priority},
        value_of_time_usd=value,
    )
    with Dispatcher(
        retry=RetryPolicy(attempts=1),
        breaker=BreakerPolicy(failures=DEATHS, open_s=FOR_EVER_S, cap_s=FOR_EVER_S),
        routing=routing,
        *[Shop(name, tuple(several)) for name, several in by_vendor.items()],  # noqa: B026 - all
    ) as d:
        engines: dict[str, Any] = {each.name: d._desk._engines[each.name] for each in d.vendors()}
        d._desk._clock = d._desk.chooser._clock = lambda: sum(
            engine.passed_s for engine in engines.values()
        )
        for offer in offers:
            _live(d, offer)
            if offer.state == "busy":
                engines[offer.vendor].submit(Request(messages=HELD, model=offer.model), offer.model)
            elif offer.state == "loading":
                engines[offer.vendor].load(offer.model)
        yield d


def _live(d: Dispatcher, offer: Offer) -> None:
    """Have a model live what its offer says."""

    def say(words: Any) -> None:
        with contextlib.suppress(DispatcherError):
            d.send(words, vendor=offer.vendor, model=offer.model, allow_cloud=True)

    if offer.warm:
        for number in range(TIMES):
            say(talk(number, turns=1))
            say(talk(number, turns=2))
        say(talk(-1, turns=1))
    elif offer.served < 1:
        for _ in range(TIMES):
            say(BROKEN)
            say("x" * SEEN_BYTES)
    elif offer.writes is not None or offer.seconds:
        for _ in range(TIMES):
            say("x" * SEEN_BYTES)
    for _ in range(DEATHS if offer.state == "dead" else 0):
        say(FAILED)
    if offer.state == "cooling":
        say(LATER)


def talk(number: int, turns: int) -> list[Message]:
    """Return a conversation of one or two turns."""
    first = f"talk {number:6} " + "x" * (TURN_BYTES - 12)
    if turns == 1:
        return [user(first)]
    return [user(first), Message(Role.ASSISTANT, "{}"), user("go on")]


def request(asked: Asked, offers: Sequence[Offer]) -> Request:
    """Return what the caller sends."""
    needs = asked.needs
    text = "x" * asked.bytes
    given: dict[str, Any] = {
        "max_tokens": asked.max_tokens,
        "n": asked.n,
        "vendor": asked.vendor,
        "model": asked.model,
        "allow_cloud": asked.allow_cloud,
        "max_cost_usd": asked.max_cost_usd,
        "strategy": asked.strategy,
        "logprobs": 0 if "logprobs" in needs else None,
        "tools": [ToolSpec("f")] if "tools" in needs else [],
    }
    if "json" in needs:
        given["response_format"] = ResponseFormat(Shape.JSON)
    if "schema" in needs:
        given["response_format"] = ResponseFormat(Shape.SCHEMA, {"type": "object"})
    if "prefill" in needs:
        given["prefill"], text = text[-1:], text[1:]
    if "completion" in needs:
        return Request(prompt=text, **given)
    parts: list[Any] = [user(text)]
    if "vision" in needs:
        parts = [user([text, Image(data=b"x")])]
    if any(offer.warm for offer in offers):
        parts = talk(-1, turns=2)
    return Request(messages=parts, **given)
