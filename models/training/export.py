"""Writes the network and its tokenizer as a GGUF file for llama.cpp.

Owns the names of the tensors and the metadata. Matrices are Q8_0 (or F32, to
compare logits); norms are always F32, as llama.cpp wants them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
from bpe import BEGIN, BYTE_CHARACTERS, END, PAD, PRE_TOKENIZER, SPECIAL_TOKENS, Tokenizer
from conversation import CHAT_TEMPLATE
from network import Network, as_pairs
from numpy.typing import NDArray

NAME = "llmdispatcher demo"
DESCRIPTION = (
    "A tiny Llama trained from scratch on generated text, so that the first command of "
    "llmdispatcher works offline. It answers questions about llmdispatcher, knows capitals, adds "
    "and subtracts numbers up to 99, says yes or no, writes short JSON and tells short stories "
    "about animals and things. It cannot do anything else: it knows no names, no numbers of three "
    "digits and no other language, and refuses what is off its topics, or is wrong."
)


@dataclass(frozen=True, slots=True)
class About:
    """What a file tells of itself: a name, a description, and numbers by their metadata key."""

    name: str
    description: str
    numbers: Mapping[str, int] = field(default_factory=dict)


DEMO = About(NAME, DESCRIPTION)

NO_MERGE = (BYTE_CHARACTERS[0], BYTE_CHARACTERS[0])
"""Stands in a file of single bytes, since llama.cpp takes none without any merge. It makes what is
no token, so that nothing is ever merged."""


def tensors(network: Network) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield llama.cpp's name and the F32 values of every weight."""
    names = {
        "embedding": "token_embd",
        "final_norm": "output_norm",
        "attention_norm": "attn_norm",
        "query": "attn_q",
        "key": "attn_k",
        "value": "attn_v",
        "output": "attn_output",
        "feed_norm": "ffn_norm",
        "gate": "ffn_gate",
        "up": "ffn_up",
        "down": "ffn_down",
    }
    for name, parameter in network.named_parameters():
        parts = name.split(".")
        prefix = f"blk.{parts[1]}." if parts[0] == "blocks" else ""
        values = parameter.detach().float()
        if parts[-2] in {"query", "key"}:
            values = as_pairs(values, network.shape.heads)
        yield f"{prefix}{names[parts[-2]]}.weight", values.numpy()


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    special = frozenset(SPECIAL_TOKENS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types([control if t in special else normal for t in tokenizer.tokens])
    writer.add_token_merges([f"{a} {b}" for a, b in tokenizer.merges or [NO_MERGE]])
    writer.add_bos_token_id(tokenizer.ids[BEGIN])
    writer.add_eos_token_id(tokenizer.ids[END])
    writer.add_eot_token_id(tokenizer.ids[END])
    writer.add_pad_token_id(tokenizer.ids[PAD])
    writer.add_add_bos_token(value=False)
    writer.add_add_eos_token(value=False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _add_metadata(
    writer: gguf.GGUFWriter,
    network: Network,
    file_type: gguf.LlamaFileType,
    about: About,
) -> None:
    shape = network.shape
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(about.name)
    writer.add_description(about.description)
    for key, number in about.numbers.items():
        writer.add_uint32(key, number)
    writer.add_license("mit")
    writer.add_languages(["en"])
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context_tokens)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)


def write_gguf(
    path: Path,
    network: Network,
    tokenizer: Tokenizer,
    *,
    quantised: bool,
    about: About = DEMO,
) -> None:
    """Write the model file.

    Args:
        path: Where to write; an old file is replaced.
        network: The trained network.
        tokenizer: Its tokenizer.
        quantised: True for Q8_0 matrices, False for F32.
        about: What the file tells of itself.
    """
    kind = gguf.LlamaFileType.MOSTLY_Q8_0 if quantised else gguf.LlamaFileType.ALL_F32
    writer = gguf.GGUFWriter(path, "llama")
    _add_metadata(writer, network, kind, about)
    _add_tokenizer(writer, tokenizer)
    for name, values in tensors(network):
        if quantised and values.ndim == 2:
            q8 = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, q8), raw_dtype=q8)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
