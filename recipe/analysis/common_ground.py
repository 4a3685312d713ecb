"""What runs have in common, so that they are compared there: steps, validations, and how exact a
validation is.
"""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from recipe.analysis.metrics_file import Series
from recipe.analysis.runs import Run
from recipe.analysis.significance import standard_error_bound


def common_step(runs: Sequence[Run], setting: str, metric: str | None) -> int:
    """The last step that all runs of a setting have reached, of those that logged the metric."""
    ends = [int(found.steps[-1]) for found in _logged(runs, setting, metric)]
    return min(ends, default=0)


def common_validation(runs: Sequence[Run], setting: str, metric: str | None) -> int:
    """The last step at which all runs of a setting were validated; -1 if there is none."""
    found = [set(series.steps.tolist()) for series in _logged(runs, setting, metric)]
    return max(set.intersection(*found), default=-1) if found else -1


def _logged(runs: Sequence[Run], setting: str, metric: str | None) -> list[Series]:
    return [
        run.metrics[metric]
        for run in runs
        if run.setting == setting and metric is not None and metric in run.metrics
    ]


def validation_problems(run: Run) -> int | None:
    """How many problems a validation asks: the configured number, or the rows of its file; None if
    neither is known.
    """
    text = run.configuration.get("data.val_max_samples", "")
    if text.isdecimal() and int(text) > 0:
        return int(text)
    return _rows(Path(run.configuration.get("data.val_files", "")))


@cache
def _rows(path: Path) -> int | None:
    """The rows of a Parquet file; None if it is not here, or pyarrow is not."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        return None
    try:
        return int(parquet.read_metadata(path).num_rows)
    except (OSError, ArrowException):
        return None


def validation_error(run: Run, metric: str | None, mean: float) -> float:
    """The largest standard error of a validation: exact for pass rates, an upper bound for rewards
    between -1 and 1. NaN if the number of problems is unknown or the mean lies outside.
    """
    problems = validation_problems(run)
    low = 0.0 if metric is not None and "/acc/" in metric else -1.0
    if problems is None or math.isnan(mean) or not low <= mean <= 1.0:
        return math.nan
    return standard_error_bound(mean, low, 1.0, problems)
