"""Rows of verl's queue: read as rollouts, given a reward or a reference, put there for a while."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from memory_queue import MemoryQueue, Row
from steps import refinement
from transfer_queue import KVBatchMeta
from worker_group import WorkerGroup

from recipe.online_refiner.queue.rollouts import (
    log_prob_metrics,
    neutralise_unjudged,
    ranks_of,
    read_rollouts,
    stand_in_for_reference,
    temporary_rows,
)

REFINED = refinement((5, 7, 0), (1, 0, 0))


def row(uid: str, response: list[int], reward: float, **changes: Any) -> Row:
    """A row as verl's agent loop writes it, rewarded on its last token."""
    extras: Row = {"score": reward}
    return {
        "uid": uid,
        "prompts": torch.tensor([1, 2]),
        "responses": torch.tensor(response),
        "response_mask": torch.ones(len(response), dtype=torch.int64),
        "rm_scores": torch.tensor([0.0] * (len(response) - 1) + [reward]),
        "extra_fields": {"reward_extra_info": extras},
        "extra_info": {"index": 7},
        **changes,
    }


ROWS = {
    "a_0_0": row(
        *("a", [5, 6], -0.3),
        extra_fields={"reward_extra_info": {"score": -0.3}, "refine": REFINED.to_row()},
        extra_info={"problem_id": "sum", "reference_solution": "print(1)"},
    ),
    "a_1_0": row("a", [9], 1.0),
    "a_2_0": row(
        *("a", [8, 8, 8], 0.0),
        response_mask=torch.tensor([0, 0, 0]),
        extra_fields={"reward_extra_info": {"judge_failed": 1}},
    ),
    "pad": row("a", [5, 6], 9.0),
}
BATCH = KVBatchMeta(
    keys=list(ROWS),
    tags=[{}, {"is_padding": False}, {}, {"is_padding": True}],
    partition_id="train",
)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> MemoryQueue:
    return MemoryQueue.installed(monkeypatch, ROWS)


def test_rollouts_are_the_rows_that_are_no_padding(queue: MemoryQueue) -> None:
    first, second, third = read_rollouts(BATCH)
    assert (first.key, first.uid, first.problem_id) == ("a_0_0", "a", "sum")
    assert (first.prompt_ids, first.response_ids, first.response_mask) == ((1, 2), (5, 6), (1, 1))
    assert (first.reward, first.judged, first.reference) == (-0.3, True, "print(1)")
    assert first.refinement == REFINED
    assert (second.problem_id, second.reference, second.refinement) == ("7", "", None)
    assert (second.response_ids, second.reward, second.judged) == ((9,), 1.0, True)
    # Without a verdict there is no score.
    assert (third.reward, third.judged, third.response_mask) == (0.0, False, (0, 0, 0))


def test_a_row_without_a_verdict_gets_the_mean_of_its_groups_judged_rows_on_its_last_token(
    queue: MemoryQueue,
) -> None:
    before = queue.field("rm_scores")
    assert neutralise_unjudged(BATCH, read_rollouts(BATCH)) == 1
    after = queue.field("rm_scores")
    assert after.pop("a_2_0") == pytest.approx([0.0, 0.0, (-0.3 + 1.0) / 2])
    del before["a_2_0"]
    assert after == before


def test_of_rows_without_a_verdict_each_gets_its_own_groups_mean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = {"reward_extra_info": {"judge_failed": 1}}
    rows = {
        "a_0_0": row("a", [5], 0.5),
        "a_1_0": row("a", [5, 5], 0.0, extra_fields=failed),
        "b_0_0": row("b", [5], -1.0),
        "b_1_0": row("b", [5, 5, 5], 0.0, extra_fields=failed),
    }
    queue = MemoryQueue.installed(monkeypatch, rows)
    batch = KVBatchMeta(keys=list(rows), tags=[{}] * 4, partition_id="train")
    assert neutralise_unjudged(batch, read_rollouts(batch)) == 2
    assert queue.field("rm_scores") == {
        "a_0_0": [0.5],
        "a_1_0": [0.0, 0.5],
        "b_0_0": [-1.0],
        "b_1_0": [0.0, 0.0, -1.0],
    }


