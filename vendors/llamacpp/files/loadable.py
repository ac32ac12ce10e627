"""What llama.cpp demands of a model's metadata, checked before it is asked to load.

llama.cpp asserts on values that make no sense, which ends the process that loads them. Each check
here stands for one of those assertions (in llama-model.cpp, llama-vocab.cpp and ggml's ops.cpp),
found by loading many thousand damaged files.
"""

from __future__ import annotations

import math

from llmdispatcher.models.errors import CorruptModel
from llmdispatcher.vendors.llamacpp.files.header import MAX_COUNT, MAX_LAYERS, Header, Kind

MAX_EXPERTS = 1024
"""LLAMA_MAX_EXPERTS in llama-hparams.h."""

_FACTS = (
    "kind",
    "name",
    "head_counts_kv",
    "feed_forward_lengths",
    "key_length",
    "value_length",
    "sliding_window",
    "chat_template",
    "bos_token_id",
    "eos_token_id",
    "file_type",
)
"""Read once, so that a value of the wrong type is found here and not later."""

_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
"""LLAMA_ROPE_SCALING_TYPES in llama-model.cpp."""
_EPSILONS = ("layer_norm_rms_epsilon", "layer_norm_epsilon", "group_norm_epsilon")
_NO_TOKENIZERS = ("none", "no_vocab", "bert")
"""The first two are files without a vocabulary; BERT's cannot write single bytes."""


def check(header: Header) -> None:
    """Raise CorruptModel where a fact is missing or wrong, or llama.cpp would abort on it."""
    if not header.architecture:
        raise CorruptModel(
            f"{header.path} does not say what it is: its metadata has no general.architecture;"
            " it was made by a broken tool, so get it from another place",
            path=header.path,
        )
    for fact in _FACTS:
        getattr(header, fact)
    if header.kind in (Kind.MODEL, Kind.EMBEDDING):
        _check_sizes(header)
        _check_experts(header)
        _check_scalings(header)
    if header.kind is Kind.MODEL:
        _check_tokenizer(header)


def _check_sizes(header: Header) -> None:
    for key, most in (
        ("block_count", MAX_LAYERS),
        ("context_length", MAX_COUNT),
        ("embedding_length", MAX_COUNT),
    ):
        if not header.number(key):
            raise header.wrong(key, header.number(key), f"a number from 1 to {most}")
    extra = header.number("nextn_predict_layers") or 0
    if extra > header.block_count:
        raise header.wrong("nextn_predict_layers", extra, "at most block_count")


def _check_experts(header: Header) -> None:
    """Require what load_hparams in llama-model.cpp asserts of a mixture of experts."""
    experts = header.number("expert_count") or 0
    used = max(header.per_layer("expert_used_count"), default=0)
    groups = header.number("expert_group_count") or 0
    groups_used = header.number("expert_group_used_count") or 0
    if experts:
        fits = 0 < used <= experts <= MAX_EXPERTS and groups < experts
        fits = fits and (groups < 2 or (experts % groups == 0 and 0 < groups_used < groups))  # noqa: PLR2004 - one group is none
    else:
        fits = used == groups == 0
    if not fits:
        shown = f"{used} used of {experts} experts, {groups_used} used of {groups} groups of them"
        raise header.wrong("expert_count", shown, f"consistent and at most {MAX_EXPERTS}")


def _check_scalings(header: Header) -> None:
    prefix = header.architecture
    scaling = header.text(f"{prefix}.rope.scaling.type") or "linear"
    if scaling not in _ROPE_SCALINGS:
        raise header.wrong("rope.scaling.type", scaling, f"one of {', '.join(_ROPE_SCALINGS)}")
    for name in _EPSILONS:
        value = header.metadata.get(f"{prefix}.attention.{name}", 0.0)
        if not isinstance(value, float) or not 0 <= value < math.inf:
            raise header.wrong(name, value, "a small fraction above 0")


def _check_tokenizer(header: Header) -> None:
    tokenizer = header.text("tokenizer.ggml.model")
    if not tokenizer or tokenizer in _NO_TOKENIZERS or not header.vocab_size:
        raise header.wrong(
            "tokenizer.ggml.model",
            f"{tokenizer}, with {header.vocab_size} tokens",
            "one that can write text, with its tokens",
        )
