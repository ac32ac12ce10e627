"""What a GGUF header says, as values: metadata, tensors, and the facts the engine plans with.

Owns the meaning of the keys. A fact that is missing is None, zero or empty, and one that cannot be
is CorruptModel. Reads no files; ``gguf`` does, and ``loadable`` says what llama.cpp can load.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum

import attrs

from llmdispatcher.models.errors import CorruptModel, UnsupportedArchitecture

MAX_LAYERS = 512
"""LLAMA_MAX_LAYERS in llama.cpp's llama-hparams.h, asserted on when loading."""
MAX_COUNT = 2**31 - 1
"""llama.cpp keeps dimensions and token counts in 32-bit integers."""


_FIM_NAMES = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<\uff5cfim▁begin\uff5c>", "<\uff5cfim▁hole\uff5c>", "<\uff5cfim▁end\uff5c>"),
    ("<PRE>", "<SUF>", "<MID>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),
    ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),
    ("<|prefix|>", "<|suffix|>", "<|middle|>"),
)
"""By these llama.cpp finds the tokens for filling in where a file does not name them
(src/llama-vocab.cpp)."""

FIM_TOKENS = tuple(name for names in _FIM_NAMES for name in names)

_FIM_KEYS = (("fim_pre", "fim_suf", "fim_mid"), ("prefix", "suffix", "middle"))


@attrs.frozen
class ArrayInfo:
    """An array that was skipped: the name of its element type, and how many there are."""

    type: str
    count: int
    marks: frozenset[str] = frozenset()
    """Of the names of FIM_TOKENS, those that are among them."""

    def __len__(self) -> int:
        """Say how many elements there are, as a tuple would."""
        return self.count


Scalar = str | int | float | bool
Value = Scalar | tuple[Scalar, ...] | ArrayInfo


