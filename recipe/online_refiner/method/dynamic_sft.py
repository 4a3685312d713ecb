"""The dynamic constraint as a differentiable term: λ·m·CE in the actor's loss.

The paper's supervised loss (arXiv 2603.18088); its normalisation and λ are ours. Teacher-forced,
rows (s0, a') are in the same optimizer steps as the policy's. Self-fed (ours), the tokens of a' are
labels on the policy's own rows, and no row is added. The loss reports c_t, so that no forward pass
of its own is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from recipe.online_refiner.choices import Accumulate, Align, Conditioning, Schedule, Stage
from recipe.online_refiner.method.accepted import with_cross_entropy
from recipe.online_refiner.method.constraint import Additions, ExtraRow, Step
from recipe.online_refiner.method.dynamic import Dynamic
from recipe.online_refiner.method.extra_rows import extra_row_faults
from recipe.online_refiner.method.labels import RowLabels, labels_of
from recipe.online_refiner.method.maths import sft_weights
from recipe.online_refiner.method.unread import unread
from recipe.online_refiner.plan import Needs, RunPlan
from recipe.online_refiner.records import RefinedRollout
from recipe.online_refiner.settings import ConstraintSettings, Settings


class DynamicSft(Dynamic):
    """Makes the refinement more likely, while the penalties make the rollout less likely."""

    @classmethod
    def needs(cls, settings: Settings) -> Needs:
        return Needs(refinements=True, own_loss=True)

    @classmethod
    def faults(cls, plan: RunPlan) -> Iterator[str]:
        yield from super().faults(plan)
        if plan.settings.constraint.conditioning is Conditioning.TEACHER_FORCING:
            yield from extra_row_faults(plan.config)

    @classmethod
    def warnings(cls, plan: RunPlan) -> Iterator[str]:
        yield from super().warnings(plan)
        reason = "only a penalty (constraint.inject=reward or advantage) is laid on the rollout"
        yield from unread(plan, "align", Align.POSITION, reason)
        yield from unread(plan, "accumulate", Accumulate.RETURN_TO_GO, reason)

    def reads_at(self, step: Step) -> Stage:
        # Whether λ is 0, and c_t then measured before the update, may depend on the refinements.
        adapts = self.settings.schedule is Schedule.ADAPTIVE
        if self.measures_in_update(step) and not adapts:
            return Stage.UPDATE
        return super().reads_at(step)

    def measures_in_update(self, step: Step) -> bool:
        return step.trains_actor and self.lambda_of(step.number, step.total_steps) > 0

    def additions(self, step: Step) -> Additions | None:
        if not self.measures_in_update(step):
            return None
        lambda_ = self.lambda_of(step.number, step.total_steps)
        given = (step.accepted, self.settings, lambda_, step.rollouts_a_mini_batch)
        if self.conditioning is Conditioning.SELF_FEEDING:
            return Additions(labels=weighted_labels(*given))
        return Additions(rows=refined_rows(*given))

    def after_update(self, step: Step, cross_entropy: Sequence[torch.Tensor]) -> dict[str, float]:
        if self.conditioning is Conditioning.SELF_FEEDING:
            self.after_labels(step, cross_entropy)
        else:
            step.accepted = with_cross_entropy(step.accepted, cross_entropy)
        return {}


def refined_rows(
    accepted: Sequence[RefinedRollout], settings: ConstraintSettings, lambda_: float, rollouts: int
) -> list[ExtraRow]:
    """The rows (s0, a') of the update.

    Args:
        rollouts: policy rows in one mini-batch.
    """
    given = zip(accepted, _weights(accepted, settings, lambda_, rollouts), strict=True)
    return [
        ExtraRow(one.rollout.prompt_ids, one.refinement.token_ids, weights)
        for one, weights in given
    ]


def weighted_labels(
    accepted: Sequence[RefinedRollout], settings: ConstraintSettings, lambda_: float, rollouts: int
) -> list[RowLabels]:
    """The tokens of a' in the token mask as labels on the policy's rows; see `refined_rows`."""
    return labels_of(accepted, _weights(accepted, settings, lambda_, rollouts))


def _weights(
    accepted: Sequence[RefinedRollout], settings: ConstraintSettings, lambda_: float, rollouts: int
) -> list[torch.Tensor]:
    """The weights of each refinement's U tokens."""
    if not accepted:
        return []
    mask_BU = pad_sequence([one.token_mask for one in accepted], batch_first=True)
    weights_BU = sft_weights(mask_BU, lambda_, rollouts, settings.reduce)
    return [
        weights[: len(one.token_mask)] for one, weights in zip(accepted, weights_BU, strict=True)
    ]
