"""A penalty taken from the rewards or the advantages that are stored in the queue."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.workers.utils.padding import response_to_nested

from recipe.online_refiner.choices import Place
from recipe.online_refiner.method.constraint import Penalty
from recipe.online_refiner.method.maths import penalised

REWARDS, ADVANTAGES = "rm_scores", "advantages"
"""verl's fields of a row."""


@contextmanager
def taken_from_rewards(batch: KVBatchMeta, penalty: Penalty | None) -> Iterator[None]:
    """Within the block the stored rewards are r_t - penalty_t; afterwards they are as they were.

    The advantages and returns computed inside include the penalty; what is logged does not.
    """
    if penalty is None or penalty.place is not Place.REWARDS:
        yield
        return
    before = _subtract(batch, penalty, REWARDS)
    try:
        yield
    finally:
        _put(batch, penalty, REWARDS, before)


def take_from_advantages(batch: KVBatchMeta, penalty: Penalty | None) -> None:
    """Store Â_t - penalty_t, once verl has stored the advantages; returns stay as they are."""
    if penalty is not None and penalty.place is Place.ADVANTAGES:
        _subtract(batch, penalty, ADVANTAGES)


def _subtract(batch: KVBatchMeta, penalty: Penalty, field: str) -> torch.Tensor:
    """Subtract on the unmasked tokens; returns what was stored before."""
    data = tq.kv_batch_get(
        keys=list(penalty.keys),
        partition_id=batch.partition_id,
        select_fields=[field, "response_mask"],
    )
    before, nested_mask = data[field].clone(), data["response_mask"]
    padded = data.to_padded_tensor()
    values = penalised(padded[field], penalty.values_BT, padded["response_mask"])
    _put(batch, penalty, field, response_to_nested(values, nested_mask))
    return before


def _put(batch: KVBatchMeta, penalty: Penalty, field: str, values: torch.Tensor) -> None:
    fields = TensorDict({field: values}, batch_size=len(penalty.keys))
    tq.kv_batch_put(keys=list(penalty.keys), partition_id=batch.partition_id, fields=fields)
