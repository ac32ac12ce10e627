"""A world to choose in: vendors with real prices, how they fail, and 10,000 requests from a seed.

Whoever is judged in it (``choice.py``) sees what a program sees: prices, sizes, replies, errors and
the usage that was billed. How long replies get, who fails when and what a cache holds is known here
alone, and is the same for all who are judged: every draw is of the seed and of who asks whom for
what for the how-manieth time, and never of what was drawn before.

Seeds, rates and cards were committed before the choice was tuned. Tuning looks at ``TUNING`` alone;
``UNSEEN`` is what is reported.

The models are of one tier of quality: whoever registers them says that they are as good as one
another, and money alone decides. Prices are list prices of 2026-11-20 (``models/catalog.yaml``).
The account and the local machine have other users, who are many: they use up the requests of a
minute and the places of the local server, and one request more or less changes nothing of that.
Nothing is written to a cache at a price of its own. Standard library only: a peer is judged in a
Python of its own.
"""

from __future__ import annotations

import bisect
import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

REQUESTS = 10_000
SPAN_S = 6 * 3600.0
"""The conversations begin within so long: a request every 2.2 s on average."""

TUNING = (1, 2, 3)
UNSEEN = (20261201, 20261202, 20261203, 20261204, 20261205)

CACHE_S = 300.0
"""How long a cache keeps a prefix after it was used."""
CACHE_LEAST = 1024
"""Tokens of the shortest prefix that is kept."""
IMAGE_TOKENS = 800
LONG_SHARE, LONG_BYTES = 0.02, (40_000, 700_000)
"""The part of the conversations that begin with a document, and the bounds of its size."""
SINGLE = 0.55
"""The part of the conversations that have one turn."""
BOUNDED = 0.12
"""The part of the requests that state ``max_tokens``."""
LENGTH_NOISE = 0.15
"""Standard deviation of the logarithm of how long one model's reply is beside what is usual."""


@dataclass(frozen=True)
class Rates:
    """Integer pico-dollars per token."""

    input: int
    cached: int
    output: int


def _rates(input_usd: str, cached_usd: str, output_usd: str) -> Rates:
    """Take dollars per million tokens."""
    return Rates(*(int(Decimal(each) * 10**6) for each in (input_usd, cached_usd, output_usd)))


@dataclass(frozen=True)
class Model:
    """A model at a vendor: what its card says, and what nobody is told."""

    vendor: str
    model: str
    rates: Rates
    context: int
    able: frozenset[str]
    """Of tools, json, vision."""
    verbosity: float
    """How much it writes, beside the usual, thoughts included."""
    token_bytes: float
    """Bytes of text in one of its tokens."""
    cache_share: float
    """The part of a known prefix that is billed as cached."""
    pace: float
    """Tokens per second; the first takes half a second."""
    above: tuple[int, Rates] | None = None
    """What a prompt of more tokens costs."""

    @property
    def name(self) -> str:
        """``vendor/model``."""
        return f"{self.vendor}/{self.model}"

    def pico(self, prompt: int, cached: int, completion: int) -> int:
        """Return what is billed, in pico-dollars."""
        rates = self.above[1] if self.above and prompt > self.above[0] else self.rates
        read = (prompt - cached) * rates.input + cached * rates.cached
        return read + completion * rates.output


ALL = frozenset({"tools", "json", "vision"})
FREE = _rates("0", "0", "0")

