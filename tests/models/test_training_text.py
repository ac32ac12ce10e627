"""The text that the embedded model is trained on: it is right, and a seed decides it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bpe import Tokenizer
from conversation import (
    CUT_TOKENS,
    RESULT_WEIGHT,
    Conversation,
    Conversations,
    Encoder,
    told_apart,
)
from grammar import HERE, Grammar, read_sections, seeded
from paraphrases import bare, is_held_out, read_paraphrases
from rows import LONGEST_ROW_TOKENS, conversations_of, pools
from stories import Stories, sentences
from topics import (
    NO_STORY,
    REFUSALS,
    TOO_HARD,
    Capitals,
    Exchange,
    Faq,
    OffTopic,
    Sums,
    Tales,
    held_out_pairs,
    load_grammar,
)
from wording import Writer, normalise

DRAWS = 300


def drawn(topic: Capitals | Faq | Sums | Tales) -> Iterator[Exchange]:
    """Draw some exchanges of a topic."""
    random, writer = seeded(11), Writer(load_grammar())
    for _ in range(DRAWS):
        yield topic.draw(random, writer)


def test_every_wording_that_is_drawn_is_among_all() -> None:
    """What a pattern can say, listed, holds what is drawn from it."""
    grammar = Grammar({"it": ["it", "{this|that} tool"]})
    pattern = "{how|{what|which} way} to <it>{ now|}"
    every = set(grammar.every(pattern))
    random = seeded(1)

    assert len(every) == 3 * 3 * 2
    assert {grammar.draw(pattern, random) for _ in range(400)} == every


@pytest.mark.parametrize(("kind", "sign"), [("plus", 1), ("minus", -1)])
def test_sums_are_right(kind: str, sign: int) -> None:
    """An answer holds both numbers of its question and their sum or difference."""
    for turn in drawn(Sums(kind)):
        a, b, result = map(int, re.findall(r"(?<!\d)-?\d+", turn.answer.replace("- ", " ")))
        assert result == a + sign * b
        assert {str(a), str(b)} == set(re.findall(r"\d+", turn.question))
        assert turn.result == str(result)


@pytest.mark.parametrize(("kind", "best"), [("larger", max), ("smaller", min)])
def test_comparisons_are_right(kind: str, best: Callable[[int, int], int]) -> None:
    """The numbers in the order of the question, the one that it is, and then the verdict."""
    for turn in drawn(Sums(kind)):
        a, b = map(int, re.findall(r"\d+", turn.question))
        named = str(best(a, b)) if a != b else "neither"
        verdict = "yes" if a != b and best(a, b) == a else "no"
        assert turn.answer == f"Of {a} and {b}, {named} is {kind}, so {verdict}."


def test_pairs_that_are_held_out_are_never_trained_on() -> None:
    """No training question is about one of them, in either order."""
    held_out = held_out_pairs()
    for kind in ("plus", "minus", "json", "larger", "smaller"):
        for turn in drawn(Sums(kind)):
            a, b = map(int, re.findall(r"\d+", turn.question))
            assert (a, b) not in held_out
            assert (b, a) not in held_out


def test_large_numbers_are_refused() -> None:
    """A number of three digits or more is in each of the questions that are too large."""
    for turn in drawn(Sums("too_large")):
        assert max(map(int, re.findall(r"\d+", turn.question))) > 99
        assert turn.answer == TOO_HARD


def test_json_answers_are_json() -> None:
    """What is asked for as JSON is an object with the right values."""
    capitals = Capitals("json")
    for turn in drawn(capitals):
        told = json.loads(turn.answer)
        country = told["country"]
        known = capitals.capitals.get(country) or capitals.capitals[f"the {country}"]
        assert told["capital"] == known
    for turn in drawn(Sums("json")):
        told = json.loads(turn.answer)
        assert told["sum"] == told["a"] + told["b"]


def test_refusals_name_the_way_out() -> None:
    """Who is refused is told where to look."""
    for refusal in REFUSALS:
        assert "llmdispatcher --help" in refusal
        assert "--model FILE.gguf" in refusal


def test_new_frames_are_new() -> None:
    """No frame that the model learns is one of those that it is only asked in."""
    grammar = load_grammar()
    unseen, learnt = (
        {
            normalise(frame)
            for pattern in read_sections(HERE / "phrases.txt")[name]
            for frame in (grammar.draw(pattern, seeded(seed)) for seed in range(200))
        }
        for name in ("frames_unseen", "frames")
    )

    assert unseen
    assert not unseen & learnt


def test_a_seed_decides_the_text() -> None:
    """The same seed draws the same rows, another draws others, and a run's text can be redrawn."""
    tokenizer = Tokenizer([])
    first, again = next(pools(tokenizer, 3)), next(pools(tokenizer, 3))

    assert first.groups == again.groups
    assert first.conversations == list(conversations_of(tokenizer, 3, len(first.groups)))
    assert first.conversations[0] != next(conversations_of(tokenizer, 4, 1))
    assert all(len(row.tokens) <= LONGEST_ROW_TOKENS for group in first.groups for row in group)


