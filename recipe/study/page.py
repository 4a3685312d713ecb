"""A study's results as files: `results.md`, figures, their numbers, and the report of its runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recipe.analysis import report
from recipe.analysis.curves import curves_sheet
from recipe.analysis.output import write_csv, write_whole
from recipe.analysis.panels import Panel
from recipe.analysis.sheets import Sheet, write_numbers, write_pictures
from recipe.analysis.style import THEMES
from recipe.study.differences import write_differences
from recipe.study.equal_time import compare_times, equal_time_table
from recipe.study.results import Compared, Results, compare_all
from recipe.study.tables import (
    CSV_HEADER,
    comparison_table,
    outcome_table,
    panels_table,
    value_rows,
    verdict_table,
)

REPORT_FOLDER = "runs_report"
LOG_WORDS = ("KL",)
"""Panels whose titles hold one of these may be drawn on a logarithmic axis."""


def write_page(results: Results, out: Path) -> tuple[str, list[Path]]:
    """Write everything under `out`; return the text for the terminal and the files."""
    compared = compare_all(results)
    paths = [
        path
        for sheet in _sheets(results)
        for path in (*write_pictures(sheet, out, THEMES), write_numbers(sheet, out))
    ]
    paths += write_differences(compared, results.study.outcome_title, out)
    paths.append(write_csv(out / "values.csv", CSV_HEADER, value_rows(results)))
    markdown = write_whole(out / "results.md", _markdown(results, compared).encode())
    (page, *_), _ = report.write_report(results.found, out / REPORT_FOLDER, pictures=False)
    return _text(results, compared), [markdown, *paths, page]


def _sheets(results: Results) -> list[Sheet]:
    """The curves of each family's arms, or of all arms without a family."""
    study = results.study
    panels = [Panel(study.outcome_title, "mean over runs", (study.outcome,))]
    panels += [
        Panel(title, title, (pattern,), may_be_log=any(word in title for word in LOG_WORDS))
        for title, pattern in study.panels.items()
    ]
    families = {
        f"curves_{family}": list(dict.fromkeys(arm for pair in pairs for arm in pair[::-1]))
        for family, pairs in study.families.items()
    }
    sheets = []
    for name, arms in (families or {"curves": list(study.arms)}).items():
        groups = {arm: list(results.runs[arm]) for arm in arms if arm in results.runs}
        runs = [run for members in groups.values() for run in members]
        if runs:
            sheets.append(curves_sheet(runs, panels, name, study.name, groups=groups))
    return sheets


def _markdown(results: Results, compared: Sequence[Compared]) -> str:
    study = results.study
    verdicts = verdict_table(results)
    missing = [one.label for one in compared if one.result is None]
    sections = [
        f"# {study.name}",
        study.question,
        f"{study.outcome_title} (`{results.metric(study.outcome)}`), mean ± standard error over "
        "the runs:",
        outcome_table(results).to_markdown(),
    ]
    if len(compared) > len(missing):
        sections.append(
            "Comparisons of the outcome at the last step, paired by seed; p is the larger one of "
            "an exact sign-flip test and Student's, which suppose that without an effect the "
            "differences scatter alike on either side of zero; each family shares its level by "
            "Holm's procedure. Intervals are Student's, of each comparison alone."
        )
        sections.append(comparison_table(compared, study.level).to_markdown())
    times = compare_times(results)
    if times:
        sections.append(
            "The same at equal training time: of each two runs of a seed, the outcome when the "
            "first of them ends, interpolated between validations. Described, not tested; it means "
            "something only if the arms were trained on one machine beside the same work."
        )
        sections.append(equal_time_table(times).to_markdown())
    if missing:
        sections.append(f"No seed has finished in both arms: {', '.join(missing)}.")
    if study.panels:
        sections += ["At the last step:", panels_table(results).to_markdown()]
    if verdicts:
        sections += ["Verdicts on held-out problems at the last step:", verdicts.to_markdown()]
    remarks = _remarks(results)
    if remarks:
        sections.append("Found in the run folders:\n\n" + "\n".join(remarks))
    return "\n\n".join(sections) + "\n"


def _remarks(results: Results) -> list[str]:
    """What was found in the run folders, a line for each kind, with where it was found."""
    places: dict[str, list[str]] = {}
    for finding in results.found.findings:
        places.setdefault(finding.message, []).append(_place(finding.path, results.folder))
    return [f"- {message} ({', '.join(where)})" for message, where in places.items()]


def _place(path: Path | None, folder: Path) -> str:
    if path is None:
        return "all runs"
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def _text(results: Results, compared: Sequence[Compared]) -> str:
    tables = [outcome_table(results), comparison_table(compared, results.study.level)]
    text = "\n\n".join(table.to_text() for table in tables if table.rows)
    names = [f"{run.arm} seed {run.seed}" for run in results.unfinished]
    return f"{text}\n\nNot finished: {', '.join(names)}" if names else text
