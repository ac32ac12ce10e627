"""Chains of llama.cpp's samplers, as ``sampling`` plans them, held to a rule where there is one.

llama.cpp's own function for drawing writes all tokens down for each chain anew, keeps that memory
for each, and aborts the process when nothing could be chosen; so chains are applied here to one
list of candidates, and where only the highest is wanted, no list is made.

A token is drawn first and checked against the rule afterwards, as llama.cpp does
(``common_sampler_sample``): most fit, and one check costs next to nothing. Only if it does not fit,
all tokens are checked, and the chain draws again among those that do.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from llmdispatcher.models.errors import BadReply
from llmdispatcher.vendors.llamacpp.binding.library import lib
from llmdispatcher.vendors.llamacpp.binding.vocabulary import Vocabulary
from llmdispatcher.vendors.llamacpp.engine.backend import Constraint
from llmdispatcher.vendors.llamacpp.engine.sampling import Link

_DRY_LAST_N = 64
"""llama.cpp's default for how far DRY looks back (common/common.h)."""

_DRY_BREAKERS = (b"\n", b":", b'"', b"*")
"""llama.cpp's default sequence breakers of the DRY sampler (common/common.h)."""

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""llama_token_data in llama.h."""

_NOTHING_FITS = "no token of the model fits what the reply must look like here"

_NOT_NUMBERS = "the model computed something that is not a number: its file is damaged"

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


class Samplers:
    """Makes the samplers of one model, and holds what they have in common."""

    def __init__(self, vocabulary: Vocabulary, logits: Callable[[int], Floats]) -> None:
        """Take a function that returns the scores of all tokens in a row of the last decode."""
        self.vocabulary = vocabulary
        self.logits = logits
        self._ids = np.arange(vocabulary.size, dtype=np.int32)
        self._candidates = np.zeros(vocabulary.size, _CANDIDATE)
        self._breakers: dict[tuple[float | int, ...], Any] = {}
        """DRY samplers to copy: making one reads the whole vocabulary."""

    def made(
        self, links: Sequence[Link], recent: Sequence[int], constraint: Constraint | None = None
    ) -> NativeSampler:
        """Make a sampler; see ``Backend.sampler``. It owns the constraint, and closes it."""
        return NativeSampler(self, links, recent, constraint)

    def candidates(self, row: int, fitting: Mask | None = None) -> Any:  # noqa: ANN401 - a C struct
        """Return tokens with their scores in a row, for a chain to choose from.

        ``fitting`` says for each token whether it is one of them; None is all.
        """
        found, ids, logits = self._candidates, self._ids, self.logits(row)
        if fitting is not None:
            ids = np.flatnonzero(fitting).astype(np.int32)
            found, logits = found[: len(ids)], logits[ids]
        found["id"], found["logit"], found["p"] = ids, logits, 0
        data = ctypes.cast(found.ctypes.data, ctypes.POINTER(lib.llama_token_data))
        return lib.llama_token_data_array(data, len(found), -1, False)  # noqa: FBT003 - C struct

    def dry(self, *args: float) -> Any:  # noqa: ANN401 - a C pointer
        """Return a DRY sampler of one's own."""
        made = self._breakers.get(args)
        if made is None:
            multiplier, base, allowed = args
            breakers = (ctypes.c_char_p * len(_DRY_BREAKERS))(*_DRY_BREAKERS)
            made = self._breakers[args] = lib.llama_sampler_init_dry(
                self.vocabulary.pointer,
                multiplier,
                base,
                int(allowed),
                _DRY_LAST_N,
                breakers,
                len(breakers),
            )
        return lib.llama_sampler_clone(made)

    def close(self) -> None:
        """Give the memory back. Idempotent."""
        for made in self._breakers.values():
            lib.llama_sampler_free(made)
        self._breakers = {}


