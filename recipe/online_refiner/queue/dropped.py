"""The rollouts that verl's replay buffer throws away, told before they are gone."""

from collections.abc import Callable
from typing import Any

from transfer_queue import KVBatchMeta

from recipe.online_refiner.queue.rollouts import read_rollouts
from recipe.online_refiner.records import Rollout

TRAINING = "train"
"""verl's name of the partition that training rollouts are in."""


def tell_dropped(buffer: Any, tell: Callable[[list[Rollout]], None]) -> None:
    """Have `tell` called with the finished rollouts of each group that the buffer clears.

    These are groups without a signal, what dynamic sampling made beyond the batch, and groups that
    are too old or failed. verl clears them while it samples, and counts no more than groups.
    """
    clear = buffer._clear_groups

    def told(partition_id: str, uids: set[str]) -> None:
        rows = buffer.partitions[partition_id] if partition_id == TRAINING else {}
        found = {key: tag for key, tag in rows.items() if key.split("_")[0] in uids}
        if found:
            keys, tags = list(found), list(found.values())
            tell(read_rollouts(KVBatchMeta(keys=keys, tags=tags, partition_id=partition_id)))
        clear(partition_id, uids)

    buffer._clear_groups = told
