"""The numbers of a report: one summary per run and one table over the arms, for a terminal, as
Markdown and as CSV.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recipe.analysis import names
from recipe.analysis.episodes import mean_ce
from recipe.analysis.names import label_of
from recipe.analysis.output import write_csv
from recipe.analysis.runs import Run, choose_metric, group_by_arm

MAX_WINDOW_STEPS = 10
ABSENT = "-"


@dataclass(frozen=True)
class RunSummary:
    """One run in numbers; NaN where the run did not log what is needed.

    `reward_start` and `reward_end` are means over the first and the last `window` steps,
    `reward_scatter` the sample standard deviation over the last ones. Improvement ratios are means
    over the first and last third of the steps. CE is in nats per token. `disagreement_max` is the
    largest difference between rollout engine and actor on any token.
    """

    arm: str
    seed: int | None
    steps: int
    total_steps: int | None
    window: int
    reward_start: float
    reward_end: float
    reward_scatter: float
    validation_end: float
    kl_end: float
    improvement_first: float
    improvement_last: float
    verbatim: int
    edited: int
    accepted: int
    ce_copied: float
    ce_edited: float
    disagreement_max: float
    disagreement_metric: str | None
    step_time_s: float
    steps_time_s: float
    wall_time_s: float


def summarise(runs: Sequence[Run]) -> dict[str, list[RunSummary]]:
    """Summaries of all runs by arm, arms in the order of `group_by_arm`; all runs are read by the
    same metric names.
    """
    patterns = (
        names.REWARD,
        names.VALIDATION,
        names.KL_TO_REFERENCE,
        names.IMPROVEMENT_RATIO,
        names.ROLLOUT_DISAGREEMENT,
        names.STEP_TIME_S,
    )
    metrics = [choose_metric(runs, group) for group in patterns]
    return {
        arm: [_summarise_run(run, *metrics) for run in members]
        for arm, members in group_by_arm(runs).items()
    }


def _summarise_run(
    run: Run,
    reward: str | None,
    validation: str | None,
    kl: str | None,
    improvement: str | None,
    disagreement: str | None,
    step_time: str | None,
) -> RunSummary:
    rewards, ratios, step_times = (
        _values(run, reward),
        _values(run, improvement),
        _values(run, step_time),
    )
    window, third = window_steps(len(rewards)), max(1, len(ratios) // 3)
    copied, edited = mean_ce(run.episodes)
    return RunSummary(
        arm=run.arm,
        seed=run.seed,
        steps=run.steps[-1] if run.steps else 0,
        total_steps=run.total_steps,
        window=window,
        reward_start=_mean(rewards[:window]),
        reward_end=_mean(rewards[-window:]),
        reward_scatter=float(np.std(rewards[-window:], ddof=1)) if window > 1 else math.nan,
        validation_end=_mean(_values(run, validation)[-1:]),
        kl_end=_mean(_values(run, kl)[-1:]),
        improvement_first=_mean(ratios[:third]),
        improvement_last=_mean(ratios[-third:]),
        verbatim=sum(item.verbatim for item in run.episodes),
        edited=sum(not item.verbatim for item in run.episodes),
        accepted=sum(item.accepted for item in run.episodes),
        ce_copied=copied,
        ce_edited=edited,
        disagreement_max=_max(_values(run, disagreement)),
        disagreement_metric=disagreement,
        step_time_s=float(np.median(step_times)) if len(step_times) else math.nan,
        steps_time_s=float(step_times.sum()) if len(step_times) else math.nan,
        wall_time_s=_wall_time_s(run),
    )


def window_steps(steps: int) -> int:
    """How many steps "start" and "end" average over: a quarter of those logged, at least 1 and at
    most 10.
    """
    return max(1, min(MAX_WINDOW_STEPS, steps // 4))


def _values(run: Run, metric: str | None) -> NDArray[np.float64]:
    series = run.metrics.get(metric) if metric is not None else None
    return np.array([]) if series is None else series.values


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else math.nan


def _max(values: NDArray[np.float64]) -> float:
    return float(values.max()) if len(values) else math.nan


def _wall_time_s(run: Run) -> float:
    """From `started_at` to `finished_at` of run.json (ISO 8601), NaN where either is absent or
    unreadable.
    """
    try:
        started, finished = (
            datetime.fromisoformat(run.info[key]) for key in ("started_at", "finished_at")
        )
        return (finished - started).total_seconds()
    except (KeyError, TypeError, ValueError):
        return math.nan


@dataclass(frozen=True)
class Row:
    """A line of the table: how one run's value is taken and written; counts are added over seeds,
    others averaged.
    """

    title: str
    value: Callable[[RunSummary], float]
    form: str = "{:.2f}"
    is_count: bool = False


ROWS = (
    Row("runs", lambda item: 1, "{:.0f}", is_count=True),
    Row("last step", lambda item: item.steps, "{:.0f}"),
    Row("reward, start", lambda item: item.reward_start),
    Row("reward, end", lambda item: item.reward_end),
    Row("validation, last", lambda item: item.validation_end),
    Row("KL to reference, end (nats)", lambda item: item.kl_end, "{:.3g}"),
    Row("improvement ratio, first third", lambda item: item.improvement_first),
    Row("improvement ratio, last third", lambda item: item.improvement_last),
    Row("refinements: verbatim", lambda item: item.verbatim, "{:.0f}", is_count=True),
    Row("refinements: edited", lambda item: item.edited, "{:.0f}", is_count=True),
    Row("refinements: accepted", lambda item: item.accepted, "{:.0f}", is_count=True),
    Row("CE on copied tokens (nats)", lambda item: item.ce_copied, "{:.3f}"),
    Row("CE on edited tokens (nats)", lambda item: item.ce_edited),
    Row("rollout/actor difference, max", lambda item: item.disagreement_max, "{:.1e}"),
    Row("step time, median (s)", lambda item: item.step_time_s, "{:.1f}"),
    Row("all steps (min)", lambda item: item.steps_time_s / 60, "{:.1f}"),
    Row("wall time (min)", lambda item: item.wall_time_s / 60, "{:.1f}"),
)


@dataclass(frozen=True)
class Table:
    """A table of finished cells; the first column names the row."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def to_text(self) -> str:
        """Aligned columns for a terminal."""
        lines = [self.header, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.header))]
        written = [
            "  ".join(
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        return "\n".join([written[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *written[1:]])

    def to_markdown(self) -> str:
        """A Markdown table, numbers to the right."""
        rule = ("---",) + ("---:",) * (len(self.header) - 1)
        return "\n".join(f"| {' | '.join(line)} |" for line in (self.header, rule, *self.rows))


def arms_table(summaries: dict[str, list[RunSummary]]) -> Table:
    """One column per arm; rows that no run can fill are left out."""
    header = ("", *map(label_of, summaries))
    rows = [(row.title, *(_cell(row, items) for items in summaries.values())) for row in ROWS]
    return Table(header, tuple(row for row in rows if any(cell != ABSENT for cell in row[1:])))


def _cell(row: Row, items: Sequence[RunSummary]) -> str:
    values = [value for value in map(row.value, items) if not math.isnan(value)]
    if not values:
        return ABSENT
    if row.is_count:
        return row.form.format(sum(values))
    low, mean, high = (
        row.form.format(value)
        for value in (min(values), math.fsum(values) / len(values), max(values))
    )
    return mean if low == high else f"{mean} ({low}..{high})"


def write_summary_csv(summaries: Mapping[str, Sequence[RunSummary]], path: Path) -> Path:
    """One line per run, unrounded; empty where a run did not log what is needed."""
    columns = [field.name for field in fields(RunSummary)]
    items = [item for members in summaries.values() for item in members]
    rows = [[getattr(item, column) for column in columns] for item in items]
    empty = [["" if value is None or value != value else value for value in row] for row in rows]
    return write_csv(path, columns, empty)
