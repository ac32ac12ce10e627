"""The model card: models/demo.md, written next to the model file.

Owns the text of the card; every number in it comes from the run that made the
model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluate import Score

BYTES_PER_MB = 1_000_000

_CARD = """\
# The embedded model: {name}

A tiny Llama, trained from scratch on text that this folder generates, so that
the first command of llmdispatcher works offline:

    llmdispatcher ask "What is llmdispatcher?"

It is made to show that everything works, not to be clever. For real work bring
a real GGUF model: `llmdispatcher ask --model FILE.gguf "your question"`.

## Scores

Asked through llama.cpp at temperature 0, through the chat template in the file.
Generated questions carry the mistakes people make (lower case, no question
mark, a typo here and there), and count only if the answer is exact. Held-out
questions are in `training/heldout.jsonl`: they were written by hand apart from
the phrase grammar, count if the expected words are in the answer, and leave out
those that the training text happened to contain.

{table}

## What it can do

- Answer questions about llmdispatcher: installing, the command line, the Python
  interface, limits, prices, and about itself.
- Name the capitals of {countries} countries, and the country of a capital.
- Add and subtract numbers from 0 to 99, and compare them.
- Write a capital or a sum as a short JSON object.
- Say that it does not know, and what to do instead.

## What it cannot do

- Anything else: it has no knowledge of the world, and it refuses or is wrong.
- Understand freely worded questions reliably: see the held-out score above.
- Multiply, divide, or add numbers above 99; speak anything but English.
- Follow a system message: it reads over it.
- Read more than 512 tokens, question and answer together.

## How it was made

    {command}

{facts}

The text, the tokenizer, the weights and this card come from that one command.
The same seed, steps and thread count give the same file on the same processor
and library versions; floating point sums differ between kinds of processors.

Chat template: turns of `<|system|>`, `<|user|>` and `<|assistant|>`, each closed
by `<|end|>`, after one `<|begin|>`. Licence: MIT.
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """What one run says about itself."""

    name: str
    command: str
    parameters: int
    vocabulary: int
    steps: int
    seed: int
    threads: int
    trained_tokens: int
    training_seconds: float
    file_bytes: int
    logit_difference: float
    countries: int
    versions: str

    def rows(self) -> list[tuple[str, str]]:
        """Return name and value of everything that is not a score."""
        return [
            ("Largest logit difference, torch and llama.cpp (F32)", f"{self.logit_difference:.1e}"),
            ("File size", f"{self.file_bytes / BYTES_PER_MB:.2f} MB (Q8_0)"),
            ("Training", f"{self.steps} steps, {self.training_seconds / 60:.0f} minutes"),
        ]

    def lines(self) -> str:
        """Return the facts as a list for the card."""
        tokens_millions = self.trained_tokens / 1e6
        return "\n".join(
            (
                f"- {self.parameters:,} parameters, vocabulary of {self.vocabulary} tokens",
                f"- {self.steps} steps, seed {self.seed}, {tokens_millions:.1f} million tokens",
                f"- {self.threads} processor threads, {self.training_seconds / 60:.0f} minutes",
                f"- {self.versions}",
            )
        )


def score_table(scores: Sequence[Score], facts: Facts) -> str:
    """Return the table of scores and measures in Markdown."""
    lines = ["| Measure | Result | Questions |", "|---|---|---|"]
    lines += [f"| {s.name} | {100 * s.share:.1f} % | {s.right}/{s.asked} |" for s in scores]
    lines += [f"| {name} | {value} | |" for name, value in facts.rows()]
    return "\n".join(lines)


def card(scores: Sequence[Score], facts: Facts) -> str:
    """Return the whole card."""
    return _CARD.format(
        name=facts.name,
        table=score_table(scores, facts),
        countries=facts.countries,
        command=facts.command,
        facts=facts.lines(),
    )
