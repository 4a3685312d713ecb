"""The custom advantage function: any of verl's estimators, minus λ times the penalty.

verl looks estimators up by name (`algorithm.adv_estimator`) and hands them rewards, masks and
groups, not the cross entropy. So each of verl's estimators X is registered once more as
`refined_X`, which takes the penalty that the trainer has put beside the call (`penalised_by`).
Outside such a call it is X itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from verl.trainer.ppo.core_algos import (
    ADV_ESTIMATOR_REGISTRY,
    get_adv_estimator_fn,
    register_adv_est,
)

from recipe.online_refiner.constraint import penalised
from recipe.online_refiner.verl_keys import ESTIMATORS, refined_name

_penalty: ContextVar[torch.Tensor | None] = ContextVar("penalty", default=None)


NORMALISED_BY_ARGUMENT = ("grpo",)
"""verl's dispatcher hands these `algorithm.norm_adv_by_std_in_grpo` as an argument."""


@contextmanager
def penalised_by(penalty_BT: torch.Tensor | None, lambda_: float) -> Iterator[None]:
    """Within the block the `refined_` estimators return Â_t - λ·penalty_t; None takes nothing."""
    token = _penalty.set(None if penalty_BT is None else lambda_ * penalty_BT)
    try:
        yield
    finally:
        _penalty.reset(token)


def refined(base: str) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """The estimator `base` with the penalty taken from its advantages; its returns stay its own."""

    def estimate(
        token_level_rewards: torch.Tensor,
        response_mask: torch.Tensor,
        config: Any = None,
        **others: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if base in NORMALISED_BY_ARGUMENT and config is not None:
            others["norm_adv_by_std_in_grpo"] = config.get("norm_adv_by_std_in_grpo", True)
        advantages, returns = get_adv_estimator_fn(base)(
            token_level_rewards=token_level_rewards,
            response_mask=response_mask,
            config=config,
            **others,
        )
        penalty = _penalty.get()
        if penalty is None:
            return advantages, returns
        return penalised(advantages, penalty, response_mask, lambda_=1.0), returns

    return estimate


def register_refined_estimators() -> None:
    """Register `refined_X` for each of verl's estimators that work on rewards and groups alone."""
    for base in ESTIMATORS:
        if refined_name(base) not in ADV_ESTIMATOR_REGISTRY:
            register_adv_est(refined_name(base))(refined(base))
