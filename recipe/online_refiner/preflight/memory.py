"""How much GPU memory a run needs, from the model's config.json and the settings alone.

An estimate (ours) to refuse what cannot fit before a queue is waited for; real use depends on
kernels and fragmentation, for which `USABLE` leaves room. docs/memory.md has the numbers for three
sizes. Legend: P parameters, l of one layer, V vocabulary, h hidden size, L layers, W trainer GPUs,
t tensor-parallel GPUs of Megatron, s parameters of its largest pipeline stage, T tokens packed into
one micro-batch.

    P           = V·h·(1 if tied else 2) + L·l + h,  l = h·(2·q + 2·kv) + 3·h·intermediate + 2·h
    FSDP, float32 master weights:     4·P/W weights, 4·P/W gradients, 8·P/W Adam
      gathered while a layer works:   2·l and the next one's 2·l, its gradient in 16 bits 2·l and
                                      in 32 bits for the reduction 4·l; and 8·V·h for the output
    Megatron, distributed optimizer:  2·s/t weights, 4·s/t gradients, 12·P/W Adam and master
    activations, layers recomputed:   2·T·h·L + 2·T·(10·h + 4·intermediate) + 8·T·V / t
      with sequence parallelism:      the first two over t, and 4·T·h of one gathered layer
    a server:                         gpu_memory_utilization of the GPU, in which 2·P/TP weights
                                      and the cache (2·2·L·kv bytes a token, over TP) must fit

with q and kv the widths of queries and of keys; 8·T·V are 16-bit logits, their gradient, and a
float32 copy. What is offloaded counts only while it is in use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GIB = 1024**3
PROCESS_BYTES = int(0.6 * GIB)
"""The CUDA context and communication buffers of one process on one GPU."""
SERVER_WORKSPACE_BYTES = 2 * GIB
"""Of a server's share: activations of a prefill chunk and captured graphs."""
LOGIT_BYTES = 8
USABLE = 0.95
"""Share of a GPU that may be planned with: allocators leave holes between their blocks."""


@dataclass(frozen=True)
class ModelShape:
    """What of a decoder's config decides its size."""

    hidden: int
    layers: int
    intermediate: int
    query_width: int
    key_width: int
    vocabulary: int
    tied: bool
    heads: int = 1
    key_heads: int = 1

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelShape:
        """From a Hugging Face config.json. Raises KeyError naming what a decoder's would have."""
        heads = config["num_attention_heads"]
        head = config.get("head_dim") or config["hidden_size"] // heads
        key_heads = config.get("num_key_value_heads") or heads
        return cls(
            hidden=config["hidden_size"],
            layers=config["num_hidden_layers"],
            intermediate=config["intermediate_size"],
            query_width=heads * head,
            key_width=key_heads * head,
            vocabulary=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", False)),
            heads=heads,
            key_heads=key_heads,
        )

    @property
    def parameters(self) -> int:
        """P; biases are left out."""
        embeddings = self.output_parameters * (1 if self.tied else 2)
        return embeddings + self.layers * self.layer_parameters + self.hidden

    @property
    def layer_parameters(self) -> int:
        """Of one layer: attention, the gated feed-forward, two norms."""
        attention = self.hidden * (2 * self.query_width + 2 * self.key_width)
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def output_parameters(self) -> int:
        """Of the output layer, and of the embedding."""
        return self.vocabulary * self.hidden

    @property
    def cache_bytes_per_token(self) -> int:
        """Keys and values of all layers in 16 bits."""
        return 2 * 2 * self.layers * self.key_width


@dataclass(frozen=True)
class Sharding:
    """How a trained model is spread, and what of it waits in the machine's memory.

    `recomputes`: layers are computed again in the backward pass, so that only their inputs stay.
    """

    gpus: int
    megatron: bool = False
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    sequence_parallel: bool = False
    recomputes: bool = True
    offloads_weights: bool = False
    offloads_optimizer: bool = False


