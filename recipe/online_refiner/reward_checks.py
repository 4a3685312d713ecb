"""What the preflight refuses about a served reward model: its context and its servers."""

from __future__ import annotations

import os
from collections.abc import Iterator

from omegaconf import DictConfig
from transformers import AutoConfig

from recipe.online_refiner.settings import Settings
from refiner_worker.engine import replica_gpus


def check_reward_servers(config: DictConfig, settings: Settings) -> Iterator[str]:
    """verl shares the reward model's pool out among servers, and asserts only that there is one."""
    section = config.reward.reward_model
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


def check_reward_context(config: DictConfig, settings: Settings) -> Iterator[str]:
    """A longer conversation is refused by the server, so that long answers would go unscored."""
    section = config.reward.reward_model
    if not section.enable or section.model_path is None:
        return
    try:
        model = AutoConfig.from_pretrained(os.path.expanduser(section.model_path))
    except (OSError, ValueError):
        return  # read_shapes says so
    context = section.rollout.max_model_len or model.get_text_config().max_position_embeddings
    needed = config.data.max_prompt_length + config.data.max_response_length
    if needed >= context:
        yield (
            f"reward.reward_model.model_path={section.model_path!r}: its context of {context} "
            f"tokens does not hold data.max_prompt_length + data.max_response_length = {needed} "
            "and its chat template. Fix: lower one of them, or take another reward model"
        )