def test_answers_that_repeat_may_be_cut_and_others_never() -> None:
    """A row that is cut is the beginning of the whole one; results and stories are kept whole."""
    encoder, source, random = Encoder(Tokenizer([])), Conversations(), seeded(8)
    recited = {*Faq(0).answers.values(), *REFUSALS}
    were_cut = 0
    for _ in range(DRAWS):
        conversation = source.draw(random)
        whole, row = encoder.encode(conversation), encoder.encode(conversation, cut=True)
        assert len(whole.tokens) == len(whole.weights)
        assert whole.tokens[: len(row.tokens)] == row.tokens
        assert whole.weights[: len(row.tokens)] == row.weights
        if row != whole:
            were_cut += 1
            assert conversation.turns[-1].answer in recited
            assert row.weights[-CUT_TOKENS - 1 :] == [RESULT_WEIGHT] + [1.0] * CUT_TOKENS
    assert were_cut > DRAWS / 3


def test_a_recited_answer_is_known_by_the_token_that_no_other_shares() -> None:
    """One that another goes on from is known by its end; one that is alone, by its first token."""
    answers = {"a": [1, 2, 3], "b": [1, 2, 4, 5], "c": [1, 2], "d": [9, 2]}

    assert told_apart(answers) == {"a": 2, "b": 2, "c": 2, "d": 0}
    assert told_apart({"a": [1]}) == {"a": 0}


def test_no_cut_row_leaves_open_which_answer_it_is() -> None:
    """Of all recited answers, cut as rows are, no two are the same."""
    encoder = Encoder(Tokenizer([]))
    answers = {*Faq(0).answers.values(), *REFUSALS}
    rows = [
        encoder.encode(Conversation("", (Exchange("?", answer, "faq"),)), cut=True)
        for answer in answers
    ]

    assert len({tuple(row.tokens) for row in rows}) == len(answers)


def test_results_weigh_more_wherever_they_stand() -> None:
    """Each token that holds a part of the result weighs more, and no other."""
    turn = Exchange("?", "A fox met an ox, and the fox ran.", "story named", "fox")
    tokenizer = Tokenizer([("f", "o"), ("fo", "x")])
    row = Encoder(tokenizer).encode(Conversation("", (turn,)))
    heavy = [t for t, weight in zip(row.tokens, row.weights, strict=True) if weight > 1]

    assert [tokenizer.tokens[token] for token in heavy] == ["fox", "fox"]


def test_a_capital_is_confirmed_or_not() -> None:
    """What the question names, the capital, and then whether they are the same."""
    confirm, verdicts = Capitals("confirm"), set()
    for turn in drawn(confirm):
        named, country, capital, verdict = re.fullmatch(  # type: ignore[union-attr] # else it fails
            r"(.+)\? The capital of (.+) is (.+), so (yes|no)\.", turn.answer
        ).groups()
        assert confirm.capitals[country] == capital
        assert named.lower() in turn.question.lower()
        assert (named == capital) == (verdict == "yes")
        verdicts.add(verdict)
    assert verdicts == {"yes", "no"}


def test_every_topic_is_drawn() -> None:
    """Conversations hold turns of every topic, and every topic's answers."""
    source, random = Conversations(), seeded(2)
    topics = {turn.topic for _ in range(3000) for turn in source.draw(random).turns}

    assert {"faq", "small talk", "off-topic", "story named", "story any", "story unknown"} <= topics
    assert {"numbers plus", "numbers minus", "numbers too_large", "numbers json"} <= topics


# -- stories ------------------------------------------------------------------------------------

FOX = (
    "Once there was a shy fox who lived in a green valley. It wanted to see the sea, but it did "
    "not know the way. A wise snail drew a map, and by noon they saw the waves. The fox put one "
    "toe in the water and laughed out loud."
)


@pytest.fixture(scope="module")
def stories() -> Stories:
    """Stories, whose vocabulary takes a while to list."""
    return Stories()


def test_stories_are_well_formed(stories: Stories) -> None:
    """The judge finds nothing wrong with what the generator tells, about any subject."""
    random = seeded(5)
    for subject in stories.subjects:
        for _ in range(4):
            told = stories.tell(subject, random)
            assert stories.faults(told, subject) == [], told


