"""What the report may claim: exact values by hand, and false claims counted by simulation."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from recipe.analysis import significance
from recipe.analysis.significance import (
    LEVEL,
    Values,
    claims,
    compare,
    dominance_p,
    fewest_seeds,
    permutation_p,
    share_above,
    standard_error_bound,
    student_tail,
    welch_p,
)

REPORTS = 500
Draw = Callable[[np.random.Generator, int], Values]


def normal(rng: np.random.Generator, seeds: int) -> Values:
    return rng.normal(0.3, 0.1, seeds)


def collapsing(rng: np.random.Generator, seeds: int) -> Values:
    """Some runs are lost: two modes far apart."""
    return np.where(rng.random(seeds) < 0.5, -0.7, 0.4) + rng.normal(0, 0.02, seeds)


def heavy(rng: np.random.Generator, seeds: int) -> Values:
    return rng.standard_t(2, seeds)


def skewed(rng: np.random.Generator, seeds: int) -> Values:
    return rng.exponential(1.0, seeds) ** 2


def coarse(rng: np.random.Generator, seeds: int) -> Values:
    """Pass rates of 16 problems, with ties."""
    return rng.binomial(16, 0.2, seeds) / 16


@pytest.fixture
def fewer_divisions(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Permutations drawn, and few of them: the test's level holds with any number."""
    monkeypatch.setattr(significance, "MAX_ENUMERATED", 300)
    monkeypatch.setattr(significance, "DRAWS", 400)
    significance._divisions.cache_clear()
    yield
    significance._divisions.cache_clear()


def allowance(rounds: int) -> float:
    """Two standard errors of a share of 5 % over so many rounds."""
    return 2 * math.sqrt(LEVEL * (1 - LEVEL) / rounds)


def false_claims(draws: Sequence[Draw], seeds: list[int]) -> float:
    """Share of reports that claim anything of arms none of which is ahead: each arm against the
    first two, as the report compares.
    """
    rng = np.random.default_rng(7)
    wrong = 0
    for _ in range(REPORTS):
        arms = [draw(rng, count) for draw, count in zip(draws, seeds, strict=True)]
        pairs = [(arm, base) for base in arms[:2] for arm in arms[2:]]
        wrong += any(claims([compare(a, b).p_value for a, b in pairs]))
    return wrong / REPORTS


@pytest.mark.parametrize("draw", [normal, collapsing, heavy, skewed, coarse])
def test_of_reports_on_equal_arms_at_most_five_percent_claim_a_difference(
    draw: Draw, fewer_divisions: None
) -> None:
    """Eight seeds: fewer can show nothing in four comparisons."""
    assert false_claims([draw] * 4, [8] * 4) <= LEVEL + allowance(REPORTS)


def stable(rng: np.random.Generator, seeds: int) -> Values:
    """What `collapsing` is on average, without its scatter."""
    return rng.normal(-0.15, 0.02, seeds)


def around_its_median(rng: np.random.Generator, seeds: int) -> Values:
    """Skewed, with the median where `stable` has it."""
    return -0.15 - math.log(2) + rng.exponential(1.0, seeds)


def scattered(rng: np.random.Generator, seeds: int) -> Values:
    return rng.normal(-0.15, 0.2, seeds)


@pytest.mark.parametrize("other", [collapsing, around_its_median, scattered])
@pytest.mark.parametrize("seeds", [6, 8, 12])
def test_arms_of_another_shape_of_which_neither_is_ahead_are_not_told_apart(
    other: Draw, seeds: int, fewer_divisions: None
) -> None:
    """A run of one ends above one of the other in half of all cases, however they scatter."""
    rng = np.random.default_rng(5)
    wrong = sum(
        claims([compare(other(rng, seeds), stable(rng, seeds)).p_value])[0] for _ in range(REPORTS)
    )
    assert wrong / REPORTS <= LEVEL + allowance(REPORTS)


def test_reports_on_collapsing_arms_against_stable_baselines_keep_the_level(
    fewer_divisions: None,
) -> None:
    draws: list[Draw] = [stable, stable, collapsing, collapsing]
    assert false_claims(draws, [8] * 4) <= LEVEL + allowance(REPORTS)


@pytest.mark.parametrize("draw", [normal, collapsing, heavy])
def test_one_comparison_alone_keeps_its_level_with_unequal_numbers_of_seeds(
    draw: Draw, fewer_divisions: None
) -> None:
    rng = np.random.default_rng(3)
    wrong = sum(claims([compare(draw(rng, 9), draw(rng, 6)).p_value])[0] for _ in range(REPORTS))
    assert wrong / REPORTS <= LEVEL + allowance(REPORTS)


def test_a_large_effect_is_found_in_most_reports(fewer_divisions: None) -> None:
    rng = np.random.default_rng(1)
    found = sum(
        claims([compare(rng.normal(0.4, 0.1, 8), rng.normal(0, 0.1, 8)).p_value])[0]
        for _ in range(200)
    )
    assert found >= 190


