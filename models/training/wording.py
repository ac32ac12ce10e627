"""How a question is written down: case, end mark, frame and small mistakes.

Owns everything between the bare wording of the grammar ("how do i install it")
and the text a person would type ("Hey, how do I instal it?").
"""

import re
from dataclasses import dataclass
from pathlib import Path
from random import Random

from grammar import Grammar, read_sections

_WORDS = read_sections(Path(__file__).parent / "words.txt")
_QUESTION_WORDS = frozenset(_WORDS["question"])
_SHORT_WORDS = frozenset(_WORDS["short"])
_SYNONYMS = {
    word: alternatives.split(", ")
    for word, alternatives in (
        line.split(" = ")
        for line in read_sections(Path(__file__).parent / "synonyms.txt")["synonyms"]
    )
}
_LONE_I = re.compile(r"\bi\b(?!\.)")
_TYPO_MIN_LETTERS = 4
_PLAIN_WORD = re.compile(r"[a-z]+")
_SHORT_CASES = (str, str, str.capitalize, str.capitalize, str.capitalize, str.title, str.upper)
_SHORT_MARKS = ("", "", "", "", ".", "!", "!", "!!", "...", "?")
_SHORT_QUESTION_MARKS = ("", "?", "?", "??")
"""Each case and each mark is drawn evenly: a short phrase has too few letters to guess from."""
_SHORT_TYPO = 0.05


@dataclass(frozen=True, slots=True)
class Mistakes:
    """How often each kind of carelessness happens, as shares from 0 to 1."""

    lower_case: float = 0.3
    upper_case: float = 0.01
    no_end_mark: float = 0.35
    typo: float = 0.12
    dropped_word: float = 0.08
    framed: float = 0.5
    synonym: float = 0.1
    lost_word: float = 0.0


CARELESS = Mistakes()
FREE = Mistakes(framed=0.2, lost_word=0.2)
"""For free wordings: they bring their own frames, and should be understood by any of their
words."""


def misspell(text: str, random: Random) -> str:
    """Return text with one plain word swapped, shortened or doubled by a letter."""
    words = text.split(" ")
    places = [
        i
        for i, word in enumerate(words)
        if len(word) >= _TYPO_MIN_LETTERS and _PLAIN_WORD.fullmatch(word)
    ]
    if not places:
        return text
    index = random.choice(places)
    word = words[index]
    spot = random.randrange(1, len(word) - 1)
    variants = (
        word[:spot] + word[spot + 1] + word[spot] + word[spot + 2 :],
        word[:spot] + word[spot + 1 :],
        word[:spot] + word[spot] + word[spot:],
    )
    words[index] = random.choice(variants)
    return " ".join(words)


def vary_words(text: str, share: float, random: Random) -> str:
    """Return text with a share of its known words replaced by synonyms."""
    words = text.split(" ")
    for index, word in enumerate(words):
        if word in _SYNONYMS and random.random() < share:
            words[index] = random.choice(_SYNONYMS[word])
    return " ".join(words)


def drop_word(text: str, random: Random) -> str:
    """Return text without one of its small words."""
    words = text.split(" ")
    places = [i for i, word in enumerate(words) if word in _SHORT_WORDS]
    if not places or len(words) <= _TYPO_MIN_LETTERS:
        return text
    del words[random.choice(places)]
    return " ".join(words)


def normalise(question: str) -> str:
    """Return the letters and digits of a question, to compare wordings."""
    return " ".join("".join(c if c.isalnum() else " " for c in question.lower()).split())


def lose_word(text: str, random: Random) -> str:
    """Return text without one of its words, whichever it is, if enough are left."""
    words = text.split(" ")
    if len(words) > _TYPO_MIN_LETTERS:
        del words[random.randrange(len(words))]
    return " ".join(words)


def is_question(wording: str) -> bool:
    """Tell whether the last clause starts like a question."""
    clause = re.split(r"[:,!.] ", wording)[-1]
    return clause.split(" ", 1)[0] in _QUESTION_WORDS


def sentence_case(text: str) -> str:
    """Return text with a capital first letter and capital I."""
    text = _LONE_I.sub("I", text)
    return text[:1].upper() + text[1:]


@dataclass(frozen=True, slots=True)
class Writer:
    """Turns bare wordings into typed questions."""

    grammar: Grammar
    mistakes: Mistakes = CARELESS
    frames: str = "frames"

    def write(self, wording: str, random: Random, *, exact: bool = False) -> str:
        """Return one typed form of the wording.

        Args:
            wording: Lower case, but for names, and without an end mark.
            random: Source of all choices.
            exact: True if letters matter (sums, JSON): no typo, no dropped word.
        """
        mistakes = self.mistakes
        question = is_question(wording)
        if not exact:
            wording = vary_words(wording, mistakes.synonym, random)
        if not exact and random.random() < mistakes.dropped_word:
            wording = drop_word(wording, random)
        if not exact and random.random() < mistakes.lost_word:
            wording = lose_word(wording, random)
        if not exact and random.random() < mistakes.typo:
            wording = misspell(wording, random)
        if random.random() < mistakes.framed or self.frames != "frames":
            wording = self._frame(random, exact=exact).replace("@", wording)
        if random.random() >= mistakes.no_end_mark:
            wording += "?" if question else random.choice((".", "", ".", "!", "?"))
        return self._case(wording, random)

    def _frame(self, random: Random, *, exact: bool) -> str:
        """Return a frame; where numbers matter, one without a number of its own."""
        while True:
            frame = self.grammar.draw_named(self.frames, random)
            if not exact or not any(c.isdigit() for c in frame):
                return frame

    def write_short(self, wording: str, random: Random) -> str:
        """Return one typed form of a phrase that stands alone, in any case, with any mark."""
        marks = _SHORT_QUESTION_MARKS if is_question(wording) else _SHORT_MARKS
        if random.random() < _SHORT_TYPO:
            wording = misspell(wording, random)
        return random.choice(_SHORT_CASES)(wording) + random.choice(marks)

    def _case(self, text: str, random: Random) -> str:
        draw = random.random()
        if draw < self.mistakes.upper_case:
            return text.upper()
        if draw < self.mistakes.upper_case + self.mistakes.lower_case:
            return text.lower()
        return sentence_case(text)
