"""Conversations: exchanges put together as the chat template writes them.

Owns the mix of topics, the number of turns, the system messages, the chat
template, and the encoding to token ids with one loss weight per token.
"""

import re
from dataclasses import dataclass
from random import Random

from bpe import ASSISTANT, BEGIN, END, SYSTEM, USER, Tokenizer
from grammar import HERE, read_sections
from topics import (
    Capitals,
    Exchange,
    Faq,
    OffTopic,
    SmallTalk,
    Sums,
    Tales,
    Topic,
    load_grammar,
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

RECITED = frozenset(
    {
        "faq",
        "small talk",
        "off-topic",
        "capital unknown",
        "numbers too_hard",
        "numbers too_large",
        "story unknown",
    }
)
"""Topics whose answers repeat word for word: how they go on follows from how they begin."""
CUT_SHARE = 0.7
CUT_TOKENS = 12
"""So many rows end after so many tokens of such an answer: more questions are read in the time that
it takes to learn an answer's end once more."""
FOLLOWED = ("capital forward", "capital follow_up")
RESULT_WEIGHT = 3.0
"""Loss weight of the tokens of a result, wherever it stands; others of an answer weigh 1."""
SYSTEM_SHARE = 0.15
FOLLOW_UP_SHARE = 0.5
"""How often the turn after a capital asks only "and Italy?"."""
TURN_COUNTS = (1, 2, 3, 6, 10)
TURN_SHARES = (0.74, 0.13, 0.08, 0.03, 0.02)
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
            (Faq(), 0.42),
            (SmallTalk(), 0.06),
            (Capitals("forward"), 0.08),
            (Capitals("reverse"), 0.035),
            (Capitals("confirm"), 0.08),
            (Capitals("json"), 0.025),
            (Capitals("unknown"), 0.02),
            (Sums("plus"), 0.11),
            (Sums("minus"), 0.16),
            (Sums("json"), 0.035),
            (Sums("larger"), 0.05),
            (Sums("smaller"), 0.035),
            (Sums("too_hard"), 0.015),
            (Sums("too_large"), 0.015),
            (Tales("named"), 0.05),
            (Tales("any"), 0.008),
            (Tales("unknown"), 0.008),
            (OffTopic(), 0.12),
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


def encode(conversation: Conversation, tokenizer: Tokenizer, *, cut: bool = False) -> Row:
    """Encode as the chat template would; only the answers and their ends weigh.

    Args:
        conversation: What to encode.
        tokenizer: The tokenizer.
        cut: Whether the last answer may end early, if it is one that repeats word for word.
    """
    ids = tokenizer.ids
    tokens = [ids[BEGIN]]
    if conversation.system:
        tokens += [ids[SYSTEM], *tokenizer.encode(conversation.system), ids[END]]
    weights = [0.0] * len(tokens)
    for turn in conversation.turns:
        question = [ids[USER], *tokenizer.encode(turn.question), ids[END], ids[ASSISTANT]]
        answer = tokenizer.encode(turn.answer)
        tokens += [*question, *answer, ids[END]]
        weights += [0.0] * len(question) + _answer_weights(turn, answer, tokenizer) + [1.0]
    if cut and turn.topic in RECITED and len(answer) > CUT_TOKENS:
        kept = len(tokens) - 1 - (len(answer) - CUT_TOKENS)
        tokens, weights = tokens[:kept], weights[:kept]
    return Row(tokens, weights)


def _answer_weights(turn: Exchange, answer: list[int], tokenizer: Tokenizer) -> list[float]:
    """Return a weight per answer token, higher where it overlaps the result."""
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
        end = position + len(tokenizer.tokens[token])
        weights.append(1.0 if heavy.isdisjoint(range(position, end)) else RESULT_WEIGHT)
        position = end
    return weights
