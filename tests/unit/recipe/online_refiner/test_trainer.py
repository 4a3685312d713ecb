"""What the trainer adds to verl's own methods of a step, on a queue and a worker group in memory.

verl's methods run as they are: only the queue and the forward and backward passes are stood in for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from memory_queue import MemoryQueue, Row
from omegaconf import DictConfig
from steps import refinement
from transfer_queue import KVBatchMeta
from transformers import AutoTokenizer
from worker_group import WorkerGroup

from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.online_refiner.method.registry import constraint_class
from recipe.online_refiner.queue.judged_groups import JudgedGroups
from recipe.online_refiner.records import Refinement
from recipe.online_refiner.refine.counts import Dropped
from recipe.online_refiner.resolve.resolving import resolve
from recipe.online_refiner.run.episode_log import EpisodeLog
from recipe.online_refiner.run.step_times import StepTimes
from recipe.online_refiner.trainer import OnlineRefinerTrainer
from refiner_worker.top_tokens import TopTokens

Compose = Callable[..., DictConfig]

BETTER = refinement((5, 7), (1, 0))
WORSE = refinement((7,), (0,), refined=-1.0)
PERFECT = Refinement("skipped_perfect", 1.0, 0.0, 0.0)
ADVANTAGE = 0.65 / (1.3 / 2**0.5)
"""GRPO's in a group with the rewards -0.3 and 1: half of their distance over their deviation."""


class HealthyServers:
    """The refiner's servers, of which a step only asks how they are."""

    def health_metrics(self) -> dict[str, float]:
        return {"refiner/servers": 1.0}


def row(uid: str, response: list[int], found: Refinement, reward: float | None = None) -> Row:
    reward = found.reward if reward is None else reward
    return {
        "uid": uid,
        "prompts": torch.tensor([1, 2]),
        "responses": torch.tensor(response),
        "input_ids": torch.tensor([1, 2, *response]),
        "response_mask": torch.ones(len(response), dtype=torch.int64),
        "rm_scores": torch.tensor([0.0] * (len(response) - 1) + [reward]),
        "rollout_log_probs": torch.full((len(response),), -2.0),
        "extra_fields": {"reward_extra_info": {"score": found.reward}, "refine": found.to_row()},
        "extra_info": {"index": 0, "reference_solution": "print(1)"},
    }


ROWS = {
    "a_0_0": row("a", [5, 6], BETTER),
    "a_1_0": row("a", [9], PERFECT),
    "b_0_0": row("b", [8, 3], WORSE),
    "b_1_0": row("b", [9], PERFECT),
}
BATCH_KEYS = list(ROWS)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> MemoryQueue:
    return MemoryQueue.installed(monkeypatch, ROWS)


def trainer_of(config: DictConfig, workers: WorkerGroup, run_dir: Path) -> OnlineRefinerTrainer:
    # verl's constructor wants a cluster.
    trainer = object.__new__(OnlineRefinerTrainer)
    trainer.config = config
    trainer.plan = resolve(config)
    trainer.constraint = constraint_class(config)(trainer.plan)
    trainer.global_steps, trainer.total_training_steps = 1, 10
    trainer.actor_rollout_wg = workers
    trainer.tokenizer = AutoTokenizer.from_pretrained(ensure_checkpoint())
    trainer.timing_raw = {}
    trainer._times, trainer._joins_at, trainer._dropped = StepTimes(), None, Dropped()
    trainer._judged_groups = JudgedGroups()
    trainer.refiner = HealthyServers()  # type: ignore[assignment]
    trainer._episode_log = EpisodeLog(run_dir, trainer.tokenizer, share=1.0)
    return trainer


Step = Callable[..., tuple[OnlineRefinerTrainer, dict[str, Any]]]


@pytest.fixture
def step(composed: Compose, queue: MemoryQueue, tmp_path: Path) -> Step:
    """The constraint's part of one step; λ = 0.5, two rollouts a prompt, one mini-batch."""

    def run(*changes: str, workers: WorkerGroup | None = None) -> Any:
        config = composed(
            *("algorithm.adv_estimator=grpo", "algorithm.norm_adv_by_std_in_grpo=true"),
            *("constraint.lambda=0.5", "constraint.accumulate=none"),
            *("actor_rollout_ref.rollout.n=2", "actor_rollout_ref.actor.ppo_mini_batch_size=2"),
            *changes,
        )
        trainer = trainer_of(config, workers or WorkerGroup(queue, ranks=1), tmp_path)
        batch = KVBatchMeta(keys=BATCH_KEYS, tags=[{}] * 4, partition_id="train")
        metrics: dict[str, Any] = {}
        batch = trainer._compute_old_log_prob(batch, metrics)
        batch = trainer._compute_advantage(batch, metrics)
        trainer._update_actor(batch, metrics)
        return trainer, metrics

    return run


