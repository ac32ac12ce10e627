"""Will it fit? Bytes of memory by part, from a header alone, and the context that they allow.

Pure arithmetic; nothing is loaded. Weights and caches are exact sums from llama.cpp's sources
(llama-kv-cache.cpp, llama-memory-recurrent.cpp); the work space of a decode is an upper bound on
what ggml's allocator was seen to take. Where an architecture's rules are not known here, the
estimate is the larger one: refusing a model that fits is better than freezing the machine.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from llmdispatcher.models.errors import ModelTooLarge
from llmdispatcher.vendors.llamacpp.header import TENSOR_TYPES, Header

DEFAULT_CONTEXT_TOKENS = 8192
"""Taken where nobody asked for a context: long enough to talk, and cheap."""
LEAST_CONTEXT_TOKENS = 512
"""A context is not made smaller than this to fit: what comes out would be of no use."""
CONTEXT_STEP_TOKENS = 256
"""llama.cpp pads caches to this (GGML_PAD in llama-context.cpp)."""

_FLOAT_BYTES = 4
_MASK_BYTES = 2
"""The attention mask is F16."""
_TABLE_BYTES = 180
"""Of tables for a token or a merge, in llama_vocab; measured 130 to 175 with seven vocabularies."""

_TYPE_BYTES = {kind.name: (kind.block, kind.block_bytes) for kind in TENSOR_TYPES.values()}

_WINDOW_PATTERNS = {
    "gemma2": 2,
    "gemma3": 6,
    "gpt-oss": 2,
    "cohere2": 4,
    "olmo2": 4,
    "exaone4": 4,
    "gemma3n": 5,
}
"""One layer in so many sees everything, the others a window: load_swa_pattern in src/models."""


@attrs.frozen(kw_only=True)
class Use:
    """How a model will be used, as far as memory is concerned; llama.cpp's names in brackets."""

    batch_tokens: int = 512
    """Tokens in one decode [n_ubatch]."""
    parallel: int = 1
    """Sequences that share the context [n_seq_max, kv_unified]."""
    key_type: str = "F16"
    value_type: str = "F16"
    """How the cache is stored [type_k, type_v]."""
    full_window: bool = True
    """Layers with a sliding window get a cache for the whole context [swa_full]; the default."""


@attrs.frozen(kw_only=True)
class Need:
    """Bytes of memory that a model takes, by part."""

    weights: int
    """All tensors, mapped from the file or not."""
    kv_cache: int
    recurrent: int
    """States of layers that remember without a cache (Mamba, RWKV)."""
    compute: int
    """Work space of one decode."""
    output: int
    """The scores of all tokens, for each sequence."""
    tokenizer: int
    """llama.cpp's tables of tokens and merges."""

    @property
    def parts(self) -> Mapping[str, int]:
        """All parts, by name."""
        return attrs.asdict(self)

    @property
    def total_bytes(self) -> int:
        """The sum of all parts."""
        return sum(self.parts.values())


@attrs.frozen
class Plan:
    """A context that fits, and what it takes."""

    context_tokens: int
    need: Need
    limit_bytes: int
    """The smaller of the limit and what was free."""


def estimate(header: Header, context_tokens: int, use: Use | None = None) -> Need:
    """Return the memory that a model takes with a context of so many tokens."""
    use = use or Use()
    cells = _padded(context_tokens)
    batch = min(use.batch_tokens, cells)
    merges = header.metadata.get("tokenizer.ggml.merges", ())
    table_rows = header.vocab_size + (len(merges) if hasattr(merges, "__len__") else 0)
    return Need(
        weights=header.weight_bytes,
        kv_cache=_kv_bytes(header, cells, batch, use),
        recurrent=_recurrent_bytes(header) * use.parallel,
        compute=_compute_bytes(header, cells, batch),
        output=use.parallel * header.vocab_size * _FLOAT_BYTES,
        tokenizer=table_rows * _TABLE_BYTES,
    )


def plan(
    header: Header,
    *,
    context_tokens: int | None,
    limit_bytes: int | None,
    available_bytes: int,
    use: Use | None = None,
) -> Plan:
    """Choose a context that fits both the limit and the memory that is free.

    A context that was asked for is taken or refused, never changed. Without one, the context is
    what the model was trained for, at most DEFAULT_CONTEXT_TOKENS, and is made smaller down to
    LEAST_CONTEXT_TOKENS where memory is short. Raises ModelTooLarge with the numbers.
    """
    header.check_generates()
    ceiling = available_bytes if limit_bytes is None else min(limit_bytes, available_bytes)
    for tokens in _contexts(header, context_tokens):
        need = estimate(header, tokens, use)
        if need.total_bytes <= ceiling:
            return Plan(tokens, need, ceiling)
    raise ModelTooLarge(
        _refusal(header, need, ceiling, tokens, is_limit=ceiling == limit_bytes),
        needed_bytes=need.total_bytes,
        limit_bytes=ceiling,
        parts=need.parts,
    )


def _contexts(header: Header, asked: int | None) -> list[int]:
    """List the contexts to try, best first."""
    if asked is not None:
        return [asked]
    most = min(header.context_length or DEFAULT_CONTEXT_TOKENS, DEFAULT_CONTEXT_TOKENS)
    first_step = (most - 1) // CONTEXT_STEP_TOKENS * CONTEXT_STEP_TOKENS
    return [most, *range(first_step, LEAST_CONTEXT_TOKENS - 1, -CONTEXT_STEP_TOKENS)]


