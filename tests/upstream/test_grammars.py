"""Our grammars against llama.cpp's own: both take the same texts, byte for byte."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from held import rule

from llmdispatcher.vendors.llamacpp.binding.library import lib
from llmdispatcher.vendors.llamacpp.binding.vocabulary import Vocabulary, vocabulary_of
from llmdispatcher.vendors.llamacpp.rules import gbnf
from llmdispatcher.vendors.llamacpp.rules.constraint import Grammars

pytestmark = pytest.mark.upstream

NAMES = ["arithmetic", "c", "chess", "english", "japanese", "json", "json_arr", "list"]
"""The grammars of the tested release of llama.cpp."""

OWN = {
    "split": 'root ::= "ab" "c" | "abc" "d" | "a"{2,5} [b-d]? "é"+',
    "tail": 'root ::= a\na ::= "x" a | [yz] a | "." | b\nb ::= "(" a ")"',
    "empty": 'root ::= "a"? (| "b" | "cc"*) .?',
    "times": 'root ::= ("ab"{2} | [0-9]{0,3} | "x"{,}){1,2}'.replace("{,}", "{0,}"),
    "escapes": r'root ::= [\x41-\x43\u00e9\U0001F600\]\-\\] "\t\"\n\\" [^\n\r"] [-a] [a-]',
}
"""What the files do not use."""

TEXTS = 40
"""Of each grammar; each is tried as it is and with one character changed, in three ways."""

LONGEST = 300
"""Tokens of a text."""

DEEP = 8
"""How many rules a text may go into each other before it takes the shortest way out."""


@pytest.fixture(scope="module")
def vocabulary(llama_cpp_sources: Path) -> Iterator[Vocabulary]:
    """A vocabulary in which every byte is a token."""
    with vocabulary_of(llama_cpp_sources / "models" / "ggml-vocab-llama-spm.gguf") as found:
        yield found


class Writer:
    """Writes texts that fit a grammar, by chance."""

    def __init__(self, source: str, seed: int) -> None:
        self.rules = gbnf.parse(source)
        self.random = random.Random(seed)  # noqa: S311 - no secret
        self.heights = dict.fromkeys(self.rules, 10**6)
        for _ in self.rules:
            for name, sequences in self.rules.items():
                self.heights[name] = 1 + min(map(self.height, sequences))

    def height(self, sequence: gbnf.Sequence) -> int:
        """Say how deep the shortest text of a sequence goes."""
        items = [i.item for i in sequence if isinstance(i, gbnf.Times) and i.least]
        items += [i for i in sequence if not isinstance(i, gbnf.Times)]
        return max((self.heights[i.name] for i in items if isinstance(i, gbnf.Call)), default=0)

    def text(self, name: str = "root", depth: int = 0) -> str:
        """Write a text of a rule."""
        sequences = list(self.rules[name])
        if depth > DEEP:
            sequences = [min(sequences, key=self.height)]
        return "".join(self.item(i, depth) for i in self.random.choice(sequences))

    def item(self, item: gbnf.Item, depth: int) -> str:
        """Write a text of a part of a rule."""
        match item:
            case gbnf.Chars(ranges, negated):
                return self.char(ranges, negated=negated)
            case gbnf.Call(name):
                return self.text(name, depth + 1)
            case gbnf.Times(inner, least, most):
                room = 0 if depth > DEEP else 3
                count = self.random.randint(least, min(least + room, most or least + room))
                return "".join(self.item(inner, depth) for _ in range(count))
        raise AssertionError(item)

    def char(self, ranges: tuple[tuple[int, int], ...], *, negated: bool) -> str:
        """Write one character that is in the ranges, or that is not."""
        while True:
            low, high = self.random.choice(((32, 126), (0xA1, 0x2FF), (0x1F600, 0x1F64F)))
            if not negated:
                low, high = self.random.choice(ranges)
            code = self.random.randint(max(1, low), min(high, 0x1F64F))
            if any(a <= code <= b for a, b in ranges) != negated and not 0xD800 <= code < 0xE000:
                return chr(code)

    def changed(self, text: str) -> str:
        """Leave out, put in or change one character."""
        at = self.random.randrange(len(text) + 1)
        other = self.random.choice([*' \n"\\{}[]()09ax;é', *text])
        return self.random.choice(
            (
                text[:at] + text[at + 1 :],
                text[:at] + other + text[at:],
                text[:at] + other + text[at + 1 :],
            )
        )


Judge = Callable[[list[int]], tuple[int, bool]]
"""How many tokens fit one after the other, and whether all are a whole text."""


@pytest.fixture(scope="module")
def spelt(vocabulary: Vocabulary) -> dict[bytes, int]:
    """Tokens by their bytes."""
    return {vocabulary.piece(token): token for token in reversed(range(vocabulary.size))}


def tokens_of(spelt: dict[bytes, int], text: str) -> list[int]:
    """Write each character as one token if there is one, and else byte by byte.

    llama.cpp refuses the first byte of a character if another character that begins alike is one
    of those that a set excludes, and takes the same character as one token.
    """
    found: list[int] = []
    for char in text:
        data = char.encode()
        parts = [data] if data in spelt else [bytes([byte]) for byte in data]
        found += [spelt[part] for part in parts]
    return found


def theirs(vocabulary: Vocabulary, source: str, end: int) -> Judge:
    """Ask llama.cpp's own grammar; a token is only accepted when it was found to be allowed."""
    begun = lib.llama_sampler_init_grammar(vocabulary.pointer, source.encode(), b"root")
    assert begun

    def allows(sampler: object, token: int) -> bool:
        candidate = lib.llama_token_data(token, 1.0, 0.0)
        array = lib.llama_token_data_array(ctypes.pointer(candidate), 1, -1, False)  # noqa: FBT003 - C struct
        lib.llama_sampler_apply(sampler, ctypes.byref(array))
        return bool(candidate.logit == 1)

    def judge(tokens: list[int]) -> tuple[int, bool]:
        sampler = lib.llama_sampler_clone(begun)
        count = 0
        while count < len(tokens) and allows(sampler, tokens[count]):
            lib.llama_sampler_accept(sampler, tokens[count])
            count += 1
        whole = count == len(tokens) and allows(sampler, end)
        lib.llama_sampler_free(sampler)
        return count, whole

    return judge


