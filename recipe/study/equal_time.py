"""Two arms at the same training time, where their steps do not take equally long.

A run's clock is the sum of verl's `timing_s/step`, without validation, saving and the start. Of
each pair of runs with one seed the clock stops when the first of them ends; the other one's outcome
at that moment is interpolated between its validations. Seconds can be compared only if the arms
were trained alike, on the same machine beside the same work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recipe.analysis.metrics_file import Series
from recipe.analysis.names import STEP_TIME_S, label_of
from recipe.analysis.runs import Run
from recipe.analysis.significance import Values
from recipe.analysis.tables import Table
from recipe.study.paired import PairedDifference, paired_difference
from recipe.study.results import Results
from recipe.study.tables import interval_cell


@dataclass(frozen=True)
class Clocked:
    """A run's outcome by seconds of training: `values[i]` was measured at `seconds[i]`."""

    seconds: Sequence[float]
    values: Sequence[float]

    def value_at(self, seconds: float) -> float:
        """The outcome at that moment, interpolated between validations."""
        return float(np.interp(seconds, self.seconds, self.values))


@dataclass(frozen=True)
class EqualTime:
    """One pair of arms when the faster of each two runs ends; seconds are means over the seeds."""

    first: str
    second: str
    first_step_seconds: float
    second_step_seconds: float
    seconds: float
    result: PairedDifference


def compare_times(results: Results) -> list[EqualTime]:
    """Each pair of the study's families that has runs of one seed, once."""
    pairs = dict.fromkeys(pair for pairs in results.study.families.values() for pair in pairs)
    found = (compare_time(results, first, second) for first, second in pairs)
    return [one for one in found if one is not None]


def compare_time(results: Results, first: str, second: str) -> EqualTime | None:
    """First minus second arm at equal time; None without a seed that both have."""
    clocks = {arm: clocked_runs(results, arm) for arm in (first, second)}
    seeds = sorted(clocks[first].keys() & clocks[second].keys())
    ends = {
        seed: min(clocks[first][seed].seconds[-1], clocks[second][seed].seconds[-1])
        for seed in seeds
    }
    at_end = {
        arm: {seed: clocks[arm][seed].value_at(ends[seed]) for seed in seeds} for arm in clocks
    }
    result = paired_difference(at_end[first], at_end[second])
    if result is None:
        return None
    steps = results.study.steps
    means = {
        arm: float(np.mean([clocks[arm][seed].seconds[-1] for seed in seeds])) / steps
        for arm in clocks
    }
    seconds = float(np.mean(list(ends.values())))
    return EqualTime(first, second, means[first], means[second], seconds, result)


def clocked_runs(results: Results, arm: str) -> Mapping[int, Clocked]:
    """By seed, the arm's runs that logged both outcome and seconds up to the last step."""
    name = results.metric(results.study.outcome)
    clocks = {}
    for run in results.runs.get(arm, ()):
        clock = None if name is None else _clocked(run, name, results.study.steps)
        if run.seed is not None and clock is not None:
            clocks[run.seed] = clock
    return clocks


def _clocked(run: Run, name: str, last: int) -> Clocked | None:
    outcome, took = run.metrics.get(name), run.metrics.get(STEP_TIME_S[0])
    if outcome is None or took is None or len(_until(took, last)) != last:
        return None
    kept = outcome.steps <= last
    if not kept.any() or outcome.steps[kept][-1] != last:
        return None
    seconds = [float(_until(took, int(step)).sum()) for step in outcome.steps[kept]]
    return Clocked(seconds, outcome.values[kept].tolist())


def _until(took: Series, step: int) -> Values:
    return took.values[took.steps <= step]


def equal_time_table(compared: Sequence[EqualTime]) -> Table:
    """A line for each pair of arms; described, since the tests are of equal steps."""
    header = (
        "difference",
        "pairs",
        "seconds a step, first",
        "second",
        "seconds of training",
        "mean",
        "95 % interval",
    )
    return Table(header, tuple(_row(one) for one in compared))


def _row(one: EqualTime) -> tuple[str, ...]:
    result = one.result
    return (
        f"{label_of(one.first)} − {label_of(one.second)}",
        str(len(result.seeds)),
        f"{one.first_step_seconds:.2f}",
        f"{one.second_step_seconds:.2f}",
        f"{one.seconds:.0f}",
        f"{result.mean:+.2f}",
        interval_cell(result),
    )
