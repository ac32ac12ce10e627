"""Rules carried out, token by token, by llguidance: the only module that imports it.

A token is checked alone in about a microsecond, and all of a vocabulary in some tens of them. The
engine never raises for what it cannot do: it keeps an error, which is asked for here after each
step. Its work is bounded per token; a rule that needs more is an error of that reply alone.

llguidance may not decide which tokens a reply is made of: with that off, what it allows depends on
the bytes alone, and the model chooses among all ways to write them.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import cached_property

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from llmdispatcher.models.errors import BadReply, InvalidGrammar
from llmdispatcher.vendors.llamacpp.binding.vocabulary import Vocabulary
from llmdispatcher.vendors.llamacpp.rules import gbnf
from llmdispatcher.vendors.llamacpp.rules.rules import Kind, Rule

MAX_COMPILED = 16
"""Rules of a model that are kept compiled; one takes a millisecond and about a megabyte."""

MAX_SOURCE_CHARS = 4 * 2**20
"""Of the text that the engine reads: what schemas and grammars of the largest size become."""

_LIMITS = LLParserLimits(
    initial_lexer_fuel=1_000_000,  # 20 ms, to compile
    step_lexer_fuel=1_000_000,  # 70 ms, for one token
    step_max_items=2_000_000,  # 100 ms, for one token: a vocabulary of 256k tokens needs a third
    max_items_in_row=2_000,  # of readings at one place; time grows with its square
    max_lexer_states=100_000,  # some 100 MB
    max_grammar_size=500_000,
    verbose_errors=False,
)
"""Measured on one core of a server; the first two bind for patterns, the next for grammars."""

_WHOLE = '%llguidance {"no_forcing": true}\n'

_NOTHING_FITS = "no token of the model fits what the reply must look like"

_UNFIT = "doesn't satisfy the grammar"
"""What the engine says of a token that it was given unchecked."""

Mask = npt.NDArray[np.bool_]


class Grammars:
    """Compiles rules for one model, and keeps the last of them. Used by one thread at a time."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Nothing is read of the vocabulary before the first rule."""
        self._vocabulary = vocabulary
        self._kept: OrderedDict[Rule, Constraint] = OrderedDict()

    @cached_property
    def _tokens(self) -> _Tokens:
        return _Tokens(self._vocabulary)

    def constraint(self, rule: Rule) -> Constraint:
        """Return a rule's constraint at the beginning of a reply. Raises InvalidGrammar."""
        found = self._kept.get(rule)
        if found is None:
            found = self._kept[rule] = self._compiled(rule)
            if len(self._kept) > MAX_COMPILED:
                self._kept.popitem(last=False)[1].close()
        self._kept.move_to_end(rule)
        return found.copy()

    def _compiled(self, rule: Rule) -> Constraint:
        source = self._lark(rule)
        if len(source) > MAX_SOURCE_CHARS or "\0" in source:
            told = (
                f"more than {MAX_SOURCE_CHARS} characters" if "\0" not in source else "a NUL byte"
            )
            raise InvalidGrammar(f"the {rule.kind} has {told}")
        tokens = self._tokens
        text = LLMatcher.grammar_from_lark(_WHOLE + source)
        matcher = LLMatcher(tokens.engine, text, log_level=0, limits=_LIMITS)
        made = Constraint(matcher, tokens)
        if matcher.is_error():
            raise InvalidGrammar(f"the {rule.kind} cannot be carried out: {_said(matcher)}")
        try:
            made.mask()
        except BadReply as error:
            raise InvalidGrammar(f"no reply to the {rule.kind} can begin: {error}") from None
        return made

    def _lark(self, rule: Rule) -> str:
        match rule.kind:
            case Kind.SCHEMA:
                return f"start: %json {rule.source}"
            case Kind.GBNF:
                return gbnf.lark_of(gbnf.parse(rule.source), self._tokens.named)
            case Kind.LARK:
                return rule.source

    def close(self) -> None:
        """Forget all rules. Idempotent."""
        for made in self._kept.values():
            made.close()
        self._kept.clear()
        self.__dict__.pop("_tokens", None)


