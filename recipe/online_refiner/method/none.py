"""No constraint: PPO, GRPO or DAPO alone, the paper's baseline "w/o constraint"."""

from recipe.online_refiner.method.constraint import Constraint


class Unconstrained(Constraint):
    """verl's training as it is."""
