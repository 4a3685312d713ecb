"""Command line of the APPS preparation; see recipe.data.apps."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recipe.data.apps import (
    CheckOptions,
    Limits,
    PrepareOptions,
    PromptStyle,
    SourceError,
    prepare,
)
from recipe.data.arguments import default_workers, positive, seconds
from recipe.data.files import OutputError
from reward.config import JudgeConfig, JudgeConfigError
from reward.sandbox.client import SandboxError


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepares the dataset and prints its counts; 2 if source or output cannot be used."""
    options = _parser().parse_args(arguments)
    try:
        card = prepare(options.source, options.out, options.splits, _prepare_options(options))
    except (SourceError, OutputError, JudgeConfigError, OSError) as error:
        print(f"prepare_apps: {error}", file=sys.stderr)
        return 2
    except SandboxError as error:
        print(
            f"prepare_apps: the judge does not start on this machine ({error}). Fix: see "
            "docs/judge.md, or --no-check",
            file=sys.stderr,
        )
        return 2
    _say(card, options.out, options.dry_run)
    return 0


def _say(card: Mapping[str, Any], out: Path, dry_run: bool) -> None:
    for split, counts in card.items():
        print(
            f"{out / split}.parquet: {counts['rows']} problems "
            f"({counts['call_based']} call-based), {counts['quarantined']} quarantined"
        )
        solved = counts["constant_answers"]["problems_solved"]
        if several := counts.get("several_answers", {}).get("flagged"):
            print(f"  {several} may have several right answers: their solutions disagree")
        if solved:
            print(f"  a constant answer passes all tests of {len(solved)} of them (data_card.json)")
    if dry_run:
        reasons = {split: counts["reasons"] for split, counts in card.items()}
        print(f"dry run: nothing was written, no solution was run; reasons: {reasons}")
    elif any(counts["quarantined"] for counts in card.values()):
        print(f"reasons: {out / 'quarantine.jsonl'}")


def _parser() -> argparse.ArgumentParser:
    limits = Limits()
    parser = argparse.ArgumentParser(
        prog="python -m recipe.data.prepare_apps",
        description="Turn APPS into verl's parquet files.",
    )
    parser.add_argument(
        "--source",
        required=True,
        help="folder of problems (NNNN/question.txt …), .jsonl, .parquet, a folder of those, or a "
        "Hugging Face id such as codeparrot/apps",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder to write into")
    parser.add_argument("--splits", nargs="+", default=["train"], metavar="SPLIT")
    parser.add_argument("--data-source", default="apps", help="the data_source column")
    parser.add_argument(
        "--prompt-style",
        default=PromptStyle.APPS.value,
        choices=[style.value for style in PromptStyle],
        help="apps: with instructions; bare: question and starter code only",
    )
    parser.add_argument("--max-rows", type=positive, help="problems to take of each split")
    parser.add_argument(
        "--workers",
        type=positive,
        default=default_workers(),
        help="processes that run solutions (default: this machine's cores, 8 at most)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="read and count only: nothing is written and no solution is run",
    )
    parser.add_argument(
        "--no-check",
        action="store_true",
        help="do not run the reference solutions. By default the judge runs them, and a problem "
        "whose solutions all fail is quarantined; it goes on where it was interrupted",
    )
    parser.add_argument(
        "--max-solutions",
        type=positive,
        default=CheckOptions.max_solutions,
        help="reference solutions of a problem to try until one passes (default 3)",
    )
    parser.add_argument(
        "--compare-solutions",
        type=positive,
        default=CheckOptions.compare_solutions,
        help="reference solutions of a problem to run at least, to see whether they disagree: the "
        "problem may have several right answers then (default 3, at most --max-solutions)",
    )
    parser.add_argument(
        "--drop-several-answers",
        action="store_true",
        help="leave out problems whose reference solutions disagree on a test",
    )
    parser.add_argument(
        "--timeout-s",
        type=seconds,
        default=JudgeConfig.timeout_s,
        help="seconds of CPU time a test, as in training (default 4)",
    )
    for name, default in vars(limits).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=positive, default=default)
    return parser


def _prepare_options(options: argparse.Namespace) -> PrepareOptions:
    return PrepareOptions(
        data_source=options.data_source,
        prompt_style=PromptStyle(options.prompt_style),
        limits=Limits(**{name: getattr(options, name) for name in vars(Limits())}),
        max_rows=options.max_rows,
        dry_run=options.dry_run,
        check=None
        if options.no_check
        else CheckOptions(
            JudgeConfig(timeout_s=options.timeout_s, workers=options.workers),
            options.max_solutions,
            options.compare_solutions,
            options.drop_several_answers,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
