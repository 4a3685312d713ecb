"""The dynamic constraint as a penalty on the advantages: Â_t - λ·m·c_t after normalisation.

The paper's penalty for estimators without a critic (GRPO, DAPO, RLOO …); where it stands is ours.
"""

from __future__ import annotations

from collections.abc import Iterator

from recipe.online_refiner.choices import CRITIC_FREE_ESTIMATORS, Place
from recipe.online_refiner.method.constraint import Penalty, Step
from recipe.online_refiner.method.dynamic import Dynamic
from recipe.online_refiner.plan import RunPlan


class DynamicAdvantage(Dynamic):
    """Returns stay the estimator's own."""

    @classmethod
    def faults(cls, plan: RunPlan) -> Iterator[str]:
        yield from super().faults(plan)
        estimator = str(plan.config.algorithm.adv_estimator)
        if estimator not in CRITIC_FREE_ESTIMATORS:
            critic = " (with a critic it must enter before the values are fitted)"
            yield (
                f"algorithm.adv_estimator={estimator!r}: the penalty cannot be taken from its "
                f"advantages{critic if estimator == 'gae' else ''}. Fix: one of "
                f"{', '.join(CRITIC_FREE_ESTIMATORS)}; or constraint.inject=reward or sft"
            )

    def penalty(self, step: Step) -> Penalty | None:
        return self._penalty(step, Place.ADVANTAGES)
