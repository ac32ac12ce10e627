"""Bytes of memory that a model takes, by part, from a header alone.

Pure arithmetic; nothing is loaded. Weights and caches are exact sums from llama.cpp's sources
(llama-kv-cache.cpp, llama-memory-recurrent.cpp); the work space of a decode is an upper bound on
what ggml's allocator was seen to take, and the rest was measured. Where an architecture's rules
are not known here, the estimate is the larger one: refusing a model that fits is better than
freezing the machine.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from llmdispatcher.vendors.llamacpp.files.header import TENSOR_TYPES, Header, Tensor

MIB = 1024 * 1024

CELLS_STEP = 256
"""llama.cpp pads caches to this (GGML_PAD in llama-context.cpp)."""

_FLOAT_BYTES = 4
_HALF_BYTES = 2
_TABLE_BYTES = 180
"""Of tables for a token or a merge, in llama_vocab; measured 130 to 175 with seven vocabularies."""

_PROGRAM_BYTES = 3 * MIB
_TENSOR_BYTES = 10 * 1024
_CELL_BYTES = 160
"""What llama.cpp takes beside its buffers: code that runs for the first time, nodes of its graphs
for each tensor of the model, and who uses which cell (llama-kv-cells.h). Measured as what a process
grew by beyond its buffers, with 21 to 1443 tensors and 512 to 4096 cells."""

EMBEDDINGS = "token_embd.weight"
_REPACKED_ROWS = 8
"""Matrices are repacked if their rows come in such groups (4 or 8, by type)."""

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
    """Tokens in one decode [n_batch, n_ubatch]."""
    slots: int = 1
    """Sequences that share the cells [n_seq_max, with kv_unified]."""
    outputs: int | None = None
    """Tokens of one decode that get scores [n_outputs_max]; None is all of them."""
    cache_type: str = "f16"
    """How keys and values are stored [type_k, type_v]: f32 (then flash attention is off, to be
    exact), f16, q8_0 or q4_0."""
    full_window: bool = True
    """Layers with a sliding window get a cache for the whole context [swa_full]; the default."""
    mapped: bool = True
    """The file is mapped into memory, not read [load_mode]."""
    repacked: tuple[str, ...] = ()
    """Types of weights that the processor wants in another order: of these a copy is made."""
    more_rows: int = 0
    """Rows of scores beyond one for each sequence, for guesses that are checked at once."""
    beside_bytes: int = 0
    """Weights of other files: what lets the model see, and adapters."""
    process_bytes: int = 0
    """Of a child process of its own, before any model."""


@attrs.frozen(kw_only=True)
class Need:
    """Bytes of memory that a model takes, by part."""

    weights: int
    """All tensors, mapped from the file or not, and copies of them."""
    kv_cache: int
    recurrent: int
    """States of layers that remember without a cache (Mamba, RWKV)."""
    compute: int
    """Work space of one decode."""
    output: int
    """The scores of all tokens, for each sequence."""
    tokenizer: int
    """llama.cpp's tables of tokens and merges."""
    bookkeeping: int
    """What else llama.cpp takes: its code, graphs of tensors, lists of cells."""
    beside: int = 0
    """Weights of other files: what lets the model see, and adapters."""
    process: int = 0
    """What a child process takes that runs nothing else."""

    @property
    def parts(self) -> Mapping[str, int]:
        """All parts, by name."""
        return attrs.asdict(self)

    @property
    def total_bytes(self) -> int:
        """The sum of all parts."""
        return sum(self.parts.values())


def estimate(header: Header, cells: int, use: Use | None = None) -> Need:
    """Return the memory that a model takes with room for so many tokens."""
    use = use or Use()
    merges = header.metadata.get("tokenizer.ggml.merges", ())
    table_rows = header.vocab_size + (len(merges) if hasattr(merges, "__len__") else 0)
    caches = 1 + has_windows(header)
    return Need(
        weights=header.weight_bytes + _copied_bytes(header, use),
        kv_cache=sum(kv_by_layer(header, cells, use)),
        recurrent=sum(states_by_layer(header, use)),
        compute=_compute_bytes(header, cells, use),
        output=(use.slots + use.more_rows) * header.vocab_size * _FLOAT_BYTES,
        tokenizer=table_rows * _TABLE_BYTES,
        bookkeeping=_PROGRAM_BYTES
        + len(header.tensors) * _TENSOR_BYTES
        + caches * padded(cells) * _CELL_BYTES,
        beside=use.beside_bytes,
        process=use.process_bytes,
    )


