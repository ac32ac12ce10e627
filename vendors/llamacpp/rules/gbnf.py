"""GBNF, llama.cpp's language for grammars: read as llama.cpp does, and written as Lark.

llama.cpp's own grammars would end the process or hang for some texts: their stacks multiply without
a bound, and a mistake is printed. So they are translated, character for character: each terminal
of the Lark text takes exactly one character, since its lexer knows only the longest match. Refused
are rules that are missing, never end, or are written twice. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import attrs

from llmdispatcher.models.errors import InvalidGrammar
from llmdispatcher.vendors.llamacpp.rules.patterns import written
from llmdispatcher.vendors.llamacpp.rules.references import MAX_CHAIN, deepest, fixpoint

MAX_GBNF_CHARS = 128 * 1024
"""Fifty times the largest of llama.cpp's examples; it is read in a fraction of a second."""

MAX_NESTING = 100
"""Brackets inside brackets; each is a step of recursion."""

MAX_TIMES = 2_000
"""Of one repetition: llama.cpp's MAX_REPETITION_THRESHOLD. It reads more as endless; we refuse."""

LAST_CODE = 0x10FFFF
_NAME = re.compile(r"[A-Za-z0-9-]+")
_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_TOKEN = re.compile(r"!?<(?:\[(\d{1,9})\]|[^>]*)>")
_TIMES = re.compile(r"\{[ \t]*(\d{1,9})[ \t]*(?:(,)[ \t]*(\d{0,9})[ \t]*)?\}")
_HEX = re.compile(r"x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})")
_ESCAPES = {"t": "\t", "r": "\r", "n": "\n", **{char: char for char in '\\"[]-'}}


