"""FSDP2's offload policy without page-locked memory."""

from __future__ import annotations

from types import ModuleType


def offload_without_pinning(fsdp_utils: ModuleType) -> None:
    """Give verl a `CPUOffloadPolicy` that never pins.

    Symptom: "Cannot access accelerator device when none is available" at the reference model's
    first forward pass. verl asks for `CPUOffloadPolicy(pin_memory=True)` for every model that is
    only run forward (`verl/workers/engine/fsdp/transformer_impl.py`), and page-locked memory is an
    accelerator's.
    """
    stock_policy = fsdp_utils.CPUOffloadPolicy

    class UnpinnedCpuOffloadPolicy(stock_policy):  # type: ignore[misc,valid-type]
        def __init__(self, pin_memory: bool = False) -> None:
            super().__init__(pin_memory=False)

    fsdp_utils.CPUOffloadPolicy = UnpinnedCpuOffloadPolicy  # type: ignore[attr-defined]
