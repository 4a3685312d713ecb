"""APPS (Hendrycks et al. 2021) and micro-APPS to verl's parquet.

`prepare` writes into the output folder, per split, `SPLIT.parquet`; and `quarantine.jsonl` (every
record that was left out, with its reason) and `data_card.json` (counts and lengths). Nothing is
lost in silence: rows and quarantined records add up to what was read. The same source and options
give the same bytes, and a file that would not change is not touched. With `PrepareOptions.check`
the judge runs the reference solutions first (`recipe.data.solution_check`).
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from recipe.data.apps_records import (
    Limits,
    PromptStyle,
    Row,
    problem_id,
    reference_solutions,
    to_row,
)
from recipe.data.files import write_json, write_json_lines, write_parquet
from recipe.data.rows import Malformed, row_schema
from recipe.data.solution_check import Checked, CheckOptions, best_constant, check_solutions
from recipe.data.sources import Item, SourceError, Unreadable, open_source
from reward import jsontext
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

    Without `check` nothing is run.
    """

    data_source: str = "apps"
    prompt_style: PromptStyle = PromptStyle.APPS
    limits: Limits = field(default_factory=Limits)
    max_rows: int | None = None
    check: CheckOptions | None = None


@dataclass(frozen=True)
class Accepted:
    """A row, the tests as the judge reads them, and the reference solutions in source order."""

    row: Row
    problem: Problem
    solutions: list[str]


@dataclass(frozen=True)
class Converted:
    """What became of one split.

    Attributes:
        accepted: in source order. quarantined: in source order, those refused by the check last.
        checked: a check's findings, problem by problem, None if none was made.
    """

    split: str
    accepted: list[Accepted]
    quarantined: list[dict[str, str]]
    checked: list[Checked] | None = None

    @property
    def rows(self) -> list[Row]:
        return [one.row for one in self.accepted]


def convert(items: Iterable[Item], split: str, options: PrepareOptions) -> Converted:
    """Items to rows. A malformed or repeated record is quarantined with its reason."""
    accepted: list[Accepted] = []
    quarantined: list[dict[str, str]] = []
    seen: set[str] = set()
    for place, item in enumerate(items):
        if options.max_rows is not None and len(accepted) >= options.max_rows:
            break
        identity = item.problem_id if isinstance(item, Unreadable) else problem_id(item, place)
        try:
            if identity in seen:
                raise Malformed("a record with this problem_id came before")
            accepted.append(_accepted(item, split, len(accepted), identity, options))
            seen.add(identity)
        except Malformed as reason:
            quarantined.append({"split": split, "problem_id": identity, "reason": str(reason)})
    return Converted(split, accepted, quarantined)


def check(part: Converted, out: Path, options: CheckOptions) -> Converted:
    """Without the problems whose solutions all fail, or disagree where such are to be dropped.

    A row's solution is the first that passes.

    Where the judge itself failed, or there is no solution, nothing is known and the row stays.
    """
    problems = [(one.problem, one.solutions) for one in part.accepted]
    checked = check_solutions(problems, out, options, f"{part.split}: checking solutions")
    accepted: list[Accepted] = []
    quarantined = list(part.quarantined)
    for one, found in zip(part.accepted, checked, strict=True):
        info = one.row["extra_info"]
        if found.verdicts and found.accepted is None and not found.judge_failed:
            entry = {"split": part.split, "problem_id": info["problem_id"]}
            quarantined.append({**entry, "reason": found.reason()})
            continue
        if options.drop_several_answers and found.several_answers:
            entry = {"split": part.split, "problem_id": info["problem_id"]}
            quarantined.append({**entry, "reason": SEVERAL_ANSWERS})
            continue
        solution = info["reference_solution"]
        if found.accepted is not None:
            solution = one.solutions[found.accepted]
        info = info | {"index": len(accepted), "reference_solution": solution}
        accepted.append(Accepted(one.row | {"extra_info": info}, one.problem, one.solutions))
    return Converted(part.split, accepted, quarantined, checked)


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
    converted = [_convert_split(source, split, opened[split], out, options) for split in splits]
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
    source: str, split: str, items: Iterable[Item], out: Path, options: PrepareOptions
) -> Converted:
    bar = tqdm(items, desc=f"{split}: reading", unit="problem", disable=None)
    part = convert(bar, split, options)
    if options.check is not None:
        part = check(part, out, options.check)
    if not part.accepted:
        reasons = Counter(entry["reason"] for entry in part.quarantined).most_common(3)
        raise SourceError(f"--source {source}: split {split!r} has no usable record; {reasons}")
    return part


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


def _describe(part: Converted) -> dict[str, Any]:
    """Counts and lengths (characters) of one split."""
    prompts = [len(row["prompt"][0]["content"]) for row in part.rows]
    suites = [jsontext.loads(row["reward_model"]["ground_truth"]) for row in part.rows]
    tests = [len(suite["inputs"]) for suite in suites]
    card = {
        "read": len(part.rows) + len(part.quarantined),
        "rows": len(part.rows),
        "quarantined": len(part.quarantined),
        "reasons": dict(sorted(Counter(one["reason"] for one in part.quarantined).items())),
        "call_based": sum("fn_name" in suite for suite in suites),
        "without_reference_solution": sum(
            not row["extra_info"]["reference_solution"] for row in part.rows
        ),
        "difficulty": dict(
            sorted(Counter(r["extra_info"]["difficulty"] for r in part.rows).items())
        ),
        "prompt_chars": {"median": statistics.median(prompts), "max": max(prompts)},
        "tests": {"median": statistics.median(tests), "max": max(tests)},
        "constant_answers": _describe_constants(part.accepted),
    }
    if part.checked is not None:
        card["solution_check"] = _describe_check(part.checked)
        card["several_answers"] = _describe_answers(part.checked)
    return card


def _describe_constants(accepted: list[Accepted]) -> dict[str, Any]:
    """What a policy could earn without solving anything: by printing the best constant."""
    shares = {
        one.row["extra_info"]["problem_id"]: best_constant(one.problem) / len(one.problem.tests)
        for one in accepted
    }
    return {
        "mean_share_of_tests_passed": round(statistics.fmean(shares.values()), 4),
        "problems_with_half_passed": sum(share >= 0.5 for share in shares.values()),
        "problems_solved": [name for name, share in shares.items() if share == 1],
    }


def _describe_answers(checked: list[Checked]) -> dict[str, Any]:
    """Problems with several right answers? Those whose reference solutions disagree on a test."""
    return {
        "compared": sum(len(one.verdicts) > 1 for one in checked),
        "flagged": sum(one.several_answers for one in checked),
        "problems": [one.problem_id for one in checked if one.several_answers],
    }


def _describe_check(checked: list[Checked]) -> dict[str, int]:
    """How many problems of each kind; the kinds add up to the problems checked."""
    tried = [one for one in checked if one.verdicts]
    return {
        "accepted": sum(one.accepted is not None for one in tried),
        "accepted_not_the_first": sum((one.accepted or 0) > 0 for one in tried),
        "none_accepted": sum(one.accepted is None and not one.judge_failed for one in tried),
        "judge_failed": sum(one.judge_failed for one in tried),
        "without_solution": len(checked) - len(tried),
    }
