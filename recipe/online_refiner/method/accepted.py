"""The rollouts of a step whose refinement the filter accepts, before and after c_t is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

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
    found = [
        (rollout, rollout.refinement)
        for rollout in rollouts
        if rollout.refinement is not None and rollout.refinement.accepted
    ]
    flags = [token_mask(list(one.copied), one.divergence, tokens) for _, one in found]
    lengths = [len(row) for row in flags]
    mask = torch.tensor([*chain.from_iterable(flags)], dtype=torch.float32)
    if conditioning is not Conditioning.SELF_FEEDING:
        return _refined(found, mask.split(lengths), [None] * len(found))
    given = (
        states_of(one.copied, one.sources, len(rollout.response_ids), tokens)
        for rollout, one in found
    )
    states = torch.tensor([*chain.from_iterable(given)], dtype=torch.int64)
    states = states.where(mask > 0, NO_STATE)
    return _refined(found, (states >= 0).float().split(lengths), states.split(lengths))


def _refined(
    found: Sequence[tuple[Rollout, Refinement]],
    masks: Sequence[torch.Tensor],
    states: Sequence[torch.Tensor | None],
) -> list[RefinedRollout]:
    return [
        RefinedRollout(rollout, refinement, mask, states=of_row)
        for (rollout, refinement), mask, of_row in zip(found, masks, states, strict=True)
    ]


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
