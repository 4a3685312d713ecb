"""The actor's update with rows beside the policy's: where they go, and what comes back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from memory_queue import MemoryQueue, Row
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from worker_group import WorkerGroup

from recipe.online_refiner.method.constraint import Additions, ExtraRow
from recipe.online_refiner.method.labels import RowLabels
from recipe.online_refiner.queue.label_code import labels_plus_one, weights
from recipe.online_refiner.update.mixed_actor import MixedActor

KEYS = [f"{group}_{session}_0" for group in "ab" for session in range(4)]
ADDED = [
    ExtraRow((1, 2), (5, 6, 0), torch.tensor([0.5, 0.25, 0.125])),
    ExtraRow((1,), (0,), torch.tensor([2.0])),
]


class Watching(WorkerGroup):
    """Also remembers the rows of an update, which are gone afterwards."""

    def __init__(self, queue: MemoryQueue, **options: Any) -> None:
        super().__init__(queue, **options)
        self._rows = queue.rows

    def update_actor(self, batch: KVBatchMeta) -> TensorDict:
        self.rows: list[Row] = [dict(self._rows[key]) for key in batch.keys]
        self.stored = len(self._rows)
        return super().update_actor(batch)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> MemoryQueue:
    """Eight rows of one token, as verl's trainer leaves them before an update with a reference."""
    rows = {
        key: {
            "responses": torch.tensor([number]),
            "advantages": torch.tensor([1.0]),
            "ref_log_prob": torch.tensor([-1.0]),
        }
        for number, key in enumerate(KEYS)
    }
    return MemoryQueue.installed(monkeypatch, rows)


def batch_of(mini_batch_size: int) -> KVBatchMeta:
    settings = {"mini_batch_size": mini_batch_size, "global_batch_size": mini_batch_size}
    return KVBatchMeta(
        keys=KEYS, tags=[{"step": 1}] * len(KEYS), partition_id="train", extra_info=settings
    )


def test_each_mini_batch_of_each_rank_is_enlarged_by_its_share(queue: MemoryQueue) -> None:
    workers = Watching(queue, ranks=2, reported=[(2, [4.0]), (1, [1.0, 2.0, 3.0])])
    additions = Additions(ADDED, policy_share=0.75, token_factor=True)
    actor = MixedActor(workers, additions, micro_batch_size=1)
    batch = batch_of(mini_batch_size=4)
    output = actor.update_actor(batch)
    # Two ranks, two mini-batches: one row more for each pair of policy rows, of which two are ours.
    responses = [row["responses"].tolist() for row in workers.rows]
    assert responses == [
        *([0], [1], [5, 6, 0]),
        *([2], [3], [0]),
        *([4], [5], [0]),
        *([6], [7], [0]),
    ]
    (seen,) = workers.seen
    assert seen.extra_info == {
        "mini_batch_size": 6,
        "global_batch_size": 4,
        "policy_share": 0.75,
        "expert_phi": True,
    }
    assert [tag.get("is_padding", False) for tag in seen.tags] == [False, False, True] * 4
    assert batch.extra_info["mini_batch_size"] == 4
    assert [one.tolist() for one in actor.cross_entropy] == [[1.0, 2.0, 3.0], [4.0]]
    assert dict(output["metrics"]) == {"loss": 1.0, "mfu": 0.5}


def test_the_rows_are_weighted_and_numbered_and_those_that_fill_up_are_neither(
    queue: MemoryQueue,
) -> None:
    workers = Watching(queue, ranks=1, reported=[(1, [1.0]), (2, [1.0])])
    MixedActor(workers, Additions(ADDED), micro_batch_size=4).update_actor(batch_of(8))
    first, second, *filling = workers.rows[len(KEYS) :]
    assert first["refine_weight"].tolist() == [0.5, 0.25, 0.125]
    assert first["refine_number"].item() == 1
    assert (second["refine_weight"].tolist(), second["refine_number"].item()) == ([2.0], 2)
    assert len(filling) == 2
    assert workers.stored == len(workers.rows)
    for row in filling:
        assert row["input_ids"].tolist() == [1, 0]
        assert (row["refine_weight"].tolist(), row["refine_number"].item()) == ([0.0], 0)
    for row in workers.rows[: len(KEYS)]:
        assert (row["refine_weight"].tolist(), row["refine_number"].item()) == ([0.0], 0)
    # The losses' fields that the policy rows have, and no other.
    assert first["advantages"].tolist() == first["ref_log_prob"].tolist() == [0.0] * 3
    assert "old_log_probs" not in first and "refine_label" not in first


def test_the_added_rows_are_cleared_after_the_update(queue: MemoryQueue) -> None:
    workers = Watching(queue, reported=[(1, [1.0]), (2, [1.0])])
    MixedActor(workers, Additions(ADDED), micro_batch_size=1).update_actor(batch_of(4))
    assert list(queue.rows) == KEYS


def test_rows_and_labels_are_numbered_one_after_the_other(queue: MemoryQueue) -> None:
    labels = [RowLabels("b_3_0", torch.tensor([9]), torch.tensor([0.5]))]
    workers = Watching(queue, ranks=1, reported=[(3, [6.0]), (1, [1.0])])
    actor = MixedActor(workers, Additions(ADDED, labels), micro_batch_size=1)
    actor.update_actor(batch_of(8))
    # Label 9 with 0.5; the rows' own tokens with their weights.
    assert queue.field("refine_label")["b_3_0"] == [0x3F000000 * 2**32 + 10]
    codes = [row["refine_label"] for row in workers.rows[-2:]]
    assert [labels_plus_one(code).tolist() for code in codes] == [[6, 7, 1], [1]]
    assert [weights(code).tolist() for code in codes] == [[0.5, 0.25, 0.125], [2.0]]
    numbers = [row["refine_number"].item() for row in workers.rows]
    assert numbers == [0] * 7 + [3, 1, 2]
    assert all("refine_weight" not in row for row in workers.rows)
    # Nothing is known of a row that no micro-batch reports on.
    assert [one.tolist() for one in actor.cross_entropy] == [[1.0], [], [6.0]]
