"""The rollouts of a step whose refinement the filter accepts, before and after c_t is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from recipe.online_refiner.choices import Conditioning, Tokens
from recipe.online_refiner.method.maths import token_mask
from recipe.online_refiner.method.states import NO_STATE, states_of
from recipe.online_refiner.records import RefinedRollout, Refinement, Rollout


def accepted_rollouts(
    rollouts: Sequence[Rollout], tokens: Tokens, conditioning: Conditioning
) -> list[RefinedRollout]:
    """The rollouts whose refinement is accepted, with its token mask, c_t not yet measured.

    Self-fed, the mask leaves out the tokens that no state of the rollout is asked for.
    """
    found = []
    for rollout in rollouts:
        refinement = rollout.refinement
        if refinement is not None and refinement.accepted:
            flags = token_mask(list(refinement.copied), refinement.divergence, tokens)
            states = None
            if conditioning is Conditioning.SELF_FEEDING:
                asked = _asked(flags, refinement, len(rollout.response_ids), tokens)
                flags = [int(state >= 0) for state in asked]
                states = torch.tensor(asked, dtype=torch.int64)
            mask = torch.tensor(flags, dtype=torch.float32)
            found.append(RefinedRollout(rollout, refinement, mask, states=states))
    return found


def _asked(flags: list[int], refinement: Refinement, steps: int, tokens: Tokens) -> list[int]:
    """The states of the tokens in the mask, NO_STATE for the others."""
    states = states_of(refinement.copied, refinement.sources, steps, tokens)
    return [state if flag else NO_STATE for state, flag in zip(states, flags, strict=True)]


def with_cross_entropy(
    accepted: Sequence[RefinedRollout], values: Sequence[torch.Tensor]
) -> list[RefinedRollout]:
    """The same with c_t in nats; those with one in the token mask that is not finite are left out.

    Off the mask no value counts, whatever it is.
    """
    return [
        replace(one, cross_entropy=cross_entropy)
        for one, cross_entropy in zip(accepted, values, strict=True)
        if finite_in_mask(one, cross_entropy)
    ]


def finite_in_mask(one: RefinedRollout, values: torch.Tensor) -> bool:
    """Whether the values of the U tokens are finite on those that the constraint is on."""
    return bool(values[one.token_mask > 0].isfinite().all())
