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
    ids = {one.key: coded(one.token_ids) for one in labels}
    _put(batch, {LABEL_FIELD: _on_rows(batch, _offsets(batch), ids)})


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
    weights, ids = {}, {}
    for number, one in enumerate(labels, start=first_number):
        assert one.weights is not None
        weights[one.key] = one.weights
        ids[one.key] = coded(one.token_ids, (one.token_ids != NO_LABEL) * number)
    offsets = _offsets(batch)
    fields = {
        WEIGHT_FIELD: _on_rows(batch, offsets, weights, torch.float32),
        LABEL_FIELD if labels else NUMBER_FIELD: _on_rows(batch, offsets, ids),
    }
    for name, value in others.items():
        fields[name] = torch.nested.as_nested_tensor([value] * len(batch), layout=torch.jagged)
    _put(batch, fields)


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


def _on_rows(
    batch: KVBatchMeta,
    offsets: torch.Tensor,
    values: dict[str, torch.Tensor],
    dtype: torch.dtype = torch.int64,
) -> torch.Tensor:
    """Values per response token by row, 0 on the other rows. Jagged."""
    places = offsets.tolist()
    flat = torch.zeros(places[-1], dtype=dtype)
    for row, key in enumerate(batch.keys):
        if key in values:
            flat[places[row] : places[row + 1]] = values[key].to(dtype)
    return torch.nested.nested_tensor_from_jagged(flat, offsets)


def _put(batch: KVBatchMeta, fields: dict[str, torch.Tensor]) -> None:
    tq.kv_batch_put(
        keys=batch.keys,
        partition_id=batch.partition_id,
        fields=TensorDict(fields, batch_size=len(batch)),
    )
