"""What to load a model with, so that it fits: context, conversations at once, threads, GPU layers.

Pure: facts of the file, wishes and the machine's numbers in, a ``Plan`` or ModelTooLarge out.
``estimate`` knows the bytes, ``offload`` what of them a GPU can take, and ``planning`` reads the
machine.

Where memory is short, comforts are given up in this order: room for several whole conversations,
how many are answered at once, the whole cache of layers that only see a window, and at last the
context, unless that was asked for. So more memory never makes a worse plan.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from llmdispatcher.models.errors import BadRequest, ModelTooLarge, UnsupportedArchitecture
from llmdispatcher.vendors.llamacpp.files.header import Header
from llmdispatcher.vendors.llamacpp.plan import table
from llmdispatcher.vendors.llamacpp.plan.estimate import (
    CELLS_STEP,
    MIB,
    Need,
    Use,
    block_size,
    has_states,
    has_windows,
    padded,
    repacked_bytes,
    ties_factors_to_cells,
)
from llmdispatcher.vendors.llamacpp.plan.offload import Split, divide, most_layers

DEFAULT_CONTEXT_TOKENS = 8192
"""Taken where nobody asked for a context: long enough to talk, and cheap."""
LEAST_CONTEXT_TOKENS = 512
"""A context is not made smaller than this to fit: what comes out would be of no use."""

DEFAULT_PARALLEL = 16
"""Conversations at once: on processors, twice as many are hardly faster in sum."""
RETAINED_SLOTS = 16
"""Finished conversations that are remembered, so that their next turns are quick."""
DEFAULT_PARALLEL_STATES = RETAINED_STATES = 4
"""The same for models that keep a state for each conversation, which costs memory at once."""
MAX_SLOTS = 256
"""LLAMA_MAX_SEQ in llama.cpp's llama-cparams.h; it refuses more."""

MORE_CELLS_BYTES = 64 * MIB
MORE_CELLS_PART = 8
"""Room beyond one conversation may take so much, or such a part of the weights if that is more."""

BATCH_TOKENS = 512
"""llama.cpp's own physical batch."""
SLOW_BYTES = 1024 * MIB
SMALL_BATCH_TOKENS = 128
"""Processors take seconds for a whole batch of a large model, and until it is done nobody hears
that the engine is alive. A quarter of it still fills the arithmetic units."""

TWICE_PART = 10
"""A file is mapped unless more than such a part of its weights would be in memory twice."""

CACHE_TYPES = ("f32", "f16", "q8_0", "q4_0")
"""How keys and values can be stored, the largest first."""

ONE_THREAD_BYTES = 8 * MIB
"""Smaller models run on one thread. llama.cpp's threads spin at every operation's barrier, which
takes longer than such a model's arithmetic: a second thread gains nothing on a quiet machine, and
beside a busy neighbour it costs nearly all speed."""


def guesses(header: Header, asked: bool | None) -> bool:  # noqa: FBT001 - a wish
    """Whether to guess tokens where that helps: a small model's are there before a guess is."""
    return header.weight_bytes >= ONE_THREAD_BYTES if asked is None else asked


@attrs.frozen(kw_only=True)
class Asked:
    """What the user asked for; None leaves it to the plan."""

    context_tokens: int | None = None
    """The longest conversation: taken or refused, never changed."""
    max_parallel: int | None = None
    """At most so many conversations at once."""
    limit_bytes: int | None = None
    """Main memory that the model may take in all."""
    cache_type: str = "f16"
    """How keys and values are stored: one of CACHE_TYPES."""
    max_gpu_layers: int | None = None
    max_threads: int | None = None
    more_rows: int = 0
    """Rows of scores for guesses."""
    beside_bytes: int = 0
    """Weights of other files that are loaded with it."""
    process_bytes: int = 0
    """What the process takes that it runs in, if that runs nothing else."""
    batch_tokens: int | None = None
    """At most so many tokens of one decode."""
    retained: int | None = None
    """At most so many finished conversations that are remembered."""


@attrs.frozen(kw_only=True)
class Machine:
    """What there is to run on."""

    available_bytes: int
    """Main memory that may be taken now."""
    processors: int = 1
    """Threads that can really run at once."""
    gpus: tuple[int, ...] = ()
    """Free bytes of each GPU that llama.cpp can use."""
    gpus_share_memory: bool = False
    """The GPU's memory is a part of main memory, as on Apple silicon."""
    repacked: tuple[str, ...] = ()
    """Types of weights that the processor wants in another order than the file's."""


