"""Finds what of faq.txt is hard to learn: the share of wrong answers to each pattern.

    python models/training/hardness.py models/demo.gguf

Writes hard.json, which the next run draws by: a pattern that a trained model still gets wrong
is drawn more often (`topics.DRILL`). The file is data like the grammar, so that a seed decides
the text as before; patterns that it does not know count as easy.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from answerer import Answerer
from grammar import seeded
from topics import HARD, Faq, load_grammar
from wording import Writer

DRAWS = 4
"""Questions of each pattern."""
SEED = 4040
"""Of these questions: neither of training nor of the scores."""


def hardness(ask: Callable[[str], str], faq: Faq) -> dict[str, float]:
    """Return the share of wrong answers to each pattern that has any."""
    random, writer = seeded(SEED), Writer(load_grammar())
    found = {}
    for name, patterns in faq.patterns.items():
        for pattern in patterns:
            asked = [
                writer.write(writer.grammar.draw(pattern, random), random) for _ in range(DRAWS)
            ]
            wrong = sum(ask(question) != faq.answers[name] for question in asked)
            if wrong:
                found[pattern] = round(wrong / DRAWS, 2)
    return found


def main() -> None:
    """Ask, and write the file."""
    parser = argparse.ArgumentParser(description="Find what is hard to learn.")
    parser.add_argument("model", type=Path)
    found = hardness(Answerer(parser.parse_args().model, threads=2).ask, Faq(0))
    HARD.write_text(json.dumps(found, indent=0, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
