"""The dynamic constraint as a penalty on the advantages: Â_t - λ·m·Σ_{u≥t} γ^(u-t)·c_u.

The paper's penalty for estimators without a critic (GRPO, DAPO, RLOO …), cumulated after rewards
are normalised by group, as its code base does; `accumulate: none` takes λ·m·c_t alone (ours).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch.nn.utils.rnn import pad_sequence

from recipe.online_refiner.choices import CRITIC_FREE_ESTIMATORS, Accumulate, Place
from recipe.online_refiner.method.constraint import Penalty, Step
from recipe.online_refiner.method.dynamic import Dynamic
from recipe.online_refiner.method.maths import return_to_go
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
        penalty = self._penalty(step, Place.ADVANTAGES)
        if penalty is None or self.settings.accumulate is Accumulate.NONE:
            return penalty
        mask_BT = pad_sequence(
            [torch.tensor(one.rollout.response_mask) for one in step.accepted], batch_first=True
        )
        gamma = float(self.plan.config.algorithm.gamma)
        return replace(penalty, values_BT=return_to_go(penalty.values_BT, mask_BT, gamma))
