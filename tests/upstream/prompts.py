"""Fifty prompts: what the embedded model was taught, what it was not, and what is hard to read."""

from __future__ import annotations

import json
from pathlib import Path

Chat = list[dict[str, str]]
Prompt = str | Chat
"""Text that is continued as it is, or a conversation."""

_FOX = "The quick brown fox jumps over the lazy dog. "
_HELD_OUT = Path(__file__).parents[2] / "models" / "training" / "heldout.jsonl"
_EVERY = 8

RAW: list[str] = [
    "The capital of France is",
    "What is 12 plus 7?",
    "<|begin|><|user|>Who are you?<|end|><|assistant|>",
    "llmdispatcher ask --model",
    '{"country": "Italy", "capital":',
    "from llmdispatcher import Dispatcher\n\nwith Dispatcher() as d:\n    ",
    "The",
    "A",
    " ",
    "\n",
    "\t\t\n  \n",
    ".",
    "na na na na na na na na na na na na na na na na",
    "a" * 200,
    "0123456789" * 20,
    "((((((((((((((((((((((((((((((((",
    "It was a dark and stormy night, and the rain fell in torrents,",
    "SELECT name, price FROM vendors WHERE price <",
    "def fibonacci(n):\n    if n < 2:\n        return n\n",
    "naïve café, Straße, Žluťoučký kůň",
    "日本語のテキストを続けてください。",
    "Что умеет эта программа?",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "🦙🚀" * 20,
    "👩‍👩‍👧‍👦 e\u0301 \u200b\ufeff\u202e",
    "\ufffd\x00\x01\x7f",
    _FOX * 9,
]

LONG: list[str] = [
    _FOX * 56,
    _FOX * 80,
    "".join(f"{n} plus {n + 1} is {2 * n + 1}. " for n in range(100)),
    "日本語 😀 " * 90,
]
"""Longer than a batch, and so than the context that the embedded model was trained for."""

_TALKS: list[Chat] = [
    [{"role": "user", "content": " "}],
    [{"role": "user", "content": "naïve café — 日本語 😀"}],
    [
        {"role": "system", "content": "You are terse."},
        {"role": "user", "content": "What is llmdispatcher?"},
    ],
    [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "The capital of France is Paris."},
        {"role": "user", "content": "And Italy?"},
    ],
    [{"role": "user", "content": _FOX * 6 + "What is the capital of Peru?"}],
]


def _held_out() -> list[Chat]:
    """Take every eighth question that the embedded model is examined with."""
    lines = _HELD_OUT.read_text(encoding="utf-8").splitlines()[::_EVERY]
    return [[{"role": "user", "content": json.loads(line)["question"]}] for line in lines]


CHATS: list[Chat] = _TALKS + _held_out()

ALL: list[Prompt] = [*RAW, *LONG, *CHATS]
