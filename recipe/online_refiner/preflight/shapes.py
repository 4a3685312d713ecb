"""The models of a run by the sizes in their config.json files, and how each is split over GPUs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.preflight.files_read import model_shape
from recipe.online_refiner.preflight.memory import GIB, ModelShape, Sharding
from recipe.online_refiner.resolve.hub import looks_local

SIZED = ("fsdp", "fsdp2", "megatron")
"""Strategies that the formulas are for."""


@dataclass(frozen=True)
class Shapes:
    """The models of a run. A role that is not there, or could not be read, is None."""

    policy: ModelShape | None
    refiner: ModelShape | None
    critic: ModelShape | None
    reward_model: ModelShape | None


def read_shapes(plan: RunPlan) -> tuple[Shapes, list[str]]:
    """The shapes of all models, and a sentence for each that could not be read."""
    policy_path = plan.config.actor_rollout_ref.model.path
    reward_model = plan.config.reward.reward_model
    paths = {"actor_rollout_ref.model.path": policy_path}
    if plan.has_refiner_servers:
        paths["refiner.model_path"] = plan.settings.refiner.model_path or policy_path
    if plan.has_critic:
        paths["critic.model.path"] = plan.config.critic.model.path
    if reward_model.enable:
        paths["reward.reward_model.model_path"] = reward_model.model_path
    read = {key: model_shape(path) for key, path in paths.items()}
    found = {key: one for key, one in read.items() if isinstance(one, ModelShape)}
    unread = [
        f"{key}={paths[key]!r}: its config.json could not be read ({why}). Fix: check the name, or "
        f"{_remedy(str(paths[key]))}"
        for key, why in read.items()
        if isinstance(why, str)
    ]
    return Shapes(*(found.get(key) for key in _SHAPE_KEYS)), unread


def _remedy(name: str) -> str:
    if looks_local(name):
        return "give the path of a Hugging Face model folder"
    return f"download it where there is a network (hf download {name}) and give the folder"


def check_shapes(plan: RunPlan) -> Iterator[str]:
    """Every model's config.json can be read."""
    yield from read_shapes(plan)[1]


_SHAPE_KEYS = (
    "actor_rollout_ref.model.path",
    "refiner.model_path",
    "critic.model.path",
    "reward.reward_model.model_path",
)


def without_output(shape: ModelShape) -> ModelShape:
    """A critic's: in place of the output layer it has one row."""
    return dataclasses.replace(shape, tied=True)


def sharding_of(plan: RunPlan, key: str) -> Sharding:
    """How the model that trains by this section of the config is split over the GPUs."""
    megatron = plan.is_megatron
    section = OmegaConf.select(plan.config, key)
    engine = section.megatron if megatron else section.get("fsdp_config", section.get("fsdp"))
    split: Any = plan.config.actor_rollout_ref.actor.megatron if megatron else {}
    overridden = split.get("override_transformer_config") or {}
    model = section.get("model") or plan.config.actor_rollout_ref.model
    return Sharding(
        gpus=plan.trainer_gpus,
        megatron=megatron,
        tensor_parallel=split.get("tensor_model_parallel_size", 1),
        pipeline_parallel=split.get("pipeline_model_parallel_size", 1),
        sequence_parallel=bool(split.get("sequence_parallel", False)),
        recomputes=(
            overridden.get("recompute_granularity") == "full"
            if megatron
            else bool(model.enable_gradient_checkpointing)
        ),
        offloads_weights=bool(engine.param_offload),
        offloads_optimizer=bool(engine.optimizer_offload),
    )


def gib(size: int) -> str:
    """Bytes for a message."""
    return f"{size / GIB:.1f} GiB"