@dataclass(frozen=True)
class TrainedModel:
    """Bytes a GPU of one model that is trained, or of a reference (no gradients, no optimizer)."""

    weights: int
    gradients: int
    optimizer: int
    resident: int
    """What stays on the GPU while the model is not in use."""
    gathered: int = 0
    """What FSDP gathers of other GPUs' shards at a time."""

    @property
    def in_use(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.gathered


def trained(shape: ModelShape, sharding: Sharding) -> TrainedModel:
    """An actor or a critic."""
    gathered = 0
    if sharding.megatron:
        part = stage_parameters(shape, sharding) // sharding.tensor_parallel
        weights, gradients = 2 * part, 4 * part
        optimizer = 12 * shape.parameters // sharding.gpus
    else:
        weights = gradients = 4 * shape.parameters // sharding.gpus
        optimizer = 8 * shape.parameters // sharding.gpus
        gathered = 10 * shape.layer_parameters + 8 * shape.output_parameters
    # Megatron keeps its gradient buffers with the weights; FSDP frees them after each step.
    kept = weights + (gradients if sharding.megatron else 0)
    resident = (0 if sharding.offloads_weights else kept) + (
        0 if sharding.offloads_optimizer else optimizer
    )
    return TrainedModel(weights, gradients, optimizer, resident, gathered)


def stage_parameters(shape: ModelShape, sharding: Sharding) -> int:
    """s: of the largest stage of Megatron's pipeline, the first or the last."""
    if sharding.pipeline_parallel == 1:
        return shape.parameters
    layers = -(-shape.layers // sharding.pipeline_parallel)
    return layers * shape.layer_parameters + shape.output_parameters + shape.hidden


def forward_only(shape: ModelShape, sharding: Sharding) -> TrainedModel:
    """The reference."""
    gathered = 0
    if sharding.megatron:
        weights = 2 * stage_parameters(shape, sharding) // sharding.tensor_parallel
    else:
        weights = 4 * shape.parameters // sharding.gpus
        gathered = 4 * shape.layer_parameters + 2 * shape.output_parameters
    return TrainedModel(weights, 0, 0, 0 if sharding.offloads_weights else weights, gathered)


def activation_bytes(shape: ModelShape, tokens: int, sharding: Sharding) -> int:
    """One micro-batch of `tokens`: inputs of each layer, one layer at work, the logits.

    A pipeline's first stage holds as many micro-batches as there are stages, so L stays whole.
    """
    at_work = 2 * tokens * (10 * shape.hidden + 4 * shape.intermediate)
    saved = 2 * tokens * shape.hidden * shape.layers
    if not sharding.recomputes:
        saved = at_work * shape.layers
    split = sharding.tensor_parallel
    if sharding.sequence_parallel and split > 1:
        saved, at_work = saved // split, at_work // split + 4 * tokens * shape.hidden
    logits = LOGIT_BYTES * tokens * shape.vocabulary // split
    return saved + at_work + logits


def value_activation_bytes(shape: ModelShape, tokens: int, sharding: Sharding) -> int:
    """The same of a critic, whose output is one number a token."""
    logits = LOGIT_BYTES * tokens * shape.vocabulary // sharding.tensor_parallel
    return activation_bytes(shape, tokens, sharding) - logits


@dataclass(frozen=True)
class ServerShare:
    """An inference server's share of each of its GPUs."""

    share_bytes: int
    weight_bytes: int
    cache_tokens: int


def server(
    shape: ModelShape,
    gpu_bytes: int,
    utilization: float,
    tensor_parallel: int = 1,
    cache_bytes: int | None = None,
) -> ServerShare:
    """Weights and cache within `utilization` of the GPU; `cache_tokens` may be negative.

    Args:
        cache_bytes: the cache's size on each GPU if it is given, in place of `utilization`.
    """
    weights = 2 * shape.parameters // tensor_parallel
    share = int(gpu_bytes * utilization)
    if cache_bytes is not None:
        share = weights + SERVER_WORKSPACE_BYTES + cache_bytes
    cache = share - weights - SERVER_WORKSPACE_BYTES
    return ServerShare(share, weights, cache * tensor_parallel // shape.cache_bytes_per_token)


@dataclass(frozen=True)
class Peaks:
    """Bytes a GPU in the two phases of a step."""

    rollout: int
    update: int


def peaks(
    models: Mapping[str, TrainedModel],
    activations: Mapping[str, int],
    servers: Mapping[str, ServerShare],
) -> Peaks:
    """The most a trainer GPU holds while rollouts are made, and while a model is at work.

    `models` and `servers` are those on the trainer's GPUs by role; `activations` has each model's.
    Servers sleep while models work, and keep their process alone.
    """
    processes = PROCESS_BYTES * (1 + len(servers))
    resident = sum(model.resident for model in models.values())
    rollout = resident + sum(one.share_bytes for one in servers.values()) + PROCESS_BYTES
    busiest = max(
        resident - model.resident + model.in_use + activations[role]
        for role, model in models.items()
    )
    return Peaks(rollout, busiest + processes)


def checkpoint_bytes(parameters: int) -> int:
    """Weights and Adam's two moments in float32, all ranks together."""
    return 12 * parameters
