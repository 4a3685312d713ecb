"""No constraint: PPO, GRPO or DAPO alone, the paper's baseline "w/o constraint"."""

from collections.abc import Iterator

from recipe.online_refiner.method.constraint import Constraint
from recipe.online_refiner.method.unread import unread
from recipe.online_refiner.plan import RunPlan


class Unconstrained(Constraint):
    """verl's training as it is."""

    @classmethod
    def warnings(cls, plan: RunPlan) -> Iterator[str]:
        yield from unread(plan, "lambda", None, "nothing is constrained")
