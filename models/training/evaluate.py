"""Scores the model file through llama.cpp, as a user would meet it.

Owns the questions of every score and the two parity checks. Answers are drawn
at temperature 0 through the chat template in the file; a score is the share of
answers that match exactly, unless the table says otherwise.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import llama_cpp
import numpy as np
import torch
from bpe import Tokenizer
from conversation import Conversations
from grammar import seeded
from llama_cpp import Llama
from network import Network
from topics import HERE, REFUSAL, Capitals, Exchange, Faq, OffTopic, SmallTalk, Sums, load_grammar
from train import normalise
from wording import CARELESS, Writer

EVALUATION_SEED = 77
SAMPLE = 300
"""Questions per score; the standard error is then below three points."""
ANSWER_MAX_TOKENS = 120
PARITY_STRINGS = 12_000
PARITY_LONGEST_CHARACTERS = 40
LOGIT_CONVERSATIONS = 20

ALPHABETS = (
    "abc XYZ 0129 .,;!?'\"-_()[]{}<>/\\@#$%^&*+=~`|",
    " \t\n\r  \xa0\u2003\u3000",
    "éàüßñçøåœæÉÖ żłšč",
    "αβγδ ΑΒΓ жизнь Привет",
    "日本語中文한국어 ひらがなカタカナ",
    "مرحبا שלום नमस्ते สวัสดี",
    "٠١٢٣ ²³½ ⅷ ①",
    "😀🎉🚀👩\u200d💻 ❤️ ☃ €£¥ ∑√∞ →",
    "e\u0301a\u0308 's 't 're 'll n't don't it's",
)


@dataclass(frozen=True, slots=True)
class Score:
    """One line of the table."""

    name: str
    right: int
    asked: int

    @property
    def share(self) -> float:
        """Share of right answers, from 0 to 1."""
        return self.right / max(1, self.asked)


class Answerer:
    """Asks the model file questions through llama.cpp."""

    def __init__(self, path: Path, threads: int) -> None:
        """Load the file."""
        self.llama = Llama(str(path), n_ctx=512, n_threads=threads, verbose=False)
        self.answered = 0
        self.ended = 0

    def ask(self, question: str, history: Sequence[Exchange] = (), system: str = "") -> str:
        """Return the most likely answer to a question after earlier turns."""
        messages: list[Any] = []
        if system:
            messages.append({"role": "system", "content": system})
        for turn in history:
            messages.append({"role": "user", "content": turn.question})
            messages.append({"role": "assistant", "content": turn.answer})
        messages.append({"role": "user", "content": question})
        reply: Any = self.llama.create_chat_completion(
            messages, temperature=0.0, max_tokens=ANSWER_MAX_TOKENS
        )
        choice = reply["choices"][0]
        self.answered += 1
        self.ended += choice["finish_reason"] == "stop"
        return str(choice["message"]["content"])

    def score(self, name: str, exchanges: Iterable[Exchange]) -> Score:
        """Ask every question; an answer counts if it is exactly the expected one."""
        results = [self.ask(e.question) == e.answer for e in exchanges]
        return Score(name, sum(results), len(results))


def read_held_out() -> list[dict[str, str]]:
    """Return the questions that were written apart from the grammar."""
    text = (HERE / "heldout.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def held_out_scores(
    answerer: Answerer, seen: frozenset[str]
) -> tuple[list[Score], list[tuple[str, str]]]:
    """Score the held-out questions: right if the expected text is in the answer.

    Args:
        answerer: The loaded model.
        seen: Normalised questions of the training text; they do not count here.
    """
    marks: dict[str, list[bool]] = {"known": [], "off-topic": []}
    wrong: list[tuple[str, str]] = []
    for entry in read_held_out():
        if normalise(entry["question"]) in seen:
            continue
        answer = answerer.ask(entry["question"])
        right = entry["expect"] in answer
        marks[entry["kind"]].append(right)
        if not right:
            wrong.append((entry["question"], answer))
    names = {"known": "Held-out paraphrases", "off-topic": "Held-out off-topic, refused"}
    return [Score(names[k], sum(m), len(m)) for k, m in marks.items()], wrong


def _small_talk_scores(answerer: Answerer, writer: Writer, random: Random) -> list[Score]:
    """Score short phrases, alone and as a later turn, and a capital asked as "and Italy?"."""
    small, faq = SmallTalk(), Faq()
    first = [small.draw(random, writer) for _ in range(SAMPLE)]
    later, followed = 0, 0
    capital, follow_up = Capitals("forward"), Capitals("follow_up")
    for _ in range(SAMPLE):
        turn, history = small.draw(random, writer), [faq.draw(random, writer)]
        later += answerer.ask(turn.question, history) == turn.answer
        turn, history = follow_up.draw(random, writer), [capital.draw(random, writer)]
        followed += answerer.ask(turn.question, history) == turn.answer
    return [
        answerer.score("Greetings and thanks, any case", first),
        Score("Greetings and thanks, second turn", later, SAMPLE),
        Score("Capitals, asked as a follow-up", followed, SAMPLE),
    ]


def _capital_scores(answerer: Answerer, writer: Writer, random: Random) -> list[Score]:
    kinds = (
        ("forward", "Capitals, known wordings"),
        ("forward_unseen", "Capitals, new wordings"),
        ("reverse", "Country of a capital"),
    )
    scores = []
    for kind, name in kinds:
        topic = Capitals(kind)
        exchanges = [topic.draw_country(c, random, writer) for c in topic.capitals]
        scores.append(answerer.score(name, exchanges))
    return scores


def _number_exchanges(kind: str, count: int, writer: Writer, random: Random) -> list[Exchange]:
    """Return questions about pairs of numbers that training never showed."""
    topic = Sums(kind)
    pairs = sorted(topic.held_out)
    return [topic.draw_pair(random.choice(pairs), random, writer) for _ in range(count)]


def _parses(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except json.JSONDecodeError:
        return False


def _json_scores(answerer: Answerer, writer: Writer, random: Random) -> list[Score]:
    capitals = Capitals("json")
    exchanges = [capitals.draw(random, writer) for _ in range(SAMPLE // 2)]
    exchanges += _number_exchanges("json", SAMPLE // 2, writer, random)
    answers = [answerer.ask(e.question) for e in exchanges]
    right = sum(a == e.answer for a, e in zip(answers, exchanges, strict=True))
    return [
        Score("JSON, parseable", sum(map(_parses, answers)), len(answers)),
        Score("JSON, correct", right, len(answers)),
    ]


def _context_scores(answerer: Answerer, writer: Writer, random: Random) -> list[Score]:
    """Score FAQ questions behind a history, and behind an unknown system message."""
    faq = Faq()
    second, system = 0, 0
    for _ in range(SAMPLE):
        history = [faq.draw(random, writer), faq.draw(random, writer)]
        turn = faq.draw(random, writer)
        second += answerer.ask(turn.question, history) == turn.answer
        system += answerer.ask(turn.question, system="Use plain words, dear model.") == turn.answer
    return [
        Score("FAQ as the third turn", second, SAMPLE),
        Score("FAQ after a new system message", system, SAMPLE),
    ]


def all_scores(answerer: Answerer) -> list[Score]:
    """Return every generated score, in the order of the table."""
    random = seeded(EVALUATION_SEED)
    writer = Writer(load_grammar())
    unseen = Writer(writer.grammar, CARELESS, frames="frames_unseen")
    faq, off = Faq(), OffTopic()
    known = [faq.draw(random, writer) for _ in range(SAMPLE)]
    framed = [faq.draw(random, unseen) for _ in range(SAMPLE)]
    scores = [
        answerer.score("FAQ, known wordings", known),
        answerer.score("FAQ, known wordings in new frames", framed),
    ]
    scores += _context_scores(answerer, writer, random)
    scores += _capital_scores(answerer, writer, random)
    sums = _number_exchanges("plus", SAMPLE, writer, random)
    differences = _number_exchanges("minus", SAMPLE, writer, random)
    scores.append(answerer.score("Sums of unseen pairs", sums))
    scores.append(answerer.score("Differences of unseen pairs", differences))
    confirm = Capitals("confirm")
    yes_no = [confirm.draw(random, writer) for _ in range(SAMPLE // 2)]
    yes_no += _number_exchanges("larger", SAMPLE // 2, writer, random)
    scores.append(answerer.score("Yes or no", yes_no))
    scores += _json_scores(answerer, writer, random)
    off_topic = [off.draw(random, writer) for _ in range(SAMPLE)]
    refused = [answerer.ask(e.question) == REFUSAL for e in off_topic]
    scores.append(Score("Off-topic, refused", sum(refused), len(refused)))
    scores += _small_talk_scores(answerer, writer, random)
    scores.append(Score("Answers that end their turn", answerer.ended, answerer.answered))
    return scores


def _random_text(random: Random) -> str:
    length = random.randint(1, PARITY_LONGEST_CHARACTERS)
    alphabets = random.sample(ALPHABETS, random.randint(1, 3))
    return "".join(random.choice(random.choice(alphabets)) for _ in range(length))


def tokenizer_parity(answerer: Answerer, tokenizer: Tokenizer) -> Score:
    """Count the strings that llama.cpp cuts into the same tokens as we do."""
    random = seeded(EVALUATION_SEED)
    source = Conversations()
    texts = [source.draw(random).turns[0].question for _ in range(PARITY_STRINGS // 2)]
    texts += [_random_text(random) for _ in range(PARITY_STRINGS // 2)]
    equal = sum(
        answerer.llama.tokenize(text.encode(), add_bos=False, special=False)
        == tokenizer.encode(text)
        for text in texts
    )
    return Score("Tokenizer parity with llama.cpp", equal, len(texts))


def largest_logit_difference(path: Path, network: Network, tokenizer: Tokenizer) -> float:
    """Compare torch with llama.cpp on an F32 file and an F32 key-value store."""
    f32 = llama_cpp.GGML_TYPE_F32
    llama: Any = Llama(str(path), n_ctx=512, logits_all=True, type_k=f32, type_v=f32, verbose=False)
    random = seeded(EVALUATION_SEED)
    source = Conversations()
    worst = 0.0
    for _ in range(LOGIT_CONVERSATIONS):
        turn = source.draw(random).turns[0]
        tokens = tokenizer.encode(f"{turn.question}\n{turn.answer}")
        llama.reset()
        llama.eval(tokens)
        theirs = np.asarray(llama.scores[: len(tokens)])
        with torch.no_grad():
            ours = network(torch.tensor([tokens]))[0].numpy()
        worst = max(worst, float(np.abs(theirs - ours).max()))
    return worst
