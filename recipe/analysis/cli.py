"""What the commands of this package share: which runs to read, and what to say without any."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from recipe.analysis.records import Finding, in_lines


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `runs` and `--out`."""
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="a run folder, or a folder that holds some",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where to write; made if absent"
    )


def complain_of_no_run(findings: Iterable[Finding]) -> None:
    """Say on stderr what was found instead of runs."""
    for line in in_lines(findings):
        print(line, file=sys.stderr)
    print("no runs to read; pass run folders, or a folder that holds some", file=sys.stderr)
