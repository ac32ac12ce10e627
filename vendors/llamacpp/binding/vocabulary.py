"""The vocabulary of a model file: text into tokens, and tokens into bytes.

It also opens files, for a vocabulary alone or for a whole model, and says why one cannot be opened.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from llmdispatcher.models.errors import (
    BadRequest,
    ContextOverflow,
    CorruptModel,
    OutOfMemory,
    Unsupported,
    UnsupportedArchitecture,
    VendorError,
)
from llmdispatcher.vendors.llamacpp.binding import log
from llmdispatcher.vendors.llamacpp.binding.library import lib

MAX_RUN = 150_000
"""For many vocabularies llama.cpp splits text with std::regex, which recurs: about 320 bytes of
stack for each character of a run of one kind, and a stack that overflows ends the process. The
thread of the engine has STACK_BYTES of it, see ``thread``; a thread with less must not tokenize
text whose runs are longer than its stack is deep."""

_MARKS = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN

_RUN = re.compile(r"\s+|\S+")

_USUAL_TOKEN_BYTES = 16
"""Text of more bytes for each token of the context is looked at more closely."""


class Vocabulary:
    """What a model knows of text. Used by one thread at a time; must not outlive its model."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - a C pointer
        """Take the vocabulary of a model that llama.cpp holds."""
        self.pointer: Any = lib.llama_model_get_vocab(model)
        self.size = int(lib.llama_vocab_n_tokens(self.pointer))
        """How many tokens there are: ids go from 0 to one less."""
        self._buffer = ctypes.create_string_buffer(64)
        # a call into C for each token would let other threads have the interpreter each time
        self._pieces: dict[int, bytes] = {}
        self._ends: dict[int, bool] = {}
        self._adds_bos = bool(lib.llama_vocab_get_add_bos(self.pointer))
        self.bos = self._written(lib.llama_vocab_bos(self.pointer))
        """How the token at the start of a text is written; empty where there is none."""
        self.eos = self._written(lib.llama_vocab_eos(self.pointer))
        """How the token at the end of a text is written; empty where there is none."""

    def tokenize(
        self,
        text: str,
        *,
        add_special: bool = True,
        parse_special: bool = True,
        context_tokens: int | None = None,
    ) -> list[int]:
        """Turn text into tokens.

        Args:
            text: what to turn.
            add_special: put the model's own start and end tokens around it, where it wants them.
                Text that begins with the start token, written by a template, is not given a second.
            parse_special: read ``<s>`` and its like as the tokens they name, not as text.
            context_tokens: the longest conversation; None is any length.

        Raises ContextOverflow for text that cannot fit whatever the tokens are, BadRequest for a
        run of more than MAX_RUN characters, and Unsupported for text that has no UTF-8 form.
        """
        if add_special and self._adds_bos and self.bos and text.startswith(self.bos):
            text = text[len(self.bos) :]
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            told = f"the prompt has no UTF-8 form at character {error.start}: a template, or the"
            raise Unsupported(
                "text", f"{told} arguments of a tool call, wrote half of a pair"
            ) from None
        if context_tokens is not None:
            self._check_size(len(data), context_tokens)
        _check_runs(text)
        room = len(data) + 8  # a token is at least a byte; a few special ones may be added
        tokens = (lib.llama_token * room)()
        flags = (add_special, parse_special)
        count = lib.llama_tokenize(self.pointer, data, len(data), tokens, room, *flags)
        if count < 0:
            room = -count
            tokens = (lib.llama_token * room)()
            count = lib.llama_tokenize(self.pointer, data, len(data), tokens, room, *flags)
        return list(tokens[:count])

    def infill(self, prefix: str, suffix: str) -> list[int]:
        """Return the tokens after which a model writes what belongs between two texts.

        As llama-server's /infill puts them, prefix first. Raises Unsupported for a model that has
        no tokens for it.
        """
        names = ("pre", "suf", "mid")
        marks = [int(getattr(lib, f"llama_vocab_fim_{name}")(self.pointer)) for name in names]
        if min(marks) < 0:
            raise Unsupported("suffix", "this model has no tokens for filling in (FIM)")
        before, after = (
            self.tokenize(text, add_special=False, parse_special=False) for text in (prefix, suffix)
        )
        start = [int(lib.llama_vocab_bos(self.pointer))] if self._adds_bos else []
        return [*start, marks[0], *before, marks[1], *after, marks[2]]

    def token(self, text: str) -> int | None:
        """Return the control token that is written so; None if there is none."""
        tokens = self.tokenize(text, add_special=False)
        is_one = len(tokens) == 1 and self.piece(tokens[0], special=True) == text.encode()
        return tokens[0] if is_one else None

    def is_mark(self, token: int, data: bytes) -> bool:
        """Whether a token, of these bytes, is a mark and never text.

        Beside control tokens, those are: many models have ``<tool_call>`` and its like among the
        tokens that their makers added.
        """
        attribute = int(lib.llama_vocab_get_attr(self.pointer, token))
        added = attribute & lib.LLAMA_TOKEN_ATTR_USER_DEFINED
        return bool(attribute & _MARKS) or bool(
            added and data.startswith(b"<") and data.endswith(b">")
        )

    def mark(self, text: str) -> int | None:
        """Return the mark that is written so; None if there is none."""
        token = self.token(text)
        return token if token is not None and self.is_mark(token, text.encode()) else None

    def _check_size(self, size_bytes: int, context_tokens: int) -> None:
        """Refuse what llama.cpp would read for long in vain."""
        if size_bytes > context_tokens * _USUAL_TOKEN_BYTES:
            least = -(-size_bytes // max(1, self._longest_bytes))
            if least >= context_tokens:
                raise ContextOverflow(least + 1, context_tokens)

    @cached_property
    def _longest_bytes(self) -> int:
        return max(len(self.piece(token, special=True)) for token in range(self.size))

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes of a token; control tokens have none unless ``special``."""
        if special:
            return self._read(token, special=True)
        found = self._pieces.get(token)
        if found is None:
            found = self._pieces[token] = self._read(token, special=False)
        return found

    def _read(self, token: int, *, special: bool) -> bytes:
        buffer = self._buffer
        size = lib.llama_token_to_piece(self.pointer, token, buffer, len(buffer), 0, special)
        if size < 0:  # longer than any token before it
            buffer = self._buffer = ctypes.create_string_buffer(-size)
            size = lib.llama_token_to_piece(self.pointer, token, buffer, len(buffer), 0, special)
        return buffer.raw[:size]

    def ends(self, token: int) -> bool:
        """Whether the token ends the reply."""
        found = self._ends.get(token)
        if found is None:
            found = self._ends[token] = bool(lib.llama_vocab_is_eog(self.pointer, token))
        return found

    def _written(self, token: int) -> str:
        """Return how a special token is written; empty where the model has none."""
        return "" if token < 0 else self.piece(token, special=True).decode(errors="replace")


def _check_runs(text: str) -> None:
    """Refuse what llama.cpp would not survive reading."""
    half = MAX_RUN // 2  # too long a run fills such a window, wherever it begins
    starts = range(0, len(text) - half + 1, half) if len(text) > MAX_RUN else ()
    if any(_RUN.fullmatch(text, start, start + half) for start in starts):
        run = max(len(found[0]) for found in _RUN.finditer(text))
        if run > MAX_RUN:
            told = f"{run} characters without a change between space and text"
            allowed = f"text that has spaces or line ends at least every {MAX_RUN} characters"
            raise BadRequest("prompt", told, allowed)


@contextmanager
def vocabulary_of(path: str | os.PathLike[str]) -> Iterator[Vocabulary]:
    """Open a file for its vocabulary alone, in milliseconds and without its weights.

    Raises a VendorError that says why the file cannot be opened.
    """
    params = lib.llama_model_default_params()
    params.vocab_only = True
    model = load(os.fspath(path), params)
    try:
        yield Vocabulary(model)
    finally:
        lib.llama_model_free(model)


def load(path: str, params: Any) -> Any:  # noqa: ANN401 - a C struct, a C pointer
    """Load a model file. Raises a VendorError that says why it cannot be loaded."""
    with log.listening() as lines:
        model = lib.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise _load_error(path, list(lines))
    return model


def reason(lines: Sequence[tuple[bool, str]]) -> str:
    """Pick the line of a log that says why: the first error, or else the last word."""
    errors = [line for is_error, line in lines if is_error]
    told = errors or [line for _, line in lines[-1:]] or ["llama.cpp gave no reason"]
    return told[0].strip()


def _load_error(path: str, lines: Sequence[tuple[bool, str]]) -> VendorError:
    """Turn the log of a failed load into the error that says why it failed."""
    text = "\n".join(line for _, line in lines)
    if found := re.search(r"unknown model architecture: '([^']*)'", text):
        name = found[1]
        return UnsupportedArchitecture(
            f"llama.cpp does not know the architecture {name!r} of {path}; a newer"
            " llama-cpp-python may",
            architecture=name,
        )
    if re.search(
        r"cannot allocate|failed to allocate|bad_alloc|out of memory", text, re.IGNORECASE
    ):
        return OutOfMemory(f"llama.cpp ran out of memory while loading {path}: {reason(lines)}")
    return CorruptModel(f"llama.cpp cannot load {path}: {reason(lines)}", path=path)
