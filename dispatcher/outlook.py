"""What it would cost to have a request served, model by model: the arithmetic of choosing. Pure.

For each model that can serve a request:

    prompt   its tokens: bytes of text by the bytes that a token of this model has had
    warm     those of them that it has been shown before, as far as that has been billed for less
    output   tokens of a reply: the mean of this model's, drawn to that of all, at most max_tokens
    cost     (prompt - warm) x input + warm x cached input + output x n x output + the request's
             own price, at the tier that such a prompt reaches; with a value of time, the seconds
             until the reply is there as well
    good     the chance of a good answer: the prior of its quality tier, moved by verdicts
    served   the chance that it serves at all, from what became of the last attempts
    lost     what an attempt that is not served costs, in money and in time

    index = (cost + lost x (1 - served) / served) / good

Asked in the order of this index, one after the other until one serves, they cost least. For two
neighbours i before j cost less than j before i exactly where e_i s_j < e_j s_i, with s the chance
to be served and e = s cost + (1 - s) lost what asking costs; dividing by s_i s_j leaves
e / s = cost + lost (1 - s) / s. (The exchange argument for sequential testing.) Of the answers that
are needed until one is good, 1 / good, each costs as much, failures included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import NamedTuple

from llmdispatcher.history import Record
from llmdispatcher.models.card import PICO_PER_MICRO, Price
from llmdispatcher.models.embedding import Work
from llmdispatcher.models.message import Image
from llmdispatcher.models.request import Request
from llmdispatcher.models.task import Complexity
from llmdispatcher.shelf import Fit, Shelf
from llmdispatcher.warmth import Warm
from llmdispatcher.worst import Weight

IMAGE_TOKENS = 1000
"""A stated estimate for a picture: vendors count some hundred to some thousand tokens."""


class Size(NamedTuple):
    """How much a request is, whoever serves it."""

    bytes: int
    images: int
    most: int
    """Tokens of the reply at most, for each choice; 0 for a request that has none."""
    least: int
    """Tokens that have to be free for the reply."""
    choices: int


class Estimate(NamedTuple):
    """What is expected of one model. Money in pico-dollars, None where the price is not known."""

    at: int
    """Its place on the shelf."""
    expected: float | None
    """The cost of a good answer: the index of the module's text."""
    cost: float | None
    prompt: int
    warm: int
    output: int
    good: float
    served: float
    lost: float
    seconds: float | None
    """Expected until the reply is there; None where nobody asked, or nothing is known."""


NO_LIMIT = 2**62


def size(request: Work) -> Size:
    """Measure a request."""
    if not isinstance(request, Request):
        return Size(request.text_bytes, 0, 0, 0, 1)
    weight = images = 0
    for message in request.messages:
        for part in message.content:
            if isinstance(part, Image):
                images += 1
            else:
                weight += _bytes(part.text)
    for text in (request.prompt, request.prefill, request.suffix):
        if text:
            weight += _bytes(text)
    if request.tools or request.response_format.schema:
        more = Weight()
        more.add((request.tools, request.response_format.schema))
        weight += more.size_bytes
    most = request.max_tokens
    return Size(weight, images, NO_LIMIT if most is None else most, most or 1, request.n)


