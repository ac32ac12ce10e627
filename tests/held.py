"""Replies that a real model is held to a rule in, drawn without the engine's loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from stepped import backend_of

from llmdispatcher.models.form import ResponseFormat, Shape
from llmdispatcher.models.sampling import Sampling
from llmdispatcher.vendors.llamacpp.binding.samplers import Samplers
from llmdispatcher.vendors.llamacpp.engine.backend import Chunk
from llmdispatcher.vendors.llamacpp.engine.sampling import chain
from llmdispatcher.vendors.llamacpp.rules.constraint import Constraint, Grammars
from llmdispatcher.vendors.llamacpp.rules.rules import Rule, rule_of


def rule(asked: Mapping[str, object] | str) -> Rule:
    """Return the rule of a schema, or of a grammar in GBNF."""
    if isinstance(asked, str):
        form = ResponseFormat(Shape.GRAMMAR, grammar=asked)
    else:
        form = ResponseFormat(Shape.SCHEMA, schema=asked)
    found = rule_of(form)
    assert found is not None
    return found


def fits(constraint: Constraint, tokens: list[int]) -> bool | None:
    """Whether tokens are a whole reply; None if they could become one. The mask says the same."""
    found = constraint.copy()
    for token in tokens:
        allowed = found.allows(token)
        assert bool(found.mask()[token]) == allowed
        if not allowed:
            return False
        found.accept(token)
    end = found._tokens.ends[0]
    return found.allows(end) or None


class Held:
    """A loaded model, for replies one after the other."""

    def __init__(self, path: Path, **fields: object) -> None:
        self.backend = backend_of(path, **fields)
        self.grammars = Grammars(self.backend.vocabulary)
        self.samplers = Samplers(self.backend.vocabulary, self.backend.logits)

    def reply(
        self, rule: Rule | None, sampling: Sampling, *, prompt: str = "Hello", most: int = 300
    ) -> tuple[str, bool]:
        """Draw a reply; return its text, and whether it ended by itself."""
        constraint = None if rule is None else self.grammars.constraint(rule)
        sampler = self.samplers.made(chain(sampling, sampling.seed or 0), (), constraint)
        self.backend.drop(0)
        new, position, data = self.backend.tokenize(prompt), 0, b""
        try:
            for _ in range(most):
                self.backend.decode([Chunk(0, position, new, 1)])
                position += len(new)
                token = sampler.sample(0)
                if self.backend.ends(token):
                    return data.decode(), True
                data += self.backend.piece(token)
                new = [token]
        finally:
            sampler.close()
        return data.decode(errors="replace"), False

    def bytes_of(self, text: str) -> list[int]:
        """Spell text byte by byte: any rule can be asked about any text so."""
        vocabulary = self.backend.vocabulary
        spelt = {vocabulary.piece(token): token for token in reversed(range(vocabulary.size))}
        return [spelt[bytes([byte])] for byte in text.encode()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.grammars.close()
        self.samplers.close()
        self.backend.close()
