"""Labels on a row's own states: what the logits of the pass say of them, by a hook of verl.

verl gives the loss the logits of a forward pass before it takes the log-probs of the row's own
tokens (the hook of its top-k distillation), and makes each returned tensor a model output. Margins
are returned, log π(label) - log π(own token), which are differences of two logits: the log-prob of
the own token, which verl takes anyway, holds the normalisation of both.

Shapes: N states of the packed rows, or of this rank's share of them, in the layout of the logits
(B or 1, N, V); V of the vocabulary, or of this rank's part of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from tensordict import TensorDict
from verl.utils.ulysses import get_ulysses_sequence_parallel_world_size, slice_input_tensor

from recipe.online_refiner.choices import LABEL_FIELD, LABEL_MARGIN
from recipe.online_refiner.update.places import response_places

HOOK = {"distillation_use_topk": True, "distillation_only": False}
"""Settings of a batch by which verl's engines call the loss with the logits."""


def label_margins(
    logits: torch.Tensor, data: TensorDict, strategy: str, data_format: str
) -> dict[str, torch.Tensor]:
    """log π(label) - log π(own token) in each state, 0 in those without a label. Shape (1, N).

    Args:
        logits: divided by the temperature. data: the micro-batch, whole. strategy: the actor's.
        data_format: of Megatron's logits, thd or bshd.
    """
    if strategy == "megatron":
        labels, own = (_megatron_layout(one, data_format) for one in _per_state(data))
    else:
        labels, own = (_fsdp_layout(one) for one in _per_state(data))
    if labels.shape != logits.shape[:2]:
        raise ValueError(f"labels of shape {labels.shape} do not fit logits of {logits.shape}")
    margins = torch.zeros(labels.shape, dtype=torch.float32, device=logits.device)
    # A label that is the row's own token has no margin: most of them, if a' copies.
    asked = ((labels > 0) & (labels - 1 != own)).nonzero(as_tuple=True)
    if len(asked[0]) == 0:
        return {LABEL_MARGIN: margins}
    pairs = torch.stack([labels[asked] - 1, own[asked]])
    picked = _picked(logits, asked, pairs, split=strategy == "megatron")
    return {LABEL_MARGIN: margins.to(picked.dtype).index_put(asked, picked[0] - picked[1])}


def _per_state(data: TensorDict) -> tuple[torch.Tensor, torch.Tensor]:
    """For each state its label + 1, and 0 if it has none; and the row's own next token. Jagged.

    A label is stored with the response token in whose state it is asked for, one place to the left
    of which that state's logits stand. Padding is 0 in every layout, so that it asks for nothing.
    """
    input_ids = data["input_ids"]
    own = input_ids.values().roll(-1)
    labels = torch.zeros_like(own)
    labels[response_places(data, LABEL_FIELD)] = data[LABEL_FIELD].values() + 1
    return (
        torch.nested.nested_tensor_from_jagged(labels, input_ids.offsets()),
        torch.nested.nested_tensor_from_jagged(own, input_ids.offsets()),
    )


def _fsdp_layout(values: torch.Tensor) -> torch.Tensor:
    """Rows packed one after another, and this rank's share of them under Ulysses. Shape (1, N)."""
    packed = values.values().unsqueeze(0)
    if get_ulysses_sequence_parallel_world_size() > 1:
        return slice_input_tensor(packed, dim=1)
    return packed


def _megatron_layout(values: torch.Tensor, data_format: str) -> torch.Tensor:
    """Padded and split over context parallel ranks as Megatron's logits are."""
    from verl.models.mcore.util import preprocess_bshd_engine, preprocess_thd_engine

    if data_format == "thd":
        split: torch.Tensor = preprocess_thd_engine(values, pre_process=True)[0]
    else:
        split = preprocess_bshd_engine(values, pre_process=True)[0]
    return split


def _picked(
    logits: torch.Tensor, asked: tuple[torch.Tensor, ...], ids: torch.Tensor, split: bool
) -> torch.Tensor:
    """The logits of so many choices of one token in each asked state. Shape (choices, asked).

    Args:
        split: whether the vocabulary is split over Megatron's tensor parallel ranks.
    """
    where = tuple(index.expand(len(ids), -1) for index in asked)
    if not split:
        picked = logits[(*where, ids)]
        return picked.to(torch.promote_types(picked.dtype, torch.float32))
    ranks: Any = import_module("megatron.core.parallel_state")
    tensor_parallel: Any = import_module("megatron.core.tensor_parallel")
    part = logits.shape[-1]
    local = ids - part * ranks.get_tensor_model_parallel_rank()
    here = (local >= 0) & (local < part)
    picked = logits[(*where, local.clamp(0, part - 1))].float() * here
    summed: torch.Tensor = tensor_parallel.reduce_from_tensor_model_parallel_region(picked)
    return summed