@attrs.frozen
class Chars:
    """One character out of ranges of them, or out of all others."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False


@attrs.frozen
class Token:
    """One token of the vocabulary, or any other."""

    text: str
    negated: bool = False


@attrs.frozen
class Call:
    """The name of a rule."""

    name: str


@attrs.frozen
class Times:
    """An item, so many times; ``most`` None is without end."""

    item: Once
    least: int
    most: int | None


Once = Chars | Token | Call
Item = Once | Times
Sequence = tuple[Item, ...]
Rules = dict[str, tuple[Sequence, ...]]


def parse(source: str) -> Rules:
    """Read a grammar into its rules. Raises InvalidGrammar with the line of what is wrong."""
    if len(source) > MAX_GBNF_CHARS:
        raise InvalidGrammar(
            f"the grammar has {len(source)} characters; the most are {MAX_GBNF_CHARS}"
        )
    reader = _Reader(source)
    rules = reader.rules()
    if "root" not in rules:
        raise InvalidGrammar("the grammar has no rule named root, which is where a reply begins")
    calls = {name: sorted(_called(name, rules)) for name in rules}
    depth = deepest(calls, dict.fromkeys(rules, 1))
    if depth > MAX_CHAIN:
        raise InvalidGrammar(
            f"rules of the grammar lead to {depth} others one after the other;"
            f" the most are {MAX_CHAIN}: join some of them, or repeat with * instead"
        )
    ending = fixpoint(calls, lambda name, known: any(_ends(s, known) for s in rules[name]))
    if "root" not in ending:
        raise InvalidGrammar("no text ever fits the rule root of the grammar: it has no end")
    return rules


def _called(name: str, rules: Rules) -> set[str]:
    """Return the rules that a rule names. Raises InvalidGrammar if one is missing."""
    found = {item.name for sequence in rules[name] for item in _flat(sequence)}
    for other in sorted(found - rules.keys()):
        owner = name.split(maxsplit=1)[0]
        raise InvalidGrammar(f"the rule {owner} of the grammar names {other}, which is no rule")
    return found


def _flat(sequence: Sequence) -> Iterator[Call]:
    for item in sequence:
        inner = item.item if isinstance(item, Times) else item
        if isinstance(inner, Call):
            yield inner


def _ends(sequence: Sequence, ending: set[str]) -> bool:
    for item in sequence:
        if isinstance(item, Times) and not item.least:
            continue
        inner = item.item if isinstance(item, Times) else item
        if isinstance(inner, Call) and inner.name not in ending:
            return False
    return True


class _Reader:
    """Reads a grammar as ``llama_grammar_parser`` does (src/llama-grammar.cpp)."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0
        self._depth = 0
        self._rules: Rules = {}

    def rules(self) -> Rules:
        """Read all rules."""
        self._skip(_LINES)
        while self._at < len(self._source):
            self._rule()
        return self._rules

    def _refusal(self, what: str) -> InvalidGrammar:
        line = self._source.count("\n", 0, self._at) + 1
        column = self._at - (self._source.rfind("\n", 0, self._at) + 1) + 1
        return InvalidGrammar(f"the grammar has {what} in line {line}, column {column}")

    def _ahead(self) -> str:
        return self._source[self._at : self._at + 1]

    def _skip(self, space: re.Pattern[str]) -> None:
        found = space.match(self._source, self._at)
        self._at = found.end() if found else self._at

    def _rule(self) -> None:
        name = self._name("no name of a rule")
        self._skip(_SPACE)
        if not self._source.startswith("::=", self._at):
            raise self._refusal(f"no ::= after {name}")
        if name in self._rules:
            raise self._refusal(f"a second rule {name}")
        self._rules[name] = ()  # the names of its groups come after its own
        self._at += 3
        self._skip(_LINES)
        self._rules[name] = self._alternatives(name)
        if self._ahead() not in {"", "\r", "\n"}:
            raise self._refusal(f"a {self._ahead()} that nothing begins with and nothing repeats")
        self._skip(_LINES)

    def _name(self, missing: str) -> str:
        found = _NAME.match(self._source, self._at)
        if found is None:
            raise self._refusal(missing)
        self._at = found.end()
        return found[0]

    def _alternatives(self, owner: str) -> tuple[Sequence, ...]:
        found = [self._sequence(owner)]
        while self._ahead() == "|":
            self._at += 1
            self._skip(_LINES)
            found.append(self._sequence(owner))
        return tuple(found)

    def _sequence(self, owner: str) -> Sequence:
        space = _LINES if self._depth else _SPACE
        items: list[Item] = []
        while (found := self._item(owner)) is not None:
            self._skip(space)
            if self._ahead() and self._ahead() in "*+?{":
                once = found[0] if len(found) == 1 else self._group(owner, (found,))
                items.append(self._times(once))
                self._skip(space)
            else:
                items += found
        return tuple(items)

    def _item(self, owner: str) -> tuple[Once, ...] | None:
        """Read an item, which can be several: the characters of a literal."""
        char = self._ahead()
        if char == '"':
            return self._literal()
        if char == ".":
            self._at += 1
            return (Chars(((0, LAST_CODE),)),)
        if _NAME.match(char):
            return (Call(self._name("")),)
        if char == "[":
            return (self._set(),)
        if char in {"<", "!"}:
            return (self._token(),)
        return (self._bracket(owner),) if char == "(" else None

    def _literal(self) -> tuple[Once, ...]:
        self._at += 1
        codes = []
        while self._ahead() != '"':
            codes.append(self._char())
        self._at += 1
        return tuple(Chars(((code, code),)) for code in codes)

    def _set(self) -> Chars:
        self._at += 1
        negated = self._ahead() == "^"
        self._at += negated
        ranges = []
        while self._ahead() != "]":
            low = high = self._char()
            if self._ahead() == "-" and self._source[self._at + 1 : self._at + 2] != "]":
                self._at += 1
                high = self._char()
            if high < low:
                raise self._refusal("a range that does not go from low to high")
            ranges.append((low, high))
        self._at += 1
        if not ranges:
            raise self._refusal("a set of no characters")
        return Chars(tuple(ranges), negated)

    def _char(self) -> int:
        char = self._ahead()
        if not char:
            raise self._refusal("a text or set that is not closed")
        self._at += 1
        if char != "\\":
            return ord(char)
        found = _HEX.match(self._source, self._at)
        if found:
            code = int(found[1] or found[2] or found[3], 16)
        elif self._ahead() in _ESCAPES:
            code = ord(_ESCAPES[self._ahead()])
        else:
            raise self._refusal(f"the escape \\{self._ahead()}, which there is not,")
        if code > LAST_CODE or 0xD800 <= code < 0xE000:  # noqa: PLR2004 - the surrogates
            raise self._refusal(f"the character U+{code:04X}, which there is not,")
        self._at = found.end() if found else self._at + 1
        return code

    def _token(self) -> Token:
        found = _TOKEN.match(self._source, self._at)
        if found is None:
            raise self._refusal("a token that is not closed")
        self._at = found.end()
        negated = found[0].startswith("!")
        return Token(found[0][negated:], negated)

    def _bracket(self, owner: str) -> Call:
        if self._depth >= MAX_NESTING:
            raise self._refusal(f"more than {MAX_NESTING} brackets inside each other")
        self._at += 1
        self._depth += 1
        self._skip(_LINES)
        inner = self._alternatives(owner)
        self._depth -= 1
        if self._ahead() != ")":
            raise self._refusal("a ( that is not closed")
        self._at += 1
        return self._group(owner, inner)

    def _group(self, owner: str, inner: tuple[Sequence, ...]) -> Call:
        """Make a rule of a group: no name of a rule holds a space."""
        name = f"{owner.split(maxsplit=1)[0]} {len(self._rules)}"
        self._rules[name] = inner
        return Call(name)

    def _times(self, item: Once) -> Times:
        char = self._ahead()
        if char != "{":
            self._at += 1
            return Times(item, int(char == "+"), 1 if char == "?" else None)
        found = _TIMES.match(self._source, self._at)
        if found is None:
            raise self._refusal("a { that is not like {2}, {2,} or {2,3}")
        least = int(found[1])
        most = least if not found[2] else int(found[3]) if found[3] else None
        if max(least, most or 0) > MAX_TIMES or (most is not None and most < least):
            raise self._refusal(f"{found[0]}: counts go from low to high, up to {MAX_TIMES},")
        self._at = found.end()
        return Times(item, least, most)