def ours(grammars: Grammars, source: str, end: int) -> Judge:
    """Ask our constraint, by single tokens and by masks."""
    begun = grammars.constraint(rule(source))

    def judge(tokens: list[int]) -> tuple[int, bool]:
        constraint = begun.copy()
        for count, token in enumerate(tokens):
            allowed = constraint.allows(token)
            assert bool(constraint.mask()[token]) == allowed
            if not allowed:
                return count, False
            constraint.accept(token)
        return len(tokens), constraint.allows(end)

    return judge


def test_every_grammar_of_the_sources_is_tested(llama_cpp_sources: Path) -> None:
    """The sources have these grammars and no others."""
    found = llama_cpp_sources.glob("grammars/*.gbnf")

    assert sorted(path.stem for path in found) == NAMES


@pytest.mark.parametrize("name", [*NAMES, *OWN])
def test_texts_are_judged_alike(
    llama_cpp_sources: Path, vocabulary: Vocabulary, spelt: dict[bytes, int], name: str
) -> None:
    """Of every text, as many tokens fit as in llama.cpp, and it is whole where it is there."""
    path = llama_cpp_sources / "grammars" / f"{name}.gbnf"
    source = OWN[name] if name in OWN else path.read_text(encoding="utf-8")
    end = next(token for token in range(vocabulary.size) if vocabulary.ends(token))
    grammars, writer = Grammars(vocabulary), Writer(source, seed=len(name))
    judges = ours(grammars, source, end), theirs(vocabulary, source, end)
    verdicts = []
    for _ in range(TEXTS):
        text = writer.text()
        for tried in (text, *(writer.changed(text) for _ in range(3))):
            tokens = tokens_of(spelt, tried)[:LONGEST]
            mine, other = (judge(tokens) for judge in judges)
            assert mine == other, f"{tried!r} is judged differently"
            verdicts.append(mine[1])
    grammars.close()

    assert sum(verdicts) >= 15
    assert len(verdicts) - sum(verdicts) >= 15
