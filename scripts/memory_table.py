"""Write docs/memory.md: what models of three sizes take, on GPUs and on their nodes.

    python scripts/memory_table.py

The arithmetic is in `recipe/online_refiner/preflight/memory.py` and `host.py`; the preflight does
it for any configuration.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REPO_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO_ROOT))

from recipe.online_refiner.preflight.host import (  # noqa: E402
    GPU_PROCESS_BYTES,
    PLAIN_PROCESS_BYTES,
    HostMemory,
    Tenant,
    host_memory,
)
from recipe.online_refiner.preflight.memory import (  # noqa: E402
    GIB,
    PROCESS_BYTES,
    ModelShape,
    Sharding,
    TrainedModel,
    activation_bytes,
    forward_only,
    peaks,
    server,
    trained,
)

PAGE = REPO_ROOT / "docs" / "memory.md"
# hidden, layers, intermediate, queries' width, keys' width, vocabulary, tied: of the config.json.
MODELS = {
    "1.5B": ModelShape(1536, 28, 8960, 1536, 256, 151936, True, 12, 2),
    "7B": ModelShape(3584, 28, 18944, 3584, 512, 152064, False, 28, 4),
    "32B": ModelShape(5120, 64, 27648, 5120, 1024, 152064, False, 40, 8),
}
"""Qwen2.5's sizes."""
TRACKED_RANKS = 8


@dataclass(frozen=True)
class Tracked:
    """A model whose update on eight ranks PyTorch's tracker of allocations has followed.

    Attributes:
        tokens: of a micro-batch. peak: bytes that were found
            (tests/integration/test_memory_measured.py).
    """

    shape: ModelShape
    tokens: int
    peak: int

    @property
    def sharding(self) -> Sharding:
        return Sharding(gpus=TRACKED_RANKS)

    @property
    def estimate(self) -> int:
        """Bytes by the formulas."""
        states = trained(self.shape, self.sharding).in_use
        return states + activation_bytes(self.shape, self.tokens, self.sharding)


TRACKED = Tracked(ModelShape(256, 6, 1024, 256, 128, 4096, False, 8, 4), 512, 37_502_256)
WORKERS = 16
"""Agent loops and reward workers of a run, spread over the nodes."""


