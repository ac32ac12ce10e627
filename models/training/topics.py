"""What the model is taught: one class per topic, each draws question and answer.

Owns the data files' meaning (faq.txt, smalltalk.txt, capitals.txt, sums.txt, offtopic.txt),
the held-out pairs of numbers and the texts of the honest refusals. What stories are made of is
stories.py's, and the free wordings are paraphrases.py's.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Protocol

from grammar import HERE, Grammar, read_sections, seeded
from paraphrases import OFF, bare, is_held_out, read_paraphrases
from stories import Stories
from wording import FREE, Writer

LARGEST_NUMBER = 99
LARGE_SHARE = 0.85
LARGE = (199, 999, 999, 9999, 100_000)
"""Up to one of these reach the numbers that are too large, so that many have three digits."""
HELD_OUT_PAIRS = 500
"""A tenth of all pairs of numbers, in both orders, is never trained on, so it can be tested."""
HELD_OUT_SEED = 2024

REFUSAL = (
    "I do not know that. See llmdispatcher --help, or bring a real model: "
    'llmdispatcher ask --model FILE.gguf "your question"'
)
TOO_HARD = (
    "I only add and subtract numbers from 0 to 99. For more see llmdispatcher --help "
    "and bring a real model with --model FILE.gguf"
)
NO_STORY = (
    "I only know stories about some animals and things, such as: tell me a story about a fox. "
    "For more see llmdispatcher --help and bring a real model with --model FILE.gguf"
)
REFUSALS = (REFUSAL, TOO_HARD, NO_STORY)

PARAPHRASE_SHARE = 0.3
"""How often a question about llmdispatcher is a free wording, where there is one."""
OFF_SHARE = 0.6
"""How often a question off every topic is one."""
DRILL = 4.0
"""How much more often than the others a pattern is drawn that was always answered wrongly."""
HARD = HERE / "hard.json"


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question with its answer; `result` is what is hardest in the answer."""

    question: str
    answer: str
    topic: str
    result: str = ""


class Topic(Protocol):
    """Draws exchanges."""

    def draw(self, random: Random, writer: Writer) -> Exchange:
        """Return one exchange, worded by the writer."""


def load_grammar() -> Grammar:
    """Return the grammar with the shared phrases and the things to ask about."""
    off = read_sections(HERE / "offtopic.txt")
    named = {name: off[name] for name in ("work", "babble")}
    return Grammar(read_sections(HERE / "phrases.txt") | named)


def read_hard(path: Path = HARD) -> dict[str, float]:
    """Return the share of wrong answers to each pattern of faq.txt, as hardness.py found it."""
    told: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return told


