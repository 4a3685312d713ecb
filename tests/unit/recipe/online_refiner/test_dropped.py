"""Rollouts that verl's own replay buffer drops, counted before they are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import transfer_queue as tq
from steps import refinement
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from recipe.online_refiner.agent_loop import refinable
from recipe.online_refiner.choices import REFINEMENT_KEY
from recipe.online_refiner.queue.dropped import tell_dropped
from recipe.online_refiner.queue.judged_groups import JudgedGroups, tag_unjudged
from recipe.online_refiner.queue.rollouts import read_rollouts
from recipe.online_refiner.records import Prompt, Refinement
from recipe.online_refiner.refine.counts import Dropped, counted

Row = dict[str, Any]

PERFECT = replace(refinement((), (), reward=1.0, refined=1.0), outcome="skipped_perfect")
BETTER = replace(refinement((5, 0), (0, 1)), generated_tokens=7, engine_calls=2)
WORSE = replace(refinement((6, 0), (0, 1), refined=-1.0), generated_tokens=3, engine_calls=1)


def row(reward: float, found: Refinement, number: int) -> Row:
    return {
        "uid": "",
        "rm_scores": torch.tensor([0.0, reward]),
        "prompts": torch.tensor([1, number]),
        "responses": torch.tensor([5, 0]),
        "response_mask": torch.ones(2, dtype=torch.int64),
        "extra_fields": {
            "reward_extra_info": {"score": reward, "verdict": ""},
            REFINEMENT_KEY: found.to_row(),
        },
        "extra_info": {"problem_id": str(number), "reference_solution": f"x = {number}"},
    }


class Queue:
    """Finished groups of two in memory, behind the functions of TransferQueue that are called."""

    def __init__(self, groups: Mapping[str, Sequence[Row]]) -> None:
        self.rows = {
            f"{uid}_{session}_0": {**one, "uid": uid}
            for uid, rows in groups.items()
            for session, one in enumerate(rows)
        }
        self.prompts = set(groups)
        self.running: set[str] = set()
        self.reads: list[tuple[set[str], Sequence[str]]] = []
        self.tags: dict[str, dict[str, Any]] = {key: {"status": "success"} for key in self.rows}

    def listed(self) -> dict[str, dict[str, dict[str, Any]]]:
        prompts = {
            uid: {
                **{"is_prompt": True, "global_steps": 1},
                "status": "running" if uid in self.running else "finished",
            }
            for uid in sorted(self.prompts)
        }
        return {"train": prompts | {key: dict(self.tags[key]) for key in self.rows}}

    def get(self, keys: list[str], partition_id: str, select_fields: Sequence[str]) -> Row:
        self.reads.append(({key.split("_")[0] for key in keys}, select_fields))
        return {name: [self.rows[key][name] for key in keys] for name in select_fields}

    async def tag(self, keys: list[str], partition_id: str, tags: list[dict[str, Any]]) -> None:
        assert partition_id == "train"
        for key, tag in zip(keys, tags, strict=True):
            self.tags[key] |= tag

    def clear(self, keys: list[str], partition_id: str) -> None:
        self.prompts -= set(keys)
        self.rows = {key: one for key, one in self.rows.items() if key not in keys}


GROUPS: dict[str, Sequence[Row]] = {
    # The rewards differ; one of them is more than the batch takes.
    "a": (row(-0.3, BETTER, 1), row(1.0, PERFECT, 1)),
    "b": (row(-0.3, WORSE, 2), row(1.0, PERFECT, 2)),
    # Equal rewards: always wrong, though a refinement is better, and always right.
    "c": (row(-0.3, BETTER, 3), row(-0.3, WORSE, 3)),
    "d": (row(1.0, PERFECT, 4), row(1.0, PERFECT, 4)),
}


def installed(monkeypatch: pytest.MonkeyPatch, groups: Mapping[str, Sequence[Row]]) -> Queue:
    made = Queue(groups)
    monkeypatch.setattr(tq, "kv_list", made.listed)
    monkeypatch.setattr(tq, "kv_batch_get", made.get)
    monkeypatch.setattr(tq, "kv_clear", made.clear)
    monkeypatch.setattr(tq, "async_kv_batch_put", made.tag)
    return made


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    return installed(monkeypatch, GROUPS)


def buffer(metric: str = "score") -> ReplayBuffer:
    return ReplayBuffer(
        trainer_mode="sync",
        trainer_config={},
        max_off_policy_threshold=None,
        max_off_policy_strategy="drop",
        sampler_kwargs={},
        refill_fn=lambda prompts: None,
        filter_groups_metric=metric,
        train_batch_size=1,
        gen_batch_size=1,
    )


def test_each_refinement_is_counted_once_whether_it_is_trained_on_or_not(queue: Queue) -> None:
    dropped, sampling = Dropped(), buffer()
    tell_dropped(sampling, dropped.add)
    batch, metrics = sampling.sample(global_steps=1, partition_id="train", batch_size=1)
    (kept,) = {key.split("_")[0] for key in batch.keys}
    (surplus,) = {"a", "b"} - {kept}
    assert metrics["training/filter_groups/evicted_samples"] == 2
    assert metrics["training/filter_groups/discarded_surplus_samples"] == 1
    assert sorted(queue.rows) == sorted(batch.keys)

    counts, prompts = dropped.take()
    number = {"a": 1, "b": 2}[surplus]
    assert sorted(prompts, key=lambda one: one.uid) == [
        Prompt(surplus, (1, number), f"x = {number}"),
        Prompt("c", (1, 3), "x = 3"),
        Prompt("d", (1, 4), "x = 4"),
    ]
    whole = counts + counted(read_rollouts(batch))
    # Of eight rollouts four were perfect, two got better, two worse.
    assert whole.improvement_ratio == 2 / 8
    assert (whole.rollouts, whole.of({"skipped_perfect"}), whole.of({"refined"})) == (8, 4, 4)
    assert (whole.generated_tokens, whole.engine_calls) == (2 * 7 + 2 * 3, 2 * 2 + 2 * 1)
    assert dropped.take() == (counted([]), [])


def test_groups_of_a_validation_are_none_of_a_steps(queue: Queue) -> None:
    told: list[Any] = []
    sampling = buffer()
    tell_dropped(sampling, told.append)
    sampling.partitions["val"] = {"a_0_0": {}}
    sampling._clear_groups("val", {"a"})
    assert told == []
    assert "a_0_0" not in sampling.partitions["val"]


FAILED = object()
"""In place of a reward: the judge has failed."""
REFINED_ALONE = (row(-0.3, BETTER, 1), FAILED)
"""A judged rollout whose refinement was accepted, and one without a verdict."""


def judged(*rewards: Any) -> list[Row]:
    """A group of these rewards."""
    return [
        one if isinstance(one, dict) else row(0.0 if one is FAILED else one, WORSE, 1)
        for one in rewards
    ]


def watched(
    monkeypatch: pytest.MonkeyPatch, metric: str, groups: Mapping[str, Sequence[Any]]
) -> tuple[Queue, ReplayBuffer, JudgedGroups]:
    """A queue with these groups, and verl's buffer that drops groups by the judged rollouts."""
    stored = installed(monkeypatch, {uid: judged(*rewards) for uid, rewards in groups.items()})
    for uid, rewards in groups.items():
        keys = [f"{uid}_{index}_0" for index, one in enumerate(rewards) if one is FAILED]
        for key in keys:
            extras = stored.rows[key]["extra_fields"]["reward_extra_info"]
            extras |= {"score": 0.0, "judge_failed": 1.0}
        asyncio.run(tag_unjudged(keys))
    for one in stored.rows.values():
        extras = one["extra_fields"]["reward_extra_info"]
        accepted = one["extra_fields"][REFINEMENT_KEY]["accepted"]
        extras["refinable_score"] = refinable(extras["score"], accepted, session=1)
    watch, sampling = JudgedGroups(), buffer(metric)
    watch.watch(sampling)
    return stored, sampling, watch


