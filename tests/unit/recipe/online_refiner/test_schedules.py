"""λ and μ over training, against values worked out by hand."""

import math

import pytest

from recipe.online_refiner.choices import Schedule
from recipe.online_refiner.method.schedules import (
    adaptive_lambda,
    chord_mu,
    lambda_at,
    smoothed,
)


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Schedule.CONSTANT, [1.0, 1.0, 1.0]),
        (Schedule.LINEAR, [1.0, 0.6, 0.2]),
        (Schedule.COSINE, [1.0, 0.6, 0.2]),
    ],
)
def test_schedules_start_and_end_where_they_say(schedule: Schedule, values: list[float]) -> None:
    got = [lambda_at(step, 3, start=1.0, end=0.2, schedule=schedule) for step in (1, 2, 3)]
    assert got == pytest.approx(values)


def test_cosine_is_slow_at_both_ends() -> None:
    got = [lambda_at(step, 5, 1.0, 0.0, Schedule.COSINE) for step in (2, 4)]
    assert got == pytest.approx([(1 + math.sqrt(0.5)) / 2, (1 - math.sqrt(0.5)) / 2])


def test_schedules_stay_at_their_end_beyond_the_last_step_and_take_a_single_step() -> None:
    assert lambda_at(9, 3, 1.0, 0.2, Schedule.LINEAR) == pytest.approx(0.2)
    assert lambda_at(1, 1, 1.0, 0.2, Schedule.LINEAR) == 1.0
    of_two = [lambda_at(step, 2, 1.0, 0.2, Schedule.LINEAR) for step in (1, 2)]
    assert of_two == pytest.approx([1.0, 0.2])


def test_adaptive_lambda_follows_the_ratio_between_its_bounds() -> None:
    got = [adaptive_lambda(r, upper=1.0, lower=0.2, target=0.1) for r in (0.0, 0.05, 0.1, 0.7)]
    assert got == pytest.approx([0.2, 0.6, 1.0, 1.0])


def test_the_ratio_starts_at_its_first_value_and_forgets_slowly() -> None:
    assert smoothed(None, 0.4) == 0.4
    assert smoothed(0.4, 0.0) == pytest.approx(0.36)
    assert smoothed(0.4, 1.0) == pytest.approx(0.46)


def test_mu_rises_to_its_peak_falls_as_a_cosine_and_stays_in_the_valley() -> None:
    got = [chord_mu(step, 2, 4, peak=0.9, valley=0.1) for step in (1, 2, 3, 5, 7, 99)]
    assert got == pytest.approx([0.0, 0.45, 0.9, 0.5, 0.1, 0.1])


def test_mu_without_warm_up_and_decay_is_the_valley() -> None:
    assert chord_mu(1, 0, 0, peak=0.1, valley=0.1) == pytest.approx(0.1)
    assert chord_mu(1, 0, 200, peak=0.9, valley=0.05) == pytest.approx(0.9)