class Faq:
    """Questions about llmdispatcher, each with one true answer."""

    def __init__(
        self,
        paraphrase_share: float = PARAPHRASE_SHARE,
        hard: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Read faq.txt and the paraphrases.

        Args:
            paraphrase_share: How often a free wording is drawn, from 0 to 1.
            hard: Patterns to draw more often, and the share of wrong answers to each.

        Raises:
            ValueError: A paraphrase is of no entry.
        """
        self.answers: dict[str, str] = {}
        self.patterns: dict[str, list[str]] = {}
        for name, lines in read_sections(HERE / "faq.txt").items():
            self.answers[name] = lines[0].removeprefix("= ").replace("\\n", "\n")
            self.patterns[name] = lines[1:]
        self.names = list(self.answers)
        self._weights = {
            name: [1.0 + DRILL * hard.get(pattern, 0.0) for pattern in patterns]
            for name, patterns in self.patterns.items()
        }
        self._shares = [sum(w) / len(w) for w in self._weights.values()]
        self.paraphrase_share = paraphrase_share
        self.paraphrases: dict[str, list[str]] = {name: [] for name in self.names}
        self.held_out: list[Exchange] = []
        for name, questions in read_paraphrases().items():
            if name == OFF:
                continue
            if name not in self.answers:
                message = f"paraphrases.jsonl: faq.txt has no entry {name!r}"
                raise ValueError(message)
            for question in questions:
                if is_held_out(question):
                    self.held_out.append(Exchange(question, self.answers[name], "faq"))
                else:
                    self.paraphrases[name].append(question)

    def draw(self, random: Random, writer: Writer) -> Exchange:
        """Return one exchange about a random entry."""
        (name,) = random.choices(self.names, self._shares)
        return self.draw_entry(name, random, writer)

    def draw_entry(self, name: str, random: Random, writer: Writer) -> Exchange:
        """Return one exchange about the named entry."""
        free = self.paraphrases[name]
        if free and random.random() < self.paraphrase_share:
            wording = bare(random.choice(free))
            writer = replace(writer, mistakes=FREE)
        else:
            (pattern,) = random.choices(self.patterns[name], self._weights[name])
            wording = writer.grammar.draw(pattern, random)
        return Exchange(writer.write(wording, random), self.answers[name], "faq")


class SmallTalk:
    """Greetings, thanks and the like, which people type alone and in any case."""

    def __init__(self) -> None:
        """Read smalltalk.txt, and the answers of faq.txt."""
        self.patterns = read_sections(HERE / "smalltalk.txt")
        self.answers = Faq(0).answers
        self.names = list(self.patterns)

    def draw(self, random: Random, writer: Writer) -> Exchange:
        """Return one short phrase and its answer."""
        name = random.choices(self.names, [len(self.patterns[name]) for name in self.names])[0]
        wording = writer.grammar.draw(random.choice(self.patterns[name]), random)
        return Exchange(writer.write_short(wording, random), self.answers[name], "small talk")


def _pairs(lines: list[str]) -> dict[str, str]:
    return dict(line.split(" = ", 1) for line in lines)


@dataclass(slots=True)
class Capitals:
    """Countries and capitals: forward, backward, yes or no, as JSON, and unknown places.

    The kind "follow_up" asks only "and Italy?", after another question of the kind "forward".
    """

    kind: str
    sections: dict[str, list[str]] = field(
        default_factory=lambda: read_sections(HERE / "capitals.txt")
    )
    capitals: dict[str, str] = field(init=False)
    aliases: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        """Index the countries."""
        self.capitals = _pairs(self.sections["countries"])
        self.aliases = _pairs(self.sections["aliases"])

    def draw(self, random: Random, writer: Writer) -> Exchange:
        """Return one exchange of this kind about a random country."""
        if self.kind == "unknown":
            place = random.choice(self.sections["unknown"])
            return self._word(random, writer, "forward", (place, ""), (REFUSAL, ""))
        country = random.choice(list(self.capitals))
        return self.draw_country(country, random, writer)

    def draw_country(self, country: str, random: Random, writer: Writer) -> Exchange:
        """Return one exchange of this kind about the named country."""
        capital = self.capitals[country]
        sentence = f"The capital of {country} is {capital}."
        asked = self._asked_name(country, random)
        if self.kind == "reverse":
            answer = f"{capital} is the capital of {country}."
            return self._word(random, writer, "reverse", (capital, ""), (answer, country))
        if self.kind == "confirm":
            other = random.choice(list(self.capitals.values()))
            named = random.choice((capital, other))
            told = f"{capital}, so {'yes' if named == capital else 'no'}"
            # Both names first: the verdict is then read off them, and need not be guessed before.
            answer = f"{named}? The capital of {country} is {told}."
            return self._word(random, writer, "confirm", (named, asked), (answer, told))
        if self.kind == "json":
            answer = json.dumps({"country": country.removeprefix("the "), "capital": capital})
            return self._word(random, writer, "json", (asked, ""), (answer, capital))
        return self._word(random, writer, self.kind, (asked, ""), (sentence, capital))

    def _asked_name(self, country: str, random: Random) -> str:
        """Return how a person may name the country: an alias, or without its article."""
        names = [country, country, country.removeprefix("the ")]
        names += [alias for alias, meant in self.aliases.items() if meant == country]
        return random.choice(names)

    def _word(
        self,
        random: Random,
        writer: Writer,
        section: str,
        names: tuple[str, str],
        answer: tuple[str, str],
    ) -> Exchange:
        wording = writer.grammar.draw(random.choice(self.sections[section]), random)
        wording = wording.replace("@", names[0]).replace("%", names[1])
        question = writer.write(wording, random)
        return Exchange(question, answer[0], f"capital {self.kind}", answer[1])


def held_out_pairs() -> frozenset[tuple[int, int]]:
    """Return the pairs of numbers that no training text adds or subtracts."""
    every = [(a, b) for a in range(LARGEST_NUMBER + 1) for b in range(a + 1)]
    drawn = seeded(HELD_OUT_SEED).sample(every, HELD_OUT_PAIRS)
    # a + b gives b + a away, so both orders go.
    return frozenset(drawn) | frozenset((b, a) for a, b in drawn)


@dataclass(slots=True)
class Sums:
    """Arithmetic and comparisons of two numbers from 0 to 99."""

    kind: str
    sections: dict[str, list[str]] = field(default_factory=lambda: read_sections(HERE / "sums.txt"))
    held_out: frozenset[tuple[int, int]] = field(default_factory=held_out_pairs)

    def draw(self, random: Random, writer: Writer) -> Exchange:
        """Return one exchange about a random pair that is not held out."""
        if self.kind == "too_large":
            pair = (self._number(random), random.randint(LARGEST_NUMBER + 1, random.choice(LARGE)))
            return self.draw_pair(pair if random.random() < 0.3 else pair[::-1], random, writer)
        while True:
            pair = (self._number(random), self._number(random))
            if pair not in self.held_out:
                return self.draw_pair(pair, random, writer)

    def draw_pair(self, pair: tuple[int, int], random: Random, writer: Writer) -> Exchange:
        """Return one exchange about the given pair."""
        a, b = pair
        section = random.choice(("plus", "minus")) if self.kind == "too_large" else self.kind
        wording = writer.grammar.draw(random.choice(self.sections[section]), random)
        wording = wording.replace("@", str(a)).replace("%", str(b))
        answer, result = self._answer(a, b)
        question = writer.write(wording, random, exact=True)
        return Exchange(question, answer, f"numbers {self.kind}", result)

    def _number(self, random: Random) -> int:
        # Small numbers more often: people type them. But most pairs are of two large ones, which
        # are the hard ones.
        largest = LARGEST_NUMBER if random.random() < LARGE_SHARE else random.choice((9, 20))
        return random.randint(0, largest)

    def _answer(self, a: int, b: int) -> tuple[str, str]:
        """Return the answer to this kind of question and its result part."""
        if self.kind == "plus":
            return f"{a} + {b} = {a + b}", str(a + b)
        if self.kind == "minus":
            return f"{a} - {b} = {a - b}", str(a - b)
        if self.kind == "json":
            return json.dumps({"a": a, "b": b, "sum": a + b}), str(a + b)
        if self.kind in {"too_hard", "too_large"}:
            return TOO_HARD, ""
        # Which of them it is first, as with capitals.
        first, last = (max(a, b), a > b) if self.kind == "larger" else (min(a, b), a < b)
        told = f"{first if a != b else 'neither'} is {self.kind}, so {'yes' if last else 'no'}"
        return f"Of {a} and {b}, {told}.", told


class Tales:
    """Short stories about a subject, about any, and the refusal where there is none to tell."""

    def __init__(self, kind: str) -> None:
        """Take the kind: "named", "any" or "unknown"."""
        self.kind = kind
        self.stories = Stories()
        self._off = read_sections(HERE / "offtopic.txt")

    def draw(self, random: Random, writer: Writer) -> Exchange:
        """Return one exchange of this kind."""
        subject = random.choice(self.stories.subjects)
        if self.kind == "any":
            question = writer.write(self.stories.ask_any(random), random)
            return Exchange(question, self.stories.tell(subject, random), "story any")
        if self.kind == "unknown":
            names = self._off[random.choice(("thing", "person", "place", "work"))]
            others = [name for name in names if name not in self.stories.subjects]
            wording = self.stories.ask_about(random.choice(others), random)
            return Exchange(writer.write(wording, random), NO_STORY, "story unknown")
        return self.draw_subject(subject, random, writer)

    def draw_subject(self, subject: str, random: Random, writer: Writer) -> Exchange:
        """Return one exchange about the named subject."""
        question = writer.write(self.stories.ask(subject, random), random)
        return Exchange(question, self.stories.tell(subject, random), "story named", subject)


class OffTopic:
    """Everything else, answered by a refusal that says what to do instead."""

    def __init__(self, paraphrase_share: float = OFF_SHARE) -> None:
        """Read offtopic.txt and the paraphrases; their share is as in `Faq`."""
        self.sections = read_sections(HERE / "offtopic.txt")
        self.paraphrase_share = paraphrase_share
        free = read_paraphrases().get(OFF, [])
        self.paraphrases = [question for question in free if not is_held_out(question)]
        self.held_out = [Exchange(q, REFUSAL, "off-topic") for q in free if is_held_out(q)]

    def draw(self, random: Random, writer: Writer) -> Exchange:
        """Return one question the model cannot answer, and the refusal."""
        if self.paraphrases and random.random() < self.paraphrase_share:
            wording = bare(random.choice(self.paraphrases))
            return Exchange(writer.write(wording, random), REFUSAL, "off-topic")
        wording = writer.grammar.draw(random.choice(self.sections["patterns"]), random)
        for mark, name in (("@", "thing"), ("%", "person"), ("$", "place")):
            while mark in wording:
                wording = wording.replace(mark, random.choice(self.sections[name]), 1)
        return Exchange(writer.write(wording, random), REFUSAL, "off-topic")
