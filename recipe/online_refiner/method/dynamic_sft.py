"""The dynamic constraint as a differentiable term: λ·m·CE of rows (s0, a') in the actor's loss.

The paper's supervised loss (arXiv 2603.18088); its normalisation and λ are ours. The rows are in
the same optimizer steps as the policy's, and the loss reports their c_t, so that no forward pass of
its own is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from recipe.online_refiner.method.accepted import with_cross_entropy
from recipe.online_refiner.method.constraint import Additions, ExtraRow, Step
from recipe.online_refiner.method.dynamic import Dynamic
from recipe.online_refiner.method.extra_rows import extra_row_faults
from recipe.online_refiner.method.maths import sft_weights
from recipe.online_refiner.plan import Needs, RunPlan
from recipe.online_refiner.records import RefinedRollout
from recipe.online_refiner.settings import ConstraintSettings, Settings


class DynamicSft(Dynamic):
    """Makes the refinement more likely, where the penalties make the rollout less likely."""

    @classmethod
    def needs(cls, settings: Settings) -> Needs:
        return Needs(refinements=True, own_loss=True)

    @classmethod
    def faults(cls, plan: RunPlan) -> Iterator[str]:
        yield from super().faults(plan)
        yield from extra_row_faults(plan.config)

    def measures_in_update(self, step: Step) -> bool:
        return step.trains_actor and self.lambda_of(step.number, step.total_steps) > 0

    def additions(self, step: Step) -> Additions | None:
        if not self.measures_in_update(step):
            return None
        lambda_ = self.lambda_of(step.number, step.total_steps)
        return Additions(
            refined_rows(step.accepted, self.settings, lambda_, step.rollouts_a_mini_batch)
        )

    def after_update(self, step: Step, cross_entropy: Sequence[torch.Tensor]) -> dict[str, float]:
        step.accepted = with_cross_entropy(step.accepted, cross_entropy)
        return {}


def refined_rows(
    accepted: Sequence[RefinedRollout], settings: ConstraintSettings, lambda_: float, rollouts: int
) -> list[ExtraRow]:
    """The rows (s0, a') of the update.

    Args:
        rollouts: policy rows in one mini-batch.
    """
    return [
        ExtraRow(
            one.rollout.prompt_ids,
            one.refinement.token_ids,
            sft_weights(one.token_mask[None], lambda_, rollouts, settings.reduce)[0],
        )
        for one in accepted
    ]