def repacked_bytes(header: Header, types: tuple[str, ...]) -> int:
    """Return the bytes of weights that are multiplied with and kept in another order.

    See ggml_repack_get_optimal_repack_type in ggml-cpu/repack.cpp. While the file is mapped, these
    weights are in memory twice: as they are in the file, which nobody reads again, and as a copy.
    """
    return sum(
        tensor.size_bytes
        for tensor in header.tensors
        if _repacks(tensor, types) and tensor.name != EMBEDDINGS
    )


def _copied_bytes(header: Header, use: Use) -> int:
    """Return the bytes of weights that are held twice."""
    twice = repacked_bytes(header, use.repacked) if use.mapped else 0
    embeddings = tied_embeddings(header)
    if embeddings is not None and _repacks(embeddings, use.repacked):
        twice += embeddings.size_bytes  # once to look tokens up, once to score them
    return twice


def _repacks(tensor: Tensor, types: tuple[str, ...]) -> bool:
    is_matrix = len(tensor.shape) > 1 and tensor.shape[1] % _REPACKED_ROWS == 0
    return is_matrix and TENSOR_TYPES[tensor.type_id].name in types


def tied_embeddings(header: Header) -> Tensor | None:
    """Return the tensor that both looks tokens up and scores them, where there is one."""
    named = {tensor.name: tensor for tensor in header.tensors}
    return None if "output.weight" in named else named.get(EMBEDDINGS)