class NativeSampler:
    """A chain of llama.cpp samplers. See ``backend.Sampler``."""

    def __init__(
        self,
        owner: Samplers,
        links: Sequence[Link],
        recent: Sequence[int],
        constraint: Constraint | None = None,
    ) -> None:
        """Build the chain; samplers that look back are shown ``recent``, the prompt's end."""
        self._owner = owner
        self._constraint = constraint
        self._vocab = owner.vocabulary.pointer
        self._chain: Any = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        banned = self._suppress()
        # llama.cpp writes down all tokens as candidates even to find the highest
        self._is_plain = not banned and [link.name for link in links] == ["greedy"]
        for link in links:
            lib.llama_sampler_chain_add(self._chain, self._made(link))
        if any(link.name in {"penalties", "dry"} for link in links):
            for token in recent:
                lib.llama_sampler_accept(self._chain, token)

    def _suppress(self) -> bool:
        """Ban the tokens that the model file says must never be drawn, if there are any."""
        count = ctypes.c_int32(0)
        tokens = lib.llama_vocab_get_suppress_tokens(self._vocab, ctypes.byref(count))
        if not count.value:
            return False
        biases = (lib.llama_logit_bias * count.value)()
        for index in range(count.value):
            biases[index].token, biases[index].bias = tokens[index], float("-inf")
        vocab_tokens = self._owner.vocabulary.size
        banned = lib.llama_sampler_init_logit_bias(vocab_tokens, count.value, biases)
        lib.llama_sampler_chain_add(self._chain, banned)
        return True

    def _made(self, link: Link) -> Any:  # noqa: ANN401 - a C pointer
        match link.name:
            case "penalties":
                return lib.llama_sampler_init_penalties(self._owner.vocabulary.size, *link.args)
            case "dry":
                return self._owner.dry(*link.args)
            case "top_p" | "min_p" | "typical":
                make = getattr(lib, f"llama_sampler_init_{link.name}")
                return make(*link.args, 1)
            case "xtc":
                probability, threshold, seed = link.args
                return lib.llama_sampler_init_xtc(probability, threshold, 1, seed)
        return getattr(lib, f"llama_sampler_init_{link.name}")(*link.args)

    def sample(self, row: int) -> int:
        """See ``Sampler.sample``. Raises BadReply if there is nothing to choose from."""
        if self._constraint is not None:
            return self._held(row, self._constraint)
        if self._is_plain:
            return self._highest(self._owner.logits(row))
        return self._accepted(self._drawn(row))

    def _held(self, row: int, constraint: Constraint) -> int:
        """Draw what a constraint allows."""
        ending = constraint.ending
        if ending is not None:
            return ending
        token = self._drawn(row)
        if not constraint.allows(token):
            token = self._drawn(row, constraint.mask())
        constraint.accept(token)
        return self._accepted(token)

    def _accepted(self, token: int) -> int:
        """Show a token to the samplers that look back."""
        lib.llama_sampler_accept(self._chain, token)
        return token

    def _drawn(self, row: int, fitting: Mask | None = None) -> int:
        """Draw from all tokens of a row, or from those that fit."""
        if fitting is not None and not fitting.any():
            raise BadReply(_NOTHING_FITS)
        if self._is_plain:
            logits = self._owner.logits(row)
            rest = np.float32(-np.inf)
            return self._highest(logits if fitting is None else np.where(fitting, logits, rest))
        found = self._owner.candidates(row, fitting)
        lib.llama_sampler_apply(self._chain, ctypes.byref(found))
        if not 0 <= found.selected < found.size:
            raise BadReply(_NOT_NUMBERS)
        drawn = found.data[found.selected]
        if fitting is not None and drawn.logit == -np.inf:
            raise BadReply(f"{_NOTHING_FITS}: the only ones that would are never to be drawn")
        return int(drawn.id)

    def _highest(self, logits: Floats) -> int:
        token = int(logits.argmax())
        if np.isnan(logits[token]):
            raise BadReply(_NOT_NUMBERS)
        return token

    def close(self) -> None:
        """See ``Sampler.close``."""
        if self._chain is not None:
            lib.llama_sampler_free(self._chain)
        self._chain = None
        if self._constraint is not None:
            self._constraint.close()
