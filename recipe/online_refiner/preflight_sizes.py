"""The preflight's sizes: does each GPU hold its share, does the disk hold the checkpoints.

Reads config.json files, never weights. The formulas are in `memory.py`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from transformers import AutoConfig

from recipe.online_refiner.budgets import refine_limits, refiner_model_length
from recipe.online_refiner.memory import (
    GIB,
    ModelShape,
    Peaks,
    Server,
    Sharding,
    TrainedModel,
    activation_bytes,
    checkpoint_bytes,
    forward_only,
    peaks,
    server,
    trained,
)
from recipe.online_refiner.preflight_checks import (
    has_critic,
    is_megatron,
    refiner_rollout,
    trainer_gpus,
)
from recipe.online_refiner.settings import Kind, Settings


@dataclass(frozen=True)
class Shapes:
    """The models of a run. A role that is not there, or could not be read, is None."""

    policy: ModelShape | None
    refiner: ModelShape | None
    critic: ModelShape | None
    reward_model: ModelShape | None


@dataclass(frozen=True)
class Sizes:
    """What the memory check found; None where the size of the GPUs is not known."""

    gpu_bytes: int
    peaks: Peaks
    servers: dict[str, Server]


def read_shapes(config: DictConfig, settings: Settings) -> tuple[Shapes, list[str]]:
    """The shapes of all models, and a sentence for each that could not be read."""
    policy_path = config.actor_rollout_ref.model.path
    reward_model = config.reward.reward_model
    paths = {"actor_rollout_ref.model.path": policy_path}
    if settings.has_refiner_servers:
        paths["refiner.model_path"] = settings.refiner.model_path or policy_path
    if has_critic(config):
        paths["critic.model.path"] = config.critic.model.path
    if reward_model.enable:
        paths["reward.reward_model.model_path"] = reward_model.model_path
    found: dict[str, ModelShape] = {}
    unread = []
    for key, path in paths.items():
        try:
            found[key] = _read_shape(path)
        except (OSError, ValueError, KeyError) as error:
            unread.append(
                f"{key}={path!r}: its config.json could not be read "
                f"({str(error).splitlines()[0][:120]}). Fix: check the name, or download the "
                "model first and give its folder"
            )
    return Shapes(*(found.get(key) for key in _SHAPE_KEYS)), unread


_SHAPE_KEYS = (
    "actor_rollout_ref.model.path",
    "refiner.model_path",
    "critic.model.path",
    "reward.reward_model.model_path",
)


def _read_shape(path: str | None) -> ModelShape:
    if path is None:
        raise ValueError("no model is named")
    config = AutoConfig.from_pretrained(os.path.expanduser(path)).get_text_config()
    return ModelShape.from_config(config.to_dict())


def estimate(config: DictConfig, settings: Settings, shapes: Shapes) -> Sizes | None:
    """Peaks of a trainer GPU and the shares of all servers; None without GPUs or shapes."""
    machine = config.get("machine")
    if machine is None or config.trainer.device == "cpu" or shapes.policy is None:
        return None
    gpu_bytes = int(machine.gpu_memory_gib * GIB)
    servers = _servers(config, settings, shapes, gpu_bytes)
    models, activations = _models(config, settings, shapes)
    own_pool = {"reward model"} | (
        {"refiner"} if settings.refiner.placement == "pool" else set[str]()
    )
    beside = {role: one for role, one in servers.items() if role not in own_pool}
    return Sizes(gpu_bytes, peaks(models, activations, beside), servers)


def _models(
    config: DictConfig, settings: Settings, shapes: Shapes
) -> tuple[dict[str, TrainedModel], dict[str, int]]:
    actor = config.actor_rollout_ref.actor
    assert shapes.policy is not None
    tensor_parallel = actor.megatron.tensor_model_parallel_size if is_megatron(config) else 1
    packed = actor.ppo_max_token_len_per_gpu
    models = {"actor": trained(shapes.policy, _sharding(config, "actor_rollout_ref.actor"))}
    activations = {"actor": activation_bytes(shapes.policy, packed, tensor_parallel)}
    if settings.constraint.kind is Kind.STATIC_KL or settings.monitor.kl_to_reference:
        sharding = _sharding(config, "actor_rollout_ref.ref")
        models["reference"] = forward_only(shapes.policy, sharding)
        activations["reference"] = activations["actor"]
    if shapes.critic is not None:
        tokens = config.critic.ppo_max_token_len_per_gpu
        models["critic"] = trained(shapes.critic, _sharding(config, "critic"))
        activations["critic"] = activation_bytes(shapes.critic, tokens, tensor_parallel)
    return models, activations


def _sharding(config: DictConfig, key: str) -> Sharding:
    megatron = is_megatron(config)
    section = OmegaConf.select(config, key)
    engine = section.megatron if megatron else section.get("fsdp_config", section.get("fsdp"))
    split = config.actor_rollout_ref.actor.megatron if megatron else {}
    return Sharding(
        gpus=trainer_gpus(config),
        megatron=megatron,
        tensor_parallel=split.get("tensor_model_parallel_size", 1),
        pipeline_parallel=split.get("pipeline_model_parallel_size", 1),
        offloads_weights=bool(engine.param_offload),
        offloads_optimizer=bool(engine.optimizer_offload),
    )


def _servers(
    config: DictConfig, settings: Settings, shapes: Shapes, gpu_bytes: int
) -> dict[str, Server]:
    rollout = config.actor_rollout_ref.rollout
    found = {}
    if shapes.policy is not None:
        found["policy"] = _server(shapes.policy, gpu_bytes, rollout)
    if shapes.refiner is not None:
        own = refiner_rollout(config, settings)
        found["refiner"] = _server(shapes.refiner, gpu_bytes, own)
    if shapes.reward_model is not None:
        section = config.reward.reward_model.rollout
        found["reward model"] = _server(shapes.reward_model, gpu_bytes, section)
    return found


def _server(shape: ModelShape, gpu_bytes: int, rollout: DictConfig) -> Server:
    utilization, split = rollout.gpu_memory_utilization, rollout.tensor_model_parallel_size
    return server(shape, gpu_bytes, utilization, split)


def check_memory(config: DictConfig, settings: Settings, sizes: Sizes) -> Iterator[str]:
    """Faults of the estimate, each with the key that helps most."""
    total = sizes.gpu_bytes
    if sizes.peaks.rollout > total:
        yield (
            f"actor_rollout_ref.rollout.gpu_memory_utilization="
            f"{config.actor_rollout_ref.rollout.gpu_memory_utilization}: while rollouts are made "
            f"a GPU would hold {_gib(sizes.peaks.rollout)} of {_gib(total)}. Fix: lower it or "
            "refiner.rollout.gpu_memory_utilization, or strategy=fsdp2_offload"
        )
    if sizes.peaks.update > total:
        yield (
            f"actor_rollout_ref.actor.ppo_max_token_len_per_gpu="
            f"{config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu}: an update would take "
            f"{_gib(sizes.peaks.update)} of {_gib(total)}. Fix: lower it (and the critic's), "
            "strategy=fsdp2_offload, or more GPUs"
        )
    needed = {
        "policy": config.data.max_prompt_length + config.data.max_response_length,
        "refiner": refiner_model_length(refine_limits(config, settings)),
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
    """Bytes of one checkpoint, of all that are kept, and what is free where they go."""

    one: int
    kept: int
    free: int


def checkpoint_disk(config: DictConfig, shapes: Shapes) -> Disk | None:
    """Space for checkpoints; one more than is kept, since the oldest goes after the newest came."""
    if config.trainer.save_freq <= 0 or shapes.policy is None:
        return None
    one = checkpoint_bytes(shapes.policy.parameters)
    if shapes.critic is not None:
        one += checkpoint_bytes(shapes.critic.parameters)
    count = config.trainer.max_actor_ckpt_to_keep
    if count is None:
        steps = config.trainer.total_training_steps or 1
        count = max(1, steps // config.trainer.save_freq)
    folder = Path(config.trainer.default_local_dir).expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    return Disk(one, one * (count + 1), shutil.disk_usage(folder).free)


def check_disk(config: DictConfig, disk: Disk) -> Iterator[str]:
    """Whether the checkpoints that are kept fit where they go."""
    if disk.kept > disk.free:
        yield (
            f"trainer.default_local_dir={config.trainer.default_local_dir!r}: its disk has "
            f"{_gib(disk.free)} free, and trainer.max_actor_ckpt_to_keep="
            f"{config.trainer.max_actor_ckpt_to_keep} with checkpoints of {_gib(disk.one)} takes "
            f"{_gib(disk.kept)}. Fix: keep fewer, or run.dir on a larger disk"
        )


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