@attrs.frozen
class Tensor:
    """One tensor: its shape has the row length first, as llama.cpp counts."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int
    """Where its data begins, in bytes from the start of the file."""
    size_bytes: int
    part: int = 0
    """The index of its file, in a model of several files."""

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        product = 1
        for size in self.shape:
            product *= size
        return product


class Kind(StrEnum):
    """What a GGUF file is for."""

    MODEL = "model"
    """Generates text."""
    EMBEDDING = "embedding"
    """Turns text into vectors or scores; cannot write."""
    ADAPTER = "adapter"
    """A LoRA: changes another model."""
    MMPROJ = "mmproj"
    """Lets another model see or hear."""
    VOCAB = "vocab"
    """A tokenizer without weights."""
    OTHER = "other"
    """Something else that is kept in this format."""


@attrs.frozen
class Header:
    """Everything that the header of a GGUF file, or of all parts of a model, says."""

    paths: tuple[str, ...]
    """The file, or all parts in order; llama.cpp is given the first."""
    version: int
    alignment: int
    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    file_size: int
    """Bytes of all files together."""

    @property
    def path(self) -> str:
        """The file to load."""
        return self.paths[0]

    @property
    def architecture(self) -> str:
        """Name the kind of network, such as llama or qwen3."""
        return self.text("general.architecture")

    @property
    def name(self) -> str:
        """The name its makers gave it, or an empty string."""
        return self.text("general.name")

    @property
    def kind(self) -> Kind:
        """What the file is for."""
        declared = self.text("general.type")
        if declared in _KINDS or self.architecture == "clip":
            return _KINDS.get(declared, Kind.MMPROJ)
        if not self.tensors:
            return Kind.VOCAB
        pooled = self.number("pooling_type") not in (None, 0)
        if (
            pooled
            or self.architecture in _ENCODERS.split()
            or self._own("attention.causal") is False
        ):
            return Kind.EMBEDDING
        return Kind.MODEL if declared in ("", "model") else Kind.OTHER

    @property
    def block_count(self) -> int:
        """Layers, with the extra ones that predict several tokens ahead."""
        count = self.number("block_count") or 0
        if count > MAX_LAYERS:
            raise self.wrong("block_count", count, f"at most {MAX_LAYERS}")
        return count

    @property
    def context_length(self) -> int | None:
        """Tokens of context that the model was trained for."""
        return self.number("context_length") or None

    @property
    def embedding_length(self) -> int:
        """Numbers that stand for one token between layers."""
        return self.number("embedding_length") or 0

    @property
    def feed_forward_lengths(self) -> tuple[int, ...]:
        """Width of the feed-forward part, for each layer."""
        return self.per_layer("feed_forward_length") or (0,) * self.block_count

    @property
    def head_counts(self) -> tuple[int, ...]:
        """Attention heads, for each layer."""
        return self.per_layer("attention.head_count") or (0,) * self.block_count

    @property
    def head_counts_kv(self) -> tuple[int, ...]:
        """Attention heads that keep keys and values, for each layer; 0 where it has none."""
        return self.per_layer("attention.head_count_kv") or self.head_counts

    @property
    def key_length(self) -> int:
        """Numbers in the key of one head."""
        heads = max(self.head_counts, default=0)
        return self.number("attention.key_length") or (
            self.embedding_length // heads if heads else 0
        )

    @property
    def value_length(self) -> int:
        """Numbers in the value of one head."""
        heads = max(self.head_counts, default=0)
        stated = self.number("attention.value_length")
        return stated or (self.embedding_length // heads if heads else 0)

    @property
    def sliding_window(self) -> int:
        """Tokens that layers with a sliding window look back; 0 where there is none."""
        return self.number("attention.sliding_window") or 0

    @property
    def vocab_size(self) -> int:
        """Tokens in the vocabulary, or 0."""
        tokens = self.metadata.get("tokenizer.ggml.tokens", ())
        return len(tokens) if isinstance(tokens, tuple | ArrayInfo) else 0

    @property
    def tool_template(self) -> str | None:
        """The Jinja source for requests with tools, if the model has another for them."""
        return self.text("tokenizer.chat_template.tool_use") or None

    @property
    def chat_template(self) -> str | None:
        """The Jinja source that turns messages into a prompt, if the model has one."""
        return self.text("tokenizer.chat_template") or None

    @property
    def fills_in(self) -> bool:
        """Whether it has the tokens to write what belongs between two texts."""
        tokens = self.metadata.get("tokenizer.ggml.tokens", ())
        marks = tokens.marks if isinstance(tokens, ArrayInfo) else tokens
        named = [
            all(f"tokenizer.ggml.{name}_token_id" in self.metadata for name in names)
            for names in _FIM_KEYS
        ]
        return any(named) or (
            isinstance(marks, tuple | frozenset)
            and any(all(name in marks for name in names) for names in _FIM_NAMES)
        )

    @property
    def bos_token_id(self) -> int | None:
        """The token that begins a text."""
        return self._integer("tokenizer.ggml.bos_token_id")

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text."""
        return self._integer("tokenizer.ggml.eos_token_id")

    @property
    def parameter_count(self) -> int:
        """Numbers in all tensors."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.size_bytes for tensor in self.tensors)

    @property
    def file_type(self) -> int | None:
        """The number that says how most tensors are stored."""
        return self._integer("general.file_type")

    @property
    def quantisation(self) -> str:
        """A short label such as Q4_K_M; from the tensors where the file does not say."""
        label = _FILE_TYPES.get(-1 if self.file_type is None else self.file_type, "-")
        if label != "-":
            return label
        bytes_by_type: Counter[int] = Counter()
        for tensor in self.tensors:
            bytes_by_type[tensor.type_id] += tensor.size_bytes
        most = bytes_by_type.most_common(1)
        return TENSOR_TYPES[most[0][0]].name if most else ""

    def text(self, key: str) -> str:
        """Return a metadata text, empty where it is missing."""
        value = self.metadata.get(key, "")
        if not isinstance(value, str):
            raise self.wrong(key, value, "text")
        return value

    def number(self, key: str) -> int | None:
        """Return an integer of this architecture (``block_count`` for ``llama.block_count``)."""
        return self._integer(f"{self.architecture}.{key}")

    def per_layer(self, key: str) -> tuple[int, ...]:
        """Return an integer for each layer; one in the file goes for all; empty where missing."""
        name, layers = f"{self.architecture}.{key}", self.block_count
        value = self.metadata.get(name, ())
        if not isinstance(value, tuple):
            return (self._count(name, value),) * layers
        if value and len(value) != layers:
            raise self.wrong(name, f"{len(value)} numbers", f"{layers}, one for each layer")
        return tuple(self._count(name, item) for item in value)

    def check_generates(self) -> None:
        """Raise UnsupportedArchitecture where the file is not a model that writes text."""
        if self.kind is not Kind.MODEL:
            raise UnsupportedArchitecture(
                f"{self.path} {_ADVICE[self.kind]}", architecture=self.architecture
            )

    def wrong(self, key: str, value: object, allowed: str) -> CorruptModel:
        """Make the error for a value that cannot be."""
        shown = repr(value)[:80]
        return CorruptModel(
            f"{self.path} is damaged: its {key} is {shown} and must be {allowed};"
            " download it again, or get it from another place",
            path=self.path,
        )

    def _own(self, key: str) -> Value | None:
        return self.metadata.get(f"{self.architecture}.{key}")

    def _integer(self, key: str) -> int | None:
        value = self.metadata.get(key)
        return None if value is None else self._count(key, value)

    def _count(self, key: str, value: Value) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
            raise self.wrong(key, value, f"a number from 0 to {MAX_COUNT}")
        return value


@attrs.frozen
class TensorType:
    """How a tensor is stored: blocks of so many numbers in so many bytes."""

    name: str
    block: int
    block_bytes: int


TENSOR_TYPES = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18),
    3: TensorType("Q4_1", 32, 20),
    6: TensorType("Q5_0", 32, 22),
    7: TensorType("Q5_1", 32, 24),
    8: TensorType("Q8_0", 32, 34),
    9: TensorType("Q8_1", 32, 36),
    10: TensorType("Q2_K", 256, 84),
    11: TensorType("Q3_K", 256, 110),
    12: TensorType("Q4_K", 256, 144),
    13: TensorType("Q5_K", 256, 176),
    14: TensorType("Q6_K", 256, 210),
    15: TensorType("Q8_K", 256, 292),
    16: TensorType("IQ2_XXS", 256, 66),
    17: TensorType("IQ2_XS", 256, 74),
    18: TensorType("IQ3_XXS", 256, 98),
    19: TensorType("IQ1_S", 256, 50),
    20: TensorType("IQ4_NL", 32, 18),
    21: TensorType("IQ3_S", 256, 110),
    22: TensorType("IQ2_S", 256, 82),
    23: TensorType("IQ4_XS", 256, 136),
    24: TensorType("I8", 1, 1),
    25: TensorType("I16", 1, 2),
    26: TensorType("I32", 1, 4),
    27: TensorType("I64", 1, 8),
    28: TensorType("F64", 1, 8),
    29: TensorType("IQ1_M", 256, 56),
    30: TensorType("BF16", 1, 2),
    34: TensorType("TQ1_0", 256, 54),
    35: TensorType("TQ2_0", 256, 66),
    39: TensorType("MXFP4", 32, 17),
    40: TensorType("NVFP4", 64, 36),
    41: TensorType("Q1_0", 128, 18),
    42: TensorType("Q2_0", 64, 18),
}
"""By number, from ggml.h and ggml-common.h; the numbers left out were removed from llama.cpp."""

_FILE_TYPE_NAMES = (
    "F32 F16 Q4_0 Q4_1 - - - Q8_0 Q5_0 Q5_1 Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S"
    " Q5_K_M Q6_K IQ2_XXS IQ2_XS Q2_K_S IQ3_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ3_M IQ2_S IQ2_M"
    " IQ4_XS IQ1_M BF16 - - - TQ1_0 TQ2_0 MXFP4_MOE NVFP4 Q1_0 Q2_0"
)
"""LLAMA_FTYPE in llama.h; a dash is a number that was removed."""
_FILE_TYPES = dict(enumerate(_FILE_TYPE_NAMES.split()))

_KINDS = {
    "adapter": Kind.ADAPTER,
    "mmproj": Kind.MMPROJ,
    "vocab": Kind.VOCAB,
    "imatrix": Kind.OTHER,
}
_ENCODERS = (
    "bert modern-bert nomic-bert nomic-bert-moe neo-bert jina-bert-v2 jina-bert-v3 eurobert"
    " t5encoder t5 gemma-embedding llama-embed wavtokenizer-dec dream llada llada-moe rnd1"
)
"""Architectures that do not write text from left to right, which is all that our engine does."""

_ADVICE = {
    Kind.EMBEDDING: "is a model that turns text into vectors or scores, or one that does not write"
    " from left to right: it cannot answer prompts; give a chat or instruct model",
    Kind.ADAPTER: "is a LoRA adapter, not a model: give the model that it was made for",
    Kind.MMPROJ: "holds only the part with which a model sees or hears (mmproj): give the model's"
    " own file, which usually lies beside it",
    Kind.VOCAB: "holds a tokenizer and no weights: give a complete model",
    Kind.OTHER: "is a GGUF file, and not a model: give a chat or instruct model",
}
