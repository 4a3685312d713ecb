"""Rules on how a model is cut: tensor and sequence parallelism divide heads, pipelines layers.

The engines find out when the model is built, on the GPUs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipe.online_refiner.choices import REFINER_POOL, REWARD_POOL
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


@dataclass(frozen=True)
class Cut:
    """Something that is cut by attention heads.

    Attributes:
        key, path: of the number of parts and of the model. parts: how many there are.
        gpus: that the parts have to divide.
    """

    key: str
    path: str
    parts: int
    gpus: int


def check_heads(plan: RunPlan) -> Iterator[str]:
    """Each cut of a model leaves whole attention heads, and an equal part of the wide layer."""
    for cut in _cuts(plan):
        shape = model_shape(cut.path)
        if isinstance(shape, ModelShape):
            yield from _head_faults(cut, shape)


def _cuts(plan: RunPlan) -> Iterator[Cut]:
    """Everything that is cut by heads."""
    config, policy, gpus = plan.config, plan.config.actor_rollout_ref.model.path, plan.trainer_gpus
    roles = {"actor_rollout_ref.actor": policy}
    if plan.has_critic:
        roles["critic"] = config.critic.model.path
    for key, path in roles.items():
        section = OmegaConf.select(config, key)
        yield from (Cut(f"{key}.{name}", path, parts, gpus)
                    for name, parts in _trained_cuts(section))  # fmt: skip
    rollout = config.actor_rollout_ref.rollout
    yield Cut(f"actor_rollout_ref.rollout.{TENSOR}", policy, rollout[TENSOR], gpus)
    if plan.has_refiner_servers:
        own, path = refiner_rollout(plan, *REPLICA_SPLITS), plan.settings.refiner.model_path
        pool = plan.pools.get(REFINER_POOL, gpus)
        yield Cut(f"refiner.rollout.{TENSOR}", path or policy, own[TENSOR], pool)
    reward_model = config.reward.reward_model
    if reward_model.enable and reward_model.model_path:
        parts, pool = reward_model.rollout[TENSOR], plan.pools.get(REWARD_POOL, gpus)
        yield Cut(f"reward.reward_model.rollout.{TENSOR}", reward_model.model_path, parts, pool)


def _trained_cuts(section: DictConfig) -> Iterator[tuple[str, int]]:
    if section.strategy == "megatron" and "megatron" in section:
        yield f"megatron.{TENSOR}", section.megatron[TENSOR]
        return
    if "fsdp_config" in section:  # of the critic only its engine's key is read
        yield ULYSSES, section.get(ULYSSES) or 1
    name = "fsdp_config" if "fsdp_config" in section else "fsdp"
    yield f"{name}.{ULYSSES}", (section.get(name) or {}).get(ULYSSES) or 1


def _head_faults(cut: Cut, shape: ModelShape) -> Iterator[str]:
    heads, key_heads, size = shape.heads, shape.key_heads, cut.parts
    wide = TENSOR in cut.key
    fits = [n for n in range(1, heads + 1) if cut.gpus % n == 0 and _divides(n, shape, wide)]
    fix = f"Fix: {cut.key}={max(n for n in fits if n <= size)}, of {', '.join(map(str, fits))}"
    named = f"{cut.key}={size}: {cut.path!r} has"
    if heads % size:
        yield f"{named} {heads} attention heads, which {size} does not divide. {fix}"
    elif key_heads % size and size % key_heads:
        yield (
            f"{named} {key_heads} key heads, of which {size} is neither a divisor nor a multiple. "
            f"{fix}"
        )
    elif wide and shape.intermediate % size:
        yield (
            f"{named} an intermediate size of {shape.intermediate}, which {size} does not divide. "
            f"{fix}"
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
