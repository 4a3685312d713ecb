"""Does a node's own memory hold what a run keeps there. The formulas are in `host.py`."""

from __future__ import annotations

import os
from collections.abc import Iterator

from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.preflight.host import (
    GPU_PROCESS_BYTES,
    PLAIN_PROCESS_BYTES,
    HostMemory,
    Tenant,
    host_memory,
)
from recipe.online_refiner.preflight.memory import GIB
from recipe.online_refiner.preflight.shapes import (
    SIZED,
    Shapes,
    gib,
    read_shapes,
    sharding_of,
    without_output,
)
from recipe.online_refiner.resolve.refiner_engine import refiner_rollout

SLURM_MEMORY = "SLURM_MEM_PER_NODE"
"""MiB of a node that SLURM gives a job, if it was asked for a number."""


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
        own = refiner_rollout(plan, "tensor_model_parallel_size")
        asleep = (shapes.refiner, int(own.tensor_model_parallel_size))
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
    actor = sharding_of(plan, "actor_rollout_ref.actor")
    found = {"actor": Tenant(policy, actor, read_by_each=tied)}
    if plan.forwards_reference:
        reference = sharding_of(plan, "actor_rollout_ref.ref")
        found["reference"] = Tenant(policy, reference, trains=False, read_by_each=tied)
    if shapes.critic is not None:
        critic, own = shapes.critic, sharding_of(plan, "critic")
        found["critic"] = Tenant(without_output(critic), own, read_by_each=critic.tied)
    return found


def check_node_memory(plan: RunPlan) -> Iterator[str]:
    """A node's memory holds what waits there, if its size is known."""
    needed = node_memory(plan)
    there = None if needed is None else _node_bytes(plan)
    if needed is not None and there is not None and needed.peak > there[1]:
        parts = ", ".join(f"{name} {gib(size)}" for name, size in needed.parts.items() if size)
        yield (
            f"{there[0]}: a node would hold up to {gib(needed.peak)} in its own memory ({parts}). "
            f"Fix: ask for more (--mem=0 takes all of a node), {_less_on_host(plan)}"
        )


def _less_on_host(plan: RunPlan) -> str:
    if plan.is_megatron:
        return "more nodes, or less offloading (actor_rollout_ref.actor.megatron.optimizer_offload)"
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
