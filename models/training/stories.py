"""Short stories: what they are made of, and a judge of what a model tells.

Owns the meaning of stories.txt. A story has a beginning, a problem, a friend who
helps, and an ending. The judge does not ask for a story that the generator could
have told: a model is to compose, so it asks for what makes a story of this kind
whole.
"""

import re
import zlib
from collections import Counter
from functools import cached_property
from random import Random

from grammar import HERE, Grammar, read_sections

THEMES_OF_A_SUBJECT = 5
"""A fox has other adventures than a teapot: else the likeliest story would be one for all."""
CLOSING_SHARE = 0.4
"""How often a story ends with a line that any story could end with, after its own."""
FEWEST_SENTENCES, MOST_SENTENCES = 3, 5
OPENING_WORDS = 2
"""So many words tell a beginning and an ending from other sentences."""

_SENTENCE = re.compile(r"[^.!?]+(?:[.!?]+|$)")
_WORD = re.compile(r"[a-z']+")
_TWICE = re.compile(r"\b(\w+) \1\b", re.IGNORECASE)
_FRIEND = re.compile(r"\b([aA]) %")


def article(noun: str) -> str:
    """Return "an" for a noun that starts with a vowel's sound, else "a"."""
    return "an" if noun[0] in "aeio" or noun.startswith("um") else "a"


def sentences(text: str) -> list[str]:
    """Cut a text behind its end marks; what is left over at the end is a sentence, too."""
    return [part.strip() for part in _SENTENCE.findall(text) if part.strip()]


def words(text: str) -> list[str]:
    """Return the words of a text in lower case."""
    return _WORD.findall(text.lower())


