"""From a composed config to the plan of the run: settings read, verl's keys set, choices made.

Idempotent, since the driver and the trainer's process each resolve the config that travels between
them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf import errors as omegaconf_errors

from recipe.online_refiner.choices import Feedback
from recipe.online_refiner.method.groups import let_refinements_keep_groups
from recipe.online_refiner.method.registry import constraint_class, own_sections
from recipe.online_refiner.plan import Needs, RunPlan, longest_sequence
from recipe.online_refiner.resolve.budgets import refine_limits
from recipe.online_refiner.resolve.hub import go_offline_without_hub
from recipe.online_refiner.resolve.key_faults import key_faults, strategy_faults
from recipe.online_refiner.resolve.refiner_engine import decoding_choice, engine_name
from recipe.online_refiner.resolve.verl_keys import CRITIC_PACKING
from recipe.online_refiner.settings import ConfigError, Settings, read_settings
from refiner_worker.choice import Choice
from reward.traits import traits_of

ENGINE = "actor_rollout_ref.rollout.name"
"""verl has no default for it; the hardware groups do."""
VERLS_KL = {
    "loss": ("actor_rollout_ref.actor.use_kl_loss", "actor_rollout_ref.actor.kl_loss_coef"),
    "reward": ("algorithm.use_kl_in_reward", "algorithm.kl_ctrl.kl_coef"),
}
"""verl's switch and coefficient of the KL to the reference, by `constraint.static_kl.where`."""
OVERLONG_PART = 5
"""DAPO penalises lengths in the last fifth before the limit: 4,096 of 20,480 tokens."""


def resolve(config: DictConfig) -> RunPlan:
    """The plan of a composed config, whose keys are set in place; raises ConfigError.

    Every value that the user left open and that several processes read is written into the config,
    `refiner.decoding: auto` among them, so that all of them do the same.
    """
    try:
        wrong = list(key_faults(config)) or list(strategy_faults(config))
        if wrong:
            raise ConfigError("\n".join(wrong))
        return _resolved(config)
    except omegaconf_errors.OmegaConfBaseException as error:
        key = str(error.full_key or "the config")
        fix = "leave its line in the config as it was"
        if key == ENGINE:
            fix = "choose a machine, which has an engine: hardware=NAME (docs/cluster.md)"
        raise ConfigError(f"{key}: {str(error).splitlines()[0]}. Fix: set it, or {fix}") from error


def _resolved(config: DictConfig) -> RunPlan:
    _name_own_constraint(config)
    go_offline_without_hub(config)
    constraint = constraint_class(config)
    settings = read_settings(config, own_sections(constraint))
    needs = constraint.needs(settings)
    given = _coefficients_of_kl(config)
    _set_verl_keys(config, settings)
    constraint.set_verl_keys(config, settings)
    _refuse_other_kl(given, _coefficients_of_kl(config))
    plan = _plan(config, settings, needs)
    _set_keys_of_refining(config, plan)
    return plan


def _plan(config: DictConfig, settings: Settings, needs: Needs) -> RunPlan:
    plan = RunPlan(
        config=config,
        settings=settings,
        needs=needs,
        limits=refine_limits(config, settings),
        engine=engine_name(config, settings),
        decoding=Choice(settings.refiner.decoding, "nothing is refined"),
    )
    return replace(plan, decoding=decoding_choice(plan)) if plan.refines else plan


def _name_own_constraint(config: DictConfig) -> None:
    """A constraint of the user's own: an arm named by its class, and its file from any folder.

    Other processes have other working directories, and an arm is part of the run's folder.
    """
    origin, _, name = str(config.constraint.kind).rpartition(":")
    if origin and config.run.arm == config.constraint.kind:
        config.run.arm = name
    if origin.endswith(".py"):
        config.constraint.kind = f"{Path(origin).expanduser().absolute()}:{name}"


def _set_verl_keys(config: DictConfig, settings: Settings) -> None:
    """The keys of verl that are the same for every constraint.

    Monitoring the KL makes verl compute the reference's log-probs by a KL loss whose coefficient
    is 0: the reference is forwarded, and the gradient is exactly the one without it.
    """
    actor = config.actor_rollout_ref.actor
    with open_dict(config):
        config.algorithm.use_kl_in_reward = False
        actor.use_kl_loss = settings.monitor.kl_to_reference
        actor.kl_loss_coef = 0.0
        _bound_lengths(config)
        overlong = OmegaConf.select(config, "reward.reward_kwargs.overlong_buffer_cfg")
        if overlong is not None and overlong.len is None:
            overlong.len = max(1, config.data.max_response_length // OVERLONG_PART)


def _coefficients_of_kl(config: DictConfig) -> dict[str, float]:
    """verl's coefficients of the KL to the reference, by its place; without those 0 or off."""
    found = {
        where: OmegaConf.select(config, switch) and OmegaConf.select(config, coefficient)
        for where, (switch, coefficient) in VERLS_KL.items()
    }
    return {where: float(value) for where, value in found.items() if value}


def _refuse_other_kl(given: dict[str, float], set_: dict[str, float]) -> None:
    """Which KL there is follows from the constraint: another one would silently be overwritten."""
    if given in ({}, set_):
        return
    faults = []
    for where, value in given.items():
        switch, coefficient = VERLS_KL[where]
        faults.append(
            f"{switch}=True with {coefficient}={value:g}: a KL to the reference is a constraint "
            f"here, and constraint.kind would overwrite it. Fix: {switch}=False; or "
            f"constraint.kind=static_kl constraint.static_kl.coef={value:g} "
            f"constraint.static_kl.where={where} {switch}=False"
        )
    raise ConfigError("\n".join(faults))


def _bound_lengths(config: DictConfig) -> None:
    """Lengths that verl would leave to the model, or to a default of its own.

    A server that is told no length takes the model's context, and vLLM refuses to start if its
    cache cannot hold one sequence of it. verl packs the critic's rows by a key that its YAML lacks.
    """
    rollout, critic = config.actor_rollout_ref.rollout, config.critic
    if rollout.max_model_len is None:
        rollout.max_model_len = longest_sequence(config)
    if critic.get(CRITIC_PACKING) is None:
        critic[CRITIC_PACKING] = critic.ppo_max_token_len_per_gpu


def _set_keys_of_refining(config: DictConfig, plan: RunPlan) -> None:
    """What the servers and the judge are to do for the refiner."""
    if not plan.refines:
        return
    let_refinements_keep_groups(config, plan.settings)
    with open_dict(config):
        config.refiner.decoding = str(plan.decoding.decoding)
        if plan.shares_base:
            rollout = config.actor_rollout_ref.rollout
            rollout.max_model_len = max(rollout.max_model_len, plan.limits.context_tokens)
        function = config.reward.custom_reward_function
        setting = traits_of(function.path).failing_test_setting
        if setting and plan.settings.refiner.feedback is Feedback.FAILING_TEST:
            function.reward_kwargs = {**(function.get("reward_kwargs") or {}), setting: True}
