"""Values on a row's states, laid out as the logits of a pass are, and logits picked there.

verl gives the loss the logits of a forward pass before it takes the log-probs of the row's own
tokens (the hook of its top-k distillation), and makes each returned tensor a model output.

Shapes: N states of the packed rows, or of this rank's share of them, in the layout of the logits
(B or 1, N, V); V of the vocabulary, or of this rank's part of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

import torch
from tensordict import TensorDict
from verl.utils.ulysses import get_ulysses_sequence_parallel_world_size, slice_input_tensor

from recipe.online_refiner.update.places import Places

HOOK = {"distillation_use_topk": True, "distillation_only": False}
"""Settings of a batch by which verl's engines call the loss with the logits."""


class Packed(NamedTuple):
    """A value for each state of the rows, one row after another; offsets as a jagged tensor's."""

    values: torch.Tensor
    offsets: torch.Tensor


def own_tokens(data: TensorDict) -> Packed:
    """For each state the row's own next token."""
    input_ids = data["input_ids"]
    return Packed(input_ids.values().roll(-1), input_ids.offsets())


def on_states(data: TensorDict, places: Places, values: torch.Tensor) -> Packed:
    """Values of all response tokens on the states before those tokens, 0 elsewhere.

    Padding is 0 in every layout.
    """
    input_ids = data["input_ids"]
    placed = torch.zeros_like(input_ids.values())
    placed[places.state_M] = values.to(placed.dtype)
    return Packed(placed, input_ids.offsets())


def laid_out(packed: Packed, logits: torch.Tensor, strategy: str, data_format: str) -> torch.Tensor:
    """Values per state in the layout of the logits, without V.

    Args:
        strategy: the actor's. data_format: of Megatron's logits, thd or bshd.
    """
    if strategy == "megatron":
        placed = _megatron_layout(packed, data_format)
    else:
        placed = _fsdp_layout(packed)
    if placed.shape != logits.shape[:2]:
        raise ValueError(f"values of shape {placed.shape} do not fit logits of {logits.shape}")
    return placed


def _fsdp_layout(packed: Packed) -> torch.Tensor:
    """Rows packed one after another, and this rank's share of them under Ulysses. Shape (1, N)."""
    values = packed.values.unsqueeze(0)
    if get_ulysses_sequence_parallel_world_size() > 1:
        return slice_input_tensor(values, dim=1)
    return values


def _megatron_layout(packed: Packed, data_format: str) -> torch.Tensor:
    """Padded and split over context parallel ranks as Megatron's logits are."""
    from verl.models.mcore.util import preprocess_bshd_engine, preprocess_thd_engine

    values = torch.nested.nested_tensor_from_jagged(*packed)
    if data_format == "thd":
        split: torch.Tensor = preprocess_thd_engine(values, pre_process=True)[0]
    else:
        split = preprocess_bshd_engine(values, pre_process=True)[0]
    return split


def picked(
    logits: torch.Tensor, asked: tuple[torch.Tensor, ...], ids: torch.Tensor, split: bool
) -> torch.Tensor:
    """The logits of so many choices of one token in each asked state. Shape (choices, asked).

    Args:
        split: whether the vocabulary is split over Megatron's tensor parallel ranks.
    """
    where = tuple(index.expand(len(ids), -1) for index in asked)
    if not split:
        found = logits[(*where, ids)]
        return found.to(torch.promote_types(found.dtype, torch.float32))
    ranks: Any = import_module("megatron.core.parallel_state")
    tensor_parallel: Any = import_module("megatron.core.tensor_parallel")
    part = logits.shape[-1]
    local = ids - part * ranks.get_tensor_model_parallel_rank()
    here = (local >= 0) & (local < part)
    found = logits[(*where, local.clamp(0, part - 1))].float() * here
    summed: torch.Tensor = tensor_parallel.reduce_from_tensor_model_parallel_region(found)
    return summed
