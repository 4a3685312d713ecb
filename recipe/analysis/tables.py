"""Tables of finished cells: the arms in numbers, for a terminal, a page, as Markdown and as CSV."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from recipe.analysis.names import label_of
from recipe.analysis.output import write_csv
from recipe.analysis.summary import RunSummary

ABSENT = "-"


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
    Row("compared up to step", lambda item: item.compared_to, "{:.0f}"),
    Row("reward, start", lambda item: item.reward_start),
    Row("reward, end", lambda item: item.reward_end),
    Row("validation before training", lambda item: item.validation_start),
    Row("validation, last", lambda item: item.validation_end),
    Row("its standard error, at most", lambda item: item.validation_error),
    Row("pass@1 in validation, before training", lambda item: item.pass_start),
    Row("pass@1 in validation, last", lambda item: item.pass_end),
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
    """One line per run, unrounded; empty if a run did not log what is needed."""
    columns = [field.name for field in fields(RunSummary)]
    items = [item for members in summaries.values() for item in members]
    rows = [[getattr(item, column) for column in columns] for item in items]
    empty = [["" if value is None or value != value else value for value in row] for row in rows]
    return write_csv(path, columns, empty)
