"""How much too long a prompt was: numbers out of sentences, and the error that carries them."""

from __future__ import annotations

import copy
import pickle

import pytest

from llmdispatcher.models.errors import ContextOverflow
from llmdispatcher.vendors.wire.overflow import counts


@pytest.mark.parametrize(
    ("message", "needed", "limit"),
    [
        ("prompt is too long: 215000 tokens > 200000 maximum", 215000, 200000),
        ("exceed context limit: 190000 + 20000 > 200000, decrease", 210000, 200000),
        (
            "input token count (1200293) exceeds the maximum number of tokens allowed (1048576).",
            1200293,
            1048576,
        ),
        ("The input token count 5 exceeds the maximum number of tokens allowed 4.", 5, 4),
        ("maximum context length is 4,097 tokens. However, you requested 5,360 tokens", 5360, 4097),
        (
            "endpoint's maximum context length is 9 tokens. However, you requested about 20 tokens",
            20,
            9,
        ),
        ("maximum context length is 9 tokens. However, your request has 12 input tokens.", 12, 9),
        (
            "maximum context length is 9 tokens and your prompt contains at least 10 input tokens",
            10,
            9,
        ),
        (
            "maximum context length is 9 tokens and your request has 1 input tokens (9 > 9 - 1)",
            1,
            9,
        ),
        ("maximum context length is 131072 tokens. Please reduce", None, 131072),
        ("Requested tokens (600) exceed context window of 512", 600, 512),
        ("model has a context window of 8192 tokens", None, 8192),
        ("the prompt is longer than the context length", None, None),
        ("maximum context length is 99999999999999 tokens", None, None),
        ("maximum context length is 0 tokens", None, None),
        ("", None, None),
    ],
)
def test_numbers_in_sentences(message: str, needed: int | None, limit: int | None) -> None:
    """Each vendor's sentence gives what is needed and what there is, where it tells them."""
    assert counts(message, {}) == (needed, limit)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({"n_prompt_tokens": 600, "n_ctx": 512}, (600, 512)),
        ({"n_prompt_tokens": 600}, (600, None)),
        ({"n_ctx": 512}, (None, 512)),
        ({"n_prompt_tokens": -1, "n_ctx": 2**80}, (None, None)),
    ],
)
def test_numbers_in_fields(
    numbers: dict[str, int], expected: tuple[int | None, int | None]
) -> None:
    """Fields are taken where they can be meant."""
    assert counts("too long", numbers) == expected


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ContextOverflow(600, 512), "the prompt needs 600 tokens and the context holds 512; "),
        (ContextOverflow(600), "the prompt needs 600 tokens, more than the context holds; "),
        (ContextOverflow(None, 512), "does not fit the 512 tokens that the context holds; "),
        (ContextOverflow(), "the prompt does not fit the context; "),
        (ContextOverflow(vendor="v", model="m"), "does not fit the context of v/m; "),
        (ContextOverflow(9, 5, message="so it is"), "and the context holds 5 (so it is); "),
    ],
)
def test_an_overflow_says_what_is_known(error: ContextOverflow, says: str) -> None:
    """What nobody tells is left out, and the way out is said all the same."""
    assert says in str(error)
    assert str(error).endswith("shorten the prompt, or use a model with a larger context")


@pytest.mark.parametrize("error", [ContextOverflow(), ContextOverflow(9, message="x")])
def test_an_overflow_without_numbers_travels_whole(error: ContextOverflow) -> None:
    """It goes through a pipe with what it does not know."""
    there = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes

    for each in (there, copy.copy(error)):
        assert str(each) == str(error)
        assert vars(each) == vars(error)
