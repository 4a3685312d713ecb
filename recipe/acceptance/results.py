"""What a check found, and how all of them are shown: a table for people, JSON for the record."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

Seen = TypeVar("Seen")
WIDTHS = (30, 6, 62)


class Status(StrEnum):
    """How a check ended."""

    PASS = "pass"
    WARN = "warn"
    """It works, and something about it should be looked at."""
    FAIL = "FAIL"
    NONE = "-"
    """This machine cannot show it; the figure says why."""


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
        name: what was checked. status: how it ended.
        figure: what was measured, in words.
        expected: what a pass needs.
        numbers: the figures behind it, for the JSON.
    """

    name: str
    status: Status
    figure: str
    expected: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


Judge = Callable[[Seen], Sequence[Check]]


def judged(name: str, judge: Judge[Seen], seen: Seen) -> list[Check]:
    """The checks that `judge` makes of what was seen; a fault of its own is a failed check."""
    try:
        return list(judge(seen))
    except Exception as error:
        # Whatever a half-finished run left behind: the other checks are shown all the same.
        return [Check(name, Status.FAIL, f"{type(error).__name__}: {error}", "a figure")]


def table(checks: Sequence[Check]) -> str:
    """The checks as lines of at most about 130 characters, figures wrapped."""
    lines = [_line("check", "result", "figure", "expected")]
    lines.append("-" * len(lines[0]))
    for check in checks:
        name = textwrap.wrap(check.name, WIDTHS[0])
        figure = textwrap.wrap(check.figure, WIDTHS[2]) or [""]
        expected = textwrap.wrap(check.expected, 30) or [""]
        rows = max(len(name), len(figure), len(expected))
        for row in range(rows):
            lines.append(
                _line(
                    *(part[row] if row < len(part) else ""
                      for part in (name, [check.status], figure, expected))
                )
            )  # fmt: skip
    return "\n".join(lines)


def _line(name: str, status: str, figure: str, expected: str) -> str:
    cells = [cell.ljust(width) for cell, width in zip((name, status, figure), WIDTHS, strict=True)]
    return "  ".join([*cells, expected]).rstrip()


def as_json(checks: Sequence[Check], about: Mapping[str, Any]) -> str:
    """Everything, with what the machine is."""
    content = {**about, "checks": [asdict(check) for check in checks]}
    return json.dumps(content, indent=1, default=str) + "\n"


def summary(checks: Sequence[Check]) -> str:
    """One line: how many ended how."""
    counts = {status: sum(check.status is status for check in checks) for status in Status}
    names = {
        Status.PASS: "passed",
        Status.WARN: "warned",
        Status.FAIL: "failed",
        Status.NONE: "not possible here",
    }
    return ", ".join(f"{counts[status]} {name}" for status, name in names.items() if counts[status])
