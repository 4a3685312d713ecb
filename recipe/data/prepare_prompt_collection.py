"""Command line of the Prompt-Collection preparation; see recipe.data.prompt_collection."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from recipe.data.arguments import not_negative, positive
from recipe.data.files import OutputError
from recipe.data.prompt_collection import SPLITS, PrepareOptions, prepare
from recipe.data.sources import SourceError


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare the dataset and print its counts; 2 if source or output cannot be used."""
    options = _parser().parse_args(arguments)
    try:
        card = prepare(options.source, options.out, _prepare_options(options))
    except (SourceError, OutputError, OSError) as error:
        print(f"prepare_prompt_collection: {error}", file=sys.stderr)
        return 2
    for split in SPLITS:
        subsets = ", ".join(f"{name} {n}" for name, n in card[split]["subsets"].items())
        print(f"{options.out / split}.parquet: {card[split]['rows']} conversations ({subsets})")
    if options.dry_run:
        print(f"dry run: nothing was written; quarantined: {card['quarantined']}")
    elif card["quarantined"]["total"]:
        print(f"{card['quarantined']['total']} quarantined: {options.out / 'quarantine.jsonl'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    defaults = PrepareOptions()
    parser = argparse.ArgumentParser(
        prog="python -m recipe.data.prepare_prompt_collection",
        description="Turn Prompt-Collection into verl's parquet files.",
    )
    parser.add_argument(
        "--source",
        required=True,
        help=".parquet, .jsonl, a folder of those, or OpenRLHF/prompt-collection-v0.1",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder to write into")
    parser.add_argument("--validation-rows", type=not_negative, default=defaults.validation_rows)
    parser.add_argument("--max-records", type=positive, help="records to read")
    parser.add_argument("--subsets", nargs="+", help="values of the `dataset` column to keep")
    for name in ("max_conversation_chars", "max_turns"):
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=positive, default=getattr(defaults, name))
    parser.add_argument(
        "--dry-run", action="store_true", help="read and count only: nothing is written"
    )
    return parser


def _prepare_options(options: argparse.Namespace) -> PrepareOptions:
    return PrepareOptions(
        validation_rows=options.validation_rows,
        max_conversation_chars=options.max_conversation_chars,
        max_turns=options.max_turns,
        subsets=frozenset(options.subsets) if options.subsets else None,
        max_records=options.max_records,
        dry_run=options.dry_run,
    )


if __name__ == "__main__":
    sys.exit(main())
