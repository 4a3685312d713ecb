"""Adapters that apply to the requests that ask for one, and to no other."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

KERNELS = ("bgmv_shrink", "bgmv_expand", "bgmv_expand_slice")


def leave_base_rows_alone(lora_ops: ModuleType) -> None:
    """Let no adapter change the rows whose index is -1, vLLM's mark for "none".

    Symptom: a request on the base weights is answered by the adapter when one that has the adapter
    is in the same batch; with `refiner.placement: shared_base` the policy then refines itself.
    vLLM's PyTorch kernels index the stacked adapters with -1, which is the last of them; its
    Triton kernels skip such rows (vllm-project/vllm#48421).
    """
    for name in KERNELS:
        setattr(lora_ops, name, _on_adapted_rows(getattr(lora_ops, name)))


def _on_adapted_rows(kernel: Callable[..., None]) -> Callable[..., None]:
    """The kernel, which is linear in its inputs, with those of the other rows set to 0."""

    @functools.wraps(kernel)
    def masked(
        inputs: torch.Tensor,
        weights: torch.Tensor,
        output: torch.Tensor,
        indices: torch.Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        inputs = torch.where((indices >= 0).unsqueeze(1), inputs, 0.0)
        kernel(inputs, weights, output, indices, *args, **kwargs)

    return masked
