"""The phrase grammar: patterns such as `{how do i|how to} install <it>`.

Owns the parsing of patterns and of the section files that hold them. Braces
choose one of several alternatives (an empty one is allowed), angle brackets
insert a named phrase from phrases.txt, everything else is literal text.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

HERE = Path(__file__).parent
"""Where the data files are."""

Node = str | tuple["Sequence_", ...]
Sequence_ = tuple[Node, ...]

_PIECES = re.compile(r"[{}|]|<[a-z_]+>|[^{}|<]+")


class Grammar:
    """Draws wordings from patterns; named phrases are shared by all patterns."""

    def __init__(self, phrases: Mapping[str, Sequence[str]]) -> None:
        """Take the named phrases: a name to its alternative patterns."""
        self._phrases: dict[str, list[Sequence_]] = {}
        self._parsed: dict[str, Sequence_] = {}
        for name, patterns in phrases.items():
            self._phrases[name] = [self._parse(pattern) for pattern in patterns]

    def draw(self, pattern: str, random: Random) -> str:
        """Return one wording of the pattern, with single spaces."""
        return " ".join(self._expand(self._parse(pattern), random).split())

    def draw_named(self, name: str, random: Random) -> str:
        """Return one wording of a named phrase."""
        return " ".join(self._expand(random.choice(self._phrases[name]), random).split())

    def every(self, pattern: str) -> Iterator[str]:
        """Yield each wording of a pattern, some of them more than once; there may be thousands."""
        for wording in self._each(self._parse(pattern)):
            yield " ".join(wording.split())

    def _parse(self, pattern: str) -> Sequence_:
        parsed = self._parsed.get(pattern)
        if parsed is None:
            alternatives, rest = _parse_alternatives(_PIECES.findall(pattern))
            if rest or len(alternatives) != 1:
                message = f"unbalanced pattern: {pattern}"
                raise ValueError(message)
            parsed = self._parsed[pattern] = alternatives[0]
        return parsed

    def _each(self, sequence: Sequence_) -> Iterator[str]:
        """Yield each text of a sequence: all choices of its first node, before all of the rest."""
        if not sequence:
            yield ""
            return
        node, rest = sequence[0], sequence[1:]
        if isinstance(node, tuple):
            heads = [text for choice in node for text in self._each(choice)]
        elif node.startswith("<"):
            heads = [text for choice in self._phrases[node[1:-1]] for text in self._each(choice)]
        else:
            heads = [node]
        tails = list(self._each(rest))
        for head in heads:
            yield from (head + tail for tail in tails)

    def _expand(self, sequence: Sequence_, random: Random) -> str:
        parts: list[str] = []
        for node in sequence:
            if isinstance(node, tuple):
                parts.append(self._expand(random.choice(node), random))
            elif node.startswith("<"):
                parts.append(self._expand(random.choice(self._phrases[node[1:-1]]), random))
            else:
                parts.append(node)
        return "".join(parts)


def seeded(seed: int) -> Random:
    """Return a generator that a seed decides: texts must be repeatable, not secret."""
    return Random(seed)  # noqa: S311


def _parse_alternatives(pieces: list[str]) -> tuple[tuple[Sequence_, ...], list[str]]:
    """Parse up to the brace that closes this level; return what is left over."""
    alternatives: list[Sequence_] = []
    current: list[Node] = []
    while pieces:
        piece, pieces = pieces[0], pieces[1:]
        if piece == "}":
            return (*alternatives, tuple(current)), pieces
        if piece == "{":
            inner, pieces = _parse_alternatives(pieces)
            current.append(inner)
        elif piece == "|":
            alternatives.append(tuple(current))
            current = []
        else:
            current.append(piece)
    return (*alternatives, tuple(current)), []


def read_sections(path: Path) -> dict[str, list[str]]:
    """Read a file of `[name]` headings with one entry per line; `#` is a comment."""
    sections: dict[str, list[str]] = {}
    name = ""
    for raw in path.read_text(encoding="utf-8").splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            name = line[1:-1]
            sections[name] = []
        else:
            sections[name].append(line)
    return sections
