"""Labels on the rows of a batch, in the fields that the loss reads and measures by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.workers.utils.padding import response_from_nested

from recipe.online_refiner.choices import (
    LABEL_FIELD,
    LABEL_MARGIN,
    NO_LABEL,
    NUMBER_FIELD,
    WEIGHT_FIELD,
)
from recipe.online_refiner.method.labels import RowLabels
from recipe.online_refiner.queue.label_code import coded


def put_labels(batch: KVBatchMeta, labels: Sequence[RowLabels]) -> None:
    """Store the labels; every row gets the field, since the queue returns none that one lacks."""
    offsets = _offsets(batch)
    _put(batch, offsets, {LABEL_FIELD: label_values(batch.keys, offsets, labels)})


def put_policy_fields(
    batch: KVBatchMeta,
    labels: Sequence[RowLabels],
    first_number: int,
    others: Mapping[str, torch.Tensor],
) -> None:
    """Store what the loss reads of the policy's rows: weights and numbers, 0 without a label.

    Args:
        labels: weighted. first_number: by which the loss reports on the first of them.
        others: further fields, the same for every row.
    """
    offsets = _offsets(batch)
    values = {
        WEIGHT_FIELD: weight_values(batch.keys, offsets, labels),
        LABEL_FIELD if labels else NUMBER_FIELD: label_values(
            batch.keys, offsets, labels, first_number
        ),
    }
    _put(batch, offsets, values, others)


def label_values(
    keys: Sequence[str],
    offsets: torch.Tensor,
    labels: Sequence[RowLabels],
    first_number: int | None = None,
) -> torch.Tensor:
    """Labels and numbers of the response tokens of all rows, coded; 0 without a label. Flat.

    Args:
        keys: of the rows. offsets: where their responses begin, and the end.
        first_number: by which the loss reports on the first of them; None for no report.
    """
    ids = {one.key: one.token_ids for one in labels}
    values = _flat(keys, offsets, ids, torch.int64, NO_LABEL)
    if first_number is None:
        return coded(values)
    numbers = {one.key: number for number, one in enumerate(labels, start=first_number)}
    of_row = torch.tensor([numbers.get(key, 0) for key in keys])
    return coded(values, of_row.repeat_interleave(offsets.diff()) * (values != NO_LABEL))


def weight_values(
    keys: Sequence[str], offsets: torch.Tensor, labels: Sequence[RowLabels]
) -> torch.Tensor:
    """The labels' weights on the response tokens of all rows, 0 elsewhere. Flat."""
    weights = {one.key: one.weights for one in labels if one.weights is not None}
    return _flat(keys, offsets, weights, torch.float32, 0)


def measured_on(batch: KVBatchMeta, labels: Sequence[RowLabels]) -> list[torch.Tensor]:
    """c_t in nats on the labelled steps of each rollout, after a pass that has measured them."""
    data = tq.kv_batch_get(
        keys=[one.key for one in labels],
        partition_id=batch.partition_id,
        select_fields=["log_probs", LABEL_MARGIN, "response_mask"],
    )
    own, margins = (
        response_from_nested(data[name], data["response_mask"]).unbind()
        for name in ("log_probs", LABEL_MARGIN)
    )
    return [
        -(log_probs.float() + margin)[one.token_ids != NO_LABEL]
        for one, log_probs, margin in zip(labels, own, margins, strict=True)
    ]


def _offsets(batch: KVBatchMeta) -> torch.Tensor:
    """Where each row's response begins among the tokens of all, and the end."""
    responses = tq.kv_batch_get(
        keys=batch.keys, partition_id=batch.partition_id, select_fields=["responses"]
    )["responses"]
    offsets: torch.Tensor = responses.offsets()
    return offsets


def _flat(
    keys: Sequence[str],
    offsets: torch.Tensor,
    values: Mapping[str, torch.Tensor],
    dtype: torch.dtype,
    fill: int,
) -> torch.Tensor:
    """Values per response token by row, `fill` on the other rows."""
    places = offsets.tolist()
    flat = torch.full((places[-1],), fill, dtype=dtype)
    for row, key in enumerate(keys):
        if key in values:
            flat[places[row] : places[row + 1]] = values[key]
    return flat


def _put(
    batch: KVBatchMeta,
    offsets: torch.Tensor,
    values: Mapping[str, torch.Tensor],
    others: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Store flat values of the response tokens, and fields that are the same for every row."""
    nested = torch.nested.nested_tensor_from_jagged
    fields = {name: nested(flat, offsets) for name, flat in values.items()}
    for name, value in (others or {}).items():
        fields[name] = torch.nested.as_nested_tensor([value] * len(batch), layout=torch.jagged)
    tq.kv_batch_put(
        keys=batch.keys,
        partition_id=batch.partition_id,
        fields=TensorDict(fields, batch_size=len(batch)),
    )
