"""Metrics of a step, on a handful of refinements counted by hand."""

from dataclasses import replace

import pytest
import torch

from recipe.online_refiner.records import RefinedRollout, Refinement, Rollout
from recipe.online_refiner.refine.counts import RefinementCounts, counted
from recipe.online_refiner.refine.metrics import (
    cross_entropy_metrics,
    group_metrics,
    refinement_metrics,
)


def refinement(
    outcome: str,
    reward: float,
    refined: float | None = None,
    copied: tuple[int, ...] = (),
    finished_at_s: float = 10.0,
) -> Refinement:
    return Refinement(
        outcome=outcome,
        reward=reward,
        judged_at_s=10.0,
        finished_at_s=finished_at_s,
        refined_reward=refined,
        accepted=refined is not None and refined > reward,
        token_ids=tuple(range(len(copied))),
        copied=copied,
        edit_distance=copied.count(0),
        generated_tokens=len(copied),
        engine_calls=1,
        scored_tokens=2,
    )


def rollout(group: str, reward: float, response: int, found: Refinement | None = None) -> Rollout:
    key = f"{group}_{response}_0"
    return Rollout(key, group, "p", (1,), (response,), (1,), reward, True, "", found)


OTHER_FAILURES = (
    *("too_long", "no_response", "truncated", "repetitive", "empty", "wrong_script"),
    *("step_deadline", "engine_error"),
)
REFINEMENTS = [
    refinement("skipped_perfect", 1.0),
    refinement("verbatim", -0.3, -0.3, (1, 1)),
    refinement("refined", -0.3, 1.0, (1, 0, 1, 1), finished_at_s=12.5),
    refinement("refined", -0.3, -1.0, (0, 0)),
    refinement("deadline", -0.6),
    refinement("unjudged", 0.0),
]


def of(*found: Refinement) -> RefinementCounts:
    return counted([rollout("a", one.reward, 7, one) for one in found])


def test_counts_and_means_are_over_the_samples_they_speak_of() -> None:
    got = refinement_metrics(of(*REFINEMENTS))
    assert got == {
        "constraint/improvement_ratio": pytest.approx(1 / 6),
        "refiner/rollouts_total": 6.0,
        "refiner/skipped_perfect_total": 1.0,
        "refiner/verbatim_total": 1.0,
        "refiner/refined_total": 2.0,
        "refiner/failed_total": 2.0,
        "refiner/generated_tokens_total": 8.0,
        "refiner/engine_calls_total": 6.0,
        "refiner/scored_tokens_total": 12.0,
        "refiner/deadline_total": 1.0,
        "refiner/unjudged_total": 1.0,
        **dict.fromkeys((f"refiner/{name}_total" for name in OTHER_FAILURES), 0.0),
        "refiner/copied_token_ratio": pytest.approx(5 / 8),
        "refiner/edit_distance_mean": pytest.approx((0 + 1 + 2) / 3),
        "refiner/reward_gain_mean": pytest.approx((0.0 + 1.3 - 0.7) / 3),
        "refiner/format_fix_ratio": 0.0,
    }


def test_counts_of_parts_add_up_to_those_of_the_whole() -> None:
    """Two groups of a step, of which the second is dropped before the update."""
    kept, dropped = of(*REFINEMENTS[:2]), of(*REFINEMENTS[2:])
    got, whole = refinement_metrics(kept + dropped), refinement_metrics(of(*REFINEMENTS))
    assert got == pytest.approx(whole)
    assert (kept.improvement_ratio, (kept + dropped).improvement_ratio) == (0.0, 1 / 6)
    assert RefinementCounts() + kept == kept
    assert (kept + dropped).wait_s == pytest.approx(2.5)


def test_cross_entropy_is_split_into_copied_and_edited_tokens() -> None:
    found = REFINEMENTS[2]
    values = torch.tensor([0.1, 4.0, 0.2, 0.3])
    measured = RefinedRollout(rollout("a", -0.3, 7, found), found, torch.ones(4), values)
    assert cross_entropy_metrics([measured]) == {
        "constraint/ce_mean": pytest.approx(1.15),
        "constraint/ce_copied_mean": pytest.approx(0.2),
        "constraint/ce_edited_mean": pytest.approx(4.0),
    }
    assert cross_entropy_metrics([replace(measured, cross_entropy=None)]) == {}