class Constraint:
    """How far one reply has come in its rule, and what may come next."""

    def __init__(self, matcher: LLMatcher, tokens: _Tokens) -> None:
        """Take over a matcher of the engine."""
        self._matcher: LLMatcher | None = matcher
        self._tokens = tokens

    @property
    def _engine(self) -> LLMatcher:
        if self._matcher is None:
            raise BadReply("the rule of this reply is closed")
        return self._matcher

    @property
    def ending(self) -> int | None:
        """A token that ends the reply, where nothing else may follow; else None.

        Raises BadReply if there the model has no such token.
        """
        if not (self._engine.is_stopped() and self._engine.is_accepting()):
            return None
        if not self._tokens.ends:
            raise BadReply(
                f"{_NOTHING_FITS}: the reply is complete, and the model has no end token"
            )
        return self._tokens.ends[0]

    def allows(self, token: int) -> bool:
        """Whether a token may come next. Raises BadReply if that cannot be found out."""
        engine = self._engine
        if token in self._tokens.is_end:
            return bool(engine.is_accepting())
        if engine.is_stopped() or not 0 <= token < self._tokens.size:
            self._check()
            return False
        fits = engine.validate_tokens([token]) == 1
        if not fits:
            self._check()
        return fits

    def mask(self) -> Mask:
        """Return for each token whether it may come next. Raises BadReply as ``allows`` does."""
        engine = self._engine
        if engine.is_stopped():
            found = np.zeros(self._tokens.size, np.bool_)
        else:
            bits = np.frombuffer(engine.compute_bitmask(), np.uint8)
            found = np.unpackbits(bits, bitorder="little")[: self._tokens.size].view(np.bool_)
        self._check()
        found[self._tokens.ends] = engine.is_accepting()
        return found

    def accept(self, token: int) -> None:
        """Go on by a token that ``allows`` or ``mask`` allowed. Raises BadReply for another."""
        if token in self._tokens.is_end:
            if not self._engine.is_accepting():
                raise BadReply("the reply ends before it is what it must look like")
            return
        if not self._engine.consume_token(token):
            self._check()
            raise BadReply(f"token {token} does not fit what the reply must look like")

    def _check(self) -> None:
        """Raise what the engine ran into, if it did."""
        if self._engine.is_error():
            said = _said(self._engine)
            if "NoExtension" in said:
                raise BadReply(_NOTHING_FITS)
            cause = "is not what it must look like" if _UNFIT in said else "takes too much to check"
            raise BadReply(f"the reply {cause}: {said}")

    def copy(self) -> Constraint:
        """Return one that goes on from here by itself."""
        return Constraint(self._engine.deep_copy(), self._tokens)

    def close(self) -> None:
        """Give the memory back. Idempotent."""
        self._matcher = None


class _Tokens:
    """A vocabulary as llguidance reads it; it looks at the fields that its wrapper has.

    Control tokens, and what looks like one, are apart from text: a grammar names them, as in
    ``<tool_call>``, and text never matches them.
    """

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Read the whole vocabulary: 0.1 s for 32,000 tokens."""
        self.size = vocabulary.size
        numbers = range(self.size)
        self.tokens = [vocabulary.piece(token, special=True) for token in numbers]
        self.ends = [token for token in numbers if vocabulary.ends(token)]
        self.is_end = frozenset(self.ends)
        self.special_token_ids = [
            token for token, data in enumerate(self.tokens) if vocabulary.is_mark(token, data)
        ]
        self.eos_token_id = self.ends[0] if self.ends else None
        self._read = vocabulary.tokenize
        self.engine = LLTokenizer(self, eos_token=self.ends or None)  # type: ignore[arg-type]
        self.tokens = []  # the engine has a copy

    def __call__(self, text: str) -> list[int]:
        """Tokenize; the engine asks only if it is to choose tokens itself, which is off."""
        return self._read(text, add_special=False, parse_special=False)

    def named(self, text: str) -> int:
        """Find ``<name>`` or ``<[number]>`` of GBNF. Raises InvalidGrammar if there is none."""
        inner = text[1:-1]
        if inner.startswith("[") and inner.endswith("]") and inner[1:-1].isdecimal():
            found = [int(inner[1:-1])]
        else:
            found = self._read(text, add_special=False, parse_special=True)
        if len(found) != 1 or found[0] >= self.size:
            told = f"the grammar names the token {text}, which the model does not have"
            raise InvalidGrammar(f"{told}; write text in quotes instead")
        return found[0]


_SAID_CHARS = 300
"""How much of what the engine says an error repeats."""


def _said(matcher: LLMatcher) -> str:
    """Return what the engine says is wrong, without the text around it."""
    line = matcher.get_error().strip().partition("\n")[0]
    return line.removeprefix("at 2(8): ")[:_SAID_CHARS]
