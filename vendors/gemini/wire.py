"""The dialect of Gemini's generateContent API: what to ask, and who reads the answer. Pure.

Its base address is ``BASE_URL``. Google calls this API its older one beside the Interactions API;
it serves all models. A model is named with or without ``models/``, and a tuned one with
``tunedModels/``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import attrs

from llmdispatcher.models.card import ModelCard
from llmdispatcher.models.embedding import EmbedRequest, RerankRequest, Work
from llmdispatcher.models.errors import BadReply, BadRequest, DispatcherError, Unsupported
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.gemini import content, embedding, known, settings
from llmdispatcher.vendors.gemini.stream import GeminiReplies
from llmdispatcher.vendors.wire import faults
from llmdispatcher.vendors.wire.exchange import Ask, Exchange, Head, Health, Listed, Site
from llmdispatcher.vendors.wire.reading import MAX_COUNT, items, shown

BASE_URL = "https://generativelanguage.googleapis.com/v1beta"

PAGE = "/models?pageSize=1000"
"""As many models as a page holds at most."""

_OK = 200


@attrs.frozen
class GeminiWire:
    """Gemini's dialect at one site; see ``wire.exchange.Wire``."""

    site: Site
    vector_extra: Mapping[str, Any] = attrs.field(factory=dict, kw_only=True)
    """Fields that go into every request for a vector: ``outputDimensionality``, ``taskType``."""

    def exchanges(self, work: Work, card: ModelCard) -> Sequence[Exchange]:
        """Return what to ask: one reply, or the vectors of a hundred texts each."""
        if isinstance(work, RerankRequest):
            raise self._at(card, Unsupported("rerank", "Gemini scores no documents: embed them"))
        if isinstance(work, EmbedRequest):
            return self._vectors(work, card)
        body = self._body(work, card)
        # Several candidates are drawn for whole answers alone.
        streams = self.site.streaming and work.n == 1
        verb = "streamGenerateContent?alt=sse" if streams else "generateContent"
        ask = Ask(path=f"{_path(card.model)}:{verb}", body=body, streams=streams)
        return [Exchange(ask, GeminiReplies(work))]

    def fault(self, head: Head, body: bytes) -> DispatcherError:
        """Return the error that an answer with a status of 300 or more stands for."""
        return faults.of_answer(head, body)

    def card(self, model: str) -> ModelCard:
        """Return what is known of a model by its name alone."""
        return known.card(self.site, model)

    def listing(self) -> Ask:
        """Return what asks for the first page of models."""
        return Ask(path=PAGE)

    def listed(self, message: Any) -> Listed:  # noqa: ANN401 - a stranger's JSON
        """Read a page of models. Those without a usable name are left out."""
        match message:
            case {"error": error} | [{"error": error}] if error:
                raise faults.of_message(message)
            case {"models": list()}:
                pass
            case {} if "models" not in message:  # none is left out
                pass
            case _:
                raise BadReply(f"the vendor sent what is no list of models: {shown(message)}")
        cards = [self._listed(model) for model in items(message.get("models"))]
        token = message.get("nextPageToken")
        more = None
        if token and isinstance(token, str):
            more = Ask(path=f"{PAGE}&pageToken={quote(token, safe='', errors='replace')}")
        return Listed(tuple(card for card in cards if card is not None), more)

    def probe(self) -> Ask:
        """Return the cheapest question there is: one model of the list."""
        return Ask(path="/models?pageSize=1")

    def probed(self, head: Head, body: bytes) -> Health:
        """Read its answer: a key that is refused serves nothing either."""
        if head.status == _OK:
            return Health(is_ready=True)
        return Health(is_ready=False, detail=str(self.fault(head, body)))

    def loading(self, model: str) -> None:  # noqa: ARG002 - see Wire
        """Return None: Gemini's models are always loaded."""
        return

    def holding(self) -> Ask | None:
        """Nobody tells."""
        return None

    def held(self, message: Any) -> tuple[str, ...]:  # noqa: ANN401 - a stranger's JSON
        """See ``holding``."""
        raise BadReply(f"nobody asked which models are loaded: {shown(message)}")

    def counting(self, request: Request, card: ModelCard) -> Ask:
        """Return what asks how many tokens a request's prompt has, with its tools and system."""
        body = {"model": _resource(card.model), **self._body(request, card)}
        return Ask(path=f"{_path(card.model)}:countTokens", body={"generateContentRequest": body})

    def counted(self, message: Any) -> int:  # noqa: ANN401 - a stranger's JSON
        """Read its answer. Raises BadReply."""
        match message:
            case {"totalTokens": total} if type(total) is int and 0 <= total <= MAX_COUNT:
                return total
            case {"error": _}:
                raise faults.of_message(message)
        raise BadReply(f"the vendor sent what is no count of tokens: {shown(message)}")

    # -- bodies --------------------------------------------------------------------------------

    def _body(self, request: Request, card: ModelCard) -> dict[str, Any]:
        try:
            return _with(_asked(request, card.model), self.site.extra)
        except Unsupported as error:
            raise self._at(card, error) from None

    def _at(self, card: ModelCard, error: Unsupported) -> Unsupported:
        return Unsupported(error.feature, str(error), vendor=self.site.vendor, model=card.model)

    def _vectors(self, work: EmbedRequest, card: ModelCard) -> list[Exchange]:
        model = _resource(card.model)
        path = f"{_path(card.model)}:batchEmbedContents"
        return [
            Exchange(
                Ask(path=path, body=embedding.body(model, texts, self.vector_extra)),
                embedding.VectorReplies(work, first, texts),
            )
            for first, texts in embedding.batches(work.texts)
        ]

    def _listed(self, told: Any) -> ModelCard | None:  # noqa: ANN401 - a stranger's JSON
        match told:
            case {"name": str(name)} if name.strip():
                pass
            case _:
                return None
        try:
            return known.merged(self.card(name), told)
        except BadRequest:  # a name that is empty or no text
            return None


def _asked(request: Request, model: str) -> dict[str, Any]:
    """Return the body of a request for a reply, without what the site adds."""
    settings.check(request)
    body: dict[str, Any] = {"contents": content.contents(request.messages, known.family(model))}
    if (said := content.instruction(request.messages)) is not None:
        body["systemInstruction"] = said
    body |= settings.tools(request, model)
    if config := settings.generation(request, model):
        body["generationConfig"] = config
    return body


def _with(body: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Add fields of the site's own: objects are merged and lists joined, and the request wins."""
    made = {**extra, **body}
    for name in extra.keys() & body.keys():
        ours, theirs = body[name], extra[name]
        if isinstance(ours, dict) and isinstance(theirs, Mapping):
            made[name] = {**theirs, **ours}
        elif isinstance(ours, list) and isinstance(theirs, list | tuple):
            made[name] = [*ours, *theirs]
    return made


def _resource(model: str) -> str:
    """Return a model's name as Google writes it."""
    return model if model.startswith(("models/", "tunedModels/")) else f"models/{model}"


def _path(model: str) -> str:
    kind, _, name = _resource(model).partition("/")
    return f"/{kind}/{quote(name, safe='')}"
