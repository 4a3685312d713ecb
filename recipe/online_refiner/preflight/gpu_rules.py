"""Rules on GPUs: pools against the machine's nodes, and what must divide what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf

from recipe.online_refiner.choices import ACTOR_POOL, REFINER_POOL, REWARD_POOL
from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.preflight.shapes import read_shapes
from recipe.online_refiner.resolve.refiner_engine import refiner_rollout
from refiner_worker.engine import REPLICA_SPLITS, replica_gpus

ULYSSES = "ulysses_sequence_parallel_size"
POOL_KEYS = {
    ACTOR_POOL: ("trainer.n_gpus_per_node", "trainer.nnodes"),
    REWARD_POOL: ("reward.reward_model.n_gpus_per_node", "reward.reward_model.nnodes"),
    REFINER_POOL: ("refiner.pool.n_gpus_per_node", "refiner.pool.nnodes"),
}
"""The keys of each pool: GPUs on a node, and nodes."""


def sequence_split(plan: RunPlan, key: str = "actor_rollout_ref.actor") -> int:
    """GPUs that share the tokens of one row: the factor on verl's token limits for one GPU.

    Args:
        key: of the model that is trained, `actor_rollout_ref.actor` or `critic`.
    """
    section = OmegaConf.select(plan.config, key)
    if plan.is_megatron:
        return int(section.megatron.context_parallel_size)
    # verl hands this key of the actor's to the engine, and not the critic's.
    own = 1 if key == "critic" else int(section.get(ULYSSES) or 1)
    engine = section.get("fsdp_config") or section.get("fsdp") or {}
    return own if own > 1 else int(engine.get(ULYSSES) or 1)


def split_of(plan: RunPlan, key: str = "actor_rollout_ref.actor") -> int:
    """GPUs that share one copy of a trained model's work: they see the same rows."""
    if not plan.is_megatron:
        return sequence_split(plan, key)
    section = OmegaConf.select(plan.config, key).megatron
    layers = section.tensor_model_parallel_size * section.pipeline_model_parallel_size
    return int(layers) * sequence_split(plan, key)


def nodes_needed(pools: Mapping[str, tuple[int, int]], gpus_per_node: int) -> int:
    """Nodes on which the pools fit, each pool's GPUs of a node on one; the largest first."""
    free: list[int] = []
    shares = sorted((gpus for nodes, gpus in pools.values() for _ in range(nodes)), reverse=True)
    for gpus in shares:
        place = next((i for i, left in enumerate(free) if left >= gpus), None)
        if place is None:
            free.append(gpus_per_node - gpus)
        else:
            free[place] -= gpus
    return len(free)


def check_gpus(plan: RunPlan) -> Iterator[str]:
    """The pools fit on the machine's nodes, and each of them is used."""
    yield from _check_reward_pool(plan)
    machine = plan.config.get("machine")
    if machine is None or plan.config.trainer.device == "cpu":
        return
    there, nodes = int(machine.gpus_per_node), int(machine.nodes)
    wide = [name for name, (_, gpus) in plan.pool_nodes.items() if gpus > there]
    for name in wide:
        yield _too_wide(plan, name, there)
    needed = nodes_needed(plan.pool_nodes, there)
    if not wide and needed > nodes:
        named = ", ".join(f"{name} {count}" for name, count in plan.pools.items())
        total = sum(plan.pools.values())
        keys = " or ".join(POOL_KEYS[name][0] for name in plan.pools)
        yield (
            f"machine.nodes={nodes}: the pools want {total} GPUs ({named}), each pool's part of a "
            f"node on one, and {nodes} nodes of {there} do not hold them. Fix: "
            f"machine.nodes={needed} and a job of {needed} nodes, or lower {keys}"
        )


