"""Command line of the preparation of DAPO-Math-17k and AIME 2024; see recipe.data.math_problems."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recipe.data.arguments import positive
from recipe.data.files import OutputError
from recipe.data.math_problems import TRAIN, VALIDATION, PrepareOptions, prepare
from recipe.data.sources import SourceError

FLAGS = {TRAIN: "--source", VALIDATION: "--validation"}
HUB_IDS = {TRAIN: "BytedTsinghua-SIA/DAPO-Math-17k", VALIDATION: "BytedTsinghua-SIA/AIME-2024"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare the dataset and print its counts; 2 if a source or the output cannot be used."""
    options = _parser().parse_args(arguments)
    given = {TRAIN: options.source, VALIDATION: options.validation}
    sources = {split: source for split, source in given.items() if source}
    how = PrepareOptions(options.max_rows, options.max_problem_chars, options.dry_run)
    try:
        card = prepare(sources, options.out, how)
    except (SourceError, OutputError, OSError) as error:
        print(f"dapo_math: {error}", file=sys.stderr)
        return 2
    _say(card, options.out, options.dry_run)
    return 0


def _say(card: Mapping[str, Any], out: Path, dry_run: bool) -> None:
    for split, counts in card.items():
        print(
            f"{out / split}.parquet: {counts['rows']} problems, {counts['repeats']} repeats left "
            f"out, {counts['quarantined']} quarantined"
        )
    if dry_run:
        reasons = {split: counts["reasons"] for split, counts in card.items()}
        print(f"dry run: nothing was written; reasons: {reasons}")
    elif any(counts["quarantined"] for counts in card.values()):
        print(f"reasons: {out / 'quarantine.jsonl'}")


def _parser() -> argparse.ArgumentParser:
    defaults = PrepareOptions()
    parser = argparse.ArgumentParser(
        prog="python -m recipe.data.dapo_math",
        description="Turn DAPO-Math-17k, and AIME 2024 for validation, into verl's parquet files.",
    )
    for split, hub_id in HUB_IDS.items():
        parser.add_argument(
            FLAGS[split],
            default=hub_id,
            metavar="SOURCE",
            help=f"of the {split} split: .parquet, .jsonl, a folder of those, a hub id (default: "
            f"{hub_id}), or '' for none",
        )
    parser.add_argument("--out", required=True, type=Path, help="folder to write into")
    parser.add_argument("--max-rows", type=positive, help="problems to take of each split")
    parser.add_argument("--max-problem-chars", type=positive, default=defaults.max_problem_chars)
    parser.add_argument(
        "--dry-run", action="store_true", help="read and count only: nothing is written"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