def test_questions_for_a_story_name_its_subject(stories: Stories) -> None:
    """The subject of the answer is in the question, in the singular or the plural."""
    random, writer, topic = seeded(5), Writer(load_grammar()), Tales("named")
    for subject in stories.subjects:
        wording = topic.stories.ask(subject, random)
        assert subject in wording or stories.plural(subject) in wording
        assert topic.draw_subject(subject, random, writer).answer.count(subject) >= 1
    assert all(turn.answer == NO_STORY for turn in drawn(Tales("unknown")))


def test_a_subject_has_adventures_of_its_own(stories: Stories) -> None:
    """The same subject has the same themes always, and not all subjects have the same."""
    themes = {tuple(stories.themes_of(subject)) for subject in stories.subjects}

    assert themes == {tuple(Stories().themes_of(subject)) for subject in stories.subjects}
    assert len(themes) > len(stories.subjects) // 2


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("shy fox", "shy cat", "does not name the subject"),
        ("The fox put", "the fox put", "no capital"),
        ("out loud.", "out loud", "no end mark"),
        (" The fox put one toe in the water and laughed out loud.", "", "no ending"),
        ("Once there was", "Here is", "no beginning"),
        ("a map", "a spaceship", "unknown word spaceship"),
        ("wise snail", "wise owl and a snail", "more than one friend"),
        ("A wise snail", "The snail", "the snail was not brought in"),
        ("A wise snail", "A owl", "a owl"),
        ("A wise snail", "A tiger", "a stranger: tiger"),
        ("drew a map", "mended the roof", "more than one adventure"),
        ("see the sea", "see the the sea", "a word twice"),
        ("A wise snail drew a map, and by noon they saw the waves.", FOX[:53], "a sentence twice"),
        ("It wanted", "Once there was a shy fox. Then it rained. It wanted", "6 sentences"),
    ],
)
def test_the_judge_finds_what_is_wrong(stories: Stories, old: str, new: str, fault: str) -> None:
    """Each way to spoil a good story is found, and named."""
    told = FOX.replace(old, new)
    found = stories.faults(told, "fox")

    assert told != FOX
    assert fault in "; ".join(found)
    assert stories.faults(FOX, "fox") == []


def test_no_story_at_all_is_no_story(stories: Stories) -> None:
    """Silence, and refusals, are not well formed."""
    assert stories.faults("", "fox") == ["nothing told"]
    assert stories.faults(NO_STORY, "fox")


def test_sentences_end_at_their_marks() -> None:
    """A text is cut behind its marks; what follows the last is a sentence, too."""
    assert sentences("One. Two! Three? four") == ["One.", "Two!", "Three?", "four"]


# -- free wordings ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("How do I install it?", "how do I install it"),
        ("GGUF files: where?", "GGUF files: where"),
        ("I am lost...", "I am lost"),
        ("A model", "a model"),
    ],
)
def test_free_wordings_are_brought_into_the_grammars_form(typed: str, written: str) -> None:
    """No end mark, and no capital but those of names."""
    assert bare(typed) == written


def test_free_wordings_that_are_held_out_are_never_trained_on() -> None:
    """Every line of paraphrases.jsonl is of an entry or off them, and trained on or held out."""
    faq, off = Faq(1.0), OffTopic(1.0)
    held_out = {turn.question for turn in [*faq.held_out, *off.held_out]}
    learnt = {question for questions in faq.paraphrases.values() for question in questions}
    learnt |= set(off.paraphrases)

    assert not held_out & learnt
    assert held_out | learnt == {q for qs in read_paraphrases().values() for q in qs}
    assert all(map(is_held_out, held_out))


def test_a_broken_line_of_free_wordings_is_named(tmp_path: Path) -> None:
    """The file, the line and what is wrong with it."""
    path = tmp_path / "paraphrases.jsonl"
    path.write_text('{"entry": "install", "question": "how?"}\n{"entry": "install"}\n')
    with pytest.raises(ValueError, match=r"paraphrases.jsonl:2: not"):
        read_paraphrases(path)
    assert read_paraphrases(tmp_path / "none.jsonl") == {}


def test_held_out_questions_are_of_entries_that_are_there() -> None:
    """Each line of heldout.jsonl names an entry of faq.txt, or the words that it expects."""
    names = Faq(0).answers
    for line in (HERE / "heldout.jsonl").read_text(encoding="utf-8").splitlines():
        told = json.loads(line)
        assert told.get("entry", "install") in names
        assert ("entry" in told) is not ("expect" in told)


def test_data_files_have_no_entry_without_an_answer() -> None:
    """Every entry of faq.txt has one answer, and wordings that ask for it."""
    faq = Faq(0)
    assert all(faq.answers.values())
    assert all(faq.patterns.values())
    text = (HERE / "faq.txt").read_text(encoding="utf-8")
    assert text.count("\n= ") == len(faq.names)
