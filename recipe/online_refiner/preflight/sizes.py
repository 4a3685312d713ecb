"""The preflight's sizes: does each GPU hold its share, each node its part, the disk checkpoints.

Reads config.json files, never weights. The formulas are in `memory.py` and `host.py`.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.preflight.files_read import model_config, model_shape
from recipe.online_refiner.preflight.host import (
    GPU_PROCESS_BYTES,
    PLAIN_PROCESS_BYTES,
    HostMemory,
    Tenant,
    host_memory,
)
from recipe.online_refiner.preflight.memory import (
    GIB,
    USABLE,
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
    value_activation_bytes,
)
from recipe.online_refiner.servers.refiner_engine import refiner_rollout

SIZED = ("fsdp", "fsdp2", "megatron")
"""Strategies that the formulas are for."""
SLURM_MEMORY = "SLURM_MEM_PER_NODE"
"""MiB of a node that SLURM gives a job, if it was asked for a number."""


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
    read = {key: model_shape(path) for key, path in paths.items()}
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


def estimate(plan: RunPlan) -> Sizes | None:
    """Peaks of a trainer GPU and the shares of all servers; None without GPUs or shapes."""
    shapes, _ = read_shapes(plan)
    machine = plan.config.get("machine")
    if machine is None or plan.config.trainer.device == "cpu" or shapes.policy is None:
        return None
    if plan.config.actor_rollout_ref.actor.strategy not in SIZED:
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
    sharding = _sharding(plan, "actor_rollout_ref.actor")
    models = {"actor": trained(shapes.policy, sharding)}
    packed = actor.ppo_max_token_len_per_gpu
    activations = {"actor": activation_bytes(shapes.policy, packed, sharding)}
    if plan.forwards_reference:
        models["reference"] = forward_only(shapes.policy, _sharding(plan, "actor_rollout_ref.ref"))
        activations["reference"] = activations["actor"]
    if shapes.critic is not None:
        own, sharding = _without_output(shapes.critic), _sharding(plan, "critic")
        tokens = plan.config.critic.ppo_max_token_len_per_gpu
        models["critic"] = trained(own, sharding)
        activations["critic"] = value_activation_bytes(own, tokens, sharding)
    return models, activations


def _without_output(shape: ModelShape) -> ModelShape:
    """A critic's: in place of the output layer it has one row."""
    return dataclasses.replace(shape, tied=True)


def _sharding(plan: RunPlan, key: str) -> Sharding:
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


def _served(plan: RunPlan, shapes: Shapes) -> Iterator[tuple[str, ModelShape, DictConfig]]:
    """Role, model and rollout config of each kind of server."""
    if shapes.policy is not None:
        yield "policy", shapes.policy, plan.config.actor_rollout_ref.rollout
    if shapes.refiner is not None:
        yield "refiner", shapes.refiner, refiner_rollout(plan)
    if shapes.reward_model is not None:
        yield "reward model", shapes.reward_model, plan.config.reward.reward_model.rollout


def _servers(plan: RunPlan, shapes: Shapes, gpu_bytes: int) -> dict[str, ServerShare]:
    return {
        role: server(
            shape,
            gpu_bytes,
            rollout.gpu_memory_utilization,
            rollout.tensor_model_parallel_size,
            given_cache_bytes(rollout),
        )
        for role, shape, rollout in _served(plan, shapes)
    }


def given_cache_bytes(rollout: DictConfig) -> int | None:
    """The size of the cache on each GPU, if the engine is told it (vLLM)."""
    if OmegaConf.is_missing(rollout, "name") or rollout.name != "vllm":
        return None
    return OmegaConf.select(rollout, "engine_kwargs.vllm.kv_cache_memory_bytes")


