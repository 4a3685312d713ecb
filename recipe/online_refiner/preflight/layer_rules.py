"""Rules on how a model is cut: tensor and sequence parallelism divide heads, pipelines layers.

The engines find out when the model is built, on the GPUs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.preflight.files_read import model_shape
from recipe.online_refiner.preflight.gpu_rules import ULYSSES
from recipe.online_refiner.preflight.memory import ModelShape
from recipe.online_refiner.resolve.refiner_engine import refiner_rollout
from refiner_worker.engine import REPLICA_SPLITS

UNEVEN_PIPELINE = (
    "num_layers_in_first_pipeline_stage",
    "num_layers_in_last_pipeline_stage",
    "pipeline_model_parallel_layout",
    "account_for_embedding_in_pipeline_split",
    "account_for_loss_in_pipeline_split",
)
"""Megatron's keys of `override_transformer_config` with which stages need not be equal."""
TENSOR, PIPELINE = "tensor_model_parallel_size", "pipeline_model_parallel_size"


def check_heads(plan: RunPlan) -> Iterator[str]:
    """Each cut of a model leaves whole attention heads, and an equal part of the wide layer."""
    for key, path, size in _cuts(plan):
        shape = model_shape(path)
        if isinstance(shape, ModelShape):
            yield from _head_faults(key, path, shape, size)


def _cuts(plan: RunPlan) -> Iterator[tuple[str, str, int]]:
    """The key, the model and the number of parts of everything that is cut by heads."""
    config, policy = plan.config, plan.config.actor_rollout_ref.model.path
    roles = {"actor_rollout_ref.actor": policy}
    if plan.has_critic:
        roles["critic"] = config.critic.model.path
    for key, path in roles.items():
        section = OmegaConf.select(config, key)
        yield from ((f"{key}.{name}", path, size) for name, size in _trained_cuts(section))
    rollout = config.actor_rollout_ref.rollout
    yield f"actor_rollout_ref.rollout.{TENSOR}", policy, rollout[TENSOR]
    if plan.has_refiner_servers:
        own = refiner_rollout(plan, *REPLICA_SPLITS)
        yield f"refiner.rollout.{TENSOR}", plan.settings.refiner.model_path or policy, own[TENSOR]
    reward_model = config.reward.reward_model
    if reward_model.enable and reward_model.model_path:
        cut = reward_model.rollout[TENSOR]
        yield f"reward.reward_model.rollout.{TENSOR}", reward_model.model_path, cut


def _trained_cuts(section: DictConfig) -> Iterator[tuple[str, int]]:
    if section.strategy == "megatron" and "megatron" in section:
        yield f"megatron.{TENSOR}", section.megatron[TENSOR]
        return
    if "fsdp_config" in section:  # of the critic only its engine's key is read
        yield ULYSSES, section.get(ULYSSES) or 1
    name = "fsdp_config" if "fsdp_config" in section else "fsdp"
    yield f"{name}.{ULYSSES}", (section.get(name) or {}).get(ULYSSES) or 1


def _head_faults(key: str, path: str, shape: ModelShape, size: int) -> Iterator[str]:
    heads, key_heads = shape.heads, shape.key_heads
    fits = [n for n in range(1, heads + 1) if _divides(n, shape, wide=TENSOR in key)]
    fix = f"Fix: {key}={max(n for n in fits if n <= size)}, of {', '.join(map(str, fits))}"
    if heads % size:
        yield (
            f"{key}={size}: {path!r} has {heads} attention heads, which {size} does not divide. "
            f"{fix}"
        )
    elif key_heads % size and size % key_heads:
        yield (
            f"{key}={size}: {path!r} has {key_heads} key heads, of which {size} is neither a "
            f"divisor nor a multiple. {fix}"
        )
    elif TENSOR in key and shape.intermediate % size:
        yield (
            f"{key}={size}: {path!r} has an intermediate size of {shape.intermediate}, which "
            f"{size} does not divide. {fix}"
        )


def _divides(size: int, shape: ModelShape, wide: bool) -> bool:
    keys = shape.key_heads % size == 0 or size % shape.key_heads == 0
    return shape.heads % size == 0 and keys and not (wide and shape.intermediate % size)


def check_layers(plan: RunPlan) -> Iterator[str]:
    """Megatron's pipeline stages have equally many layers, unless told which have how many."""
    if not plan.is_megatron:
        return
    models = {"actor_rollout_ref.actor": plan.config.actor_rollout_ref.model.path}
    if plan.has_critic:
        models["critic"] = plan.config.critic.model.path
    for key, path in models.items():
        section, shape = OmegaConf.select(plan.config, f"{key}.megatron"), model_shape(path)
        if section is not None and isinstance(shape, ModelShape):
            yield from _layer_faults(f"{key}.megatron", section, path, shape.layers)


def _layer_faults(key: str, section: Mapping[str, Any], path: str, layers: int) -> Iterator[str]:
    overridden = section.get("override_transformer_config") or {}
    if any(overridden.get(name) for name in UNEVEN_PIPELINE):
        return
    stages = section[PIPELINE] * (section.get(f"virtual_{PIPELINE}") or 1)
    if layers % stages:
        fits = ", ".join(str(n) for n in range(1, layers + 1) if layers % n == 0)
        yield (
            f"{key}.{PIPELINE}={section[PIPELINE]}: {path!r} has {layers} layers, which {stages} "
            f"stages do not share evenly. Fix: one of {fits}, or "
            f"{key}.override_transformer_config.{UNEVEN_PIPELINE[0]}"
        )
