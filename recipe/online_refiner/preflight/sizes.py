"""The preflight's sizes: does each GPU hold its share, does the disk hold the checkpoints.

Reads config.json files, never weights. The formulas are in `memory.py`.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from transformers import AutoConfig

from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.preflight.memory import (
    GIB,
    ModelShape,
    Peaks,
    ServerShare,
    Sharding,
    TrainedModel,
    activation_bytes,
    checkpoint_bytes,
    forward_only,
    peaks,
    server,
    trained,
)
from recipe.online_refiner.servers.refiner_engine import refiner_rollout


@dataclass(frozen=True)
class Shapes:
    """The models of a run. A role that is not there, or could not be read, is None."""

    policy: ModelShape | None
    refiner: ModelShape | None
    critic: ModelShape | None
    reward_model: ModelShape | None


@dataclass(frozen=True)
class Sizes:
    """What the memory check found; None if the size of the GPUs is not known."""

    gpu_bytes: int
    peaks: Peaks
    servers: dict[str, ServerShare]


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
    read = {key: _shape_or_why_not(path) for key, path in paths.items()}
    found = {key: one for key, one in read.items() if isinstance(one, ModelShape)}
    unread = [
        f"{key}={paths[key]!r}: its config.json could not be read ({why}). Fix: check the name, or "
        "download the model first and give its folder"
        for key, why in read.items()
        if isinstance(why, str)
    ]
    return Shapes(*(found.get(key) for key in _SHAPE_KEYS)), unread


def check_shapes(plan: RunPlan) -> Iterator[str]:
    """Every model's config.json can be read."""
    yield from read_shapes(plan)[1]


_SHAPE_KEYS = (
    "actor_rollout_ref.model.path",
    "refiner.model_path",
    "critic.model.path",
    "reward.reward_model.model_path",
)


@functools.cache
def _shape_or_why_not(path: str | None) -> ModelShape | str:
    """A hub id is looked up once, however many rules ask for it."""
    if path is None:
        return "no model is named"
    try:
        config = AutoConfig.from_pretrained(os.path.expanduser(path)).get_text_config()
        return ModelShape.from_config(config.to_dict())
    except (OSError, ValueError, KeyError) as error:
        return str(error).splitlines()[0][:120]


def estimate(plan: RunPlan) -> Sizes | None:
    """Peaks of a trainer GPU and the shares of all servers; None without GPUs or shapes."""
    shapes, _ = read_shapes(plan)
    machine = plan.config.get("machine")
    if machine is None or plan.config.trainer.device == "cpu" or shapes.policy is None:
        return None
    gpu_bytes = int(machine.gpu_memory_gib * GIB)
    servers = _servers(plan, shapes, gpu_bytes)
    models, activations = _models(plan, shapes)
    own_pool = {"reward model"} | ({"refiner"} if plan.has_own_pool else set[str]())
    beside = {role: one for role, one in servers.items() if role not in own_pool}
    return Sizes(gpu_bytes, peaks(models, activations, beside), servers)


def _models(plan: RunPlan, shapes: Shapes) -> tuple[dict[str, TrainedModel], dict[str, int]]:
    actor = plan.config.actor_rollout_ref.actor
    assert shapes.policy is not None
    tensor_parallel = actor.megatron.tensor_model_parallel_size if plan.is_megatron else 1
    packed = actor.ppo_max_token_len_per_gpu
    models = {"actor": trained(shapes.policy, _sharding(plan, "actor_rollout_ref.actor"))}
    activations = {"actor": activation_bytes(shapes.policy, packed, tensor_parallel)}
    if plan.forwards_reference:
        sharding = _sharding(plan, "actor_rollout_ref.ref")
        models["reference"] = forward_only(shapes.policy, sharding)
        activations["reference"] = activations["actor"]
    if shapes.critic is not None:
        tokens = plan.config.critic.ppo_max_token_len_per_gpu
        models["critic"] = trained(shapes.critic, _sharding(plan, "critic"))
        activations["critic"] = activation_bytes(shapes.critic, tokens, tensor_parallel)
    return models, activations


def _sharding(plan: RunPlan, key: str) -> Sharding:
    megatron = plan.is_megatron
    section = OmegaConf.select(plan.config, key)
    engine = section.megatron if megatron else section.get("fsdp_config", section.get("fsdp"))
    split = plan.config.actor_rollout_ref.actor.megatron if megatron else {}
    return Sharding(
        gpus=plan.trainer_gpus,
        megatron=megatron,
        tensor_parallel=split.get("tensor_model_parallel_size", 1),
        pipeline_parallel=split.get("pipeline_model_parallel_size", 1),
        offloads_weights=bool(engine.param_offload),
        offloads_optimizer=bool(engine.optimizer_offload),
    )


