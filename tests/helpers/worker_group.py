"""verl's worker group of the actor in memory: its passes write to the queue what engines would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from memory_queue import MemoryQueue
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu

from recipe.online_refiner.choices import LABEL_MARGIN, NUMBER_FIELD, TARGET_IDS_FIELD

MARGIN = -0.5


class WorkerGroup:
    """Log-probs of -1, -2, … over each whole sequence, and margins of MARGIN throughout.

    Args:
        ranks: data-parallel. reported: c_t by row number, as micro-batches report it one after
            another. diverged: in the same form the divergences of rows with targets.

    Attributes:
        seen: the batches of all calls. update_fields: what the queue had for the last update.
    """

    def __init__(
        self,
        queue: MemoryQueue,
        ranks: int = 2,
        reported: Sequence[tuple[int, list[float]]] = (),
        diverged: Sequence[tuple[int, list[float]]] = (),
    ) -> None:
        self._queue = queue
        self._ranks = ranks
        self._reported, self._diverged = list(reported), list(diverged)
        self._dispatch_info: dict[str, list[int]] = {}
        self.seen: list[KVBatchMeta] = []
        self.update_fields: set[str] = set()

    def _query_dispatch_info(self, role: str) -> list[int]:
        assert role == "actor"
        return list(range(self._ranks))

    def compute_log_prob(self, batch: KVBatchMeta) -> KVBatchMeta:
        self.seen.append(batch)
        rows = self._queue.partitions[str(batch.partition_id)]
        for key in batch.keys:
            tokens = len(rows[key]["input_ids"])
            rows[key]["log_probs"] = -1.0 - torch.arange(tokens)
            rows[key]["entropy"] = torch.full((tokens,), 0.25)
            rows[key][LABEL_MARGIN] = torch.full((tokens,), MARGIN)
        return batch

    def update_actor(self, batch: KVBatchMeta) -> TensorDict:
        self.seen.append(batch)
        metrics: dict[str, Any] = {"loss": 1.0, "mfu": 0.5}
        rows = self._queue.partitions[str(batch.partition_id)]
        self.update_fields = set.intersection(*(set(rows[key]) for key in batch.keys))
        if NUMBER_FIELD in self.update_fields:  # as the loss decides
            metrics["refine_ce"] = self._reported
        if TARGET_IDS_FIELD in self.update_fields:
            metrics["refine_kl"] = self._diverged
        return tu.get_tensordict(tensor_dict={}, non_tensor_dict={"metrics": metrics})
