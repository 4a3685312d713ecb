"""pass@k and intervals against hand computations."""

import math
from itertools import combinations

import numpy as np
import pytest

from recipe.evaluation import passk
from recipe.evaluation.passk import (
    Estimate,
    bootstrap,
    mean_estimate,
    paired_difference,
    pass_at_k,
    split_gain,
    wilson,
)


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [
        (1, 0, 1, 0.0),
        (1, 1, 1, 1.0),
        (10, 3, 1, 0.3),  # pass@1 is the share
        (4, 2, 2, 5 / 6),  # of the 6 pairs one holds no right sample
        (5, 1, 2, 4 / 10),  # of the 10 pairs 4 hold the right one
        (5, 3, 3, 1.0),  # only two are wrong
        (5, 0, 5, 0.0),
        (200, 1, 100, 0.5),
    ],
)
def test_pass_at_k_equals_the_hand_computation(n: int, c: int, k: int, expected: float) -> None:
    assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-12)


def test_pass_at_k_is_the_share_of_draws_with_a_right_sample() -> None:
    for n in range(1, 8):
        for c in range(n + 1):
            for k in range(1, n + 1):
                draws = list(combinations([True] * c + [False] * (n - c), k))
                assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0), (0, 0, 1)])
def test_impossible_counts_are_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@k needs"):
        pass_at_k(n, c, k)


def test_wilson_is_the_textbook_interval() -> None:
    # 10 of 20: centre 1/2, half width z/(1+z²/n) · sqrt(1/80 + z²/1600), z² = 3.8415.
    estimate = wilson(10, 20)
    half = 1.959964 / (1 + 3.841459 / 20) * math.sqrt(0.25 / 20 + 3.841459 / 1600)
    assert estimate.value == 0.5
    assert (estimate.low, estimate.high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-6)
    assert half == pytest.approx(0.2007, abs=1e-4)


def test_wilson_has_a_width_at_the_ends_and_stays_inside() -> None:
    none, every = wilson(0, 164), wilson(164, 164)
    assert (none.low, every.high) == pytest.approx((0.0, 1.0))
    assert none.low >= 0.0 and every.high <= 1.0
    assert none.high == pytest.approx(3.841459 / (164 + 3.841459), abs=1e-6)
    assert every.low == pytest.approx(1 - none.high)


def test_a_single_sample_a_problem_gets_wilsons_interval() -> None:
    assert mean_estimate([1.0, 0.0, 0.0, 1.0]) == wilson(2, 4)


def test_bootstrap_matches_the_exact_distribution_of_two_values() -> None:
    # Means of two draws from {0, 1/2}: 0, 1/4, 1/2 with weights 1/4, 1/2, 1/4, so that both tails
    # of 2.5 % lie at the ends.
    assert bootstrap([0.0, 0.5]) == (0.0, 0.5)
    # With one problem at either end: sums of four draws from {0: 1/2, 1/2: 1/4, 1: 1/4}. 0 has a
    # probability of 1/16; 4, 3.5 and 3 have 1/256, 4/256 and 14/256.
    estimate = mean_estimate([0.0, 0.5])
    assert (estimate.value, estimate.low, estimate.high) == (0.25, 0.0, 0.75)


def test_bootstrap_repeats_itself_and_narrows_with_more_problems() -> None:
    few, many = [0.1, 0.9, 0.4] * 5, [0.1, 0.9, 0.4] * 80
    assert bootstrap(few) == bootstrap(few)
    narrow, wide = bootstrap(many), bootstrap(few)
    assert narrow[1] - narrow[0] == pytest.approx((wide[1] - wide[0]) / 4, rel=0.1)


def test_nothing_is_no_number() -> None:
    assert math.isnan(mean_estimate([]).value)
    assert math.isnan(paired_difference([], []).value)


def test_what_both_find_hard_cancels_in_a_paired_difference() -> None:
    before = [0.0, 0.2, 0.7, 0.9] * 40
    after = [value + 0.1 for value in before]
    estimate = paired_difference(before, after)
    assert estimate.value == pytest.approx(0.1)
    alone = mean_estimate(after)
    assert estimate.high - estimate.low < (alone.high - alone.low) / 2
    assert isinstance(estimate, Estimate)


def test_models_that_agree_on_every_problem_are_not_known_to_be_equal() -> None:
    estimate = paired_difference([1.0, 0.0] * 82, [1.0, 0.0] * 82)
    # Of 166 draws, one each of which is -1 and 1, about one more or one fewer decides: 2/166.
    assert estimate.value == 0.0
    assert (estimate.low, estimate.high) == pytest.approx((-0.018, 0.018), abs=0.007)


DRAWS = 200


