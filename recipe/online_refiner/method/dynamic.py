"""What the three injections of the dynamic constraint share: λ over the steps, and its penalties.

The constraint of arXiv 2603.18088, section 3.3: λ·m·CE on refinements that earn a higher reward.
Each injection has a file of its own: `dynamic_reward`, `dynamic_advantage`, `dynamic_sft`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from recipe.online_refiner.choices import Align, Conditioning, Filter, Place, Schedule, Stage
from recipe.online_refiner.method.accepted import with_cross_entropy
from recipe.online_refiner.method.constraint import Constraint, Penalty, Step
from recipe.online_refiner.method.labels import RowLabels, labels_of, on_steps, on_tokens
from recipe.online_refiner.method.maths import aligned, reduced
from recipe.online_refiner.method.readings import reading_faults
from recipe.online_refiner.method.schedules import adaptive_lambda, lambda_at, smoothed
from recipe.online_refiner.method.unread import schedule_faults
from recipe.online_refiner.plan import Needs, RunPlan
from recipe.online_refiner.records import RefinedRollout
from recipe.online_refiner.settings import ConstraintSettings, Settings


class Dynamic(Constraint):
    """λ by its schedule, the keys that all injections read, and what is logged of them."""

    def __init__(self, plan: RunPlan) -> None:
        super().__init__(plan)
        self._smoothed_ratio: float | None = None

    @classmethod
    def needs(cls, settings: Settings) -> Needs:
        feeds_itself = settings.constraint.conditioning is Conditioning.SELF_FEEDING
        return Needs(refinements=True, own_loss=feeds_itself)

    @classmethod
    def describe(cls, settings: Settings) -> str:
        section = settings.constraint
        return (
            f"{section.kind}, inject={section.inject}, conditioning={section.conditioning}, "
            f"λ={section.lambda_:g}"
        )

    @classmethod
    def faults(cls, plan: RunPlan) -> Iterator[str]:
        section = plan.settings.constraint
        if section.schedule is Schedule.ADAPTIVE and section.lambda_end > section.lambda_:
            yield (
                f"constraint.lambda_end={section.lambda_end} is above constraint.lambda="
                f"{section.lambda_}: with schedule=adaptive it is the lower bound. Fix: lower it"
            )
        yield from schedule_faults(plan)
        yield from reading_faults(plan)

    @classmethod
    def warnings(cls, plan: RunPlan) -> Iterator[str]:
        rule, perfect = plan.settings.constraint.filter, plan.settings.refiner.perfect_reward
        if rule is not Filter.BETTER and perfect is not None:
            yield (
                f"constraint.filter={rule} with refiner.perfect_reward={perfect:g}: rollouts with "
                "that reward are not refined, although this filter accepts refinements of them. "
                "refiner.perfect_reward=null refines all"
            )

    @property
    def conditioning(self) -> Conditioning:
        return self.settings.conditioning

    def reads_at(self, step: Step) -> Stage:
        if self.conditioning is Conditioning.SELF_FEEDING:
            return Stage.LOG_PROBS
        return Stage.ADVANTAGES

    def begin(self, step: Step) -> None:
        if step.improvement_ratio is not None:
            self._smoothed_ratio = smoothed(self._smoothed_ratio, step.improvement_ratio)

    def labels(self, step: Step) -> Sequence[RowLabels]:
        if self.conditioning is not Conditioning.SELF_FEEDING or self.measures_in_update(step):
            return ()
        return labels_of(step.accepted)

    def after_labels(self, step: Step, cross_entropy: Sequence[torch.Tensor]) -> None:
        placed = [
            on_tokens(one, values) for one, values in zip(step.accepted, cross_entropy, strict=True)
        ]
        step.accepted = with_cross_entropy(step.accepted, placed)

    def lambda_of(self, step: int, total_steps: int) -> float:
        """λ of this training step."""
        section = self.settings
        if section.schedule is Schedule.ADAPTIVE:
            ratio = 1.0 if self._smoothed_ratio is None else self._smoothed_ratio
            return adaptive_lambda(
                ratio, section.lambda_, section.lambda_end, section.adaptive_target
            )
        return lambda_at(step, total_steps, section.lambda_, section.lambda_end, section.schedule)

    def metrics(self, step: Step) -> dict[str, float]:
        lambda_ = self.lambda_of(step.number, step.total_steps)
        paid = sum(lambda_ * one for one in self._reduced_costs(step))
        return {
            "constraint/lambda": lambda_,
            "constraint/penalty_mean": paid / len(step.rollouts),
        }

    def _reduced_costs(self, step: Step) -> list[float]:
        """What each accepted refinement costs before λ, in nats."""
        return reduced_cross_entropy(step.accepted, self.settings)

    def state(self, step: int, total_steps: int) -> dict[str, Any]:
        return {
            "smoothed_ratio": self._smoothed_ratio,
            "lambda": self.lambda_of(step, total_steps),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._smoothed_ratio = state.get("smoothed_ratio")

    def _penalty(self, step: Step, place: Place) -> Penalty | None:
        """λ·m·c_t laid onto the tokens of the rollouts; None if nothing would be taken."""
        lambda_ = self.lambda_of(step.number, step.total_steps)
        if not step.accepted or lambda_ == 0:
            return None
        values_BT = lambda_ * penalty_on_rollouts(step.accepted, self.settings)
        return Penalty(place, tuple(one.key for one in step.accepted), values_BT)


def reduced_cross_entropy(
    accepted: Sequence[RefinedRollout], settings: ConstraintSettings
) -> list[float]:
    """reduce(c_t) of each accepted refinement, in nats."""
    return [
        reduced(one.masked_cross_entropy[None], one.token_mask[None], settings.reduce).sum().item()
        for one in accepted
    ]


def penalty_on_rollouts(
    accepted: Sequence[RefinedRollout], settings: ConstraintSettings
) -> torch.Tensor:
    """The penalty before λ on the tokens of the B rollouts; conserves each sum. (B, T).

    Self-fed, each c_t is on the step that was asked for a'_t; otherwise `align` lays it there.
    """
    if settings.conditioning is Conditioning.SELF_FEEDING:
        penalties = [
            reduced(one.masked_cross_entropy[None], one.token_mask[None], settings.reduce)[0]
            for one in accepted
        ]
        steps = [on_steps(one, values) for one, values in zip(accepted, penalties, strict=True)]
        return pad_sequence(steps, batch_first=True)
    mask_BT = pad_sequence(
        [torch.tensor(one.rollout.response_mask) for one in accepted], batch_first=True
    )
    mask_BU = pad_sequence([one.token_mask for one in accepted], batch_first=True)
    ce_BU = pad_sequence([one.masked_cross_entropy for one in accepted], batch_first=True)
    sources_BU2 = None
    if settings.align is Align.EDIT:
        sources_BU2 = pad_sequence(
            [torch.tensor(one.refinement.sources) for one in accepted], batch_first=True
        )
    return aligned(reduced(ce_BU, mask_BU, settings.reduce), mask_BT, settings.align, sources_BU2)
