"""pass@k and how sure it is. Pure.

Legend: n samples of a problem, c of them right.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
_CHUNK = 1_000  # resamples drawn at once, so that memory stays small for any number of problems
_Z95 = 1.959963984540054  # the normal distribution's 97.5 % point


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % confidence interval."""

    value: float
    low: float
    high: float


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimate of P(one of k samples is right): 1 - C(n-c, k) / C(n, k).

    Source: Chen et al. 2021 (arXiv 2107.03374), equation 1. Exact integers, so no n is too large.

    Raises:
        ValueError: not 0 <= c <= n, or not 1 <= k <= n.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, not n={n}, c={c}, k={k}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def mean_estimate(values: Sequence[float]) -> Estimate:
    """The mean over problems, each counted once; nan if there is none.

    If every value is 0 or 1 (one sample a problem) the interval is Wilson's, otherwise that of
    `interval`. Both say how far another draw of problems may move the mean.
    """
    if not values:
        return Estimate(math.nan, math.nan, math.nan)
    if set(values) <= {0.0, 1.0}:
        return wilson(int(sum(values)), len(values))
    return interval(values, 0.0, 1.0)


def interval(values: Sequence[float], least: float, most: float) -> Estimate:
    """The mean with a 95 % interval over problems: the percentile bootstrap (10,000 resamples,
    fixed seed) of the problems and of two imagined ones, at either end of what a value can be.

    Without these the bootstrap knows nothing of values that the problems at hand do not show: with
    2 of 64 problems that differ it covers the truth in 3 cases of 4, and with none it has no width.
    Two imagined ones are what Agresti and Coull (1998) add to a fraction.
    """
    mean = sum(values) / len(values)
    low, high = bootstrap([*values, least, most])
    return Estimate(mean, min(low, mean), max(high, mean))


def wilson(successes: int, count: int) -> Estimate:
    """A fraction with Wilson's score interval (1927), which stays within 0 and 1 and has a width
    even at 0 and at 1.
    """
    share = successes / count
    square = _Z95**2 / count
    centre = (share + square / 2) / (1 + square)
    half = _Z95 * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half))


def bootstrap(values: Sequence[float]) -> tuple[float, float]:
    """The 2.5 % and 97.5 % points of the mean of `values` resampled with replacement."""
    data = np.asarray(values, dtype=float)
    rng = np.random.default_rng(0)
    means = [
        data[rng.integers(0, len(data), (_CHUNK, len(data)))].mean(axis=1)
        for _ in range(RESAMPLES // _CHUNK)
    ]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


def paired_difference(before: Sequence[float], after: Sequence[float]) -> Estimate:
    """The mean of `after` - `before`, problem by problem, with the interval of `interval`.

    Paired, since both are the same problems: what a problem's difficulty adds to both cancels.
    """
    differences = [b - a for a, b in zip(before, after, strict=True)]
    if not differences:
        return Estimate(math.nan, math.nan, math.nan)
    return interval(differences, -1.0, 1.0)


@dataclass(frozen=True)
class Split:
    """A gain of pass@1 in two parts that add up to it."""

    gain: float
    format: float
    skill: float


def split_gain(format_0: float, pass_0: float, format_1: float, pass_1: float) -> Split:
    """How much of pass_1 - pass_0 is format and how much is skill.

    pass = format · skill, where `format` is the share of samples that hold a program, and skill the
    share of those that is right. The gain is (f1 - f0)·(s0 + s1)/2 + (s1 - s0)·(f0 + f1)/2, exactly
    and without an order of the two (ours). Without any program at all a model's skill is unknown;
    it is taken to be the other's, so that the gain is one of format.
    """
    skill_0 = pass_0 / format_0 if format_0 else None
    skill_1 = pass_1 / format_1 if format_1 else None
    s0 = skill_0 if skill_0 is not None else (skill_1 or 0.0)
    s1 = skill_1 if skill_1 is not None else s0
    by_format = (format_1 - format_0) * (s0 + s1) / 2
    by_skill = (s1 - s0) * (format_0 + format_1) / 2
    return Split(pass_1 - pass_0, by_format, by_skill)
