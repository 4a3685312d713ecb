"""Labels in verl's queue: on every row of the batch, and measured on the labelled ones."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu

from recipe.online_refiner.method.constraint import Additions
from recipe.online_refiner.method.labels import RowLabels
from recipe.online_refiner.update.asked_actor import AskedActor
from recipe.online_refiner.update.mixed_actor import MixedActor

LENGTHS = {"a": (2, 3), "b": (1, 2), "c": (2, 1), "d": (1, 1)}
"""Tokens of the prompt and of the response of each row."""
LABELS = [
    RowLabels("c", torch.tensor([7]), torch.tensor([0.5])),
    RowLabels("a", torch.tensor([5, -1, 6]), torch.tensor([0.25, 0.0, 0.125])),
]


class Queue:
    """Rows in memory, behind the functions of TransferQueue that are called."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, torch.Tensor]] = {
            key: {
                "input_ids": torch.arange(prompt + response),
                "responses": torch.arange(response),
                "response_mask": torch.ones(response, dtype=torch.int64),
            }
            for key, (prompt, response) in LENGTHS.items()
        }

    def get(self, keys: list[str], partition_id: str, select_fields: Sequence[str]) -> TensorDict:
        fields = {
            name: torch.nested.as_nested_tensor(
                [self.rows[key][name] for key in keys], layout=torch.jagged
            )
            for name in select_fields
        }
        return TensorDict(fields, batch_size=len(keys))

    def put(self, keys: list[str], partition_id: str, fields: TensorDict) -> None:
        for name in fields.keys():  # noqa: SIM118  (a TensorDict iterates over its rows)
            for key, row in zip(keys, fields[name].unbind(), strict=True):
                self.rows[key][name] = row.clone()

    def field(self, name: str) -> dict[str, list[float]]:
        return {key: row[name].tolist() for key, row in self.rows.items() if name in row}


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    made = Queue()
    monkeypatch.setattr(tq, "kv_batch_get", made.get)
    monkeypatch.setattr(tq, "kv_batch_put", made.put)
    return made


class Workers:
    """verl's worker group: its passes write what the engine would, and are remembered."""

    _dispatch_info = {"actor": [0, 1]}  # noqa: RUF012  (verl's name of the ranks)

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.seen: list[KVBatchMeta] = []

    def compute_log_prob(self, batch: KVBatchMeta) -> KVBatchMeta:
        """Own log-probs of -1, -2, … over the whole sequence, and margins of -0.5 throughout."""
        self.seen.append(batch)
        for key in batch.keys:
            tokens = sum(LENGTHS[key])
            self._queue.rows[key]["log_probs"] = -1.0 - torch.arange(tokens)
            self._queue.rows[key]["refine_label_margin"] = torch.full((tokens,), -0.5)
        return batch

    def update_actor(self, batch: KVBatchMeta) -> TensorDict:
        self.seen.append(batch)
        metrics = {"loss": 1.0, "refine_ce": [(2, [0.1, 0.2]), (1, [3.0]), (1, [9.0])]}
        return tu.get_tensordict(tensor_dict={}, non_tensor_dict={"metrics": metrics})


def batch_of(**extra_info: Any) -> KVBatchMeta:
    return KVBatchMeta(
        keys=list(LENGTHS), tags=[{}] * 4, partition_id="train", extra_info=extra_info
    )


def test_verls_pass_measures_the_labelled_steps_and_its_batch_is_left_as_it_was(
    queue: Queue,
) -> None:
    workers, batch = Workers(queue), batch_of(compute_loss=False, temperature=0.5)
    actor = AskedActor(workers, LABELS)
    assert actor.cross_entropy is None
    actor.compute_log_prob(batch)
    assert queue.field("refine_label") == {"a": [5, -1, 6], "b": [-1, -1], "c": [7], "d": [-1]}
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
    queue: Queue,
) -> None:
    workers = Workers(queue)
    actor = AskedActor(workers, LABELS[:1])
    actor.measure(batch_of(), 0.5, micro_batch_size=1)
    (seen,) = workers.seen
    assert seen.keys == ["c", "a"]
    assert actor.cross_entropy is not None
    assert [one.tolist() for one in actor.cross_entropy] == [[2.5]]


def test_without_rows_or_labels_the_policys_share_still_reaches_the_loss(queue: Queue) -> None:
    workers = Workers(queue)
    actor = MixedActor(workers, Additions(policy_share=0.75), micro_batch_size=1)
    actor.update_actor(batch_of(mini_batch_size=2))
    (seen,) = workers.seen
    assert seen.keys == list(LENGTHS)
    assert (seen.extra_info["mini_batch_size"], seen.extra_info["policy_share"]) == (2, 0.75)
    # By this field the loss knows that it is not verl's alone.
    weights = {"a": [0.0, 0.0, 0.0], "b": [0.0, 0.0], "c": [0.0], "d": [0.0]}
    assert queue.field("refine_weight") == weights
    assert actor.cross_entropy == []


def test_labels_ride_on_the_policys_rows_in_the_update(queue: Queue) -> None:
    workers = Workers(queue)
    actor = MixedActor(workers, Additions(labels=LABELS), micro_batch_size=1)
    output = actor.update_actor(batch_of(mini_batch_size=4))
    (seen,) = workers.seen
    assert seen.keys == list(LENGTHS)
    assert seen.extra_info["mini_batch_size"] == 4
    assert seen.extra_info["distillation_use_topk"]
    weights = {"a": [0.25, 0.0, 0.125], "b": [0.0, 0.0], "c": [0.5], "d": [0.0]}
    assert queue.field("refine_weight") == weights
    assert queue.field("refine_number") == {"a": [2, 0, 2], "b": [0, 0], "c": [1], "d": [0]}
    assert queue.field("refine_label") == {"a": [5, -1, 6], "b": [-1, -1], "c": [7], "d": [-1]}
    assert [one.tolist() for one in actor.cross_entropy] == [
        [3.0],
        pytest.approx([0.1, 0.2]),
    ]
    assert dict(output["metrics"]) == {"loss": 1.0}
