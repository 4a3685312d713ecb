"""Run folders to a report: `python -m recipe.analysis.report RUN [RUN …] --out DIR`.

`report.html` is one self-contained page. Beside it lie a CSV with each figure's numbers and, unless
the page alone is asked for, each figure as PNG and PDF.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from recipe.analysis.ablation import ablation_sheets, absent_ablations, find_ablations
from recipe.analysis.benchmarks import benchmarks_table, named_folder
from recipe.analysis.choice import Choice, caption, choose_episode
from recipe.analysis.cli import add_run_arguments, complain_of_no_run
from recipe.analysis.comparison import answer_sheet, comparison_sheet, dynamics_sheet
from recipe.analysis.cost import cost_sheet
from recipe.analysis.derived import with_derived
from recipe.analysis.examples import Example, choose_examples, write_examples_csv
from recipe.analysis.heatmap import write_heatmap, write_heatmap_csv
from recipe.analysis.live import INTERVAL_S, keep_rendering
from recipe.analysis.marked_text import EpisodeView, view_of
from recipe.analysis.observatory import (
    failure_table,
    outcome_sheet,
    policy_sheet,
    refiner_sheet,
    verdict_table,
)
from recipe.analysis.output import write_whole
from recipe.analysis.overhead import cost_table
from recipe.analysis.overview import runs_table, state_of, title_of
from recipe.analysis.page import Page, SheetView, render, view_sheet
from recipe.analysis.records import Finding, in_lines
from recipe.analysis.runs import Loader, Run, RunSet, group_by_arm
from recipe.analysis.sheets import Sheet, write_numbers, write_pictures
from recipe.analysis.start import start_sheet
from recipe.analysis.summary import summarise
from recipe.analysis.tables import Table, arms_table, write_summary_csv
from recipe.analysis.variants import unlike_arms
from recipe.analysis.verdict import write_verdict

PAGE_NAME = "report.html"
NO_HEATMAP = "No accepted refinement has CE on both copied and edited tokens: no heat map."


@dataclass
class Desk:
    """Where a report is written, and what came of it: files, and findings on the way."""

    out: Path
    pictures: bool
    paths: list[Path]
    findings: list[Finding]

    def sheet(self, sheet: Sheet) -> SheetView:
        """Write a figure's files and draw it for the page."""
        made = [write_numbers(sheet, self.out)]
        if self.pictures and sheet.plots:
            made = [*write_pictures(sheet, self.out), *made]
        return view_sheet(sheet, self.add(made))

    def add(self, made: Iterable[Path]) -> list[str]:
        """Note files that were written; return their names."""
        new = list(made)
        self.paths += new
        return [path.name for path in new]

    def episodes(self, chosen: Iterable[tuple[Choice, str]]) -> list[EpisodeView]:
        """Read episodes for the page; one whose file changed since is left out, with a finding."""
        views = []
        for choice, why in chosen:
            try:
                views.append(view_of(choice, why))
            except (OSError, ValueError) as error:
                message = f"changed while it was read, one episode is left out ({error})"
                self.findings.append(Finding(choice.run.path, message))
        return views

    def written(self, write: Callable[[], Iterable[Path]]) -> list[str]:
        """Files about episodes, which are read again for it; none if one changed since."""
        try:
            return self.add(write())
        except (OSError, ValueError) as error:
            self.findings.append(Finding(None, f"files about episodes are left out ({error})"))
            return []


def write_report(
    found: RunSet,
    out: Path,
    pictures: bool = True,
    refresh_s: int = 0,
    evaluations: Sequence[tuple[str, Path]] = (),
) -> tuple[list[Path], list[Finding]]:
    """Write the page and its files under `out`; return them, the page first, and all findings.

    `refresh_s` makes the page reload itself; 0 leaves it still. `evaluations` are folders of
    `recipe.evaluation` by name, whose scores the page shows.
    """
    benchmarks, missing = benchmarks_table(evaluations)
    desk = Desk(out, pictures, [], [*found.findings, *missing])
    page = _compose(with_derived(found.runs), desk, refresh_s, benchmarks)
    return [write_whole(out / PAGE_NAME, render(page)), *desk.paths], desk.findings