def _too_wide(plan: RunPlan, name: str, there: int) -> str:
    """One pool asks a node for more than it has; Ray would wait for such a node for ever."""
    nodes, gpus = plan.pool_nodes[name]
    on_a_node, on_nodes = POOL_KEYS[name]
    spread = -(-nodes * gpus // there)
    return (
        f"{on_a_node}={gpus}: {name} asks for {gpus} GPUs on each of its nodes, which have {there} "
        f"(machine.gpus_per_node). Fix: {on_a_node}={there} {on_nodes}={spread}"
    )


def _check_reward_pool(plan: RunPlan) -> Iterator[str]:
    section = plan.config.reward.reward_model
    if section.enable_resource_pool and not section.enable:
        yield (
            f"reward.reward_model.enable_resource_pool=True: verl reserves "
            f"{section.n_gpus_per_node * section.nnodes} GPUs for a reward model, and "
            "reward.reward_model.enable=False has none. Fix: a hardware group without "
            "_reward_model, or reward.reward_model.enable_resource_pool=False"
        )
    for key in ("n_gpus_per_node", "nnodes"):
        if section.enable_resource_pool and section[key] < 1:
            yield (
                f"reward.reward_model.{key}={section[key]}: the reward model's pool would be "
                f"empty. Fix: reward.reward_model.{key}=1 or more"
            )


def check_splits(plan: RunPlan) -> Iterator[str]:
    """Copies of a model divide the GPUs of their pool."""
    gpus = plan.trainer_gpus
    yield from _check_copies(plan, split_of(plan))
    yield from _check_ulysses(plan)
    yield from _check_fsdp_size(plan)
    yield from check_replica(
        "actor_rollout_ref.rollout", plan.config.actor_rollout_ref.rollout, gpus, "the trainer"
    )
    if plan.has_refiner_servers:
        of = plan.pools
        pool = of.get(REFINER_POOL, of[ACTOR_POOL])
        rollout = refiner_rollout(plan, *REPLICA_SPLITS)
        yield from check_replica("refiner.rollout", rollout, pool, "the refiner's pool")


def _check_copies(plan: RunPlan, split: int) -> Iterator[str]:
    """Whole copies of the actor train; a smaller cut is offered that its heads allow."""
    if plan.trainer_gpus % split == 0:
        return
    key, shape = _split_key(plan), read_shapes(plan)[0].policy
    cut = int(OmegaConf.select(plan.config, key))
    fits = [
        parts
        for parts in range(1, cut)
        if plan.trainer_gpus % (split // cut * parts) == 0
        and (shape is None or shape.heads % parts == 0)
    ]
    fix = f"{key}={fits[-1]}" if fits else "fewer parts"
    yield (
        f"{key}={cut}: {split} GPUs share one copy of the actor, which does not divide the "
        f"trainer's {plan.trainer_gpus}. Fix: {fix}, or another number of GPUs"
    )


def _split_key(plan: RunPlan) -> str:
    """The key by which a copy of the actor is split first."""
    actor = "actor_rollout_ref.actor"
    if plan.is_megatron:
        return f"{actor}.megatron.tensor_model_parallel_size"
    own = OmegaConf.select(plan.config, f"{actor}.{ULYSSES}") or 1
    return f"{actor}.{ULYSSES}" if own > 1 else f"{actor}.fsdp_config.{ULYSSES}"


def _check_ulysses(plan: RunPlan) -> Iterator[str]:
    """Rows are shared out among GPUs only if they are packed, and the critic's by its engine."""
    if plan.is_megatron:
        return
    model = plan.config.actor_rollout_ref.model
    if sequence_split(plan) > 1 and not model.use_remove_padding:
        yield (
            f"{_split_key(plan)}={sequence_split(plan)}: rows are shared among GPUs "
            "only if they are packed. Fix: actor_rollout_ref.model.use_remove_padding=True"
        )
    critic = plan.config.critic
    asked = int(critic.get(ULYSSES) or 1)
    if plan.has_critic and asked > 1 and asked != sequence_split(plan, "critic"):
        yield (
            f"critic.{ULYSSES}={asked}: verl hands it to no engine. Fix: critic.fsdp.{ULYSSES}="
            f"{asked}, and critic.{ULYSSES}=1"
        )


def _check_fsdp_size(plan: RunPlan) -> Iterator[str]:
    """Groups of GPUs that share the states have one size."""
    keys = ["actor_rollout_ref.actor.fsdp_config", "actor_rollout_ref.ref.fsdp_config"]
    keys += ["critic.fsdp"] if plan.has_critic else []
    for key in () if plan.is_megatron else keys:
        size = OmegaConf.select(plan.config, f"{key}.fsdp_size")
        whole = size is None or size < 0 or size >= plan.trainer_gpus
        if not whole and (size == 0 or plan.trainer_gpus % size):
            yield (
                f"{key}.fsdp_size={size}: it does not divide the trainer's {plan.trainer_gpus} "
                f"GPUs. Fix: {key}.fsdp_size=-1 for all of them, or a divisor"
            )


def check_replica(key: str, rollout: Any, gpus: int, whose: str) -> Iterator[str]:
    """The servers of one rollout section share their pool's GPUs out evenly."""
    stages = rollout.pipeline_model_parallel_size
    if stages > 1:
        yield (
            f"{key}.pipeline_model_parallel_size={stages}: verl's servers split no model into "
            f"stages. Fix: {key}.pipeline_model_parallel_size=1"
        )
        return
    size = replica_gpus(rollout)
    if gpus >= 1 and gpus % size:
        yield (
            f"{key}.tensor_model_parallel_size={rollout.tensor_model_parallel_size}: a server of "
            f"{size} GPUs does not divide the {gpus} of {whose}. Fix: {key}."
            f"tensor_model_parallel_size=1, or a divisor of {gpus}"
        )
