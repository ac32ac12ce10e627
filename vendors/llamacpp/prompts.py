"""From a request to what the engine works with: tokens, pictures, a rule, and a voice.

Everything that can be wrong with a request is found here, before anybody makes room for it: a
template that refuses, a grammar that does not compile, an image that is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from llmdispatcher.models.errors import ContextOverflow
from llmdispatcher.vendors.llamacpp.backend import Backend, Constraint, Picture
from llmdispatcher.vendors.llamacpp.voice import Voice

if TYPE_CHECKING:
    from llmdispatcher.models.request import Request
    from llmdispatcher.vendors.llamacpp.template import ChatTemplate
    from llmdispatcher.vendors.llamacpp.vision import Projector


@attrs.frozen
class Prompt:
    """A request as the engine works with it. Shared by all the replies that it asks for."""

    tokens: list[int]
    pictures: Mapping[int, Picture] = attrs.field(factory=dict)
    """Images, by the first of the tokens that stand for each."""
    constraint: Constraint | None = None
    """To be copied for each reply, and closed with the last."""
    stops: tuple[str, ...] = ()

    def voice(self, index: int) -> Voice:
        """Return what turns the tokens of one reply into deltas."""
        return Voice(index, self.stops)


class Prompts:
    """Reads requests for one loaded model."""

    def __init__(
        self, backend: Backend, template: ChatTemplate, projector: Projector | None = None
    ) -> None:
        self._backend = backend
        self._template = template
        self._projector = projector

    def read(self, request: Request) -> Prompt:
        """Read a request. Raises a RequestError."""
        if request.prompt is not None:
            return self._raw(request, request.prompt)
        text = self._template.render(
            request.messages, request.tools, bos=self._backend.bos, eos=self._backend.eos
        )
        tokens = self._fitting(self._backend.tokenize(text + request.prefill))
        return Prompt(tokens, stops=(*request.stop, *self._template.stops))

    def _raw(self, request: Request, text: str) -> Prompt:
        """Read a prompt that goes to the model as it is."""
        if request.suffix:
            tokens = self._backend.infill(text, request.suffix)
        else:
            tokens = self._backend.tokenize(text)
        return Prompt(self._fitting(tokens), stops=request.stop)

    def warnings(self, request: Request) -> tuple[str, ...]:
        """Return what to tell the caller beside the reply."""
        chat = request.prompt is None
        return (self._template.warning,) if chat and self._template.warning else ()

    def _fitting(self, tokens: list[int]) -> list[int]:
        """Check that a prompt leaves room for a reply. Raises ContextOverflow."""
        if not tokens:
            tokens = self._backend.tokenize(" ")  # llama.cpp needs a token to begin with
        if len(tokens) >= self._backend.context_tokens:
            raise ContextOverflow(len(tokens) + 1, self._backend.context_tokens)
        return tokens