def _compose(
    runs: Sequence[Run], desk: Desk, refresh_s: int, benchmarks: Table | None = None
) -> Page:
    summaries = summarise(runs)
    ablations = find_ablations(runs)
    choice = choose_episode(runs)
    heatmaps = desk.episodes([(choice, "")] if choice else [])
    examples = choose_examples(runs)
    views = desk.episodes((example.choice, example.why) for example in examples)
    costs, cost_words = cost_table(runs)
    observatory = [refiner_sheet(runs), outcome_sheet(runs), policy_sheet(runs)]
    if start := start_sheet(runs):
        observatory.append(start)
    return Page(
        title=title_of(runs),
        state=state_of(runs, datetime.now(UTC)),
        refresh_s=refresh_s,
        verdict=write_verdict(summaries, unlike_arms(group_by_arm(runs))),
        answer=view_sheet(answer_sheet(runs)),
        summary=arms_table(summaries),
        summary_files=desk.add([write_summary_csv(summaries, desk.out / "summary.csv")]),
        benchmarks=benchmarks,
        training=[
            desk.sheet(dynamics_sheet(runs)),
            desk.sheet(comparison_sheet(runs, summaries)),
        ],
        heatmap=heatmaps[0] if heatmaps else None,
        heatmap_caption=caption(choice) if choice else "",
        heatmap_files=_heatmap_files(choice if heatmaps else None, desk),
        no_heatmap=NO_HEATMAP,
        ablations=[desk.sheet(sheet) for sheet in ablation_sheets(ablations)],
        absent_ablations=absent_ablations(ablations, runs),
        examples=views,
        examples_files=_examples_files(examples if views else [], desk),
        cost=desk.sheet(cost_sheet(runs)),
        cost_table=costs,
        cost_words=cost_words,
        observatory=[desk.sheet(sheet) for sheet in observatory],
        verdicts=verdict_table(runs),
        failures=failure_table(runs),
        runs=runs_table(runs),
        # Last: the figures above add to them.
        findings=in_lines(desk.findings),
    )


def _heatmap_files(choice: Choice | None, desk: Desk) -> list[str]:
    if choice is None:
        return []
    if desk.pictures:
        return desk.written(lambda: write_heatmap(choice, desk.out))
    return desk.written(lambda: [write_heatmap_csv(choice, desk.out / "heatmap.csv")])


def _examples_files(examples: Sequence[Example], desk: Desk) -> list[str]:
    if not examples:
        return []
    return desk.written(lambda: [write_examples_csv(examples, desk.out / "examples.csv")])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report, once or as long as the runs go on; the exit status is 1 without any run."""
    options = build_parser().parse_args(arguments)
    loader = Loader(options.runs)

    def show(found: RunSet, last: bool) -> bool:
        pictures = last and not options.page_only
        refresh_s = 0 if last else options.live
        return _show(found, options.out, pictures, refresh_s, options.evaluation)

    try:
        if options.live:
            return keep_rendering(loader.load, show, options.live)
        return 0 if show(loader.load(), last=True) else 1
    except OSError as error:
        # Reading the runs raises none: this is about the folder to write to.
        print(f"--out {options.out}: cannot write there ({error})", file=sys.stderr)
        return 1


def _show(
    found: RunSet,
    out: Path,
    pictures: bool,
    refresh_s: int,
    evaluations: Sequence[tuple[str, Path]],
) -> bool:
    """Write the report and say so; whether there was any run to report on."""
    if not found.runs and refresh_s:
        print("no run yet", flush=True)
        return False
    if not found.runs:
        complain_of_no_run(found.findings)
        return False
    paths, findings = write_report(found, out, pictures, refresh_s, evaluations)
    for line in in_lines(findings):
        print(line, file=sys.stderr)
    print(f"{paths[0]} and {len(paths) - 1} files beside it", flush=True)
    return True


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.analysis.report",
        description="Write a report on runs: one self-contained HTML page, its figures as PNG and "
        "PDF, and their numbers as CSV.",
        epilog="Seeds of an arm are aggregated. Partial, killed and resumed runs are read as far "
        "as they go; what had to be worked around is on the page and on stderr.",
    )
    add_run_arguments(parser)
    parser.add_argument(
        "--page-only", action="store_true", help="the page and the CSV files, no PNG and PDF"
    )
    parser.add_argument(
        "--evaluation", nargs="+", type=named_folder, default=[], metavar="NAME=DIR",
        help="folders of `recipe.evaluation evaluate --out`, whose pass@1 is to be on the page"
    )  # fmt: skip
    parser.add_argument(
        "--live",
        nargs="?",
        type=_seconds,
        const=INTERVAL_S,
        default=0,
        metavar="SECONDS",
        help="write the page again at this interval (30) until the runs have finished, or until "
        "Ctrl-C; the open page reloads itself",
    )
    return parser


def _seconds(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1 second")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
