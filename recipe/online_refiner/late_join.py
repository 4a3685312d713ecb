"""A step that goes on while its last refinements are written and judged (`refiner.late_join`).

The rollouts come without refinements. They are waited for where the constraint reads them first
(`Constraint.reads_at`): before the pass for the old log-probs, which then comes after those that
need none; before the advantages; or before the update.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from recipe.online_refiner.choices import Conditioning, Stage
from recipe.online_refiner.method.accepted import accepted_rollouts
from recipe.online_refiner.method.constraint import Constraint, Step
from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.records import RefinedRollout, Rollout
from recipe.online_refiner.refine.counts import RefinementCounts, counted
from recipe.online_refiner.refine.late import joined
from recipe.online_refiner.run.step_times import StepTimes


class LateJoinTrainer(PPOTrainer):
    """The part of our trainer that waits for refinements; see the module."""

    plan: RunPlan
    constraint: Constraint
    agent_loop_manager: Any
    _counts: RefinementCounts
    """Of the rollouts that are read and those that were dropped."""

    def __init__(self, config: Any) -> None:
        self._times = StepTimes()
        self._joins_at: Stage | None = None
        self._passed: dict[str, dict[str, Any]] = {}
        super().__init__(config)

    def _begin(self, step: Step) -> None:
        """Begin the step, unless the constraint reads refinements that are joined later."""
        self._joins_at = self._joining_stage(step) if self.plan.joins_late else None
        if self._joins_at is None or not self.plan.needs.refinements:
            self.constraint.begin(step)

    def _joining_stage(self, step: Step) -> Stage:
        """What reads the refinements first: the constraint, or a pass that measures c_t."""
        if self._watches_self_fed:
            return Stage.LOG_PROBS
        return self.constraint.joins_at(step) if self.plan.needs.refinements else Stage.ADVANTAGES

    @property
    def _watches_self_fed(self) -> bool:
        """Whether the self-fed cross entropy is logged beside the constraint's own reading."""
        is_own = self.constraint.conditioning is Conditioning.SELF_FEEDING
        return self.plan.settings.monitor.self_fed_ce and not is_own

    def _reach(self, stage: Stage, step: Step, within: str) -> None:
        """Join the step's refinements if this part of it is the first to read them.

        Args:
            within: the timer of verl's that runs meanwhile.
        """
        if self._joins_at is not stage:
            return
        with self._times.waiting(within):
            found = self.agent_loop_manager.late_refinements(step.number)
        step.rollouts = joined(step.rollouts, found)
        step.accepted = self._accepted(step.rollouts)
        self._counts += counted(step.rollouts)
        step.improvement_ratio = self._counts.improvement_ratio
        self._joins_at = None
        if self.plan.needs.refinements:
            self.constraint.begin(step)

    def _accepted(self, rollouts: Sequence[Rollout]) -> list[RefinedRollout]:
        tokens = self.plan.settings.constraint.tokens
        return accepted_rollouts(rollouts, tokens, self.constraint.conditioning)

    def _pass_ahead(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> None:
        """Make the passes that need no refinement, if the pass for the old log-probs needs them."""
        if self._joins_at is not Stage.LOG_PROBS:
            return
        if self.use_reference_policy and self._watches_reference():
            self._pass("ref", super()._compute_ref_log_prob, batch, metrics)
        if self.use_critic:
            self._pass("values", super()._compute_values, batch, metrics)

    def _pass(self, timer: str, make: Any, batch: KVBatchMeta, metrics: dict[str, Any]) -> None:
        # What it sets for the batch is not for the pass that now comes after it.
        own = KVBatchMeta(
            keys=batch.keys,
            tags=batch.tags,
            partition_id=batch.partition_id,
            extra_info=dict(batch.extra_info),
        )
        with self._times.booked(timer, within="old_log_prob"):
            make(own, metrics)
        self._passed[timer] = own.extra_info

    def _has_passed(self, timer: str, batch: KVBatchMeta) -> bool:
        """Whether this pass was made ahead; the batch then has what it leaves behind."""
        left = self._passed.pop(timer, None)
        if left is not None:
            batch.extra_info.update(left)
        return left is not None

    def _watches_reference(self) -> bool:
        """Whether this step forwards the reference."""
        raise NotImplementedError

    def _compute_ref_log_prob(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        if self._has_passed("ref", batch):
            return batch
        return super()._compute_ref_log_prob(batch, metrics)

    def _compute_values(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        if self._has_passed("values", batch):
            return batch
        return super()._compute_values(batch, metrics)
