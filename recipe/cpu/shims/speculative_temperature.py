"""Speculative decoding that samples at the temperature it was asked for."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch


def write_expanded_temperature(triton_fallbacks: ModuleType) -> None:
    """Copy the result of vLLM's expand kernel into the tensor that the caller reads.

    Symptom: with n-gram speculation at temperature > 0 log-probabilities are NaN or tokens are
    nonsense. The CPU fallback of the Triton kernel works on an int64 copy of `output` and drops
    it, so the float temperatures (and top-p) of the draft tokens stay uninitialised memory.
    """

    def expand(
        output: torch.Tensor,
        input_val: torch.Tensor,
        cu_num_tokens: torch.Tensor,
        replace_from: float,
        replace_to: float,
        MAX_NUM_TOKENS: int | None = None,
    ) -> None:
        counts = torch.diff(cu_num_tokens, prepend=cu_num_tokens.new_zeros(1))
        values = torch.where(input_val == replace_from, replace_to, input_val)
        expanded = values.repeat_interleave(counts)
        output[: expanded.shape[0]].copy_(expanded)

    wrapper: Any = triton_fallbacks.expand_kernel
    wrapper.func = expand
