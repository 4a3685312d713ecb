"""The policy's cross entropy on refinements, by a forward pass of the actor given s0 alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import transfer_queue as tq
from verl.workers.utils.padding import response_from_nested

from recipe.online_refiner.choices import CROSS_ENTROPY_PARTITION
from recipe.online_refiner.method.accepted import with_cross_entropy
from recipe.online_refiner.queue.rollouts import ranks_of, temporary_rows
from recipe.online_refiner.records import RefinedRollout
from recipe.online_refiner.update.rows import interleaved, response_row, rounded_up


def measure(
    accepted: Sequence[RefinedRollout],
    worker_group: Any,
    temperature: float,
    micro_batch_size: int,
) -> list[RefinedRollout]:
    """c_t = -log π_θ(a'_t | s0, a'_<t) of each accepted refinement.

    Args:
        temperature: the rollout's, so that c_t is of the distribution that is trained.
        micro_batch_size: rows per forward pass and rank; 1 if verl packs by token count.
    """
    if not accepted:
        return []
    rows = [response_row(one.rollout.prompt_ids, one.refinement.token_ids) for one in accepted]
    ranks = ranks_of(worker_group)
    count = rounded_up(len(rows), ranks * micro_batch_size)
    shortest = min(rows, key=lambda row: len(row["input_ids"]))
    rows += [shortest] * (count - len(rows))
    order = interleaved((), range(count), ranks, mini_batches=1)
    with temporary_rows([rows[index] for index in order], CROSS_ENTROPY_PARTITION) as batch:
        batch.extra_info = {
            "calculate_entropy": False,
            "compute_loss": False,
            "temperature": temperature,
        }
        worker_group.compute_log_prob(batch)
        data = tq.kv_batch_get(
            keys=batch.keys,
            partition_id=batch.partition_id,
            select_fields=["log_probs", "response_mask"],
        )
    log_probs = response_from_nested(data["log_probs"], data["response_mask"]).unbind()
    of_row = dict(zip(order, log_probs, strict=True))
    return with_cross_entropy(accepted, [-of_row[row].float() for row in range(len(accepted))])
