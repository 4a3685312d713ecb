"""What a log implies, worked out by hand: shares of outcomes, reward over the unconstrained arm."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from recipe.analysis.derived import (
    AVOIDED_SHARE,
    OUTCOME_SHARE,
    REWARD_OVER_NONE,
    outcome_shares,
    with_derived,
)
from recipe.analysis.episodes import OUTCOMES, EpisodeDigest
from recipe.analysis.metrics_file import Series
from recipe.analysis.observatory import FAILURES, failure_table, outcome_sheet, verdict_table
from recipe.analysis.runs import Run
from refiner_worker.outcome import Outcome

REWARD = "critic/score/mean"


def run_of(
    arm: str,
    metrics: Mapping[str, dict[int, float]],
    episodes: tuple[EpisodeDigest, ...] = (),
    setting: str = "",
) -> Run:
    series = {
        name: Series(np.array(list(values)), np.array(list(values.values())))
        for name, values in metrics.items()
    }
    steps = tuple(sorted({step for values in metrics.values() for step in values}))
    return Run(Path(arm), arm, 0, setting, None, {}, steps, series, episodes, ())


def refined(step: int, reward: float, refined_reward: float, verbatim: bool) -> EpisodeDigest:
    return EpisodeDigest(
        step=step,
        offset=0,
        accepted=False,
        verbatim=verbatim,
        refined_verdict="accepted" if refined_reward == 1.0 else "wrong_answer",
        refined_length=3,
        edited_length=1,
        verdict="wrong_answer",
        reward=reward,
        refined_reward=refined_reward,
    )


def observed(skipped: dict[int, float], *episodes: EpisodeDigest) -> Run:
    metrics = {
        "refiner/skipped_perfect_total": skipped,
        "refiner/verbatim_total": {1: 1.0, 2: 0.0},
        "refiner/failed_total": {1: 1.0, 2: 0.0},
    }
    return run_of("dynamic_sft", metrics, episodes)


def test_every_rollout_meets_one_outcome() -> None:
    # Step 1: 4 perfect, 1 verbatim, 2 better, 1 not better, 1 failed (and unjudged, so that its
    # episode has no reward): 9 rollouts. Step 2: 3 perfect, 1 better.
    run = observed(
        {1: 4.0, 2: 3.0},
        refined(1, -0.3, -0.3, verbatim=True),
        refined(1, -0.3, 1.0, verbatim=False),
        refined(1, -0.6, -0.3, verbatim=False),
        refined(1, -0.3, -0.3, verbatim=False),
        refined(1, -0.3, math.nan, verbatim=False),
        refined(2, -0.3, 1.0, verbatim=False),
    )
    series = outcome_shares(run)
    shares = {key: series[OUTCOME_SHARE.format(key)].values.tolist() for key in OUTCOMES}
    assert shares == {
        "skipped_perfect": pytest.approx([4 / 9, 3 / 4]),
        "verbatim": pytest.approx([1 / 9, 0]),
        "improved": pytest.approx([2 / 9, 1 / 4]),
        "not_improved": pytest.approx([1 / 9, 0]),
        "failed": pytest.approx([1 / 9, 0]),
    }
    assert series[AVOIDED_SHARE].values.tolist() == pytest.approx([5 / 9, 3 / 4])


def test_rollouts_that_leave_no_episode_are_counted_by_the_log() -> None:
    """Twenty rollouts, of which dynamic sampling dropped half; one episode is left."""
    metrics = {
        "refiner/rollouts_total": {1: 20.0},
        "constraint/improvement_ratio": {1: 0.15},
        "refiner/skipped_perfect_total": {1: 8.0},
        "refiner/verbatim_total": {1: 5.0},
        "refiner/failed_total": {1: 1.0},
    }
    episodes = (refined(1, -0.3, 1.0, verbatim=False),)
    series = outcome_shares(run_of("dynamic_sft", metrics, episodes))
    shares = {key: series[OUTCOME_SHARE.format(key)].values.tolist() for key in OUTCOMES}
    assert shares == {
        "skipped_perfect": pytest.approx([8 / 20]),
        "verbatim": pytest.approx([5 / 20]),
        "improved": pytest.approx([3 / 20]),
        "not_improved": pytest.approx([3 / 20]),
        "failed": pytest.approx([1 / 20]),
    }


def test_steps_whose_episodes_are_missing_are_left_out() -> None:
    run = observed({1: 4.0, 2: 3.0}, refined(1, -0.3, 1.0, verbatim=False))
    assert outcome_shares(run)[AVOIDED_SHARE].steps.tolist() == [1]
    assert outcome_shares(observed({1: 4.0})) == {}


def test_reward_over_none_is_taken_from_the_mean_of_its_seeds_at_common_steps() -> None:
    runs = [
        run_of("none", {REWARD: {1: 0.0, 2: 0.5}}),
        run_of("none", {REWARD: {1: 1.0, 2: 0.5}}),
        run_of("dynamic_sft", {REWARD: {1: 0.5, 2: 1.5, 3: 9.0}}),
        run_of("static_kl", {REWARD: {7: 1.0}}),
    ]
    none, _, dynamic, static = with_derived(runs)
    assert none.metrics[REWARD_OVER_NONE].values.tolist() == [-0.5, 0.0]
    assert dynamic.metrics[REWARD_OVER_NONE].steps.tolist() == [1, 2]
    assert dynamic.metrics[REWARD_OVER_NONE].values.tolist() == [0.0, 1.0]
    assert REWARD_OVER_NONE not in static.metrics


def test_an_arm_is_not_compared_with_another_settings_baseline() -> None:
    runs = [
        run_of("none", {REWARD: {1: 0.0}}, setting="stress"),
        run_of("dynamic_sft", {REWARD: {1: 1.0}}, setting="sane"),
    ]
    assert all(REWARD_OVER_NONE not in run.metrics for run in with_derived(runs))


def test_arms_without_outcomes_are_named() -> None:
    (observing,) = with_derived([observed({1: 4.0, 2: 3.0}, refined(2, -0.3, 1.0, verbatim=False))])
    sheet = outcome_sheet([observing, run_of("none", {REWARD: {1: 0.0}})])
    assert [plot.title for plot in sheet.plots] == ["dynamic (sft)"]
    assert sheet.notes == ("Not logged, or no episodes: none",)


def test_failures_are_counted_by_reason_over_the_arms_that_log_them() -> None:
    runs = [
        run_of("none", {REWARD: {1: 0.0}}),
        run_of("dynamic_sft", {"refiner/deadline_total": {1: 2.0, 2: 1.0}}),
        run_of(
            "dynamic_sft", {"refiner/deadline_total": {1: 4.0}, "refiner/empty_total": {1: 0.0}}
        ),
    ]
    table = failure_table(runs)
    assert table is not None
    assert (table.header, table.rows) == (("reason", "dynamic (sft)"), (("deadline", "7"),))
    assert failure_table(runs[:1]) is None


def test_verdicts_are_counted_from_a_to_its_refinement_without_verbatim_ones() -> None:
    run = observed(
        {1: 0.0},
        refined(1, -0.3, 1.0, verbatim=False),
        refined(1, -0.3, 1.0, verbatim=False),
        refined(1, -0.3, -0.3, verbatim=False),
        refined(1, -0.3, -0.3, verbatim=True),
    )
    table = verdict_table([run])
    assert table is not None
    assert table.header == ("a ↓   a′ →", "accepted", "wrong answer", "all")
    assert table.rows == (("wrong answer", "2", "1", "3"),)


def test_each_failure_that_the_refiner_counts_has_a_row() -> None:
    assert set(FAILURES) == {str(one) for one in Outcome if one.failed} | {"unjudged"}
