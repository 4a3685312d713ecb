"""When one arm is said to end above another: three tests over their seeds, all of which it has to
pass.

Noise of a validation and scatter within a run say nothing of other seeds; only seeds do. What is
claimed is that a run of one arm ends above a run of the other with a probability above one half,
with the difference of the means beside it. `dominance_p` is valid for that whatever the two
distributions: an arm that collapses in half of its runs may by chance show none that did. The
permutation test is exact if seeds are exchangeable, and Welch's t-test holds its level for means if
one arm scatters more. The largest of the three p-values counts. All comparisons of a report share
one level by Holm's procedure (1979), so that of all reports in which no arm is ahead, at most
`LEVEL` claim that one is; the tests simulate it.

A difference of means alone cannot be shown without assuming a shape (Bahadur and Savage 1956): one
run in a thousand may be arbitrarily bad.
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
    """What the seeds of two arms say.

    Attributes:
        difference: of the means, the first arm's minus the second's.
        above: share of the pairs of a run of each in which the first arm's ends higher; ties count
            half.
        p_value: the largest of the three tests; None without two seeds each.
    """

    difference: float
    above: float
    p_value: float | None


def compare(first: Sequence[float] | Values, second: Sequence[float] | Values) -> Comparison:
    """What the seeds say of two arms.

    If one arm has the higher mean and the other ends higher in most pairs, neither is ahead: p = 1.
    """
    a, b = np.array(first, dtype=float), np.array(second, dtype=float)
    gap, above = float(a.mean() - b.mean()), share_above(a, b)
    if min(len(a), len(b)) < 2:
        return Comparison(gap, above, None)
    if gap * (above - 0.5) <= 0:
        return Comparison(gap, above, 1.0)
    p_values = permutation_p(a, b), welch_p(a, b), dominance_p(above, min(len(a), len(b)))
    return Comparison(gap, above, max(p_values))


def share_above(a: Values, b: Values) -> float:
    """Of all pairs of a value of each, the share in which the first is the larger; ties count half
    (the U statistic of Mann and Whitney).
    """
    gaps = a[:, None] - b[None, :]
    return float(((gaps > 0) + 0.5 * (gaps == 0)).mean())


def dominance_p(above: float, seeds: int) -> float:
    """Two-sided p of the hypothesis that either arm is as likely to end above, for any two
    distributions, of a share of pairs with so many seeds in the smaller arm.

    U is an average of means over n = `seeds` independent pairs, each within [0, 1] and of mean one
    half under the hypothesis. For convex f then E f(U) <= E f(B/n), B binomial (Hoeffding 1963,
    sections 3 and 5), and P(U >= u) <= E f(B/n) / f(u). Here f(x) = max(0, x - c), with the best c.
    If the arms do not overlap, p is 2/2^n, which one arm that is a constant reaches.
    """
    share = max(above, 1 - above)
    tails = _excess(seeds)
    cuts = np.arange(seeds) / seeds
    bounds = [tails[i] / (share - cut) for i, cut in enumerate(cuts) if cut < share]
    return min(1.0, 2 * min(bounds))


@cache
def _excess(n: int) -> Values:
    """E max(0, B/n - i/n) for i from 0 to n - 1, B binomial with n trials of one half."""
    counts = np.arange(n + 1)
    shares = np.array([math.comb(n, int(k)) / 2**n for k in counts])
    beyond = np.maximum(counts[None, :] - np.arange(n)[:, None], 0) / n
    return np.asarray(beyond @ shares, dtype=np.float64)


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
    while dominance_p(1.0, seeds) > level / max(1, comparisons):
        seeds += 1
    return seeds


def standard_error_bound(mean: float, low: float, high: float, problems: int) -> float:
    """The largest standard error that a mean over `problems` values in [low, high] can have; exact
    where each value is one of the two ends (Bhatia and Davis 2000).
    """
    return math.sqrt(max(0.0, (high - mean) * (mean - low)) / problems)