def test_values_that_are_not_finite_are_in_no_mean() -> None:
    """Off the token mask they do not take a refinement out of the constraint."""
    found = REFINEMENTS[2]
    values = torch.tensor([torch.inf, 4.0, 0.2, torch.nan])
    mask = torch.tensor([0.0, 1.0, 0.0, 0.0])
    measured = RefinedRollout(rollout("a", -0.3, 7, found), found, mask, values)
    assert cross_entropy_metrics([measured]) == {
        "constraint/ce_mean": pytest.approx(2.1),
        "constraint/ce_copied_mean": pytest.approx(0.2),
        "constraint/ce_edited_mean": pytest.approx(4.0),
    }


def test_tokens_that_the_policy_was_not_asked_for_are_in_no_mean() -> None:
    found = REFINEMENTS[2]
    values = torch.tensor([0.1, 4.0, 0.3, 0.0])
    one = rollout("a", -0.3, 7, found)
    states = torch.tensor([0, 1, 2, -1])
    measured = RefinedRollout(one, found, torch.tensor([1.0, 1.0, 1.0, 0.0]), values, states)
    assert cross_entropy_metrics([measured]) == {
        "constraint/ce_mean": pytest.approx(4.4 / 3),
        "constraint/ce_copied_mean": pytest.approx(0.2),
        "constraint/ce_edited_mean": pytest.approx(4.0),
    }


def test_a_mean_of_nothing_is_absent() -> None:
    assert cross_entropy_metrics([]) == {}
    assert "refiner/copied_token_ratio" not in refinement_metrics(of(*REFINEMENTS[:1]))
    assert refinement_metrics(RefinementCounts()) == {}
    # A run that does not refine has rollouts all the same.
    assert refinement_metrics(counted([rollout("a", 0.0, 7)])) == {}


def test_waiting_starts_at_the_last_verdict_on_a_rollout() -> None:
    assert of(*REFINEMENTS).wait_s == pytest.approx(2.5)
    assert of().wait_s == 0.0


def test_groups_are_counted_and_averaged_over_their_judged_rollouts() -> None:
    rows = [
        rollout("a", 1.0, 7),
        rollout("a", 0.0, 8),
        rollout("b", -1.0, 7),
        rollout("b", -1.0, 7, refinement("refined", -1.0, 1.0, (1,))),
        replace(rollout("b", 9.0, 9), judged=False),
    ]
    assert group_metrics(rows) == {
        "monitor/group_reward_std": pytest.approx((0.5 + 0.0) / 2),
        "monitor/group_distinct_ratio": pytest.approx((1.0 + 0.5) / 2),
        "constraint/kept_by_refinement_total": 1.0,
    }
    assert group_metrics([]) == {}


@pytest.mark.parametrize("rollouts", [2, 3, 5, 8])
def test_rewards_that_are_equal_have_no_spread_however_they_are_rounded(rollouts: int) -> None:
    """Of RLTF's reward -0.3 + 1.3·k/n; their mean is not always the reward itself."""
    for passed, tests in [(1, 3), (2, 7), (5, 11), (9, 13)]:
        reward = -0.3 + 1.3 * passed / tests
        group = [rollout("a", reward, index) for index in range(rollouts - 1)]
        group.append(rollout("a", reward, 9, refinement("refined", reward, 1.0, (1,))))
        assert group_metrics(group)["constraint/kept_by_refinement_total"] == 1.0
        apart = [*group, rollout("a", reward + 1.3 / 10_000, 10)]
        assert group_metrics(apart)["constraint/kept_by_refinement_total"] == 0.0


def test_a_fix_of_the_format_is_told_from_a_fix_of_the_logic() -> None:
    logic = refinement("refined", -0.3, 1.0, (1,))
    form = replace(refinement("refined", -1.0, 1.0, (1,)), verdict="compile_error")
    assert refinement_metrics(of(form, logic))["refiner/format_fix_ratio"] == 0.5
