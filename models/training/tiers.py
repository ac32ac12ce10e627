"""Makes small models of graded size, for cascades with real inference.

    python models/training/tiers.py OUT_FOLDER

They read and write single characters, and answer the questions of ``puzzles``. Writes a GGUF file
for each of ``SIZES``, 2,000 held-out questions with their answers (``questions.jsonl``) and what
was trained for how long (``tiers.json``). ``bench/cascade.py`` measures with them.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import torch
from bpe import ASSISTANT, BEGIN, END, PAD, USER, Tokenizer
from conversation import Row
from export import About, write_gguf
from grammar import seeded
from network import Network, Shape
from puzzles import draw, draw_different
from train import THREADS, Batch, fit, make_batch

_log = logging.getLogger("tiers")

QUESTIONS = 2000
CONTEXT_TOKENS = 512
"""Room for a question with a draft of another model."""
BUCKETS = 8
"""So many batches are drawn at once and sorted by length, so that little is padding."""


@dataclass(frozen=True, slots=True)
class Size:
    """A tier: the shape of its network, and how long it is trained."""

    name: str
    width: int
    layers: int
    heads: int
    steps: int
    rows: int
    """Questions in a batch."""


SIZES = (
    Size("small", 64, 2, 2, steps=1600, rows=128),
    Size("large", 128, 3, 4, steps=1500, rows=128),
)


class Batches:
    """An endless stream of batches of questions that are not held out."""

    def __init__(self, tokenizer: Tokenizer, rows: int, random: Random) -> None:
        """Take the number of questions in a batch."""
        self._tokenizer, self._rows, self._random = tokenizer, rows, random

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches for ever."""
        pad = self._tokenizer.ids[PAD]
        while True:
            pool = [self._row() for _ in range(self._rows * BUCKETS)]
            pool.sort(key=lambda row: len(row.tokens))
            groups = [pool[at : at + self._rows] for at in range(0, len(pool), self._rows)]
            self._random.shuffle(groups)
            for group in groups:
                yield make_batch(group, pad)

    def _row(self) -> Row:
        """Write a question and its answer as the chat template does; the answer alone counts."""
        puzzle, ids = draw(self._random, held_out=False), self._tokenizer.ids
        asked = [ids[BEGIN], ids[USER], *self._tokenizer.encode(puzzle.question)]
        asked += [ids[END], ids[ASSISTANT]]
        answer = [*self._tokenizer.encode(puzzle.answer), ids[END]]
        return Row(asked + answer, [0.0] * len(asked) + [1.0] * len(answer))


def make(size: Size, folder: Path, seed: int) -> dict[str, object]:
    """Train a tier, write its file, and return what there is to tell of it."""
    torch.manual_seed(seed)
    tokenizer, start = Tokenizer([]), time.perf_counter()
    shape = Shape(
        vocabulary=len(tokenizer.tokens),
        width=size.width,
        layers=size.layers,
        heads=size.heads,
        feed_forward=-(-size.width * 8 // 3 // 32) * 32,
        context_tokens=CONTEXT_TOKENS,
    )
    network = Network(shape)
    parameters = network.parameter_count()
    _log.info("%s: %d parameters", size.name, parameters)
    tokens, loss = fit(network, Batches(tokenizer, size.rows, seeded(seed + 1)), size.steps)
    path = folder / f"{size.name}.gguf"
    what = "Answers small puzzles; made to measure cascades."
    about = About(f"llmdispatcher tier {size.name}", what)
    write_gguf(path, network.eval(), tokenizer, quantised=True, about=about)
    return {
        **asdict(size),
        "parameters": parameters,
        "tokens": tokens,
        "loss": round(loss, 4),
        "seconds": round(time.perf_counter() - start),
        "bytes": path.stat().st_size,
    }


def main() -> None:
    """Make every tier, and the questions."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    parser = argparse.ArgumentParser(description="Train the tiers of a cascade.")
    parser.add_argument("folder", type=Path, help="where to write; it is made")
    parser.add_argument("--seed", type=int, default=0, help="decides questions and weights")
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(mode=True)
    questions = draw_different(seeded(options.seed), QUESTIONS)
    lines = [json.dumps(asdict(puzzle)) + "\n" for puzzle in questions]
    (folder / "questions.jsonl").write_text("".join(lines), encoding="utf-8")
    made = [make(size, folder, options.seed) for size in SIZES]
    told = {"seed": options.seed, "threads": THREADS, "torch": torch.__version__, "tiers": made}
    (folder / "tiers.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
