"""Does each GPU hold its share by the estimate (`memory.py`), and each server a sequence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.preflight.files_read import model_config
from recipe.online_refiner.preflight.memory import (
    GIB,
    USABLE,
    ModelShape,
    Peaks,
    ServerShare,
    TrainedModel,
    activation_bytes,
    forward_only,
    peaks,
    server,
    trained,
    value_activation_bytes,
)
from recipe.online_refiner.preflight.shapes import (
    SIZED,
    Shapes,
    gib,
    read_shapes,
    sharding_of,
    without_output,
)
from recipe.online_refiner.resolve.refiner_engine import refiner_rollout

LENGTH_KEYS = {
    "policy": "actor_rollout_ref.rollout.max_model_len",
    "refiner": "refiner.max_prompt_length and data.max_response_length",
    "reward model": "reward.reward_model.rollout.max_model_len, or else the model's context",
}
ROLLOUT_KEYS = {
    "policy": "actor_rollout_ref.rollout",
    "refiner": "refiner.rollout",
    "reward model": "reward.reward_model.rollout",
}


SERVER_KEYS = (
    *("name", "dtype", "gpu_memory_utilization", "tensor_model_parallel_size", "engine_kwargs"),
)
"""What is read of a server's rollout config; the whole takes long to copy."""


@dataclass(frozen=True)
class Sizes:
    """What the memory check found; None if the size of the GPUs is not known."""

    gpu_bytes: int
    peaks: Peaks
    servers: dict[str, ServerShare]


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
    apart = roles_apart(plan)
    beside = {role: one for role, one in servers.items() if role not in apart}
    return Sizes(gpu_bytes, peaks(models, activations, beside), servers)


def roles_apart(plan: RunPlan) -> set[str]:
    """The servers on GPUs of their own."""
    return {"reward model"} | ({"refiner"} if plan.has_own_pool else set())


def _models(plan: RunPlan, shapes: Shapes) -> tuple[dict[str, TrainedModel], dict[str, int]]:
    actor = plan.config.actor_rollout_ref.actor
    assert shapes.policy is not None
    sharding = sharding_of(plan, "actor_rollout_ref.actor")
    models = {"actor": trained(shapes.policy, sharding)}
    packed = actor.ppo_max_token_len_per_gpu
    activations = {"actor": activation_bytes(shapes.policy, packed, sharding)}
    if plan.forwards_reference:
        models["reference"] = forward_only(
            shapes.policy, sharding_of(plan, "actor_rollout_ref.ref")
        )
        activations["reference"] = activations["actor"]
    if shapes.critic is not None:
        own, sharding = without_output(shapes.critic), sharding_of(plan, "critic")
        tokens = plan.config.critic.ppo_max_token_len_per_gpu
        models["critic"] = trained(own, sharding)
        activations["critic"] = value_activation_bytes(own, tokens, sharding)
    return models, activations


def served(plan: RunPlan, shapes: Shapes) -> Iterator[tuple[str, ModelShape, DictConfig]]:
    """Role, model and rollout config of each kind of server."""
    if shapes.policy is not None:
        yield "policy", shapes.policy, plan.config.actor_rollout_ref.rollout
    if shapes.refiner is not None:
        yield "refiner", shapes.refiner, refiner_rollout(plan, *SERVER_KEYS)
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
        for role, shape, rollout in served(plan, shapes)
    }


def given_cache_bytes(rollout: DictConfig) -> int | None:
    """The size of the cache on each GPU, if the engine is told it (vLLM)."""
    if OmegaConf.is_missing(rollout, "name") or rollout.name != "vllm":
        return None
    return OmegaConf.select(rollout, "engine_kwargs.vllm.kv_cache_memory_bytes")


def told_sizes(plan: RunPlan) -> dict[str, int]:
    """Bytes on each GPU of the caches whose size is given, by the role of their servers."""
    found = {role: given_cache_bytes(rollout)
             for role, _, rollout in served(plan, read_shapes(plan)[0])}  # fmt: skip
    return {role: size for role, size in found.items() if size is not None}


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
    of = f"of {gib(total)}, {gib(usable)} of which may be planned with"
    offload = _offload_fix(plan)
    told = set(told_sizes(plan))
    if sizes.peaks.rollout > usable and not told - roles_apart(plan):
        yield (
            f"actor_rollout_ref.rollout.gpu_memory_utilization="
            f"{plan.config.actor_rollout_ref.rollout.gpu_memory_utilization}: while rollouts "
            f"are made a GPU would hold {gib(sizes.peaks.rollout)} {of}. Fix: lower "
            f"it or refiner.rollout.gpu_memory_utilization, or {offload}"
        )
    if sizes.peaks.update > usable:
        yield (
            f"actor_rollout_ref.actor.ppo_max_token_len_per_gpu="
            f"{plan.config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu}: an update would "
            f"take {gib(sizes.peaks.update)} {of}. Fix: lower it (and the critic's), "
            f"{offload}, or more GPUs"
        )
    yield from _cache_faults(plan, sizes, told)


def _offload_fix(plan: RunPlan) -> str:
    """What puts more of the states into the machine's memory, or over more GPUs."""
    actor = plan.config.actor_rollout_ref.actor
    if not plan.is_megatron:
        engine = actor.fsdp_config
        waits = engine.param_offload and engine.optimizer_offload
        if not waits:
            return "strategy=fsdp2_offload"
        whole = plan.config.trainer.n_gpus_per_node % 8 == 0
        return "strategy=megatron_tp8" if whole else "GPUs with more memory"
    if actor.megatron.param_offload and actor.megatron.optimizer_offload:
        return "a larger actor_rollout_ref.actor.megatron.tensor_model_parallel_size"
    return (
        "actor_rollout_ref.actor.megatron.param_offload=True and "
        "actor_rollout_ref.actor.megatron.optimizer_offload=True"
    )


def _cache_faults(plan: RunPlan, sizes: Sizes, told: set[str]) -> Iterator[str]:
    """Caches that take a share of the GPU hold a sequence; for the others there is another rule."""
    for role, needed in sequence_lengths(plan).items():
        one = None if role in told else sizes.servers.get(role)
        if one is not None and one.cache_tokens < needed:
            key = f"{ROLLOUT_KEYS[role]}.gpu_memory_utilization"
            yield (
                f"{key}={one.share_bytes / sizes.gpu_bytes:.2g}: the {role} server's "
                f"{gib(one.share_bytes)} hold {gib(one.weight_bytes)} of weights and a cache of "
                f"{max(one.cache_tokens, 0)} tokens, under one sequence of {needed} "
                f"({LENGTH_KEYS[role]}). Fix: raise it, or "
                f"{ROLLOUT_KEYS[role]}.tensor_model_parallel_size, or shorten the sequence"
            )
