"""Paired comparisons: values by hand, tables of Student's t, and false claims by simulation."""

import math

import numpy as np
import pytest

from recipe.study.paired import (
    interval_half_width,
    paired_difference,
    paired_t_p,
    sign_flip_p,
    student_quantile,
)


def test_only_common_seeds_are_paired() -> None:
    found = paired_difference({0: 1.0, 1: 2.0, 5: 9.0}, {1: 0.5, 0: 0.0, 7: 3.0})
    assert found is not None
    assert found.seeds == (0, 1)
    assert found.differences == (1.0, 1.5)
    assert found.mean == 1.25


def test_without_a_common_seed_there_is_no_comparison() -> None:
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_one_pair_has_a_difference_and_no_p() -> None:
    found = paired_difference({0: 1.0}, {0: 0.5})
    assert found is not None
    assert (found.mean, found.p_value) == (0.5, None)
    assert math.isnan(found.low)


def test_signs_of_three_pairs_by_hand() -> None:
    # Sums of ±1 ±2 ±4 that are at least 5 away from 0: 7, 5, -7, -5 of eight.
    assert sign_flip_p(np.array([-1.0, 2.0, 4.0])) == 4 / 8


@pytest.mark.parametrize(("pairs", "p_value"), [(5, 2 / 32), (8, 2 / 256)])
def test_pairs_that_all_agree_have_the_smallest_p_there_is(pairs: int, p_value: float) -> None:
    assert sign_flip_p(np.linspace(0.5, 1.0, pairs)) == p_value


def test_many_pairs_are_drawn_from_and_never_give_zero() -> None:
    assert 0 < sign_flip_p(np.linspace(0.5, 1.0, 20)) < 1e-3


def test_the_t_test_is_students() -> None:
    # mean 2, standard error 1/sqrt(3), t = 3.4641 with 2 degrees of freedom.
    assert paired_t_p(np.array([1.0, 2.0, 3.0])) == pytest.approx(0.0742, abs=1e-4)
    assert paired_t_p(np.zeros(4)) == 1.0


@pytest.mark.parametrize(("freedom", "t"), [(1, 12.706), (7, 2.365), (30, 2.042)])
def test_quantiles_are_those_of_the_tables(freedom: int, t: float) -> None:
    assert student_quantile(0.05, freedom) == pytest.approx(t, abs=2e-3)


def test_the_interval_is_the_quantile_times_the_standard_error() -> None:
    values = np.array([1.0, 2.0, 3.0])
    assert interval_half_width(values) == pytest.approx(4.303 / math.sqrt(3), abs=1e-3)


@pytest.mark.parametrize("shape", ["normal", "collapsing", "heavy"])
def test_of_equal_arms_at_most_five_percent_are_told_apart(shape: str) -> None:
    rng = np.random.default_rng(11)
    draws = {
        "normal": lambda: rng.normal(0, 1, 8),
        "collapsing": lambda: np.where(rng.random(8) < 0.5, -0.7, 0.4) + rng.normal(0, 0.02, 8),
        "heavy": lambda: rng.standard_t(2, 8),
    }
    rounds, wrong = 400, 0
    for _ in range(rounds):
        first, second = (dict(enumerate(draws[shape]().tolist())) for _ in range(2))
        found = paired_difference(first, second)
        assert found is not None and found.p_value is not None
        wrong += found.p_value <= 0.05
    assert wrong / rounds <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / rounds)


@pytest.mark.parametrize("pairs", [3, 8])
def test_an_interval_holds_the_mean_in_19_of_20_studies(pairs: int) -> None:
    """Of outcomes that are normal, heavy-tailed, or of two arms that both collapse."""
    rng, rounds = np.random.default_rng(13), 1000
    shape = (rounds, pairs)
    collapses = np.where(rng.random((2, *shape)) < 0.5, -0.7, 0.4) + rng.normal(
        0, 0.02, (2, *shape)
    )
    draws = {
        0.3: rng.normal(0.3, 1, shape),
        0.1: 0.1 + rng.standard_t(2, shape),
        0.0: collapses[0] - collapses[1],
    }
    for truth, differences in draws.items():
        covered = sum(abs(row.mean() - truth) <= interval_half_width(row) for row in differences)
        assert covered / rounds >= 0.95 - 2 * math.sqrt(0.05 * 0.95 / rounds)
