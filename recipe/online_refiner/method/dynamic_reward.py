"""The dynamic constraint as a penalty on the rewards: r_t - λ·m·c_t before advantages.

The paper's own with PPO and a critic (arXiv 2603.18088, section 3.3); the alignment is ours.
"""

from __future__ import annotations

from collections.abc import Iterator

from recipe.online_refiner.choices import Accumulate, Place
from recipe.online_refiner.method.constraint import Penalty, Step
from recipe.online_refiner.method.dynamic import Dynamic
from recipe.online_refiner.method.unread import unread
from recipe.online_refiner.plan import RunPlan


class DynamicReward(Dynamic):
    """Advantages and returns include the penalty; what is logged as reward does not."""

    @classmethod
    def warnings(cls, plan: RunPlan) -> Iterator[str]:
        yield from super().warnings(plan)
        reason = "the estimator cumulates rewards itself"
        yield from unread(plan, "accumulate", Accumulate.RETURN_TO_GO, reason)
        estimator = plan.config.algorithm.adv_estimator
        if estimator != "gae":
            yield (
                f"constraint.inject=reward with algorithm.adv_estimator={estimator}: normalising "
                "by group cancels λ in groups of equal rewards. constraint.inject=advantage takes "
                "the penalty after normalisation"
            )

    def penalty(self, step: Step) -> Penalty | None:
        return self._penalty(step, Place.REWARDS)
