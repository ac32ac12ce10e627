"""From a request to what the engine works with: tokens, pictures, a constraint, and a voice.

Everything that can be wrong with a request is found here, before anybody makes room for it: a
template that refuses, a grammar that does not compile, an image that is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from llmdispatcher.models.errors import ContextOverflow, Unsupported
from llmdispatcher.models.form import ToolSpec
from llmdispatcher.models.message import Image, Role
from llmdispatcher.vendors.llamacpp.engine.backend import Backend, Constraint, Picture
from llmdispatcher.vendors.llamacpp.engine.voice import Voice
from llmdispatcher.vendors.llamacpp.rules.rules import Kind, Rule, rule_of
from llmdispatcher.vendors.llamacpp.speech.callrules import answer_rule, call_rule, unenforced
from llmdispatcher.vendors.llamacpp.speech.reader import Reader
from llmdispatcher.vendors.llamacpp.speech.speech import (
    Speech,
    opens_reasoning,
    speech_of,
    tools_note,
)

if TYPE_CHECKING:
    from llmdispatcher.models.request import Request
    from llmdispatcher.vendors.llamacpp.sight.vision import Projector
    from llmdispatcher.vendors.llamacpp.templates.template import ChatTemplate


@attrs.frozen
class Prompt:
    """A request as the engine works with it. Shared by all the replies that it asks for."""

    tokens: list[int]
    pictures: Mapping[int, Picture] = attrs.field(factory=dict)
    """Images, by the first of the tokens that stand for each."""
    constraint: Constraint | None = None
    """To be copied for each reply, and closed after that."""
    stops: tuple[str, ...] = ()
    speech: Speech | None = None
    """How to read the replies, where there may be more than an answer in them."""
    tools: tuple[ToolSpec, ...] = ()
    is_thinking: bool = False
    """Whether the prompt ends inside a block of reasoning."""
    shown: frozenset[int] = frozenset()
    """Control tokens that the reader of the replies must see."""

    def voice(self, index: int) -> Voice:
        """Return what turns the tokens of one reply into deltas."""
        reader = None
        if self.speech is not None:
            reader = Reader(self.speech, self.tools, reasons=self.is_thinking)
        return Voice(index, self.stops, reader, self.shown)


class Prompts:
    """Reads requests for one loaded model."""

    def __init__(
        self, backend: Backend, template: ChatTemplate, projector: Projector | None = None
    ) -> None:
        self._backend = backend
        self._template = template
        self._projector = projector
        self._speech = speech_of(template.source, has_tokens=lambda t: backend.token(t) is not None)
        marks = (backend.token(mark) for mark in self._speech.preserved)
        self._shown = frozenset(token for token in marks if token is not None)
        self._thinks = any(self._speech.think) or bool(self._speech.wrap) or self._speech.harmony

    def read(self, request: Request) -> Prompt:
        """Read a request. Raises a RequestError."""
        self._backend.check_adapters(request.adapters)
        if request.prompt is not None:
            return self._raw(request, request.prompt)
        tools = request.tools if request.tool_choice != "none" else ()
        text = self._rendered(request, tools)
        tokens, pictures = self._tokens(text, request)
        is_thinking = self._is_thinking(request, text)
        may_think = self._may_think(request, text)
        rule = self._rule(request, tools, is_thinking=is_thinking, may_think=may_think)
        is_own = rule is not None and rule.kind is Kind.GBNF  # the caller's, from the first token
        reads = not is_own and (bool(tools) or self._thinks)
        return Prompt(
            tokens,
            pictures,
            None if rule is None else self._backend.constraint(rule),
            (*request.stop, *self._template.stops, *self._speech.ends),
            self._speech if reads else None,
            tools,
            is_thinking,
            self._shown if reads else frozenset(),
        )

    def warnings(self, request: Request) -> tuple[str, ...]:
        """Return what to tell the caller beside the reply; what holds for all is told once."""
        if request.prompt is not None:
            return ()
        told = [self._template.take_warning()]
        if request.reasoning is not None and not self._template.takes_reasoning:
            told.append(
                "the model's chat template has no switch for reasoning: it was left as it is"
            )
        if request.tool_choice != "none":
            told += unenforced(request.tools)
        return tuple(text for text in told if text)

    def _raw(self, request: Request, text: str) -> Prompt:
        """Read a prompt that goes to the model as it is."""
        if request.suffix:
            tokens = self._backend.infill(text, request.suffix)
        else:
            tokens = self._backend.tokenize(text)
        rule = rule_of(request.response_format)
        constraint = None if rule is None else self._backend.constraint(rule)
        return Prompt(self._fitting(tokens), constraint=constraint, stops=request.stop)

    def _rendered(self, request: Request, tools: Sequence[ToolSpec]) -> str:
        """Render the conversation as the model was trained to read it."""
        note = ""
        if tools and not self._template.takes_tools:
            note = tools_note(tools, request.tool_choice, parallel=request.parallel_tools)
        text = self._template.render(
            request.messages,
            () if note else tools,
            bos=self._backend.bos,
            eos=self._backend.eos,
            reasoning=request.reasoning,
            tools_note=note,
        )
        return text + request.prefill

    def _tokens(self, text: str, request: Request) -> tuple[list[int], Mapping[int, Picture]]:
        """Turn a conversation into tokens, with what stands for its images among them."""
        images = [part for m in request.messages for part in m.content if isinstance(part, Image)]
        if not images:
            return self._fitting(self._backend.tokenize(text)), {}
        if self._projector is None:
            raise Unsupported(
                "images",
                "this model was loaded without a projector: give LlamaCpp(projector_path=…) the"
                " mmproj file that belongs to it",
            )
        return self._seen(text, images, self._projector)

    def _seen(
        self, text: str, images: Sequence[Image], projector: Projector
    ) -> tuple[list[int], Mapping[int, Picture]]:
        """Put what stands for images among the tokens of a conversation."""
        from llmdispatcher.vendors.llamacpp.sight import pictures, pixels  # noqa: PLC0415 - few see
        from llmdispatcher.vendors.llamacpp.templates import turns  # noqa: PLC0415 - few see

        tokens: list[int] = []
        places: dict[int, Picture] = {}
        files = [pixels.data_of(image) for image in images]
        text = text.replace(turns.MEDIA_MARKER, pictures.MARKER)
        for piece in projector.read(text, files, context_tokens=self._backend.context_tokens):
            if isinstance(piece, pictures.Picture):
                projector.check(piece, self._backend.batch_tokens)
                places[len(tokens)] = piece
            tokens += piece.tokens
        if tokens[-1] < 0:
            raise Unsupported("images", "the model's chat template lets a prompt end in an image")
        return self._fitting(tokens), places

    def _rule(
        self, request: Request, tools: Sequence[ToolSpec], *, is_thinking: bool, may_think: bool
    ) -> Rule | None:
        """Return what the replies must match, if anything. Raises InvalidGrammar."""
        rule = rule_of(request.response_format)
        token_of, speech = self._backend.mark, self._speech
        if not (is_thinking or may_think):
            speech = attrs.evolve(speech, think=("", ""))  # or it would be offered once more
        if rule is not None:
            if tools and request.tool_choice != "auto":
                raise Unsupported("response_format", "a call is demanded, which has its own form")
            if rule.kind is Kind.GBNF and tools:
                raise Unsupported(
                    "response_format",
                    "a grammar leaves no room for calls of tools; leave out one of the two, or"
                    " forbid calls with tool_choice='none'",
                )
            if rule.kind is Kind.GBNF or not (tools or self._thinks or self._speech.recipients):
                return rule
            answer = answer_rule(
                speech,
                rule.source,
                tools,
                parallel=request.parallel_tools,
                token_of=token_of,
                reasons=is_thinking,
            )
            return Rule(Kind.LARK, answer)
        source = call_rule(
            speech,
            tools,
            request.tool_choice,
            parallel=request.parallel_tools,
            token_of=token_of,
            reasons=is_thinking,
        )
        return None if source is None else Rule(Kind.LARK, source)

    def _is_thinking(self, request: Request, text: str) -> bool:
        """Whether the reply begins inside a block of reasoning."""
        if _continues_thought(request):
            return self._speech.think[1] not in request.prefill or not request.prefill
        before = text.removesuffix(request.prefill)
        return opens_reasoning(self._speech, before, request.prefill)

    def _may_think(self, request: Request, text: str) -> bool:
        """Whether a reply may begin with reasoning: not in the middle, and not if that is over."""
        if request.prefill or (request.reasoning is False and self._template.takes_reasoning):
            return False
        closer = self._speech.think[1]
        return not closer or not text.rstrip().endswith(closer)

    def _fitting(self, tokens: list[int]) -> list[int]:
        """Check that a prompt leaves room for a reply. Raises ContextOverflow."""
        if not tokens:
            tokens = self._backend.tokenize(" ")  # llama.cpp needs a token to begin with
        if len(tokens) >= self._backend.context_tokens:
            raise ContextOverflow(len(tokens) + 1, self._backend.context_tokens)
        return tokens


def _continues_thought(request: Request) -> bool:
    """Whether the reply goes on with reasoning that the caller gives."""
    last = request.messages[-1]
    return last.role is Role.ASSISTANT and bool(last.reasoning) and not last.content
