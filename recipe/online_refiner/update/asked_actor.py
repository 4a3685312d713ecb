"""The policy's c_t on labels, out of the forward pass that verl makes for the old log-probs.

`AskedActor` stands in for the actor's worker group during that one call: it lays the labels on the
rows and asks verl's engine to call the loss with the logits. verl makes no such pass if the
log-probs of the rollout's engine are taken for the old ones (`rollout_correction.bypass_mode`);
then `measure` makes one over the labelled rows.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transfer_queue import KVBatchMeta

from recipe.online_refiner.choices import MEASURE
from recipe.online_refiner.method.labels import RowLabels
from recipe.online_refiner.queue.label_fields import measured_on, put_labels
from recipe.online_refiner.queue.rollouts import ranks_of
from recipe.online_refiner.update.logit_layout import HOOK
from recipe.online_refiner.update.rows import rounded_up


class AskedActor:
    """The actor's worker group, whose `compute_log_prob` also measures labels.

    Attributes:
        cross_entropy: c_t in nats on the labelled steps of each rollout; None before a pass.
    """

    def __init__(self, worker_group: Any, labels: Sequence[RowLabels]) -> None:
        self._worker_group = worker_group
        self._labels = list(labels)
        self.cross_entropy: list[torch.Tensor] | None = None

    def __getattr__(self, name: str) -> Any:
        """verl also saves and restores weights around the pass, in its asynchronous mode."""
        return getattr(self._worker_group, name)

    def compute_log_prob(self, batch: KVBatchMeta) -> KVBatchMeta:
        """verl's pass over the batch, whose labelled steps are also measured."""
        put_labels(batch, self._labels)
        asked = KVBatchMeta(
            keys=batch.keys,
            tags=batch.tags,
            partition_id=batch.partition_id,
            extra_info=batch.extra_info | HOOK | {"compute_loss": True, MEASURE: True},
        )
        output = self._worker_group.compute_log_prob(asked)
        self.cross_entropy = measured_on(batch, self._labels)
        return output

    def measure(self, batch: KVBatchMeta, temperature: float, micro_batch_size: int) -> None:
        """A pass over the labelled rows alone, filled up with other rows of the batch.

        Args:
            micro_batch_size: rows per forward pass and rank; 1 if verl packs by token count.
        """
        labelled = {one.key for one in self._labels}
        order = sorted(range(len(batch)), key=lambda row: batch.keys[row] not in labelled)
        count = rounded_up(len(labelled), ranks_of(self._worker_group) * micro_batch_size)
        rows = order[:count]
        self.compute_log_prob(
            KVBatchMeta(
                keys=[batch.keys[row] for row in rows],
                tags=[batch.tags[row] for row in rows],
                partition_id=batch.partition_id,
                extra_info={"calculate_entropy": False, "temperature": temperature},
            )
        )
