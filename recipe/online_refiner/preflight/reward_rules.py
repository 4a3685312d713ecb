"""Rules on the reward: its function, its judge's isolation, and a served reward model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import OmegaConf

from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.preflight.prompt_rules import context_of
from refiner_worker.engine import replica_gpus
from reward.traits import Inspection, load_reward, traits_of


def check_reward(plan: RunPlan) -> Iterator[str]:
    """The reward function can be loaded, and its settings and this node are as it needs."""
    path = plan.config.reward.custom_reward_function.path
    if path is None:
        return
    try:
        load_reward(path)
    except (ImportError, OSError) as error:
        yield (
            f"reward.custom_reward_function.path={path!r}: it could not be loaded ({error}). "
            "Fix: pkg://reward.apps for code, or the path of a .py file that Python can import"
        )
        return
    for fault in inspect_reward(plan).faults:
        yield f"reward.custom_reward_function.reward_kwargs: {fault}"


def check_reward_model(plan: RunPlan) -> Iterator[str]:
    """A served reward model has an engine and somebody who asks it; it has no highest reward."""
    section = plan.config.reward.reward_model
    path = plan.config.reward.custom_reward_function.path
    asks = traits_of(path).asks_reward_model
    if section.enable and asks is False:
        yield (
            f"reward.reward_model.enable=True: {path} asks no reward model. Fix: "
            "reward.reward_model.enable=False"
        )
    if not section.enable and asks:
        yield (
            f"reward.reward_model.enable=False: {path} asks a served reward model. Fix: a "
            "hardware=*_reward_model group, or another reward.custom_reward_function.path"
        )
    if not section.enable:
        return
    if plan.settings.refiner.perfect_reward is not None:
        yield (
            f"refiner.perfect_reward={plan.settings.refiner.perfect_reward}: a learned reward has "
            "no maximum at which refining could be spared. Fix: refiner.perfect_reward=null"
        )
    if section.model_path is None:
        yield (
            "reward.reward_model.model_path=None: no reward model is named. Fix: give its folder "
            "or hub id"
        )
    if OmegaConf.is_missing(section.rollout, "name"):
        yield (
            "reward.reward_model.rollout.name=???: no engine serves the reward model. Fix: "
            "reward.reward_model.rollout.name=vllm or sglang"
        )


def check_reward_manager(plan: RunPlan) -> Iterator[str]:
    """The length penalty has a reward manager that reads it, and begins within the response.

    verl asserts the latter in each reward worker.
    """
    section = OmegaConf.select(plan.config, "reward.reward_kwargs.overlong_buffer_cfg")
    overlong = section is not None and section.get("enable")
    name = plan.config.reward.reward_manager.name
    longest = OmegaConf.select(plan.config, "reward.reward_kwargs.max_resp_len")
    if overlong and longest is not None and section.len > longest:
        yield (
            f"reward.reward_kwargs.overlong_buffer_cfg.len={section.len}: the penalty would begin "
            f"before the response, whose longest has {longest} tokens. Fix: "
            "reward.reward_kwargs.overlong_buffer_cfg.len=null for a fifth of that"
        )
    if overlong and name != "dapo":
        yield (
            "reward.reward_kwargs.overlong_buffer_cfg.enable=True: only verl's reward manager dapo "
            f"reads it, and reward.reward_manager.name={name}. Fix: "
            "reward.reward_manager.name=dapo"
        )


def inspect_reward(plan: RunPlan) -> Inspection:
    """What the reward function finds of its settings and of this node."""
    function = plan.config.reward.custom_reward_function
    inspect = traits_of(function.path).inspect
    if inspect is None:
        return Inspection()
    return inspect(reward_settings(plan))


def reward_settings(plan: RunPlan) -> dict[str, Any]:
    """What the configuration gives the reward function."""
    given = plan.config.reward.custom_reward_function.get("reward_kwargs")
    plain: Any = OmegaConf.to_container(given, resolve=True) if given else {}
    return {str(key): value for key, value in plain.items()}


def check_reward_servers(plan: RunPlan) -> Iterator[str]:
    """verl shares the reward model's pool out among servers, and asserts only that there is one."""
    section = plan.config.reward.reward_model
    if not (section.enable and section.enable_resource_pool):
        return  # `check_gpus` says so if the pool is empty
    rollout, gpus = section.rollout, section.n_gpus_per_node * section.nnodes
    size = replica_gpus(rollout)
    if gpus >= 1 and gpus % size:
        yield (
            "reward.reward_model.rollout.tensor_model_parallel_size="
            f"{rollout.tensor_model_parallel_size}: a server of {size} GPUs does not divide the "
            f"{gpus} of reward.reward_model.n_gpus_per_node={section.n_gpus_per_node} × nnodes="
            f"{section.nnodes}. Fix: tensor_model_parallel_size=1, or as many GPUs"
        )


def check_reward_context(plan: RunPlan) -> Iterator[str]:
    """A longer conversation is refused by the server, so that long answers would go unscored."""
    section = plan.config.reward.reward_model
    if not section.enable or section.model_path is None:
        return
    context = section.rollout.max_model_len or context_of(section.model_path)
    if context is None:
        return  # `check_shapes` says why
    needed = plan.config.data.max_prompt_length + plan.config.data.max_response_length
    if needed >= context:
        yield (
            f"reward.reward_model.model_path={section.model_path!r}: its context of {context} "
            f"tokens does not hold data.max_prompt_length + data.max_response_length = {needed} "
            "and its chat template. Fix: lower one of them, or take another reward model"
        )