@pytest.fixture
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coverage needs many intervals, and a tenth of the resamples for each."""
    monkeypatch.setattr(passk, "RESAMPLES", 1000)


def at_least_95_percent(covered: int) -> bool:
    """Within two standard errors of so many draws."""
    return covered / DRAWS >= 0.95 - 2 * math.sqrt(0.95 * 0.05 / DRAWS)


@pytest.mark.parametrize(("problems", "samples"), [(64, 4), (164, 10)])
@pytest.mark.parametrize(("easy", "hard"), [(0.3, 0.7), (0.05, 0.95), (0.01, 0.99)])
def test_an_interval_of_pass_at_1_holds_the_truth_in_19_of_20_draws_of_problems(
    easy: float, hard: float, problems: int, samples: int, fewer_resamples: None
) -> None:
    """Problems whose pass rate is drawn from a Beta distribution, of mean easy/(easy + hard)."""
    rng = np.random.default_rng(2)
    rates = rng.beta(easy, hard, (DRAWS, problems))
    truth = easy / (easy + hard)
    covered = 0
    for passed in rng.binomial(samples, rates) / samples:
        estimate = mean_estimate(passed.tolist())
        covered += estimate.low <= truth <= estimate.high
    assert at_least_95_percent(covered)


@pytest.mark.parametrize("k", [2, 10])
@pytest.mark.parametrize(("easy", "hard"), [(0.3, 0.7), (0.05, 0.95)])
def test_an_interval_of_pass_at_k_holds_the_truth_in_19_of_20_draws_of_problems(
    easy: float, hard: float, k: int, fewer_resamples: None
) -> None:
    """The chance that one of k is right, of problems as above: 1 - E (1 - rate)^k."""
    rng = np.random.default_rng(8)
    rates = rng.beta(easy, hard, (DRAWS, 64))
    truth = 1 - math.prod((hard + i) / (easy + hard + i) for i in range(k))
    covered = 0
    for right in rng.binomial(10, rates):
        estimate = mean_estimate([pass_at_k(10, int(count), k) for count in right])
        covered += estimate.low <= truth <= estimate.high
    assert at_least_95_percent(covered)


@pytest.mark.parametrize("gain", [0.0, 0.1])
def test_an_interval_of_a_gain_of_sampled_pass_rates_holds_the_truth(
    gain: float, fewer_resamples: None
) -> None:
    """Two models with four samples of each problem, one of which lifts every rate a little."""
    rng = np.random.default_rng(10)
    rates = 0.8 * rng.beta(0.3, 0.7, (DRAWS, 64))
    before, after = rng.binomial(4, rates) / 4, rng.binomial(4, rates + gain) / 4
    covered = 0
    for first, second in zip(before, after, strict=True):
        estimate = paired_difference(first.tolist(), second.tolist())
        covered += estimate.low <= gain <= estimate.high
    assert at_least_95_percent(covered)


@pytest.mark.parametrize("share", [0.2, 0.05, 0.01])
def test_an_interval_of_a_gain_holds_the_truth_in_19_of_20_draws_of_problems(
    share: float, fewer_resamples: None
) -> None:
    """Of the problems a share is won, and half as many are lost."""
    rng = np.random.default_rng(4)
    weights = [share, share / 2, 1 - 1.5 * share]
    covered = 0
    for gains in rng.choice([1.0, -1.0, 0.0], p=weights, size=(DRAWS, 164)):
        before = (gains < 0).astype(float)
        estimate = paired_difference(before.tolist(), (before + gains).tolist())
        covered += estimate.low <= share / 2 <= estimate.high
    assert at_least_95_percent(covered)


@pytest.mark.parametrize("share", [0.5, 0.2, 0.05, 0.01])
def test_wilsons_interval_holds_the_truth_in_19_of_20_draws_of_problems(share: float) -> None:
    """On average over shares near it: a fraction of 164 problems takes only so many values."""
    rng = np.random.default_rng(6)
    near = rng.uniform(0.8 * share, 1.2 * share, 20 * DRAWS)
    covered = 0
    for truth, solved in zip(near, rng.binomial(164, near), strict=True):
        estimate = wilson(int(solved), 164)
        covered += estimate.low <= truth <= estimate.high
    assert at_least_95_percent(round(covered / 20))


@pytest.mark.parametrize(
    ("format_0", "pass_0", "format_1", "pass_1", "by_format", "by_skill"),
    [
        (0.5, 0.25, 1.0, 0.5, 0.25, 0.0),  # skill stays a half
        (1.0, 0.2, 1.0, 0.6, 0.0, 0.4),  # format stays whole
        # skills 1/2 and 3/4: 0.4 · 5/8 and 0.25 · 0.6
        (0.4, 0.2, 0.8, 0.6, 0.25, 0.15),
        (0.0, 0.0, 0.5, 0.2, 0.2, 0.0),  # no program before: all is format
        (0.5, 0.2, 0.0, 0.0, -0.2, 0.0),
        (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    ],
)
def test_a_gain_splits_into_format_and_skill(
    format_0: float,
    pass_0: float,
    format_1: float,
    pass_1: float,
    by_format: float,
    by_skill: float,
) -> None:
    split = split_gain(format_0, pass_0, format_1, pass_1)
    assert split.gain == pytest.approx(pass_1 - pass_0)
    assert (split.format, split.skill) == pytest.approx((by_format, by_skill))
    assert split.format + split.skill == pytest.approx(split.gain)
