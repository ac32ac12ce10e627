"""Questions that the embedded model answers right: what to ask it, and what to do beyond them.

A test asks the model that is shipped each of them.
"""

from __future__ import annotations

from llmdispatcher.terminal import Terminal

QUESTIONS = (
    "What is llmdispatcher?",
    "What is the capital of Japan?",
    "How do I use my own GGUF model?",
    "Tell me a story about a fox",
    "What can you do?",
    "What is 17 + 25?",
    "How do I install it?",
    "Write a short story about a teapot",
    "Does it work offline?",
    "Is 12 larger than 7?",
    "How do I limit the memory?",
    "Tell me a joke",
    "How do I set a budget?",
    "Give me the capital of Peru as JSON",
    "How do I stream an answer?",
    "Tell me a story about a dragon",
    "What happens if a vendor fails?",
    "Which country has the capital Oslo?",
    "How do I use the GPU?",
    "What are you?",
)
"""In an order in which neighbours are about different things."""

AT_ONCE = 2


def some(turn: int, count: int = AT_ONCE) -> list[str]:
    """Return a few questions; the next turn returns the ones that follow, and they begin again."""
    first = turn * count
    return [QUESTIONS[(first + offset) % len(QUESTIONS)] for offset in range(count)]


def listed(questions: list[str]) -> str:
    """Return questions as part of a sentence."""
    quoted = [f'"{question}"' for question in questions]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]])


def note(terminal: Terminal, command: str, turn: int) -> None:
    """Say in two lines that the small embedded model answers, what to ask it, and the way out.

    Args:
        terminal: Where to say it.
        command: "ask" or "chat".
        turn: Decides which questions are named.
    """
    answers = (
        "answered by the small embedded model"
        if command == "ask"
        else "the small embedded model answers"
    )
    terminal.note(f"{answers}, which knows llmdispatcher and little else; try {listed(some(turn))}")
    question = ' "…"' if command == "ask" else ""
    terminal.note(f"for real work: llmdispatcher {command} --model FILE.gguf{question}")
