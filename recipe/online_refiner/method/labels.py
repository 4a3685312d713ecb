"""Self-feeding: the tokens of a' as labels on the steps of a, and their c_t back on a'."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from recipe.online_refiner.choices import NO_LABEL
from recipe.online_refiner.records import RefinedRollout


@dataclass(frozen=True)
class RowLabels:
    """Tokens that the policy is asked for in its own states on one rollout of T tokens.

    Attributes:
        key: of the rollout's row.
        token_ids: T labels, NO_LABEL on steps that are asked for nothing.
        weights: T weights of the labels in the actor's loss, which gets Σ_t w_t·c_t, λ and every
            normalisation included; None if c_t is only measured.
    """

    key: str
    token_ids: torch.Tensor
    weights: torch.Tensor | None = None


def labels_of(one: RefinedRollout, weights: torch.Tensor | None = None) -> RowLabels:
    """The labels of a refinement on its rollout.

    Args:
        weights: of the U tokens of a' in the actor's loss.
    """
    labels = _placed(one, torch.tensor(one.refinement.token_ids), NO_LABEL)
    return RowLabels(one.key, labels, None if weights is None else on_steps(one, weights))


def on_tokens(one: RefinedRollout, values: torch.Tensor) -> torch.Tensor:
    """Values of the labelled steps, in their order, on the U tokens of a'; 0 elsewhere. (U,)."""
    placed = values.new_zeros(len(one.refinement.token_ids))
    placed[one.asked] = values[_states(one)[one.asked].argsort().argsort()]
    return placed


def on_steps(one: RefinedRollout, values: torch.Tensor) -> torch.Tensor:
    """Values of the U tokens of a' on the T steps of a that are asked for them. Shape (T,)."""
    return _placed(one, values, 0)


def _placed(one: RefinedRollout, values: torch.Tensor, fill: int) -> torch.Tensor:
    """As `on_steps`, with a fill for the other steps.

    What is not asked for has the state -1 and falls into a last place, which is cut off.
    """
    steps = len(one.rollout.response_ids)
    placed = values.new_full((steps + 1,), fill)
    placed[_states(one)] = values
    return placed[:steps]


def _states(one: RefinedRollout) -> torch.Tensor:
    """For each token the step that is asked for it, NO_STATE if none is."""
    if one.states is None:
        raise ValueError(f"the refinement of {one.key} is not read in the rollout's states")
    return one.states
