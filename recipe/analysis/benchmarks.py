"""pass@1 on benchmarks, as the paper's table 1: what `recipe.evaluation` left behind."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recipe.analysis.episodes import is_number
from recipe.analysis.printable import printable
from recipe.analysis.records import Finding
from recipe.analysis.tables import ABSENT, Table

RESULTS = "results.json"


def named_folder(word: str) -> tuple[str, Path]:
    """NAME=DIR of a command line; the last NAME of a repeated one counts."""
    name, separator, folder = word.partition("=")
    if not (name and separator and folder):
        raise argparse.ArgumentTypeError(f"{word!r}: write NAME=DIR")
    return name, Path(folder)


def benchmarks_table(
    evaluations: Sequence[tuple[str, Path]],
) -> tuple[Table | None, list[Finding]]:
    """A line for each benchmark, protocol and number of problems, a column for each evaluation.

    Scores over other problems stand on lines of their own, since they do not compare. What cannot
    be read is a finding; None without a score.
    """
    findings: list[Finding] = []
    scores: dict[tuple[str, str, str], dict[str, str]] = {}
    for name, folder in evaluations:
        try:
            found = _read(folder / RESULTS)
        except (OSError, ValueError) as error:
            findings.append(Finding(folder, f"no scores of this evaluation can be read ({error})"))
            continue
        for key, cell in found.items():
            scores.setdefault(key, {})[name] = cell
    names = list(dict.fromkeys(name for name, _ in evaluations))
    if not scores:
        return None, findings
    rows = tuple(
        (*key, *(cells.get(name, ABSENT) for name in names)) for key, cells in scores.items()
    )
    return Table(("benchmark", "protocol", "problems", *map(printable, names)), rows), findings


def _read(path: Path) -> dict[tuple[str, str, str], str]:
    """pass@1 in percent with its interval, by benchmark, protocol and number of problems."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, list):
        raise ValueError("not a list of scores")
    return {
        _key(score): cell
        for score in content
        if isinstance(score, dict) and (cell := _cell(score)) is not None
    }


def _key(score: Mapping[str, Any]) -> tuple[str, str, str]:
    names = (score.get("benchmark"), score.get("protocol"), score.get("problems"))
    first, second, third = (printable(str(name)) for name in names)
    return first, second, third


def _cell(score: Mapping[str, Any]) -> str | None:
    passes = score.get("pass_at")
    estimate = passes.get("1") if isinstance(passes, dict) else None
    if not isinstance(estimate, dict):
        return None
    numbers = [estimate.get(key) for key in ("value", "low", "high")]
    if not all(map(is_number, numbers)):
        return None
    value, low, high = (100 * float(number) for number in numbers if number is not None)
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"
