"""Which files turn text into vectors or scores, how each does, and what that takes.

*Pooling* makes one vector of a text out of those of its tokens; the file says which way it was
trained for. Reads headers only and loads nothing. What llama.cpp would abort on, or silently
compute nonsense for, is refused here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import attrs

from llmdispatcher.models.card import Capability
from llmdispatcher.models.errors import (
    BadRequest,
    ModelTooLarge,
    UnsupportedArchitecture,
    VendorError,
)
from llmdispatcher.vendors.llamacpp.files.header import TENSOR_TYPES, Header, Kind, Tensor
from llmdispatcher.vendors.llamacpp.plan.estimate import MIB, Need, Use, estimate, has_states
from llmdispatcher.vendors.llamacpp.plan.fit import ONE_THREAD_BYTES, Asked, Machine, Plan

POOLINGS = ("mean", "cls", "last", "rank")
"""The average, the first token's, the last token's, and the score that a classifier gives."""

POOLING_IDS = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}
"""enum llama_pooling_type in llama.h."""

WITHOUT_CACHE = (
    "bert jina-bert-v2 jina-bert-v3 nomic-bert nomic-bert-moe neo-bert eurobert modern-bert"
    " gemma-embedding"
)
"""Architectures that read a text whole, and keep nothing: llama_model::create_memory."""

_NO_EMBEDDER = "dream llada llada-moe rnd1 wavtokenizer-dec t5"
"""Neither write from left to right nor make one vector of a text."""

_SEES_ALL = "t5encoder"
"""Says nothing of how it reads, and sees the whole text: it runs with llama_encode."""

BATCH_TOKENS = 256
"""Texts are read together up to so many tokens. On processors 128 to 256 were the fastest: with
fewer, weights are read too often for what they are multiplied with, and with more, attention looks
at more tokens of other texts."""

SLOTS = 64
"""Texts of one decode: short ones have some eight tokens."""
SLOTS_STATES = 4
"""The same for models that keep a state for each text, which costs memory at once."""

_MAKES = {Capability.EMBED: "vectors", Capability.RERANK: "scores"}

DEFAULT_TEXT_TOKENS = 2048
"""The longest text, where nobody asked for another: pages long. The work space of a model that
reads a text whole grows with its square."""


@attrs.frozen(kw_only=True)
class Pooling:
    """How a file makes vectors or scores of text."""

    kind: str
    """One of POOLINGS."""
    has_cache: bool = False
    """What was read is kept until the text is done."""
    splits: bool = False
    """A text can be read over several decodes, with the same result: each token sees only those
    before it, and what is made of the parts can be put together."""
    one_by_one: bool = False
    """llama.cpp can only be asked for one text at a time; see ``_ranking``."""

    @property
    def capability(self) -> Capability:
        """What the card lists."""
        return Capability.RERANK if self.kind == "rank" else Capability.EMBED


class Span(NamedTuple):
    """Tokens of one text that one decode reads."""

    slot: int
    position: int
    """How many of its tokens were read before."""
    tokens: Sequence[int]


def is_embedder(header: Header, asked: str | None) -> bool:
    """Whether a file is loaded for vectors or scores: it says so, or the user does."""
    return asked is not None or (
        header.kind is Kind.EMBEDDING and header.architecture not in _NO_EMBEDDER.split()
    )


def pooling_or_none(header: Header, asked: str | None) -> Pooling | None:
    """Return how a file pools, or None for one that writes. Raises as ``pooling_of``."""
    return pooling_of(header, asked) if is_embedder(header, asked) else None


def pooling_of(header: Header, asked: str | None) -> Pooling:
    """Return how a file pools.

    Raises UnsupportedArchitecture for a file that cannot, or that does not say how.
    """
    _check_kind(header)
    stated = header.number("pooling_type")
    kind = asked or next((name for name in POOLINGS if POOLING_IDS[name] == stated), None)
    if kind is None:
        told = "does not say how it makes one vector of a text: give pooling='mean', or what its"
        _refuse(header, f"{told} makers say ('cls', 'last')")
    has_cache = header.architecture not in WITHOUT_CACHE.split()
    causal = header.metadata.get(f"{header.architecture}.attention.causal", True)
    splits = has_cache and bool(causal) and header.architecture != _SEES_ALL
    pooling = Pooling(kind=kind, has_cache=has_cache, splits=splits and kind != "cls")
    return _ranking(header, pooling) if kind == "rank" else pooling


def capability_of(header: Header, asked: str | None) -> Capability:
    """Return what the card of an embedder lists, also where loading it will fail."""
    try:
        return pooling_of(header, asked).capability
    except VendorError:  # the load raises it again, where somebody sees it
        return Capability.RERANK if asked == "rank" else Capability.EMBED


def _check_kind(header: Header) -> None:
    """Refuse what is no model, or one whose header llama.cpp would abort on."""
    if header.kind is not Kind.EMBEDDING:
        header.check_generates()
    if header.architecture in _NO_EMBEDDER.split():
        _refuse(header, f"is a {header.architecture} model, which makes no vectors of texts")
    _check_width(header)
    _check_types(header)
    if header.architecture in WITHOUT_CACHE.split() and header.architecture != "gemma-embedding":
        _check_heads(header)
    if header.architecture == _SEES_ALL and not _tensor(header, "enc.blk.0.attn_rel_b.weight"):
        raise header.wrong("first layer", "without attn_rel_b", "one that knows positions")


def _check_width(header: Header) -> None:
    """Require vectors as wide as llama.cpp copies them, asserted or not.

    See src/models/gemma-embedding.cpp for the assertions, and llama_hparams::n_embd_out.
    """
    width = header.embedding_length
    for key in ("dense_2_feat_in", "dense_3_feat_out"):
        if (found := header.number(key)) and found != width:
            raise header.wrong(key, found, f"{width}, as its embedding_length")
    last = _tensor(header, "dense_3.weight") or _tensor(header, "dense_2.weight")
    made = last.shape[-1] if last is not None else width
    stated = header.number("embedding_length_out") or width
    if stated != made:
        raise header.wrong("embedding_length_out", stated, f"{made}, as its last layer makes")


def _check_types(header: Header) -> None:
    """Require what is added or multiplied as it is to be F32, or ggml's binary-ops.cpp aborts."""
    for tensor in header.tensors:
        if tensor.type_id and (len(tensor.shape) == 1 or tensor.name == "token_types.weight"):
            raise header.wrong(tensor.name, TENSOR_TYPES[tensor.type_id].name, "F32")


