"""Episodes and counters to the named scalars of a step; names are fixed, so that runs compare.

verl picks how to reduce a metric over several updates of one step from its name: `total` sums,
`mean` and the rest average. Means are over the samples they speak of; a mean of nothing is absent.
"""

from collections.abc import Sequence

from recipe.online_refiner.episodes import (
    SKIPPED_PERFECT,
    UNJUDGED,
    Episode,
    RefineRecord,
    RolloutRow,
)
from refiner_worker.client import Outcome

COMPILE_ERROR = "compile_error"
"""The judge's word on an answer without a program that can be read; mending one is a format fix."""

_FAILURES = {str(outcome) for outcome in Outcome if outcome.failed} | {UNJUDGED}


def episode_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """Counts and means of one step's refinements, over the rollouts that were up for refinement.

    `constraint/improvement_ratio` is the paper's: the share of all rollouts with R(a') > R(a).
    `refiner/failed_total` is the sum of one counter for each way to fail.
    """
    records = [episode.record for episode in episodes]
    if not records:
        return {}
    refined = [record for record in records if record.token_ids]
    gains = [r.refined_reward - r.reward for r in refined if r.refined_reward is not None]
    metrics = {
        "constraint/improvement_ratio": sum(r.improved for r in records) / len(records),
        "constraint/kept_total": float(sum(record.accepted for record in records)),
        "refiner/skipped_perfect_total": _count(records, {SKIPPED_PERFECT}),
        "refiner/verbatim_total": _count(records, {str(Outcome.VERBATIM)}),
        "refiner/failed_total": _count(records, _FAILURES),
        "refiner/generated_tokens_total": float(sum(r.generated_tokens for r in records)),
        "refiner/engine_calls_total": float(sum(r.engine_calls for r in records)),
        "refiner/scored_tokens_total": float(sum(r.scored_tokens for r in records)),
    }
    metrics |= {f"refiner/{name}_total": _count(records, {name}) for name in sorted(_FAILURES)}
    if refined:
        tokens = sum(len(record.copied) for record in refined)
        copied = sum(sum(record.copied) for record in refined)
        metrics["refiner/copied_token_ratio"] = copied / tokens
        metrics["refiner/edit_distance_mean"] = _mean([r.edit_distance for r in refined])
    if gains:
        metrics["refiner/reward_gain_mean"] = _mean(gains)
    kept = [record for record in records if record.accepted and record.improved]
    if kept:
        unreadable = sum(record.verdict == COMPILE_ERROR for record in kept)
        metrics["refiner/format_fix_ratio"] = unreadable / len(kept)
    return metrics


def cross_entropy_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """Mean token cross entropy in nats over the kept refinements: all, copied, edited tokens."""
    pairs = [
        (value, copied)
        for episode in episodes
        if episode.cross_entropy is not None
        for value, copied in zip(episode.cross_entropy, episode.record.copied, strict=True)
    ]
    groups = {
        "constraint/ce_mean": [value for value, _ in pairs],
        "constraint/ce_copied_mean": [value for value, copied in pairs if copied],
        "constraint/ce_edited_mean": [value for value, copied in pairs if not copied],
    }
    return {name: _mean(values) for name, values in groups.items() if values}


def refine_wait_s(episodes: Sequence[Episode]) -> float:
    """Seconds from the last rollout's verdict to the last refinement's: what overlap left over."""
    records = [episode.record for episode in episodes]
    if not records:
        return 0.0
    last_judged_s = max(record.judged_at_s for record in records)
    last_finished_s = max(record.finished_at_s for record in records)
    return max(0.0, last_finished_s - last_judged_s)


def group_metrics(rows: Sequence[RolloutRow]) -> dict[str, float]:
    """What the prompt groups of a batch say, over their judged rollouts.

    `monitor/group_reward_std`: mean over groups of the population standard deviation of the
    unshaped rewards. `monitor/group_distinct_ratio`: mean over groups of distinct answers /
    answers. `constraint/kept_by_refinement_total`: groups of equal rewards, which carry no policy
    gradient, with an accepted refinement, which carries the constraint.
    """
    groups: dict[str, list[RolloutRow]] = {}
    for row in rows:
        if row.judged:
            groups.setdefault(row.uid, []).append(row)
    if not groups:
        return {}
    stds = {uid: _std([row.reward for row in group]) for uid, group in groups.items()}
    return {
        "monitor/group_reward_std": _mean(list(stds.values())),
        "monitor/group_distinct_ratio": _mean(
            [len({row.answer_ids for row in group}) / len(group) for group in groups.values()]
        ),
        "constraint/kept_by_refinement_total": float(
            sum(stds[uid] == 0 and _carries(group) for uid, group in groups.items())
        ),
    }


def _carries(group: Sequence[RolloutRow]) -> bool:
    return len(group) > 1 and any(
        row.episode is not None and row.episode.record.accepted for row in group
    )


def _count(records: Sequence[RefineRecord], outcomes: set[str]) -> float:
    return float(sum(record.outcome in outcomes for record in records))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _std(values: Sequence[float]) -> float:
    centre = _mean(values)
    return _mean([(value - centre) ** 2 for value in values]) ** 0.5
