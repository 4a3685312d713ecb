"""How long a step and a run take, by the arithmetic of `memory.py` and `queueing.py`.

An estimate (ours), to choose nodes and a job's time limit by; not a measurement. With P parameters,
T tokens of a step's rows at half of their longest, G GPUs that train, F operations a second of one:

    rollouts      as in `queueing.py`; refinements beside them on the same GPUs add their own time
    old log-probs 2·P·T / (G·F), the reference as much in each step in which it is forwarded
    an update     8·P·T / (G·F) an epoch: forward, backward, and the layers computed again
    a critic      its values and its update likewise

Left out are what attention costs over long rows, transfers and weight syncs, validation,
checkpoints, added rows of refinements, and what dynamic sampling throws away: if it drops a share d
of the groups, rollouts and refinements take 1/(1 - d) times as long.
"""

from __future__ import annotations

from dataclasses import dataclass

from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.preflight.queueing import MEAN_SHARE, OPERATIONS_PER_BYTE, loads
from recipe.online_refiner.preflight.shapes import read_shapes

FORWARD = 2
"""Operations a parameter and token of one pass forwards."""
UPDATE = 8
"""The same of an update: a pass forwards, twice as much backwards, and the layers once more."""
HOUR_S = 3600


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step: of its rollouts, of its refinements beside them, and of its training."""

    rollouts_s: float
    refinements_s: float
    training_s: float

    @property
    def total_s(self) -> float:
        """Of the whole step."""
        return self.rollouts_s + self.refinements_s + self.training_s


def step_time(plan: RunPlan) -> StepTime | None:
    """Of a step of this run; None without GPUs whose bandwidth is known, or without shapes."""
    found = loads(plan)
    shapes, _ = read_shapes(plan)
    if found is None or shapes.policy is None:
        return None
    bandwidth = found.bandwidth
    refinements = 0.0
    if found.refinements is not None:
        refinements = found.refinements.all_s(bandwidth)
        if plan.has_own_pool:  # meanwhile: only what the rollouts' time does not cover
            refinements = max(0.0, refinements - found.rollouts.all_s(bandwidth))
    operations = shapes.policy.parameters * _policy_passes(plan)
    if shapes.critic is not None:
        epochs = plan.config.critic.ppo_epochs
        operations += shapes.critic.parameters * (FORWARD + UPDATE * epochs)
    rate = plan.trainer_gpus * bandwidth * OPERATIONS_PER_BYTE
    training = operations * _tokens(plan) / rate
    return StepTime(found.rollouts.all_s(bandwidth), refinements, training)


def run_hours(plan: RunPlan) -> float | None:
    """Of all steps; None if the step's time or their number is not known."""
    step, steps = step_time(plan), plan.config.trainer.total_training_steps
    return None if step is None or steps is None else step.total_s * steps / HOUR_S


def _policy_passes(plan: RunPlan) -> float:
    """Operations a parameter and token of the actor and of its reference."""
    reference = 0.0
    if plan.needs.reference:
        reference = FORWARD
    elif plan.forwards_reference:
        reference = FORWARD / plan.settings.monitor.kl_every_steps
    return FORWARD + reference + UPDATE * plan.config.actor_rollout_ref.actor.ppo_epochs


def _tokens(plan: RunPlan) -> float:
    """T."""
    data = plan.config.data
    rows = data.train_batch_size * plan.config.actor_rollout_ref.rollout.n
    return float(rows * MEAN_SHARE * (data.max_prompt_length + data.max_response_length))