@attrs.frozen(kw_only=True)
class Plan:
    """How to load a model, and what that takes; llama.cpp's names in brackets."""

    context_tokens: int
    """The longest single conversation."""
    cells: int
    """Tokens that all conversations may hold together [n_ctx]."""
    parallel: int
    """Conversations that are answered at once."""
    slots: int
    """These and the finished ones that are remembered [n_seq_max, n_outputs_max]."""
    batch_tokens: int
    """Tokens of one decode [n_batch, n_ubatch]."""
    cache_type: str
    """How keys and values are stored [type_k, type_v]: one of CACHE_TYPES."""
    full_window: bool
    """Layers with a sliding window keep everything [swa_full]; without, no slot is left to
    remember what is finished."""
    mapped: bool
    """The file is mapped into memory [LLAMA_LOAD_MODE_MMAP], not read [LLAMA_LOAD_MODE_NONE]."""
    gpu_layers: int
    """Layers on GPUs [n_gpu_layers], from the last one backwards; the output is one more."""
    threads: int
    """The most threads to use."""
    need: Need
    """Main memory."""
    gpu_need: Need | None = None
    """Memory of all GPUs together; estimates that were never compared with a real GPU."""
    limit_bytes: int
    """Main memory that the plan had to fit in."""
    notes: tuple[str, ...] = ()
    """Why each choice was made."""

    def table(self) -> str:
        """Return it all as plain text: bytes by part, the choices, and the reasons."""
        return table.shown(self)


def choose(header: Header, asked: Asked, machine: Machine) -> Plan:
    """Choose how to load a model.

    Raises ModelTooLarge, with the numbers of the smallest plan, where none fits;
    UnsupportedArchitecture where the file is not a model that writes text, or cannot have such a
    cache; BadRequest where there is no such cache type.
    """
    header.check_generates()
    _check_cache_type(header, asked.cache_type)
    case = _Case(header, asked, machine)
    rungs = [*_ladder(header, asked)]
    for rung in rungs:
        found = case.made(rung)
        if case.fits(found):
            break
    else:
        raise _too_large(header, asked, found, case.in_memory(found))
    if rung is rungs[0]:
        found = case.roomier(rung)
    best = case.made(rungs[0])
    return attrs.evolve(found, notes=table.notes(table.Why(header, asked, machine, best), found))


def _check_cache_type(header: Header, cache_type: str) -> None:
    """Refuse what llama_init_from_model would refuse."""
    if cache_type not in CACHE_TYPES:
        raise BadRequest("cache_type", cache_type, f"one of {', '.join(CACHE_TYPES)}")
    keys = [header.key_length, header.value_length]
    keys += [header.number(f"attention.{name}_length_swa") or 0 for name in ("key", "value")]
    block = block_size(cache_type)
    if any(length % block for length in keys):
        raise UnsupportedArchitecture(
            f"{header.path} cannot keep its cache as {cache_type}, which stores blocks of {block}"
            f" numbers, and its heads have {max(keys)}: take f16",
            architecture=header.architecture,
        )


@attrs.frozen(kw_only=True)
class _Rung:
    """What is tried: each one of the ladder is smaller than those before it."""

    context_tokens: int
    cells: int
    parallel: int
    retained: int
    full_window: bool


def _ladder(header: Header, asked: Asked) -> Iterator[_Rung]:
    """List what to try, best first."""
    first, *smaller = _contexts(header, asked.context_tokens)
    parallel, retained = _conversations(header, asked)
    slides = has_windows(header)

    def rung(context: int, *, full_window: bool) -> _Rung:
        return _Rung(
            context_tokens=context,
            cells=context,
            parallel=max(1, parallel),
            retained=retained,
            full_window=full_window,
        )

    yield rung(first, full_window=True)
    while parallel > 1 or retained > 0:
        parallel, retained = parallel // 2, retained // 2
        yield rung(first, full_window=True)
    if slides:
        yield rung(first, full_window=False)
    for context in smaller:
        yield rung(context, full_window=not slides)


def _contexts(header: Header, asked: int | None) -> list[int]:
    """List the contexts to try, best first."""
    if asked is not None:
        return [asked]
    most = min(header.context_length or DEFAULT_CONTEXT_TOKENS, DEFAULT_CONTEXT_TOKENS)
    first_step = (most - 1) // CELLS_STEP * CELLS_STEP
    return [most, *range(first_step, LEAST_CONTEXT_TOKENS - 1, -CELLS_STEP)]


def _conversations(header: Header, asked: Asked) -> tuple[int, int]:
    """Return how many conversations to hold at best: at once, and finished ones beside them."""
    usual, retained = DEFAULT_PARALLEL, RETAINED_SLOTS
    if has_states(header):
        usual, retained = DEFAULT_PARALLEL_STATES, RETAINED_STATES
    if asked.retained is not None:
        retained = min(retained, asked.retained)
    return min(asked.max_parallel or usual, MAX_SLOTS - retained), retained