def check_caches(plan: RunPlan) -> Iterator[str]:
    """Where a cache's size is given, it holds one sequence of the server's length: vLLM asks it."""
    shapes, _ = read_shapes(plan)
    needed = sequence_lengths(plan)
    for role, shape, rollout in _served(plan, shapes):
        given = given_cache_bytes(rollout)
        if given is None or role not in needed:
            continue
        wide = 2 if rollout.dtype in ("float32", "float") else 1
        a_token = wide * shape.cache_bytes_per_token // rollout.tensor_model_parallel_size
        if given < needed[role] * a_token:
            key = f"{_ROLLOUT_KEYS[role]}.engine_kwargs.vllm.kv_cache_memory_bytes"
            yield (
                f"{key}={given}: a cache of {given // a_token} tokens, and the {role} server's "
                f"longest sequence has {needed[role]} "
                f"({_LENGTH_KEYS[role]}). Fix: {needed[role] * a_token} or more"
            )


def sequence_lengths(plan: RunPlan) -> dict[str, int]:
    """Tokens of the longest sequence that each server is started for."""
    found = {
        "policy": plan.config.actor_rollout_ref.rollout.max_model_len,
        "refiner": plan.limits.context_tokens,
    }
    section = plan.config.reward.reward_model
    if section.enable and section.model_path is not None:
        config = model_config(section.model_path)
        context = (
            None
            if isinstance(config, str)
            else getattr(config.get_text_config(), "max_position_embeddings", None)
        )
        length = section.rollout.max_model_len or context
        if length is not None:
            found["reward model"] = length
    return found


def check_memory(plan: RunPlan) -> Iterator[str]:
    """Each GPU holds its share by the estimate; else the key that helps most."""
    sizes = estimate(plan)
    if sizes is None:
        return
    total, usable = sizes.gpu_bytes, int(USABLE * sizes.gpu_bytes)
    of = f"of {_gib(total)}, {_gib(usable)} of which may be planned with"
    offload = _offload_fix(plan)
    if sizes.peaks.rollout > usable:
        yield (
            f"actor_rollout_ref.rollout.gpu_memory_utilization="
            f"{plan.config.actor_rollout_ref.rollout.gpu_memory_utilization}: while rollouts "
            f"are made a GPU would hold {_gib(sizes.peaks.rollout)} {of}. Fix: lower "
            f"it or refiner.rollout.gpu_memory_utilization, or {offload}"
        )
    if sizes.peaks.update > usable:
        yield (
            f"actor_rollout_ref.actor.ppo_max_token_len_per_gpu="
            f"{plan.config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu}: an update would "
            f"take {_gib(sizes.peaks.update)} {of}. Fix: lower it (and the critic's), "
            f"{offload}, or more GPUs"
        )
    yield from _cache_faults(plan, sizes)


def _offload_fix(plan: RunPlan) -> str:
    """What puts more of the states into the machine's memory, or over more GPUs."""
    actor = plan.config.actor_rollout_ref.actor
    if not plan.is_megatron:
        engine = actor.fsdp_config
        waits = engine.param_offload and engine.optimizer_offload
        return "strategy=megatron_tp8" if waits else "strategy=fsdp2_offload"
    if actor.megatron.param_offload and actor.megatron.optimizer_offload:
        return "a larger actor_rollout_ref.actor.megatron.tensor_model_parallel_size"
    return (
        "actor_rollout_ref.actor.megatron.param_offload=True and "
        "actor_rollout_ref.actor.megatron.optimizer_offload=True"
    )


def _cache_faults(plan: RunPlan, sizes: Sizes) -> Iterator[str]:
    for role, needed in sequence_lengths(plan).items():
        one = sizes.servers.get(role)
        if one is not None and one.cache_tokens < needed:
            key = f"{_ROLLOUT_KEYS[role]}.gpu_memory_utilization"
            yield (
                f"{key}={one.share_bytes / sizes.gpu_bytes:.2g}: the {role} server's "
                f"{_gib(one.share_bytes)} hold {_gib(one.weight_bytes)} of weights and a cache of "
                f"{max(one.cache_tokens, 0)} tokens, under one sequence of {needed} "
                f"({_LENGTH_KEYS[role]}). Fix: raise it, or "
                f"{_ROLLOUT_KEYS[role]}.tensor_model_parallel_size, or shorten the sequence"
            )


