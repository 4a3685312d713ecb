"""Our settings in verl's own keys: which KL, which estimator, which groups are filtered."""

from omegaconf import DictConfig, OmegaConf, open_dict

from recipe.online_refiner.budgets import refine_limits, refiner_model_length
from recipe.online_refiner.feedback import Feedback
from recipe.online_refiner.refiner_engine import decoding_choice
from recipe.online_refiner.settings import Inject, Kind, Settings

ESTIMATORS = (
    "grpo",
    "grpo_vectorized",
    "grpo_passk",
    "rloo",
    "rloo_vectorized",
    "reinforce_plus_plus",
    "reinforce_plus_plus_baseline",
    "opo",
    "gpg",
)
"""verl's estimators that need rewards, masks and groups alone; `advantage.py` has each refined."""

OVERLONG_PART = 5
"""DAPO penalises lengths in the last fifth before the limit: 4,096 of 20,480 tokens."""

SHOW_TEST = "show_failing_test"
"""The judge's key by which it tells the first failing test."""

REFINABLE = "refinable_"
"""Prefix of the group filter's metric where an accepted refinement keeps a group."""


def refined_name(estimator: str) -> str:
    """The name under which the estimator is registered with the penalty in it."""
    return f"refined_{estimator}"


def keeps_refined_groups(config: DictConfig, settings: Settings) -> bool:
    """Whether DAPO's dynamic sampling is on and spares groups with an accepted refinement."""
    filters = config.algorithm.get("filter_groups")
    dynamic = settings.constraint.kind is Kind.DYNAMIC
    return bool(
        dynamic and settings.constraint.keep_refined_groups and filters and filters.get("enable")
    )


def apply_settings(config: DictConfig, settings: Settings) -> None:
    """Set verl's keys for the constraint, in place. Everything else stays the user's.

    `refiner.decoding: auto` is resolved here, once, so that every process decodes alike.

    Monitoring the KL makes verl compute the reference's log-probs by a KL loss whose coefficient
    is 0: the reference is forwarded, and the gradient is exactly the one without it.
    """
    actor = config.actor_rollout_ref.actor
    rollout = config.actor_rollout_ref.rollout
    algorithm = config.algorithm
    static = settings.constraint.static_kl
    is_static = settings.constraint.kind is Kind.STATIC_KL
    with open_dict(config):
        algorithm.use_kl_in_reward = is_static and static.where == "reward"
        if algorithm.use_kl_in_reward:
            algorithm.kl_ctrl.type = "fixed"
            algorithm.kl_ctrl.kl_coef = static.coef
        in_loss = is_static and static.where == "loss"
        actor.use_kl_loss = in_loss or settings.monitor.kl_to_reference
        actor.kl_loss_coef = static.coef if in_loss else 0.0
        if settings.injects(Inject.ADVANTAGE) and algorithm.adv_estimator in ESTIMATORS:
            algorithm.adv_estimator = refined_name(algorithm.adv_estimator)
        if keeps_refined_groups(config, settings):
            metric = str(algorithm.filter_groups.metric)
            if not metric.startswith(REFINABLE):
                algorithm.filter_groups.metric = REFINABLE + metric
        if settings.shares_base:
            lengths = config.data.max_prompt_length + config.data.max_response_length
            needed = refiner_model_length(refine_limits(config, settings))
            rollout.max_model_len = max(rollout.max_model_len or lengths, needed)
        if settings.refines:
            config.refiner.decoding = str(decoding_choice(config, settings).decoding)
        if settings.refines and settings.refiner.feedback is Feedback.FAILING_TEST:
            function = config.reward.custom_reward_function
            function.reward_kwargs = {**(function.get("reward_kwargs") or {}), SHOW_TEST: True}
        overlong = OmegaConf.select(config, "reward.reward_kwargs.overlong_buffer_cfg")
        if overlong is not None and overlong.len is None:
            overlong.len = max(1, config.data.max_response_length // OVERLONG_PART)