@attrs.frozen
class _Case:
    """One model on one machine."""

    header: Header
    asked: Asked
    machine: Machine

    def made(self, rung: _Rung) -> Plan:
        """Make the plan of a rung, whether it fits or not."""
        use, split = self._split(rung)
        limit, available = self.asked.limit_bytes, self.machine.available_bytes
        return Plan(
            context_tokens=rung.context_tokens,
            cells=rung.cells,
            parallel=min(rung.parallel, use.batch_tokens),
            slots=use.slots,
            batch_tokens=use.batch_tokens,
            cache_type=use.cache_type,
            full_window=rung.full_window,
            mapped=use.mapped,
            gpu_layers=split.layers,
            threads=self._threads(),
            need=split.host,
            gpu_need=split.gpu,
            limit_bytes=available if limit is None else min(limit, available),
        )

    def fits(self, made: Plan) -> bool:
        """Say whether main memory suffices; what is on GPUs was chosen to fit there."""
        return self.in_memory(made).total_bytes <= made.limit_bytes

    def in_memory(self, made: Plan) -> Need:
        """Return all that counts against main memory."""
        if made.gpu_need is None or not self.machine.gpus_share_memory:
            return made.need
        gpu = made.gpu_need.parts
        return Need(**{part: size + gpu[part] for part, size in made.need.parts.items()})

    def roomier(self, rung: _Rung) -> Plan:
        """Add as many cells as fit and are worth it, for several long conversations at once."""
        best = self.made(rung)
        context, parallel = best.context_tokens, best.parallel
        if parallel == 1 or ties_factors_to_cells(self.header):
            return best
        worth = max(MORE_CELLS_BYTES, self.header.weight_bytes // MORE_CELLS_PART)
        allowed = _growing_bytes(best) + worth
        low, high = padded(context) // CELLS_STEP, padded(context * parallel) // CELLS_STEP
        while low <= high:
            middle = (low + high) // 2
            tried = self.made(attrs.evolve(rung, cells=middle * CELLS_STEP))
            if _growing_bytes(tried) <= allowed and self.fits(tried):
                best, low = tried, middle + 1
            else:
                high = middle - 1
        return best

    def _split(self, rung: _Rung) -> tuple[Use, Split]:
        """Choose the batch and the layers on GPUs, each of which depends on the other."""
        batch = min(BATCH_TOKENS, self.asked.batch_tokens or BATCH_TOKENS)
        use = self._use(rung, batch)
        gpus, most = self.machine.gpus, self.asked.max_gpu_layers
        layers = most_layers(self.header, rung.cells, use, gpus, most)
        if not layers and self.header.weight_bytes > SLOW_BYTES:
            use = self._use(rung, min(batch, SMALL_BATCH_TOKENS))
        return use, divide(self.header, rung.cells, use, layers)

    def _use(self, rung: _Rung, batch_tokens: int) -> Use:
        """Say what a rung means to llama.cpp; one decode has a token of each conversation."""
        batch = min(batch_tokens, rung.cells)
        retained = rung.retained if rung.full_window else 0
        slots = min(rung.parallel, batch) + retained
        types = self.machine.repacked
        twice = repacked_bytes(self.header, types)
        return Use(
            batch_tokens=batch,
            slots=slots,
            outputs=slots + self.asked.more_rows,
            cache_type=self.asked.cache_type,
            full_window=rung.full_window,
            mapped=twice * TWICE_PART <= self.header.weight_bytes,
            repacked=types,
            more_rows=self.asked.more_rows,
            beside_bytes=self.asked.beside_bytes,
            process_bytes=self.asked.process_bytes,
        )

    def _threads(self) -> int:
        """Return the most threads that the user, the machine and the model's size allow."""
        if self.header.weight_bytes < ONE_THREAD_BYTES:
            return 1
        processors = self.machine.processors
        return min(self.asked.max_threads or processors, processors)


def _growing_bytes(made: Plan) -> int:
    """Count what depends on the number of cells."""
    needs = [made.need] if made.gpu_need is None else [made.need, made.gpu_need]
    return sum(need.kv_cache + need.compute + need.bookkeeping for need in needs)


def _too_large(header: Header, asked: Asked, smallest: Plan, need: Need) -> ModelTooLarge:
    """Make the refusal, with a way out that would be enough."""
    ceiling = smallest.limit_bytes
    parts = ", ".join(f"{name} {_mib(size)}" for name, size in need.parts.items() if size)
    if ceiling == asked.limit_bytes:
        allowed, way_out = "its limit is", f"allow {_mib(need.total_bytes)}"
    else:
        allowed, way_out = "there is free", "close other programs"
    return ModelTooLarge(
        f"{header.path} needs {_mib(need.total_bytes)} of memory with a context of"
        f" {smallest.context_tokens} tokens, and {allowed} {_mib(ceiling)} ({parts}); {way_out},"
        " ask for a smaller context, or take a smaller model or file of this one (it is stored as"
        f" {header.quantisation})",
        needed_bytes=need.total_bytes,
        limit_bytes=ceiling,
        parts=need.parts,
    )


def _mib(size: int) -> str:
    """MiB rounded up, so that allowing what is printed is enough."""
    return f"{-(-size // MIB)} MiB"