def _bytes(text: str) -> int:
    """Return how many bytes a text is in UTF-8; of plain ASCII Python knows without looking."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


Now = tuple[Warm, Mapping[str, int], Complexity, float]


Bare = tuple[int, float | None, float | None, int, int, int, float, float, float, float | None]
"""The fields of an ``Estimate``: making one of names takes as long as all of its arithmetic, and
most are never read."""


def estimates(shelf: Shelf, fit: Fit, sized: Size, now: Now) -> list[Bare]:
    """Return what is expected of each of the models that can serve.

    ``now`` is who has been shown how much of the conversation, who has counted its tokens, how hard
    the request is, and the time in seconds.
    """
    warmth, counts, complexity, now_s = now
    weight_bytes, images, most, _, choices = sized
    history, level = shelf.history, complexity - 1
    usual = int(history.output / history.replies + 0.5)
    more = IMAGE_TOKENS * images
    counted = _beside(shelf, fit.able, weight_bytes, counts) if counts else counts
    # Priors are hundredths: so many times 100 they are whole, and equal costs come out equal.
    made: list[Bare] = []
    for at, record, rates, plain_up_to in fit.rows:
        prompt = more + ceil(weight_bytes * record.per_byte)
        if counted:
            prompt = counted[shelf.names[at]]
        output = record.typical or usual
        if output > most:  # noqa: PLR1730 - ``min`` takes as long as the rest of the line above
            output = most
        warm = _warm(record, warmth.get(shelf.names[at], 0), prompt) if warmth else 0
        good = record.good[level]
        served = record.available(now_s) if record.failed else 1.0
        if rates is None:
            made.append((at, None, None, prompt, warm, output, good, served, 0.0, None))
            continue
        if prompt > plain_up_to:
            cost = _tiered(shelf.targets[at].card.price, prompt, warm, output * choices)
        else:
            read, again, write, request = rates
            cost = (prompt - warm) * read + warm * again + output * choices * write + request
        index, lost = 100 * cost / (100 * good), 0.0
        if served < 1:
            lost = record.lost_each()[0]
            index = 100 * (cost + lost * (1 - served) / served) / (100 * good)
        made.append((at, index, cost, prompt, warm, output, good, served, lost, None))
    return made


def _beside(
    shelf: Shelf, able: Sequence[int], weight_bytes: int, counts: Mapping[str, int]
) -> Mapping[str, int]:
    """Return the tokens of a prompt for everybody, where some have counted them.

    A count has what a template adds, and an estimate has not: whoever cannot count now, since it is
    not loaded, would look cheaper, be loaded, and be able to. So estimates are held to counts: by
    their ratio for those who counted, and as their mean for who has never told any usage.
    """
    names, records = shelf.names, shelf.records
    told = [(at, counts[names[at]]) for at in able if names[at] in counts]
    if not told:
        return {}
    total = sum(count for _, count in told)
    guessed = sum(ceil(weight_bytes * records[at].per_byte) for at, _ in told)
    made = {}
    for at in able:
        record = records[at]
        if record.has_told and guessed:
            beside = round(ceil(weight_bytes * record.per_byte) * total / guessed)
        else:
            beside = round(total / len(told))
        made[names[at]] = counts.get(names[at], beside)
    return made


def timed(
    estimate: Estimate, record: Record, wait_s: float, pico_per_s: float, now_s: float
) -> Estimate:
    """Price the time that a reply is expected to take, and that failures took."""
    seconds = wait_s + (record.latency_s or 0.0)
    if estimate.cost is None:
        return estimate._replace(seconds=seconds)
    cost = estimate.cost + seconds * pico_per_s
    lost, served = 0.0, 1.0
    if record.failed:
        lost_pico, lost_s = record.lost_each()
        lost = lost_pico + lost_s * pico_per_s
        served = record.available(now_s)
    index = 100 * (cost + lost * (1 - served) / served) / (100 * estimate.good)
    return estimate._replace(expected=index, cost=cost, served=served, lost=lost, seconds=seconds)


def _warm(record: Record, shown: int, prompt: int) -> int:
    """Return how many tokens of a prompt will be billed as cached."""
    if not shown or not record.warm:
        return 0
    return int(min(shown, prompt) * record.cached / record.warm)


def _tiered(price: Price | None, prompt: int, warm: int, output: int) -> int:
    assert price is not None  # noqa: S101 - only such are tiered
    rates = price.rates(prompt)  # and not by a ``Usage``, which takes ten times as long to make
    read, again = rates.input_pico, rates.cached_input_pico
    cost = (prompt - warm) * read + warm * (read if again is None else again)
    return cost + output * rates.output_pico + price.request_microusd * PICO_PER_MICRO


def words(estimate: Estimate, choices: int) -> str:
    """Tell the arithmetic of an estimate whose price is known."""
    cost = estimate.cost or 0
    warm = f" ({estimate.warm} of them cached)" if estimate.warm else ""
    kind = f"{microusd(cost)} µ$" if cost else "free"
    told = f"~{estimate.prompt} tokens in{warm} + {estimate.output * choices} out = {kind}"
    if estimate.seconds is not None:
        told += f", {estimate.seconds:.2f} s of time included"
    if not estimate.expected:
        return told
    if estimate.lost and estimate.served < 1:
        share = (1 - estimate.served) / estimate.served
        told += f" + {share:.2f} x {microusd(estimate.lost)} µ$ lost where it fails"
    told += f"; / {estimate.good:.2f} good"
    return f"{told} = {microusd(estimate.expected)} µ$"


def microusd(pico: float) -> int:
    """Round up to whole micro-dollars."""
    return -int(-pico // PICO_PER_MICRO)