def advantages(**changed: list[float]) -> dict[str, Any]:
    """GRPO's, with others on some rows."""
    signs = {"a_0_0": -1.0, "a_1_0": 1.0, "b_0_0": -1.0, "b_1_0": 1.0}
    expected = {
        key: [sign * ADVANTAGE] * len(ROWS[key]["responses"]) for key, sign in signs.items()
    }
    return {key: pytest.approx(values, rel=1e-5) for key, values in (expected | changed).items()}


SELF_FED = ("constraint.conditioning=self_feeding", "constraint.inject=advantage")


def test_advantages_lose_lambda_times_the_cross_entropy_of_what_the_filter_accepts(
    queue: MemoryQueue, step: Step
) -> None:
    _, metrics = step(*SELF_FED)
    # c_t = -(log-prob of the own token + margin): 2.5 on the first step; 3.5 on the second.
    lost = [-ADVANTAGE - 0.5 * 2.5, -ADVANTAGE - 0.5 * 3.5]
    assert queue.field("advantages") == advantages(a_0_0=lost)
    assert queue.field("returns") == advantages()
    assert queue.field("rm_scores") == MemoryQueue(ROWS).field("rm_scores")
    assert metrics["constraint/penalty_mean"] == pytest.approx(0.5 * 6.0 / 4)
    assert metrics["constraint/kept_total"] == 1.0
    assert metrics["refiner/servers"] == 1.0
    assert metrics["monitor/entropy"] == pytest.approx(0.25)
    assert metrics["monitor/rollout_logprob_diff_max"] == pytest.approx(1.0)


def test_the_tokens_of_the_configuration_are_the_ones_that_are_asked_for(
    queue: MemoryQueue, step: Step
) -> None:
    step(*SELF_FED, "constraint.tokens=edited")
    assert queue.field("refine_label")["a_0_0"] == [0, 8]
    lost = [-ADVANTAGE, -ADVANTAGE - 0.5 * 3.5]
    assert queue.field("advantages") == advantages(a_0_0=lost)


def test_teacher_forced_a_pass_over_the_refinements_measures(
    queue: MemoryQueue, step: Step
) -> None:
    workers = WorkerGroup(queue, ranks=1)
    _, metrics = step(
        *("constraint.conditioning=teacher_forcing", "constraint.inject=advantage"),
        workers=workers,
    )
    # Prompts of two tokens: the log-probs of the response are -2 and -3.
    lost = [-ADVANTAGE - 0.5 * 2.0, -ADVANTAGE - 0.5 * 3.0]
    assert queue.field("advantages") == advantages(a_0_0=lost)
    assert [batch.partition_id for batch in workers.seen] == ["train", "refine_ce", "train"]
    assert metrics["constraint/ce_mean"] == pytest.approx(2.5)


def test_rewards_lose_it_while_advantages_are_computed_and_have_it_back_afterwards(
    queue: MemoryQueue, step: Step
) -> None:
    step("constraint.conditioning=self_feeding", "constraint.inject=reward")
    # R(a_0) = -0.3 - 0.5 · 6: the group's distance is larger, normalised it is the same; λ enters
    # without the division by the deviation.
    assert queue.field("rm_scores") == MemoryQueue(ROWS).field("rm_scores")
    step(
        *("constraint.conditioning=self_feeding", "constraint.inject=reward"),
        "algorithm.norm_adv_by_std_in_grpo=false",
    )
    half = (1.3 + 3.0) / 2
    assert queue.field("rm_scores") == MemoryQueue(ROWS).field("rm_scores")
    assert queue.field("advantages") == {
        "a_0_0": pytest.approx([-half, -half]),
        "a_1_0": pytest.approx([half]),
        "b_0_0": pytest.approx([-0.65, -0.65]),
        "b_1_0": pytest.approx([0.65]),
    }


def test_without_a_pass_of_verls_the_labelled_rows_are_forwarded(
    queue: MemoryQueue, step: Step
) -> None:
    workers = WorkerGroup(queue, ranks=1)
    step(*SELF_FED, "algorithm.rollout_correction.bypass_mode=true", workers=workers)
    assert [batch.keys for batch in workers.seen] == [["a_0_0"], BATCH_KEYS]
    lost = [-ADVANTAGE - 0.5 * 2.5, -ADVANTAGE - 0.5 * 3.5]
    assert queue.field("advantages") == advantages(a_0_0=lost)


