"""One command from nothing to the model: generate, train, export, evaluate, card.

    python models/training/run.py --seed 0 --steps 14000 --out models/demo.gguf

Writes the model file, and the card next to it with the ending `.md`. Ends with 1 if a
gate of scores.py is missed; the file and the card are written all the same. The exam is
examine.py's, once the model is chosen.
"""

import argparse
import logging
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from answerer import Answerer
from bpe import Tokenizer
from card import Facts, card
from evaluate import all_scores, free_scores, held_out_scores
from exam import recorded
from export import DESCRIPTION, NAME, About, write_gguf
from network import Network
from parity import largest_logit_difference, tokenizer_parity
from rows import SEED_KEY, STEPS_KEY
from scores import Row, logit_row, missed, parity_row, row_of, size_row, table, unmeasured
from topics import Capitals, Faq, Tales
from train import THREADS, Trained, train

_log = logging.getLogger("run")

PACKAGES = ("torch", "gguf", "numpy", "llama-cpp-python")


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description="Train the embedded model.")
    parser.add_argument("--seed", type=int, default=0, help="decides text and weights")
    parser.add_argument("--steps", type=int, default=14000, help="number of updates")
    parser.add_argument("--out", type=Path, required=True, help="the GGUF file to write")
    return parser.parse_args()


def logit_difference(network: Network, tokenizer: Tokenizer) -> float:
    """Export an F32 file and compare its logits with torch's."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f32.gguf"
        write_gguf(path, network, tokenizer, quantised=False)
        return largest_logit_difference(path, network, tokenizer)


def gather_facts(options: argparse.Namespace, trained: Trained) -> Facts:
    """Return what the card says about the run."""
    out: Path = options.out
    return Facts(
        name=NAME,
        command=(
            f"python models/training/run.py --seed {options.seed} "
            f"--steps {options.steps} --out models/{out.name}"
        ),
        parameters=trained.network.parameter_count(),
        vocabulary=len(trained.tokenizer.tokens),
        steps=options.steps,
        seed=options.seed,
        threads=THREADS,
        trained_tokens=trained.tokens,
        training_seconds=trained.seconds,
        entries=len(Faq(0).names),
        countries=len(Capitals("forward").capitals),
        subjects=len(Tales("named").stories.subjects),
        versions=", ".join(f"{name} {version(name)}" for name in PACKAGES),
    )


def measure(out: Path, trained: Trained) -> list[Row]:
    """Return every line of the table; what was answered wrong goes to the log."""
    answerer = Answerer(out, THREADS)
    rows: list[Row] = []
    scored = (
        all_scores(answerer),
        free_scores(answerer, trained.questions),
        held_out_scores(answerer, trained.questions),
    )
    for scores, wrong in scored:
        rows += [row_of(score) for score in scores]
        for question, answer in wrong:
            _log.info("wrong: %s -> %s", question, answer)
    rows.append(parity_row(tokenizer_parity(answerer, trained.tokenizer)))
    rows.append(logit_row(logit_difference(trained.network, trained.tokenizer)))
    rows.append(size_row(out.stat().st_size))
    return rows


def main() -> int:
    """Run every stage; return 1 if a gate is missed."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    options = parse_arguments()
    out: Path = options.out
    trained = train(options.seed, options.steps)
    about = About(NAME, DESCRIPTION, {SEED_KEY: options.seed, STEPS_KEY: options.steps})
    write_gguf(out, trained.network, trained.tokenizer, quantised=True, about=about)
    _log.info("wrote %s", out)
    rows = measure(out, trained)
    facts = gather_facts(options, trained)
    out.with_suffix(".md").write_text(card(rows, facts, recorded(out)), encoding="utf-8")
    sys.stdout.write(table(rows) + "\n")
    for row in missed(rows):
        _log.error("gate missed: %s: %s, %s", row.name, row.result, row.gate)
    for name in unmeasured(rows):
        _log.error("gate not measured: %s", name)
    return 1 if missed(rows) or unmeasured(rows) else 0


if __name__ == "__main__":
    sys.exit(main())
