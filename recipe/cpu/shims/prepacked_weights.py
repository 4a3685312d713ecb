"""Linear layers that keep the weights which a weight sync overwrites."""

from __future__ import annotations

from types import ModuleType

import torch


def keep_linear_weights(layer_utils: ModuleType) -> None:
    """Let every linear layer multiply with `layer.weight` itself.

    Symptom: the first weight sync dies in the server ("'Parameter' object has no attribute
    'weight_loader'") and the trainer waits for ever for its answer. vLLM's CPU build packs each
    linear weight for oneDNN or its own kernels when the model is loaded and replaces
    `layer.weight` by an empty tensor; new weights then have nowhere to go, and would not reach the
    packed copy.
    """

    def dispatch_cpu_unquantized_gemm(layer: torch.nn.Module, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear  # type: ignore[assignment]

    layer_utils.dispatch_cpu_unquantized_gemm = (  # type: ignore[attr-defined]
        dispatch_cpu_unquantized_gemm
    )
