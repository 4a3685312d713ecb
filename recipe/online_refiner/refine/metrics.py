"""Refinements and groups to the named scalars of a step; names are fixed, so that runs compare.

verl picks how to reduce a metric over several updates of one step from its name: `total` sums,
`mean` and the rest average. Means are over the samples they speak of; a mean of nothing is absent.
"""

import math
from collections.abc import Sequence

from recipe.online_refiner.records import (
    SKIPPED_PERFECT,
    UNJUDGED,
    RefinedRollout,
    Rollout,
)
from recipe.online_refiner.refine.counts import RefinementCounts
from refiner_worker.client import Outcome

_FAILURES = {str(outcome) for outcome in Outcome if outcome.failed} | {UNJUDGED}


def refinement_metrics(found: RefinementCounts) -> dict[str, float]:
    """Counts and means of one step's refinements, over all rollouts that were up for refinement.

    `refiner/rollouts_total` is the sum of the perfect, the verbatim, the refined and the failed
    ones; `refiner/failed_total` that of one counter for each kind of failure.
    """
    if found.improvement_ratio is None:
        return {}
    totals = {
        "rollouts": found.rollouts,
        "skipped_perfect": found.of({SKIPPED_PERFECT}),
        "verbatim": found.of({str(Outcome.VERBATIM)}),
        "refined": found.of({str(Outcome.REFINED)}),
        "failed": found.of(_FAILURES),
        **{name: found.of({name}) for name in sorted(_FAILURES)},
        "generated_tokens": found.generated_tokens,
        "engine_calls": found.engine_calls,
        "scored_tokens": found.scored_tokens,
    }
    means = {
        "copied_token_ratio": (found.copied_tokens, found.written_tokens),
        "edit_distance_mean": (found.edits, found.written),
        "reward_gain_mean": (found.gain, found.judged),
        "format_fix_ratio": (found.format_fixes, found.fixes),
    }
    return {
        "constraint/improvement_ratio": found.improvement_ratio,
        **{f"refiner/{name}_total": float(total) for name, total in totals.items()},
        **{f"refiner/{name}": total / of for name, (total, of) in means.items() if of},
    }


def cross_entropy_metrics(accepted: Sequence[RefinedRollout]) -> dict[str, float]:
    """Mean token cross entropy in nats over accepted refinements: all, copied, edited tokens.

    Of the tokens that the policy was asked for and has a finite one on.
    """
    pairs = [
        (value, copied)
        for one in accepted
        if one.cross_entropy is not None
        for value, copied, asked in zip(
            one.cross_entropy.tolist(), one.refinement.copied, one.asked.tolist(), strict=True
        )
        if asked and math.isfinite(value)
    ]
    groups = {
        "constraint/ce_mean": [value for value, _ in pairs],
        "constraint/ce_copied_mean": [value for value, copied in pairs if copied],
        "constraint/ce_edited_mean": [value for value, copied in pairs if not copied],
    }
    return {name: _mean(values) for name, values in groups.items() if values}


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
    return {
        "monitor/group_reward_std": _mean(
            [_std([row.reward for row in group]) for group in groups.values()]
        ),
        "monitor/group_distinct_ratio": _mean(
            [len({row.response_ids for row in group}) / len(group) for group in groups.values()]
        ),
        "constraint/kept_by_refinement_total": float(
            sum(_has_equal_rewards(group) and _is_refined(group) for group in groups.values())
        ),
    }


def _has_equal_rewards(group: Sequence[Rollout]) -> bool:
    """Up to rounding. verl drops a group whose standard deviation is exactly 0, which that of equal
    rewards is for 2, 4, 8, 16 … rollouts in NumPy's sum, and not in general.
    """
    rewards = [row.reward for row in group]
    return math.isclose(min(rewards), max(rewards), rel_tol=1e-9, abs_tol=1e-12)


def _is_refined(group: Sequence[Rollout]) -> bool:
    return len(group) > 1 and any(
        row.refinement is not None and row.refinement.accepted for row in group
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _std(values: Sequence[float]) -> float:
    centre = _mean(values)
    return _mean([(value - centre) ** 2 for value in values]) ** 0.5
