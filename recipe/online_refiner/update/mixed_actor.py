"""The actor's update with the constraint's rows beside the policy's, in the same optimizer steps.

verl's trainer composes the update (sizes, epochs, seeds) and calls `update_actor` on its worker
group. `MixedActor` stands in for the group during that one call: it adds the rows, enlarges the
mini-batches by their share and leaves `global_batch_size`, by which the policy loss is normalised,
as it was.
"""

from collections.abc import Sequence
from typing import Any

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu

from recipe.online_refiner.choices import (
    CROSS_ENTROPY_METRIC,
    NUMBER_FIELD,
    POLICY_SHARE,
    TOKEN_FACTOR,
    WEIGHT_FIELD,
)
from recipe.online_refiner.method.constraint import Additions, ExtraRow
from recipe.online_refiner.queue.rollouts import ranks_of, temporary_rows
from recipe.online_refiner.update.rows import (
    RESPONSE_FIELDS,
    constraint_row,
    interleaved,
    rounded_up,
)


class MixedActor:
    """The actor's worker group, whose `update_actor` also sees what a constraint adds.

    Args:
        worker_group: verl's actor worker group.
        additions: with at least one row; copies without weight fill every mini-batch equally.
        micro_batch_size: rows per micro-batch and rank; 1 if verl packs by token count.

    Attributes:
        cross_entropy: after the update, c_t in nats of each row as the loss first saw it.
    """

    def __init__(self, worker_group: Any, additions: Additions, micro_batch_size: int) -> None:
        self._worker_group = worker_group
        self._added = list(additions.rows)
        self._micro_batch_size = micro_batch_size
        self._loss_settings = {
            POLICY_SHARE: additions.policy_share,
            TOKEN_FACTOR: additions.token_factor,
        }
        self.cross_entropy: list[torch.Tensor] = []

    def update_actor(self, batch: KVBatchMeta) -> TensorDict:
        """Run verl's update over both kinds of rows; returns its metrics."""
        ranks = ranks_of(self._worker_group)
        mini_batches = len(batch) // batch.extra_info["mini_batch_size"]
        count = rounded_up(len(self._added), ranks * mini_batches * self._micro_batch_size)
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
                extra_info=batch.extra_info | self._loss_settings,
            )
            mixed.extra_info["mini_batch_size"] += count // mini_batches
            return self._without_cross_entropy(self._worker_group.update_actor(mixed))

    def _without_cross_entropy(self, output: TensorDict) -> TensorDict:
        """Keep the rows' cross entropy, which is no scalar that verl could log."""
        metrics = dict(output["metrics"])
        seen: dict[int, list[float]] = {}
        for number, values in metrics.pop(CROSS_ENTROPY_METRIC):
            seen.setdefault(number, values)
        self.cross_entropy = [
            torch.tensor(seen[number]) for number in range(1, len(self._added) + 1)
        ]
        return tu.get_tensordict(tensor_dict={}, non_tensor_dict={"metrics": metrics})

    def _rows(self, count: int, fields: Sequence[str]) -> list[dict[str, torch.Tensor]]:
        shortest = min(self._added, key=lambda row: len(row.response_ids))
        filler = ExtraRow(
            shortest.prompt_ids, shortest.response_ids, torch.zeros_like(shortest.weights)
        )
        numbered = list(enumerate(self._added, start=1))
        numbered += [(0, filler)] * (count - len(numbered))
        return [
            constraint_row(row.prompt_ids, row.response_ids, row.weights, number, fields)
            for number, row in numbered
        ]


def _fields_of(batch: KVBatchMeta) -> list[str]:
    present = tq.kv_batch_get(keys=batch.keys[:1], partition_id=batch.partition_id)
    return [name for name in RESPONSE_FIELDS if name in present]


def _give_no_weight(batch: KVBatchMeta) -> None:
    responses = tq.kv_batch_get(
        keys=batch.keys, partition_id=batch.partition_id, select_fields=["responses"]
    )["responses"]
    zeros = torch.nested.nested_tensor_from_jagged(
        torch.zeros_like(responses.values()), responses.offsets()
    )
    fields = TensorDict({WEIGHT_FIELD: zeros.float(), NUMBER_FIELD: zeros}, batch_size=len(batch))
    tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)
