"""What changes from step to step: λ of the constraint and μ of CHORD, as pure functions.

Training steps count from 1. Everything here is a function of the step and, for the adaptive λ, of
one number that a checkpoint keeps, so a resumed run goes on exactly.
"""

import math

from recipe.online_refiner.choices import Schedule

RATIO_DECAY = 0.9
"""Of the moving average of the improvement ratio; about ten steps of memory (ours)."""


def lambda_at(step: int, total_steps: int, start: float, end: float, schedule: Schedule) -> float:
    """λ at training step `step` in 1..total_steps for the schedules of the step alone.

    linear: start + (end - start)·p; cosine: end + (start - end)·(1 + cos πp)/2,
    with p = (step - 1)/(total_steps - 1), and p = 0 if there is one step only.
    """
    if schedule is Schedule.CONSTANT or total_steps <= 1:
        return start
    progress = min(max((step - 1) / (total_steps - 1), 0.0), 1.0)
    if schedule is Schedule.LINEAR:
        return start + (end - start) * progress
    return end + (start - end) * (1.0 + math.cos(math.pi * progress)) / 2.0


def adaptive_lambda(ratio: float, upper: float, lower: float, target: float) -> float:
    """λ = lower + (upper - lower)·min(1, ratio/target): the upper while the refiner helps.

    Args:
        ratio: the improvement ratio, smoothed, in [0, 1]. target: at and above it λ is `upper`.
    """
    return lower + (upper - lower) * min(1.0, ratio / target)


def smoothed(previous: float | None, value: float) -> float:
    """The improvement ratio's moving average after one more step; starts at its first value."""
    if previous is None:
        return value
    return RATIO_DECAY * previous + (1.0 - RATIO_DECAY) * value


def chord_mu(step: int, warmup: int, decay: int, peak: float, valley: float) -> float:
    """CHORD's μ at training step `step` (arXiv 2508.11408; Trinity-RFT's schedule).

    Rises linearly from 0 to `peak` over `warmup` steps, then falls as a cosine to `valley` over
    `decay` steps and stays there.
    """
    done = step - 1
    if done < warmup:
        return peak * done / warmup
    if done >= warmup + decay:
        return valley
    return valley + (peak - valley) * (1.0 + math.cos(math.pi * (done - warmup) / decay)) / 2.0
