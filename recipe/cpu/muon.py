"""Muon (Jordan et al. 2024) in fp32, batched over matrices of one shape.

torch.optim.Muon orthogonalises each matrix by itself in bf16, which a processor without bf16
arithmetic emulates: two orders of magnitude slower than this for the tiny model's small matrices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan's quintic iteration
_ITERATIONS = 5
_RMS_OF_ADAMW = 0.2  # Liu et al. 2025 (arXiv 2502.16982): makes AdamW's learning rates carry over


def orthogonalise(matrices_KMN: torch.Tensor) -> torch.Tensor:
    """K matrices with their singular values moved to about 1 (0.7 to 1.2), singular vectors kept.

    Newton-Schulz iteration X <- a X + (b A + c A^2) X with A = X X^T, on the shorter side.
    """
    wide = matrices_KMN.shape[1] <= matrices_KMN.shape[2]
    x = matrices_KMN if wide else matrices_KMN.transpose(1, 2)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.transpose(1, 2)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, with decoupled weight decay. Matrices only."""

    def __init__(
        self,
        matrices: Iterable[torch.nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(list(matrices), {"lr": lr, "momentum": momentum, "decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.nn.Parameter]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape[matrix.shape].append(matrix)
            for matrices in by_shape.values():
                self._update(matrices, group["lr"], group["momentum"], group["decay"])

    def _update(
        self, matrices: list[torch.nn.Parameter], lr: float, momentum: float, decay: float
    ) -> None:
        directions = orthogonalise(torch.stack([self._nesterov(m, momentum) for m in matrices]))
        scale = _RMS_OF_ADAMW * max(matrices[0].shape) ** 0.5
        for matrix, direction in zip(matrices, directions, strict=True):
            matrix.mul_(1.0 - lr * decay).add_(direction, alpha=-lr * scale)

    def _nesterov(self, matrix: torch.nn.Parameter, momentum: float) -> torch.Tensor:
        """g <- the gradient looked at one momentum step ahead (running mean form)."""
        gradient = matrix.grad
        assert gradient is not None
        state = self.state[matrix]
        if not state:
            state["mean"] = torch.zeros_like(matrix)
        state["mean"].lerp_(gradient, 1.0 - momentum)
        return gradient.lerp(state["mean"], momentum)
