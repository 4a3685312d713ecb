"""The rollouts of a batch, read from verl's TransferQueue; rows put there for a while."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from recipe.online_refiner.choices import REFINEMENT_KEY
from recipe.online_refiner.method.maths import kl_estimate, neutral_rewards
from recipe.online_refiner.records import Refinement, Rollout
from recipe.online_refiner.scores import score_of


def read_rollouts(batch: KVBatchMeta) -> list[Rollout]:
    """The batch's real rows, in its order."""
    keys = _real_keys(batch)
    fields = ["uid", "prompts", "responses", "response_mask", "extra_fields", "extra_info"]
    data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=fields)
    rows = zip(*(_column(data[name]) for name in fields), strict=True)
    return [
        _rollout(key, dict(zip(fields, row, strict=True)))
        for key, row in zip(keys, rows, strict=True)
    ]


def _column(values: Any) -> list[Any]:
    """The rows' values: tensors of a nested one, or the objects of a list."""
    return list(values.unbind()) if isinstance(values, torch.Tensor) else list(values)


def stand_in_for_reference(batch: KVBatchMeta) -> None:
    """Store the actor's log-probs as the reference's, if the KL only has to exist this step."""
    data = tq.kv_batch_get(
        keys=batch.keys, partition_id=batch.partition_id, select_fields=["old_log_probs"]
    )
    fields = TensorDict({"ref_log_prob": data["old_log_probs"]}, batch_size=len(batch))
    tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)


def log_prob_metrics(batch: KVBatchMeta, with_reference: bool) -> dict[str, float]:
    """What the stored log-probs say of the policy: against the reference, and against its engine.

    `monitor/kl_to_reference` in nats a response, if the reference was forwarded;
    `monitor/rollout_logprob_diff_max` the largest |log-prob of the actor - of the rollout engine|
    over the sampled tokens in nats, which a wrong weight sync would show.
    """
    fields = ["old_log_probs", "ref_log_prob", "rollout_log_probs", "response_mask"]
    data = tq.kv_batch_get(
        keys=_real_keys(batch), partition_id=batch.partition_id, select_fields=fields
    ).to_padded_tensor()
    actor, mask = data["old_log_probs"], data["response_mask"]
    metrics = {}
    if with_reference and "ref_log_prob" in data:
        metrics["monitor/kl_to_reference"] = kl_estimate(actor, data["ref_log_prob"], mask).item()
    if "rollout_log_probs" in data:
        difference = ((actor - data["rollout_log_probs"]) * mask).abs()
        metrics["monitor/rollout_logprob_diff_max"] = difference.max().item()
    return metrics


def token_columns(batch: KVBatchMeta, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What is stored per token of these rollouts, for the log: by key, then by column.

    `advantage` is one number if all tokens have the same; `entropy` is the policy's in nats, absent
    if verl has made no pass over the rollouts.
    """
    if not keys:
        return {}
    fields = {"advantages": ("advantage", 6), "entropy": ("entropy", 4)}
    data = tq.kv_batch_get(
        keys=list(keys), partition_id=batch.partition_id, select_fields=list(fields)
    )
    found: dict[str, dict[str, Any]] = {key: {} for key in keys}
    for field, (column, decimals) in fields.items():
        if field in data:
            for key, values in zip(keys, _column(data[field]), strict=True):
                found[key][column] = _shortest(values.double().round(decimals=decimals).tolist())
    return found


def _shortest(values: list[float]) -> list[float] | float:
    """One number for a list of many equal ones: a group's advantage is the same on all tokens."""
    return values[0] if len(values) > 1 and min(values) == max(values) else values


def _real_keys(batch: KVBatchMeta) -> list[str]:
    """Keys of the rows that are no padding."""
    return [
        key
        for key, tag in zip(batch.keys, batch.tags, strict=True)
        if not tag.get("is_padding", False)
    ]


def _rollout(key: str, row: Mapping[str, Any]) -> Rollout:
    score, info = score_of(row["extra_fields"].get("reward_extra_info", {})), row["extra_info"]
    refinement = row["extra_fields"].get(REFINEMENT_KEY)
    return Rollout(
        key=key,
        uid=row["uid"],
        problem_id=str(info.get("problem_id", info.get("index", ""))),
        prompt_ids=tuple(row["prompts"].tolist()),
        response_ids=tuple(row["responses"].tolist()),
        response_mask=tuple(row["response_mask"].tolist()),
        reward=score.reward,
        judged=score.judged,
        reference=str(info.get("reference_solution") or ""),
        refinement=None if refinement is None else Refinement.from_row(refinement),
        verdict=score.verdict,
    )


def neutralise_unjudged(batch: KVBatchMeta, rollouts: Sequence[Rollout]) -> int:
    """Give rows without a verdict their group's mean reward; their tokens are masked out.

    Returns how many there are.
    """
    unjudged = [index for index, rollout in enumerate(rollouts) if not rollout.judged]
    if not unjudged:
        return 0
    keys = [rollouts[index].key for index in unjudged]
    scores = tq.kv_batch_get(
        keys=keys, partition_id=batch.partition_id, select_fields=["rm_scores"]
    )["rm_scores"]
    means = neutral_rewards([(one.uid, one.reward, one.judged) for one in rollouts])
    scores = scores.clone()
    scores.values()[scores.offsets()[1:] - 1] = scores.values().new_tensor(
        [means[index] for index in unjudged]
    )
    fields = TensorDict({"rm_scores": scores}, batch_size=len(keys))
    tq.kv_batch_put(keys=keys, partition_id=batch.partition_id, fields=fields)
    return len(unjudged)


@contextmanager
def temporary_rows(
    rows: Sequence[Mapping[str, torch.Tensor]], partition_id: str
) -> Iterator[KVBatchMeta]:
    """Put rows under fresh keys for the length of the block; they are cleared however it ends."""
    run = uuid4().hex
    keys = [f"refined{run}_{index}_0" for index in range(len(rows))]
    tags = [{"is_padding": True} for _ in rows]
    fields = list_of_dict_to_tensordict([dict(row) for row in rows])
    tq.kv_batch_put(keys=keys, partition_id=partition_id, fields=fields, tags=tags)
    try:
        yield KVBatchMeta(keys=keys, tags=tags, partition_id=partition_id)
    finally:
        tq.kv_clear(keys=keys, partition_id=partition_id)


def ranks_of(worker_group: Any) -> int:
    """Data-parallel size of the actor's worker group."""
    role = "actor"
    if role not in worker_group._dispatch_info:
        worker_group._dispatch_info[role] = worker_group._query_dispatch_info(role)
    return max(worker_group._dispatch_info[role]) + 1
