"""Rules on GPUs: pools against the machine, and what must divide what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from recipe.online_refiner.choices import ACTOR_POOL, REFINER_POOL
from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.servers.refiner_engine import refiner_rollout
from refiner_worker.engine import REPLICA_SPLITS, replica_gpus


def split_of(plan: RunPlan) -> int:
    """GPUs that share one copy of the actor's work: they see the same rows."""
    actor = plan.config.actor_rollout_ref.actor
    if plan.is_megatron:
        section = actor.megatron
        return int(
            section.tensor_model_parallel_size
            * section.pipeline_model_parallel_size
            * section.context_parallel_size
        )
    return int(actor.get("ulysses_sequence_parallel_size") or 1)


def check_gpus(plan: RunPlan) -> Iterator[str]:
    """The pools have no more GPUs than the machine."""
    machine = plan.config.get("machine")
    if machine is None or plan.config.trainer.device == "cpu":
        return
    wanted = plan.pools
    there = int(machine.gpus_per_node) * int(machine.nodes)
    if sum(wanted.values()) > there:
        named = ", ".join(f"{name} {count}" for name, count in wanted.items())
        yield (
            f"trainer.n_gpus_per_node={plan.config.trainer.n_gpus_per_node}: the pools want "
            f"{sum(wanted.values())} GPUs ({named}), and the machine has {there}. Fix: lower it, "
            "or take a hardware=*_reward_model group if a reward model is served"
        )


def check_splits(plan: RunPlan) -> Iterator[str]:
    """Copies of a model divide the GPUs of their pool."""
    gpus, split = plan.trainer_gpus, split_of(plan)
    if gpus % split:
        key = (
            "actor_rollout_ref.actor.megatron.tensor_model_parallel_size"
            if plan.is_megatron
            else "actor_rollout_ref.actor.ulysses_sequence_parallel_size"
        )
        yield (
            f"{key}: {split} GPUs share one copy of the actor, which does not divide the "
            f"trainer's {gpus}. Fix: a divisor of {gpus}, or trainer.nnodes={split}"
        )
    yield from _check_replica(
        "actor_rollout_ref.rollout", plan.config.actor_rollout_ref.rollout, gpus, "the trainer"
    )
    if plan.has_refiner_servers:
        of = plan.pools
        pool = of.get(REFINER_POOL, of[ACTOR_POOL])
        rollout = refiner_rollout(plan, *REPLICA_SPLITS)
        yield from _check_replica("refiner.rollout", rollout, pool, "the refiner's pool")


def _check_replica(key: str, rollout: Any, gpus: int, whose: str) -> Iterator[str]:
    size = replica_gpus(rollout)
    if gpus % size:
        yield (
            f"{key}.tensor_model_parallel_size={rollout.tensor_model_parallel_size}: a server of "
            f"{size} GPUs does not divide the {gpus} of {whose}. Fix: {key}."
            f"tensor_model_parallel_size=1, or a divisor of {gpus}"
        )
