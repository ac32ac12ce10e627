"""Situations of routing, as data: who is there, what is asked, and a name for what is to be seen.

Whom to ask first is not written here: ``enumerator.choice`` finds it. ``bench/choice.py`` puts the
same situations before a peer.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import attrs
from enumerator import Asked, Offer

CHAT = frozenset({"chat"})
EVERYTHING = frozenset(
    {"chat", "tools", "json", "schema", "grammar", "vision", "choices", "logprobs", "prefill"}
)


@attrs.frozen
class Situation:
    """One of them."""

    title: str
    asked: Asked
    offers: tuple[Offer, ...]


def paid(name: str, reading: object, writing: object, **facts: Any) -> Offer:
    """Return a model that costs so many dollars per million tokens."""
    return Offer(name=name, input=str(reading), output=str(writing), **facts)


def free(name: str, **facts: Any) -> Offer:
    """Return a free model on this machine."""
    return Offer(name=name, input="0", output="0", **{"local": True, **facts})


def unpriced(name: str, **facts: Any) -> Offer:
    """Return a model whose price is not known."""
    return Offer(name=name, **facts)


def to(*abilities: str) -> frozenset[str]:
    """Return what a model can do beyond chatting."""
    return CHAT | frozenset(abilities)


MINI, FULL = paid("openai/gpt-4o-mini", 0.15, 0.6), paid("openai/gpt-4o", 2.5, 10)
LUNA = paid("openai/gpt-6-luna", 0.1, 0.5, above=((272_000, "0.2", "0.75"),))
SMALL = free("local/small", context=8_192)
READER, WRITER = paid("reader/m", 0.1, 4), paid("writer/m", 1, 0.5)
STEPPED = paid("stepped/m", 0.1, 0.5, above=((100_000, "0.5", "2.5"),))
FLAT = paid("flat/m", 0.15, 0.6)
TWICE = paid("twice/m", 0.1, 0.1, above=((1_000, "0.2", "0.2"), (5_000, "2", "2")))
TIED = (paid("a/m", 1, 2), paid("b/m", 1, 2), paid("c/m", 1, 2))


def _tied(**facts: dict[str, Any]) -> tuple[Offer, ...]:
    """Return three of one price, with facts of some by vendor."""
    return tuple(attrs.evolve(each, **facts.get(each.vendor, {})) for each in TIED)


_DOLLARS = (
    ("a free local model beats a paid one", Asked(), (MINI, SMALL)),
    ("and one that is dearer still", Asked(bytes=9_000), (FULL, MINI, SMALL)),
    ("a free cloud beats a local model that has a price", Asked(),
     (paid("local/power", 0.1, 0.1, local=True), free("gift/m", local=False))),
    ("a local model at a price loses to a cheaper cloud", Asked(),
     (paid("local/power", 1, 1, local=True), MINI)),
    ("free tokens at a price per request lose to cheap ones", Asked(max_tokens=10),
     (free("toll/m", per_request="0.001"), MINI)),
    ("and win where the text is long", Asked(bytes=400_000),
     (MINI, free("toll/m", per_request="0.001", local=False))),
    ("the cheaper of two of one vendor, the dearer first", Asked(), (FULL, MINI)),
    ("the cheaper of two of one vendor, the cheaper first", Asked(), (MINI, FULL)),
    ("a long text and a short reply: reading decides", Asked(bytes=80_000, max_tokens=100),
     (WRITER, READER)),
    ("a short text: writing decides", Asked(bytes=40), (READER, WRITER)),
    ("twenty thousand tokens in and a hundred out", Asked(bytes=80_000, max_tokens=100),
     (paid("a/m", 1.0, 0.2), paid("b/m", 0.25, 1.25))),
    ("a reply of one token makes dear writing cheap", Asked(bytes=400, max_tokens=1),
     (WRITER, READER)),
    ("four choices are written four times", Asked(bytes=4_800, n=4, needs=to("choices")),
     (paid("a/m", 0.1, 1.2, able=EVERYTHING), paid("b/m", 0.6, 0.6, able=EVERYTHING))),
    ("of the same, one choice", Asked(bytes=4_800),
     (paid("a/m", 0.1, 1.2, able=EVERYTHING), paid("b/m", 0.6, 0.6, able=EVERYTHING))),
    ("beyond a threshold the cheaper gets dear", Asked(bytes=440_000), (STEPPED, FLAT)),
    ("exactly at the threshold it is not", Asked(bytes=400_000), (FLAT, STEPPED)),
    ("a token above it is", Asked(bytes=400_001), (STEPPED, FLAT)),
    ("the second of two thresholds", Asked(bytes=20_004, max_tokens=1), (TWICE, FLAT)),
    ("the first of two thresholds", Asked(bytes=20_000, max_tokens=1), (TWICE, FLAT)),
    ("below both", Asked(bytes=4_000), (FLAT, TWICE)),
    ("list prices of ten thousand tokens", Asked(bytes=40_000),
     (paid("groq/openai/gpt-oss-120b", 0.15, 0.6), LUNA, MINI, FULL)),
    ("a thousandth of a dollar per million decides", Asked(),
     (paid("a/m", "0.150001", "0.6"), paid("b/m", "0.15", "0.6"))),
)  # fmt: skip

_NAMES = (
    ("a name with a vendor's prefix is as good as another", Asked(),
     (paid("router/openai/gpt-4o", 2.5, 10), paid("router/openai/gpt-4o-mini", 0.15, 0.6))),
    ("a named model, at the cheapest of its vendors", Asked(model="openai/gpt-oss-120b"),
     (paid("together/openai/gpt-oss-120b", 0.2, 0.6), paid("groq/openai/gpt-oss-120b", 0.15, 0.6),
      paid("other/openai/gpt-oss-120b", 0.15, 0.9), SMALL)),
    ("a named vendor", Asked(vendor="openai"), (SMALL, FULL, MINI)),
    ("a named model of a named vendor", Asked(vendor="openai", model="gpt-4o"),
     (SMALL, MINI, FULL)),
    ("a model by another of its names", Asked(model="best"),
     (MINI, paid("openai/gpt-4o-2024", 2.5, 10, aliases=("best",)))),
    ("a name that nobody has", Asked(model="gpt-9"), (MINI, FULL)),
    ("who is only asked by name is not asked without", Asked(),
     (paid("a/m", 0.1, 0.1, named_only=True), MINI)),
    ("and is, by name", Asked(model="m"), (paid("a/m", 0.1, 0.1, named_only=True), MINI)),
    ("a named model that is dear beats a free one of another name", Asked(model="gpt-4o"),
     (SMALL, FULL)),
    ("the last resort is not asked where others can", Asked(), (free("e/m", last=True), FULL)),
    ("the last resort alone", Asked(), (free("e/m", last=True),)),
    ("the last resort where the others cannot", Asked(needs=to("json")),
     (free("e/m", last=True, able=EVERYTHING), FULL)),
    ("the last resort by name", Asked(vendor="e"), (free("e/m", last=True), FULL)),
)  # fmt: skip

_UNKNOWN = (
    ("a price that nobody knows loses to the dearest", Asked(),
     (unpriced("u/m"), paid("gold/m", 999, 999))),
    ("and serves where there is no other", Asked(), (unpriced("u/m"),)),
    ("two of them, as they were registered", Asked(), (unpriced("v/m"), unpriced("u/m"))),
    ("an unknown price and a free one", Asked(), (unpriced("u/m"), SMALL)),
    ("an unknown price is asked before who is down", Asked(),
     (paid("a/m", 1, 1, state="dead"), unpriced("u/m"))),
    ("an unknown price under a budget", Asked(max_cost_usd="0.10", max_tokens=100),
     (unpriced("u/m"), FULL)),
    ("an unknown local price, where nothing may leave", Asked(allow_cloud=False),
     (MINI, unpriced("here/m", local=True))),
)  # fmt: skip

_STATES = (
    ("the cheapest is dead", Asked(), (paid("a/m", 0.1, 0.1, state="dead"), FULL, MINI)),
    ("the cheapest wants to be left alone", Asked(),
     (paid("a/m", 0.1, 0.1, state="cooling"), FULL, MINI)),
    ("the free one is dead", Asked(), (free("local/small", state="dead"), FULL, MINI)),
    ("all but the dearest are down", Asked(),
     (free("local/small", state="dead"), attrs.evolve(MINI, state="cooling"), FULL)),
    ("one model of a vendor is dead, the other is not", Asked(),
     (paid("v/cheap", 0.1, 0.1, state="dead"), paid("v/dear", 1, 1), FULL)),
    ("the named model is dead at its cheapest vendor", Asked(model="m"),
     (paid("a/m", 0.1, 0.1, state="dead"), paid("b/m", 1, 1), paid("c/m", 2, 2))),
    ("a busy local model is free all the same", Asked(),
     (MINI, free("local/small", state="busy"))),
    ("so is one that is being loaded", Asked(), (MINI, free("local/small", state="loading"))),
    ("the text does not fit the free one", Asked(bytes=40_000), (SMALL, FULL, MINI)),
    ("text and reply do not fit it together", Asked(bytes=32_000, max_tokens=500), (SMALL, MINI)),
    ("they just do", Asked(bytes=32_000, max_tokens=192), (MINI, SMALL)),
    ("one token more does not", Asked(bytes=32_000, max_tokens=193), (MINI, SMALL)),
    ("a context that is not known is taken to be enough", Asked(bytes=4_000_000),
     (MINI, free("local/wide"))),
    ("the worst case of the cheapest is over the budget", Asked(bytes=400, max_cost_usd="0.002"),
     (paid("a/m", 0.1, 0.4, most=100_000), paid("b/m", 0.2, 0.8, most=1_000))),
    ("with a short reply it is not", Asked(bytes=400, max_cost_usd="0.002", max_tokens=500),
     (paid("b/m", 0.2, 0.8, most=1_000), paid("a/m", 0.1, 0.4, most=100_000))),
    ("a reply without bounds is over any budget", Asked(max_cost_usd="5"),
     (MINI, paid("b/m", 2, 8, most=1_000))),
    ("free is within any budget", Asked(max_cost_usd="0.000001"), (MINI, free("local/small"))),
)  # fmt: skip

_CAN = (
    ("tools", Asked(needs=to("tools")), (SMALL, MINI, attrs.evolve(FULL, able=EVERYTHING))),
    ("JSON", Asked(needs=to("json")), (SMALL, attrs.evolve(FULL, able=EVERYTHING), MINI)),
    ("a schema", Asked(needs=to("schema")),
     (paid("a/m", 0.1, 0.1, able=to("json")), attrs.evolve(FULL, able=EVERYTHING))),
    ("images", Asked(needs=to("vision")), (SMALL, attrs.evolve(FULL, able=EVERYTHING))),
    ("log-probabilities", Asked(needs=to("logprobs")),
     (SMALL, attrs.evolve(FULL, able=EVERYTHING), attrs.evolve(MINI, able=EVERYTHING))),
    ("a beginning of the reply", Asked(needs=to("prefill")),
     (MINI, attrs.evolve(FULL, able=EVERYTHING))),
    ("raw text", Asked(needs=frozenset({"completion"})),
     (MINI, paid("base/m", 5, 5, able=frozenset({"completion"})))),
    ("what nobody can", Asked(needs=to("vision")), (SMALL, MINI)),
    ("nothing may leave: the cloud is cheaper", Asked(allow_cloud=False),
     (MINI, paid("local/power", 3, 3, local=True))),
    ("nothing may leave, and nobody is here", Asked(allow_cloud=False), (MINI, FULL)),
    ("a form that nobody keeps to by itself is asked for in words", Asked(needs=to("json")),
     (FULL, MINI)),
    ("nothing may leave, and who is here cannot", Asked(allow_cloud=False, needs=to("logprobs")),
     (attrs.evolve(FULL, able=EVERYTHING), SMALL)),
    ("nothing may leave, and who is here is dead", Asked(allow_cloud=False),
     (free("local/a", state="dead"), paid("local/b", 3, 3, local=True), MINI)),
    ("nothing may leave, though a cloud is named", Asked(allow_cloud=False, vendor="openai"),
     (SMALL, MINI)),
)  # fmt: skip

_QUALITY = (
    ("a toy at half the price costs more for each good answer", Asked(),
     (paid("toy/m", 1, 1, quality=1), paid("best/m", 2, 2, quality=5))),
    ("at a fifth of it, less", Asked(),
     (paid("best/m", 5, 5, quality=5), paid("toy/m", 1, 1, quality=1))),
    ("a toy that is free stays free", Asked(), (MINI, free("local/toy", quality=1))),
    ("an unknown tier counts as the third: dearer than it", Asked(),
     (paid("who/m", 100, 100), paid("third/m", 99, 99, quality=3))),
    ("an unknown tier counts as the third: above the second", Asked(),
     (paid("second/m", 10, 10, quality=2), paid("who/m", 13, 13))),
    ("an unknown tier counts as the third: below the fourth", Asked(),
     (paid("who/m", 10, 10), paid("fourth/m", 11.4, 11.4, quality=4))),
)  # fmt: skip

_BOTH = (
    ("equal for each good answer, though not in price", Asked(),
     (paid("a/m", 0, 0, per_request="0.000175", quality=1),
      paid("b/m", 0, 0, per_request="0.0004", quality=3))),
    ("every answer that is needed may fail, the bad ones too", Asked(),
     (paid("toy/m", 1, 1, quality=1, served=Fraction(1, 2), lost=Fraction(500, 10**6), writes=20),
      paid("best/m", 32, 32, quality=5, writes=20))),
)  # fmt: skip

_TIES = (
    ("equals, as they were registered", Asked(), TIED),
    ("equals, the smaller priority first", Asked(), _tied(a={"priority": 2}, b={"priority": 1})),
    ("a priority below nothing", Asked(), _tied(c={"priority": -1})),
    ("a priority does not beat money", Asked(),
     (attrs.evolve(FULL, priority=-9), attrs.evolve(MINI, priority=9))),
    ("equals, the quicker first", Asked(),
     _tied(a={"seconds": Fraction(1, 2), "writes": 256},
           b={"seconds": Fraction(1, 100), "writes": 256},
           c={"seconds": Fraction(1, 2), "writes": 256, "priority": -1})),
    ("quickness does not beat money", Asked(),
     (attrs.evolve(MINI, seconds=Fraction(1, 5)), attrs.evolve(FULL, seconds=Fraction(1, 100)))),
    ("free ones, by priority", Asked(),
     (free("a/m"), free("b/m", priority=-1), free("c/m"))),
)  # fmt: skip

_PAST = (
    ("who writes much is dearer than his price", Asked(),
     (paid("wordy/m", 0.1, 0.5, writes=2_000), paid("brief/m", 0.2, 1, writes=100))),
    ("unless the reply is bounded", Asked(max_tokens=50),
     (paid("brief/m", 0.2, 1, writes=100), paid("wordy/m", 0.1, 0.5, writes=2_000))),
    ("whose tokens are small needs more of them", Asked(bytes=40_000, max_tokens=1),
     (paid("fine/m", 1, 1, writes=50, token_bytes=2),
      paid("coarse/m", 1.4, 1.4, writes=50, token_bytes=4))),
    ("whose failures are billed is dearer than his price", Asked(),
     (paid("flaky/m", 1, 1, served=Fraction(1, 2), lost=Fraction(500, 10**6), writes=20),
      paid("sure/m", 3, 3, writes=20))),
    ("failures that cost nothing cost nothing", Asked(),
     (paid("sure/m", 1.2, 1.2, writes=20),
      paid("flaky/m", 1, 1, served=Fraction(1, 2), writes=20))),
    ("a conversation stays where its beginning is kept", Asked(bytes=20_000, max_tokens=20),
     (paid("else/m", 0.8, 0.8, writes=20),
      paid("keeps/m", 1, 1, cached="0.1", warm=Fraction(9, 10), writes=20))),
    ("but not at any price", Asked(bytes=20_000, max_tokens=20),
     (paid("keeps/m", 1, 1, cached="0.9", warm=Fraction(9, 10), writes=20),
      paid("else/m", 0.5, 0.5, writes=20))),
)  # fmt: skip

_STRATEGIES = (
    ("only local", Asked(strategy="local_only", only="local"),
     (MINI, paid("local/power", 3, 3, local=True))),
    ("only local, and nobody is", Asked(strategy="local_only", only="local"), (MINI,)),
    ("only clouds", Asked(strategy="cloud_only", only="cloud"), (SMALL, FULL, MINI)),
    ("local first", Asked(strategy="local_first", ranks=("local",)),
     (MINI, paid("local/power", 3, 3, local=True), paid("local/spare", 4, 4, local=True))),
    ("clouds first", Asked(strategy="cloud_first", ranks=("cloud",)), (SMALL, FULL, MINI)),
    ("saving money, local first", Asked(strategy="cost_saving", ranks=("local",)),
     (MINI, paid("local/power", 3, 3, local=True))),
    ("by priority", Asked(strategy="priority", ranks=("priority",)),
     (MINI, attrs.evolve(FULL, priority=-1), SMALL)),
    ("by priority, equals by cost", Asked(strategy="priority", ranks=("priority",)),
     (FULL, MINI, paid("z/m", 0.01, 0.01, priority=1))),
    ("by quality", Asked(strategy="quality", ranks=("quality",)),
     (free("local/toy", quality=1), paid("best/m", 5, 5, quality=5), FULL)),
    ("by quality, equals by cost", Asked(strategy="quality", ranks=("quality",)),
     (paid("a/m", 9, 9, quality=5), paid("b/m", 8, 8, quality=5), MINI)),
    ("where an hour costs much, the quick one", Asked(hour_usd="100"),
     (free("slow/m", seconds=Fraction(3, 10), writes=20),
      paid("quick/m", 1, 1, local=True, seconds=Fraction(1, 100), writes=20))),
    ("where it costs little, the free one", Asked(hour_usd="0.01"),
     (paid("quick/m", 1, 1, local=True, seconds=Fraction(1, 100), writes=20),
      free("slow/m", seconds=Fraction(3, 10), writes=20))),
)  # fmt: skip

SITUATIONS = tuple(
    Situation(title, asked, offers)
    for title, asked, offers in (
        *_DOLLARS,
        *_NAMES,
        *_UNKNOWN,
        *_STATES,
        *_CAN,
        *_QUALITY,
        *_BOTH,
        *_TIES,
        *_PAST,
        *_STRATEGIES,
    )
)
