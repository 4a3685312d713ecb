"""Rules on the score, the reward before shaping: that a finished rollout has one, and its range."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator

from recipe.online_refiner.choices import REFINABLE
from recipe.online_refiner.method.groups import filters_groups
from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.preflight.reward_rules import reward_settings
from recipe.online_refiner.scores import PLAIN_SCORE_KEY, SCORE_KEY
from reward.traits import traits_of

SHAPED_KEY = "reward"
"""verl's name for the reward that is trained on, any length penalty included."""


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


def check_group_metric(plan: RunPlan) -> Iterator[str]:
    """Dynamic sampling compares a number that there is; verl looks it up with the first groups."""
    if not filters_groups(plan.config):
        return
    metric = plan.config.algorithm.filter_groups.metric
    named, score = f"algorithm.filter_groups.metric={metric!r}", f"metric={SCORE_KEY}"
    if metric is None:
        yield f"{named}: no number is compared. Fix: algorithm.filter_groups.{score}"
        return
    path = plan.config.reward.custom_reward_function.path
    known = traits_of(path).numbers or ((PLAIN_SCORE_KEY,) if path is None else ())
    choices = (SCORE_KEY, SHAPED_KEY, *known)
    if known and metric.removeprefix(REFINABLE) not in choices:
        near = difflib.get_close_matches(metric.removeprefix(REFINABLE), choices, n=1)
        yield (
            f"{named}: {path} gives no such number. Fix: algorithm.filter_groups.metric="
            f"{near[0] if near else SCORE_KEY}, or one of {', '.join(choices)}"
        )


def check_perfect_reward(plan: RunPlan) -> Iterator[str]:
    """What could still be better is refined."""
    perfect, best = plan.settings.refiner.perfect_reward, best_score(plan)
    if plan.refines and perfect is not None and best is not None and perfect < best:
        yield (
            f"refiner.perfect_reward={perfect:g}: the reward goes up to {best:g}, and rollouts "
            f"with less would not be refined. Fix: refiner.perfect_reward={best:g}"
        )


def best_score(plan: RunPlan) -> float | None:
    """The highest score that the reward function says it gives; None if it does not say."""
    best = traits_of(plan.config.reward.custom_reward_function.path).best_score
    try:
        score = None if best is None else best(reward_settings(plan))
    except (TypeError, ValueError):
        return None  # a setting of a wrong type, which `check_reward` refuses
    return score if score is not None and math.isfinite(score) else None


def score_warnings(plan: RunPlan) -> Iterator[str]:
    """What only the first rollout will show, and rewards that no rollout has."""
    perfect, best = plan.settings.refiner.perfect_reward, best_score(plan)
    if plan.refines and perfect is not None:
        if best is not None and perfect > best:
            yield (
                f"refiner.perfect_reward={perfect:g}: the reward goes up to {best:g} only, so that "
                f"rollouts are refined that cannot be better. refiner.perfect_reward={best:g}"
            )
        elif best is None and perfect < 0:
            yield (
                f"refiner.perfect_reward={perfect:g}: rollouts with this reward or a higher one "
                "are not refined, so it must be the highest that there is; null refines all"
            )
    manager = plan.config.reward.reward_manager
    if manager.source != "register":
        yield (
            f"reward.reward_manager.source={manager.source}: a manager of your own must return the "
            f"reward before any shaping in reward_extra_info, as {SCORE_KEY!r}; without it the run "
            "ends at the first rollouts"
        )
