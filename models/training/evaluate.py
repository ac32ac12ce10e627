"""The scores of the model file.

Owns the questions of every score. Answers are drawn at temperature 0 through the
chat template in the file, unless the table says otherwise; a score is the share of
answers that match exactly, but for stories, which must be well formed.
"""

import json
from random import Random

from answerer import EVALUATION_SEED, Answerer
from grammar import HERE, seeded
from scores import Score
from topics import (
    REFUSALS,
    Capitals,
    Exchange,
    Faq,
    OffTopic,
    SmallTalk,
    Sums,
    Tales,
    load_grammar,
)
from wording import CARELESS, Writer, normalise

SAMPLE = 300
"""Questions per score; the standard error is then below three points."""
WARM = 0.8
"""The temperature at which stories are drawn, too: a model that recites would not vary."""

Wrong = list[tuple[str, str]]
"""Questions with the answers that were not right."""


def read_held_out() -> list[dict[str, str]]:
    """Return the questions that were written apart from the grammar."""
    text = (HERE / "heldout.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def held_out_scores(answerer: Answerer, seen: frozenset[str]) -> tuple[list[Score], Wrong]:
    """Score the questions that are held out: right if the expected text is in the answer.

    The text is that of an entry of faq.txt, or given with the question.

    Args:
        answerer: The loaded model.
        seen: Normalised questions of the training text; they do not count here.
    """
    marks: dict[str, list[bool]] = {"known": [], "off-topic": []}
    wrong: Wrong = []
    answers = Faq(0).answers
    for entry in read_held_out():
        if normalise(entry["question"]) in seen:
            continue
        answer = answerer.ask(entry["question"])
        right = (answers[entry["entry"]] if "entry" in entry else entry["expect"]) in answer
        marks[entry["kind"]].append(right)
        if not right:
            wrong.append((entry["question"], answer))
    names = {"known": "Held-out questions", "off-topic": "Held-out off-topic, refused"}
    return [Score(names[k], sum(m), len(m)) for k, m in marks.items()], wrong


def free_scores(answerer: Answerer, seen: frozenset[str]) -> tuple[list[Score], Wrong]:
    """Score free wordings: those of training, and those that were held out of it."""
    faq, random, wrong = Faq(1.0), seeded(EVALUATION_SEED), Wrong()
    learnt = [
        Exchange(question, faq.answers[name], "faq")
        for name, questions in faq.paraphrases.items()
        for question in questions
    ]
    learnt = random.sample(learnt, min(SAMPLE, len(learnt)))
    right = 0
    fresh = [turn for turn in faq.held_out if normalise(turn.question) not in seen]
    for turn in fresh:
        answer = answerer.ask(turn.question)
        right += answer == turn.answer
        if answer != turn.answer:
            wrong.append((turn.question, answer))
    return [
        answerer.score("Free wordings, trained on", learnt),
        Score("Free wordings, held out of training", right, len(fresh)),
        _free_off_score(answerer, seen),
    ], wrong


def _free_off_score(answerer: Answerer, seen: frozenset[str]) -> Score:
    """Score questions off every topic in free words that were held out of training."""
    fresh = [turn for turn in OffTopic().held_out if normalise(turn.question) not in seen]
    refused = sum(answerer.ask(turn.question) in REFUSALS for turn in fresh)
    return Score("Free wordings off topic, refused", refused, len(fresh))


def _small_talk_scores(answerer: Answerer, writer: Writer, random: Random) -> list[Score]:
    """Score short phrases, alone and as a later turn, and a capital asked as "and Italy?"."""
    small, faq = SmallTalk(), Faq(0)
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
    faq = Faq(0)
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


def story_scores(answerer: Answerer, writer: Writer, random: Random) -> tuple[list[Score], Wrong]:
    """Ask for a story about every subject; it must be well formed, and may be any."""
    topic, wrong = Tales("named"), Wrong()
    subjects = topic.stories.subjects
    right, drawn = 0, 0
    for seed, subject in enumerate(subjects):
        question = topic.draw_subject(subject, random, writer).question
        told, told_warm = answerer.ask(question), answerer.draw(question, WARM, seed)
        right += not topic.stories.faults(told, subject)
        drawn += not topic.stories.faults(told_warm, subject)
        for story in (told, told_warm):
            if faults := topic.stories.faults(story, subject):
                wrong.append((question, f"{story} [{'; '.join(faults)}]"))
    return [
        Score("Stories, well formed", right, len(subjects)),
        Score(f"Stories at temperature {WARM}, well formed", drawn, len(subjects)),
    ], wrong


def all_scores(answerer: Answerer) -> tuple[list[Score], Wrong]:
    """Return every generated score, in the order of the table, and stories with faults."""
    random = seeded(EVALUATION_SEED)
    writer = Writer(load_grammar())
    unseen = Writer(writer.grammar, CARELESS, frames="frames_unseen")
    faq, off = Faq(0), OffTopic()
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
    refused = [answerer.ask(e.question) in REFUSALS for e in off_topic]
    scores.append(Score("Off-topic, refused", sum(refused), len(refused)))
    scores += _small_talk_scores(answerer, writer, random)
    stories, wrong = story_scores(answerer, writer, random)
    scores += stories
    scores.append(Score("Answers that end their turn", answerer.ended, answerer.answered))
    return scores, wrong
