"""verl's trainer with the constraint: hooks overridden, nothing of `fit` copied.

What a step adds to verl's, in order: the rollouts come back refined and judged (`agent_loop.py`);
the actor computes the policy's cross entropy on the kept refinements and the penalty is taken from
the rewards or the advantages (`_compute_advantage`), or the actor's loss carries it
(`_update_actor`), where CHORD's expert answers enter as well.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.debug import marked_timer

from recipe.online_refiner.advantage import penalised_by
from recipe.online_refiner.averaging_worker import AveragingWorker
from recipe.online_refiner.chat import policy_chat
from recipe.online_refiner.episodes import EpisodeLog, RolloutRow
from recipe.online_refiner.experts import expert_responses
from recipe.online_refiner.injection import (
    Kept,
    kept_refinements,
    measure,
    penalised_rewards,
    penalties,
    penalty_of_batch,
    weighed_responses,
    with_cross_entropy,
)
from recipe.online_refiner.loss import EXPERT_PHI, POLICY_SHARE, constrained_loss
from recipe.online_refiner.metrics import (
    cross_entropy_metrics,
    episode_metrics,
    group_metrics,
    refine_wait_s,
)
from recipe.online_refiner.mixed_update import MixedActor, WeighedResponse
from recipe.online_refiner.queue_rows import (
    log_prob_metrics,
    read_rollouts,
    stand_in_for_reference,
)
from recipe.online_refiner.refiner_servers import RefinerServers
from recipe.online_refiner.rows import neutral_rewards
from recipe.online_refiner.run_log import (
    EPISODES_FILE,
    METRICS_FILE,
    RecordedTracking,
    drop_after,
)
from recipe.online_refiner.save_request import is_save_requested, mark_saved
from recipe.online_refiner.schedules import (
    Schedule,
    adaptive_lambda,
    chord_mu,
    lambda_at,
    smoothed,
)
from recipe.online_refiner.settings import Inject, Kind, Settings, read_settings

logger = logging.getLogger(__name__)

STATE_FILE = "refine_state.json"
EVICTED_GROUPS = "training/filter_groups/evicted_samples"
"""verl's count of groups without a signal that its dynamic sampling has thrown away."""


