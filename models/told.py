"""How errors put what they know into words."""

from __future__ import annotations

SHOWN_CHARS = 80
"""How much of an offending value an error message shows."""


def shown(value: object) -> str:
    """Return a value as an error shows it, cut to a readable length."""
    text = repr(value)
    if len(text) <= SHOWN_CHARS:
        return text
    return f"{text[:SHOWN_CHARS]}… ({type(value).__name__})"


def overflow(needed_tokens: int | None, limit_tokens: int | None, where: str) -> str:
    """Say that a prompt does not fit, with the numbers that are known."""
    context = f"context of {where}" if where else "context"
    match needed_tokens, limit_tokens:
        case None, None:
            return f"the prompt does not fit the {context}"
        case None, _:
            return f"the prompt does not fit the {limit_tokens} tokens that the {context} holds"
        case _, None:
            return f"the prompt needs {needed_tokens} tokens, more than the {context} holds"
    return f"the prompt needs {needed_tokens} tokens and the {context} holds {limit_tokens}"
