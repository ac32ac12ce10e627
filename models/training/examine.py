"""Asks the model file the exam, records the result, and writes it into the card.

    python models/training/examine.py models/demo.gguf

Asks once: of a file that was examined, it shows what is recorded. The training text is
drawn again from the seed and the steps in the file, to compare the questions with it.
"""

import argparse
import json
import sys
from pathlib import Path

from answerer import Answerer
from exam import (
    QUESTIONS,
    RESULT,
    Overlap,
    read_exam,
    recorded,
    result,
    section,
    sha256,
    with_section,
)
from rows import SEED_KEY, STEPS_KEY, conversations_of, learn_tokenizer


def examine(model: Path) -> dict[str, object]:
    """Ask every question, and record the result."""
    questions = read_exam()
    answerer = Answerer(model, threads=1)
    seed, steps = (int(answerer.llama.metadata[key]) for key in (SEED_KEY, STEPS_KEY))
    answers = [answerer.ask(question.question) for question in questions]
    overlap = Overlap([question.question for question in questions])
    for conversation in conversations_of(learn_tokenizer(seed), seed, steps):
        for turn in conversation.turns:
            overlap.read(turn.question, turn.answer)
    hashes = {"model_sha256": sha256(model), "exam_sha256": sha256(QUESTIONS)}
    told = hashes | result(questions, answers, overlap)
    RESULT.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return told


def main() -> None:
    """Examine a model file, unless that was done."""
    parser = argparse.ArgumentParser(description="Ask the embedded model the exam, once.")
    parser.add_argument("model", type=Path, help="the GGUF file; its card is beside it")
    model: Path = parser.parse_args().model
    told = recorded(model) or examine(model)
    card = model.with_suffix(".md")
    card.write_text(with_section(card.read_text(encoding="utf-8"), told), encoding="utf-8")
    sys.stdout.write(section(told))


if __name__ == "__main__":
    main()
