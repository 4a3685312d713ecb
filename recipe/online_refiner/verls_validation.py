"""verl's own validation of a plan, before Ray starts.

verl makes typed sections of its config in many processes, the rollout's in each server. Making them
once here shows what it refuses while nothing is loaded yet.
"""

from __future__ import annotations

from collections.abc import Iterator

from hydra import errors as hydra_errors
from omegaconf import DictConfig
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


def check_with_verl(plan: RunPlan) -> None:
    """Have verl read the config as it will once Ray runs; raises ConfigError if it refuses it."""
    config = plan.config
    try:
        validate_config(config, need_reference_policy(config), need_critic(config))
    except REFUSALS as error:
        raise ConfigError(f"verl refuses the config: {_words(error)}") from error
    for key, section in _sections(plan):
        try:
            omega_conf_to_dataclass(section)
        except REFUSALS as error:
            raise ConfigError(f"{key}: verl refuses it: {_words(error)}") from error


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
