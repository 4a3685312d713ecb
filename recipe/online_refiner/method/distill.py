"""Distillation: the policy learns the refiner's distribution over each token of a', not a' alone.

λ·m·KL(π_refiner ‖ π_θ) in the actor's loss, on the rows (s0, a') that `inject=sft` adds: the
refiner has read s0, a and its template and writes a', the policy has read s0 and a'_<t. Ours, after
the strongest rival idea: SDPO (arXiv 2601.20802) distils a self-teacher's logits, and finds that
better than its tokens. There the teacher is the policy itself, reads along on the policy's own
response, and every response counts; here it is the frozen reference, on its own refinement, which
must have earned a higher reward.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from pydantic import Field

from recipe.online_refiner.choices import Conditioning, Inject, Mode
from recipe.online_refiner.method.accepted import finite_in_mask
from recipe.online_refiner.method.constraint import Additions, Step
from recipe.online_refiner.method.dynamic import reduced_cross_entropy
from recipe.online_refiner.method.dynamic_sft import DynamicSft
from recipe.online_refiner.method.readings import logits_faults
from recipe.online_refiner.plan import Needs, RunPlan
from recipe.online_refiner.records import RefinedRollout
from recipe.online_refiner.settings import Section, Settings

KIND = "constraint.kind=distill"


class DistillSettings(Section):
    """The section `constraint.distill`: how many tokens of the refiner's a state is taught."""

    top_k: int = Field(ge=1)


class Distill(DynamicSft):
    """The supervised term with the refiner's distribution in place of its token.

    A token that the refiner has no distribution over is taught as by `inject=sft`: its cross
    entropy is the divergence from a distribution that is certain of it.
    """

    name = "distill"
    section = DistillSettings

    def __init__(self, plan: RunPlan) -> None:
        super().__init__(plan)
        self._costs: dict[str, torch.Tensor] = {}

    @classmethod
    def needs(cls, settings: Settings) -> Needs:
        own = settings.constraint.own(DistillSettings)
        return Needs(refinements=True, own_loss=True, top_tokens=own.top_k)

    @classmethod
    def describe(cls, settings: Settings) -> str:
        section = settings.constraint
        return f"distill, top_k={section.own(DistillSettings).top_k}, λ={section.lambda_:g}"

    @classmethod
    def faults(cls, plan: RunPlan) -> Iterator[str]:
        section = plan.settings.constraint
        if section.inject is not Inject.SFT:
            yield (
                f"constraint.inject={section.inject}: {KIND} is a differentiable term of the "
                "loss, and no penalty. Fix: constraint.inject=sft, or constraint.kind=dynamic"
            )
        elif section.conditioning is not Conditioning.TEACHER_FORCING:
            yield (
                f"constraint.conditioning={section.conditioning}: the refiner's distribution is "
                f"over a' after a'_<t, so that with {KIND} the policy reads the same. Fix: "
                "constraint.conditioning=teacher_forcing"
            )
        else:
            yield from super().faults(plan)
        yield from logits_faults(plan.config, KIND, "constraint.kind=dynamic")
        yield from _refiner_faults(plan)

    def additions(self, step: Step) -> Additions | None:
        additions = super().additions(step)
        if additions is None:
            return None
        rows = [
            replace(row, targets=one.refinement.top_tokens)
            for row, one in zip(additions.rows, step.accepted, strict=True)
        ]
        return replace(additions, rows=rows)

    def after_update(self, step: Step, cross_entropy: Sequence[torch.Tensor]) -> dict[str, float]:
        rows = len(step.accepted)
        costs = costs_of(step.accepted, cross_entropy[:rows], cross_entropy[rows:])
        distilled = _distilled(step.accepted, costs)
        super().after_update(step, cross_entropy[:rows])
        step.accepted = [one for one in step.accepted if finite_in_mask(one, costs[one.key])]
        self._costs = costs
        return distilled

    def _reduced_costs(self, step: Step) -> list[float]:
        if not self.measures_in_update(step):
            return super()._reduced_costs(step)
        by_divergence = [replace(one, cross_entropy=self._costs[one.key]) for one in step.accepted]
        return reduced_cross_entropy(by_divergence, self.settings)


def costs_of(
    accepted: Sequence[RefinedRollout],
    cross_entropy: Sequence[torch.Tensor],
    divergences: Sequence[torch.Tensor],
) -> dict[str, torch.Tensor]:
    """By key what each token of a refinement costs: the divergence, or c_t without distributions.

    Args:
        cross_entropy: of each refinement. divergences: of each that has distributions.
    """
    theirs = iter(divergences)
    return {
        one.key: values if one.refinement.top_tokens is None else next(theirs)
        for one, values in zip(accepted, cross_entropy, strict=True)
    }


def _refiner_faults(plan: RunPlan) -> Iterator[str]:
    """Refiners that give no distribution over a whole refinement."""
    blocks, mode = plan.settings.refiner.block_tokens, plan.config.trainer.v1.trainer_mode
    if blocks is not None:
        yield (
            f"refiner.block_tokens={blocks}: {KIND} takes the refiner's distribution over a "
            "refinement in one piece. Fix: refiner.block_tokens=null, or constraint.kind=dynamic"
        )
    if mode == Mode.COLOCATE_ASYNC:
        yield (
            f"trainer.v1.trainer_mode={mode}: a request for the refiner's distributions may be "
            f"interrupted, and loses them, so that {KIND} would teach the tokens alone. Fix: "
            "trainer.v1.trainer_mode=sync, or constraint.kind=dynamic"
        )


def _distilled(
    accepted: Sequence[RefinedRollout], costs: Mapping[str, torch.Tensor]
) -> dict[str, float]:
    """How far the policy is from the refiner, on which share of the tokens in the token mask."""
    taught = sum(float(one.token_mask.sum()) for one in accepted)
    if not taught:
        return {}
    values = [_where_the_refiner_has_one(one, costs[one.key]) for one in accepted]
    found = torch.cat(values)
    metrics = {"constraint/distilled_token_ratio": len(found) / taught}
    finite = found[found.isfinite()]
    if len(finite):
        metrics["constraint/refiner_kl_mean"] = finite.mean().item()
    return metrics


def _where_the_refiner_has_one(one: RefinedRollout, costs: torch.Tensor) -> torch.Tensor:
    """The costs on the tokens in the mask over which the refiner has a distribution."""
    top = one.refinement.top_tokens
    states = slice(0) if top is None else slice(top.start, top.end)
    return costs[states][one.token_mask[states] > 0]
