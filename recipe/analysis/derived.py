"""Series that a run did not log but that its log and its episodes imply, under `derived/…` names.

They stand beside the logged metrics, so that every figure treats both alike.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recipe.analysis import names
from recipe.analysis.acting import reduction_of
from recipe.analysis.configuration import beyond_the_constraint, differences
from recipe.analysis.episodes import OUTCOMES
from recipe.analysis.metrics_file import Series
from recipe.analysis.names import arm_key
from recipe.analysis.panels import aggregate
from recipe.analysis.runs import Run, choose_metric, logged_share

OUTCOME_SHARE = "derived/outcome/{}"
AVOIDED_SHARE = "derived/avoided_share"
REWARD_OVER_NONE = "derived/reward_over_none"
PENALTY_BY_REDUCTION = "derived/penalty/{}"
UNCONSTRAINED = "none"
ROLLOUTS = "refiner/rollouts_total"
LOGGED_OUTCOMES = {
    "skipped_perfect": "refiner/skipped_perfect_total",
    "verbatim": "refiner/verbatim_total",
    "failed": "refiner/failed_total",
}
Counts = tuple[NDArray[np.int64], dict[str, NDArray[np.float64]]]
"""Steps, and at these the number of rollouts that met each of `OUTCOMES`."""


def with_derived(runs: Sequence[Run]) -> tuple[Run, ...]:
    """The runs with their derived series; a series that cannot be derived is absent."""
    over_none = reward_over_none(runs)
    return tuple(
        replace(
            run,
            metrics={
                **run.metrics,
                **outcome_shares(run),
                **penalty_by_reduction(run),
                **over_none.get(index, {}),
            },
        )
        for index, run in enumerate(runs)
    )


def penalty_by_reduction(run: Run) -> dict[str, Series]:
    """The penalty under a name that says whether it is a sum over tokens or a mean, two quantities
    that belong on different axes.
    """
    found = [run.metrics[name] for name in names.PENALTY if name in run.metrics]
    return {PENALTY_BY_REDUCTION.format(reduction_of(run)): found[0]} if found else {}


def outcome_shares(run: Run) -> dict[str, Series]:
    """Of a step's rollouts, the share that met each of `OUTCOMES`, and the share of avoided work:
    rollouts that were not refined, being perfect, or whose refinement is not judged again, being
    verbatim.

    Of all rollouts, if the log counts them; otherwise of the skipped and those with an episode.
    """
    steps, counts = _logged_counts(run) or _counts_with_episodes(run)
    total = np.sum(list(counts.values()), axis=0) if len(steps) else np.zeros(0)
    steps, counts = steps[total > 0], {key: value[total > 0] for key, value in counts.items()}
    if not len(steps):
        return {}
    shares = {key: value / total[total > 0] for key, value in counts.items()}
    avoided = shares["skipped_perfect"] + shares["verbatim"]
    found = {OUTCOME_SHARE.format(key): Series(steps, share) for key, share in shares.items()}
    return found | {AVOIDED_SHARE: Series(steps, avoided)}


def _logged_counts(run: Run) -> Counts | None:
    """Of all rollouts of a step, those that dynamic sampling drops included: no episode is theirs.

    None if the log does not say how many there were.
    """
    rollouts, ratio = (run.metrics.get(name) for name in (ROLLOUTS, names.IMPROVEMENT_RATIO[0]))
    if rollouts is None or ratio is None:
        return None
    steps = rollouts.steps
    logged = {
        key: _at(run.metrics[name], steps)
        for key, name in LOGGED_OUTCOMES.items()
        if name in run.metrics
    }
    improved = np.rint(_at(ratio, steps) * rollouts.values)
    rest = rollouts.values - improved - np.sum(list(logged.values()), axis=0)
    counts = logged | {"improved": improved, "not_improved": np.maximum(rest, 0.0)}
    return steps, {key: counts[key] for key in OUTCOMES if key in counts}


def _counts_with_episodes(run: Run) -> Counts:
    """Skipped and failed rollouts are counted by the log, edited ones by the episodes.

    Only steps that have both count, so that a torn file does not look like a change of the run.
    Nothing if only a share of the episodes is logged.
    """
    logged = {key: run.metrics.get(name) for key, name in LOGGED_OUTCOMES.items()}
    skipped = logged["skipped_perfect"]
    if skipped is None or not run.episodes or logged_share(run) < 1:
        return np.zeros(0, dtype=np.int64), {}
    last = run.episodes[-1].step
    steps = np.array([step for step in skipped.steps.tolist() if step <= last], dtype=np.int64)
    edited = Counter((item.step, item.outcome) for item in run.episodes)
    return steps, {
        key: _at(series, steps)
        if (series := logged.get(key)) is not None
        else np.array([float(edited[step, key]) for step in steps.tolist()])
        for key in OUTCOMES
    }


def _at(series: Series, steps: NDArray[np.int64]) -> NDArray[np.float64]:
    """The values at `steps`, 0 if the series has none."""
    known = dict(zip(series.steps.tolist(), series.values.tolist(), strict=True))
    return np.array([known.get(step, 0.0) for step in steps.tolist()])


def reward_over_none(runs: Sequence[Run]) -> Mapping[int, dict[str, Series]]:
    """By the run's place in `runs`: its reward minus the mean reward of the unconstrained runs of
    its setting that are configured as it is apart from the constraint, at the steps that these
    have.

    The unconstrained arm itself is among them: its band shows how much seeds differ by chance.
    """
    metric = choose_metric(runs, names.REWARD)
    if metric is None:
        return {}
    found: dict[int, dict[str, Series]] = {}
    plain = [run for run in runs if run.arm == UNCONSTRAINED and metric in run.metrics]
    curves: dict[str, Series] = {}
    for index, run in enumerate(runs):
        baseline = next((other for other in plain if comparable(run, other)), None)
        if baseline is None or metric not in run.metrics:
            continue
        key = arm_key(baseline.setting, UNCONSTRAINED, baseline.variant)
        if key not in curves:
            curve = aggregate(UNCONSTRAINED, metric, _seeds_of(baseline, plain, metric))
            curves[key] = Series(curve.steps, curve.mean)
        found[index] = _difference(run.metrics[metric], curves[key])
    if all(runs[index].arm == UNCONSTRAINED for index in found):
        return {}
    return {index: series for index, series in found.items() if series}


def comparable(run: Run, baseline: Run) -> bool:
    """Whether two runs of one setting differ in nothing but the constraint, as far as is known."""
    if run.setting != baseline.setting:
        return False
    if not run.configuration or not baseline.configuration:
        return True
    return not beyond_the_constraint(differences(run, baseline))


def _seeds_of(run: Run, runs: Sequence[Run], metric: str) -> list[Series]:
    return [
        other.metrics[metric]
        for other in runs
        if (other.setting, other.variant) == (run.setting, run.variant)
    ]


def _difference(series: Series, other: Series) -> dict[str, Series]:
    steps, here, there = np.intersect1d(series.steps, other.steps, return_indices=True)
    if not len(steps):
        return {}
    return {REWARD_OVER_NONE: Series(steps, series.values[here] - other.values[there])}