MODELS = (
    Model("local", "small-4b", FREE, 8_192, frozenset({"json"}), 1.1, 3.6, 0.0, 40),
    Model(
        "openai", "gpt-6-luna", _rates("0.1", "0.01", "0.5"), 400_000, ALL,
        1.6, 4.3, 0.95, 120, above=(272_000, _rates("0.2", "0.02", "0.75")),
    ),
    Model(
        "openai", "gpt-5.4-nano", _rates("0.2", "0.02", "1.25"), 400_000, ALL,
        0.9, 4.3, 0.95, 150,
    ),
    Model(
        "openai", "gpt-4.1-mini", _rates("0.4", "0.1", "1.6"), 1_000_000, ALL,
        0.8, 4.3, 0.95, 90,
    ),
    Model(
        "anthropic", "claude-haiku-5-5", _rates("0.1", "0.01", "0.5"), 200_000,
        frozenset({"tools", "vision"}),
        1.35, 3.5, 0.9, 130, above=(100_000, _rates("0.5", "0.05", "2.5")),
    ),
    Model(
        "anthropic", "claude-haiku-4-5", _rates("1", "0.1", "5"), 200_000,
        frozenset({"tools", "vision"}),
        1.0, 3.5, 0.9, 110,
    ),
    Model(
        "gemini", "gemini-3.1-flash-lite", _rates("0.25", "0.025", "1.5"), 1_000_000, ALL,
        0.85, 4.1, 0.75, 200,
    ),
    Model(
        "deepseek", "deepseek-v4-flash", _rates("0.3", "0.006", "1.2"), 1_000_000,
        frozenset({"tools", "json"}),
        1.2, 4.0, 0.98, 60,
    ),
    Model(
        "mistral", "mistral-small-latest", _rates("0.15", "0.015", "0.6"), 262_144, ALL,
        0.75, 3.8, 0.5, 100,
    ),
    Model(
        "groq", "openai/gpt-oss-120b", _rates("0.15", "0.075", "0.6"), 131_072,
        frozenset({"tools", "json"}),
        1.0, 4.2, 0.5, 400,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Failing:
    """How a vendor fails."""

    alone: float
    """Chance that a request fails for itself, whatever the others do."""
    costly: float
    """The part of those that broke off in the middle of a reply, which is billed."""
    outage_every_s: float
    outage_s: float
    """Of outages, on average, between two and how long."""
    used_up: float
    """The part of the minutes whose limit of requests is used up before they end."""
    busy_every_s: float = math.inf
    busy_s: float = 0.0
    """The same of times when all places of a local server are taken."""


FAILING = {
    "local": Failing(0.010, 0.0, 5 * 3600, 600, 0.0, busy_every_s=65, busy_s=25),
    "openai": Failing(0.004, 0.3, 4 * 3600, 360, 0.02),
    "anthropic": Failing(0.010, 0.3, 2 * 3600, 480, 0.05),
    "gemini": Failing(0.008, 0.3, 3 * 3600, 420, 0.03),
    "deepseek": Failing(0.030, 0.4, 1.5 * 3600, 900, 0.04),
    "mistral": Failing(0.012, 0.3, 2.5 * 3600, 540, 0.10),
    "groq": Failing(0.006, 0.2, 3 * 3600, 300, 0.25),
}


@dataclass(frozen=True)
class Ask:
    """A request, when it comes, and what only the world knows of it."""

    number: int
    at_s: float
    talk: int
    """Which conversation it is of."""
    sizes: tuple[int, ...]
    """Bytes of each message, the user's and the model's in turns; the last is the user's."""
    need: str
    """"tools", "json", "vision", or nothing beyond text."""
    max_tokens: int | None
    usual: float
    """Tokens of a usual model's reply."""

    @property
    def prompt_bytes(self) -> int:
        """Of all messages."""
        return sum(self.sizes)


@dataclass(frozen=True)
class Trouble:
    """Why a request is not served: what the vendor says, and what it bills."""

    kind: str
    """"unreachable", "overloaded", "limited", or "cut"."""
    retry_after_s: float | None = None
    share: float = 0.0
    """The part of the reply that was made, and billed with the whole prompt."""


class World:
    """Everything that happens, from a seed."""

    def __init__(self, seed: int, requests: int = REQUESTS) -> None:
        self.seed = seed
        self.asks = _asks(_drawing("asks", seed), requests)
        self._outages = {
            vendor: _spells(_drawing("outages", vendor, seed), f.outage_every_s, f.outage_s)
            for vendor, f in FAILING.items()
        }
        self._busy = {
            vendor: _spells(_drawing("busy", vendor, seed), f.busy_every_s, f.busy_s)
            for vendor, f in FAILING.items()
        }

    def prompt_tokens(self, ask: Ask, model: Model) -> int:
        """Return how many tokens a model reads in a request."""
        image = IMAGE_TOKENS if ask.need == "vision" else 0
        return math.ceil(ask.prompt_bytes / model.token_bytes) + image

    def completion_tokens(self, ask: Ask, model: Model) -> int:
        """Return how many tokens a model's reply has."""
        noise = _drawing("length", self.seed, ask.number, model.name)
        drawn = ask.usual * model.verbosity * math.exp(noise.gauss(0, LENGTH_NOISE))
        room = model.context - self.prompt_tokens(ask, model)
        return max(1, min(round(drawn), ask.max_tokens or room, room))

    def expected_completion(self, ask: Ask, model: Model) -> float:
        """Return how many it has on average: what the best of guesses could know."""
        mean = ask.usual * model.verbosity * math.exp(LENGTH_NOISE**2 / 2)
        return max(1.0, min(mean, ask.max_tokens or mean))

    def can(self, ask: Ask, model: Model) -> bool:
        """Whether a model is able to do a request, and its prompt fits."""
        fits = self.prompt_tokens(ask, model) + (ask.max_tokens or 1) <= model.context
        return fits and (not ask.need or ask.need in model.able)

    def standing(self, vendor: str, now_s: float) -> Trouble | None:
        """Return why a vendor serves nobody now; None where it does."""
        if (end_s := _within(self._outages[vendor], now_s)) is not None:
            return Trouble(self._kind("outage", vendor, end_s))
        if _within(self._busy[vendor], now_s) is not None:
            return Trouble("overloaded")
        minute = int(now_s // 60)
        if self._draw("minute", vendor, minute) < FAILING[vendor].used_up:
            since_s = 60 * self._draw("second", vendor, minute)
            if now_s - 60 * minute >= since_s:
                return Trouble("limited", retry_after_s=60 * (minute + 1) - now_s)
        return None

    def lapse(self, ask: Ask, model: Model, again: int) -> Trouble | None:
        """Return how a request fails for itself, the ``again``-th time that it is asked there."""
        failing = FAILING[model.vendor]
        key = (ask.number, model.name, again)
        if self._draw("lapse", *key) >= failing.alone:
            return None
        if self._draw("costly", *key) < failing.costly:
            return Trouble("cut", share=self._draw("cut", *key))
        return Trouble(self._kind("kind", *key))

    def _kind(self, *key: object) -> str:
        """Return what a vendor that fails without a bill says, one as often as the other."""
        return ("unreachable", "overloaded")[int(2 * self._draw(*key))]

    def _draw(self, *key: object) -> float:
        """Return a number in [0, 1) that belongs to this seed and key."""
        digest = hashlib.blake2b(repr((self.seed, key)).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64


class Meter:
    """What the vendors bill one customer, with their caches."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._warm: dict[tuple[int, str], tuple[float, int]] = {}
        """By conversation and model: when it was last read there, and the tokens of its prompt."""
        self._tries: dict[tuple[int, str], int] = {}
        self.pico = 0

    def ask(self, ask: Ask, model: Model, now_s: float) -> tuple[Trouble | None, Usage]:
        """Have a model serve a request, and bill it."""
        world = self._world
        key = ask.number, model.name
        again = self._tries[key] = self._tries.get(key, -1) + 1
        trouble = world.standing(model.vendor, now_s) or world.lapse(ask, model, again)
        if trouble is not None and trouble.kind != "cut":
            return trouble, Usage(0, 0, 0)
        prompt, whole = world.prompt_tokens(ask, model), world.completion_tokens(ask, model)
        cached = self.cached(ask, model, now_s)
        completion = whole if trouble is None else int(whole * trouble.share)
        self.pico += model.pico(prompt, cached, completion)
        self._warm[ask.talk, model.name] = now_s, prompt
        return trouble, Usage(prompt, cached, completion)

    def cached(self, ask: Ask, model: Model, now_s: float) -> int:
        """Return how many tokens of a prompt would be billed as cached now."""
        at_s, tokens = self._warm.get((ask.talk, model.name), (-math.inf, 0))
        return cached_tokens(model, tokens, now_s - at_s)


@dataclass(frozen=True)
class Usage:
    """What is billed; ``cached`` is a part of ``prompt``."""

    prompt: int
    cached: int
    completion: int


def cached_tokens(model: Model, prefix: int, age_s: float) -> int:
    """Return how much of a prefix that was read so long ago is billed as cached."""
    if age_s > CACHE_S or prefix < CACHE_LEAST:
        return 0
    return int(prefix * model.cache_share)


def _drawing(*key: object) -> random.Random:
    return random.Random(repr(key))  # noqa: S311 - to be drawn again, and nobody gains by guessing


def _spells(draw: random.Random, every_s: float, length_s: float) -> list[tuple[float, float]]:
    """Draw beginnings and ends, in order, well beyond the last request."""
    spells: list[tuple[float, float]] = []
    if not length_s:
        return spells
    now_s = draw.expovariate(1 / every_s)
    while now_s < 2 * SPAN_S:
        end_s = now_s + draw.expovariate(1 / length_s)
        spells.append((now_s, end_s))
        now_s = end_s + draw.expovariate(1 / every_s)
    return spells


def _within(spells: Sequence[tuple[float, float]], now_s: float) -> float | None:
    """Return when the spell ends that lasts now."""
    place = bisect.bisect_right(spells, (now_s, math.inf)) - 1
    if place >= 0 and now_s < spells[place][1]:
        return spells[place][1]
    return None


def _asks(draw: random.Random, requests: int) -> tuple[Ask, ...]:
    """Draw conversations until there are enough turns."""
    asks: list[Ask] = []
    talk, span_s = 0, SPAN_S * requests / REQUESTS
    while len(asks) < requests:
        asks += _talk(draw, talk, draw.uniform(0, span_s))
        talk += 1
    asks.sort(key=lambda ask: (ask.at_s, ask.talk))
    numbers = range(requests)
    return tuple(
        Ask(number, a.at_s, a.talk, a.sizes, a.need, a.max_tokens, a.usual)
        for number, a in zip(numbers, asks[:requests], strict=True)
    )


def _talk(draw: random.Random, talk: int, at_s: float) -> list[Ask]:
    """Draw a conversation: a first text, which is long now and then, and what follows."""
    need = draw.choices(("", "tools", "json", "vision"), (68, 14, 12, 6))[0]
    first = int(min(600_000, max(20, draw.lognormvariate(math.log(1_600), 1.3))))
    if draw.random() < LONG_SHARE:
        first = int(math.exp(draw.uniform(*map(math.log, LONG_BYTES))))
    turns = 1 if draw.random() < SINGLE else draw.randint(2, 8)
    usual = draw.lognormvariate(math.log(170), 0.8)
    sizes: tuple[int, ...] = (first,)
    asks = []
    for _ in range(turns):
        length = min(8_000.0, max(1.0, usual * draw.lognormvariate(0, 0.4)))
        most = draw.choice((64, 256, 1024, 4096)) if draw.random() < BOUNDED else None
        asks.append(Ask(0, at_s, talk, sizes, need, most, length))
        further = int(max(5, draw.lognormvariate(math.log(200), 1)))
        sizes = (*sizes, int(4 * min(length, most or length)) + 1, further)
        at_s += 15 + draw.expovariate(1 / 40)
    return asks
