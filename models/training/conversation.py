"""Conversations: exchanges put together as the chat template writes them.

Owns the mix of topics, the number of turns, the system messages, the chat
template, and the encoding to token ids with one loss weight per token.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from bpe import ASSISTANT, BEGIN, END, SYSTEM, USER, Tokenizer
from grammar import HERE, read_sections
from topics import (
    REFUSALS,
    Capitals,
    Exchange,
    Faq,
    OffTopic,
    SmallTalk,
    Sums,
    Tales,
    Topic,
    load_grammar,
    read_hard,
)
from wording import Writer, sentence_case

CHAT_TEMPLATE = (
    "{{ '" + BEGIN + "' }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ '" + SYSTEM + "' }}"
    "{% elif message['role'] == 'assistant' %}{{ '" + ASSISTANT + "' }}"
    "{% else %}{{ '" + USER + "' }}{% endif %}"
    "{{ message['content'] | trim }}{{ '" + END + "' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '" + ASSISTANT + "' }}{% endif %}"
)

CUT_SHARE = 0.85
CUT_TOKENS = 2
"""So many rows end so many tokens after the one that tells their answer from all others that are
recited word for word: more questions are read in the time that it takes to learn an answer's end
once more."""
FOLLOWED = ("capital forward", "capital follow_up")
RESULT_WEIGHT = 3.0
"""Loss weight of the tokens of a result, wherever it stands, and of those that tell a recited
answer from the others; the rest of an answer weighs 1."""
SYSTEM_SHARE = 0.15
FOLLOW_UP_SHARE = 0.7
"""How often the turn after a capital asks only "and Italy?"."""
TURN_COUNTS = (1, 2, 3, 6, 10)
TURN_SHARES = (0.85, 0.08, 0.045, 0.015, 0.01)
"""Most conversations are short, as steps with short rows are the cheapest."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns with an optional system message (empty for none)."""

    system: str
    turns: tuple[Exchange, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids and, for each, the loss weight of predicting it."""

    tokens: list[int]
    weights: list[float]


class Conversations:
    """Draws training conversations from all topics."""

    def __init__(self) -> None:
        """Load every data file."""
        self.writer = Writer(load_grammar())
        self._systems = read_sections(HERE / "systems.txt")["systems"]
        self._follow_up = Capitals("follow_up")
        # Topics and how often they are drawn, relative to one another.
        self._mix: list[tuple[Topic, float]] = [
            (Faq(hard=read_hard()), 0.90),
            (SmallTalk(), 0.05),
            (Capitals("forward"), 0.06),
            (Capitals("reverse"), 0.045),
            (Capitals("confirm"), 0.06),
            (Capitals("json"), 0.035),
            (Capitals("unknown"), 0.02),
            (Sums("plus"), 0.065),
            (Sums("minus"), 0.085),
            (Sums("json"), 0.045),
            (Sums("larger"), 0.045),
            (Sums("smaller"), 0.035),
            (Sums("too_hard"), 0.015),
            (Sums("too_large"), 0.015),
            (Tales("named"), 0.055),
            (Tales("any"), 0.008),
            (Tales("unknown"), 0.01),
            (OffTopic(), 0.15),
        ]

    def draw(self, random: Random) -> Conversation:
        """Return one conversation."""
        turns = random.choices(TURN_COUNTS, TURN_SHARES)[0]
        topics = [topic for topic, _ in self._mix]
        shares = [share for _, share in self._mix]
        chosen = random.choices(topics, shares, k=turns)
        exchanges: list[Exchange] = []
        for topic in chosen:
            after_capital = exchanges and exchanges[-1].topic in FOLLOWED
            follows = after_capital and random.random() < FOLLOW_UP_SHARE
            source = self._follow_up if follows else topic
            exchanges.append(source.draw(random, self.writer))
        system = self._system(random) if random.random() < SYSTEM_SHARE else ""
        return Conversation(system, tuple(exchanges))

    def _system(self, random: Random) -> str:
        wording = self.writer.grammar.draw(random.choice(self._systems), random)
        return sentence_case(wording) + random.choice((".", ""))


class Encoder:
    """Encodes conversations as the chat template would; only the answers and their ends weigh."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Learn by which token each recited answer is told from the others."""
        self._tokenizer = tokenizer
        recited = {*Faq(0).answers.values(), *REFUSALS}
        self._told_by = told_apart({text: tokenizer.encode(text) for text in recited})

    def encode(self, conversation: Conversation, *, cut: bool = False) -> Row:
        """Return the row of a conversation.

        Args:
            conversation: What to encode.
            cut: Whether the last answer may end early, if it is one that repeats word for word.
        """
        ids = self._tokenizer.ids
        tokens = [ids[BEGIN]]
        if conversation.system:
            tokens += [ids[SYSTEM], *self._tokenizer.encode(conversation.system), ids[END]]
        weights = [0.0] * len(tokens)
        answer: list[int] = []
        for turn in conversation.turns:
            asked = self._tokenizer.encode(turn.question)
            question = [ids[USER], *asked, ids[END], ids[ASSISTANT]]
            answer = self._tokenizer.encode(turn.answer)
            tokens += [*question, *answer, ids[END]]
            weights += [0.0] * len(question) + self._weights(turn, answer) + [1.0]
        told_by = self._told_by.get(turn.answer)
        if cut and told_by is not None:
            kept = min(told_by + 1 + CUT_TOKENS, len(answer) + 1)
            whole = len(tokens) - 1 - len(answer)
            tokens, weights = tokens[: whole + kept], weights[: whole + kept]
        return Row(tokens, weights)

    def _weights(self, turn: Exchange, answer: list[int]) -> list[float]:
        """Return a weight per answer token, higher where the answer is decided."""
        told_by = self._told_by.get(turn.answer)
        if told_by is not None:
            decided = min(told_by + 1, len(answer))
            return [RESULT_WEIGHT] * decided + [1.0] * (len(answer) - decided)
        if not turn.result:
            return [1.0] * len(answer)
        text, result = turn.answer.encode(), turn.result.encode()
        heavy = {
            place
            for found in re.finditer(re.escape(result), text)
            for place in range(found.start(), found.end())
        }
        weights = []
        position = 0
        for token in answer:
            end = position + len(self._tokenizer.tokens[token])
            weights.append(1.0 if heavy.isdisjoint(range(position, end)) else RESULT_WEIGHT)
            position = end
        return weights


def told_apart(answers: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Return by which of its tokens, counted from 0, each answer is told from all the others.

    One that is the beginning of another is told from it by its end, one token behind its last.
    """
    told = {}
    for text, own in answers.items():
        others = [other for name, other in answers.items() if name != text]
        told[text] = max((shared(own, other) for other in others), default=0)
    return told


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two texts have in common at their beginning."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
