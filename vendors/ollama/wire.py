"""Ollama's own API: what it is asked, and who reads the answers. Pure.

The own API and not the one that looks like OpenAI's: only here can a prompt that does not fit be
refused instead of cut, is an error inside a stream told, and does a model stay loaded as long as
one wants. ``shows`` has what else a server tells: which models are loaded, and one in detail.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from llmdispatcher.models.card import Capability, ModelCard
from llmdispatcher.models.embedding import EmbedRequest, RerankRequest, Work
from llmdispatcher.models.errors import BadReply, DispatcherError, Unsupported
from llmdispatcher.models.request import Request
from llmdispatcher.vendors.ollama import asking, faults, known, shows, vectors
from llmdispatcher.vendors.ollama.stream import OllamaReplies
from llmdispatcher.vendors.wire.exchange import Ask, Exchange, Head, Health, Listed, Site
from llmdispatcher.vendors.wire.reading import fields, parsed, shown

VERSION = "/api/version"

WHOLE_SINCE = (0, 12, 6)
"""The first version that heeds ``truncate`` and ``shift``; see the tags of Ollama's sources."""

_NUMBERS = re.compile(r"v?(\d{1,6})\.(\d{1,6})\.(\d{1,6})", re.ASCII)


class OllamaWire:
    """Ollama at one site. See ``Wire``.

    ``hosted`` is Ollama's cloud itself (https://ollama.com), whose models bear no sign of it in
    their names. Raises BadRequest for ``extra`` fields that cannot be sent.
    """

    def __init__(self, site: Site, *, hosted: bool = False) -> None:
        self._site = asking.checked(site)
        self._hosted = hosted

    def exchanges(self, work: Work, card: ModelCard) -> Sequence[Exchange]:
        """Return what to ask: texts to embed go in parts. Raises Unsupported."""
        try:
            return self._exchanges(work, card)
        except Unsupported as error:
            error.vendor, error.model = self._site.vendor, card.model
            raise

    def _exchanges(self, work: Work, card: ModelCard) -> Sequence[Exchange]:
        match work:
            case Request():
                replies = OllamaReplies(top=work.logprobs, prompt_bytes=work.text_bytes)
                return (Exchange(asking.ask(work, card, self._site), replies),)
            case EmbedRequest():
                return tuple(vectors.exchanges(work, card, self._site))
            case RerankRequest():
                told = "Ollama scores no documents: take LlamaCpp(…), or another vendor that does"
                raise Unsupported("rerank", told)

    def fault(self, head: Head, body: bytes) -> DispatcherError:
        """Return the error that an answer stands for."""
        return faults.of_answer(head, body)

    def card(self, model: str) -> ModelCard:
        """Return what is known of a model by its name."""
        return shows.named(model, self._site, hosted=self._hosted)

    def listing(self) -> Ask | None:
        """Return what asks for the models that the server has."""
        return Ask(path=shows.LIST)

    def listed(self, message: Any) -> Listed:  # noqa: ANN401 - a stranger's JSON
        """Read the list; it comes whole. Raises BadReply."""
        return Listed(shows.listed(message, self._site, hosted=self._hosted))

    def probe(self) -> Ask:
        """Return a question that loads nothing and reads no disk."""
        return Ask(path=VERSION)

    def probed(self, head: Head, body: bytes) -> Health:
        """Read its answer: a server that tells its version serves; old ones with a warning."""
        try:
            version = fields(parsed(body)).get("version") if head.status == 200 else None  # noqa: PLR2004 - HTTP's own number
        except BadReply:
            version = None
        if isinstance(version, str):
            return Health(is_ready=True, detail=_warning(version))
        return Health(is_ready=False, detail=f"{head.status}: {shown(body)}")

    def loading(self, model: str) -> Ask | None:
        """Return what loads a model as requests will want it; Ollama's cloud has nothing to load.

        A model that embeds is loaded by embedding nothing: it is refused elsewhere.
        """
        if self._hosted or known.is_cloud(model):
            return None
        if Capability.EMBED in known.by_name(model):
            seconds = asking.keep_alive(self._site)
            keep = {"keep_alive": seconds} if seconds else {}
            return Ask(path=vectors.EMBED, body={"model": model, "input": [], **keep})
        standing = asking.standing(self._site, keeps=False)
        return Ask(path=asking.GENERATE, body={**standing, "model": model, "stream": False})

    def holding(self) -> Ask | None:
        """Return what asks for the models in memory; Ollama's cloud does not tell."""
        return None if self._hosted else Ask(path=shows.LOADED)

    def held(self, message: Any) -> tuple[str, ...]:  # noqa: ANN401 - a stranger's JSON
        """Read its answer."""
        return tuple(each.model for each in shows.loaded(message))

    def counting(self, request: Request, card: ModelCard) -> Ask | None:  # noqa: ARG002 - whatever it is
        """Return None: Ollama counts for nobody."""
        return None

    def counted(self, message: Any) -> int:  # noqa: ANN401 - a stranger's JSON
        """Raise BadReply: nothing was asked."""
        raise BadReply(f"Ollama counts no tokens, and told {shown(message)}")


def _warning(version: str) -> str:
    """Return what to know of a version; a build of one's own calls itself 0.0.0."""
    found = _NUMBERS.match(version)
    numbers = tuple(map(int, found.groups())) if found else ()
    if found is None or not any(numbers) or numbers >= WHOLE_SINCE:
        return ""
    wanted = ".".join(map(str, WHOLE_SINCE))
    return f"Ollama {found[0]} cuts long prompts silently: install {wanted} or newer"
