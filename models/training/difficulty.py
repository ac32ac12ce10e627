"""Trains the weights of ``llmdispatcher.difficulty`` and writes ``models/difficulty.json``.

    python models/training/difficulty.py CSV [--seed 0] [--out models/difficulty.json]

``trials.py`` says what CSV is. The weights that are shipped come from
``routellm/evals/gsm8k/gsm8k_responses.csv`` of lm-sys/RouteLLM (Apache-2.0), of which nothing but
the weights is kept. The same file and seed give the same weights.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from logistic import trained
from trials import PARTS, Trials, read

OUT = Path(__file__).parent.parent / "difficulty.json"


def written(trials: Trials, seed: int) -> str:
    """Return the text of the file: a line for each weight."""
    told = {
        "about": {
            "questions": len(trials.prompts),
            "weak_model": trials.weak_model,
            "weak_right": round(float(trials.weak_right.mean()), 4),
            "data_sha256": trials.digest,
            "seed": seed,
        }
    }
    for name, counted in PARTS.items():
        task = counted(trials)
        told[name] = trained(task, seed).written(list(task.marks))
    return _laid_out(told)


def _laid_out(told: Mapping[str, object], indent: int = 1) -> str:
    """Return JSON in which what holds no further mapping stands in one line."""
    rows = []
    for name, value in told.items():
        deeper = isinstance(value, dict) and any(isinstance(v, dict) for v in value.values())
        text = _laid_out(value, indent + 1) if deeper else json.dumps(value)  # type: ignore[arg-type]
        rows.append(f"{' ' * indent}{json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(rows) + "\n" + " " * (indent - 1) + "}"


def main() -> None:
    """Train, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    text = written(read(args.csv), args.seed)
    args.out.write_text(text + "\n", encoding="utf-8")
    print(f"written: {args.out}, {len(text):,} bytes")  # noqa: T201 - it is a command


if __name__ == "__main__":
    main()
