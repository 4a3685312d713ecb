"""Run folders to figures and a table: `python -m recipe.analysis.plot RUN [RUN ...] --out DIR`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from recipe.analysis.choice import choose_episode
from recipe.analysis.cli import add_run_arguments, complain_of_no_run
from recipe.analysis.curves import write_curves
from recipe.analysis.heatmap import write_heatmap
from recipe.analysis.records import Finding, in_lines
from recipe.analysis.runs import RunSet, group_by_arm, load_runs
from recipe.analysis.summary import summarise
from recipe.analysis.tables import arms_table, write_summary_csv
from recipe.analysis.variants import unlike_arms
from recipe.analysis.verdict import write_verdict

NO_EPISODE = "no heat map: no accepted episode has CE on both copied and edited tokens"


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, then print table, verdict, findings and files; the exit status is 1 without any run."""
    options = build_parser().parse_args(arguments)
    found = load_runs(options.runs)
    if not found.runs:
        complain_of_no_run(found.findings)
        return 1
    text, paths = write_report(found, options.out)
    print("\n".join([text, "", "Files", *(f"  {path}" for path in paths)]))
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.analysis.plot",
        description="Draw the training curves of runs, a heat map of one refined episode, "
        "and a table of the arms.",
        epilog="Seeds of an arm are aggregated. Partial, killed and resumed runs are read as far "
        "as they go; what had to be worked around is listed under the table.",
    )
    add_run_arguments(parser)
    return parser


def write_report(found: RunSet, out: Path) -> tuple[str, list[Path]]:
    """Write all figures and tables of `found` under `out`; return the text for the terminal and the
    files written.
    """
    summaries = summarise(found.runs)
    table, verdict = (
        arms_table(summaries),
        write_verdict(summaries, unlike_arms(group_by_arm(found.runs))),
    )
    findings = list(found.findings)
    paths = write_curves(found.runs, out)
    choice = choose_episode(found.runs)
    if choice is None:
        findings.append(Finding(None, NO_EPISODE))
    else:
        paths += write_heatmap(choice, out)
    paths.append(write_summary_csv(summaries, out / "summary.csv"))
    listed = [f"- {line}" for line in in_lines(findings)]
    markdown = out / "summary.md"
    sections = [table.to_markdown(), "\n".join(f"- {sentence}" for sentence in verdict.sentences)]
    if listed:
        sections.append("Found in the run folders:\n\n" + "\n".join(listed))
    markdown.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    text = "\n\n".join([table.to_text(), "\n".join(verdict.sentences)])
    if listed:
        text += "\n\nFound in the run folders\n" + "\n".join(listed)
    return text, [*paths, markdown]


if __name__ == "__main__":
    raise SystemExit(main())