def _check_heads(header: Header) -> None:
    """Require heads that divide the width, as src/models/bert.cpp and its like assert."""
    heads = max(header.head_counts, default=0)
    head = header.embedding_length // heads if heads else 0
    for key in ("attention.key_length", "attention.value_length"):
        if (found := header.number(key)) not in (None, head):
            raise header.wrong(key, found, f"{head}, its embedding_length divided by its heads")
    turned = header.number("rope.dimension_count")
    if turned is not None and (not 0 < turned <= head or turned % 2):
        raise header.wrong("rope.dimension_count", turned, f"even, and from 2 to {head}")


def _tensor(header: Header, name: str) -> Tensor | None:
    return next((tensor for tensor in header.tensors if tensor.name == name), None)


def _ranking(header: Header, pooling: Pooling) -> Pooling:
    """Refuse a reranker without a classifier; llama.cpp would hand out numbers that mean nothing.

    Of one without its last layer, llama.cpp reads the scores of several texts from the wrong
    places (n_cls_out is 1 and the rows are longer, in llama_context::decode). A classifier of
    averages is not linear, so the parts of a text cannot be put together.
    """
    names = {tensor.name for tensor in header.tensors}
    if not names & {"cls.weight", "cls.output.weight"}:
        told = "has no classifier to score documents with: give a reranker, or ask for another"
        _refuse(header, f"{told} pooling to make vectors")
    averages = header.number("classifier.pooling_type") == POOLING_IDS["mean"]
    return attrs.evolve(
        pooling,
        one_by_one="cls.output.weight" not in names,
        splits=pooling.splits and not averages,
    )


