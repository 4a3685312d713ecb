"""APPS (Hendrycks et al. 2021) and micro-APPS to verl's parquet.

`prepare` writes into the output folder, per split, `SPLIT.parquet`; and `quarantine.jsonl` (every
record that was left out, with its reason) and `data_card.json` (counts and lengths). Nothing is
lost in silence: rows and quarantined records add up to what was read. The same source and options
give the same bytes, and a file that would not change is not touched.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from recipe.data.apps_records import Limits, PromptStyle, Row, problem_id, to_row
from recipe.data.files import write_json, write_json_lines, write_parquet
from recipe.data.rows import Malformed, row_schema
from recipe.data.sources import Item, SourceError, Unreadable, open_source

__all__ = ["Limits", "PrepareOptions", "PromptStyle", "SourceError", "convert", "prepare"]

SCHEMA = row_schema(
    difficulty=pa.string(), starter_code=pa.string(), reference_solution=pa.string()
)


@dataclass(frozen=True)
class PrepareOptions:
    """How records become rows. `max_rows` counts accepted rows per split; None takes all."""

    data_source: str = "apps"
    prompt_style: PromptStyle = PromptStyle.APPS
    limits: Limits = field(default_factory=Limits)
    max_rows: int | None = None


@dataclass(frozen=True)
class Converted:
    """Rows and quarantine entries of one split, both in source order."""

    split: str
    rows: list[Row]
    quarantined: list[dict[str, str]]


def convert(items: Iterable[Item], split: str, options: PrepareOptions) -> Converted:
    """Items to rows. A malformed or repeated record is quarantined with its reason."""
    rows: list[Row] = []
    quarantined: list[dict[str, str]] = []
    seen: set[str] = set()
    for place, item in enumerate(items):
        if options.max_rows is not None and len(rows) >= options.max_rows:
            break
        identity = item.problem_id if isinstance(item, Unreadable) else problem_id(item, place)
        try:
            if identity in seen:
                raise Malformed("a record with this problem_id came before")
            rows.append(_row(item, split, len(rows), identity, options))
            seen.add(identity)
        except Malformed as reason:
            quarantined.append({"split": split, "problem_id": identity, "reason": str(reason)})
    return Converted(split, rows, quarantined)


def prepare(
    source: str,
    out: Path,
    splits: Sequence[str] = ("train",),
    options: PrepareOptions | None = None,
) -> dict[str, Any]:
    """Writes the dataset of `source` into `out` and returns the data card.

    Raises SourceError when the source, or one of its splits, is missing or leaves no row.
    """
    options = options or PrepareOptions()
    opened = open_source(source, splits)
    converted = [_convert_split(source, split, opened[split], options) for split in splits]
    out.mkdir(parents=True, exist_ok=True)
    for part in converted:
        table = pa.Table.from_pylist(part.rows, schema=SCHEMA)
        write_parquet(out / f"{part.split}.parquet", table)
    write_json_lines(
        out / "quarantine.jsonl", (entry for part in converted for entry in part.quarantined)
    )
    card = {part.split: _describe(part) for part in converted}
    write_json(out / "data_card.json", card)
    return card


def _convert_split(
    source: str, split: str, items: Iterable[Item], options: PrepareOptions
) -> Converted:
    bar = tqdm(items, desc=f"{split}: reading", unit="problem", disable=None)
    part = convert(bar, split, options)
    if not part.rows:
        reasons = Counter(entry["reason"] for entry in part.quarantined).most_common(3)
        raise SourceError(f"--source {source}: split {split!r} has no usable record; {reasons}")
    return part


def _row(item: Item, split: str, index: int, identity: str, options: PrepareOptions) -> Row:
    if isinstance(item, Unreadable):
        raise Malformed(item.reason)
    return to_row(
        {**item, "problem_id": identity},
        data_source=options.data_source,
        split=split,
        index=index,
        style=options.prompt_style,
        limits=options.limits,
    )


def _describe(part: Converted) -> dict[str, Any]:
    """Counts and lengths (characters) of one split."""
    prompts = [len(row["prompt"][0]["content"]) for row in part.rows]
    suites = [json.loads(row["reward_model"]["ground_truth"]) for row in part.rows]
    tests = [len(suite["inputs"]) for suite in suites]
    return {
        "read": len(part.rows) + len(part.quarantined),
        "rows": len(part.rows),
        "quarantined": len(part.quarantined),
        "call_based": sum("fn_name" in suite for suite in suites),
        "without_reference_solution": sum(
            not row["extra_info"]["reference_solution"] for row in part.rows
        ),
        "difficulty": dict(
            sorted(Counter(r["extra_info"]["difficulty"] for r in part.rows).items())
        ),
        "prompt_chars": {"median": statistics.median(prompts), "max": max(prompts)},
        "tests": {"median": statistics.median(tests), "max": max(tests)},
    }
