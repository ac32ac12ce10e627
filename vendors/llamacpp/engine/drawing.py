"""From scores to tokens: the sampler of a reply, guesses that are checked, log-probabilities."""

from __future__ import annotations

import secrets

import attrs

from llmdispatcher.models.reply import TokenLogprob
from llmdispatcher.models.sampling import MAX_SEED
from llmdispatcher.vendors.llamacpp.engine.backend import Backend, Chunk, Drawn, Sampler
from llmdispatcher.vendors.llamacpp.engine.sampling import DEFAULTS
from llmdispatcher.vendors.llamacpp.engine.sequence import Sequence


def sampler_of(backend: Backend, sequence: Sequence) -> Sampler:
    """Make the sampler of one reply; of several with one seed, each has the next."""
    drawn, tokens = sequence.call.request.sampling, sequence.tokens
    seed = secrets.randbelow(MAX_SEED + 1) if drawn.seed is None else drawn.seed
    seed = (seed + sequence.index) % (MAX_SEED + 1)
    window = DEFAULTS.repeat_last_n if drawn.repeat_last_n is None else drawn.repeat_last_n
    window = min(window or 0, backend.context_tokens)  # llama.cpp allocates all that is asked
    drawn = attrs.evolve(drawn, repeat_last_n=window)
    # tokens that stand for a picture are none of the vocabulary
    recent = [token for token in tokens[-window:] if token >= 0] if window else ()
    constraint, sequence.constraint = sequence.constraint, None
    return backend.sampler(Drawn(drawn, seed, recent, constraint))


def draw(backend: Backend, sequence: Sequence, chunk: Chunk, row: int) -> list[int]:
    """Draw after a chunk; where it ends in guesses, also after each of them while they are right.

    All tokens but the last are right guesses. Raises BadReply.
    """
    assert sequence.sampler is not None  # noqa: S101 - for the type checker; it has begun
    drawn = [sequence.sampler.sample(row)]
    if chunk.rows > 1:
        for guess in chunk.tokens[1:]:
            if drawn[-1] != guess or backend.ends(guess):
                break
            drawn.append(sequence.sampler.sample(row + len(drawn)))
    return drawn


def logprob_of(backend: Backend, row: int, token: int, top: int) -> TokenLogprob:
    """Say how likely a token was, and what was likeliest in its place."""
    own, likeliest = backend.logprobs(row, token, top)
    others = tuple(_told(backend, other, logprob) for other, logprob in likeliest)
    return attrs.evolve(_told(backend, token, own), top=others)


def _told(backend: Backend, token: int, logprob: float) -> TokenLogprob:
    data = backend.piece(token, special=True)
    return TokenLogprob(data.decode(errors="replace"), data, logprob)
