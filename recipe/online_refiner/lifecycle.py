"""The part of our trainer around its steps: servers that start, sleep and wake, logs, checkpoints.

verl's hooks in the order in which a training calls them. What a step does is in `trainer.py`.
"""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

import ray
from omegaconf import DictConfig
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.debug import marked_timer

from recipe.online_refiner.method.registry import constraint_class
from recipe.online_refiner.queue.dropped import tell_dropped
from recipe.online_refiner.queue.judged_groups import JudgedGroups
from recipe.online_refiner.refine.counts import Dropped
from recipe.online_refiner.resolve.resolving import resolve
from recipe.online_refiner.run.episode_log import EpisodeLog
from recipe.online_refiner.run.metrics_log import (
    METRICS_FILE,
    RECORD_FILES,
    RecordedTracking,
    drop_after,
)
from recipe.online_refiner.run.resumed_state import changed
from recipe.online_refiner.run.save_request import is_save_requested, mark_saved
from recipe.online_refiner.run.start_times import REFINER, TRAINER, StartClock, add_phases
from recipe.online_refiner.servers.averaging_worker import AveragingWorker
from recipe.online_refiner.servers.refiner_servers import RefinerServers
from recipe.online_refiner.update.loss import constrained_loss

logger = logging.getLogger(__name__)

STATE_FILE = "refine_state.json"


class LifecycleTrainer(PPOTrainer):
    """Our trainer but for its steps; see the module."""

    actor_rollout_wg: Any

    def __init__(self, config: DictConfig) -> None:
        self.plan = resolve(config)
        self.constraint = constraint_class(config)(self.plan)
        self._run_dir = Path(self.plan.settings.run.dir)
        self.clock = StartClock(TRAINER)
        self.clock.lap("process and imports")
        self.refiner = RefinerServers(self.plan)
        self._saved_step = 0
        self._has_stepped = False
        self._dropped = Dropped()
        self._judged_groups = JudgedGroups()
        super().__init__(config)

    def _build_replay_buffer(self) -> Any:
        buffer = super()._build_replay_buffer()
        # A sampler of the user's own filters, if at all, by rules of its own.
        if getattr(buffer, "filter_groups_metric", None) is not None:
            self._judged_groups.watch(buffer)
        if self.plan.watches_dropped:
            tell_dropped(buffer, self._dropped.add)
        return buffer

    def _init_resource_pool_mgr(self) -> None:
        self.clock.lap("tokenizer and data")
        super()._init_resource_pool_mgr()
        self.refiner.add_pool(self.resource_pool_manager.resource_pool_spec)
        if self.plan.refines_by_average:
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
        self.clock.lap("actor and reference, reward loop")
        self.refiner.launch_early(self.resource_pool_manager.resource_pool_dict)

    def _setup(self) -> None:
        self.refiner.prepare_policy_servers()
        super()._setup()
        self.clock.lap("policy's servers, checkpoint")
        # In every arm, so that its metrics compare; verl's distillation has a loss of its own.
        if self.plan.uses_own_loss or not self.config.distillation.enabled:
            actor = omega_conf_to_dataclass(self.config.actor_rollout_ref.actor)
            self.actor_rollout_wg.set_loss_fn(partial(constrained_loss, config=actor))
        self.refiner.launch(self.resource_pool_manager.resource_pool_dict)
        self.clock.lap("waiting for the refiner's servers")
        if self.refiner.launched:
            self.clock.add(REFINER, "start", *self.refiner.launched)
        share = self.plan.settings.run.log_share
        self._episode_log = EpisodeLog(self._run_dir, self.tokenizer, share)

    def on_init_end(self) -> None:
        super().on_init_end()
        self.refiner.wake_up()
        self.clock.lap("first weights")

    def on_step_begin(self) -> None:
        # Not before: the step in which a server died is first to be logged.
        self.refiner.stop_if_lost()
        if not self._has_stepped:
            self.clock.lap("validation")
        super().on_step_begin()

    def on_step_end(self) -> None:
        is_requested = is_save_requested(self._run_dir)
        if (is_requested or self.refiner.must_stop) and self._saved_step != self.global_steps:
            self._save_checkpoint()
        if is_requested:
            mark_saved(self._run_dir)
        super().on_step_end()
        self.refiner.wake_up()
        if not self._has_stepped:
            self._has_stepped = True
            self.clock.lap("first step")
            add_phases(self._run_dir, self.clock.phases, first_step=True)
        if self.plan.refines_by_average:
            with marked_timer("refiner_load", self.timing_raw):
                self.refiner.load_average()

    def on_sample_end(self) -> None:
        super().on_sample_end()
        self.refiner.sleep()

    @property
    def logger(self) -> RecordedTracking:
        """verl's tracking, which `fit` assigns; every record also goes to metrics.jsonl."""
        return self._tracking

    @logger.setter
    def logger(self, tracking: Any) -> None:
        self._tracking = RecordedTracking(tracking, self._run_dir / METRICS_FILE)

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
        for name in RECORD_FILES:
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
        self.constraint.restore(before)
        for one in changed(before, self._state()):
            message = "resuming with %s=%r; the checkpoint was trained with %r"
            logger.warning(message, one.key, one.now, one.before)

    def _state(self) -> dict[str, Any]:
        """All that the constraint depends on besides the step, which verl saves."""
        return {
            "constraint": self.plan.settings.constraint.dump(),
            "total_training_steps": self.total_training_steps,
            **self.constraint.state(self.global_steps, self.total_training_steps),
        }
