"""A constraint of one's own: every token that repeats the one before it costs λ in advantage.

Train with it by one key: constraint.kind=docs/examples/repetition.py:Repetition
"""

from collections.abc import Iterator

import torch
from pydantic import Field
from torch.nn.utils.rnn import pad_sequence

from recipe.online_refiner.choices import Place
from recipe.online_refiner.method.constraint import Constraint, Penalty, Step
from recipe.online_refiner.plan import RunPlan
from recipe.online_refiner.settings import Section


class RepetitionSettings(Section):
    """Its own keys, each with a default: +constraint.repetition.free=2 changes one."""

    free: int = Field(default=0, ge=0)  # repeated tokens of a rollout that cost nothing


class Repetition(Constraint):
    name = "repetition"
    section = RepetitionSettings

    @classmethod
    def faults(cls, plan: RunPlan) -> Iterator[str]:
        if plan.has_critic:
            yield "algorithm.adv_estimator='gae': a critic would not see it. Fix: grpo"

    def penalty(self, step: Step) -> Penalty | None:
        free = self.settings.own(RepetitionSettings).free
        flags = [repeats(rollout.response_ids, free) for rollout in step.rollouts]
        self._share = torch.cat(flags).mean().item()
        values_BT = self.settings.lambda_ * pad_sequence(flags, batch_first=True)
        return Penalty(Place.ADVANTAGES, tuple(r.key for r in step.rollouts), values_BT)

    def metrics(self, step: Step) -> dict[str, float]:
        return {"constraint/repeated_token_ratio": self._share}


def repeats(token_ids: tuple[int, ...], free: int) -> torch.Tensor:
    """T flags, 1 on a token that equals the one before it, the first `free` of them left out."""
    ids = torch.tensor(token_ids)
    flags = torch.cat([torch.zeros(1), (ids[1:] == ids[:-1]).float()])
    return flags * (flags.cumsum(0) > free)
