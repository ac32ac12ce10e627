"""The network: a Llama decoder small enough to train on two processor cores.

Owns the shape of the model and the forward pass. Rotary embeddings turn
neighbouring pairs (2i, 2i+1), as llama.cpp does for its `llama` architecture,
so the weights go to the file without a permutation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

INITIAL_STD = 0.02
"""Standard deviation of the first embedding, as in GPT-2."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the model; every matrix row is a multiple of 32, Q8_0's block."""

    vocabulary: int
    width: int = 128
    layers: int = 5
    heads: int = 4
    feed_forward: int = 352
    context_tokens: int = 512
    rope_base: float = 10000.0
    norm_epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        """Numbers per attention head."""
        return self.width // self.heads


def rotary_tables(shape: Shape) -> tuple[Tensor, Tensor]:
    """Return cosines and sines, each [context_tokens, head_width / 2]."""
    exponents = torch.arange(0, shape.head_width, 2, dtype=torch.float64) / shape.head_width
    positions = torch.arange(shape.context_tokens, dtype=torch.float64)
    angles = torch.outer(positions, shape.rope_base**-exponents)
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn neighbouring pairs of x [batch, heads, tokens, head_width] by position."""
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = torch.stack((even * cosines - odd * sines, even * sines + odd * cosines), dim=-1)
    return turned.flatten(-2)


class Block(nn.Module):
    """One decoder layer: causal attention, then a gated feed-forward."""

    def __init__(self, shape: Shape) -> None:
        """Create the layer's seven matrices and two norms."""
        super().__init__()
        self.heads = shape.heads
        self.attention_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.query = nn.Linear(shape.width, shape.width, bias=False)
        self.key = nn.Linear(shape.width, shape.width, bias=False)
        self.value = nn.Linear(shape.width, shape.width, bias=False)
        self.output = nn.Linear(shape.width, shape.width, bias=False)
        self.feed_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.gate = nn.Linear(shape.width, shape.feed_forward, bias=False)
        self.up = nn.Linear(shape.width, shape.feed_forward, bias=False)
        self.down = nn.Linear(shape.feed_forward, shape.width, bias=False)
        # A silent start: every layer begins as the identity.
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """Map hidden states [batch, tokens, width] to the same shape."""
        batch, tokens, width = x.shape
        split = (batch, tokens, self.heads, width // self.heads)
        hidden = self.attention_norm(x)
        query = rotate(self.query(hidden).view(split).transpose(1, 2), cosines, sines)
        key = rotate(self.key(hidden).view(split).transpose(1, 2), cosines, sines)
        value = self.value(hidden).view(split).transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(
            query, key, value.to(query.dtype), is_causal=True
        )
        x = x + self.output(mixed.transpose(1, 2).reshape(batch, tokens, width))
        hidden = self.feed_norm(x)
        fed: Tensor = self.down(functional.silu(self.gate(hidden)) * self.up(hidden))
        return x + fed


class Network(nn.Module):
    """The whole decoder; the embedding is also the output matrix."""

    def __init__(self, shape: Shape) -> None:
        """Create the model with fresh weights from torch's current seed."""
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.final_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        cosines, sines = rotary_tables(shape)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)
        nn.init.normal_(self.embedding.weight, std=INITIAL_STD)

    def hidden(self, tokens: Tensor) -> Tensor:
        """Return the last hidden states [batch, tokens, width] of ids [batch, tokens]."""
        length = tokens.shape[1]
        cosines = self.get_buffer("cosines")[:length]
        sines = self.get_buffer("sines")[:length]
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, cosines, sines)
        normed: Tensor = self.final_norm(x)
        return normed

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits [batch, tokens, vocabulary] of ids [batch, tokens]."""
        return self.project(self.hidden(tokens))

    def project(self, hidden: Tensor) -> Tensor:
        """Return the logits of hidden states [..., width]."""
        return functional.linear(hidden, self.embedding.weight)

    def parameter_count(self) -> int:
        """Number of trained weights."""
        return sum(parameter.numel() for parameter in self.parameters())
