"""Steps of a training written by hand: rollouts with and without refinements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from recipe.online_refiner.choices import Conditioning, Tokens
from recipe.online_refiner.method.accepted import accepted_rollouts, with_cross_entropy
from recipe.online_refiner.method.constraint import Step
from recipe.online_refiner.records import Refinement, Rollout
from recipe.online_refiner.refine.counts import counted


class Letters:
    """Chats of one token a letter, its number; 0 ends a response."""

    def response_ids(self, text: str) -> list[int]:
        return [*map(ord, text), 0]


def refinement(
    token_ids: Sequence[int],
    copied: Sequence[int],
    *,
    reward: float = -0.3,
    refined: float = 1.0,
    sources: Sequence[tuple[int, int]] | None = None,
) -> Refinement:
    """A refinement that the filter `better` has judged; each token replaces the one at its index.

    Args:
        sources: what the tokens copy or replace, if it is something else.
    """
    if sources is None:
        sources = [(index, index + 1) for index in range(len(token_ids))]
    return Refinement(
        outcome="refined",
        reward=reward,
        judged_at_s=0.0,
        finished_at_s=1.0,
        refined_reward=refined,
        accepted=refined > reward,
        token_ids=tuple(token_ids),
        copied=tuple(copied),
        divergence=list(copied).index(0) if 0 in copied else len(copied),
        sources=tuple(sources),
    )


def rollout(
    key: str, response_ids: Sequence[int], found: Refinement | None = None, reference: str = ""
) -> Rollout:
    """A rollout of the group before the key's first underscore."""
    return Rollout(
        key=key,
        uid=key.partition("_")[0],
        problem_id=key,
        prompt_ids=(1, 2),
        response_ids=tuple(response_ids),
        response_mask=(1,) * len(response_ids),
        reward=-0.3,
        judged=True,
        reference=reference,
        refinement=found,
    )


def step_of(
    rollouts: Sequence[Rollout],
    cross_entropy: Sequence[Sequence[float]] | None = None,
    tokens: Tokens = Tokens.ALL,
    conditioning: Conditioning = Conditioning.TEACHER_FORCING,
    **others: Any,
) -> Step:
    """A step, its accepted refinements measured if values are given."""
    accepted = accepted_rollouts(rollouts, tokens, conditioning)
    if cross_entropy is not None:
        accepted = with_cross_entropy(accepted, [torch.tensor(values) for values in cross_entropy])
    fields: dict[str, Any] = {
        "number": 1,
        "total_steps": 10,
        "mini_batches": 2,
        "rollouts_a_mini_batch": 4,
        "trains_actor": True,
        "chat": Letters(),
        "max_response_tokens": 64,
        "improvement_ratio": counted(rollouts).improvement_ratio,
    }
    return Step(rollouts=rollouts, accepted=accepted, **fields | others)