def filtered(sampling: ReplayBuffer) -> tuple[set[str], dict[float, int]]:
    """The groups that the buffer finds without a signal, and how many share each value."""
    sampling._sync_metadata_from_transfer_queue()
    found, levels = sampling._dapo_filtered_keys("train")
    return set(found), dict(levels)


def dropped_of(
    monkeypatch: pytest.MonkeyPatch, metric: str, groups: Mapping[str, Sequence[Any]]
) -> tuple[set[str], JudgedGroups]:
    """The groups that verl's buffer drops for want of a signal, of these."""
    stored, sampling, watch = watched(monkeypatch, metric, groups)
    found, levels = filtered(sampling)
    # A group is classified once, and looked up afterwards.
    assert filtered(sampling) == (found, levels)
    sampling._clear_groups("train", set(found))
    assert not {key.split("_")[0] for key in stored.rows} & found
    return found, watch


@pytest.mark.parametrize("metric", ["score", "reward", "refinable_score"])
def test_a_failed_judge_gives_no_group_a_signal(
    monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    groups: dict[str, Sequence[Any]] = {
        "equal": (1.0, FAILED, 1.0),
        "zero": (0.0, 0.0, FAILED),
        "apart": (1.0, FAILED, -0.3),
        "one": (FAILED, 1.0, FAILED),
        "none": (FAILED, FAILED),
        "judged": (1.0, -0.3),
        "flat": (1.0, 1.0),
    }
    found, watch = dropped_of(monkeypatch, metric, groups)
    assert found == {"equal", "zero", "one", "none", "flat"}
    # Those of the group that has a signal are counted where it is trained on.
    assert watch.take() == 1 + 1 + 2 + 2
    assert watch.take() == 0


@pytest.mark.parametrize(("metric", "kept"), [("refinable_score", True), ("score", False)])
def test_an_accepted_refinement_keeps_a_group_with_one_verdict_if_it_keeps_any(
    monkeypatch: pytest.MonkeyPatch, metric: str, kept: bool
) -> None:
    found, _ = dropped_of(monkeypatch, metric, {"a": REFINED_ALONE, "b": (1.0, FAILED)})
    assert found == ({"b"} if kept else {"a", "b"})


def test_a_group_is_read_once_if_it_is_finished_and_lacks_a_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    groups = {"apart": (1.0, FAILED, -0.3), "judged": (1.0, 1.0), "running": (1.0, FAILED)}
    stored, sampling, _ = watched(monkeypatch, "reward", groups)
    stored.running.add("running")
    filtered(sampling)
    filtered(sampling)
    assert stored.reads == [
        ({"apart"}, ["rm_scores", "extra_fields"]),
        ({"judged"}, ["rm_scores"]),  # verl's own
    ]
    stored.running.clear()
    assert filtered(sampling) == ({"judged", "running"}, {1.0: 2})


def test_a_group_without_any_verdict_counts_among_those_of_reward_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    groups = {"none": (FAILED, FAILED), "right": (1.0, FAILED)}
    _, sampling, _ = watched(monkeypatch, "score", groups)
    assert filtered(sampling) == ({"none", "right"}, {0.0: 1, 1.0: 1})