def test_the_update_gets_the_refinements_and_gives_their_cross_entropy(
    queue: MemoryQueue, step: Step, tmp_path: Path
) -> None:
    workers = WorkerGroup(queue, ranks=1, reported=[(1, [0.5, 1.5])])
    _, metrics = step(
        *("constraint.conditioning=teacher_forcing", "constraint.inject=sft"), workers=workers
    )
    *_, update = workers.seen
    assert len(update.keys) == 5
    assert (update.extra_info["mini_batch_size"], update.extra_info["global_batch_size"]) == (5, 4)
    assert metrics["constraint/ce_mean"] == pytest.approx(1.0)
    # λ times the mean over its tokens, over four rollouts.
    assert metrics["constraint/penalty_mean"] == pytest.approx(0.5 * 1.0 / 4)
    assert queue.field("advantages") == advantages()
    lines = (tmp_path / "episodes.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert (first["uid"], first["ce"]) == ("a", [0.5, 1.5])
    assert (second["uid"], second["ce"]) == ("b", None)


def test_self_fed_the_update_gets_labels_and_no_row(queue: MemoryQueue, step: Step) -> None:
    workers = WorkerGroup(queue, ranks=1, reported=[(1, [0.5, 1.5])])
    _, metrics = step(
        *("constraint.conditioning=self_feeding", "constraint.inject=sft"),
        "constraint.tokens=first_edit",
        workers=workers,
    )
    *_, update = workers.seen
    assert update.keys == BATCH_KEYS
    # 0.5 / 4 / 2 is 2^-4, as a float32 0x3d800000.
    weight = 0x3D800000 * 2**32
    assert queue.field("refine_label")["a_0_0"] == [weight + 6, weight + 8]
    assert queue.field("refine_weight") == {}
    assert metrics["constraint/ce_mean"] == pytest.approx(1.0)


def test_distilled_the_self_fed_reading_can_be_watched_beside_it(
    queue: MemoryQueue, step: Step, tmp_path: Path
) -> None:
    """The pass for the old log-probs has labels, the update of the same rows none."""
    listed = TopTokens(
        np.array([[5, 6], [7, 8]], np.int32), np.log(np.full((2, 2), 0.5, np.float32)), 0, 2
    )
    taught = replace(BETTER, top_tokens=listed)
    queue.rows["a_0_0"]["extra_fields"] = row("a", [5, 6], taught)["extra_fields"]
    workers = WorkerGroup(queue, 1, reported=[(1, [0.5, 1.5])], diverged=[(1, [0.25, 0.75])])
    _, metrics = step("constraint.kind=distill", "monitor.self_fed_ce=true", workers=workers)
    measured, update = workers.seen
    assert (measured.keys, measured.extra_info["refine_measure"]) == (BATCH_KEYS, True)
    assert queue.field("refine_label")["a_0_0"] == [6, 8]
    assert len(update.keys) == 5 and "refine_measure" not in update.extra_info
    assert "refine_label" not in workers.update_fields
    assert {"refine_weight", "refine_target_ids"} <= workers.update_fields
    assert metrics["constraint/ce_mean"] == pytest.approx(1.0)
    assert metrics["constraint/refiner_kl_mean"] == pytest.approx(0.5)
    assert metrics["constraint/penalty_mean"] == pytest.approx(0.5 * 0.5 / 4)
    first, second = map(json.loads, (tmp_path / "episodes.jsonl").read_text().splitlines())
    assert (first["ce"], first["ce_reading"]) == ([0.5, 1.5], "teacher_forcing")
    assert first["cross_entropy_self_fed"] == [2.5, 3.5]
    assert "cross_entropy_self_fed" not in second


def test_chords_share_is_the_rest_of_the_policys(queue: MemoryQueue, step: Step) -> None:
    workers = WorkerGroup(queue, ranks=1, reported=[(1, [2.0]), (2, [4.0])])
    _, metrics = step(
        *("constraint.kind=chord", "constraint.chord.warmup_steps=0"),
        *("constraint.chord.decay_steps=0", "constraint.chord.valley=0.25"),
        workers=workers,
    )
    *_, update = workers.seen
    assert update.extra_info["policy_share"] == 0.75
    # One demonstration a prompt beside four rollouts.
    assert update.extra_info["mini_batch_size"] == 6
    assert metrics["constraint/expert_ce_mean"] == pytest.approx(3.0)


def test_without_a_constraint_verls_update_runs_as_it_is(queue: MemoryQueue, step: Step) -> None:
    workers = WorkerGroup(queue, ranks=1)
    _, metrics = step("constraint.kind=none", workers=workers)
    *_, update = workers.seen
    assert update.extra_info["mini_batch_size"] == 4
    assert "policy_share" not in update.extra_info
    assert queue.field("advantages") == advantages()
    assert metrics["judge/failed_total"] == 0.0


def test_an_update_to_which_nothing_is_added_is_verls(queue: MemoryQueue, step: Step) -> None:
    queue.rows["a_0_0"]["extra_fields"] = ROWS["b_0_0"]["extra_fields"]
    workers = WorkerGroup(queue, ranks=1)
    _, metrics = step(
        *("constraint.conditioning=teacher_forcing", "constraint.inject=sft"), workers=workers
    )
    *_, update = workers.seen
    assert update.extra_info["mini_batch_size"] == 4
    assert metrics["constraint/penalty_mean"] == 0.0


@pytest.mark.parametrize(("warmup", "in_update"), [(0, True), (1, True), (2, False)])
def test_while_only_the_critic_is_trained_a_pass_of_its_own_measures(
    queue: MemoryQueue, step: Step, warmup: int, in_update: bool
) -> None:
    workers = WorkerGroup(queue, ranks=1, reported=[(1, [0.5, 1.5])] if in_update else [])
    _, metrics = step(
        *("constraint.conditioning=teacher_forcing", "constraint.inject=sft"),
        f"trainer.critic_warmup={warmup}",
        workers=workers,
    )
    assert ("refine_ce" in [batch.partition_id for batch in workers.seen]) is not in_update
    assert metrics["constraint/ce_mean"] == pytest.approx(1.0 if in_update else 2.5)


def test_the_constraint_follows_the_improvement_ratio_from_step_to_step(step: Step) -> None:
    """One of four refinements is better; at a target of a half, λ is half of its upper bound."""
    _, metrics = step(*SELF_FED, "constraint.schedule=adaptive", "constraint.adaptive_target=0.5")
    assert metrics["constraint/lambda"] == pytest.approx(0.25)


def test_the_worker_group_is_back_after_a_pass_that_failed(
    queue: MemoryQueue, step: Step, composed: Compose, tmp_path: Path
) -> None:
    class Failing(WorkerGroup):
        def compute_log_prob(self, batch: KVBatchMeta) -> KVBatchMeta:
            raise RuntimeError("a worker died")

    trainer = trainer_of(composed(*SELF_FED), Failing(queue), tmp_path)
    workers = trainer.actor_rollout_wg
    batch = KVBatchMeta(keys=BATCH_KEYS, tags=[{}] * 4, partition_id="train")
    with pytest.raises(RuntimeError, match="a worker died"):
        trainer._compute_old_log_prob(batch, {})
    assert trainer.actor_rollout_wg is workers


def test_a_rollout_without_a_verdict_has_its_groups_mean_and_no_advantage(
    queue: MemoryQueue, step: Step
) -> None:
    unjudged = replace(WORSE, outcome="unjudged", accepted=False)
    queue.rows["b_0_0"] |= {
        "response_mask": torch.zeros(2, dtype=torch.int64),
        "extra_fields": {
            "reward_extra_info": {"judge_failed": 1},
            "refine": unjudged.to_row(),
        },
    }
    _, metrics = step(*SELF_FED)
    assert metrics["judge/failed_total"] == 1.0
    assert "judge/failed_dropped_total" not in metrics
    _, metrics = step(*SELF_FED, "algorithm.filter_groups.enable=true")
    assert metrics["judge/failed_dropped_total"] == 0.0
    assert queue.field("rm_scores")["b_0_0"] == [0.0, 1.0]
    assert queue.field("advantages")["b_1_0"] == pytest.approx([0.0], abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("none", [True, False, True]), ("static_kl", [True, True, True])],
)
def test_static_kl_needs_the_reference_however_rarely_the_kl_is_watched(
    composed: Compose, kind: str, expected: list[bool]
) -> None:
    # verl's constructor wants a cluster.
    trainer = object.__new__(OnlineRefinerTrainer)
    trainer.plan = resolve(composed(f"constraint.kind={kind}", "monitor.kl_every_steps=2"))
    found = []
    for step in (1, 2, 3):
        trainer.global_steps = step
        found.append(trainer._watches_reference())
    assert found == expected