def _refuse(header: Header, told: str) -> NoReturn:
    raise UnsupportedArchitecture(f"{header.path} {told}", architecture=header.architecture)


def choose(header: Header, pooling: Pooling, asked: Asked, machine: Machine) -> Plan:
    """Choose how to load a model for vectors or scores.

    ``asked.context_tokens`` is the longest text; ``asked.max_parallel`` limits how many are read
    together. Layers go on GPUs only where ``asked.max_gpu_layers`` says how many: what fits there
    is not estimated. Raises ModelTooLarge where it does not fit, BadRequest for a longer text than
    the model was trained for.
    """
    longest = _longest(header, asked)
    slots = SLOTS_STATES if has_states(header) else SLOTS
    slots = 1 if pooling.one_by_one else min(asked.max_parallel or slots, slots)
    batch = _multiple(BATCH_TOKENS if pooling.splits else max(longest, BATCH_TOKENS), slots)
    cells = longest + batch if pooling.has_cache else batch
    repacked = machine.repacked
    use = Use(
        batch_tokens=batch,
        slots=slots,
        cache_type=asked.cache_type,
        repacked=repacked,
        process_bytes=asked.process_bytes,
    )
    need = _need(header, pooling, cells, use)
    limit = min(machine.available_bytes, asked.limit_bytes or machine.available_bytes)
    if need.total_bytes > limit:
        raise _too_large(header, need, limit, longest)
    processors = 1 if header.weight_bytes < ONE_THREAD_BYTES else machine.processors
    return Plan(
        context_tokens=longest,
        cells=cells,
        parallel=slots,
        slots=slots,
        batch_tokens=batch,
        cache_type=use.cache_type,
        full_window=True,
        mapped=use.mapped,
        gpu_layers=(asked.max_gpu_layers or 0) if machine.gpus else 0,
        threads=min(asked.max_threads or processors, processors),
        need=need,
        limit_bytes=limit,
        notes=(f"makes {_MAKES[pooling.capability]}, by {pooling.kind} pooling",),
    )


def _multiple(tokens: int, slots: int) -> int:
    """Round up: llama.cpp aborts on a batch that does not divide by its slots (graph_reserve)."""
    return -(-tokens // slots) * slots


def _longest(header: Header, asked: Asked) -> int:
    """Return the longest text. llama.cpp aborts on positions that the model has no vector for."""
    trained = header.context_length or DEFAULT_TEXT_TOKENS
    if asked.context_tokens is None:
        return min(trained, DEFAULT_TEXT_TOKENS)
    if asked.context_tokens > trained:
        allowed = f"at most {trained}, the longest text that {header.path} was trained for"
        raise BadRequest("context_tokens", asked.context_tokens, allowed)
    return asked.context_tokens


def _need(header: Header, pooling: Pooling, cells: int, use: Use) -> Need:
    """Estimate the memory: as that of a model that writes, with these differences.

    llama.cpp keeps room for the scores of every token of a decode (llama_context::output_reserve),
    though a model without a cache computes none; such a model needs no cache, and looks at its own
    batch instead of one.
    """
    need = estimate(header, cells, use)
    rows = use.batch_tokens * (header.vocab_size + header.embedding_length) * 4
    if pooling.has_cache:
        return attrs.evolve(need, output=rows)
    return attrs.evolve(need, output=rows, kv_cache=0)


def _too_large(header: Header, need: Need, limit: int, longest: int) -> ModelTooLarge:
    parts = ", ".join(f"{name} {-(-size // MIB)} MiB" for name, size in need.parts.items() if size)
    return ModelTooLarge(
        f"{header.path} needs {-(-need.total_bytes // MIB)} MiB of memory for texts of {longest}"
        f" tokens, and there are {limit // MIB} MiB ({parts}): ask for a smaller context_tokens,"
        " or take a smaller file",
        needed_bytes=need.total_bytes,
        limit_bytes=limit,
        parts=need.parts,
    )
