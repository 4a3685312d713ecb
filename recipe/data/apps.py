"""APPS (Hendrycks et al. 2021) and micro-APPS to verl's parquet.

`prepare` writes into the output folder, per split, `SPLIT.parquet`; and `quarantine.jsonl` (every
record that was left out, with its reason) and `data_card.json` (counts and lengths), in which
splits that were prepared before stay. Nothing is lost in silence: rows and quarantined records add
up to what was read. The same source and options give the same bytes, and a file that would not
change is not touched. Records pass one by one, so that memory does not grow with them. With
`PrepareOptions.check` the judge runs the reference solutions on their way
(`recipe.data.solution_check`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa

from recipe.data.apps_card import SplitCard
from recipe.data.apps_records import (
    Limits,
    PromptStyle,
    Row,
    problem_id,
    reference_solutions,
    to_row,
)
from recipe.data.files import LineFile, RowFile, check_writable, update_json
from recipe.data.progress import counted
from recipe.data.rows import Malformed, row_schema
from recipe.data.solution_check import Checked, CheckOptions, check_solutions
from recipe.data.sources import Item, SourceError, Unreadable, open_source
from reward.problem import MalformedProblem, Problem, parse_input_output

SEVERAL_ANSWERS = "several right answers? its reference solutions disagree"

__all__ = [
    "CheckOptions",
    "Limits",
    "PrepareOptions",
    "PromptStyle",
    "SourceError",
    "convert",
    "prepare",
]

SCHEMA = row_schema(
    difficulty=pa.string(), starter_code=pa.string(), reference_solution=pa.string()
)


@dataclass(frozen=True)
class PrepareOptions:
    """How records become rows. `max_rows` counts well-formed records per split; None takes all.

    Without `check` nothing is run; with `dry_run` neither that, and nothing is written.
    """

    data_source: str = "apps"
    prompt_style: PromptStyle = PromptStyle.APPS
    limits: Limits = field(default_factory=Limits)
    max_rows: int | None = None
    check: CheckOptions | None = None
    dry_run: bool = False


@dataclass(frozen=True)
class Accepted:
    """A row, the tests as the judge reads them, and the reference solutions in source order."""

    row: Row
    problem: Problem
    solutions: list[str]


@dataclass(frozen=True)
class Quarantined:
    """A record that is left out, and why."""

    problem_id: str
    reason: str


Found = Accepted | Quarantined


def convert(items: Iterable[Item], split: str, options: PrepareOptions) -> Iterator[Found]:
    """Items to rows, in source order. A malformed or repeated record is quarantined."""
    accepted = 0
    seen: set[bytes] = set()
    for place, item in enumerate(items):
        if options.max_rows is not None and accepted >= options.max_rows:
            break
        identity = item.problem_id if isinstance(item, Unreadable) else problem_id(item, place)
        key = blake2b(identity.encode(errors="surrogatepass"), digest_size=16).digest()
        try:
            if key in seen:
                raise Malformed("a record with this problem_id came before")
            found = _accepted(item, split, accepted, identity, options)
        except Malformed as reason:
            yield Quarantined(identity, str(reason))
            continue
        seen.add(key)
        accepted += 1
        yield found


def check(
    found: Iterable[Found], out: Path, options: CheckOptions
) -> Iterator[tuple[Found, Checked | None]]:
    """What was found with the verdicts on its solutions, in the same order."""

    def problem_of(one: Found) -> tuple[Problem, Sequence[str]] | None:
        return (one.problem, one.solutions) if isinstance(one, Accepted) else None

    return check_solutions(found, problem_of, out, options)


def after_check(found: Accepted, checked: Checked, options: CheckOptions) -> Found:
    """The row with its first solution that passes, or why the problem is left out.

    Where the judge itself failed, or there is no solution, nothing is known and the row stays.
    """
    info = found.row["extra_info"]
    if checked.verdicts and checked.accepted is None and not checked.judge_failed:
        return Quarantined(info["problem_id"], checked.reason())
    if options.drop_several_answers and checked.several_answers:
        return Quarantined(info["problem_id"], SEVERAL_ANSWERS)
    if checked.accepted is None:
        return found
    info = info | {"reference_solution": found.solutions[checked.accepted]}
    return Accepted(found.row | {"extra_info": info}, found.problem, found.solutions)


def prepare(
    source: str,
    out: Path,
    splits: Sequence[str] = ("train",),
    options: PrepareOptions | None = None,
) -> dict[str, Any]:
    """Write the dataset of `source` into `out`, split by split, and return the data card.

    Raises SourceError when the source, or one of its splits, is missing or leaves no row, and
    OutputError, before anything is read, when `out` cannot be written into.
    """
    options = options or PrepareOptions()
    opened = open_source(source, splits)
    if not options.dry_run:
        check_writable(out)
    card: dict[str, Any] = {}
    for split in splits:
        card[split] = _prepare_split(source, split, opened[split], out, options)
        if not options.dry_run:
            update_json(out / "data_card.json", card)
    return card


def _prepare_split(
    source: str, split: str, items: Iterable[Item], out: Path, options: PrepareOptions
) -> dict[str, Any]:
    is_checked = options.check is not None and not options.dry_run
    card = SplitCard(checked=is_checked)
    with ExitStack() as files:
        output = _Output(split, out, files) if not options.dry_run else None
        for found in counted(_found(items, split, out, options, card), split, "problem"):
            if isinstance(found, Quarantined):
                card.add_quarantined(found.reason)
            else:
                found.row["extra_info"]["index"] = card.rows
                card.add_row(found.row, found.problem)
            if output is not None:
                output.add(found)
        if card.rows == 0:
            reasons = card.reasons.most_common(3)
            raise SourceError(f"--source {source}: split {split!r} has no usable record; {reasons}")
    return card.content()


def _found(
    items: Iterable[Item], split: str, out: Path, options: PrepareOptions, card: SplitCard
) -> Iterator[Found]:
    """Rows and quarantined records, after the check where there is one, which the card counts."""
    found = convert(items, split, options)
    if options.check is None or options.dry_run:
        yield from found
        return
    for one, checked in check(found, out, options.check):
        if isinstance(one, Accepted) and checked is not None:
            card.add_checked(checked)
            one = after_check(one, checked, options.check)
        yield one


class _Output:
    """The files of one split, opened with the first row: an unusable source leaves nothing."""

    def __init__(self, split: str, out: Path, files: ExitStack) -> None:
        self._split, self._out, self._files = split, out, files
        self._rows: RowFile | None = None
        self._quarantine: LineFile | None = None
        self._waiting: list[Quarantined] = []

    def add(self, found: Found) -> None:
        if isinstance(found, Quarantined):
            self._waiting.append(found)
        elif self._rows is None:
            # In this order: what stays of the quarantine depends on the parquet files.
            quarantine = LineFile(self._out / "quarantine.jsonl", self._split)
            self._quarantine = self._files.enter_context(quarantine)
            rows = RowFile(self._out / f"{self._split}.parquet", SCHEMA)
            self._rows = self._files.enter_context(rows)
        if self._rows is not None and self._quarantine is not None:
            for one in self._waiting:
                entry = {"split": self._split, "problem_id": one.problem_id, "reason": one.reason}
                self._quarantine.add(entry)
            self._waiting.clear()
            if isinstance(found, Accepted):
                self._rows.add(found.row, _chars(found.row))


def _chars(row: Row) -> int:
    return len(row["reward_model"]["ground_truth"]) + len(row["prompt"][0]["content"])


def _accepted(
    item: Item, split: str, index: int, identity: str, options: PrepareOptions
) -> Accepted:
    if isinstance(item, Unreadable):
        raise Malformed(item.reason)
    row = to_row(
        {**item, "problem_id": identity},
        data_source=options.data_source,
        split=split,
        index=index,
        style=options.prompt_style,
        limits=options.limits,
    )
    try:
        problem = parse_input_output(row["reward_model"]["ground_truth"], identity)
    except MalformedProblem as error:
        raise Malformed(f"the judge cannot use the tests: {error}") from error
    return Accepted(row, problem, reference_solutions(item.get("solutions"), options.limits))
