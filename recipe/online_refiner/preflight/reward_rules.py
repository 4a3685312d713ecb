"""Rules on the reward: its function, its judge's isolation, and a served reward model."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from transformers import AutoConfig

from recipe.online_refiner.plan import RunPlan
from refiner_worker.engine import replica_gpus
from reward.config import JudgeConfig, JudgeConfigError
from reward.sandbox.client import SandboxError, ZygoteClient
from reward.sandbox.wire import Level

JUDGE_PATH = "pkg://reward.apps"


def check_reward(plan: RunPlan) -> Iterator[str]:
    """The reward function can be loaded, and fits a reward model and the reward manager."""
    function = plan.config.reward.custom_reward_function
    if function.path is None:
        return
    if not _can_be_imported(function.path):
        yield (
            f"reward.custom_reward_function.path={function.path!r}: no such module or file. Fix: "
            "pkg://reward.apps for code, or the path of a .py file"
        )
    if function.path == JUDGE_PATH:
        try:
            JudgeConfig.from_mapping(judge_keys(plan))
        except (JudgeConfigError, TypeError) as error:
            yield f"reward.custom_reward_function.reward_kwargs: {error}"
        if plan.config.reward.reward_model.enable:
            yield (
                "reward.reward_model.enable=True: the judge of programs asks no reward model. Fix: "
                "reward.reward_model.enable=False"
            )
    if plan.config.reward.reward_model.enable and plan.settings.refiner.perfect_reward is not None:
        yield (
            f"refiner.perfect_reward={plan.settings.refiner.perfect_reward}: a learned reward has "
            "no maximum at which refining could be spared. Fix: refiner.perfect_reward=null"
        )
    if plan.config.reward.reward_model.enable and OmegaConf.is_missing(
        plan.config.reward.reward_model.rollout, "name"
    ):
        yield (
            "reward.reward_model.rollout.name=???: no engine serves the reward model. Fix: "
            "reward.reward_model.rollout.name=vllm or sglang"
        )
    overlong = OmegaConf.select(plan.config, "reward.reward_kwargs.overlong_buffer_cfg.enable")
    if overlong and plan.config.reward.reward_manager.name != "dapo":
        yield (
            "reward.reward_kwargs.overlong_buffer_cfg.enable=True: only verl's reward manager dapo "
            f"reads it, and reward.reward_manager.name={plan.config.reward.reward_manager.name}. "
            "Fix: reward.reward_manager.name=dapo"
        )


def judge_keys(plan: RunPlan) -> dict[str, Any]:
    """The judge's settings of this run."""
    section = plan.config.reward.custom_reward_function.get("reward_kwargs") or {}
    keys = OmegaConf.to_container(OmegaConf.create(section), resolve=True)
    return {str(key): value for key, value in keys.items()} if isinstance(keys, dict) else {}


def _can_be_imported(path: str) -> bool:
    if not path.startswith("pkg://"):
        return Path(path).is_file()
    try:
        return importlib.util.find_spec(path.removeprefix("pkg://")) is not None
    except ModuleNotFoundError:
        return False


def check_reward_servers(plan: RunPlan) -> Iterator[str]:
    """verl shares the reward model's pool out among servers, and asserts only that there is one."""
    section = plan.config.reward.reward_model
    if not (section.enable and section.enable_resource_pool):
        return
    rollout, gpus = section.rollout, section.n_gpus_per_node * section.nnodes
    size = replica_gpus(rollout)
    if gpus < 1 or gpus % size:
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
    try:
        model = AutoConfig.from_pretrained(os.path.expanduser(section.model_path))
    except (OSError, ValueError):
        return  # read_shapes says so
    context = section.rollout.max_model_len or model.get_text_config().max_position_embeddings
    needed = plan.config.data.max_prompt_length + plan.config.data.max_response_length
    if needed >= context:
        yield (
            f"reward.reward_model.model_path={section.model_path!r}: its context of {context} "
            f"tokens does not hold data.max_prompt_length + data.max_response_length = {needed} "
            "and its chat template. Fix: lower one of them, or take another reward model"
        )


def probe_sandbox(plan: RunPlan) -> tuple[Level | None, list[str]]:
    """The isolation that this node gives untrusted programs, and what is wrong with it.

    None if none are judged.
    """
    if plan.config.reward.custom_reward_function.path != JUDGE_PATH:
        return None, []
    try:
        judge = JudgeConfig.from_mapping(judge_keys(plan))
        level = _isolation_of_this_node(judge.max_level)
    except (JudgeConfigError, TypeError):
        return None, []  # check_reward says what is wrong with it
    except SandboxError as error:
        return None, [f"the sandbox does not start on this node: {error}. Fix: see docs/judge.md"]
    if level < judge.min_level:
        return level, [
            f"reward.custom_reward_function.reward_kwargs.min_level={judge.min_level}: this node "
            f"isolates programs at level {int(level)}. Fix: "
            "`python -m reward.selftest` says what is missing; or lower min_level"
        ]
    return level, []


@functools.cache
def _isolation_of_this_node(max_level: int) -> Level:
    zygote = ZygoteClient(Level.NONE, Level(max_level))
    zygote.close()
    return zygote.level


def check_isolation(plan: RunPlan) -> Iterator[str]:
    """This node isolates judged programs as the judge's settings ask for."""
    yield from probe_sandbox(plan)[1]
