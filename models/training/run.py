"""One command from nothing to the model: generate, train, export, evaluate, card.

    python models/training/run.py --seed 0 --steps 6000 --out models/demo.gguf

Writes the model file, and the card next to it with the ending `.md`.
"""

import argparse
import logging
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from bpe import Tokenizer
from card import Facts, card, score_table
from evaluate import (
    Answerer,
    Score,
    all_scores,
    held_out_scores,
    largest_logit_difference,
    tokenizer_parity,
)
from export import NAME, write_gguf
from network import Network
from topics import Capitals
from train import THREADS, Trained, train

_log = logging.getLogger("run")

PACKAGES = ("torch", "gguf", "numpy", "llama-cpp-python")


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description="Train the embedded model.")
    parser.add_argument("--seed", type=int, default=0, help="decides text and weights")
    parser.add_argument("--steps", type=int, default=6000, help="number of updates")
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
        file_bytes=out.stat().st_size,
        logit_difference=logit_difference(trained.network, trained.tokenizer),
        countries=len(Capitals("forward").capitals),
        versions=", ".join(f"{name} {version(name)}" for name in PACKAGES),
    )


def main() -> None:
    """Run every stage."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    options = parse_arguments()
    out: Path = options.out
    trained = train(options.seed, options.steps)
    write_gguf(out, trained.network, trained.tokenizer, quantised=True)
    _log.info("wrote %s", out)
    answerer = Answerer(out, THREADS)
    held_out, wrong = held_out_scores(answerer, trained.questions)
    for question, answer in wrong:
        _log.info("held out, wrong: %s -> %s", question, answer)
    scores: list[Score] = [*all_scores(answerer), *held_out]
    scores.append(tokenizer_parity(answerer, trained.tokenizer))
    facts = gather_facts(options, trained)
    out.with_suffix(".md").write_text(card(scores, facts), encoding="utf-8")
    sys.stdout.write(score_table(scores, facts) + "\n")


if __name__ == "__main__":
    main()
