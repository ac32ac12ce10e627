"""What can be seen in a text without understanding it: groups of words, openings, shapes.

All of it looks at a window of bounded length and takes time linear in it; no pattern can go back
on itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import groupby, islice, pairwise
from typing import NamedTuple

from llmdispatcher.models.task_together import TOGETHER
from llmdispatcher.models.task_tongues import SIGNS
from llmdispatcher.models.task_words import FILLERS

WINDOW_CHARS = 4_096
"""Looked at from each end of a text."""

HEAD_WORDS, TAIL_WORDS = 90, 50
HEAD_CHARS, TAIL_CHARS = 2_000, 1_000
"""Of the prose, where people say what they want: what they give stands between."""

PHRASE_WORDS = 3

SHOWN_WORDS = 300
"""Of a text with all that is given in it, whose words are looked at one by one."""

STEM_CHARS = 4
"""By which forms of one word are held together."""

SENTENCE_CHARS = 200
"""Looked at of the first sentence and of the last, for the words in them."""

SHORT_WORDS, LONG_WORDS = 8, 120

Phrases = dict[tuple[str, ...], tuple[str, ...]]

WORD = re.compile(r"[\w'#+]+(?:\.js)?")
SENTENCE_END = re.compile(r"[.!?:]\s|\n")
CLAUSE_END = re.compile(r",|;| and | then | or ")
WHEN = re.compile(r"\s*(?:when|whenever|if|once|every|each|after|as soon)\b", re.IGNORECASE)

# Each of these looks at one line, without the blanks around it.
KEYWORDS = (
    "def class import from const let var public private static func fn function return void int "
    "char struct enum if for while print using package export async await FROM RUN SELECT INSERT "
    "UPDATE CREATE DELETE BEGIN COMMIT end elif else try except"
)
CODE_WORDS = frozenset(KEYWORDS.split())
CODE_MARKS = frozenset("(){};:=]")
CODE_LINE = re.compile(r"[})\];,]+$|.*[;{]$|</?[a-z][^>]*>|#include\b|(?:FROM|RUN|COPY|CMD) \S")
FIRST_WORD = re.compile(r"\w+")
SPOKEN = re.compile(r"(?:[A-Za-z',]+ ){5}|[A-Za-z' ,]{12,}[:?!] ")
TRACE_LINE = re.compile(
    r"Traceback \(most|File \"|at [\w.$]+[(\[]|goroutine \d|panic:|npm ERR!|\[?ERROR\b|E  +\S"
    r"|Caused by:|fatal:|error(?:\[E\d+\])?:|Exception in"
)
RAISED = re.compile(r"(?:Error|Exception)(?::| in)")
LOG_LINE = re.compile(
    r"\[(?:DEBUG|INFO|WARN|ERROR|error)|\d{4}[-/]\d\d[-/]\d\d[ T]\d\d:|\w+\[\d+\]:"
)
DIFF_LINE = re.compile(r"(?:diff --git |@@ -\d|\+\+\+ |--- \w/|\{+ ?diff ?\}+)")
ITEM = re.compile(r"(?:[-*•]|\d{1,2}[.)]|[a-h]\)) +\S")
JSON_LINE = re.compile(r"\[ *[\[{]|\{ *\"")

# These search a whole text, so each alternative begins with characters that are rare in prose.
INLINE_CODE = re.compile(
    r"\((?<=\w\w\()(?<!sin\()(?<!cos\()(?<!tan\()(?<!log\()(?<!exp\()(?<!qrt\()\w*\)"
    r"|[;{] ?\}?$|=>|\.\w+\(|</?\w+>| = \w",
    re.MULTILINE,
)
NAMED_ERROR = re.compile(
    r"Error\b(?<=\wError)|Exception\b(?<=\wException)|BackOff\b|0x[0-9a-fA-F]{6}"
    r"|\b[45]\d\ds?\b|E[A-Z]{5,}\b"
)
DATA_FILE = re.compile(r"\.(?:csv|xlsx?|tsv|parquet|ods)\b")
CODE_FILE = re.compile(
    r"\.(?:py|js|tsx?|jsx|java|go|rs|rb|cpp|cc|cs|php|sql|css|html|sh|ya?ml|vue|kt|\w+\()(?!\w)"
    r"|\(\)|`[^`\n]{1,80}`"
)
DEVICE_CODE = re.compile(r"\b[EFH][-:]?\d{1,3}\b(?![\w.(:])")
ERROR_CODE = re.compile(
    r"\b[A-Z]{2,8}[-_]\d{2,8}\b|\b[A-Z]{2,9}\d{4,8}\b|\b[A-Z]{2,12}_[A-Z_]{3,40}"
)
CELL_FORMULA = re.compile(r"=[A-Z]{2,12}\(")
ARROWS = re.compile(r"(?:->|→)[^→\n]{1,200}?(?:->|→)")
LONG_QUOTE = re.compile('["“„«「][^"“”„»«」\\n]{80}')
TEMPLATE = re.compile(
    r"</?[a-z_]{3,20}>|\[/?[A-Z_]{3,20}\]|^#{1,4} "
    r"|^\W{0,3}(?:Context|Question|Text|Data)\b.{0,20}:",
    re.MULTILINE,
)
CHOICE_LINE = re.compile(r"\(?[A-E][.):] *\S")
SPEAKER_LINE = re.compile(
    r"(?:\[\d\d:\d\d\] *|\d\d?:\d\d *)?@?[A-Z][\w.]{0,20}(?: [A-Z][\w.]{0,20})?: \S"
)
COMPACT = re.compile("[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7a3]")
FORM = re.compile(r"^(?:Input|Output|Answer|A|Task|Instruction|Question|Q): ?", re.MULTILINE)
PLACEHOLDER = re.compile(r"\{\{?\{? ?\w+ ?\}|\{% ")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
FORMULA = re.compile(r"\d ?[-+*/^=<>%]|[\^$]\d|= ?-?\d|(?:sin|cos|tan|log|ln|exp|sqrt)\(")
QUOTED = re.compile(r"[\"'“\u2018][\w ./-]{2,40}[\"'”\u2019]")
HASHED = re.compile(r"#(?<!\S#)[A-Za-z]\w+")
QUESTION = re.compile(r"\?")
SEPARATORS = (",", "\t", "|", ";")
PROSE = ("prose", "trace")


LINES = (("diff", DIFF_LINE), ("json shown", JSON_LINE))
LINES_IN_ROWS = (("items", ITEM), ("choice lines", CHOICE_LINE), ("speakers", SPEAKER_LINE))
SHAPES = (
    ("named error", NAMED_ERROR),
    ("device code", DEVICE_CODE),
    ("error code", ERROR_CODE),
    ("cell formula", CELL_FORMULA),
    ("arrows", ARROWS),
    ("long quote", LONG_QUOTE),
    ("template", TEMPLATE),
    ("asks in a form", FORM),
    ("data file", DATA_FILE),
    ("placeholder", PLACEHOLDER),
)
SHAPES_OF_PROSE = (
    ("formula", FORMULA),
    ("names code", CODE_FILE),
    ("quotes", QUOTED),
    ("hash mention", HASHED),
    ("question", QUESTION),
)
"""Facts that one pattern tells, by where it is looked for."""

FILLING = frozenset(FILLERS.split())
FEW = 3
"""Lines of a table, items of a list, numbers: fewer are none."""

MANY = 8
"""Numbers."""


class Sight(NamedTuple):
    """What was seen: facts by name, and what else can be counted."""

    facts: frozenset[str]
    words: tuple[str, ...]
    prose: str
    code_lines: int
    items: int


def window(text: str) -> str:
    """Cut the middle out of a long text."""
    if len(text) <= 2 * WINDOW_CHARS:
        return text
    return f"{text[:WINDOW_CHARS]}\n{text[-WINDOW_CHARS:]}"


def see(text: str, groups: Phrases, openers: Phrases) -> Sight:
    """Look at a text that is no longer than the window."""
    lines = [line.strip() for line in text.replace("\u2019", "'").split("\n")]
    kinds = list(_kinds(lines))
    prose = "\n".join(line for line, kind in zip(lines, kinds, strict=True) if kind in PROSE)
    words = _words(prose)
    asked = words
    if len(words) > HEAD_WORDS + TAIL_WORDS:
        asked = words[:HEAD_WORDS] + words[-TAIL_WORDS:]
    ends = prose
    if len(prose) > HEAD_CHARS + TAIL_CHARS:
        ends = f"{prose[:HEAD_CHARS]}\n{prose[-TAIL_CHARS:]}"
    facts = {*_grouped(asked, groups), *_openings(ends, openers), *_signs(ends)}
    facts.update(_shapes("\n".join(lines), lines, kinds), _shapes_of_prose(ends, words))
    facts.update(_together(frozenset(facts)))
    facts.update(_worded(asked, ends), _shown(text))
    items = sum(map(bool, map(ITEM.match, lines)))
    return Sight(frozenset(facts), words, prose, kinds.count("code"), items)


def phrases(*tables: Mapping[str, str]) -> Phrases:
    """Turn groups of words round: from each phrase to the groups that it is in."""
    found: dict[tuple[str, ...], dict[str, None]] = {}
    for table in tables:
        for group, listed in table.items():
            for phrase in listed.split(", "):
                found.setdefault(tuple(phrase.split(" ")), {})[group] = None
    return {phrase: tuple(groups) for phrase, groups in found.items()}


def _words(text: str) -> tuple[str, ...]:
    return tuple(WORD.findall(text.lower()))


def _worded(asked: tuple[str, ...], prose: str) -> Iterator[str]:
    """Name the words one by one: alone, with the next, by their stem, in the first sentence."""
    spoken = [word for word in asked if not word.isdigit()]
    yield from (f"word: {word}" for word in spoken)
    yield from (f"pair: {one} {two}" for one, two in pairwise(spoken))
    yield from (f"stem: {word[:STEM_CHARS]}" for word in spoken if len(word) > STEM_CHARS)
    sentences = [part for part in SENTENCE_END.split(prose) if part.strip()]
    if not sentences:
        return
    first = _words(sentences[0][:SENTENCE_CHARS])
    yield from (f"in first: {word}" for word in first)
    yield f"begins: {' '.join(first[:1])}"
    yield f"begins: {' '.join(first[:2])}"
    if len(sentences) > 1:
        last = _words(sentences[-1][:SENTENCE_CHARS])
        yield from (f"in last: {word}" for word in last)
        yield f"last begins: {' '.join(last[:1])}"
        yield f"last begins: {' '.join(last[:2])}"


def _shown(text: str) -> Iterator[str]:
    """Name the words of the whole text, with what is given in it."""
    words = islice(WORD.finditer(text.lower()), SHOWN_WORDS)
    yield from (f"shown: {word[0]}" for word in words)


def _signs(prose: str) -> Iterator[str]:
    """Name the groups of a script without blanks."""
    if COMPACT.search(prose):
        for group, listed in SIGNS.items():
            if any(sign in prose for sign in listed.split(", ")):
                yield group


def _kinds(lines: list[str]) -> Iterator[str]:
    """Say of each line whether it is prose, code, an error, a log or a table."""
    fenced = False
    tabled = _tabled(lines)
    for index, line in enumerate(lines):
        fences = line.count("```")
        fenced ^= fences % 2 == 1
        if fences:
            yield "code" if line.startswith("```") else "prose"
        elif index in tabled:
            yield "table"
        elif LOG_LINE.match(line):
            yield "log"
        elif fenced or (_is_code(line) and not SPOKEN.match(line)):
            yield "code"
        elif TRACE_LINE.match(line) or RAISED.search(line):
            yield "trace"
        else:
            yield "prose"


def _is_code(line: str) -> bool:
    word = FIRST_WORD.match(line)
    if word and word[0] in CODE_WORDS and CODE_MARKS.intersection(line):
        return True
    return CODE_LINE.match(line) is not None


def _tabled(lines: list[str]) -> set[int]:
    """Return the lines of the longest run that has the same number of one separator."""
    best: set[int] = set()
    for separator in SEPARATORS:
        start = 0
        for count, run in groupby(line.count(separator) for line in lines):
            length = len(list(run))
            if length >= FEW and count >= (2 if separator == "," else 1) and length > len(best):
                best = set(range(start, start + length))
            start += length
    return best


def _grouped(words: tuple[str, ...], groups: Phrases) -> Iterator[str]:
    """Name the groups that occur, and those of which two or more phrases do."""
    seen: dict[str, set[tuple[str, ...]]] = {}
    for start in range(len(words)):
        for length in range(1, PHRASE_WORDS + 1):
            phrase = words[start : start + length]
            for group in groups.get(phrase, ()):
                seen.setdefault(group, set()).add(phrase)
    for group, distinct in seen.items():
        yield group
        if len(distinct) > 1:
            yield f"{group} x2"


def _openings(prose: str, openers: Phrases) -> Iterator[str]:
    """Name the groups with whose words sentences open, and with whose the first one does."""
    sentences = [part for part in SENTENCE_END.split(prose) if part.strip()]
    deeds = 0
    for index, sentence in enumerate((*sentences[:12], *sentences[12:][-6:])):
        clauses = CLAUSE_END.split(sentence[:400])
        when = WHEN.match(clauses[0])
        for place, clause in enumerate(clauses):
            groups = _opened(clause, openers)
            deeds += "deed" in groups
            if when and place and "deed" in groups:
                yield "when, then do"
            if place == 0:
                yield from (f"opens: {group}" for group in groups)
                if index == 0:
                    yield from (f"first: {group}" for group in groups)
    if deeds > 1:
        yield "deeds x2"
    if deeds >= FEW:
        yield "deeds x3"


def _opened(clause: str, openers: Phrases) -> set[str]:
    words = _words(clause[:100])
    while words and words[0] in FILLING:
        words = words[1:]
    found = (openers.get(words[:length], ()) for length in range(1, PHRASE_WORDS + 1))
    return {group for groups in found for group in groups}


def _together(facts: frozenset[str]) -> Iterator[str]:
    """Name the pairs of facts that say more than each alone."""
    for name, needs, refuses in TOGETHER:
        if all(need & facts for need in needs) and not refuses & facts:
            yield name


def _shapes(text: str, lines: list[str], kinds: list[str]) -> Iterator[str]:
    yield from (kind for kind in ("trace", "log", "table") if kind in kinds)
    if kinds.count("code") > 1 or "```" in text:
        yield "shows code"
    elif "code" in kinds or INLINE_CODE.search(text):
        yield "some code"
    for fact, pattern in LINES_IN_ROWS:
        if sum(map(bool, map(pattern.match, lines))) >= FEW:
            yield fact
    for fact, pattern in LINES:
        if any(map(pattern.match, lines)):
            yield fact
    for fact, pattern in SHAPES:
        if pattern.search(text):
            yield fact


def _shapes_of_prose(prose: str, words: tuple[str, ...]) -> Iterator[str]:
    if numbers := len(NUMBER.findall(prose)):
        yield "a number" if numbers < FEW else "numbers"
        if numbers >= MANY:
            yield "many numbers"
    for fact, pattern in SHAPES_OF_PROSE:
        if pattern.search(prose):
            yield fact
    if prose.rstrip().endswith("?"):
        yield "ends as question"
        if len([part for part in SENTENCE_END.split(prose) if part.strip()]) > 1:
            yield "tells, then asks"
    if len(words) < SHORT_WORDS:
        yield "short"
    if len(words) > LONG_WORDS:
        yield "long"
