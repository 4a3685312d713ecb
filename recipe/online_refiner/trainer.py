"""verl's trainer with a constraint: hooks overridden, nothing of `fit` copied. The step is here.

What a step adds to verl's, in order:

1. The rollouts come back refined and judged (`agent_loop.py`).
2. `_compute_old_log_prob`: the step opens. Joined late, its refinements are waited for here, in 3
   or in 4 (`late_join.py`). Self-fed, verl's pass over the rollouts also yields the
   policy's cross entropy on the accepted refinements.
3. `_compute_advantage`: teacher-forced, the actor computes it in a pass of its own; the constraint
   says what is taken from the rewards or the advantages.
4. `_update_actor`: the constraint says which rows and labels the update gets beside the policy's.
5. Metrics and episodes.

Servers and checkpoints, which surround the steps, are in `lifecycle.py`. Which constraint it is,
only `method/registry.py` knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from omegaconf import DictConfig
from transfer_queue import KVBatchMeta
from verl.utils.debug import marked_timer

from recipe.online_refiner.choices import Stage
from recipe.online_refiner.late_join import LateJoinTrainer
from recipe.online_refiner.lifecycle import LifecycleTrainer
from recipe.online_refiner.method.constraint import Additions, Step
from recipe.online_refiner.method.groups import filters_groups
from recipe.online_refiner.method.self_fed import SelfFed
from recipe.online_refiner.queue.label_fields import without_measured
from recipe.online_refiner.queue.penalties import take_from_advantages, taken_from_rewards
from recipe.online_refiner.queue.rollouts import (
    log_prob_metrics,
    neutralise_unjudged,
    read_rollouts,
    stand_in_for_reference,
    token_columns,
)
from recipe.online_refiner.records import Rollout
from recipe.online_refiner.refine.counts import counted
from recipe.online_refiner.refine.metrics import (
    cross_entropy_metrics,
    group_metrics,
    refinement_metrics,
)
from recipe.online_refiner.resolve.chat import policy_chat
from recipe.online_refiner.run.episode_log import Measured
from recipe.online_refiner.update.asked_actor import AskedActor
from recipe.online_refiner.update.measure import measure
from recipe.online_refiner.update.mixed_actor import MixedActor

EVICTED_GROUPS = "training/filter_groups/evicted_samples"
"""verl's count of groups without a signal that its dynamic sampling has thrown away."""