def lark_of(rules: Rules, token_id: Callable[[str], int]) -> str:
    """Write a grammar as Lark; ``token_id`` finds a token by its text, or raises InvalidGrammar."""
    names = {name: f"r{index}" for index, name in enumerate(rules)}
    lines = [f"start: {names['root']}"]
    for name, sequences in rules.items():
        repeated, others = _tails(name, _merged(sequences))
        parts = [_sequence(sequence, names, token_id) for sequence in others]
        if repeated:
            again = f"{names[name]}t"
            tails = [_sequence(sequence, names, token_id) for sequence in repeated]
            lines.append(f"{again}: {' | '.join(tails)}")
            parts = [f"{again}* {part}" for part in parts]
        lines.append(f"{names[name]}: {' | '.join(parts) or names[name]}")
    return "\n".join(lines)


def _merged(sequences: tuple[Sequence, ...]) -> list[Sequence]:
    """Join alternatives of one character each: the engine takes only so many at a place."""
    ranges: list[tuple[int, int]] = []
    found: list[Sequence] = []
    for sequence in sequences:
        match sequence:
            case (Chars(alone, False),):
                ranges += alone
            case _:
                found.append(sequence)
    return [*found, (Chars(tuple(ranges)),)] if ranges else found


def _tails(name: str, sequences: list[Sequence]) -> tuple[list[Sequence], list[Sequence]]:
    """Split off the alternatives that end in their own rule: a repetition, which costs less.

    An Earley parser's work for ``a ::= x a | y`` grows with the square of the text's length, and
    the same texts fit ``x* y``.
    """
    ending = Call(name)
    tails = [sequence[:-1] for sequence in sequences if sequence[-1:] == (ending,)]
    return [t for t in tails if t], [s for s in sequences if s[-1:] != (ending,)]


def _sequence(items: Sequence, names: dict[str, str], token_id: Callable[[str], int]) -> str:
    return " ".join(_item(item, names, token_id) for item in items) or '""'


def _item(item: Item, names: dict[str, str], token_id: Callable[[str], int]) -> str:
    match item:
        case Chars(ranges, negated):
            spans = (f"{written(low)}-{written(high)}" for low, high in ranges)
            return f"/[{'^' if negated else ''}{''.join(spans)}]/"
        case Token(text, negated):
            return f"<[{'^' if negated else ''}{token_id(text)}]>"
        case Call(name):
            return names[name]
        case Times(_, _, 0):
            return '""'
        case Times(inner, least, most):
            return f"({_item(inner, names, token_id)}){{{least},{'' if most is None else most}}}"
