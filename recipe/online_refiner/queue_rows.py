"""Reading and writing rows of verl's TransferQueue in the shapes that the constraint works on."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from recipe.online_refiner.agent_loop import JUDGE_FAILED_KEY
from recipe.online_refiner.constraint import kl_estimate
from recipe.online_refiner.episodes import ROW_KEY, Episode, RefineRecord, RolloutRow


def read_rollouts(batch: KVBatchMeta) -> list[RolloutRow]:
    """The batch's real rows, in its order."""
    keys = _real_keys(batch)
    fields = ["uid", "prompts", "responses", "extra_fields", "extra_info"]
    data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=fields)
    columns = zip(
        keys,
        list(data["uid"]),
        data["prompts"].unbind(),
        data["responses"].unbind(),
        list(data["extra_fields"]),
        list(data["extra_info"]),
        strict=True,
    )
    return [_rollout_row(*column) for column in columns]


def stand_in_for_reference(batch: KVBatchMeta) -> None:
    """Store the actor's log-probs as the reference's, where the KL only has to exist this step."""
    data = tq.kv_batch_get(
        keys=batch.keys, partition_id=batch.partition_id, select_fields=["old_log_probs"]
    )
    fields = TensorDict({"ref_log_prob": data["old_log_probs"]}, batch_size=len(batch))
    tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)


def log_prob_metrics(batch: KVBatchMeta, with_reference: bool) -> dict[str, float]:
    """What the stored log-probs say of the policy: against the reference, and against its engine.

    `monitor/kl_to_reference` in nats a response, where the reference was forwarded;
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


def _real_keys(batch: KVBatchMeta) -> list[str]:
    """Keys of the rows that are no padding."""
    return [
        key
        for key, tag in zip(batch.keys, batch.tags, strict=True)
        if not tag.get("is_padding", False)
    ]


def _rollout_row(
    key: str,
    uid: str,
    prompt_ids: torch.Tensor,
    answer_ids: torch.Tensor,
    extra_fields: Mapping[str, Any],
    extra_info: Mapping[str, Any],
) -> RolloutRow:
    extras = extra_fields["reward_extra_info"]
    refined = extra_fields.get(ROW_KEY)
    prompt, answer = tuple(prompt_ids.tolist()), tuple(answer_ids.tolist())
    episode = None
    if refined is not None:
        episode = Episode(
            uid=uid,
            problem_id=str(extra_info.get("problem_id", extra_info.get("index", ""))),
            prompt_ids=prompt,
            answer_ids=answer,
            record=RefineRecord.from_row(refined),
        )
    return RolloutRow(
        key=key,
        uid=uid,
        prompt_ids=prompt,
        answer_ids=answer,
        reward=float(extras.get("score", 0.0)),
        judged=not extras.get(JUDGE_FAILED_KEY, 0),
        reference=str(extra_info.get("reference_solution") or ""),
        episode=episode,
    )


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
