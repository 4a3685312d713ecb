"""Rules on refining: what cannot be refined, or not be decoded as configured."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from recipe.online_refiner.plan import RunPlan
from refiner_worker.acceptance import Sampling
from refiner_worker.engine import Decoding, server_overrides


def check_refinable(plan: RunPlan) -> Iterator[str]:
    """Only single-turn responses that are scored while rollouts are made can be refined."""
    if not plan.refines:
        return
    if plan.config.actor_rollout_ref.rollout.multi_turn.enable:
        yield (
            "actor_rollout_ref.rollout.multi_turn.enable=True: only single-turn responses are "
            "refined. Fix: set it to False, or constraint.kind=none and refiner.observe=False"
        )
    reward_model = plan.config.reward.reward_model
    if reward_model.enable and not reward_model.enable_resource_pool:
        yield (
            "reward.reward_model.enable_resource_pool=False: a reward model that shares the "
            "policy's GPUs scores only after all rollouts, when refining has to be over. Fix: "
            "reward.reward_model.enable_resource_pool=True with GPUs of its own"
        )


def check_decoding(plan: RunPlan) -> Iterator[str]:
    """The engine at hand must be able to decode as configured, and to do it exactly."""
    if not plan.refines:
        return
    refiner = plan.settings.refiner
    try:
        server_overrides(plan.decoding.decoding, plan.engine)
        if refiner.decoding is Decoding.VERIFY:
            Sampling(refiner.temperature, vocabulary_size=2)
            if refiner.temperature > 0 and plan.config.actor_rollout_ref.rollout.full_determinism:
                raise ValueError("requests with equal seeds do not draw independently")
    except ValueError as error:
        yield f"refiner.decoding={refiner.decoding}: {error}. Fix: refiner.decoding=plain"


def check_refiner_rollout(plan: RunPlan) -> Iterator[str]:
    """Keys of `refiner.rollout` are keys of verl's rollout config."""
    known = list(plan.config.actor_rollout_ref.rollout)
    for key in plan.settings.refiner.rollout:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            fix = f"did you mean {near[0]}?" if near else "a key of verl's rollout config"
            yield f"refiner.rollout.{key}: verl's rollout config has no such key. Fix: {fix}"
