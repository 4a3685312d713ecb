"""When a difference between two arms is called one: two tests over their seeds, both of which it
has to pass.

Noise of a validation and scatter within a run say nothing of other seeds; only seeds do. The
permutation test is exact if seeds are exchangeable, whatever their distribution: a policy that
collapses in some runs has two modes, which defeats a t-test on a few seeds. Welch's t-test holds
its level if one arm scatters more than the other, which defeats the permutation test. The larger
of the two p-values counts. All comparisons of a report share one level by Holm's procedure (1979),
so that of all reports in which no arm differs, at most `LEVEL` claim that one does; the tests
simulate it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05
MAX_ENUMERATED = 20_000
DRAWS = 20_000

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """What the seeds of two arms say: difference of means, and the larger p of the two tests,
    None without seeds."""

    difference: float
    p_value: float | None


def compare(first: Sequence[float] | Values, second: Sequence[float] | Values) -> Comparison:
    """The mean of `first` minus that of `second`, and the larger p-value of the two tests.

    Without two seeds each there is no p-value.
    """
    a, b = np.array(first, dtype=float), np.array(second, dtype=float)
    gap = float(a.mean() - b.mean())
    if min(len(a), len(b)) < 2:
        return Comparison(gap, None)
    return Comparison(gap, max(permutation_p(a, b), welch_p(a, b)))


def permutation_p(a: Values, b: Values) -> float:
    """Share of the ways to divide the seeds that separate them at least as much as the real one, by
    the studentised difference (Janssen 1997); two-sided.
    """
    values = np.concatenate([a, b])
    values = values - values.mean()
    inside = _divisions(len(values), len(a))
    statistics = _studentised(values, inside)
    # The first division is the real one; sums in another order differ in their last digits.
    return float(np.mean(statistics >= statistics[0] * (1 - 1e-9)))


@cache
def _divisions(seeds: int, first: int) -> Values:
    """Ways to choose the first arm's seeds, the real one first, as rows of 0 and 1, [divisions,
    seeds]: all of them, or random ones if they are many.
    """
    if math.comb(seeds, first) <= MAX_ENUMERATED:
        chosen = np.array(list(combinations(range(seeds), first)))
    else:
        order = np.random.default_rng(0).random((DRAWS, seeds)).argsort(axis=1)
        chosen = np.vstack([np.arange(first), order[:, :first]])
    inside = np.zeros((len(chosen), seeds))
    np.put_along_axis(inside, chosen, 1.0, axis=1)
    return inside


def _studentised(values: Values, inside: Values) -> Values:
    """|Welch's t| of each division, [divisions]; infinite if neither part scatters."""
    first, second = _moments(values, inside), _moments(values, 1 - inside)
    gap, error = np.abs(first[0] - second[0]), np.sqrt(first[1] + second[1])
    nothing = np.abs(values).max() * 1e-9
    beyond = np.where(gap > nothing, np.inf, 0.0)
    return np.where(error > nothing, gap / np.maximum(error, 1e-300), beyond)


def _moments(values: Values, inside: Values) -> tuple[Values, Values]:
    """Mean of the chosen values and the squared standard error of it, each [divisions]."""
    count = inside.sum(axis=1)
    mean = inside @ values / count
    squares = np.maximum(inside @ values**2 - count * mean**2, 0.0)
    return mean, squares / (count - 1) / count


def welch_p(a: Values, b: Values) -> float:
    """Welch's two-sided t-test, with his degrees of freedom."""
    errors = np.array([a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)])
    gap = abs(float(a.mean() - b.mean()))
    if errors.sum() <= 0:
        return 0.0 if gap > 0 else 1.0
    freedom = float(errors.sum() ** 2 / (errors**2 / [len(a) - 1, len(b) - 1]).sum())
    return student_tail(gap / math.sqrt(errors.sum()), freedom)


def student_tail(t: float, freedom: float) -> float:
    """P(|T| > t) for Student's t. With t = sqrt(ν)·tan θ the density is cos(θ)^(ν-1) up to its
    norm, which the trapezoidal rule integrates to more digits than are used.
    """

    def area(low: float) -> float:
        angles = np.linspace(low, math.pi / 2, 1001)
        return float(np.trapezoid(np.cos(angles).clip(0.0) ** (freedom - 1), angles))

    return area(math.atan(t / math.sqrt(freedom))) / area(0.0)


def claims(p_values: Sequence[float | None], level: float = LEVEL) -> list[bool]:
    """Which of a report's comparisons are claimed at a family-wise level; None is never claimed,
    and takes no share of the level.
    """
    claimed = [False] * len(p_values)
    tested = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    for rank, (p, index) in enumerate(tested):
        if p > level / (len(tested) - rank):
            break
        claimed[index] = True
    return claimed


def fewest_seeds(comparisons: int, level: float = LEVEL) -> int:
    """How many seeds both arms of a comparison need before anything can be claimed of it."""
    seeds = 2
    while 2 / math.comb(2 * seeds, seeds) > level / max(1, comparisons):
        seeds += 1
    return seeds


def standard_error_bound(mean: float, low: float, high: float, problems: int) -> float:
    """The largest standard error that a mean over `problems` values in [low, high] can have; exact
    where each value is one of the two ends (Bhatia and Davis 2000).
    """
    return math.sqrt(max(0.0, (high - mean) * (mean - low)) / problems)
