"""Free wordings of the questions in faq.txt, and of others, not drawn from the grammar.

Owns the meaning of paraphrases.jsonl, and which of its lines are kept out of
training to measure what free wordings come to.
"""

import json
import zlib
from collections import defaultdict
from pathlib import Path

from grammar import HERE
from wording import normalise

PATH = HERE / "paraphrases.jsonl"
OFF = "off"
"""The entry of what is off every topic."""
HELD_OUT_ONE_IN = 12

_END_MARKS = " .?!"


def is_held_out(question: str) -> bool:
    """Tell whether a paraphrase is kept out of training; its words alone decide that."""
    return zlib.crc32(normalise(question).encode()) % HELD_OUT_ONE_IN == 0


def read_paraphrases(path: Path = PATH) -> dict[str, list[str]]:
    """Return the paraphrases by entry of faq.txt; none if there is no such file.

    Raises:
        ValueError: A line is not an object with an entry and a question.
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for number, line in enumerate(text.splitlines(), 1):
        try:
            told = json.loads(line)
            found[told["entry"]].append(told["question"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            message = f'{path.name}:{number}: not {{"entry": …, "question": …}}: {line!r}'
            raise ValueError(message) from error
    return dict(found)


def bare(question: str) -> str:
    """Return a typed question as the grammar writes them: no end mark, no capital of a sentence."""
    text = question.strip().rstrip(_END_MARKS)
    first, space, rest = text.partition(" ")
    if first[1:].islower() or (len(first) == 1 and first != "I"):
        first = first.lower()
    return first + space + rest