class OnlineRefinerTrainer(LateJoinTrainer, LifecycleTrainer):
    """PPO, GRPO or DAPO with a constraint; see the module.

    Goes before one of verl's trainers in a class of its own, one each mode; see `modes.py`.
    """

    _step: Step
    _self_fed: SelfFed

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, float]) -> KVBatchMeta:
        """verl's step; then, every so many steps, the refiner's weights move towards the policy's.

        Here and not at the step's end, so that the checkpoint between them has the new average.
        """
        batch = super().step(metrics, timing_raw)
        self._times.settle(timing_raw)
        average = self.plan.settings.refiner.ema
        if self.plan.refines_by_average and self.global_steps % average.every_steps == 0:
            with marked_timer("refiner_average", timing_raw):
                self.refiner.follow(self.actor_rollout_wg, average.decay)
        return batch

    # The constraint's part of a step.

    def _compute_ref_log_prob(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        if self._watches_reference():
            return super()._compute_ref_log_prob(batch, metrics)
        stand_in_for_reference(batch)
        return batch

    def _watches_reference(self) -> bool:
        """Whether this step forwards the reference; if the KL is only watched, not every one."""
        if self.plan.needs.reference:
            return True
        return (self.global_steps - 1) % self.plan.settings.monitor.kl_every_steps == 0

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        step = self._step = self._open_step(batch)
        self._begin(step)
        self._pass_ahead(batch, metrics)
        self._reach(Stage.LOG_PROBS, step, within="old_log_prob")
        labels = self.constraint.labels(step)
        self._self_fed = SelfFed([] if labels else self._watched(step))
        asked = labels or self._self_fed.labels
        if not asked:
            return super()._compute_old_log_prob(batch, metrics)
        actor = AskedActor(self.actor_rollout_wg, asked)
        with self._in_place_of_the_actor(actor):
            batch = super()._compute_old_log_prob(batch, metrics)
        if actor.cross_entropy is None:
            with marked_timer("constraint_ce", self.timing_raw):
                actor.measure(batch, *self._pass_settings())
        assert actor.cross_entropy is not None
        if labels:
            self.constraint.after_labels(step, actor.cross_entropy)
        else:
            self._self_fed.measured(actor.cross_entropy)
        return batch

    def _watched(self, step: Step) -> Sequence[Rollout]:
        """Rollouts on whose refinement the self-fed cross entropy is only logged."""
        return self._episode_log.wanted(step.rollouts) if self._watches_self_fed else []

    @contextmanager
    def _in_place_of_the_actor(self, actor: Any) -> Iterator[None]:
        worker_group = self.actor_rollout_wg
        self.actor_rollout_wg = actor
        try:
            yield
        finally:
            self.actor_rollout_wg = worker_group

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        step = self._step
        self._reach(Stage.ADVANTAGES, step, within="adv")
        metrics["judge/failed_total"] = float(neutralise_unjudged(batch, step.rollouts))
        if filters_groups(self.config):
            metrics["judge/failed_dropped_total"] = float(self._judged_groups.take())
        in_update = self.constraint.measures_in_update(step)
        if not in_update:
            self._measure(step)
        penalty = self.constraint.penalty(step)
        with taken_from_rewards(batch, penalty):
            batch = super()._compute_advantage(batch, metrics)
        take_from_advantages(batch, penalty)
        self._observe_rollouts(batch, metrics)
        if not in_update:
            self._observe_step(step, batch, metrics)
        return batch

    def _open_step(self, batch: KVBatchMeta) -> Step:
        rollouts = read_rollouts(batch)
        dropped, dropped_prompts = self._dropped.take()
        self._counts = counted(rollouts) + dropped
        config = self.config.actor_rollout_ref
        a_mini_batch = int(config.actor.ppo_mini_batch_size * config.rollout.n)
        return Step(
            number=self.global_steps,
            total_steps=self.total_training_steps,
            rollouts=rollouts,
            accepted=self._accepted(rollouts),
            mini_batches=len(batch) // a_mini_batch,
            rollouts_a_mini_batch=a_mini_batch,
            trains_actor=self.config.trainer.critic_warmup <= self.global_steps,
            chat=policy_chat(self.config, self.tokenizer),
            max_response_tokens=self.config.data.max_response_length,
            improvement_ratio=self._counts.improvement_ratio,
            dropped=dropped_prompts,
        )

    def _measure(self, step: Step) -> None:
        """c_t of the accepted refinements in a pass of its own, unless labels have yielded it."""
        if all(one.cross_entropy is not None for one in step.accepted):
            return
        with marked_timer("constraint_ce", self.timing_raw):
            step.accepted = measure(step.accepted, self.actor_rollout_wg, *self._pass_settings())

    def _update_actor(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        step = self._step
        self._reach(Stage.UPDATE, step, within="update_actor")
        additions = self.constraint.additions(step)
        learnt = without_measured(batch)
        if additions is None:
            super()._update_actor(learnt, metrics)
            return batch
        cross_entropy = self._update_with(additions, learnt, metrics)
        metrics.update(self.constraint.after_update(step, cross_entropy))
        if self.constraint.measures_in_update(step):
            self._observe_step(step, batch, metrics)
        return batch

    def _update_with(
        self, additions: Additions, batch: KVBatchMeta, metrics: dict[str, Any]
    ) -> list[torch.Tensor]:
        """verl's update with the additions; returns their cross entropy in nats."""
        if additions.change_nothing:
            super()._update_actor(batch, metrics)
            return []
        micro_batch_size = self._micro_batch_size(self.config.actor_rollout_ref.actor, "ppo")
        mixed = MixedActor(self.actor_rollout_wg, additions, micro_batch_size)
        with self._in_place_of_the_actor(mixed):
            super()._update_actor(batch, metrics)
        return mixed.cross_entropy

    def _pass_settings(self) -> tuple[float, int]:
        """Temperature of a pass that measures, and rows per forward pass and rank."""
        rollout = self.config.actor_rollout_ref.rollout
        return rollout.temperature, self._micro_batch_size(rollout, "log_prob")

    def _micro_batch_size(self, section: DictConfig, prefix: str) -> int:
        """Rows that a rank's share must be a multiple of: 1 if verl packs by token count."""
        if self.config.actor_rollout_ref.actor.use_dynamic_bsz:
            return 1
        return int(section[f"{prefix}_micro_batch_size_per_gpu"])

    # What is seen of it.

    def _observe_rollouts(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> None:
        if "actor/entropy" in metrics:
            metrics["monitor/entropy"] = metrics["actor/entropy"]
        metrics.update(log_prob_metrics(batch, with_reference=self._watches_reference()))
        if EVICTED_GROUPS in metrics:
            metrics["constraint/evicted_total"] = metrics[EVICTED_GROUPS]

    def _observe_step(self, step: Step, batch: KVBatchMeta, metrics: dict[str, Any]) -> None:
        metrics.update(self.constraint.metrics(step))
        metrics.update(group_metrics(step.rollouts))
        with marked_timer("episode_log", self.timing_raw):
            self._log_episodes(step, batch)
        found = [one.refinement for one in step.rollouts if one.refinement is not None]
        if not found:
            return
        metrics.update(refinement_metrics(self._counts))
        metrics.update(self.refiner.health_metrics())
        metrics.update(cross_entropy_metrics(step.accepted))
        accepted = sum(refinement.accepted for refinement in found)
        metrics["constraint/kept_total"] = float(accepted)
        metrics["constraint/nonfinite_total"] = float(accepted - len(step.accepted))
        late = self.plan.joins_late
        self.timing_raw["refine_wait"] = self._times.waited_s if late else self._counts.wait_s

    def _log_episodes(self, step: Step, batch: KVBatchMeta) -> None:
        wanted = self._episode_log.wanted(step.rollouts)
        columns = token_columns(batch, [one.key for one in wanted])
        for key, values in self._self_fed.columns.items():
            columns[key] |= values
        refined = {one.key: one for one in step.accepted}
        measured = Measured(self.constraint.conditioning, refined, columns)
        self._episode_log.append(step.number, wanted, measured)
