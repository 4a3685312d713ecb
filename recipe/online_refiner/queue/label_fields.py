"""Labels on the rows of a batch, in the fields that the loss reads and measures by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

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

MEASURED_FIELDS = frozenset({LABEL_FIELD, LABEL_MARGIN})
"""What a pass that measures leaves on the rows of a batch."""


def put_labels(batch: KVBatchMeta, labels: Sequence[RowLabels]) -> None:
    """Store the labels; every row gets the field, since the queue returns none that one lacks."""
    offsets, asked = _offsets(batch), [RowLabels(one.key, one.token_ids) for one in labels]
    _put(batch, {LABEL_FIELD: _jagged(label_values(batch.keys, offsets, asked), offsets)})


def put_policy_fields(
    batch: KVBatchMeta,
    labels: Sequence[RowLabels],
    first_number: int,
    others: Mapping[str, torch.Tensor],
) -> list[str]:
    """Store what the loss reads of the policy's rows: weights and numbers, 0 without a label.

    Args:
        labels: weighted. first_number: by which the loss reports on the first of them.
        others: further fields, the same for every row.

    Returns:
        The fields' names.
    """
    offsets = _offsets(batch)
    weights = label_values(batch.keys, offsets, labels) if labels else torch.zeros(int(offsets[-1]))
    fields = {
        NUMBER_FIELD: row_numbers(batch.keys, labels, first_number),
        LABEL_FIELD if labels else WEIGHT_FIELD: _jagged(weights, offsets),
    }
    for name, value in others.items():
        fields[name] = torch.nested.as_nested_tensor([value] * len(batch), layout=torch.jagged)
    _put(batch, fields)
    return list(fields)


def without_measured(batch: KVBatchMeta) -> KVBatchMeta:
    """The batch without what a pass that measures has left on it: an update reads all fields."""
    if batch.fields is None:
        return batch
    return replace(batch, fields=[one for one in batch.fields if one not in MEASURED_FIELDS])


def label_values(
    keys: Sequence[str], offsets: torch.Tensor, labels: Sequence[RowLabels]
) -> torch.Tensor:
    """Labels and weights of the response tokens of all rows, coded; 0 without a label. Flat.

    Args:
        keys: of the rows. offsets: where their responses begin, and the end.
    """
    places, rows = offsets.tolist(), {key: row for row, key in enumerate(keys)}
    flat = torch.zeros(places[-1], dtype=torch.int64)
    if not labels:
        return flat
    weights = [one.weights for one in labels if one.weights is not None]
    values = coded(
        torch.cat([one.token_ids for one in labels]), torch.cat(weights) if weights else None
    )
    lengths = [len(one.token_ids) for one in labels]
    for one, of_row in zip(labels, values.split(lengths), strict=True):
        row = rows[one.key]
        flat[places[row] : places[row + 1]] = of_row
    return flat


def row_numbers(
    keys: Sequence[str], labels: Sequence[RowLabels], first_number: int
) -> torch.Tensor:
    """The number by which the loss reports on each row, 0 on rows without labels. Shape (rows,)."""
    numbers = {one.key: number for number, one in enumerate(labels, start=first_number)}
    return torch.tensor([numbers.get(key, 0) for key in keys])


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


def _jagged(flat: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Flat values of the response tokens by row."""
    return torch.nested.nested_tensor_from_jagged(flat, offsets)


def _put(batch: KVBatchMeta, fields: Mapping[str, torch.Tensor]) -> None:
    tq.kv_batch_put(
        keys=batch.keys,
        partition_id=batch.partition_id,
        fields=TensorDict(dict(fields), batch_size=len(batch)),
    )