def node_memory(plan: RunPlan) -> HostMemory | None:
    """What a trainer node needs of its own memory; None without GPUs or shapes."""
    shapes, _ = read_shapes(plan)
    machine = plan.config.get("machine")
    actor = plan.config.actor_rollout_ref
    if machine is None or plan.config.trainer.device == "cpu" or shapes.policy is None:
        return None
    if actor.actor.strategy not in SIZED:
        return None
    asleep = None
    if shapes.refiner is not None and not plan.has_own_pool:
        asleep = (shapes.refiner, int(refiner_rollout(plan).tensor_model_parallel_size))
    data, gpus = plan.config.data, int(plan.config.trainer.n_gpus_per_node)
    workers = actor.rollout.agent.num_workers + plan.config.reward.num_workers
    on_gpus = gpus * (2 if asleep is None else 3)
    on_a_node = -(-workers // int(plan.config.trainer.nnodes))
    return host_memory(
        _tenants(plan, shapes),
        asleep,
        gpus_per_node=gpus,
        processes=GPU_PROCESS_BYTES * on_gpus + PLAIN_PROCESS_BYTES * on_a_node,
        batch_tokens=(
            data.train_batch_size
            * actor.rollout.n
            * (data.max_prompt_length + data.max_response_length)
        ),
        saves=plan.config.trainer.save_freq > 0,
    )


def _tenants(plan: RunPlan, shapes: Shapes) -> dict[str, Tenant]:
    assert shapes.policy is not None
    policy, tied = shapes.policy, shapes.policy.tied
    actor = _sharding(plan, "actor_rollout_ref.actor")
    found = {"actor": Tenant(policy, actor, read_by_each=tied)}
    if plan.forwards_reference:
        reference = _sharding(plan, "actor_rollout_ref.ref")
        found["reference"] = Tenant(policy, reference, trains=False, read_by_each=tied)
    if shapes.critic is not None:
        critic, own = shapes.critic, _sharding(plan, "critic")
        found["critic"] = Tenant(_without_output(critic), own, read_by_each=critic.tied)
    return found


def check_node_memory(plan: RunPlan) -> Iterator[str]:
    """A node's memory holds what waits there, if its size is known."""
    needed = node_memory(plan)
    there = None if needed is None else _node_bytes(plan)
    if needed is not None and there is not None and needed.peak > there[1]:
        parts = ", ".join(f"{name} {_gib(size)}" for name, size in needed.parts.items() if size)
        yield (
            f"{there[0]}: a node would hold up to {_gib(needed.peak)} in its own memory ({parts}). "
            f"Fix: ask for more (--mem=0 takes all of a node), {_less_on_host(plan)}"
        )


def _less_on_host(plan: RunPlan) -> str:
    if plan.is_megatron:
        return "more nodes, or actor_rollout_ref.actor.megatron.optimizer_offload=False"
    return "more nodes, or strategy=fsdp2"


def _node_bytes(plan: RunPlan) -> tuple[str, int] | None:
    """The key and value that say how much memory a node gives, and its bytes."""
    given = plan.config.machine.get("host_memory_gib")
    if given is not None:
        return f"machine.host_memory_gib={given}", int(given * GIB)
    slurm = os.environ.get(SLURM_MEMORY, "")
    if slurm.isdigit() and int(slurm) > 0:
        return f"{SLURM_MEMORY}={slurm}", int(slurm) << 20
    return None


_LENGTH_KEYS = {
    "policy": "actor_rollout_ref.rollout.max_model_len",
    "refiner": "refiner.max_prompt_length and data.max_response_length",
    "reward model": "reward.reward_model.rollout.max_model_len, or else the model's context",
}
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