class OnlineRefinerTrainer(PPOTrainer):
    """PPO, GRPO or DAPO with the online refiner's constraint; see the module.

    Goes before one of verl's trainers in a class of its own, one each mode; see `trainers.py`.
    """

    actor_rollout_wg: Any

    def __init__(self, config: DictConfig) -> None:
        self._settings: Settings = read_settings(config)
        self._run_dir = Path(self._settings.run.dir)
        self.refiner = RefinerServers(config, self._settings)
        self._rows: list[RolloutRow] = []
        self._kept: list[Kept] = []
        self._smoothed_ratio: float | None = None
        self._saved_step = 0
        super().__init__(config)

    # The refiner's servers: verl's hooks around its own.

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        self.refiner.add_pool(self.resource_pool_manager.resource_pool_spec)
        if self._settings.refines_by_average:
            for role in (Role.ActorRollout, Role.ActorRolloutRef):
                if role in self.role_worker_mapping:
                    self.role_worker_mapping[role] = ray.remote(AveragingWorker)

    @property
    def reward_loop_manager(self) -> Any:
        """verl's reward loop, assigned in `_setup` just before the policy's servers start."""
        return self._reward_loop_manager

    @reward_loop_manager.setter
    def reward_loop_manager(self, manager: Any) -> None:
        self._reward_loop_manager = manager
        self.refiner.launch_early(self.resource_pool_manager.resource_pool_dict)

    def _setup(self) -> None:
        self.refiner.prepare_policy_servers()
        super()._setup()
        if self._settings.adds_rows:
            actor = omega_conf_to_dataclass(self.config.actor_rollout_ref.actor)
            self.actor_rollout_wg.set_loss_fn(partial(constrained_loss, config=actor))
        self.refiner.launch(self.resource_pool_manager.resource_pool_dict)
        self._episode_log = EpisodeLog(self._run_dir / EPISODES_FILE, self.tokenizer)

    def on_init_end(self) -> None:
        super().on_init_end()
        self.refiner.wake_up()

    def on_step_begin(self) -> None:
        # Not before: the step in which a server died is first to be logged.
        self.refiner.stop_if_lost()
        super().on_step_begin()

    def on_step_end(self) -> None:
        is_requested = is_save_requested(self._run_dir)
        if (is_requested or self.refiner.must_stop) and self._saved_step != self.global_steps:
            self._save_checkpoint()
        if is_requested:
            mark_saved(self._run_dir)
        super().on_step_end()
        self.refiner.wake_up()
        if self._settings.refines_by_average:
            with marked_timer("refiner_load", self.timing_raw):
                self.refiner.load_average()

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, float]) -> KVBatchMeta:
        """verl's step; then, every so many steps, the refiner's weights move towards the policy's.

        Here and not at the step's end, so that the checkpoint between them has the new average.
        """
        batch = super().step(metrics, timing_raw)
        average = self._settings.refiner.ema
        if self._settings.refines_by_average and self.global_steps % average.every_steps == 0:
            with marked_timer("refiner_average", timing_raw):
                self.refiner.follow(self.actor_rollout_wg, average.decay)
        return batch

    def on_sample_end(self) -> None:
        super().on_sample_end()
        self.refiner.sleep()

    # The constraint's part of a step.

    def _compute_ref_log_prob(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        if self._watches_reference():
            return super()._compute_ref_log_prob(batch, metrics)
        stand_in_for_reference(batch)
        return batch

    def _watches_reference(self) -> bool:
        """Whether this step forwards the reference; where only the KL is watched, not every one."""
        if self._settings.constraint.kind is Kind.STATIC_KL:
            return True
        return (self.global_steps - 1) % self._settings.monitor.kl_every_steps == 0

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        self._rows = read_rollouts(batch)
        self._neutralise_unjudged(batch, self._rows, metrics)
        self._follow_improvement_ratio()
        self._kept = kept_refinements(self._rows, self._settings.constraint)
        if not self._loss_measures():
            self._measure()
        constraint, lambda_ = self._settings.constraint, self._current_lambda()
        if self._settings.injects(Inject.REWARD):
            with penalised_rewards(batch, self._kept, constraint, lambda_):
                batch = super()._compute_advantage(batch, metrics)
        elif self._settings.injects(Inject.ADVANTAGE) and lambda_ > 0:
            with penalised_by(penalty_of_batch(batch, self._kept, constraint), lambda_):
                batch = super()._compute_advantage(batch, metrics)
        else:
            batch = super()._compute_advantage(batch, metrics)
        self._observe_rollouts(batch, metrics)
        if not self._loss_measures():
            self._observe_refinements(metrics)
        return batch

    def _loss_measures(self) -> bool:
        """Whether the actor's loss yields the cross entropy, so that no forward pass is needed."""
        trains = self.config.trainer.critic_warmup <= self.global_steps
        return self._settings.injects(Inject.SFT) and self._current_lambda() > 0 and trains

    def _measure(self) -> None:
        if not self._kept:
            return
        with marked_timer("constraint_ce", self.timing_raw):
            rollout = self.config.actor_rollout_ref.rollout
            self._kept = measure(
                self._kept,
                self.actor_rollout_wg,
                rollout.temperature,
                self._micro_batch_size(rollout, "log_prob"),
            )

    def _neutralise_unjudged(
        self, batch: KVBatchMeta, rows: Sequence[RolloutRow], metrics: dict[str, Any]
    ) -> None:
        """Give rows without a verdict their group's mean reward; their tokens are masked out."""
        unjudged = [index for index, row in enumerate(rows) if not row.judged]
        metrics["judge/failed_total"] = float(len(unjudged))
        if not unjudged:
            return
        keys = [rows[index].key for index in unjudged]
        scores = tq.kv_batch_get(
            keys=keys, partition_id=batch.partition_id, select_fields=["rm_scores"]
        )["rm_scores"]
        means = neutral_rewards([(row.uid, row.reward, row.judged) for row in rows])
        scores = scores.clone()
        scores.values()[scores.offsets()[1:] - 1] = scores.values().new_tensor(
            [means[index] for index in unjudged]
        )
        fields = TensorDict({"rm_scores": scores}, batch_size=len(keys))
        tq.kv_batch_put(keys=keys, partition_id=batch.partition_id, fields=fields)

    def _update_actor(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        if self._settings.constraint.kind is Kind.CHORD:
            return self._update_with_experts(batch, metrics)
        if not self._loss_measures():
            return super()._update_actor(batch, metrics)
        responses = weighed_responses(
            self._kept,
            self._settings.constraint,
            self._current_lambda(),
            rows=self._rollouts_a_mini_batch(),
        )
        batch, cross_entropy = self._update_with(responses, {}, batch, metrics)
        self._kept = with_cross_entropy(self._kept, cross_entropy)
        self._observe_refinements(metrics)
        return batch

    def _update_with_experts(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        chord = self._settings.constraint.chord
        share = chord_mu(
            self.global_steps, chord.warmup_steps, chord.decay_steps, chord.peak, chord.valley
        )
        responses = expert_responses(
            self._rows,
            policy_chat(self.config, self.tokenizer),
            share,
            mini_batches=len(batch) // self._rollouts_a_mini_batch(),
            max_tokens=self.config.data.max_response_length,
        )
        settings = {POLICY_SHARE: 1.0 - share, EXPERT_PHI: chord.phi}
        batch, cross_entropy = self._update_with(responses, settings, batch, metrics)
        metrics["constraint/mu"] = share
        metrics["constraint/expert_total"] = float(len(responses))
        if cross_entropy:
            metrics["constraint/expert_ce_mean"] = torch.cat(cross_entropy).mean().item()
        return batch

    def _update_with(
        self,
        responses: Sequence[WeighedResponse],
        loss_settings: dict[str, Any],
        batch: KVBatchMeta,
        metrics: dict[str, Any],
    ) -> tuple[KVBatchMeta, list[torch.Tensor]]:
        """verl's update with the responses beside the batch, and their cross entropy in nats."""
        if not responses:
            return super()._update_actor(batch, metrics), []
        worker_group = self.actor_rollout_wg
        mixed = MixedActor(
            worker_group,
            responses,
            self._micro_batch_size(self.config.actor_rollout_ref.actor, "ppo"),
            loss_settings,
        )
        self.actor_rollout_wg = mixed
        try:
            return super()._update_actor(batch, metrics), mixed.cross_entropy
        finally:
            self.actor_rollout_wg = worker_group

    def _rollouts_a_mini_batch(self) -> int:
        config = self.config.actor_rollout_ref
        return int(config.actor.ppo_mini_batch_size * config.rollout.n)

    def _micro_batch_size(self, section: DictConfig, prefix: str) -> int:
        """Rows that a rank's share must be a multiple of: 1 where verl packs by token count."""
        if self.config.actor_rollout_ref.actor.use_dynamic_bsz:
            return 1
        return int(section[f"{prefix}_micro_batch_size_per_gpu"])

    def _follow_improvement_ratio(self) -> None:
        records = [row.episode.record for row in self._rows if row.episode is not None]
        if records:
            ratio = sum(record.improved for record in records) / len(records)
            self._smoothed_ratio = smoothed(self._smoothed_ratio, ratio)

    def _current_lambda(self) -> float:
        section = self._settings.constraint
        if section.schedule is Schedule.ADAPTIVE:
            ratio = 1.0 if self._smoothed_ratio is None else self._smoothed_ratio
            return adaptive_lambda(
                ratio, section.lambda_, section.lambda_end, section.adaptive_target
            )
        return lambda_at(
            self.global_steps,
            self.total_training_steps,
            section.lambda_,
            section.lambda_end,
            section.schedule,
        )

    # What is seen of it.

    def _observe_rollouts(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> None:
        if "actor/entropy" in metrics:
            metrics["monitor/entropy"] = metrics["actor/entropy"]
        metrics.update(group_metrics(self._rows))
        metrics.update(log_prob_metrics(batch, with_reference=self._watches_reference()))
        if EVICTED_GROUPS in metrics:
            metrics["constraint/evicted_total"] = metrics[EVICTED_GROUPS]

    def _observe_refinements(self, metrics: dict[str, Any]) -> None:
        measured = {kept.key: kept.episode for kept in self._kept}
        episodes = [
            measured.get(row.key, row.episode) for row in self._rows if row.episode is not None
        ]
        if not episodes:
            return
        metrics.update(episode_metrics(episodes))
        metrics.update(self.refiner.health_metrics())
        metrics.update(cross_entropy_metrics(episodes))
        accepted = sum(episode.record.accepted for episode in episodes)
        metrics["constraint/nonfinite_total"] = float(accepted - len(self._kept))
        if self._settings.constraint.kind is Kind.DYNAMIC:
            lambda_ = self._current_lambda()
            paid = penalties(self._kept, self._settings.constraint, lambda_)
            metrics["constraint/lambda"] = lambda_
            metrics["constraint/penalty_mean"] = sum(paid) / len(self._rows)
        self.timing_raw["refine_wait"] = refine_wait_s(episodes)
        self._episode_log.append(self.global_steps, episodes)

    @property
    def logger(self) -> RecordedTracking:
        """verl's tracking, which `fit` assigns; every record also goes to metrics.jsonl."""
        return self._tracking

    @logger.setter
    def logger(self, tracking: Any) -> None:
        self._tracking = RecordedTracking(tracking, self._run_dir / METRICS_FILE)

    # State.

    def _save_checkpoint(self) -> None:
        folder = Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"
        folder.mkdir(parents=True, exist_ok=True)
        # Before super(), which writes the tracker file last: a checkpoint that counts is complete.
        (folder / STATE_FILE).write_text(json.dumps(self._state(), indent=2), encoding="utf-8")
        self.refiner.average.save(folder)
        super()._save_checkpoint()
        self._saved_step = self.global_steps

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        for name in (METRICS_FILE, EPISODES_FILE):
            drop_after(self._run_dir / name, self.global_steps)
        if self.global_steps == 0:
            return
        root = self.config.trainer.resume_from_path or (
            Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"
        )
        self.refiner.average.restore(Path(root))
        path = Path(root) / STATE_FILE
        if not path.exists():
            logger.warning("%s is absent: this checkpoint was not written by this trainer", path)
            return
        before = json.loads(path.read_text(encoding="utf-8"))
        self._smoothed_ratio = before.get("smoothed_ratio")
        now = self._state()
        for key in sorted(now):
            if before.get(key) != now[key]:
                logger.warning(
                    "resuming with %s=%r; the checkpoint was trained with %r",
                    key,
                    now[key],
                    before.get(key),
                )

    def _state(self) -> dict[str, Any]:
        """All that λ and μ depend on besides the step, which verl keeps: resuming needs no more."""
        return {
            "smoothed_ratio": self._smoothed_ratio,
            "constraint": self._settings.constraint.model_dump(mode="json", by_alias=True),
            "lambda": self._current_lambda(),
            "total_training_steps": self.total_training_steps,
        }