@dataclass(frozen=True)
class Setup:
    """A model on GPUs, trained by DAPO with a reference and a refiner beside the policy.

    Attributes:
        tokens: T. gpu_gib: size of a GPU. gpus_per_node: of the trainer's.
        server_gpus: GPUs of one server. rows: tokens of a step's rows at their longest.
    """

    name: str
    model: str
    sharding: Sharding
    tokens: int
    gpu_gib: int
    gpus_per_node: int
    server_gpus: int
    rows: int

    @property
    def shape(self) -> ModelShape:
        return MODELS[self.model]

    @property
    def actor(self) -> TrainedModel:
        return trained(self.shape, self.sharding)

    @property
    def activations(self) -> int:
        return activation_bytes(self.shape, self.tokens, self.sharding)

    @property
    def reference(self) -> Sharding:
        """It waits on the host in every strategy."""
        own = self.sharding
        return Sharding(own.gpus, own.megatron, own.tensor_parallel, own.pipeline_parallel,
                        offloads_weights=True)  # fmt: skip

    def peak(self, phase: str) -> int:
        """Of a GPU, by the preflight's sum."""
        models = {"actor": self.actor, "reference": forward_only(self.shape, self.reference)}
        beside = {
            role: server(self.shape, self.gpu_gib * GIB, share, self.server_gpus)
            for role, share in (("policy", 0.4), ("refiner", 0.3))
        }
        found = peaks(models, dict.fromkeys(models, self.activations), beside)
        return found.update if phase == "update" else found.rollout

    @property
    def host(self) -> HostMemory:
        tied = self.shape.tied
        nodes = self.sharding.gpus // self.gpus_per_node
        return host_memory(
            {
                "actor": Tenant(self.shape, self.sharding, read_by_each=tied),
                "reference": Tenant(self.shape, self.reference, trains=False, read_by_each=tied),
            },
            (self.shape, self.server_gpus),
            gpus_per_node=self.gpus_per_node,
            processes=3 * self.gpus_per_node * GPU_PROCESS_BYTES
            + -(-WORKERS // nodes) * PLAIN_PROCESS_BYTES,
            batch_tokens=self.rows,
            saves=True,
        )


def offloaded(gpus: int, tensor_parallel: int = 0) -> Sharding:
    """FSDP2, or Megatron with sequence parallelism; states in the nodes' memory."""
    megatron = tensor_parallel > 0
    return Sharding(gpus, megatron, max(1, tensor_parallel), sequence_parallel=megatron,
                    offloads_weights=True, offloads_optimizer=True)  # fmt: skip


SMALL_ROWS, LARGE_ROWS = 64 * 8 * 2048, 512 * 16 * 6144
SETUPS = (
    Setup("FSDP2, offloaded, 4 × 48 GB", "1.5B", offloaded(4), 8192, 47, 4, 1, SMALL_ROWS),
    Setup("FSDP2, 8 × 80 GB", "7B", Sharding(8), 16384, 79, 8, 1, LARGE_ROWS),
    Setup("Megatron, tensor 2, 16 × 80 GB", "7B", offloaded(16, 2), 16384, 79, 8, 1, LARGE_ROWS),
    Setup("FSDP2, offloaded, 32 × 80 GB", "32B", offloaded(32), 16384, 79, 8, 4, LARGE_ROWS),
    Setup("Megatron, tensor 8, 32 × 80 GB", "32B", offloaded(32, 8), 16384, 79, 8, 4, LARGE_ROWS),
)
ON_A_GPU: dict[str, Callable[[Setup], int]] = {
    "weights": lambda s: s.actor.weights,
    "gradients": lambda s: s.actor.gradients,
    "optimizer": lambda s: s.actor.optimizer,
    "gathered layers and output layer": lambda s: s.actor.gathered,
    "activations and logits": lambda s: s.activations,
    "three processes": lambda s: 3 * PROCESS_BYTES,
    "**during an update**": lambda s: s.peak("update"),
    "**while rollouts are made**": lambda s: s.peak("rollout"),
}
ON_A_NODE: dict[str, Callable[[Setup], int]] = {
    "actor, waiting": lambda s: s.host.parts["actor"],
    "reference, waiting": lambda s: s.host.parts["reference"],
    "refiner, asleep": lambda s: s.host.parts["refiner asleep"],
    "a step's rows": lambda s: s.host.parts["rows"],
    "processes": lambda s: s.host.parts["processes"],
    "more at the start": lambda s: s.host.start,
    "more while a checkpoint is written": lambda s: s.host.checkpoint,
    "**at most**": lambda s: s.host.peak,
}

HEAD = f"""# How much memory a run needs

Estimates from first principles, not measurements:
[memory.py](../recipe/online_refiner/preflight/memory.py) and
[host.py](../recipe/online_refiner/preflight/host.py) are the arithmetic, and the preflight does
it for any configuration. Written by `python scripts/memory_table.py`.

**A GPU.** P parameters, l of one layer, V vocabulary, h hidden size, L layers, W GPUs that train,
t tensor-parallel GPUs, T packed tokens (`ppo_max_token_len_per_gpu`).

- FSDP2 keeps 16·P/W bytes: float32 weights 4, gradients 4, Adam's two moments 8. While a layer
  works it is gathered in 16 bits, 2·l, and the next one with it; in the backward pass its
  gradient is whole, too, in 16 bits and in the 32 of the reduction: 10·l in all. The output layer
  is gathered in the same way (8·V·h).
- Megatron keeps 6·P/t (weights in 16 bits, gradients in 32) and 12·P/W (master weights, Adam); of
  a pipeline the largest stage counts.
- A micro-batch takes 2·T·h·L for the inputs of the layers, which are computed again, 2·T·(10·h +
  4·intermediate) for the layer at work, and 8·T·V for the logits (16 bits, their gradient, a
  float32 copy). Under Megatron the logits are split over t, and with sequence parallelism the
  others, too, but for one gathered layer, 4·T·h.
- A server's share (`gpu_memory_utilization`) holds 2·P/TP of weights and the cache. Servers sleep
  during an update.
- A twentieth of a GPU is left to fragmentation.

**A node.** What is offloaded waits in its memory: g·12·P/W of FSDP's for g GPUs of a node,
g·12·P/W and g·2·P/t of Megatron's, since each node has all weights. vLLM puts a sleeping
refiner's weights there (g·2·P/TP); the policy's are discarded. At the start FSDP reads a model in
float32, 4·P in one process, or in every process if its embeddings are tied. The judge's programs,
Ray's object store and the page cache come on top.

**Measured without a GPU.** PyTorch's own tracker of allocations, on FSDP2 with {TRACKED_RANKS}
ranks on the CPU ([test](../tests/integration/test_memory_measured.py)): weights and Adam's moments
of a model of {TRACKED.shape.parameters / 1e6:.0f} million parameters are the formula's to a
thousandth, and the peak of an update is {TRACKED.peak / 1e6:.1f} MB of an estimated
{TRACKED.estimate / 1e6:.1f}. Here the estimate is too high: it adds up gathered layers, the output
layer's gradient and the logits, which are not all there at once, and they are most of so small a
model. It is no bound, as the GPU shows.

**Measured on a GPU**, once ([gpu.md](gpu.md#on-an-h200)): 1.33 billion parameters on one H200,
FSDP2 with offloading, PyTorch's attention in place of flash-attn. PyTorch allocated at most 24.9
GiB in the actor's process (verl's `perf/max_memory_allocated_gb`), counted from its start. The
estimate of an update is 25.1 GiB, of which 1.8 are three processes' own, so that 23.3 stand against
24.9: there it is 6 % low, within the twentieth of a GPU that is left free. What a GPU held while
rollouts were made (estimated: 98.9 GiB) was not recorded.

"""


def document() -> str:
    """The whole page."""
    return HEAD + "\n".join(
        [
            "## GiB on a GPU",
            "",
            *_table(ON_A_GPU),
            "",
            "Servers: 0.4 of a GPU the policy's, 0.3 the refiner's. T is 8,192 on 48 GB and 16,384 "
            "on 80 GB.",
            "",
            "## GiB on a node",
            "",
            *_table(ON_A_NODE),
            "",
            "64 × 8 rollouts of 2,048 tokens, or 512 × 16 of 6,144. A start and a checkpoint do "
            "not fall together.",
            "",
        ]
    )


def _table(rows: dict[str, Callable[[Setup], int]]) -> list[str]:
    heads = [f"{one.model}, {one.name}" for one in SETUPS]
    lines = [f"| | {' | '.join(heads)} |", "|---|" + "---|" * len(SETUPS)]
    for name, size in rows.items():
        cells = [f"{size(one) / GIB:.1f}" for one in SETUPS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    PAGE.write_text(document())