def padded(tokens: int) -> int:
    """Return the cells that llama.cpp makes of a context of so many tokens."""
    return -(-tokens // CELLS_STEP) * CELLS_STEP


def has_states(header: Header) -> bool:
    """Whether layers keep a state for each slot, beside a cache or instead of one."""
    return any(_recurrent_layers(header))


def has_windows(header: Header) -> bool:
    """Whether layers look back over a window only."""
    return any(_windowed_layers(header))


def ties_factors_to_cells(header: Header) -> bool:
    """Whether llama.cpp chooses position factors by the number of cells.

    It takes those for long texts as soon as there are more cells than the model was first trained
    with (get_rope_factors in llama-model.cpp), so more cells would change what it computes.
    """
    long = header.text(f"{header.architecture}.rope.scaling.type") == "longrope"
    return long or any(tensor.name == "rope_factors_long.weight" for tensor in header.tensors)


def kv_by_layer(header: Header, cells: int, use: Use) -> tuple[int, ...]:
    """Return the bytes of keys and values for each layer; 0 where it has no cache."""
    recurrent = _recurrent_layers(header)
    always = header.architecture == "falcon-h1"  # both kinds in every layer
    with_cache = header.block_count - (header.number("attention.shared_kv_layers") or 0)
    windowed = _windowed_layers(header)
    window_cells = _window_cells(header, cells, use)
    # with multi-head latent attention, the values are a part of the keys
    has_values = header.number("attention.key_length_mla") is None
    sizes = []
    for layer, heads in enumerate(header.head_counts_kv):
        if layer >= with_cache or (recurrent[layer] and not always):
            sizes.append(0)
            continue
        suffix = "_swa" if windowed[layer] else ""
        keys = header.number(f"attention.key_length{suffix}") or header.key_length
        values = header.number(f"attention.value_length{suffix}") or header.value_length
        row = _stored_bytes(heads * keys, use.cache_type)
        row += _stored_bytes(heads * values, use.cache_type) * has_values
        sizes.append(row * (window_cells if windowed[layer] else padded(cells)))
    return tuple(sizes)


def block_size(kind: str) -> int:
    """Return how many numbers a storage type keeps together."""
    return _TYPE_BYTES[kind.upper()][0]


def _stored_bytes(count: int, kind: str) -> int:
    block, block_bytes = _TYPE_BYTES[kind.upper()]
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


def _window_cells(header: Header, cells: int, use: Use) -> int:
    """Return the cells of layers that look back over a window only."""
    if use.full_window:
        return padded(cells)
    reach = header.sliding_window * use.slots + min(use.batch_tokens, cells)
    return padded(min(padded(cells), reach))


def states_by_layer(header: Header, use: Use) -> tuple[int, ...]:
    """Return the bytes of the states of all slots, which are F32, for each layer."""
    size = _state_numbers(header) * _FLOAT_BYTES * use.slots
    return tuple(size if has_state else 0 for has_state in _recurrent_layers(header))


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


def _compute_bytes(header: Header, cells: int, use: Use) -> int:
    """Bound the work space: the widest moment of a layer, or the scores at the end.

    The rows that are alive at once, for each token of the batch, were found with dry runs over
    some hundred shapes. What holds them is one buffer, in which ggml's allocator leaves gaps.
    """
    batch = -(-min(use.batch_tokens, cells) // use.slots) * use.slots  # graph_reserve rounds up
    outputs = batch if use.outputs is None else min(use.outputs, batch)
    width = header.embedding_length
    used = max(header.per_layer("expert_used_count"), default=0)
    inner = _inner_width(header, used)
    mask = _mask_bytes(header, cells, batch, use)
    attention = mask + _attention_bytes(header, cells, batch, use)
    states = mask + _state_work_bytes(header, batch, use)
    feed_forward = mask + batch * ((4 + 2 * used) * width + 3 * inner) * _FLOAT_BYTES
    scores = header.vocab_size * outputs * _FLOAT_BYTES
    # if the scores are larger than the mask, they do not come to lie where it was
    ending = scores + 3 * width * batch * _FLOAT_BYTES + min(mask, scores)
    # ggml_graph_plan also keeps one operand of the widest multiplication in another format
    operand = batch * _HALF_BYTES * max(inner, width, header.number("ssm.inner_size") or 0)
    return max(attention, states, feed_forward, ending) + operand


def entry_bytes(header: Header, cells: int, use: Use) -> int:
    """Return the work space that is left to main memory when all layers are on GPUs."""
    batch = min(use.batch_tokens, cells)
    entering = batch * header.embedding_length * _FLOAT_BYTES
    return entering + _mask_bytes(header, cells, batch, use)


def _attention_bytes(header: Header, cells: int, batch: int, use: Use) -> int:
    """Bound what attention has at once, but for the mask."""
    width, heads = header.embedding_length, max(header.head_counts, default=0)
    queries = heads * header.key_length
    cached = max(header.head_counts_kv, default=0) * (header.key_length + header.value_length)
    if not _has_flash_attention(header, use):
        scores = heads * padded(cells)
        return batch * (3 * width + 3 * queries + 2 * cached + scores) * _FLOAT_BYTES
    rows = max(3 * width + 2 * queries + cached, width + 3 * queries)
    if use.cache_type == "f16":
        return batch * rows * _FLOAT_BYTES
    # keys and values are turned before they are quantised, so that they lose less
    turn = 2 * header.key_length**2
    return (batch * (rows + cached // 2) + turn) * _FLOAT_BYTES


def _state_work_bytes(header: Header, batch: int, use: Use) -> int:
    """Bound what a layer with states has at once: rows for each token, and all slots' states."""
    if not has_states(header):
        return 0
    width = header.embedding_length
    inner = header.number("ssm.inner_size") or 2 * width
    grouped = (header.number("ssm.group_count") or 1) * (header.number("ssm.state_size") or 0)
    rows = 2 * width + 6 * inner + 8 * grouped + (header.number("ssm.time_step_rank") or 0)
    kernel = max((header.number("ssm.conv_kernel") or 0) - 1, 0)
    copies = _state_numbers(header) + kernel * (inner + 2 * grouped)
    return (batch * rows + use.slots * copies) * _FLOAT_BYTES


def _mask_bytes(header: Header, cells: int, batch: int, use: Use) -> int:
    """Return the bytes of the masks that say which token sees which cell."""
    if not any(kv_by_layer(header, cells, use)):
        return 0
    seen = padded(cells)
    if has_windows(header):
        seen += _window_cells(header, cells, use)
    return batch * seen * (_HALF_BYTES if _has_flash_attention(header, use) else _FLOAT_BYTES)


def _has_flash_attention(header: Header, use: Use) -> bool:
    """Whether attention never holds all its scores; F32 caches are used without, to be exact."""
    return use.cache_type != "f32" and header.architecture != "grok"


def _inner_width(header: Header, used: int) -> int:
    """Count the numbers inside the feed-forward part, with all experts that one token uses."""
    dense = max(header.feed_forward_lengths, default=0)
    expert = header.number("expert_feed_forward_length") or dense
    shared = header.number("expert_shared_feed_forward_length") or 0
    return max(dense, used * expert + shared)
