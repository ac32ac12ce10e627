"""Asks the model file through llama.cpp, as a user would meet it.

Owns the settings of the asking: the chat template in the file, one context, and
temperature 0 unless a score is about drawing.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from llama_cpp import Llama
from scores import Score
from topics import Exchange

EVALUATION_SEED = 77
CONTEXT_TOKENS = 512
ANSWER_MAX_TOKENS = 200


class Answerer:
    """Asks the model file questions through llama.cpp."""

    def __init__(self, path: Path, threads: int) -> None:
        """Load the file."""
        self.llama = Llama(str(path), n_ctx=CONTEXT_TOKENS, n_threads=threads, verbose=False)
        self.answered = 0
        self.ended = 0

    def ask(self, question: str, history: Sequence[Exchange] = (), system: str = "") -> str:
        """Return the most likely answer to a question after earlier turns."""
        return self._answer(_messages(question, history, system), 0.0, 0)

    def draw(self, question: str, temperature: float, seed: int) -> str:
        """Return an answer that is drawn by its likelihood; a seed repeats it."""
        return self._answer(_messages(question), temperature, seed)

    def _answer(self, messages: list[Any], temperature: float, seed: int) -> str:
        reply: Any = self.llama.create_chat_completion(
            messages, temperature=temperature, seed=seed, max_tokens=ANSWER_MAX_TOKENS
        )
        choice = reply["choices"][0]
        self.answered += 1
        self.ended += choice["finish_reason"] == "stop"
        return str(choice["message"]["content"])

    def score(self, name: str, exchanges: Iterable[Exchange]) -> Score:
        """Ask every question; an answer counts if it is exactly the expected one."""
        results = [self.ask(e.question) == e.answer for e in exchanges]
        return Score(name, sum(results), len(results))


def _messages(question: str, history: Sequence[Exchange] = (), system: str = "") -> list[Any]:
    messages: list[Any] = []
    if system:
        messages.append({"role": "system", "content": system})
    for turn in history:
        messages.append({"role": "user", "content": turn.question})
        messages.append({"role": "assistant", "content": turn.answer})
    messages.append({"role": "user", "content": question})
    return messages