def test_if_every_row_has_a_verdict_no_reward_is_written(queue: MemoryQueue) -> None:
    judged = [one for one in read_rollouts(BATCH) if one.judged]
    before = queue.field("rm_scores")
    assert neutralise_unjudged(BATCH, judged) == 0
    assert queue.field("rm_scores") == before


def test_the_actor_stands_in_for_the_reference_on_every_row(queue: MemoryQueue) -> None:
    for key, stored in queue.rows.items():
        stored["old_log_probs"] = torch.full((len(stored["responses"]),), float(len(key)))
    stand_in_for_reference(BATCH)
    assert queue.field("ref_log_prob") == queue.field("old_log_probs")
    assert list(queue.field("ref_log_prob")) == list(ROWS)


def put_log_probs(queue: MemoryQueue, name: str, values: dict[str, list[float]]) -> None:
    for key, found in values.items():
        queue.rows[key][name] = torch.tensor(found)


def test_log_probs_are_compared_on_real_rows_and_unmasked_tokens(queue: MemoryQueue) -> None:
    put_log_probs(queue, "old_log_probs", {"a_0_0": [-1.0, -2.0], "a_1_0": [-0.5]})
    put_log_probs(queue, "old_log_probs", {"a_2_0": [-9.0] * 3, "pad": [-90.0, -90.0]})
    put_log_probs(queue, "ref_log_prob", {"a_0_0": [-1.5, -2.25], "a_1_0": [-0.25]})
    put_log_probs(queue, "ref_log_prob", {"a_2_0": [0.0] * 3, "pad": [0.0, 0.0]})
    # (0.5 + 0.25) and -0.25, and a masked row, over three rows.
    expected = {"monitor/kl_to_reference": pytest.approx((0.75 - 0.25) / 3)}
    assert log_prob_metrics(BATCH, with_reference=True) == expected
    assert log_prob_metrics(BATCH, with_reference=False) == {}
    put_log_probs(queue, "rollout_log_probs", {"a_0_0": [-1.0, -1.5], "a_1_0": [-0.625]})
    put_log_probs(queue, "rollout_log_probs", {"a_2_0": [0.0] * 3, "pad": [0.0, 0.0]})
    expected["monitor/rollout_logprob_diff_max"] = pytest.approx(0.5)
    assert log_prob_metrics(BATCH, with_reference=True) == expected


def test_a_reference_that_was_not_forwarded_gives_no_kl(queue: MemoryQueue) -> None:
    put_log_probs(queue, "old_log_probs", {key: [-1.0] for key in ("a_0_0", "a_1_0", "a_2_0")})
    assert log_prob_metrics(BATCH, with_reference=True) == {}


def test_temporary_rows_are_there_within_the_block_and_marked_as_padding(
    queue: MemoryQueue,
) -> None:
    rows = [{"responses": torch.tensor([1, 2])}, {"responses": torch.tensor([3])}]
    with pytest.raises(RuntimeError, match="verl"), temporary_rows(rows, "other") as batch:
        assert batch.partition_id == "other"
        assert batch.tags == [{"is_padding": True}] * 2
        assert [queue.tags[key] for key in batch.keys] == batch.tags
        assert list(queue.field("responses", "other").values()) == [[1, 2], [3]]
        # verl takes a key apart: group, session, output.
        assert all(len(key.rsplit("_", 2)) == 3 for key in batch.keys)
        raise RuntimeError("verl failed")
    assert queue.field("responses", "other") == {}


def test_two_blocks_at_once_have_rows_of_their_own(queue: MemoryQueue) -> None:
    rows = [{"responses": torch.tensor([1])}]
    with temporary_rows(rows, "other") as first, temporary_rows(rows, "other") as second:
        assert not set(first.keys) & set(second.keys)


def test_the_ranks_of_a_worker_group_are_asked_for_once(queue: MemoryQueue) -> None:
    workers = WorkerGroup(queue, ranks=3)
    assert ranks_of(workers) == 3
    workers._query_dispatch_info = None  # type: ignore[method-assign,assignment]
    assert ranks_of(workers) == 3