@pytest.mark.parametrize(("seeds", "p_value"), [(4, 1 / 8), (6, 1 / 32), (8, 1 / 128)])
def test_arms_that_do_not_overlap_have_the_p_of_as_many_fair_coins(
    seeds: int, p_value: float
) -> None:
    assert dominance_p(1.0, seeds) == dominance_p(0.0, seeds) == pytest.approx(p_value)


def test_p_of_a_share_of_pairs_by_hand() -> None:
    # Two seeds: c = 0 gives (1/2) / 0.9, c = 1/2 gives (1/4 · 1/2) / 0.4 = 0.3125; twice that.
    assert dominance_p(0.9, 2) == pytest.approx(0.625)
    assert dominance_p(0.5, 9) == 1.0


def test_pairs_are_counted_with_ties_as_halves() -> None:
    # Of 1 and 3 against 0 and 3: above, below; above, equal.
    assert share_above(np.array([1.0, 3.0]), np.array([0.0, 3.0])) == 2.5 / 4


def test_a_higher_mean_with_most_runs_below_is_no_lead() -> None:
    """Nine of ten runs end just below, one far above."""
    comparison = compare([0.0] * 9 + [100.0], [0.1] * 10)
    assert comparison.difference > 0 and comparison.above == pytest.approx(0.1)
    assert comparison.p_value == 1.0


def test_four_against_four_that_do_not_overlap_have_the_smallest_p_there_is() -> None:
    first, second = np.array([5.0, 6, 7, 8]), np.array([1.0, 2, 3, 4.5])
    assert permutation_p(first, second) == pytest.approx(2 / 70)
    comparison = compare(first, second)
    assert comparison.p_value == pytest.approx(2 / 2**4)
    assert comparison.difference == pytest.approx(6.5 - 2.625)
    assert comparison.above == 1.0


@pytest.mark.parametrize(
    ("t", "freedom", "tail"),
    [(12.706, 1, 0.05), (4.303, 2, 0.05), (2.571, 5, 0.05), (3.355, 8, 0.01), (0.0, 3, 1.0)],
)
def test_the_tail_is_that_of_the_tables_of_students_t(
    t: float, freedom: float, tail: float
) -> None:
    assert student_tail(t, freedom) == pytest.approx(tail, rel=1e-3)


def test_welch_of_equal_spreads_is_students_test() -> None:
    # Means 2 and 5, variance 1 in each: t = 3 / sqrt(2/3) = 3.674 with 4 degrees of freedom.
    assert welch_p(np.array([1.0, 2, 3]), np.array([4.0, 5, 6])) == pytest.approx(0.0213, abs=1e-4)


def test_single_runs_have_no_p_value_however_far_apart() -> None:
    assert compare([9.0], [0.0, 0.1, 0.2]).p_value is None
    assert compare([9.0], [0.0]).difference == 9.0


def test_arms_without_any_difference_have_p_one() -> None:
    assert compare([1.0, 1.0], [1.0, 1.0]).p_value == 1.0


def test_many_seeds_are_drawn_and_p_is_never_zero() -> None:
    first = np.array(range(100, 120), dtype=np.float64)
    second = np.array(range(20), dtype=np.float64)
    assert permutation_p(first, second) == pytest.approx(1 / 20_001)


def test_the_level_is_shared_in_the_order_of_the_p_values() -> None:
    assert claims([0.01, 0.04, 0.03]) == [True, False, False]
    assert claims([0.01, 0.02, 0.04]) == [True, True, True]
    assert claims([None, 0.04]) == [False, True]
    assert claims([]) == []


@pytest.mark.parametrize(("comparisons", "seeds"), [(1, 6), (2, 7), (3, 7), (4, 8), (6, 8), (7, 9)])
def test_the_fewest_seeds_are_those_whose_smallest_p_suffices(comparisons: int, seeds: int) -> None:
    assert fewest_seeds(comparisons) == seeds


def test_the_standard_error_is_that_of_a_coin_and_zero_at_the_ends() -> None:
    assert standard_error_bound(0.5, 0.0, 1.0, 100) == pytest.approx(0.05)
    assert standard_error_bound(0.0, -1.0, 1.0, 64) == pytest.approx(0.125)
    assert standard_error_bound(1.0, -1.0, 1.0, 64) == 0.0


@pytest.mark.parametrize("high", [0.2, 0.6, 1.0])
def test_no_mean_of_bounded_values_scatters_more_than_the_bound(high: float) -> None:
    rng = np.random.default_rng(0)
    means = rng.uniform(-1, high, (4000, 32)).mean(axis=1)
    assert means.std() <= standard_error_bound((high - 1) / 2, -1.0, 1.0, 32)