def _refusal(header: Header, need: Need, ceiling: int, tokens: int, *, is_limit: bool) -> str:
    table = ", ".join(f"{name} {_mib(size)}" for name, size in need.parts.items() if size)
    if is_limit:
        allowed, way_out = "its limit is", f"allow {_mib(need.total_bytes)}"
    else:
        allowed, way_out = "there is free", "close other programs"
    return (
        f"{header.path} needs {_mib(need.total_bytes)} of memory with a context of {tokens} tokens,"
        f" and {allowed} {_mib(ceiling)} ({table}); {way_out}, ask for a smaller context, or take a"
        f" smaller model or file of this one (it is stored as {header.quantisation})"
    )


def _mib(size: int) -> str:
    """MiB rounded up, so that allowing what is printed is enough."""
    return f"{-(-size // 2**20)} MiB"


def _padded(tokens: int) -> int:
    return -(-tokens // CONTEXT_STEP_TOKENS) * CONTEXT_STEP_TOKENS


def _kv_bytes(header: Header, cells: int, batch: int, use: Use) -> int:
    """Sum keys and values over all layers that have a cache."""
    recurrent = _recurrent_layers(header)
    always = header.architecture == "falcon-h1"  # both kinds in every layer
    with_cache = header.block_count - (header.number("attention.shared_kv_layers") or 0)
    windowed = _windowed_layers(header)
    window_cells = min(cells, _padded(header.sliding_window * use.parallel + batch))
    # with multi-head latent attention, the values are a part of the keys
    has_values = header.number("attention.key_length_mla") is None
    total = 0
    for layer, heads in enumerate(header.head_counts_kv[:with_cache]):
        if recurrent[layer] and not always:
            continue
        suffix = "_swa" if windowed[layer] else ""
        keys = header.number(f"attention.key_length{suffix}") or header.key_length
        values = header.number(f"attention.value_length{suffix}") or header.value_length
        rows = window_cells if windowed[layer] and not use.full_window else cells
        total += rows * _stored_bytes(heads * keys, use.key_type)
        total += rows * _stored_bytes(heads * values, use.value_type) * has_values
    return total


def _stored_bytes(count: int, kind: str) -> int:
    block, block_bytes = _TYPE_BYTES[kind]
    return -(-count // block) * block_bytes


def _windowed_layers(header: Header) -> tuple[bool, ...]:
    """Say for each layer whether it sees only a window; where that is not known, none does."""
    layers, name = header.block_count, f"{header.architecture}.attention.sliding_window_pattern"
    stated = header.metadata.get(name)
    if not header.sliding_window:
        return (False,) * layers
    if isinstance(stated, tuple) and len(stated) >= layers:
        return tuple(bool(item) for item in stated[:layers])
    default = _WINDOW_PATTERNS.get(header.architecture, 1)
    every = stated if isinstance(stated, int) and stated > 0 else default
    return tuple(layer % every < every - 1 for layer in range(layers))


def _recurrent_layers(header: Header) -> tuple[bool, ...]:
    """Say for each layer whether it keeps a state instead of a cache."""
    layers = header.block_count
    if not _state_numbers(header):
        return (False,) * layers
    interval = header.number("full_attention_interval")
    if interval:
        return tuple((layer + 1) % interval != 0 for layer in range(layers))
    if header.architecture == "falcon-h1":
        return (True,) * layers
    return tuple(heads == 0 for heads in header.head_counts_kv)


def _recurrent_bytes(header: Header) -> int:
    """Bytes of the states of one sequence, which are F32."""
    return sum(_recurrent_layers(header)) * _state_numbers(header) * _FLOAT_BYTES


def _state_numbers(header: Header) -> int:
    """Count the numbers in the state of one layer: n_embd_r and n_embd_s in llama-hparams.cpp."""

    def fact(key: str) -> int:
        return header.number(key) or 0

    width, heads = header.embedding_length, max(header.head_counts, default=0)
    kernel = max(fact("ssm.conv_kernel") - 1, 0)
    if head_size := fact("wkv.head_size"):
        return width * ((header.number("token_shift_count") or 2) + head_size)
    if reach := fact("shortconv.l_cache"):
        return width * (reach - 1)
    if head_size := fact("kda.head_dim"):
        return heads * head_size * (3 * (kernel or 3) + head_size)
    inner, state = fact("ssm.inner_size"), fact("ssm.state_size")
    return kernel * (inner + 2 * fact("ssm.group_count") * state) + inner * state


def _compute_bytes(header: Header, cells: int, batch: int) -> int:
    """Bound the work space: the widest moment of a layer, or the scores of all tokens.

    The rows that are alive at once, for each token of the batch, were found with dry runs over
    twenty shapes: five of the model's width and three of the queries' around attention, three of
    the feed-forward width around the feed-forward part, one of the vocabulary at the end.
    """
    width = header.embedding_length
    heads = max(header.head_counts, default=0)
    heads_kv = max(header.head_counts_kv, default=0)
    cached = heads_kv * (header.key_length + header.value_length)
    used = max(header.per_layer("expert_used_count"), default=0)
    inner = _inner_width(header, used)
    rows = max(
        2 * width + 3 * heads * header.key_length + 2 * cached,
        (4 + 2 * used) * width + 3 * inner,
        4 * width + header.vocab_size,
    )
    # ggml_graph_plan also keeps one operand of the widest multiplication in another format
    operand = 2 * max(inner, width)
    return batch * (rows * _FLOAT_BYTES + operand + cells * _MASK_BYTES)


def _inner_width(header: Header, used: int) -> int:
    """Count the numbers inside the feed-forward part, with all experts that one token uses."""
    dense = max(header.feed_forward_lengths, default=0)
    expert = header.number("expert_feed_forward_length") or dense
    shared = header.number("expert_shared_feed_forward_length") or 0
    return max(dense, used * expert + shared)