class Stories:
    """Tells stories about the subjects of stories.txt, and judges those of others."""

    def __init__(self) -> None:
        """Read stories.txt."""
        self.sections = read_sections(HERE / "stories.txt")
        self.subjects = [*self.sections["animals"], *self.sections["things"]]
        self.friends = self.sections["friends"]
        self.themes = [n.split()[1] for n in self.sections if n.startswith("problem ")]
        self.plurals = dict(line.split(" = ") for line in self.sections["plurals"])
        self._grammar = Grammar({"place": self.sections["place"]})

    def themes_of(self, subject: str) -> list[str]:
        """Return the themes of the stories about a subject, always the same."""
        order = sorted(self.themes, key=lambda theme: zlib.crc32(f"{subject} {theme}".encode()))
        return order[:THEMES_OF_A_SUBJECT]

    def plural(self, subject: str) -> str:
        """Return the plural of a subject."""
        return self.plurals.get(subject, f"{subject}s")

    def tell(self, subject: str, random: Random) -> str:
        """Return a story about a subject."""
        theme = random.choice(self.themes_of(subject))
        friend = random.choice([name for name in self.friends if name != subject])
        names = ["begin", f"problem {theme}", f"help {theme}", f"end {theme}"]
        if random.random() < CLOSING_SHARE:
            names.append("end")
        lines = (self._grammar.draw(random.choice(self.sections[name]), random) for name in names)
        return _named(" ".join(lines), subject, friend)

    def ask(self, subject: str, random: Random) -> str:
        """Return a bare wording that asks for a story about a subject."""
        named = f"{article(subject)} {subject}"
        return self._ask(subject, named, self.plural(subject), random)

    def ask_about(self, other: str, random: Random) -> str:
        """Return a bare wording that asks for a story about somebody or something else."""
        named = random.choice(("", "the ", "a ")) + other
        return self._ask(other, named, other, random)

    def _ask(self, name: str, named: str, plural: str, random: Random) -> str:
        wording = self._grammar.draw(random.choice(self.sections["ask"]), random)
        return wording.replace("a @", named).replace("@", name).replace("$", plural)

    def ask_any(self, random: Random) -> str:
        """Return a bare wording that asks for a story and leaves open what about."""
        return self._grammar.draw(random.choice(self.sections["ask_any"]), random)

    # -- the judge -----------------------------------------------------------------------------

    @cached_property
    def _lines(self) -> dict[str, list[str]]:
        """Each wording of each section that stories are made of."""
        made = [name for name in self.sections if name.split()[0] in {"begin", "problem", "help"}]
        made += [name for name in self.sections if name.split()[0] == "end"]
        return {
            name: [line for pattern in self.sections[name] for line in self._grammar.every(pattern)]
            for name in made
        }

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """Return every word that a story may hold."""
        lines = [line for lines in self._lines.values() for line in lines]
        return frozenset(words(" ".join(lines))) | {"an"} | {*self.subjects, *self.friends}

    @cached_property
    def _theme_words(self) -> dict[str, str]:
        """Words that occur in one theme alone, and in which."""
        found: dict[str, set[str]] = {}
        for name, lines in self._lines.items():
            for word in set(words(" ".join(lines))):
                found.setdefault(word, set()).add(name.split()[1] if " " in name else "")
        names = {*self.subjects, *self.friends}
        return {
            w: min(t) for w, t in found.items() if len(t) == 1 and "" not in t and w not in names
        }

    def _openings(self, prefix: str) -> frozenset[tuple[str, ...]]:
        lines = [
            line for n, lines in self._lines.items() if n.split()[0] == prefix for line in lines
        ]
        return frozenset(tuple(line.lower().split()[:OPENING_WORDS]) for line in lines)

    @cached_property
    def _beginnings(self) -> frozenset[tuple[str, ...]]:
        return self._openings("begin")

    @cached_property
    def _endings(self) -> frozenset[tuple[str, ...]]:
        return self._openings("end")

    def faults(self, text: str, subject: str = "") -> list[str]:
        """Return what is wrong with a story; nothing for one that is well formed.

        Args:
            text: What the model told.
            subject: What it was asked to be about; empty where that was left open.
        """
        told = sentences(text)
        if not told:
            return ["nothing told"]
        subject = subject or self._subject_of(told[0])
        found = _faults_of_form(told)
        unknown = sorted({word for word in words(text) if word not in self.vocabulary})
        found += [f"unknown word {word}" for word in unknown]
        found += self._faults_of_names(told, subject)
        found += self._faults_of_plot(told, subject)
        return found

    def _subject_of(self, sentence: str) -> str:
        """Return the subject that a first sentence brings in; empty if none."""
        return next((word for word in words(sentence) if word in self.subjects), "")

    def _faults_of_names(self, told: list[str], subject: str) -> list[str]:
        """Look who is in the story: its subject from the start, and one friend, brought in once."""
        if not subject or subject not in words(told[0]):
            return ["the first sentence does not name the subject"]
        found: list[str] = []
        everything = words(" ".join(told))
        ordinary = frozenset(
            words(" ".join(line for lines in self._lines.values() for line in lines))
        )
        others = {w for w in everything if w in self.friends and w != subject}
        strangers = {w for w in everything if w in self.subjects} - ordinary - others - {subject}
        found += [f"a stranger: {word}" for word in sorted(strangers)]
        if len(others) > 1:
            found.append(f"more than one friend: {', '.join(sorted(others))}")
        for name in sorted({subject} | others):
            at = everything.index(name)
            if "the" in everything[max(0, at - 1) : at]:
                found.append(f"the {name} was not brought in")
            if everything[at - 1] in {"a", "an"} and everything[at - 1] != article(name):
                found.append(f"{everything[at - 1]} {name}")
        return found

    def _faults_of_plot(self, told: list[str], subject: str) -> list[str]:
        """Look for a beginning, an ending, and one adventure between them."""
        found: list[str] = []
        if _opening(told[0], subject, "") not in self._beginnings:
            found.append("no beginning")
        friends = [name for name in self.friends if name != subject]
        last = {_opening(told[-1], subject, friend) for friend in friends}
        if not last & self._endings:
            found.append("no ending")
        themes = Counter(
            self._theme_words[w] for w in words(" ".join(told[1:])) if w in self._theme_words
        )
        if len(themes) > 1:
            found.append(f"more than one adventure: {', '.join(sorted(themes))}")
        if not themes:
            found.append("no adventure")
        return found


def _named(text: str, subject: str, friend: str) -> str:
    """Put the names in, with the article that each of them takes."""
    text = _FRIEND.sub(lambda found: found[1] + article(friend)[1:] + " %", text)
    return text.replace("@", subject).replace("%", friend)


def _opening(sentence: str, subject: str, friend: str) -> tuple[str, ...]:
    """Return the first words of a sentence, with marks in place of the names."""
    marks = {subject: "@", friend: "%"}
    first = sentence.lower().split()[:OPENING_WORDS]
    return tuple(marks.get(word, word) for word in first)


def _faults_of_form(told: list[str]) -> list[str]:
    """Look at the number of sentences, their first letters and marks, and at repetitions."""
    found: list[str] = []
    if not FEWEST_SENTENCES <= len(told) <= MOST_SENTENCES:
        found.append(f"{len(told)} sentences")
    found += [f"no capital: {s}" for s in told if not s[0].isupper()]
    found += [f"no end mark: {s}" for s in told if s[-1] not in ".!?"]
    if len(set(told)) < len(told):
        found.append("a sentence twice")
    if any(_TWICE.search(sentence) for sentence in told):
        found.append("a word twice in a row")
    return found
