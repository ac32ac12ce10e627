"""The model card: models/demo.md, written next to the model file.

Owns the text of the card; every number in it comes from the run that made the
model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from exam import section
from scores import Row, table

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
mark, a typo here and there), and count only if the answer is exact. A story
counts if it is well formed: three to five sentences that begin and end as
sentences do, in words of the stories that it learnt from, about the subject that
was asked for and one friend at most, with one adventure, a beginning and an
ending, and nothing said twice. Free wordings are `training/paraphrases.jsonl`,
written apart from the grammar; one in twelve was kept out of training. Held-out questions
are `training/heldout.jsonl`: they were written apart from the phrase
grammar, and count if the expected words are in the answer. Of both, those that
the training text happened to contain are left out; both were looked at while the
text was written, so the exam below is the measure of what is new to it.

{table}

{exam}
## What it can do

- Answer questions about llmdispatcher: {entries} of them, about installing, the
  command line, the Python interface, limits, prices, errors, and about itself.
- Name the capitals of {countries} countries, and the country of a capital.
- Add and subtract numbers from 0 to 99, and compare them.
- Write a capital or a sum as a short JSON object.
- Tell a short story about {subjects} animals and things.
- Say that it does not know, and what to do instead: `llmdispatcher --help`.

## What it cannot do

- Anything else: it has no knowledge of the world, and it refuses or is wrong.
- Names: it remembers no name of yours, and knows nobody.
- Numbers of three digits, fractions, multiplying and dividing.
- Any language but English.
- Understand freely worded questions reliably: see the exam above. It answers a
  question that it mistakes for another as surely as one that it knows.
- Follow a system message: it reads over it.
- Read more than 512 tokens, question and answer together.

## How it was made

    {command}

{facts}

The text, the tokenizer, the weights and this card come from that one command,
which ends with 1 if a gate is missed. The same seed, steps and thread count give
the same file on the same processor, compiler and library versions; floating point
sums differ between kinds of processors. Two runs of 40 steps, each of which compiled
its layers anew, were compared by hand: their files were equal, byte for byte. It takes
a C++ compiler, as each layer is compiled to train in half the time.

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
    entries: int
    countries: int
    subjects: int
    versions: str

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


def card(rows: Sequence[Row], facts: Facts, exam: dict[str, Any] | None) -> str:
    """Return the whole card; ``exam`` is the recorded result, if it is of this file."""
    return _CARD.format(
        name=facts.name,
        table=table(rows),
        exam=section(exam),
        entries=facts.entries,
        countries=facts.countries,
        subjects=facts.subjects,
        command=facts.command,
        facts=facts.lines(),
    )