def _servers(plan: RunPlan, shapes: Shapes, gpu_bytes: int) -> dict[str, ServerShare]:
    rollout = plan.config.actor_rollout_ref.rollout
    found = {}
    if shapes.policy is not None:
        found["policy"] = _server(shapes.policy, gpu_bytes, rollout)
    if shapes.refiner is not None:
        own = refiner_rollout(plan)
        found["refiner"] = _server(shapes.refiner, gpu_bytes, own)
    if shapes.reward_model is not None:
        section = plan.config.reward.reward_model.rollout
        found["reward model"] = _server(shapes.reward_model, gpu_bytes, section)
    return found


def _server(shape: ModelShape, gpu_bytes: int, rollout: DictConfig) -> ServerShare:
    utilization, split = rollout.gpu_memory_utilization, rollout.tensor_model_parallel_size
    return server(shape, gpu_bytes, utilization, split)


def check_memory(plan: RunPlan) -> Iterator[str]:
    """Each GPU holds its share by the estimate; else the key that helps most."""
    sizes = estimate(plan)
    if sizes is None:
        return
    total = sizes.gpu_bytes
    if sizes.peaks.rollout > total:
        yield (
            f"actor_rollout_ref.rollout.gpu_memory_utilization="
            f"{plan.config.actor_rollout_ref.rollout.gpu_memory_utilization}: while rollouts "
            f"are made a GPU would hold {_gib(sizes.peaks.rollout)} of {_gib(total)}. Fix: lower "
            "it or refiner.rollout.gpu_memory_utilization, or strategy=fsdp2_offload"
        )
    if sizes.peaks.update > total:
        yield (
            f"actor_rollout_ref.actor.ppo_max_token_len_per_gpu="
            f"{plan.config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu}: an update would "
            f"take {_gib(sizes.peaks.update)} of {_gib(total)}. Fix: lower it (and the critic's), "
            "strategy=fsdp2_offload, or more GPUs"
        )
    needed = {
        "policy": plan.config.data.max_prompt_length + plan.config.data.max_response_length,
        "refiner": plan.limits.context_tokens,
        "reward model": 1,
    }
    for role, one in sizes.servers.items():
        if one.cache_tokens < needed[role]:
            key = f"{_ROLLOUT_KEYS[role]}.gpu_memory_utilization"
            yield (
                f"{key}={one.share_bytes / total:.2g}: the {role} server's {_gib(one.share_bytes)} "
                f"hold {_gib(one.weight_bytes)} of weights and a cache of "
                f"{max(one.cache_tokens, 0)} tokens, under one sequence of {needed[role]}. Fix: "
                f"raise it, or {_ROLLOUT_KEYS[role]}.tensor_model_parallel_size"
            )


_ROLLOUT_KEYS = {
    "policy": "actor_rollout_ref.rollout",
    "refiner": "refiner.rollout",
    "reward model": "reward.reward_model.rollout",
}


@dataclass(frozen=True)
class Disk:
    """Bytes of one checkpoint, of all that stay on the disk, and what is free where they go."""

    one: int
    kept: int
    free: int


def checkpoint_disk(plan: RunPlan) -> Disk | None:
    """Space for checkpoints; one more than is kept, since the oldest goes after the newest came."""
    shapes, _ = read_shapes(plan)
    if plan.config.trainer.save_freq <= 0 or shapes.policy is None:
        return None
    one = checkpoint_bytes(shapes.policy.parameters)
    if shapes.critic is not None:
        one += checkpoint_bytes(shapes.critic.parameters)
    count = plan.config.trainer.max_actor_ckpt_to_keep
    if count is None:
        steps = plan.config.trainer.total_training_steps or 1
        count = max(1, steps // plan.config.trainer.save_freq)
    folder = Path(plan.config.trainer.default_local_dir).expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    return Disk(one, one * (count + 1), shutil.disk_usage(folder).free)


def check_disk(plan: RunPlan) -> Iterator[str]:
    """The checkpoints that are kept fit where they go."""
    disk = checkpoint_disk(plan)
    if disk is not None:
        yield from disk_faults(plan, disk)


def disk_faults(plan: RunPlan, disk: Disk) -> Iterator[str]:
    """The fault of a disk that is too small."""
    if disk.kept > disk.free:
        yield (
            f"trainer.default_local_dir={plan.config.trainer.default_local_dir!r}: its disk has "
            f"{_gib(disk.free)} free, and trainer.max_actor_ckpt_to_keep="
            f"{plan.config.trainer.max_actor_ckpt_to_keep} with checkpoints of {_gib(disk.one)} "
            f"takes {_gib(disk.kept)}. Fix: keep fewer, or run.dir on a larger disk"
        )


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
