"""Tells how much too long a prompt was, out of what a vendor says of it. Pure.

Few vendors tell the numbers in fields; the rest put them into sentences, each in its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_N = r"(\d[\d,]{0,14})"


def _rows(*patterns: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(p.replace("#", _N), re.IGNORECASE | re.DOTALL) for p in patterns)


_BOTH = _rows(
    r"# tokens > # maximum",  # Anthropic: prompt is too long: N tokens > M maximum
    r"exceed context limit: (\d[\d,]{0,14} \+ \d[\d,]{0,14}) > #",  # Anthropic, with max_tokens
    r"token count(?: of)? \(?#\)? exceeds the maximum number of tokens allowed \(?#\)?",  # Gemini
    r"contains (\d[\d,]{0,14} tokens(?: and \d[\d,]{0,14} draft tokens)?), too large for model "
    r"with # maximum",  # Mistral
    r"\(# tokens\) exceeds the available context size \(# tokens",  # llama-server
    r"input \(# tokens\) is too large to process.{0,80}batch size: #",  # llama-server, embeddings
    r"prompt \(length #\) is longer than the maximum model length of #",  # vLLM
    r"first # tokens when.{0,60}context length of only #",  # LM Studio
    r"requested tokens \(#\) exceed context window of #",  # llama-cpp-python
)
"""Sentences with the need first and the limit behind it."""

_LIMIT_FIRST = _rows(
    # OpenAI, Azure, DeepSeek, OpenRouter, vLLM, Groq: "However, you requested ..."
    r"maximum context length (?:is|of) # tokens.{0,60}?"
    r"(?:resulted in|requested|request has|request contains|prompt contains)(?: about| at least)?"
    r" (\d[\d,]{0,14}(?: input tokens plus \d[\d,]{0,14})?)",
    r"configured limit of # tokens.{0,60}?resulted in #",  # OpenAI
    r"must be <= #\. Given: (\d[\d,]{0,14} `?inputs`? tokens and \d[\d,]{0,14})",  # Together, TGI
    r"limit:? #, requested:? #",  # OpenAI and Groq: tokens a minute
)
"""The other way round."""

_LIMIT = _rows(
    r"maximum context length (?:is|of) #",
    r"context (?:window|length|size) (?:of|is|limit of) (?:only )?#",
    r"configured limit of # tokens",
    r"must be <= #",
)
"""The limit alone."""

_COUNT = re.compile(r"\d[\d,]{0,14}")
_MAX_COUNT = 2**40


def counts(message: str, numbers: Mapping[str, int]) -> tuple[int | None, int | None]:
    """Return the tokens that are needed and those that there are, as far as the vendor tells."""
    needed, limit = _count(numbers.get("n_prompt_tokens")), _count(numbers.get("n_ctx"))
    if needed is not None and limit is not None:
        return needed, limit
    for patterns, (first, second) in ((_BOTH, (1, 2)), (_LIMIT_FIRST, (2, 1))):
        for pattern in patterns:
            if found := pattern.search(message):
                return _sum(found[first]), _sum(found[second])
    found = next((f for p in _LIMIT if (f := p.search(message))), None)
    return needed, limit or (_sum(found[1]) if found else None)


def _sum(text: str) -> int | None:
    """Add up the numbers of a text."""
    return _count(sum(int(number.replace(",", "")) for number in _COUNT.findall(text)))


def _count(number: int | None) -> int | None:
    """Return what may be a number of tokens."""
    return number if number is not None and 0 < number < _MAX_COUNT else None
