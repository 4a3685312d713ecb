"""Two arms over the seeds that both have: the mean of the paired differences, its interval and p.

Runs of one seed share problems and their order, so what differs between seeds but not between arms
drops out of the difference. The larger p of two tests counts: the permutation test over the signs
of the differences is exact whatever their distribution if the arms are exchangeable within a pair,
and Student's t-test also asks that the mean be resolved against the scatter. With n pairs no p is
below 2 / 2^n, so fewer than six pairs can show nothing at the 5 % level.

Both suppose that without an effect the differences scatter alike on either side of zero. No test of
a mean can do without supposing anything: an arm that collapses in one run of ten has the mean of a
stable one a little below, and is mostly seen above it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np

from recipe.analysis.significance import Values, student_tail

MAX_ENUMERATED = 16
DRAWS = 65_536


@dataclass(frozen=True)
class PairedDifference:
    """First minus second arm over `seeds`; without two pairs there is neither interval nor p.

    `low` and `high` bound the mean of the differences at 95 % by Student's t, for this comparison
    alone.
    """

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    mean: float
    low: float
    high: float
    p_value: float | None


def paired_difference(
    first: Mapping[int, float], second: Mapping[int, float]
) -> PairedDifference | None:
    """The comparison over the seeds that both arms have; None without any."""
    seeds = tuple(sorted(first.keys() & second.keys()))
    if not seeds:
        return None
    values = np.array([first[seed] - second[seed] for seed in seeds])
    mean = float(values.mean())
    if len(values) < 2:
        return PairedDifference(seeds, tuple(values.tolist()), mean, math.nan, math.nan, None)
    half = interval_half_width(values)
    p_value = max(sign_flip_p(values), paired_t_p(values))
    return PairedDifference(seeds, tuple(values.tolist()), mean, mean - half, mean + half, p_value)


def sign_flip_p(differences: Values) -> float:
    """Share of all choices of signs whose mean is at least as far from 0 as the real one."""
    n = len(differences)
    if n <= MAX_ENUMERATED:
        signs = np.array(list(product((1.0, -1.0), repeat=n)))
    else:
        drawn = np.random.default_rng(0).choice((1.0, -1.0), size=(DRAWS, n))
        signs = np.vstack([np.ones(n), drawn])
    sums = np.abs(signs @ differences)
    # The first row is the real one; sums in another order differ in their last digits.
    return float(np.mean(sums >= sums[0] * (1 - 1e-9)))


def paired_t_p(differences: Values) -> float:
    """Student's two-sided t-test of the mean difference."""
    error = standard_error(differences)
    mean = abs(float(differences.mean()))
    if error <= 0:
        return 0.0 if mean > 0 else 1.0
    return student_tail(mean / error, len(differences) - 1)


def standard_error(values: Values) -> float:
    """Of the mean; NaN for fewer than two values."""
    if len(values) < 2:
        return math.nan
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def interval_half_width(values: Values, level: float = 0.05) -> float:
    """Half the width of Student's interval around the mean."""
    return student_quantile(level, len(values) - 1) * standard_error(values)


@cache
def student_quantile(level: float, freedom: int) -> float:
    """The t beyond which `level` of Student's distribution lies on both sides, by bisection."""
    low, high = 0.0, 1.0
    while student_tail(high, freedom) > level:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_tail(middle, freedom) > level else (low, middle)
    return (low + high) / 2
