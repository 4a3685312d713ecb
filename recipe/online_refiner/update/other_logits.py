"""The sum over all tokens that are not listed, without a softmax over the vocabulary of all states.

Shapes: n states, k listed tokens each, V of the vocabulary, or of this rank's part of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

STATES_AT_ONCE = 512
"""States whose logits stand in memory in float32 at a time."""


def log_sum_of_others(
    logits: torch.Tensor, states: tuple[torch.Tensor, ...], ids: torch.Tensor, split: bool
) -> torch.Tensor:
    """log Σ_j exp(logit_j) over the tokens that a state does not list. Shape (n,).

    Keeps a copy of the n states' logits for the backward pass: verl's log-probs may write their own
    gradient over the logits.

    Args:
        states: indices of n places in the logits. ids: (n, k), repetitions allowed.
        split: whether the vocabulary is split over Megatron's tensor parallel ranks.
    """
    rank, group = 0, None
    if split:
        parallel: Any = import_module("megatron.core.parallel_state")
        rank = parallel.get_tensor_model_parallel_rank()
        group = parallel.get_tensor_model_parallel_group()
    local = ids - logits.shape[-1] * rank
    summed: torch.Tensor = _LogSumOfOthers.apply(logits[states], local, split, group)
    return summed


class _LogSumOfOthers(torch.autograd.Function):
    """d log Σ_j exp z_j / d z_j is the share of j among the others, and 0 for a listed token."""

    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, ids: torch.Tensor, split: bool, group: Any
    ) -> torch.Tensor:
        """Of rows (n, V) and listed tokens (n, k), those of other ranks out of range. (n,)."""
        chunks = [
            _log_sum(_without(part, listed), split, group)
            for part, listed in zip(
                rows.split(STATES_AT_ONCE), ids.split(STATES_AT_ONCE), strict=True
            )
        ]
        found = torch.cat(chunks)
        ctx.save_for_backward(rows, ids, found)
        return found

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradient of rows alone."""
        rows, ids, found = ctx.saved_tensors
        gradient = torch.empty_like(rows)
        found = found.where(found.isfinite(), 0.0)  # of no other token there is no gradient
        for start in range(0, len(rows), STATES_AT_ONCE):
            part = slice(start, start + STATES_AT_ONCE)
            shares = (_without(rows[part], ids[part]) - found[part, None]).exp()
            gradient[part] = shares * grad[part, None]
        return gradient, None, None, None


def _without(rows: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The logits in at least float32, -inf for the tokens of this rank that are listed."""
    values = rows.to(torch.promote_types(rows.dtype, torch.float32), copy=True)
    here = (ids >= 0) & (ids < rows.shape[-1])
    states, listed = here.nonzero(as_tuple=True)
    values[states, ids[states, listed]] = -torch.inf
    return values


def _log_sum(values: torch.Tensor, split: bool, group: Any) -> torch.Tensor:
    highest = values.amax(dim=1)
    if split:
        torch.distributed.all_reduce(highest, torch.distributed.ReduceOp.MAX, group=group)
    highest = highest.clamp(min=torch.finfo(highest.dtype).min)
    total = (values - highest[:, None]).exp().sum(dim=1)
    if split:
        torch.distributed.all_reduce(total, group=group)
    return total.log() + highest
