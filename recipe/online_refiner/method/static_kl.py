"""verl's own KL against the reference, the paper's baseline "Static"; its place is ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from omegaconf import DictConfig, open_dict
from pydantic import Field

from recipe.online_refiner.method.constraint import Constraint
from recipe.online_refiner.method.unread import unread
from recipe.online_refiner.plan import Needs, RunPlan
from recipe.online_refiner.settings import MOST_COEFFICIENT, Section, Settings


class StaticKlSettings(Section):
    """The section `constraint.static_kl`: the coefficient, in the loss or in the reward."""

    coef: float = Field(ge=0, le=MOST_COEFFICIENT)
    where: Literal["loss", "reward"]


class StaticKl(Constraint):
    """β·KL(π_θ, π_0) in the loss, or β·KL_t taken from the rewards, by verl's own keys."""

    name = "static_kl"
    section = StaticKlSettings

    @classmethod
    def needs(cls, settings: Settings) -> Needs:
        return Needs(reference=True)

    @classmethod
    def warnings(cls, plan: RunPlan) -> Iterator[str]:
        coef = plan.settings.constraint.own(StaticKlSettings).coef
        reason = f"the KL's coefficient is constraint.static_kl.coef={coef:g}"
        yield from unread(plan, "lambda", None, reason)

    @classmethod
    def set_verl_keys(cls, config: DictConfig, settings: Settings) -> None:
        own = settings.constraint.own(StaticKlSettings)
        actor, algorithm = config.actor_rollout_ref.actor, config.algorithm
        with open_dict(config):
            if own.where == "reward":
                algorithm.use_kl_in_reward = True
                algorithm.kl_ctrl.type = "fixed"
                algorithm.kl_ctrl.kl_coef = own.coef
            else:
                actor.use_kl_loss = True
                actor.kl_loss_coef = own.coef
