"""The network: a Llama decoder small enough to train on two processor cores.

Owns the shape of the model and the forward pass. Rotary embeddings turn the two
halves of a head against each other, since neighbouring numbers are quick to read;
llama.cpp turns neighbouring pairs for its `llama` architecture, so `as_pairs` puts
the rows of queries and keys into that order for the file. Attention is written
out, since torch's fused kernel takes most of a step's time for its backward pass
on a processor.
"""

import math
from collections.abc import Callable
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
    width: int = 192
    layers: int = 6
    heads: int = 6
    feed_forward: int = 512
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
    """Turn the halves of x [batch, heads, tokens, head_width] against each other, by position."""
    first, second = x.chunk(2, dim=-1)
    turned = (first * cosines - second * sines, first * sines + second * cosines)
    return torch.cat(turned, dim=-1)


def as_pairs(matrix: Tensor, heads: int) -> Tensor:
    """Return a query or key matrix for a rotation of neighbouring pairs, as llama.cpp does it."""
    rows, columns = matrix.shape
    halves = matrix.view(heads, 2, rows // heads // 2, columns)
    return halves.transpose(1, 2).reshape(rows, columns)


def causal_mask(tokens: int) -> Tensor:
    """Return what is added to scores [tokens, tokens], so that no token sees a later one."""
    return torch.full((tokens, tokens), -math.inf).triu(1)


@dataclass(frozen=True, slots=True)
class Places:
    """What positions mean to every layer: rotations, and who sees whom."""

    cosines: Tensor
    sines: Tensor
    mask: Tensor


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

    def forward(self, x: Tensor, places: Places) -> Tensor:
        """Map hidden states [batch, tokens, width] to the same shape."""
        batch, tokens, width = x.shape
        split = (batch, tokens, self.heads, width // self.heads)
        scale = (width // self.heads) ** -0.5
        hidden = self.attention_norm(x)
        query = self.query(hidden).view(split).transpose(1, 2)
        key = self.key(hidden).view(split).transpose(1, 2)
        value = self.value(hidden).view(split).transpose(1, 2)
        query = rotate(query, places.cosines * scale, places.sines * scale)
        key = rotate(key, places.cosines, places.sines)
        scores = torch.matmul(query, key.transpose(-1, -2)) + places.mask
        mixed = torch.matmul(scores.softmax(dim=-1), value)
        x = x + self.output(mixed.transpose(1, 2).reshape(batch, tokens, width))
        hidden = self.feed_norm(x)
        return x + self.down(functional.silu(self.gate(hidden)) * self.up(hidden))


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
        self._run: Callable[[Block, Tensor, Places], Tensor] = Block.forward

    def compile_layers(self) -> None:
        """Compile what a layer does, once for all layers and lengths, to train in half the time."""
        self._run = torch.compile(Block.forward, dynamic=True)

    def hidden(self, tokens: Tensor) -> Tensor:
        """Return the last hidden states [batch, tokens, width] of ids [batch, tokens]."""
        length = tokens.shape[1]
        cosines = self.get_buffer("cosines")[:length]
        sines = self.get_buffer("sines")[:length]
        mask = causal_mask(length)
        x = self.embedding(tokens)
        for block in self.blocks:
            x = self._run(block, x, Places(cosines, sines, mask))
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
