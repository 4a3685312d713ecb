"""DAPO's dynamic sampling on judged rollouts alone.

verl drops a group whose rewards are all the same. A rollout without a verdict has 0.0 in its row,
which is no reward: beside equal rewards it would pass for a signal, though the group then has no
advantage in the update, where such a rollout gets the mean of the others. So the agent loop tags
these rows, and a group that has some is compared without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import transfer_queue as tq

from recipe.online_refiner.choices import REFINABLE, REFINEMENT_KEY
from recipe.online_refiner.queue.dropped import TRAINING
from recipe.online_refiner.scores import group_value

UNJUDGED_TAG = "unjudged"
"""Tag of a row whose rollout has no verdict."""


async def tag_unjudged(keys: Sequence[str]) -> None:
    """Tag stored rows of the training. Called before verl takes their group for finished."""
    tags = [{UNJUDGED_TAG: True} for _ in keys]
    await tq.async_kv_batch_put(keys=list(keys), partition_id=TRAINING, tags=tags)


class JudgedGroups:
    """Decides in the place of verl's replay buffer which groups with tagged rows have a signal.

    verl classifies a group once and looks it up afterwards; ours are entered before it looks.
    """

    def __init__(self) -> None:
        self._unjudged = 0

    def watch(self, buffer: Any) -> None:
        """Have a buffer that filters groups do so by the judged rollouts."""
        filtered, clear = buffer._dapo_filtered_keys, buffer._clear_groups

        def filtered_by_judged(partition_id: str) -> Any:
            if partition_id == TRAINING:
                _classify(buffer)
            return filtered(partition_id)

        def counted(partition_id: str, uids: set[str]) -> None:
            if partition_id == TRAINING:
                self._unjudged += sum(
                    _is_tagged(tag) and _group_of(key) in uids
                    for key, tag in buffer.partitions[TRAINING].items()
                )
            clear(partition_id, uids)

        buffer._dapo_filtered_keys, buffer._clear_groups = filtered_by_judged, counted

    def take(self) -> int:
        """Rollouts without a verdict that were dropped with their groups since the last call."""
        taken, self._unjudged = self._unjudged, 0
        return taken


def _classify(buffer: Any) -> None:
    """Enter the newly finished groups that have tagged rows into verl's cache."""
    tags, cache = buffer.partitions[TRAINING], buffer._dapo_classification_cache[TRAINING]
    tagged = {_group_of(key) for key, tag in tags.items() if _is_tagged(tag)}
    judged: dict[str, list[str]] = {
        uid: [] for uid in tagged & buffer.finished_keys[TRAINING] if uid not in cache
    }
    for key, tag in tags.items():
        if _group_of(key) in judged and not _is_tagged(tag):
            judged[_group_of(key)].append(key)
    for uid, keys in judged.items():
        cache[uid] = _shared_value(keys, str(buffer.filter_groups_metric))


def _shared_value(keys: Sequence[str], metric: str) -> float | None:
    """What the judged rollouts of a group have in common, 0.0 if there is none; None if they
    differ, or if an accepted refinement is to keep the group.
    """
    if not keys:
        return 0.0
    data = tq.kv_batch_get(
        keys=list(keys), partition_id=TRAINING, select_fields=["rm_scores", "extra_fields"]
    )
    extras = [getattr(one, "data", one) for one in data["extra_fields"]]
    values = [
        group_value(one.get("reward_extra_info", {}), metric, float(scores.sum()))
        for one, scores in zip(extras, data["rm_scores"], strict=True)
    ]
    refined = any(one.get(REFINEMENT_KEY, {}).get("accepted") for one in extras)
    has_signal = min(values) != max(values) or (refined and metric.startswith(REFINABLE))
    return None if has_signal else values[0]


def _group_of(key: str) -> str:
    """verl's key of a row begins with its group."""
    return key.split("_")[0]


def _is_tagged(tag: dict[str, Any]) -> bool:
    return bool(tag.get(UNJUDGED_TAG))
