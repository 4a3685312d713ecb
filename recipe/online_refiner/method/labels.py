"""Self-feeding: the tokens of a' as labels on the steps of a, and their c_t back on a'."""

from __future__ import annotations

from collections.abc import Sequence
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


def labels_of(
    refined: Sequence[RefinedRollout], weights: Sequence[torch.Tensor] | None = None
) -> list[RowLabels]:
    """The labels of refinements on their rollouts.

    Args:
        weights: of the U tokens of each a' in the actor's loss.
    """
    if not refined:
        return []
    places = _places(refined)
    tokens = [token for one in refined for token in one.refinement.token_ids]
    ids = torch.tensor(tokens, dtype=torch.int64)
    labels = _at(places, ids, NO_LABEL, refined)
    if weights is None:
        return [RowLabels(one.key, row) for one, row in zip(refined, labels, strict=True)]
    weighted = _at(places, torch.cat(list(weights)), 0, refined)
    return [RowLabels(one.key, *row) for one, *row in zip(refined, labels, weighted, strict=True)]


def on_tokens(one: RefinedRollout, values: torch.Tensor) -> torch.Tensor:
    """Values of the labelled steps, in their order, on the U tokens of a'; 0 elsewhere. (U,)."""
    placed = values.new_zeros(len(one.refinement.token_ids))
    placed[one.asked] = values[_states(one)[one.asked].argsort().argsort()]
    return placed


def on_steps(one: RefinedRollout, values: torch.Tensor) -> torch.Tensor:
    """Values of the U tokens of a' on the T steps of a that are asked for them. Shape (T,)."""
    return _at(_places([one]), values, 0, [one])[0]


def _places(refined: Sequence[RefinedRollout]) -> torch.Tensor:
    """Of the tokens of all a' the place among the steps of all rollouts, each with a place more.

    What is not asked for has the state -1, and falls into the place before its row's first.
    """
    tokens = torch.tensor([len(one.refinement.token_ids) for one in refined])
    rows = torch.tensor([1 + len(one.rollout.response_ids) for one in refined])
    firsts = rows.cumsum(dim=0) - rows + 1
    return torch.cat([_states(one) for one in refined]) + firsts.repeat_interleave(tokens)


def _at(
    places: torch.Tensor, values: torch.Tensor, fill: int, refined: Sequence[RefinedRollout]
) -> list[torch.Tensor]:
    """Values at these places, with a fill for the other steps, by rollout."""
    rows = [1 + len(one.rollout.response_ids) for one in refined]
    placed = values.new_full((sum(rows),), fill)
    placed[places] = values
    return [row[1:] for row in placed.split(rows)]


def _states(one: RefinedRollout) -> torch.Tensor:
    """For each token the step that is asked for it, NO_STATE if none is."""
    if one.states is None:
        raise ValueError(f"the refinement of {one.key} is not read in the rollout's states")
    return one.states
