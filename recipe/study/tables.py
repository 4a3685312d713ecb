"""The tables of a study: outcome by arm and step, other metrics at the end, and comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from recipe.analysis.names import label_of
from recipe.analysis.tables import ABSENT, Table
from recipe.study.paired import PairedDifference, standard_error
from recipe.study.results import Compared, Results

CSV_HEADER = ("arm", "seed", "step", "quantity", "metric", "value")


def outcome_table(results: Results) -> Table:
    """Mean ± standard error over the seeds at each step at which the outcome was measured."""
    steps = results.outcome_steps()
    rows = [
        (
            label_of(arm),
            str(len(members)),
            *(mean_cell(results.values(arm, results.study.outcome, step)) for step in steps),
        )
        for arm, members in results.runs.items()
    ]
    return Table(("arm", "runs", *(f"step {step}" for step in steps)), tuple(rows))


def panels_table(results: Results) -> Table:
    """Mean ± standard error of the study's other metrics at the last step."""
    panels = results.study.panels
    rows = [
        (
            label_of(arm),
            *(
                mean_cell(results.values(arm, pattern, results.study.steps))
                for pattern in panels.values()
            ),
        )
        for arm in results.runs
    ]
    return Table(("arm", *panels), tuple(rows))


def verdict_table(results: Results) -> Table | None:
    """Mean share of each verdict on held-out problems at the last step; None without verdicts."""
    step = results.study.steps
    shares = {arm: results.verdict_shares(arm, step) for arm in results.runs}
    names = sorted({name for found in shares.values() for name in found})
    if not names:
        return None
    rows = [
        (label_of(arm), *(f"{found.get(name, 0):.0%}" if found else ABSENT for name in names))
        for arm, found in shares.items()
    ]
    return Table(("arm", *(name.replace("_", " ") for name in names)), tuple(rows))


def comparison_table(compared: Sequence[Compared], level: float) -> Table:
    """A line for each comparison that has a pair."""
    rows = [
        (one.family, one.label, *_result_cells(one.result, one.claimed))
        for one in compared
        if one.result is not None
    ]
    header = ("family", "difference", "pairs", "mean", "95 % interval", "p", f"shown at {level:g}")
    return Table(header, tuple(rows))


def mean_cell(values: Mapping[int, float]) -> str:
    """`mean ± standard error`, or the mean alone of one run."""
    if not values:
        return ABSENT
    array = np.array(list(values.values()))
    mean = number(float(array.mean()))
    return mean if len(array) < 2 else f"{mean} ± {number(standard_error(array))}"


def interval_cell(result: PairedDifference) -> str:
    """The interval of the mean difference, absent of one pair."""
    return ABSENT if result.p_value is None else f"{result.low:+.2f} to {result.high:+.2f}"


def number(value: float) -> str:
    """Two decimals, or three digits where that is more."""
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.3g}"


def value_rows(results: Results) -> list[tuple[object, ...]]:
    """Every number behind the tables, unrounded: the outcome and the panels at all steps."""
    quantities = {"outcome": results.study.outcome, **results.study.panels}
    rows: list[tuple[object, ...]] = []
    for quantity, pattern in quantities.items():
        name = results.metric(pattern)
        for arm, members in results.runs.items():
            for run in members:
                series = run.metrics.get(name) if name is not None else None
                if series is not None:
                    points = zip(series.steps.tolist(), series.values.tolist(), strict=True)
                    rows += [(arm, run.seed, step, quantity, name, value) for step, value in points]
    return rows


def _result_cells(result: PairedDifference, claimed: bool) -> tuple[str, ...]:
    count, mean = str(len(result.seeds)), f"{result.mean:+.2f}"
    if result.p_value is None:
        return (count, mean, *(ABSENT,) * 3)
    return (count, mean, interval_cell(result), f"{result.p_value:.2g}", "yes" if claimed else "no")
