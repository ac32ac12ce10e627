"""The most that a request may cost: what is set aside before it is sent. Pure.

Bounds, not estimates: a tokenizer that works on bytes makes no more tokens than there are bytes,
and a vendor's own words around a prompt are few.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llmdispatcher.budget import Worst
from llmdispatcher.models.card import PICO_PER_MICRO, ModelCard, Price, Rates
from llmdispatcher.models.embedding import EmbedRequest, RerankRequest, Work
from llmdispatcher.models.message import Image

MESSAGE_TOKENS = 16
"""For what a chat template puts around a message; templates in use need 3 to 10."""

TOOLS_TOKENS = 1024
"""For what a vendor tells a model about tools in general, which Anthropic counts as some hundred
tokens of the prompt."""

VALUE_BYTES = 32
"""For a number or a word of JSON, with its punctuation."""


def worst_case(card: ModelCard, request: Work) -> Worst:
    """Return the most that a model may charge for a request, rounded up to a micro-dollar.

    The whole prompt at the dearest of the prices for reading it, and as many tokens as the request
    or the card allows for every choice. Unknown, with the reason and the way out, without a price,
    without a limit of the reply, or with images on a model of unknown context.
    """
    price = card.price
    if price is None:
        return Worst(
            None, f"the price of {card.name} is not known; tell it with Dispatcher(catalog=…)"
        )
    if price.is_free:
        return Worst(0)
    prompt = prompt_bound(card, request)
    if prompt is None:
        return Worst(
            None,
            f"how many tokens an image is to {card.name} is not known; tell its context_tokens"
            " with Dispatcher(catalog=…)",
        )
    output = output_bound(card, request)
    if output is None:
        return Worst(None, f"how much {card.name} may write is not known; state max_tokens")
    return Worst(_dearest(price, prompt, output))


def prompt_bound(card: ModelCard, request: Work) -> int | None:
    """Return a number of tokens that the prompt does not exceed; None if there is none to tell."""
    if isinstance(request, EmbedRequest | RerankRequest):
        parts = request.texts if isinstance(request, EmbedRequest) else request.documents
        return request.text_bytes + MESSAGE_TOKENS * len(parts)
    seen = Weight()
    seen.add(request.messages)
    seen.add((request.prompt, request.prefill, request.suffix))
    seen.add((request.tools, request.response_format.schema))
    bound = seen.size_bytes + MESSAGE_TOKENS * (1 + len(request.messages))
    bound += TOOLS_TOKENS if request.tools else 0
    if seen.images:
        return card.context_tokens
    return bound if card.context_tokens is None else min(bound, card.context_tokens)


def output_bound(card: ModelCard, request: Work) -> int | None:
    """Return how many tokens the reply may have, all choices together; None if nobody says."""
    if isinstance(request, EmbedRequest | RerankRequest):
        return 0
    most = request.max_tokens or card.max_output_tokens
    return None if most is None else most * request.n


MAX_VALUES = 200_000
"""So many values of JSON are looked at, which is more than any vendor takes."""

ENDLESS_BYTES = 2**40
"""For what has more of them, or is a part of itself: no prompt of it can be sent."""


class Weight:
    """Adds up the bytes of all text in values, and counts images apart."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self.images = 0

    def add(self, value: object) -> None:
        """Add a value with all that is in it. JSON may be deep, so this does not recurse."""
        left, seen = [value], 0
        while left:
            one = left.pop()
            seen += 1
            if seen > MAX_VALUES:
                self.size_bytes += ENDLESS_BYTES
                return
            if isinstance(one, str):
                self.size_bytes += len(one.encode(errors="surrogatepass"))
            elif isinstance(one, Image):
                self.images += 1
            elif isinstance(one, Mapping):
                left += [*one.keys(), *one.values()]
                self.size_bytes += VALUE_BYTES * len(one)
            elif fields := getattr(type(one), "__attrs_attrs__", ()):
                left += [getattr(one, field.name) for field in fields]
            elif isinstance(one, Iterable) and not isinstance(one, bytes):
                left += one
                self.size_bytes += VALUE_BYTES
            elif one is not None:
                self.size_bytes += VALUE_BYTES


def _dearest(price: Price, prompt_tokens: int, output_tokens: int) -> int:
    """Price a prompt as if all of it were read in the dearest way."""
    reached: list[Rates] = [price]
    reached += [tier for tier in price.tiers if prompt_tokens > tier.above_tokens]
    reading = [
        rate
        for each in reached
        for rate in (each.input_pico, each.cached_input_pico or 0, each.cache_write_pico or 0)
    ]
    writing = max(each.output_pico for each in reached)
    pico = prompt_tokens * max(reading) + output_tokens * writing
    return -(-pico // PICO_PER_MICRO) + price.request_microusd
