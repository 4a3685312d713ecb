"""How much of a node's own memory a run needs: what waits there for a GPU, and what is made there.

An estimate (ours); the legend is that of `memory.py`, and g are the trainer's GPUs on a node.

    offloaded, FSDP       g·4·P/W weights, g·8·P/W Adam
    offloaded, Megatron   g·2·s/t weights (each node has all of them), g·12·P/W Adam and master
    refiner asleep        g·2·P/TP: vLLM keeps its weights on the host; the policy's are discarded
    rows of a step        64 bytes a token, twice: in the queue, and on their way
    processes             3 GiB for each that uses a GPU, 1 GiB for each other worker
    start                 FSDP reads whole models in float32: 4·P in one process, or 4·P in each if
                          input and output embeddings are tied
    a checkpoint          12·P/W·g more while it is written

A start and a checkpoint do not fall together; the larger counts. Programs that the judge runs, the
page cache and Ray's object store (a third of the memory unless it is set) come on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from recipe.online_refiner.preflight.memory import GIB, ModelShape, Sharding, stage_parameters

ROW_BYTES_PER_TOKEN = 2 * 64
PLAIN_PROCESS_BYTES = GIB
"""A worker's imports."""
GPU_PROCESS_BYTES = 3 * GIB
"""The same, and CUDA's part on the host."""


@dataclass(frozen=True)
class Tenant:
    """A model on the trainer's GPUs that may wait in the nodes' memory.

    `read_by_each`: each process reads the whole model at the start, since its embeddings are tied.
    """

    shape: ModelShape
    sharding: Sharding
    trains: bool = True
    read_by_each: bool = False


@dataclass(frozen=True)
class HostMemory:
    """Bytes of a node: what is there throughout, by name, and what comes on top at times."""

    parts: dict[str, int]
    start: int
    checkpoint: int

    @property
    def steady(self) -> int:
        return sum(self.parts.values())

    @property
    def peak(self) -> int:
        return self.steady + max(self.start, self.checkpoint)


def host_memory(
    tenants: Mapping[str, Tenant],
    asleep: tuple[ModelShape, int] | None,
    *,
    gpus_per_node: int,
    processes: int,
    batch_tokens: int,
    saves: bool,
) -> HostMemory:
    """Of one node of the trainer's.

    Args:
        asleep: the refiner beside the policy, and the GPUs of one of its servers; None if it has
            none there.
        processes: bytes of all processes on the node.
        batch_tokens: of a step's rows, prompts and responses at their longest.
        saves: whether checkpoints are written.
    """
    parts = {role: waiting_bytes(one, gpus_per_node) for role, one in tenants.items()}
    if asleep is not None:
        shape, tensor_parallel = asleep
        parts["refiner asleep"] = 2 * shape.parameters * gpus_per_node // tensor_parallel
    parts["rows"] = ROW_BYTES_PER_TOKEN * batch_tokens
    parts["processes"] = processes
    start = max(loading_bytes(one, gpus_per_node) for one in tenants.values())
    saved = [12 * t.shape.parameters * gpus_per_node // t.sharding.gpus
             for t in tenants.values() if t.trains]  # fmt: skip
    return HostMemory(parts, start, max(saved, default=0) if saves else 0)


def waiting_bytes(tenant: Tenant, gpus_per_node: int) -> int:
    """What a model puts there while its GPUs do something else."""
    shape, sharding = tenant.shape, tenant.sharding
    total = 0
    if sharding.offloads_weights:
        if sharding.megatron:
            total += 2 * stage_parameters(shape, sharding) // sharding.tensor_parallel
        else:
            total += 4 * shape.parameters // sharding.gpus
    if sharding.offloads_optimizer and tenant.trains:
        total += (12 if sharding.megatron else 8) * shape.parameters // sharding.gpus
    return total * gpus_per_node


def loading_bytes(tenant: Tenant, gpus_per_node: int) -> int:
    """What reading the model takes at the start. Megatron reads it in pieces."""
    if tenant.sharding.megatron:
        return 0
    return 4 * tenant.shape.parameters * (gpus_per_node if tenant.read_by_each else 1)
