"""Refinements and groups to the named scalars of a step; names are fixed, so that runs compare.

verl picks how to reduce a metric over several updates of one step from its name: `total` sums,
`mean` and the rest average. Means are over the samples they speak of; a mean of nothing is absent.
"""

from collections.abc import Sequence

from recipe.online_refiner.records import (
    SKIPPED_PERFECT,
    UNJUDGED,
    RefinedRollout,
    Refinement,
    Rollout,
)
from refiner_worker.client import Outcome

COMPILE_ERROR = "compile_error"
"""The verdict on a response without a readable program; repairing one is a format fix."""

_FAILURES = {str(outcome) for outcome in Outcome if outcome.failed} | {UNJUDGED}


def refinement_metrics(found: Sequence[Refinement]) -> dict[str, float]:
    """Counts and means of one step's refinements, over the rollouts that were up for refinement.

    `constraint/improvement_ratio` is the paper's: the share of all rollouts with R(a') > R(a).
    `refiner/failed_total` is the sum of one counter for each kind of failure.
    """
    if not found:
        return {}
    refined = [one for one in found if one.token_ids]
    gains = [r.refined_reward - r.reward for r in refined if r.refined_reward is not None]
    metrics = {
        "constraint/improvement_ratio": sum(r.improved for r in found) / len(found),
        "constraint/kept_total": float(sum(one.accepted for one in found)),
        "refiner/skipped_perfect_total": _count(found, {SKIPPED_PERFECT}),
        "refiner/verbatim_total": _count(found, {str(Outcome.VERBATIM)}),
        "refiner/failed_total": _count(found, _FAILURES),
        "refiner/generated_tokens_total": float(sum(r.generated_tokens for r in found)),
        "refiner/engine_calls_total": float(sum(r.engine_calls for r in found)),
        "refiner/scored_tokens_total": float(sum(r.scored_tokens for r in found)),
    }
    metrics |= {f"refiner/{name}_total": _count(found, {name}) for name in sorted(_FAILURES)}
    if refined:
        tokens = sum(len(one.copied) for one in refined)
        copied = sum(sum(one.copied) for one in refined)
        metrics["refiner/copied_token_ratio"] = copied / tokens
        metrics["refiner/edit_distance_mean"] = _mean([r.edit_distance for r in refined])
    if gains:
        metrics["refiner/reward_gain_mean"] = _mean(gains)
    improved = [one for one in found if one.accepted and one.improved]
    if improved:
        unreadable = sum(one.verdict == COMPILE_ERROR for one in improved)
        metrics["refiner/format_fix_ratio"] = unreadable / len(improved)
    return metrics


def cross_entropy_metrics(accepted: Sequence[RefinedRollout]) -> dict[str, float]:
    """Mean token cross entropy in nats over accepted refinements: all, copied, edited tokens.

    Of the tokens that the policy was asked for.
    """
    pairs = [
        (value, copied)
        for one in accepted
        if one.cross_entropy is not None
        for value, copied, asked in zip(
            one.cross_entropy.tolist(), one.refinement.copied, one.asked.tolist(), strict=True
        )
        if asked
    ]
    groups = {
        "constraint/ce_mean": [value for value, _ in pairs],
        "constraint/ce_copied_mean": [value for value, copied in pairs if copied],
        "constraint/ce_edited_mean": [value for value, copied in pairs if not copied],
    }
    return {name: _mean(values) for name, values in groups.items() if values}


def refine_wait_s(found: Sequence[Refinement]) -> float:
    """Seconds from the last rollout's verdict to the last refinement's: what overlap left over."""
    if not found:
        return 0.0
    last_judged_s = max(one.judged_at_s for one in found)
    last_finished_s = max(one.finished_at_s for one in found)
    return max(0.0, last_finished_s - last_judged_s)


def group_metrics(rows: Sequence[Rollout]) -> dict[str, float]:
    """What the prompt groups of a batch say, over their judged rollouts.

    `monitor/group_reward_std`: mean over groups of the population standard deviation of the
    unshaped rewards. `monitor/group_distinct_ratio`: mean over groups of distinct responses
    / responses. `constraint/kept_by_refinement_total`: groups of equal rewards, which give no
    policy gradient, with an accepted refinement, on which the constraint is.
    """
    groups: dict[str, list[Rollout]] = {}
    for row in rows:
        if row.judged:
            groups.setdefault(row.uid, []).append(row)
    if not groups:
        return {}
    stds = {uid: _std([row.reward for row in group]) for uid, group in groups.items()}
    return {
        "monitor/group_reward_std": _mean(list(stds.values())),
        "monitor/group_distinct_ratio": _mean(
            [len({row.response_ids for row in group}) / len(group) for group in groups.values()]
        ),
        "constraint/kept_by_refinement_total": float(
            sum(stds[uid] == 0 and _is_refined(group) for uid, group in groups.items())
        ),
    }


def _is_refined(group: Sequence[Rollout]) -> bool:
    return len(group) > 1 and any(
        row.refinement is not None and row.refinement.accepted for row in group
    )


def _count(found: Sequence[Refinement], outcomes: set[str]) -> float:
    return float(sum(one.outcome in outcomes for one in found))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _std(values: Sequence[float]) -> float:
    centre = _mean(values)
    return _mean([(value - centre) ** 2 for value in values]) ** 0.5
