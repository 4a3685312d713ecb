"""Labels in verl's queue: on every row of the batch, and measured on the labelled ones."""

from typing import Any

import pytest
import torch
from memory_queue import MemoryQueue
from transfer_queue import KVBatchMeta
from worker_group import WorkerGroup

from recipe.online_refiner.method.constraint import Additions
from recipe.online_refiner.method.labels import RowLabels
from recipe.online_refiner.queue import label_code
from recipe.online_refiner.queue.label_fields import label_values, without_measured
from recipe.online_refiner.update.asked_actor import AskedActor
from recipe.online_refiner.update.mixed_actor import MixedActor

LENGTHS = {"a": (2, 3), "b": (1, 2), "c": (2, 1), "d": (1, 1)}
"""Tokens of the prompt and of the response of each row."""
LABELS = [
    RowLabels("c", torch.tensor([7]), torch.tensor([0.5])),
    RowLabels("a", torch.tensor([5, -1, 6]), torch.tensor([0.25, 0.0, 0.125])),
]


def test_a_label_and_its_weight_share_one_value_whatever_the_weights_sign() -> None:
    ids, given = torch.tensor([-1, 0, 150_000]), torch.tensor([0.0, -0.3, 0.25])
    values = label_code.coded(ids, given)
    assert torch.equal(label_code.labels_plus_one(values), ids + 1)
    assert torch.equal(label_code.weights(values), given)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> MemoryQueue:
    rows = {
        key: {
            "input_ids": torch.arange(prompt + response),
            "responses": torch.arange(response),
            "response_mask": torch.ones(response, dtype=torch.int64),
        }
        for key, (prompt, response) in LENGTHS.items()
    }
    return MemoryQueue.installed(monkeypatch, rows)


def batch_of(**extra_info: Any) -> KVBatchMeta:
    return KVBatchMeta(
        keys=list(LENGTHS), tags=[{}] * 4, partition_id="train", extra_info=extra_info
    )


def test_verls_pass_measures_the_labelled_steps_and_its_batch_is_left_as_it_was(
    queue: MemoryQueue,
) -> None:
    workers, batch = WorkerGroup(queue), batch_of(compute_loss=False, temperature=0.5)
    actor = AskedActor(workers, LABELS)
    assert actor.cross_entropy is None
    actor.compute_log_prob(batch)
    assert queue.field("refine_label") == {"a": [6, 0, 7], "b": [0, 0], "c": [8], "d": [0]}
    (seen,) = workers.seen
    assert seen.keys == batch.keys
    assert seen.extra_info == {
        "compute_loss": True,
        "refine_measure": True,
        "distillation_use_topk": True,
        "distillation_only": False,
        "temperature": 0.5,
    }
    assert batch.extra_info == {"compute_loss": False, "temperature": 0.5}
    # The state of response token t is one place before it: places 1 of c; 1 and 3 of a.
    assert actor.cross_entropy is not None
    assert [one.tolist() for one in actor.cross_entropy] == [[2.5], [2.5, 4.5]]


def test_without_verls_pass_the_labelled_rows_are_forwarded_and_no_more_than_fill_the_ranks(
    queue: MemoryQueue,
) -> None:
    workers = WorkerGroup(queue)
    actor = AskedActor(workers, LABELS[:1])
    actor.measure(batch_of(), 0.5, micro_batch_size=1)
    (seen,) = workers.seen
    assert seen.keys == ["c", "a"]
    assert seen.extra_info == {
        "calculate_entropy": False,
        "temperature": 0.5,
        "compute_loss": True,
        "refine_measure": True,
        "distillation_use_topk": True,
        "distillation_only": False,
    }
    assert actor.cross_entropy is not None
    assert [one.tolist() for one in actor.cross_entropy] == [[2.5]]


def test_what_else_verl_asks_of_the_worker_group_is_its_own(queue: MemoryQueue) -> None:
    workers = WorkerGroup(queue)
    assert AskedActor(workers, LABELS).seen is workers.seen


def test_without_rows_or_labels_the_policys_share_still_reaches_the_loss(
    queue: MemoryQueue,
) -> None:
    workers = WorkerGroup(queue)
    actor = MixedActor(workers, Additions(policy_share=0.75), micro_batch_size=1)
    actor.update_actor(batch_of(mini_batch_size=2))
    (seen,) = workers.seen
    assert seen.keys == list(LENGTHS)
    assert (seen.extra_info["mini_batch_size"], seen.extra_info["policy_share"]) == (2, 0.75)
    # By this field the loss knows that it is not verl's alone.
    weights = {"a": [0.0, 0.0, 0.0], "b": [0.0, 0.0], "c": [0.0], "d": [0.0]}
    assert queue.field("refine_weight") == weights
    assert actor.cross_entropy == []


def test_labels_ride_on_the_policys_rows_in_the_update(queue: MemoryQueue) -> None:
    workers = WorkerGroup(queue, reported=[(2, [0.1, 0.2]), (1, [3.0]), (1, [9.0])])
    actor = MixedActor(workers, Additions(labels=LABELS), micro_batch_size=1)
    output = actor.update_actor(batch_of(mini_batch_size=4))
    (seen,) = workers.seen
    assert seen.keys == list(LENGTHS)
    assert seen.extra_info["mini_batch_size"] == 4
    assert seen.extra_info["distillation_use_topk"]
    # Each label + 1, and 2^32 times the bits of its weight: 0.5, 0.25 and 0.125 as float32.
    half, quarter, eighth = (bits * 2**32 for bits in (0x3F000000, 0x3E800000, 0x3E000000))
    labels = {"a": [quarter + 6, 0, eighth + 7], "b": [0, 0], "c": [half + 8], "d": [0]}
    assert queue.field("refine_label") == labels
    assert queue.field("refine_number") == {"a": 2, "b": 0, "c": 1, "d": 0}
    assert queue.field("refine_weight") == {}
    assert [one.tolist() for one in actor.cross_entropy] == [
        [3.0],
        pytest.approx([0.1, 0.2]),
    ]
    assert dict(output["metrics"]) == {"loss": 1.0, "mfu": 0.5}


def test_rows_without_labels_have_none() -> None:
    assert label_values(["a_0", "a_1"], torch.tensor([0, 2, 3]), []).tolist() == [0, 0, 0]


def test_an_update_reads_no_field_that_only_a_pass_needed(queue: MemoryQueue) -> None:
    """A KVBatchMeta without a list of fields is for all of them."""
    batch = batch_of(temperature=0.5)
    assert without_measured(batch).fields is None
    batch.fields = ["responses", "refine_label", "old_log_probs", "refine_label_margin"]
    kept = without_measured(batch)
    assert kept.fields == ["responses", "old_log_probs"]
    assert (kept.keys, kept.extra_info) == (batch.keys, {"temperature": 0.5})
    assert len(batch.fields) == 4
    workers = WorkerGroup(queue)
    batch.extra_info["mini_batch_size"] = 4
    actor = MixedActor(workers, Additions(labels=LABELS), micro_batch_size=1)
    actor.update_actor(without_measured(batch))
    (seen,) = workers.seen
    assert seen.fields == ["responses", "old_log_probs", "refine_number", "refine_label"]
