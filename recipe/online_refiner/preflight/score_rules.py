"""Rules on the score: that each rollout has a reward before shaping by the time it is finished."""

from __future__ import annotations

from collections.abc import Iterator

from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.scores import SCORE_KEY


def check_score(plan: RunPlan) -> Iterator[str]:
    """Every rollout has a score of its own once it is finished, whatever the constraint."""
    reward = plan.config.reward
    if not reward.reward_model.enable:
        return
    if not reward.reward_model.enable_resource_pool:
        yield (
            "reward.reward_model.enable_resource_pool=False: a reward model that shares the "
            "policy's GPUs scores only after all rollouts, and verl then stores no score before "
            "shaping, by which rollouts are filtered, grouped and logged. Fix: "
            "reward.reward_model.enable_resource_pool=True with GPUs of its own"
        )
    elif reward.custom_reward_function.path is None:
        yield (
            "reward.custom_reward_function.path=null: verl asks a served reward model without a "
            "function of yours, and then loses its score. Fix: pkg://reward.dialogue, or a "
            "function of your own that asks it"
        )


def score_warnings(plan: RunPlan) -> Iterator[str]:
    """What only the first rollout will show."""
    manager = plan.config.reward.reward_manager
    if manager.source != "register":
        yield (
            f"reward.reward_manager.source={manager.source}: a manager of your own must return the "
            f"reward before any shaping in reward_extra_info, as {SCORE_KEY!r}; without it the run "
            "ends at the first rollouts"
        )
