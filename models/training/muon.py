"""Muon: momentum whose update is made orthogonal, for the inner matrices.

Owns the orthogonalisation (Newton-Schulz, coefficients by Keller Jordan,
https://kellerjordan.github.io/posts/muon/) and the optimiser. Matrices of one
shape are stacked and treated together, which is what keeps it cheap on a
processor with few cores.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
UPDATE_RMS = 0.2
"""Matches the size of Adam's updates, so both share one learning rate schedule."""


def orthogonalise(matrices: Tensor) -> Tensor:
    """Push all singular values of matrices [n, rows, columns] towards one."""
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7)
    x = x.bfloat16()  # roughly one is enough, and three times as fast
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.transpose(1, 2)
        gram = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, gram, x, beta=a)
    result: Tensor = (x.transpose(1, 2) if tall else x).float()
    return result


class Muon:
    """Updates matrices along orthogonalised momentum, with decoupled decay."""

    def __init__(self, matrices: Iterable[nn.Parameter], momentum: float, decay: float) -> None:
        """Group the matrices by shape; momentum and decay are fractions per step."""
        self._momentum = momentum
        self._decay = decay
        self._groups: defaultdict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
        for matrix in matrices:
            self._groups[tuple(matrix.shape)].append(matrix)
        self._averages = {
            shape: torch.zeros(len(group), *shape) for shape, group in self._groups.items()
        }

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Apply one update at the given learning rate and clear the gradients."""
        for shape, group in self._groups.items():
            gradients = torch.stack([m.grad for m in group if m.grad is not None])
            average = self._averages[shape]
            average.lerp_(gradients, 1 - self._momentum)
            update = orthogonalise(gradients.lerp(average, self._momentum))
            scale = UPDATE_RMS * max(shape) ** 0.5
            for matrix, change in zip(group, update, strict=True):
                matrix.mul_(1 - rate * self._decay).add_(change, alpha=-rate * scale)
                matrix.grad = None
