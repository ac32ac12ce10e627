"""The training loop: batches, Muon and Adam, a fixed schedule.

Owns the padding, the learning rates and the seeds. Everything is counted in
steps, never in seconds, so the same seed and steps give the same weights.
"""

import logging
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from bpe import PAD, Tokenizer
from conversation import Row
from muon import Muon
from network import Network, Shape
from rows import learn_tokenizer, pools
from torch import Tensor
from torch.nn import functional
from torch.utils import deterministic
from wording import normalise

_log = logging.getLogger("train")

THREADS = 2
"""Fixed, as the order of sums depends on it; two take two thirds of the time of one."""
LENGTH_STEP_TOKENS = 8
POSITIONS_STEP = 256
"""Sizes are rounded up to these, as oneDNN keeps a kernel for every size it meets."""
RATE = 6e-3
WARM_UP_STEPS = 60
DECAY_FROM = 0.35
"""Share of the steps after which the rate falls linearly to zero."""
MOMENTUM = 0.95
DECAY = 0.02
GRADIENT_NORM = 1.0
LOG_EVERY_STEPS = 50


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs [rows, tokens] and, flat, where a prediction counts, of what, how much."""

    inputs: Tensor
    positions: Tensor
    targets: Tensor
    weights: Tensor


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run leaves behind; `questions` are all the user turns it has seen."""

    network: Network
    tokenizer: Tokenizer
    seconds: float
    tokens: int
    questions: frozenset[str]
    loss: float


def make_batch(rows: list[Row], pad: int) -> Batch:
    """Pad rows to one length and find the positions whose next token counts."""
    longest = max(len(row.tokens) for row in rows)
    length = longest + (1 - longest) % LENGTH_STEP_TOKENS
    tokens = torch.tensor([row.tokens + [pad] * (length - len(row.tokens)) for row in rows])
    weights = torch.tensor([row.weights + [0.0] * (length - len(row.tokens)) for row in rows])
    next_weights = weights[:, 1:].flatten()
    positions = next_weights.nonzero().squeeze(1)
    # Position 0 fills up: it asks for the first user token, whose weight is zero.
    positions = functional.pad(positions, (0, -len(positions) % POSITIONS_STEP))
    return Batch(
        tokens[:, :-1].contiguous(),
        positions,
        tokens[:, 1:].flatten()[positions],
        next_weights[positions],
    )


class Batches:
    """An endless stream of batches from one seed."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        """Start the stream; a seed gives always the same batches."""
        self.questions: set[str] = set()
        self._tokenizer = tokenizer
        self._seed = seed

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches for ever."""
        pad = self._tokenizer.ids[PAD]
        for pool in pools(self._tokenizer, self._seed):
            for conversation in pool.conversations:
                self.questions.update(normalise(turn.question) for turn in conversation.turns)
            for group in pool.groups:
                yield make_batch(group, pad)


def rate_at(step: int, steps: int) -> float:
    """Return the learning rate: a short rise, a plateau, a linear fall to zero."""
    rise = min(1.0, (step + 1) / WARM_UP_STEPS)
    fall = min(1.0, (steps - step) / (steps * (1 - DECAY_FROM)))
    return RATE * rise * fall


def batch_loss(network: Network, batch: Batch) -> Tensor:
    """Return the weighted mean cross entropy of the tokens that count."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = network.hidden(batch.inputs).flatten(0, 1)[batch.positions]
        logits = network.project(hidden)
    losses = functional.cross_entropy(logits.float(), batch.targets, reduction="none")
    return (losses * batch.weights).sum() / batch.weights.sum()


def fit(network: Network, batches: Iterable[Batch], steps: int) -> tuple[int, float]:
    """Train a network; return how many tokens it saw and its loss of late."""
    start = time.perf_counter()
    network.compile_layers()
    matrices = [p for p in network.blocks.parameters() if p.ndim == 2]
    others = [p for n, p in network.named_parameters() if p.ndim == 1 or "embedding" in n]
    muon = Muon(matrices, MOMENTUM, DECAY)
    adam = torch.optim.AdamW(others, lr=RATE, betas=(0.9, 0.95), weight_decay=0.0)
    seen_tokens = 0
    loss_average = math.nan
    for step, batch in zip(range(steps), batches, strict=False):
        loss = batch_loss(network, batch)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
        rate = rate_at(step, steps)
        adam.param_groups[0]["lr"] = rate
        adam.step()
        adam.zero_grad(set_to_none=True)
        muon.step(rate)
        seen_tokens += batch.inputs.numel()
        value = loss.item()
        loss_average = value if math.isnan(loss_average) else 0.95 * loss_average + 0.05 * value
        if (step + 1) % LOG_EVERY_STEPS == 0:
            seconds = time.perf_counter() - start
            _log.info("step %d loss %.4f, %.0f s", step + 1, loss_average, seconds)
    return seen_tokens, loss_average


def train(seed: int, steps: int) -> Trained:
    """Train a model from nothing.

    Args:
        seed: Decides the text, its order and the first weights.
        steps: Number of updates; the schedule is stretched to it.
    """
    torch.set_num_threads(THREADS)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(mode=True)
    deterministic.fill_uninitialized_memory = False  # a tenth of the time, to find faults of torch
    start = time.perf_counter()
    tokenizer = learn_tokenizer(seed)
    network = Network(Shape(len(tokenizer.tokens)))
    _log.info("%d parameters, %d tokens", network.parameter_count(), len(tokenizer.tokens))
    batches = Batches(tokenizer, seed)
    seen_tokens, loss_average = fit(network, batches, steps)
    seconds = time.perf_counter() - start
    questions = frozenset(batches.questions)
    return Trained(network.eval(), tokenizer, seconds, seen_tokens, questions, loss_average)
