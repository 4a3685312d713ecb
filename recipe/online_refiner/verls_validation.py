"""verl's own validation of a plan, before Ray starts.

verl makes typed sections of its config in many processes, the rollout's in each server. Making them
once here shows what it refuses while nothing is loaded yet.
"""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from hydra import errors as hydra_errors
from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config

from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.resolve.refiner_engine import refiner_rollout
from recipe.online_refiner.settings import ConfigError

REFUSALS = (
    *(AssertionError, ValueError, TypeError, NotImplementedError),
    hydra_errors.HydraException,
)
"""What verl, and Hydra on its behalf, raise at a value that they refuse."""
HYDRAS_KEYS = ("_target_", "_recursive_", "_convert_", "_partial_", "_args_")
TAKEN_BEFORE = {
    "actor_rollout_ref.ref": (
        *("log_prob_micro_batch_size", "log_prob_micro_batch_size_per_gpu"),
        *("log_prob_use_dynamic_bsz", "log_prob_max_token_len_per_gpu"),
    )
}
"""Keys that verl takes out of a section before it makes an object of it."""


def check_with_verl(plan: RunPlan) -> None:
    """Have verl read the config as it will once Ray runs; raises ConfigError if it refuses it."""
    config = plan.config
    sections = _made_sections(plan)
    unknown = [fault for key, section in sections for fault in unknown_keys(key, section)]
    if unknown:
        raise ConfigError("\n".join(unknown))
    try:
        validate_config(config, need_reference_policy(config), need_critic(config))
    except REFUSALS as error:
        raise ConfigError(f"verl refuses the config: {_words(error)}") from error
    for key, section in _sections(plan):
        try:
            omega_conf_to_dataclass(section)
        except REFUSALS as error:
            raise ConfigError(f"{key}: verl refuses it: {_words(error)}") from error


def _made_sections(plan: RunPlan) -> Iterator[tuple[str, DictConfig]]:
    """Those that verl makes objects of, with the classes that they name as `_target_`."""
    config = plan.config
    yield "actor_rollout_ref.actor", config.actor_rollout_ref.actor
    yield "actor_rollout_ref.model", config.actor_rollout_ref.model
    yield "actor_rollout_ref.rollout", config.actor_rollout_ref.rollout
    if plan.forwards_reference:
        yield "actor_rollout_ref.ref", config.actor_rollout_ref.ref
    if plan.has_critic:
        yield "critic", config.critic
    if config.reward.reward_model.enable:
        yield "reward.reward_model.rollout", config.reward.reward_model.rollout


def unknown_keys(name: str, section: DictConfig) -> Iterator[str]:
    """A sentence for each key, of the section or below it, that its class has no field for.

    Args:
        name: of the section, as the config names it. section: with the class as `_target_`.
    """
    made = _class_of(section)
    if made is not None and is_dataclass(made):
        known = [field.name for field in fields(made) if field.init]
        for key in section:
            if key not in (*known, *HYDRAS_KEYS, *TAKEN_BEFORE.get(name, ())):
                near = difflib.get_close_matches(key, known, n=1)
                fix = f"did you mean {near[0]}?" if near else "leave it out"
                kind = section._target_.rpartition(".")[2]
                yield f"{name}.{key}: verl's {kind} has no such key. Fix: {fix}"
    for key in section:
        if not OmegaConf.is_missing(section, key) and isinstance(section[key], DictConfig):
            yield from unknown_keys(f"{name}.{key}", section[key])


def _class_of(section: DictConfig) -> type | None:
    """The class that it names; None if it names none, or what is none: that is verl's to refuse."""
    if not section.get("_target_"):
        return None
    try:
        named = pkgutil.resolve_name(section._target_)
    except (ImportError, AttributeError, ValueError):
        return None
    return named if isinstance(named, type) else None


def _sections(plan: RunPlan) -> Iterator[tuple[str, DictConfig]]:
    """Those that `validate_config` leaves to later."""
    yield "actor_rollout_ref.rollout", plan.config.actor_rollout_ref.rollout
    if plan.has_refiner_servers:
        yield "refiner.rollout", refiner_rollout(plan)
    if plan.config.reward.reward_model.enable:
        yield "reward.reward_model.rollout", plan.config.reward.reward_model.rollout


def _words(error: BaseException) -> str:
    """The reason in one line; Hydra's own is that it made something, and its cause says what."""
    cause = error.__cause__ if isinstance(error, hydra_errors.HydraException) else None
    return " ".join(str(cause or error).split())
