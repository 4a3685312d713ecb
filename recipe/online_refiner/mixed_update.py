"""The actor's update with the constraint's rows beside the policy's, in the same optimizer steps.

verl's trainer composes the update (sizes, epochs, seeds) and calls `update_actor` on its worker
group. `MixedActor` stands in for the group during that one call: it adds the rows, enlarges the
mini-batches by their share and leaves `global_batch_size`, by which the policy loss is normalised,
as it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from recipe.online_refiner.loss import WEIGHT_FIELD
from recipe.online_refiner.queue_rows import ranks_of, temporary_rows
from recipe.online_refiner.rows import RESPONSE_FIELDS, constraint_row, interleaved, rounded_up


@dataclass(frozen=True)
class WeighedResponse:
    """One (s0, a') pair and the U weights of its tokens for a mini-batch of the policy's size."""

    prompt_ids: Sequence[int]
    response_ids: Sequence[int]
    weights: torch.Tensor


class MixedActor:
    """The actor's worker group, whose `update_actor` also sees the weighed responses.

    Args:
        worker_group: verl's actor worker group.
        responses: at least one; padded with weightless copies to fill every mini-batch equally.
        micro_batch_size: rows per micro-batch and rank; 1 where verl packs by token count.
    """

    def __init__(
        self, worker_group: Any, responses: Sequence[WeighedResponse], micro_batch_size: int
    ) -> None:
        self._worker_group = worker_group
        self._responses = list(responses)
        self._micro_batch_size = micro_batch_size

    def update_actor(self, batch: KVBatchMeta) -> TensorDict:
        """Run verl's update over both kinds of rows; returns its metrics."""
        ranks = ranks_of(self._worker_group)
        mini_batches = len(batch) // batch.extra_info["mini_batch_size"]
        count = rounded_up(len(self._responses), ranks * mini_batches * self._micro_batch_size)
        rows = self._rows(count, _fields_of(batch))
        _give_no_weight(batch)
        with temporary_rows(rows, batch.partition_id) as extra:
            order = interleaved(
                range(len(batch)), range(len(batch), len(batch) + count), ranks, mini_batches
            )
            keys, tags = [*batch.keys, *extra.keys], [*batch.tags, *extra.tags]
            mixed = KVBatchMeta(
                keys=[keys[index] for index in order],
                tags=[tags[index] for index in order],
                partition_id=batch.partition_id,
                extra_info=dict(batch.extra_info),
            )
            mixed.extra_info["mini_batch_size"] += count // mini_batches
            return self._worker_group.update_actor(mixed)

    def _rows(self, count: int, fields: Sequence[str]) -> list[dict[str, torch.Tensor]]:
        shortest = min(self._responses, key=lambda response: len(response.response_ids))
        filler = WeighedResponse(
            shortest.prompt_ids, shortest.response_ids, torch.zeros_like(shortest.weights)
        )
        responses = self._responses + [filler] * (count - len(self._responses))
        return [constraint_row(r.prompt_ids, r.response_ids, r.weights, fields) for r in responses]


def _fields_of(batch: KVBatchMeta) -> list[str]:
    present = tq.kv_batch_get(keys=batch.keys[:1], partition_id=batch.partition_id)
    return [name for name in RESPONSE_FIELDS if name in present]


def _give_no_weight(batch: KVBatchMeta) -> None:
    responses = tq.kv_batch_get(
        keys=batch.keys, partition_id=batch.partition_id, select_fields=["responses"]
    )["responses"]
    weights = torch.nested.nested_tensor_from_jagged(
        torch.zeros_like(responses.values(), dtype=torch.float32), responses.offsets()
    )
    fields = TensorDict({WEIGHT_FIELD: weights}, batch_size=len(batch))
    tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)
