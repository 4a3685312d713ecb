"""The actor's update with the constraint's additions, in the same optimizer steps.

verl's trainer composes the update (sizes, epochs, seeds) and calls `update_actor` on its worker
group. `MixedActor` stands in for the group during that one call: it lays labels on the policy's
rows, adds rows beside them, enlarges the mini-batches by their share and leaves
`global_batch_size`, by which the policy loss is normalised, as it was.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu

from recipe.online_refiner.choices import (
    CROSS_ENTROPY_METRIC,
    DIVERGENCE_METRIC,
    POLICY_SHARE,
    TOKEN_FACTOR,
)
from recipe.online_refiner.method.constraint import Additions, ExtraRow
from recipe.online_refiner.queue.label_fields import put_policy_fields
from recipe.online_refiner.queue.rollouts import ranks_of, temporary_rows
from recipe.online_refiner.update.logit_layout import HOOK
from recipe.online_refiner.update.rows import (
    RESPONSE_FIELDS,
    RowForm,
    constraint_row,
    interleaved,
    rounded_up,
)
from recipe.online_refiner.update.target_logits import target_fields


class MixedActor:
    """The actor's worker group, whose `update_actor` also sees what a constraint adds.

    Args:
        worker_group: verl's actor worker group.
        additions: rows are dealt evenly over mini-batches and ranks; copies of one without weight
            fill these up to the same number.
        micro_batch_size: rows per micro-batch and rank; 1 if verl packs by token count.

    Attributes:
        cross_entropy: after the update, c_t in nats of each row, then of the labelled steps of each
            rollout, then the divergences of each row with targets, as the loss first saw them.
    """

    def __init__(self, worker_group: Any, additions: Additions, micro_batch_size: int) -> None:
        self._worker_group = worker_group
        self._added = list(additions.rows)
        self._labels = list(additions.labels)
        self._micro_batch_size = micro_batch_size
        self._settings = {
            POLICY_SHARE: additions.policy_share,
            TOKEN_FACTOR: additions.token_factor,
        }
        self._taught = [
            number for number, row in enumerate(self._added, start=1) if row.targets is not None
        ]
        if self._labels or self._taught:
            self._settings |= HOOK
        self.cross_entropy: list[torch.Tensor] = []

    def update_actor(self, batch: KVBatchMeta) -> TensorDict:
        """Run verl's update over both kinds of rows; returns its metrics."""
        ranks = ranks_of(self._worker_group)
        mini_batches = len(batch) // batch.extra_info["mini_batch_size"]
        count = rounded_up(len(self._added), ranks * mini_batches * self._micro_batch_size)
        others = target_fields(None) if self._taught else {}
        put = put_policy_fields(batch, self._labels, len(self._added) + 1, others)
        if not self._added:
            fields = batch.fields and [*batch.fields, *put]
            return self._update(replace(batch, fields=fields), added=0)
        with temporary_rows(self._rows(count, _fields_of(batch)), batch.partition_id) as extra:
            order = interleaved(
                range(len(batch)), range(len(batch), len(batch) + count), ranks, mini_batches
            )
            keys, tags = [*batch.keys, *extra.keys], [*batch.tags, *extra.tags]
            mixed = replace(
                batch,
                keys=[keys[index] for index in order],
                tags=[tags[index] for index in order],
                fields=None,  # all that both kinds of rows have
            )
            return self._update(mixed, added=count // mini_batches)

    def _update(self, mixed: KVBatchMeta, added: int) -> TensorDict:
        """The group's update over these rows, each mini-batch larger by so many."""
        mixed = replace(mixed, extra_info=mixed.extra_info | self._settings)
        mixed.extra_info["mini_batch_size"] += added
        return self._without_cross_entropy(self._worker_group.update_actor(mixed))

    def _without_cross_entropy(self, output: TensorDict) -> TensorDict:
        """Keep the rows' cross entropy, which is no scalar that verl could log."""
        metrics = dict(output["metrics"])
        numbers = range(1, len(self._added) + len(self._labels) + 1)
        self.cross_entropy = _first_seen(metrics.pop(CROSS_ENTROPY_METRIC), numbers)
        self.cross_entropy += _first_seen(metrics.pop(DIVERGENCE_METRIC, ()), self._taught)
        return tu.get_tensordict(tensor_dict={}, non_tensor_dict={"metrics": metrics})

    def _rows(self, count: int, fields: Sequence[str]) -> list[dict[str, torch.Tensor]]:
        shortest = min(self._added, key=lambda row: len(row.response_ids))
        filler = ExtraRow(
            shortest.prompt_ids, shortest.response_ids, torch.zeros_like(shortest.weights)
        )
        numbered = list(enumerate(self._added, start=1))
        numbered += [(0, filler)] * (count - len(numbered))
        form = RowForm(fields, bool(self._labels), bool(self._taught))
        return [constraint_row(row, number, form) for number, row in numbered]


def _first_seen(
    reports: Iterable[tuple[int, list[float]]], numbers: Iterable[int]
) -> list[torch.Tensor]:
    """The first report of each of these numbers.

    A rollout none of whose steps is asked for anything reports nothing.
    """
    seen: dict[int, list[float]] = {}
    for number, values in reports:
        seen.setdefault(number, values)
    return [torch.tensor(seen.get(number, [])) for number in numbers]


def _fields_of(batch: KVBatchMeta) -> list[str]:
    present = tq.kv_batch_get(keys=batch.keys[:1], partition_id=batch.partition_id)
    return [name for name in RESPONSE_FIELDS if name in present]
