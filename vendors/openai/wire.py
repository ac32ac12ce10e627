"""The chat-completions dialect at one site: a ``Wire`` made of a host's ``Ways``. Pure.

Replies are encoded in ``chat`` and read in ``stream``, or go to the responses endpoint where only
that one serves them; vectors and scores are in ``embedding``, lists of models in ``listing``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from llmdispatcher.models.card import Capability, ModelCard
from llmdispatcher.models.embedding import Work
from llmdispatcher.models.errors import BadReply, BadRequest, DispatcherError, Unsupported
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.openai import chat, embedding, known, listing
from llmdispatcher.vendors.openai.ways import Place, Ways
from llmdispatcher.vendors.wire import faults
from llmdispatcher.vendors.wire.exchange import Ask, Exchange, Head, Health, Listed, Site
from llmdispatcher.vendors.wire.reading import fields, shown, tally

_LOADING = (b"loading", b"starting")
"""Words of llama-server and LocalAI, with status 503: not ready yet, and will be."""

_UNAVAILABLE = 503


class OpenAIWire:
    """The dialect at one site. See ``Wire`` in ``vendors.wire.exchange``.

    Raises BadRequest for a ``keep_alive_s`` where a host cannot be told.
    """

    def __init__(self, site: Site, ways: Ways) -> None:
        if site.keep_alive_s is not None and not ways.keep_alive:
            raise BadRequest(
                "keep_alive_s", site.keep_alive_s, "left out: this host decides that itself"
            )
        self._site, self._ways = site, ways

    def exchanges(self, work: Work, card: ModelCard) -> Sequence[Exchange]:
        """Return what to ask, in order. Raises a RequestError for what the host cannot do."""
        try:
            if isinstance(work, Request):
                return (self._reply(work, card),)
            return embedding.exchanges(work, card.model, self._site, self._ways)
        except Unsupported as error:
            error.vendor, error.model = error.vendor or self._site.vendor, card.model
            raise

    def _reply(self, request: Request, card: ModelCard) -> Exchange:
        row = known.of(card.model)
        if self._ways.responses and request.prompt is None:
            has_tools = bool(request.tools) and request.tool_choice != "none"
            if row.needs_responses(has_tools, row.effort(request)):
                from llmdispatcher.vendors.openai import responses  # noqa: PLC0415 - for those few

                return responses.exchange(request, card, self._site, row, self._ways.habits)
        return chat.exchange(request, card.model, row, self._site, self._ways)

    def fault(self, head: Head, body: bytes) -> DispatcherError:
        """Return the error that an answer stands for."""
        return faults.of_answer(head, body, self._ways.habits)

    def card(self, model: str) -> ModelCard:
        """Return what is known of a model by its name alone."""
        return listing.card(model, self._site, self._ways)

    def listing(self) -> Ask | None:
        """Return what asks for the list of models; None where there is none."""
        return None if self._ways.listing is None else self._plain(self._ways.listing)

    def listed(self, message: Any) -> Listed:  # noqa: ANN401 - a stranger's JSON
        """Read that list, which has one page. Raises BadReply."""
        return Listed(listing.listed(message, self._site, self._ways))

    def probe(self) -> Ask:
        """Return the cheapest question that tells whether the host would serve now."""
        return self._plain(self._ways.probe)

    def probed(self, head: Head, body: bytes) -> Health:
        """Read its answer, whatever the status."""
        if 200 <= head.status < 300:  # noqa: PLR2004 - HTTP's own numbers
            return Health(is_ready=True)
        start = body[:4096].lower()
        is_loading = head.status == _UNAVAILABLE and any(word in start for word in _LOADING)
        detail = str(faults.of_answer(head, body, self._ways.habits))
        return Health(is_ready=False, is_loading=is_loading, detail=detail)

    def loading(self, model: str) -> Ask | None:
        """Return what has a local server load a model; None where there is no way to say so."""
        ways = self._ways
        if ways.loading is not None:
            path = ways.loading.path.format(model=quote(model, safe=""))
            return Ask(path=path, at_root=ways.loading.at_root)
        if not ways.loads_by_chat:
            return None
        body = {"model": model, **chat.keep_alive(self._site, ways)}
        if Capability.EMBED in self.card(model).capabilities:
            return Ask(path=ways.path(ways.embeddings, model), body={**body, "input": ["."]})
        said = [{"role": "user", "content": "."}]
        body |= {"messages": said, ways.max_tokens: 1, "stream": False}
        return Ask(path=ways.path(chat.CHAT, model), body=body)

    def holding(self) -> Ask | None:
        """Return what asks for the models in memory, which is in the list of some servers."""
        return self.listing() if self._ways.tells_loaded else None

    def held(self, message: Any) -> tuple[str, ...]:  # noqa: ANN401 - a stranger's JSON
        """Read its answer."""
        return listing.held(message)

    def counting(self, request: Request, card: ModelCard) -> Ask | None:
        """Return what asks how many tokens the prompt has; None where nobody tells."""
        is_raw = request.prompt is not None
        place = self._ways.count_raw if is_raw else self._ways.count_chat
        if place is None or request.suffix:
            return None
        body: dict[str, Any] = {"model": card.model}
        if is_raw:  # vLLM's name, and llama-server's
            body |= {"prompt": request.prompt, "content": request.prompt, "add_special": True}
        else:
            body |= chat.conversation(request, known.of(card.model), self._ways)
        return Ask(path=place.path, body=body, at_root=place.at_root)

    def counted(self, message: Any) -> int:  # noqa: ANN401 - a stranger's JSON
        """Read its answer. Raises BadReply, or the error that it is."""
        told = fields(message)
        if told.get("error"):
            raise faults.of_message(message, self._ways.habits)
        for name in ("input_tokens", "count"):
            if count := tally(told.get(name)):
                return count
        if isinstance(tokens := told.get("tokens"), list):
            return len(tokens)
        raise BadReply(f"the vendor sent what is no number of tokens: {shown(message)}")

    def _plain(self, place: Place) -> Ask:
        return Ask(path=self._ways.path(place.path), at_root=place.at_root)
