"""The backend over llama.cpp's own API.

The binding's high-level class is not used: it aborts the process when two threads meet in it, hides
the reason of a failed load and rewrites the process's file descriptors. Every condition that
llama.cpp asserts is checked here first.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from llmdispatcher.models.errors import (
    EngineCrashed,
    ExecutableNotFound,
    Unsupported,
)
from llmdispatcher.vendors.llamacpp.binding.batch import Batch
from llmdispatcher.vendors.llamacpp.binding.library import lib, scores_at
from llmdispatcher.vendors.llamacpp.binding.opening import Setup, open_context, open_model
from llmdispatcher.vendors.llamacpp.binding.samplers import Floats, Samplers
from llmdispatcher.vendors.llamacpp.binding.vocabulary import Vocabulary
from llmdispatcher.vendors.llamacpp.engine.backend import (
    Adapting,
    Chunk,
    Constraint,
    Drawn,
    Interrupted,
    NoRoom,
    Sampler,
    Sharing,
)
from llmdispatcher.vendors.llamacpp.engine.sampling import chain
from llmdispatcher.vendors.llamacpp.sight.places import Places

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llmdispatcher.vendors.llamacpp.binding.adapters import Adapters
    from llmdispatcher.vendors.llamacpp.files.header import Header
    from llmdispatcher.vendors.llamacpp.rules.constraint import Grammars
    from llmdispatcher.vendors.llamacpp.rules.rules import Rule
    from llmdispatcher.vendors.llamacpp.sight.vision import Projector

_ABORTED = 2
_NO_ROOM = 1
"""Return codes of llama_decode (llama.h)."""


class NativeBackend:
    """A loaded model and one context. See ``backend.Backend``."""

    def __init__(self, setup: Setup, on_progress: Callable[[float], bool]) -> None:
        """Load; ``on_progress`` gets the fraction done and returns False to give up.

        Raises a VendorError that says why loading failed.
        """
        self._setup = setup
        self._model: Any = None
        self._context: Any = None
        self._samplers: Samplers | None = None
        self._grammars: Grammars | None = None
        self._adapters: Adapters | None = None
        self.projector: Projector | None = None
        self._flag = ctypes.create_string_buffer(2)
        """A text, and empty: ``interrupt`` makes it one byte long. See ``open_context``."""
        with ExitStack() as undo:
            undo.callback(self.close)
            self._model = open_model(setup, on_progress)
            self.vocabulary = Vocabulary(self._model)
            self._context = open_context(self._model, setup, self._flag)
            undo.pop_all()
        self._memory = lib.llama_get_memory(self._context)
        self.slots = setup.slots
        self.cells = int(lib.llama_n_ctx(self._context))
        self.context_tokens = min(setup.context_tokens, self.cells)
        self.batch_tokens = int(lib.llama_n_batch(self._context))
        self._batch = Batch(self.batch_tokens)
        self.bos, self.eos = self.vocabulary.bos, self.vocabulary.eos
        self._window = int(lib.llama_model_n_swa(self._model))
        self.sharing = self._sharing()
        self._places = Places(self.slots)
        self._rows: list[int] = []
        """Where in the last batch the rows are that tokens can be drawn from."""

    def _sharing(self) -> Sharing:
        if lib.llama_model_is_recurrent(self._model) or lib.llama_model_is_hybrid(self._model):
            return Sharing.WHOLE
        if self._window and not self._setup.full_window:
            return Sharing.NONE
        return Sharing.PREFIX

    def tokenize(self, text: str) -> list[int]:
        """See ``Backend.tokenize``. A template that wrote the start token is not given a second."""
        return self.vocabulary.tokenize(text, context_tokens=self.context_tokens)

    def infill(self, prefix: str, suffix: str) -> list[int]:
        """See ``Backend.infill``."""
        return self.vocabulary.infill(prefix, suffix)

    def token(self, text: str) -> int | None:
        """See ``Backend.token``."""
        return self.vocabulary.token(text)

    def mark(self, text: str) -> int | None:
        """See ``Backend.mark``."""
        return self.vocabulary.mark(text)

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """See ``Backend.piece``."""
        return self.vocabulary.piece(token, special=special)

    def ends(self, token: int) -> bool:
        """See ``Backend.ends``."""
        return self.vocabulary.ends(token)

    def constraint(self, rule: Rule) -> Constraint:
        """See ``Backend.constraint``."""
        if self._grammars is None:
            try:
                from llmdispatcher.vendors.llamacpp.rules.constraint import (  # noqa: PLC0415 - rare
                    Grammars,
                )
            except ModuleNotFoundError as error:
                raise ExecutableNotFound(
                    f"replies of a given form need {error.name}: pip install {error.name}, or"
                    " 'llmdispatcher[llamacpp]'"
                ) from None
            self._grammars = Grammars(self.vocabulary)
        return self._grammars.constraint(rule)

    def sampler(self, drawn: Drawn) -> Sampler:
        """See ``Backend.sampler``."""
        if self._samplers is None:
            self._samplers = Samplers(self.vocabulary, self.logits)
        links = chain(drawn.sampling, drawn.seed)
        if drawn.constraint is None:
            return self._samplers.made(links, drawn.recent)
        return self._samplers.made(links, drawn.recent, drawn.constraint)

    def decode(self, chunks: Sequence[Chunk]) -> None:
        """See ``Backend.decode``."""
        self._rows = []
        self._check(chunks)
        if chunks[0].picture is not None:
            self._show(chunks[0], chunks[0].picture)
            return
        rows = self._batch.fill(chunks, self._places.shifts)
        code = lib.llama_decode(self._context, self._batch.native)
        if code:
            self._failed(code, chunks)
        lib.llama_synchronize(self._context)
        self._rows = rows
        lengths = self._places.lengths
        for slot, position, tokens, _, _ in chunks:
            lengths[slot] = position + len(tokens)

    def _failed(self, code: int, chunks: Sequence[Chunk]) -> None:
        """Raise what a return code of llama_decode means."""
        if code == _ABORTED:
            self._undo(chunks)
            raise Interrupted
        if code == _NO_ROOM:
            raise NoRoom
        count = sum(len(chunk.tokens) for chunk in chunks)
        raise EngineCrashed(f"llama_decode failed with code {code} for {count} tokens")

    def _undo(self, chunks: Sequence[Chunk]) -> None:
        """Take back what an aborted decode may have left."""
        if self.sharing is Sharing.WHOLE:
            # states were moved before the graph ran, of any slot (llama-memory-recurrent.cpp)
            lib.llama_memory_clear(self._memory, True)  # noqa: FBT003 - C call: the states as well
            self._places = Places(self.slots)
            return
        for slot, position, *_ in chunks:
            lib.llama_memory_seq_rm(self._memory, slot, position + self._places.shifts[slot], -1)

    def _check(self, chunks: Sequence[Chunk]) -> None:
        """Refuse what llama.cpp would answer with abort()."""
        count, rows = sum(len(chunk.tokens) for chunk in chunks), sum(c.rows for c in chunks)
        if chunks and chunks[0].picture is not None and len(chunks) == 1 and not rows:
            count = 1  # it goes in batches of its own
        if not 0 < count <= self.batch_tokens or rows > self.slots + self._setup.more_rows:
            raise EngineCrashed(f"{count} tokens do not fit the batch of {self.batch_tokens}")
        if len({chunk.slot for chunk in chunks}) < len(chunks):
            raise EngineCrashed("a slot is twice in one step")
        for slot, position, tokens, wanted, picture in chunks:
            if not wanted <= len(tokens) or not tokens or position + len(tokens) > self.cells:
                raise EngineCrashed(f"{len(tokens)} tokens at {position} fit no context")
            if not 0 <= slot < self.slots or self._places.lengths[slot] != position:
                raise EngineCrashed(f"slot {slot} of {self.slots} does not end at {position}")
            if picture is not None and len(chunks) == 1:
                continue
            if min(tokens) < 0 or max(tokens) >= self.vocabulary.size:
                raise EngineCrashed(f"a token is outside the vocabulary of {self.vocabulary.size}")

    def _show(self, chunk: Chunk, picture: Any) -> None:  # noqa: ANN401 - a vision.Picture
        """Append a picture to a slot. Raises as ``decode``."""
        if self.projector is None:
            raise EngineCrashed("a picture, and no projector is loaded")
        start = chunk.position + self._places.shifts[chunk.slot]
        try:
            end = self.projector.decode(
                self._context,
                picture,
                position=start,
                slot=chunk.slot,
                batch_tokens=self.batch_tokens,
            )
        except Interrupted:
            if self.sharing is Sharing.WHOLE:
                self._undo([chunk])
            raise
        self._places.show(chunk.slot, picture.count, end - start)

    def logits(self, row: int) -> Floats:
        """Return the scores of all tokens in a row of the last decode; gone with the next."""
        if not 0 <= row < len(self._rows):
            raise EngineCrashed(f"row {row} of {len(self._rows)} that were decoded")
        address = scores_at(self._context, self._rows[row])
        if not address:
            raise EngineCrashed(f"llama.cpp has no scores in row {row}")
        scores: Any = (ctypes.c_float * self.vocabulary.size).from_address(address)
        floats: Floats = np.frombuffer(scores, np.float32)
        return floats

    def logprobs(self, row: int, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
        """See ``Backend.logprobs``."""
        logits = self.logits(row)
        highest = logits.max()
        total = float(highest) + float(np.log(np.exp(logits - highest).sum(dtype=np.float64)))
        first = max(0, len(logits) - top)
        likeliest = np.argpartition(logits, first)[first:].tolist() if top else []
        likeliest.sort(key=lambda other: (-logits[other], other))
        ranked = [(other, float(logits[other]) - total) for other in likeliest]
        return float(logits[token]) - total, ranked

    def share(self, source: int, target: int, count: int) -> bool:
        """See ``Backend.share``."""
        have = self._places.lengths[source]
        if not 0 < count <= have or self._places.lengths[target] or source == target:
            raise EngineCrashed(f"slot {target} cannot share {count} of the {have} of {source}")
        if self.sharing is Sharing.NONE or (self.sharing is Sharing.WHOLE and count != have):
            return False
        end = self._places.position(source, count)
        if end is None:  # inside a picture
            return False
        if self._window:  # cells that no layer with a window looks at any more may be used again
            first = lib.llama_memory_seq_pos_min(self._memory, source)
            if first > max(0, end - self._window):
                return False
        whole = self.sharing is Sharing.WHOLE
        lib.llama_memory_seq_cp(
            self._memory, source, target, -1 if whole else 0, -1 if whole else end
        )
        self._places.copy(source, target, count)
        return True

    def trim(self, slot: int, count: int) -> None:
        """See ``Backend.trim``."""
        end = self._places.position(slot, count)
        if self.sharing is not Sharing.PREFIX or end is None:
            raise EngineCrashed(f"slot {slot} cannot be cut after {count} tokens")
        lib.llama_memory_seq_rm(self._memory, slot, end, -1)
        self._places.copy(slot, slot, count)

    def drop(self, slot: int) -> None:
        """See ``Backend.drop``."""
        lib.llama_memory_seq_rm(self._memory, slot, -1, -1)
        self._places.copy(slot, slot, 0)

    def check_adapters(self, adapters: Adapting) -> None:
        """See ``Backend.check_adapters``."""
        if self._adapters is not None:
            self._adapters.check(adapters)
        elif adapters:
            raise Unsupported("adapters", "this model was loaded without any")

    def adapt(self, adapters: Adapting) -> None:
        """See ``Backend.adapt``."""
        if self._adapters is not None:
            self._adapters.use(self._context, adapters)

    def save(self, slot: int) -> bytes:
        """See ``Backend.save``."""
        size = int(lib.llama_state_seq_get_size(self._context, slot))
        data = (ctypes.c_uint8 * size)()
        count = int(lib.llama_state_seq_get_data(self._context, data, size, slot))
        if not 0 < count <= size:
            raise EngineCrashed(f"llama.cpp wrote {count} of {size} bytes of slot {slot}")
        return bytes(memoryview(data)[:count])

    def restore(self, slot: int, data: bytes, count: int) -> bool:
        """See ``Backend.restore``."""
        buffer = (ctypes.c_uint8 * len(data)).from_buffer_copy(data)
        read = int(lib.llama_state_seq_set_data(self._context, buffer, len(data), slot))
        last = lib.llama_memory_seq_pos_max(self._memory, slot)
        if read != len(data) or last + 1 != count:
            self.drop(slot)
            return False
        self._places.lengths[slot] = count
        return True

    def see(self, path: Path, *, threads: int = 1) -> None:
        """Load the projector that lets the model see, with threads of its own for good.

        Raises a VendorError.
        """
        from llmdispatcher.vendors.llamacpp.sight.vision import Projector  # noqa: PLC0415 - loads mtmd

        gpu = self._setup.gpu_layers != 0
        self.projector = Projector(path, self._model, threads=threads, gpu=gpu)

    def take_adapters(self, base: Header, files: Mapping[str, Path]) -> None:
        """Load LoRA files, to be applied by ``adapt``. Raises a VendorError."""
        from llmdispatcher.vendors.llamacpp.binding.adapters import Adapters  # noqa: PLC0415 - rare

        self._adapters = Adapters(self._model, base, files)

    def set_threads(self, threads: int) -> None:
        """See ``Backend.set_threads``."""
        lib.llama_set_n_threads(self._context, threads, threads)

    def interrupt(self, *, on: bool) -> None:
        """See ``Backend.interrupt``."""
        self._flag[0] = b"\x01" if on else b"\x00"
        if self.projector is not None:
            self.projector.interrupt(on=on)

    def close(self) -> None:
        """See ``Backend.close``."""
        for part in (self._samplers, self._grammars, self._adapters, self.projector):
            if part is not None:
                part.close()
        self._samplers = self._grammars = self._adapters = self.projector = None
        if self._context:
            lib.llama_free(self._context)
        if self._model:
            lib.llama_model_free(self._model)
        self._context = self._model = None


def has_gpu() -> bool:
    """Whether this build of llama.cpp can put layers on a GPU."""
    return bool(lib.llama_supports_gpu_offload())
