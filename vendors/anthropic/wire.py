"""The dialect of Anthropic's Messages API, as a ``Wire``.

It is spoken by Anthropic, by hosts of its models, and by servers of other models (llama-server,
Ollama, LM Studio). What a model of Anthropic's takes is told by its name; see ``known``. There are
no vectors and no scores in this dialect, no raw prompts and one choice a reply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import attrs

from llmdispatcher.models import registry
from llmdispatcher.models.card import FREE, Capability, ModelCard
from llmdispatcher.models.embedding import Work
from llmdispatcher.models.errors import BadReply, DispatcherError, Unsupported
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.anthropic import body
from llmdispatcher.vendors.anthropic.known import family
from llmdispatcher.vendors.anthropic.stream import MessageReplies
from llmdispatcher.vendors.wire import faults
from llmdispatcher.vendors.wire.exchange import Ask, Exchange, Head, Health, Listed, Site
from llmdispatcher.vendors.wire.reading import MAX_COUNT, fields, items, known, shown

VERSION = "2026-10-21"
"""Of the API, from its SDK 2. The one before, 2023-06-01, lets older models take sampling."""

PAGE_MODELS = 1000
"""Models on one page of the list: the most that the vendor gives."""

_MESSAGES, _COUNT, _MODELS = "/v1/messages", "/v1/messages/count_tokens", "/v1/models"


class AnthropicWire:
    """Anthropic's Messages API at one site; ``version`` is the API's."""

    def __init__(self, site: Site, *, version: str = VERSION) -> None:
        self._site = site
        self._version = version
        self._headers = {"anthropic-version": version}

    def exchanges(self, work: Work, card: ModelCard) -> Sequence[Exchange]:
        """Return the one ask for a reply. Raises a RequestError for what cannot be asked for."""
        if not isinstance(work, Request):
            raise Unsupported(
                "embed",
                "this vendor makes neither vectors nor scores: register a model that does",
                vendor=card.vendor,
                model=card.model,
            )
        sent = body.generating(work, self._plan(card))
        ask = self._ask(_MESSAGES, sent, streams=self._site.streaming)
        return (Exchange(ask, MessageReplies()),)

    def fault(self, head: Head, body: bytes) -> DispatcherError:
        """Return the error that an answer with a status of 300 or more stands for."""
        return faults.of_answer(head, body)

    def card(self, model: str) -> ModelCard:
        """Return what is known of a model by its name alone."""
        told = family(model, local=self._site.local)
        by_name = ModelCard(
            vendor=self._site.vendor,
            model=model,
            local=self._site.local,
            capabilities=told.capabilities,
            price=FREE if self._site.local else None,
            context_tokens=told.context_tokens,
            max_output_tokens=told.max_output_tokens,
        )
        return registry.complete(by_name, self._site.registry)

    def listing(self) -> Ask | None:
        """Return what asks for the first page of models."""
        return self._ask(f"{_MODELS}?limit={PAGE_MODELS}")

    def listed(self, message: Any) -> Listed:  # noqa: ANN401 - a stranger's JSON
        """Read a page of models; those that are retired are left out. Raises BadReply."""
        if not isinstance(message, dict) or not isinstance(message.get("data"), list):
            raise BadReply(f"the vendor sent what is no list of models: {shown(message)}")
        cards = [self._listed(fields(row)) for row in items(message["data"])]
        last, more = message.get("last_id"), None
        if message.get("has_more") is True and isinstance(last, str) and last and cards:
            after = quote(last, safe="", errors="replace")
            more = self._ask(f"{_MODELS}?limit={PAGE_MODELS}&after_id={after}")
        return Listed(tuple(card for card in cards if card is not None), more)

    def probe(self) -> Ask:
        """Return the cheapest question: the first row of the list of models."""
        return self._ask(f"{_MODELS}?limit=1")

    def probed(self, head: Head, body: bytes) -> Health:
        """Read its answer. A local server that answers 503 reads its model."""
        if HTTPStatus.OK <= head.status < HTTPStatus.MULTIPLE_CHOICES:
            return Health(is_ready=True)
        is_loading = self._site.local and head.status == HTTPStatus.SERVICE_UNAVAILABLE
        return Health(is_ready=False, is_loading=is_loading, detail=str(self.fault(head, body)))

    def loading(self, model: str) -> Ask | None:  # noqa: ARG002 - the seam's
        """Return None: the dialect has no word for it."""
        return None

    def holding(self) -> Ask | None:
        """Nobody tells."""
        return None

    def held(self, message: Any) -> tuple[str, ...]:  # noqa: ANN401 - a stranger's JSON
        """See ``holding``."""
        raise BadReply(f"nobody asked which models are loaded: {shown(message)}")

    def counting(self, request: Request, card: ModelCard) -> Ask | None:
        """Return what asks for the size of a conversation; None for a raw prompt."""
        if request.prompt is not None:
            return None
        return self._ask(_COUNT, body.counting(request, self._plan(card)))

    def counted(self, message: Any) -> int:  # noqa: ANN401 - a stranger's JSON
        """Read its answer. Raises BadReply."""
        count = fields(message).get("input_tokens")
        if type(count) is not int or not 0 <= count <= MAX_COUNT:
            raise BadReply(f"the vendor sent what is no number of tokens: {shown(message)}")
        return count

    def _plan(self, card: ModelCard) -> body.Plan:
        told = family(card.model, local=self._site.local)
        return body.Plan(card, told, self._site, self._version)

    def _ask(
        self, path: str, sent: Mapping[str, Any] | None = None, *, streams: bool = False
    ) -> Ask:
        return Ask(path=path, body=sent, headers=self._headers, streams=streams)

    def _listed(self, row: Mapping[str, Any]) -> ModelCard | None:
        """Return the card of a row, with what the vendor tells of the model; None for no model."""
        name = row.get("id")
        if not isinstance(name, str) or not name.strip() or row.get("lifecycle") == "retired":
            return None
        card = self.card(name.encode(errors="replace").decode())
        told = fields(row.get("capabilities"))
        can = {
            capability: fields(told.get(field)).get("supported")
            for capability, field in _TOLD.items()
        }
        return attrs.evolve(
            card,
            capabilities=(card.capabilities | {c for c, yes in can.items() if yes is True})
            - {c for c, yes in can.items() if yes is False},
            context_tokens=known(row.get("max_input_tokens"))
            or known(fields(row.get("meta")).get("n_ctx"))  # llama-server's
            or card.context_tokens,
            max_output_tokens=known(row.get("max_tokens")) or card.max_output_tokens,
        )


_TOLD = {
    Capability.VISION: "image_input",
    Capability.SCHEMA: "structured_outputs",
    Capability.EFFORT: "thinking",
}
"""What the list tells of a model, and what it calls that."""
